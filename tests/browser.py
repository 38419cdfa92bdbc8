"""A headless Chromium, driven through its DevTools protocol over a pair of pipes.

Nothing beyond the standard library and the system's own ``chromium`` is needed:
``--remote-debugging-pipe`` reads and writes JSON messages, each ended by a NUL.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--force-color-profile=srgb", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--remote-debugging-pipe",
)  # fmt: skip
TIMEOUT_S = 120
DESKTOP, PHONE = (1280, 800), (390, 760)


def find_chromium() -> str | None:
    """The system's Chromium, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def require_chromium() -> None:
    """Skip the test where there is none; fail it where there must be one."""
    if find_chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs the system's chromium; .ci/run installs it")
        pytest.skip("no chromium on this machine; a package of the system brings it")


class BrowserError(Exception):
    """The browser ended, did not answer, or what it was told to run has thrown."""


class Page:
    """One tab. What it asks the network for and what it complains of are kept from the first moment."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def open(self, path: Path) -> None:
        """Load a file, and wait until all of it is there."""
        self._loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + TIMEOUT_S
        while not self._loaded:
            self._hear(deadline)

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            details = done["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return done["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > deadline:
                raise BrowserError(f"never became true: {script}; complaints: {self.complaints}")
            time.sleep(0.1)

    def press(self, key: str, code: int) -> None:
        """A key on what has the focus: its name, and its Windows virtual key code."""
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text
            )

    def turn_wheel(self, x: float, y: float, by: float) -> None:
        """The mouse wheel over a place of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=by)

    def show_as(
        self, width: int, height: int, *, dark: bool = False, media: str = "", phone: bool = False
    ) -> None:
        """The size of the window in CSS px, the colours that the reader prefers, and ``print`` or screen."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def screenshot(
        self, *, whole: bool = False, clip: tuple[float, float, float, float] | None = None
    ) -> bytes:
        """A PNG of what is in view, of the ``whole`` page, or of ``clip`` (x, y, width, height)."""
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole or clip is not None}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = (0, 0, size["width"], size["height"])
        if clip is not None:
            options["clip"] = dict(zip(("x", "y", "width", "height"), clip, strict=True), scale=1)
        return b64decode(self.call("Page.captureScreenshot", **options)["data"])

    def box(self, selector: str, margin: float = 0) -> tuple[float, float, float, float]:
        """Where an element lies on the page: x, y, width and height, with a margin."""
        x, y, width, height = self.run(
            f"(r => [r.x + scrollX, r.y + scrollY, r.width, r.height])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        return x - margin, y - margin, width + 2 * margin, height + 2 * margin

    def pdf(self) -> bytes:
        """The page as it is printed, A4."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": False}
        return b64decode(self.call("Page.printToPDF", preferCSSPageSize=True, **paper)["data"])

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._hear(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _hear(self, deadline: float) -> dict[str, Any]:
        """The next message; events are noted on the way."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise BrowserError("no answer in time")
            heard = os.read(self._answers, 1 << 20)
            if not heard:
                raise BrowserError("the browser has ended")
            self._buffer += heard
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, said: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif event == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(
                " ".join(str(one.get("value", one.get("description"))) for one in said["args"])
            )
        elif event == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(said["entry"]["text"])


@contextmanager
def open_browser(profile: Path, *flags: str) -> Iterator[Page]:
    """A fresh Chromium with ``profile``, a folder that doesn't exist yet; it ends with the block."""
    chromium = find_chromium()
    if chromium is None:
        raise BrowserError("there is no Chromium on this machine")
    their_input, commands = os.pipe()
    answers, their_output = os.pipe()
    # the browser wants its pipes as 3 and 4, and a shell is the portable way to put them there
    renumber = f'exec "$0" "$@" 3</dev/fd/{their_input} 4>/dev/fd/{their_output}'
    process = subprocess.Popen(
        ["/bin/sh", "-c", renumber, chromium, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(their_input, their_output), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(their_input)
    os.close(their_output)
    try:
        yield Page(commands, answers)
    finally:
        with suppress(OSError):  # it may have ended by itself
            os.write(commands, b'{"id": 0, "method": "Browser.close"}\0')
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(commands)
        os.close(answers)


def pixels(png: bytes) -> np.ndarray:
    """[rows, columns, 3], 0 to 255."""
    return (imread(BytesIO(png))[..., :3] * 255).round().astype(np.uint8)


def assert_not_blank(png: bytes, *, dark: bool = False) -> None:
    picture = pixels(png)
    assert (picture.mean() < 110) if dark else (picture.mean() > 140)
    assert len(np.unique(picture.astype(np.uint32) @ [65536, 256, 1])) > 60
    for part in np.array_split(picture, 4):
        assert part.std() > 2  # something in every quarter
