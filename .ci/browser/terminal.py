"""A program in a tmux of its own: keys go in, screens come out, and Chromium takes a screen's picture.

What tmux shows becomes HTML, each cell where a terminal has it, whatever the font says; nothing is
drawn by hand.
"""
import html
import os
import re
import shutil
import subprocess
import time

import chromium

COLUMNS = 150
PATIENCE = 60
PALETTE = ["#1b1f27", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d5d9e0"] * 2
# A cell in whole pixels: seams would show in the curves. The font's size follows from its width.
WIDTH, HEIGHT, MARGIN = 7, 15, 12
BACKGROUND, FOREGROUND = "#14171d", "#c9ced6"


def find():
    """tmux's path, or nothing where it is not installed."""
    return shutil.which("tmux")


class Terminal:
    """A window with one program; `folder` is for the socket."""

    def __init__(self, folder, command, lines=24):
        self.folder = folder
        self.tmux = ["tmux", "-S", os.path.join(folder, "tmux"), "-f", "/dev/null"]
        self.run("new-session", "-d", "-x", str(COLUMNS), "-y", str(lines), command, ";", "set", "status", "off")
        # Without its line of status the window has all lines.
        self.size(lines)

    def run(self, *words):
        return subprocess.run([*self.tmux, *words], check=True, capture_output=True, text=True,
                              env={**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}).stdout

    def size(self, lines):
        self.run("resize-window", "-x", str(COLUMNS), "-y", str(lines))

    def press(self, *keys):
        self.run("send-keys", *keys)

    def screen(self):
        """What stands there, with its colours."""
        return self.run("capture-pane", "-e", "-p", "-N").rstrip("\n")

    def text(self):
        return re.sub(r"\x1b\[[0-9;]*m", "", self.screen())

    def wait(self, what, holds):
        """Waits until the text holds, and gives it."""
        end = time.monotonic() + PATIENCE
        while not holds(text := self.text()):
            assert time.monotonic() < end, f"in vain: {what}:\n{text}"
            time.sleep(0.2)
        return text

    def picture(self, browser, path):
        screen = self.screen()
        source = os.path.join(self.folder, "screen.html")
        with open(source, "w") as out:
            out.write(page(screen))
        size = COLUMNS * WIDTH + 2 * MARGIN, (screen.count("\n") + 1) * HEIGHT + 2 * MARGIN
        tab = chromium.Tab(browser, f"file://{source}", *size)
        tab.size(*size, 2)
        tab.picture(path)
        tab.close()

    def close(self):
        # Nothing is left to close where the program has ended.
        subprocess.run([*self.tmux, "kill-server"], capture_output=True)


def colour(number):
    """One of the 256 colours of a terminal."""
    if number < 16:
        return PALETTE[number]
    if number >= 232:
        return "#" + f"{8 + 10 * (number - 232):02x}" * 3
    steps = [0, 95, 135, 175, 215, 255]
    number -= 16
    return "#" + "".join(f"{steps[n]:02x}" for n in (number // 36, number // 6 % 6, number % 6))


def page(screen):
    """A screen as HTML."""
    lines, look = [], {}
    for text in screen.split("\n"):
        column, cells = 0, []
        for escape, letter in re.findall(r"\x1b\[([0-9;]*)m|([^\x1b])", text):
            if letter:
                style = "".join(f"{name}:{value};" for name, value in look.items())
                cells.append(f'<i style="left:{column * WIDTH}px;{style}">{html.escape(letter)}</i>')
                column += 1
            else:
                restyle(look, [int(code or 0) for code in escape.split(";")])
        lines.append(f"<p>{''.join(cells)}</p>")
    return f"""<!doctype html><meta charset=utf-8><style>
    body {{ margin: 0; background: {BACKGROUND}; color: {FOREGROUND}; padding: {MARGIN}px;
           font: 11.63px/{HEIGHT}px "DejaVu Sans Mono", monospace; }}
    p {{ margin: 0; position: relative; height: {HEIGHT}px; white-space: pre; }}
    i {{ position: absolute; font-style: normal; width: {WIDTH}px; height: {HEIGHT}px;
        overflow: hidden; }}
    </style>{''.join(lines)}"""


def restyle(look, codes):
    """What an escape's numbers make of the look of the letters behind it."""
    while codes:
        code = codes.pop(0)
        if code == 0:
            look.clear()
        elif code == 1:
            look["font-weight"] = "bold"
        elif code in (38, 48) and codes[:1] == [5]:
            look["color" if code == 38 else "background"] = colour(codes[1])
            del codes[:2]
        elif code in (39, 49):
            look.pop("color" if code == 39 else "background", None)
        elif 30 <= code < 38:
            look["color"] = colour(code - 30)
