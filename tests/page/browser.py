"""Drives a headless Chromium over its debugging pipe; needs nothing but the browser and Python.

Owns the process and the few things a test does with a page: open, evaluate, press, type, click, wait. Knows nothing of
what the page is.
"""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Tab": (9, ""),
    "Space": (32, " "),
    "ArrowUp": (38, ""),
    "ArrowDown": (40, ""),
    "Backspace": (8, ""),
}
MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}


def find():
    """The browser's path: CHROMIUM, or the first of the usual names; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A process with a profile of its own, both gone after `close`."""

    def __init__(self, path):
        self._profile = tempfile.TemporaryDirectory(prefix="page-test-", ignore_cleanup_errors=True)
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # The pipe is file descriptors 3 and 4; a shell moves ours there.
        command = 'exec "$0" "$@" 3<&%d 4>&%d' % (to_browser, from_browser)
        options = [
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            f"--user-data-dir={self._profile.name}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            ["sh", "-c", command, path, *options],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._ids = itertools.count(1)
        self._answers = {}
        self._arrived = threading.Condition()
        self._listeners = []
        self._closed = False
        threading.Thread(target=self._read, daemon=True).start()

    def page(self, width=1200, height=800):
        """A new tab in a context of its own: nothing kept, nothing shared."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context, width=width, height=height)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Page(self, session, target, width, height)

    def call(self, method, session=None, timeout=60, **params):
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        with self._arrived:
            if not self._arrived.wait_for(lambda: number in self._answers or self._closed, timeout):
                raise TimeoutError(method)
            if number not in self._answers:
                raise ConnectionError("the browser ended")
            answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def listen(self, listener):
        self._listeners.append(listener)

    def close(self):
        try:
            self.call("Browser.close", timeout=5)
        except (ConnectionError, TimeoutError, OSError):
            pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def _read(self):
        rest = b""
        while data := os.read(self._in, 1 << 16):
            *whole, rest = (rest + data).split(b"\0")
            for text in whole:
                message = json.loads(text)
                if "id" in message:
                    with self._arrived:
                        self._answers[message["id"]] = message
                        self._arrived.notify_all()
                else:
                    for listener in self._listeners:
                        listener(message)
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()


class Page:
    """One tab. `problems` collects what the page's console and the browser complain about."""

    def __init__(self, browser, session, target, width, height):
        self._browser = browser
        self._session = session
        self._target = target
        self.problems = []
        browser.listen(self._heard)
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def call(self, method, **params):
        return self._browser.call(method, self._session, **params)

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def reload(self):
        self.evaluate("window.before = true")
        self.call("Page.reload")
        self.wait("!window.before && document.readyState === 'complete'")

    def evaluate(self, expression):
        """The value of a JavaScript expression; a promise is awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in result:
            raise AssertionError(result["exceptionDetails"]["exception"].get("description", expression))
        return result["result"].get("value")

    def wait(self, expression, timeout=30):
        """Until an expression holds. Returns its value; an element's is `{}`."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                value = self.evaluate(expression)
                if value or value == {}:
                    return value
            except (AssertionError, RuntimeError) as error:
                if "context" not in str(error) and "null" not in str(error):
                    raise
            time.sleep(0.02)
        raise AssertionError(f"never came true: {expression}\n{self.text('body')[-1500:]}")

    def text(self, selector):
        """What is seen of an element, or an empty text."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def count(self, selector):
        return self.evaluate(f"document.querySelectorAll({json.dumps(selector)}).length")

    def click(self, selector):
        """Clicks where the element's middle is, as a mouse does: what lies over it is hit instead."""
        x, y = self.wait(
            f"""(() => {{
              const element = document.querySelector({json.dumps(selector)});
              element.scrollIntoView({{ block: "nearest" }});
              const box = element.getBoundingClientRect();
              return box.width ? [box.x + box.width / 2, box.y + box.height / 2] : null;
            }})()"""
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, keys):
        """A key with modifiers: "Enter", "Control+k"."""
        *modifiers, key = keys.split("+") if keys != "+" else ["+"]
        code, text = KEYS.get(key, (ord(key.upper()) if len(key) == 1 else 0, key))
        mask = sum(MODIFIERS[name] for name in modifiers)
        typed = "" if mask & ~MODIFIERS["Shift"] else text
        event = {"key": " " if key == "Space" else key, "windowsVirtualKeyCode": code, "modifiers": mask}
        if len(key) == 1 and key.isalpha():
            event["code"] = f"Key{key.upper()}"
        self.call("Input.dispatchKeyEvent", type="keyDown" if typed else "rawKeyDown", text=typed, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, **features):
        """CSS media features: prefer(prefers_color_scheme="dark")."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=listed)

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def close(self):
        self._browser.call("Target.closeTarget", targetId=self._target)

    def _heard(self, message):
        if message.get("sessionId") != self._session:
            return
        params = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif message["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
