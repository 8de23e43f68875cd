"""Chromium as a test drives it: over its debugging pipe, without a network or another package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
_FLAGS += ["--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"]
_SECONDS = 60.0


class Browser:
    """One page of a browser.

    Args:
        profile: An empty folder of its own.
    """

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()

        def place() -> None:  # where Chromium looks for them
            for target, copy in ((3, os.dup(commands)), (4, os.dup(answers))):
                os.dup2(copy, target)

        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place,  # noqa: PLW1509  nothing else can number a child's files
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._n, self._rest, self._session = 0, b"", ""
        self._poll = select.poll()  # select() itself takes no file numbered 1024 or more
        self._poll.register(self._in, select.POLLIN)
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the DevTools protocol; events that come meanwhile go to `events`."""
        self._n += 1
        message = {"id": self._n, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._n:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert self._poll.poll(int(1000 * _SECONDS)), "the browser says nothing"
            chunk = os.read(self._in, 1 << 16)
            assert chunk, "the browser ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is on the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, page: Path | str, *, width: int, dark: bool = False, until: str = "true") -> None:
        """Load a file or an address in a window so wide, until an expression holds; clears `events`."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        address = page if isinstance(page, str) else page.as_uri()
        self.call("Page.navigate", url=address)
        end = time.monotonic() + _SECONDS
        while not self.value(f"document.readyState === 'complete' && Boolean({until})"):
            assert time.monotonic() < end, f"{until} never held"
            time.sleep(0.02)

    def complaints(self) -> list[str]:
        """What the page wrote to the console, and errors nobody caught."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def requests(self) -> list[str]:
        """Every address that was asked for, the page's own among them."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def picture(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        width, height = self.value("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End it."""
        self._session = ""
        self.call("Browser.close")
        self._process.wait(timeout=20)
        os.close(self._out)
        os.close(self._in)
