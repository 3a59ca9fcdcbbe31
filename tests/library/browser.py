"""Chromium without a window, driven over its DevTools protocol as a person drives it: keys in, pictures out."""

import asyncio
import base64
import io
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tornado.websocket import WebSocketClientConnection, websocket_connect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
PATIENCE_S = 40.0


class Page:
    """One page of a browser."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: WebSocketClientConnection) -> None:
        self._loop, self._socket, self._numbers = loop, socket, itertools.count(1)
        self.told: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result; errors that the page tells of meanwhile are kept in ``told``."""
        return self._loop.run_until_complete(self._called(method, parameters))

    async def _called(self, method: str, parameters: dict[str, Any]) -> Any:
        number = next(self._numbers)
        await self._socket.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = await asyncio.wait_for(self._socket.read_message(), PATIENCE_S)
            assert said is not None, "the browser is gone"
            message = json.loads(said)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            if message.get("method") == "Runtime.exceptionThrown":
                self.told.append(message["params"]["exceptionDetails"]["exception"].get("description", "?"))
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.told.append(message["params"]["entry"]["text"])

    def evaluate(self, code: str) -> Any:
        """Return the value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)["result"].get(
            "value"
        )

    def until(self, code: str) -> None:
        """Wait until an expression is true in the page."""
        wait(lambda: bool(self.evaluate(code)), f"{code}; the page told: {self.told}")

    def press(self, key: str) -> None:
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def size(self, width: int, height: int) -> None:
        """Give the page another size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self) -> NDArray[np.uint8]:
        """Return what is to be seen, as (row, column, colour)."""
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def wait(done: Callable[[], bool], what: str) -> None:
    """Wait until something is so. Raises AssertionError when it takes too long."""
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.05)


@contextmanager
def browse(profile: Path) -> Iterator[Page]:
    """Yield a page of a browser that keeps its own files in a folder."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    try:
        at = profile / "DevToolsActivePort"
        wait(lambda: at.is_file() and at.read_text().count("\n") > 0, "Chromium's port")
        port = at.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE_S) as answer:
            address = next(t["webSocketDebuggerUrl"] for t in json.load(answer) if t["type"] == "page")

        async def connect() -> WebSocketClientConnection:
            return await websocket_connect(address, max_message_size=1 << 26)

        socket = loop.run_until_complete(connect())
        yield Page(loop, socket)
        socket.close()
    finally:
        started.terminate()
        started.wait()
        loop.close()
