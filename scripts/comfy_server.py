"""A real ComfyUI server on 127.0.0.1 with a private base directory and this pack in its custom_nodes.

Used by the quick start and by the app tests. Standard library only.
"""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PACK_NAME = "dreamvideo2"


class ServerError(Exception):
    """The server did not start, or the pack did not load into it; the message quotes its log."""


class ComfyServer:
    """Start with ``start()``, end with ``stop()``; also a context manager that does both.

    Args:
        python: interpreter that has ComfyUI's requirements.
        comfyui: folder with ComfyUI's ``main.py``.
        pack: this repository; it appears in the server as a link ``custom_nodes/dreamvideo2``.
        base: an existing folder for this server alone: models, input, output, temp, user and ``server.log`` go there.
        port: None takes a free one.
        frontend: folder of another version of the web frontend than the installed one.
    """

    def __init__(
        self, python: Path, comfyui: Path, pack: Path, base: Path, port: int | None = None, frontend: Path | None = None
    ) -> None:
        self.base = base
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = base / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._comfyui, self._pack = comfyui, pack
        self._command: list[str] = [str(python), str(comfyui / "main.py"), "--cpu"]
        self._command += ["--listen", "127.0.0.1", "--port", str(self.port), "--base-directory", str(base)]
        self._command += ["--database-url", "sqlite:///:memory:", "--disable-api-nodes", "--disable-auto-launch"]
        if frontend is not None:
            self._command += ["--front-end-root", str(frontend)]

    def start(self, timeout: float = 180.0) -> None:
        """Start it and wait until it answers and offers this pack's nodes.

        Raises:
            ServerError: the port is taken, the server ended, it took longer than ``timeout`` seconds, or the pack
                failed to load.
        """
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                raise ServerError(f"Port {self.port} is in use by another program; give another one with --port.")
        for name in ("custom_nodes", "models", "input", "output"):
            (self.base / name).mkdir(exist_ok=True)
        link = self.base / "custom_nodes" / PACK_NAME
        if not link.is_symlink():
            link.symlink_to(self._pack, target_is_directory=True)
        # A session of its own: Ctrl-C in the terminal reaches the caller, which then stops the server in order.
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._comfyui,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server; harmless when it has ended already."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> "ComfyServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def get(self, route: str) -> Any:
        """The JSON that GET ``route`` answers with."""
        with urllib.request.urlopen(self.url + route, timeout=60) as answer:
            return json.load(answer)

    def post(self, route: str, data: Any) -> tuple[int, Any]:
        """POST ``data`` as JSON; returns the HTTP status and the JSON that came back (None when there was none)."""
        body = json.dumps(data).encode()
        headers = {"Content-Type": "application/json", "Comfy-User": ""}
        request = urllib.request.Request(self.url + route, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        return status, json.loads(text) if text.strip() else None

    def peak_memory(self) -> int | None:
        """The most resident memory the server has used so far, in bytes; None where the system does not tell."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text() if self.process else ""
        except OSError:
            return None
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None

    def log_tail(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _wait_until_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            if self.process is None or self.process.poll() is not None:
                raise ServerError(f"ComfyUI ended while starting. The end of its log:\n\n{self.log_tail()}")
            try:
                known = self.get("/object_info")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"ComfyUI did not answer within {timeout:.0f} s. The end of its log:\n\n{self.log_tail()}"
                    ) from None
                time.sleep(0.2)
        if not any(node["python_module"] == f"custom_nodes.{PACK_NAME}" for node in known.values()):
            raise ServerError(f"ComfyUI runs, but this pack did not load. The end of its log:\n\n{self.log_tail(60)}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
