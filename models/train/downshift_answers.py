"""Asks the downshift binary: `downshift chat` for single questions, `downshift serve` where there is a history."""

import contextlib
import json
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

START_TIMEOUT_S = 20
ANSWER_TIMEOUT_S = 60


def chat_once(binary: str, model: str, messages: list[dict]) -> str:
    """One process, one question; `messages` is an optional system prompt and one question."""
    command = [binary, "chat", "--json", "-m", model, "--temperature", "0", "--max-tokens", "64"]
    if messages[0]["role"] == "system":
        command += ["--system", messages[0]["content"]]
    # A question may begin with a dash or a digit: everything after `--` is the prompt.
    command += ["--", messages[-1]["content"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["content"]


@contextlib.contextmanager
def serving(binary: str, model: str) -> Iterator[str]:
    """A server for one model file while the block runs; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "models.toml"
        config.write_text(f"[models.demo]\npath = {json.dumps(str(Path(model).resolve()))}\n")
        server = subprocess.Popen([binary, "serve", "--port", str(port), "--config", str(config)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            _wait_until_open(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=START_TIMEOUT_S)


def _wait_until_open(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit("downshift serve did not open its port") from None
            time.sleep(0.1)


def complete(address: str, messages: list[dict]) -> str:
    body = json.dumps({"model": "demo", "messages": messages, "temperature": 0, "max_tokens": 64}).encode()
    request = urllib.request.Request(f"{address}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


def downshift_answers(binary: str, model: str, questions: list[dict]) -> list[str]:
    has_history = [any(message["role"] == "assistant" for message in question["messages"]) for question in questions]
    with serving(binary, model) if any(has_history) else contextlib.nullcontext("") as address:
        return [
            complete(address, question["messages"]) if history else chat_once(binary, model, question["messages"])
            for question, history in zip(questions, has_history)
        ]
