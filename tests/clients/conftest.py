"""A `downshift serve` over the demo models, for all tests of this folder."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("DOWNSHIFT_BIN", str(ROOT / "target/release/downshift"))

MODELS = """
[settings]
models_dir = {models!r}
default_model = "large"
stall_timeout = "5s"

[models.large]
path = "demo-large.gguf"
aliases = ["gpt-4o"]
temperature = 0.0
parallel = 4

[models.small]
path = "demo-small.gguf"
temperature = 0.0
parallel = 4

[models.missing]
path = "not-there.gguf"
fallbacks = ["small"]

[models.alone]
path = "not-there.gguf"
fallbacks = []
"""

EMBEDDER = """
[models.embedder]
path = {folder!r}
fallbacks = []
"""


class Server:
    """One running server."""

    def __init__(self, folder: Path, *arguments: str, **environment: str):
        text = MODELS.format(models=str(ROOT / "models"))
        self.embedder = os.environ.get("DOWNSHIFT_TEST_EMBEDDER")
        if self.embedder:
            text += EMBEDDER.format(folder=self.embedder)
        config = folder / "models.toml"
        config.write_text(text)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [BINARY, "serve", "--port", str(self.port), "--config", str(config), *arguments]
        self.log = open(folder / "log.txt", "w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env={**os.environ, **environment})
        for _ in range(200):
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                time.sleep(0.05)
        self.log.seek(0)
        raise RuntimeError("the server did not start:\n" + self.log.read())

    def json(self, path: str, body=None):
        """GET, or POST of `body`, as plain JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def active(self) -> int:
        """Requests that run now, over all models."""
        return sum(model.get("active_requests") or 0 for model in self.json("/v1/models")["data"])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(20) == 0, "a server that is asked to end ends well"
        finally:
            self.process.kill()
            self.log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def guarded(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("guarded"), "--api-key", "secret")
    yield running
    running.stop()


def wait_until(holds, seconds: float = 2.0) -> bool:
    """Whether `holds()` comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False
