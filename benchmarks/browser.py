"""A real browser without a window, driven through its debugging pipe: no package and no network is needed.

Messages are JSON, each ended by a zero byte, as Chrome's DevTools Protocol has them.
"""

import base64
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LONGEST = 60.0
"""Seconds that an answer may take; a browser starts slowly on a busy machine."""


def find_browser() -> str | None:
    """Return the path of an installed browser that has the pipe, ``None`` for none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class BrowserError(RuntimeError):
    """The browser failed, ended or was silent."""


class Browser:
    """One tab of a running browser.

    Attributes:
        complaints: errors and warnings of the console, and exceptions of scripts.
        requests: addresses that the tab asked for, without those of data.
    """

    def __init__(self, process: subprocess.Popen[bytes], out: int, back: int) -> None:
        self.process, self.out, self.back = process, out, back
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number, self._session, self._rest = 0, None, b""
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; what else arrives before it is noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method} failed ({answer['error']}): expected a result; see its parameters")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + LONGEST
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self.back], [], [], max(deadline - time.monotonic(), 0))
            read = os.read(self.back, 1 << 16) if ready else b""
            if not read:
                happened = "has ended" if ready else f"has not answered for {LONGEST:.0f} s"
                raise BrowserError(f"the browser {happened}: expected an answer; start it by hand to see why")
            self._rest += read
        text, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, parameters: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(parameters["args"]))
        elif method == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            address = parameters["request"]["url"]
            self.requests += [address] if not address.startswith("data:") else []

    def open(self, page: Path, width: int, scheme: str, height: int = 900) -> None:
        """Load ``page`` in a window of a size, in ``light`` or ``dark``."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._loaded = False
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._read()

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression} raised {answer['exceptionDetails']}: expected a value")
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Click the middle of the first element of ``selector``, as a mouse does."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, selector: str) -> None:
        """Move the mouse to the middle of the first element of ``selector``."""
        x, y = self._middle(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def _middle(self, selector: str) -> list[float]:
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView({{block: 'center'}})")
        # Pages hear of scrolling with the next frame.
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        box = self.evaluate(f"(({{x, y, width, height}}) => [x, y, width, height])({element}.getBoundingClientRect())")
        return [box[0] + box[2] / 2, box[1] + box[3] / 2]

    def press(self, key: str) -> None:
        """Press and release a key, such as ``Enter``, ``Tab`` or ``ArrowRight``."""
        text = {"Enter": "\r"}.get(key)
        code = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37}[key]
        own = {"key": key, "code": key, "windowsVirtualKeyCode": code} | ({"text": text} if text else {})
        self.call("Input.dispatchKeyEvent", type="keyDown", **own)
        self.call("Input.dispatchKeyEvent", type="keyUp", **{name: own[name] for name in ("key", "code")})

    def picture(self) -> bytes:
        """Return a PNG of the window."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """Yield a running browser.

    Args:
        program: of ``find_browser``.
        profile: an empty folder for what the browser writes.
    """
    (its_in, out), (back, its_out) = os.pipe(), os.pipe()
    options = [
        *("--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run", "--disable-gpu"),
        # As root, as in containers, its sandbox does not start; the pages are our own.
        *("--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "about:blank"),
    ]
    # A browser listens to descriptor 3 and answers on descriptor 4.
    command = f"exec {shlex.join([program, *options])} 3<&{its_in} 4>&{its_out}"
    process = subprocess.Popen(
        ["bash", "-c", command], pass_fds=(its_in, its_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(its_in)
    os.close(its_out)
    try:
        yield Browser(process, out, back)
    finally:
        process.terminate()
        process.wait(LONGEST)
        os.close(out)
        os.close(back)
