"""What scripts know of the page: its rows, what a check of it says, and how its pictures are taken."""
import json
import os
import time

import chromium

ROWS = "[...document.querySelectorAll('.containers tbody tr')].filter(r => r.offsetParent)"
NAMES = f"{ROWS}.map(r => r.querySelector('a').textContent)"
LIVE = "document.querySelector('#link')?.textContent === 'live'"
WIDE, TALL, NARROW = (1360, 860), (1360, 940), (390, 844)


def expect(what, holds):
    assert holds, what
    print(f"  ok: {what}", flush=True)


def shows(tab, what, script, patience=chromium.PATIENCE):
    value, seconds = tab.wait(what, script, patience)
    print(f"  ok: {what} ({seconds:.2f} s)", flush=True)
    return value


def rows(tab):
    """What the table says: {container: {column: text}}."""
    cells = "Object.fromEntries([...r.cells].map(c => [c.classList[c.classList.length - 1], c.innerText]))"
    return json.loads(tab.run(f"JSON.stringify(Object.fromEntries({ROWS}.map(r => [r.querySelector('a').textContent, {cells}])))"))


def pictures(browser, url, folder, container=None):
    """Takes them of all views, and of one container (`#/c/{producer}/{container}`), or of the first."""
    os.makedirs(folder, exist_ok=True)

    def picture(name, theme, size, view="", scale=1, mobile=False):
        tab = chromium.Tab(browser, f"{url}?theme={theme}{view}", *size)
        tab.size(*size, scale, mobile)
        drawn = "document.querySelectorAll('.plot path.line').length" if "/c/" in view else "document.querySelector('main .card:not([hidden])')"
        tab.wait(f"{name} is drawn", f"{LIVE} && !!{drawn}")
        # Some more samples, so that what moves is seen to.
        time.sleep(3)
        tab.picture(os.path.join(folder, f"{name}.png"))
        print(f"  {folder}/{name}.png")
        tab.close()

    if container is None:
        first = "document.querySelector('.containers tbody a')"
        tab = chromium.Tab(browser, url)
        tab.wait("containers are there", f"!!{first}")
        container = tab.run(f"{first}.getAttribute('href')")
        tab.close()
    picture("page-light", "light", WIDE)
    picture("page-dark", "dark", WIDE)
    picture("page-narrow", "light", NARROW, scale=2, mobile=True)
    picture("container-light", "light", TALL, container)
    picture("container-dark", "dark", TALL, container)
    picture("container-narrow", "dark", NARROW, container, 2, True)
    picture("alerts-light", "light", WIDE, "#/alerts")
    picture("cluster-dark", "dark", WIDE, "#/cluster")
