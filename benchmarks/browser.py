"""Chromium without a window, driven over a pipe by its DevTools protocol: to open a page as a person does."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_KEYS = {
    "/": "Slash",
    "Escape": "Escape",
    "Enter": "Enter",
    "ArrowDown": "ArrowDown",
    "ArrowRight": "ArrowRight",
}


class Browser:
    """One tab. `problems` are what it has said of the page's errors, those of its Content-Security-Policy too."""

    def __init__(self, commands: int, replies: int) -> None:
        self._commands, self._replies, self._buffer, self._last = commands, replies, b"", 0
        self._session = ""
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self._last:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                result: dict[str, Any] = found["result"]
                return result
            if found.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.problems.append(json.dumps(found["params"]))

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = os.read(self._replies, 1 << 20)
            if not read:
                raise RuntimeError("the browser has ended")
            self._buffer += read
        text, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is, as JSON has it."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = 30) -> Any:
        """The expression's value as soon as it is true."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {expression}; {self.problems}")
            time.sleep(0.02)
        return found

    def open(self, path: Path, fragment: str = "") -> None:
        """Open a file from `file://`."""
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """The size of the window in CSS pixels, and which colours the person likes."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str) -> None:
        """A key, down and up."""
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        code = _KEYS.get(key, f"Key{key.upper()}")
        number = {"Enter": 13, "Escape": 27}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number, **more
            )


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser that ends with the block, with a profile of its own."""
    assert CHROMIUM, "needs Chromium: apt-get install chromium"
    command_read, command_write = os.pipe()
    reply_read, reply_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                "bash", "-c", f'exec 3<&{command_read} 4>&{reply_write}; exec "$@"', "bash", CHROMIUM, "--headless=new",
                "--no-sandbox", "--disable-gpu",
                "--disable-ipc-flooding-protection",  # tests turn pages faster than a person does
                "--remote-debugging-pipe", f"--user-data-dir={profile}",
            ],
            pass_fds=(command_read, reply_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(command_read)
        os.close(reply_write)
        try:
            yield Browser(command_write, reply_read)
        finally:
            process.kill()
            process.wait()
            os.close(command_write)
            os.close(reply_read)
