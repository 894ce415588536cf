"""A headless Chromium, driven through its debugging pipe: messages of JSON, each ended by a zero.

Standard library only. Nothing listens on a port, and the browser ends with this process.
"""
import base64
import itertools
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time

PATIENCE = 20
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find():
    """The browser's path, or nothing where none is installed."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    def __init__(self, path):
        self.folder = tempfile.TemporaryDirectory(prefix="aklight-page-", ignore_cleanup_errors=True)
        to_read, self.to = os.pipe()
        self.back, to_write = os.pipe()
        command = [
            path, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run",
            "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
            "--disable-component-update", "--hide-scrollbars", "--mute-audio",
            "--proxy-server=direct://", f"--user-data-dir={self.folder.name}", "about:blank",
        ]
        # Chromium reads from handle 3 and writes to handle 4.
        script = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "browser", *command], pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        os.close(to_read)
        os.close(to_write)
        self.numbers = itertools.count(1)
        self.answers = {}
        self.events = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        rest = b""
        while chunk := os.read(self.back, 1 << 16):
            *messages, rest = (rest + chunk).split(b"\0")
            for message in map(json.loads, messages):
                waiting = self.answers.pop(message.get("id"), None)
                (waiting or self.events).put(message)

    def call(self, method, session=None, **parameters):
        number, answer = next(self.numbers), queue.Queue()
        self.answers[number] = answer
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        try:
            got = answer.get(timeout=PATIENCE)
        except queue.Empty:
            raise TimeoutError(f"{method}: no answer from the browser") from None
        if "error" in got:
            raise RuntimeError(f"{method}: {got['error']['message']}")
        return got["result"]

    def close(self):
        try:
            self.call("Browser.close")
            self.process.wait(timeout=PATIENCE)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()


class Tab:
    """One tab. What the page complains about is kept in `complaints`."""

    def __init__(self, browser, url, width=1360, height=850):
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session, self.target = attached["sessionId"], target
        self.complaints = []
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{part}.enable")
        self.size(width, height)
        # Where containers come and go the browser gives up what is under way.
        while self.call("Page.navigate", url=url).get("errorText") == "net::ERR_NETWORK_CHANGED":
            time.sleep(0.2)
        self.wait(f"{url} is there", "location.protocol != 'about:' && document.readyState == 'complete'")

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def size(self, width, height, scale=1, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=scale, mobile=mobile)

    def block(self, *urls):
        """Lets no request through whose address is like one of these."""
        self.call("Network.setBlockedURLs", urls=urls)

    def run(self, script):
        """The value of a JavaScript expression."""
        got = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in got:
            details = got["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details["text"]
            raise RuntimeError(f"{script}: {text}")
        return got["result"].get("value")

    def wait(self, what, script, patience=PATIENCE):
        """Waits until an expression holds; its value, and the seconds that it took. One that looks at
        what is not there yet does not hold."""
        began = time.monotonic()
        while True:
            value, wrong = None, ""
            try:
                value = self.run(script)
            except RuntimeError as error:
                wrong = f" ({error})"
            seconds = time.monotonic() - began
            if value:
                return value, seconds
            if seconds > patience:
                raise AssertionError(f"in vain: {what}{wrong}")
            time.sleep(0.05)

    def click(self, selector):
        self.wait(f"{selector} is there", f"!!document.querySelector({json.dumps(selector)})")
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        script = "JSON.stringify((b => [b.x + b.width / 2, b.y + b.height / 2])"
        box = self.run(f"{script}(document.querySelector({json.dumps(selector)}).getBoundingClientRect()))")
        x, y = json.loads(box)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def key(self, name, text=""):
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name)

    def write(self, text):
        self.call("Input.insertText", text=text)

    def picture(self, path):
        got = self.call("Page.captureScreenshot", format="png")
        with open(path, "wb") as file:
            file.write(base64.b64decode(got["data"]))

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)

    def errors(self):
        """What scripts threw, what the page's policy forbade, and what failed otherwise."""
        while not self.browser.events.empty():
            event = self.browser.events.get()
            parameters = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description") or details["text"])
            elif event["method"] == "Network.loadingFailed" and "blockedReason" in parameters:
                self.complaints.append(f"not let through: {parameters['blockedReason']}")
            elif event["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
                entry = parameters["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
        return self.complaints
