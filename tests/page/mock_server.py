"""Serves the page's files with the headers of the server, and an API that does what the last message says.

The message's first word picks the script: see `SCRIPTS`. A test changes `key`, `down` and `models` while it runs.
"""

import http.server
import json
import pathlib
import re
import threading
import time

FILES = pathlib.Path(__file__).resolve().parents[2] / "crates/server/src/page"
KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}

MARKDOWN = """# A heading

Some *emphasis*, **strong**, `code`, ~~gone~~ and a [link](https://example.org/a_(b)).

1. first
2. second
   - deeper
   - again

| name | size |
|:-----|-----:|
| large | 3.0 MB |
| small | `0.6` MB |

> A quote
> of two lines

```rust
// Adds one.
fn next<'a>(n: &'a u32) -> u32 {
    n + 1 // "text"
}
```

- [x] done
- [ ] open

```python
print("never closed")"""

XSS = """<script>window.hit = 1</script><img src=x onerror="window.hit = 2">

[a](javascript:window.hit=3) [b](data:text/html,<script>window.hit=4</script>) [c](JaVaScRiPt:window.hit=5) ![d](javascript:window.hit=6)

<javascript:window.hit=7> <https://example.org/"onmouseover="window.hit=8>

[e](https://example.org/"onclick="window.hit=9) `<svg onload=window.hit=10>`

```"><script>window.hit=11</script>
</code></pre><script>window.hit=12</script>
```

| <img src=x onerror=window.hit=13> | b |
|---|---|
| <iframe src="javascript:window.hit=14"></iframe> | <style>body{display:none}</style> |
"""


def policy():
    """The content security policy that the server sends, as its source says it."""
    source = (FILES / "mod.rs").read_text()
    text = re.search(r'CONTENT_SECURITY_POLICY: &str = "(.*?)";', source, re.S).group(1)
    return re.sub(r"\\\n\s*", "", text)


def model(name, state="unloaded", **facts):
    return {
        "id": name,
        "object": "model",
        "created": 1,
        "owned_by": "downshift",
        "aliases": [],
        "kind": "chat",
        "state": state,
        "progress": None,
        "verdict": "ok",
        "reason": None,
        "device": "cpu",
        "context": 8192,
        "size_bytes": 5_000_000_000,
        "resident_bytes": None,
        "active_requests": 0,
        "is_default": False,
        "fallbacks": [],
        **facts,
    }


class MockServer:
    def __init__(self):
        self.key = None
        self.down = False
        self.requests = []
        self.go_on = threading.Event()
        self.gone = threading.Event()
        self.models = [
            model("large", "ready", is_default=True, fallbacks=["middle", "small"], resident_bytes=5_200_000_000),
            model("middle", size_bytes=2_100_000_000, fallbacks=["small"]),
            model("small", "ready", size_bytes=640_000_000, resident_bytes=700_000_000),
            model("embed", kind="embedding", size_bytes=420_000_000),
        ]
        self.memory = {"limit_bytes": 16_000_000_000, "source": "cgroup", "free_bytes": 7_400_000_000}
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"mock": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.go_on.set()
        self._http.shutdown()
        self._http.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mock = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/":
            return self.file(FILES / "index.html", "text/html; charset=utf-8")
        if path.startswith("/page/"):
            name = FILES / pathlib.Path(path).name
            return self.file(name, KINDS[name.suffix]) if name.suffix in KINDS and name.exists() else self.json(404, {})
        if self.refused():
            return None
        if path == "/v1/models":
            return self.json(200, {"object": "list", "data": self.mock.models})
        if path == "/props":
            facts = {"version": "0.1.0", "default_model": "large", "memory": self.mock.memory, "isolate": True, "threads": 8}
            return self.json(200, facts)
        return self.json(404, {"error": {"message": "no such route", "type": "not_found_error"}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.refused():
            return
        self.mock.requests.append(body)
        # A message that got no answer is sent again in front of the next.
        words = body["messages"][-1]["content"].split("\n\n")[-1].split()
        body.setdefault("model", "large")
        script = SCRIPTS.get(words[0], plain) if words else plain
        try:
            script(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.mock.gone.set()

    def refused(self):
        if self.mock.down:
            self.close_connection = True
            self.connection.close()
            return True
        if self.mock.key and self.headers.get("authorization") != f"Bearer {self.mock.key}":
            self.json(401, {"error": {"message": "missing or wrong API key", "type": "authentication_error", "code": "invalid_api_key"}})
            return True
        return False

    def file(self, path, kind):
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.send_header("content-security-policy", policy())
        self.send_header("x-content-type-options", "nosniff")
        self.send_header("cache-control", "no-cache")
        self.end_headers()
        self.wfile.write(data)

    def json(self, status, value, **headers):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def begin(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

    def raw(self, data):
        self.wfile.write(data)
        self.wfile.flush()

    def chunk(self, model, delta, finish=None, **more):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        value = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice], **more}
        self.raw(f"data: {json.dumps(value)}\n\n".encode())

    def say(self, model, text, key="content", pause=0.0):
        for word in re.findall(r"\s*\S+\s*$|\s*\S+", text) or [text]:
            self.chunk(model, {key: word})
            time.sleep(pause)

    def complete(self, model, n=12, reason="stop"):
        timings = {"cache_n": 0, "prompt_n": 20, "prompt_ms": 80.0, "prompt_per_second": 250.0}
        timings |= {"predicted_n": n, "predicted_ms": n * 25.0, "predicted_per_second": 40.0}
        self.chunk(model, {}, reason)
        usage = {"prompt_tokens": 20, "completion_tokens": n, "total_tokens": 20 + n}
        value = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [], "usage": usage, "timings": timings}
        self.raw(f"data: {json.dumps(value)}\n\ndata: [DONE]\n\n".encode())


ATTEMPTS = [
    {"model": "large", "device": "cpu", "stage": "load", "kind": "truncated", "message": "large.gguf: is truncated: tensor `output.weight` needs 4 more bytes", "ms": 3},
]


def plain(http, body):
    http.begin()
    http.chunk(body["model"], {"role": "assistant", "content": None})
    http.say(body["model"], f"You said: {body['messages'][-1]['content']}", pause=0.01)
    http.complete(body["model"])


def slow(http, body):
    """Words until the caller leaves, which sets `gone`."""
    http.begin()
    http.chunk(body["model"], {"role": "assistant", "content": None})
    for n in range(2000):
        http.chunk(body["model"], {"content": f"word{n} "})
        time.sleep(0.02)


def drop(http, body):
    http.begin()
    http.chunk("middle", {"role": "assistant", "content": None}, fallback={"requested": "large", "attempts": ATTEMPTS})
    http.say("middle", "Middle is here.", pause=0.01)
    http.complete("middle")


def takeover(http, body):
    http.begin()
    http.chunk("large", {"role": "assistant", "content": None})
    http.say("large", "It began well and", pause=0.02)
    http.chunk("small", {"content": " small"}, fallback={"from": "large", "reason": "out_of_memory"})
    http.say("small", " ended it.", pause=0.02)
    http.complete("small")


def error(http, body):
    attempts = [*ATTEMPTS, {"model": "middle", "device": "cpu", "stage": "decode", "kind": "crashed", "message": "the worker ended by signal 11", "ms": 140}]
    http.json(500, {"error": {"message": "no model of the chain could answer", "type": "server_error", "code": "all_failed", "attempts": attempts}})


def busy(http, body):
    http.json(503, {"error": {"message": "the queue is full", "type": "overloaded_error"}}, retry_after="7")


def long(http, body):
    http.json(400, {"error": {"message": "the request (9000 tokens) exceeds the available context size (8192)", "type": "exceed_context_size_error", "code": "context_length_exceeded"}})


def broken(http, body):
    """Half an answer, and then the connection is cut."""
    http.begin()
    http.say("large", "Half of an")


def honest(http, body):
    """Half an answer, and the server says why there is no more."""
    http.begin()
    http.say("large", "Half of an")
    http.chunk("large", {}, "error", error={"message": "large ran out of memory and nobody could go on", "type": "server_error", "code": "out_of_memory"})


def load(http, body):
    """Waits for the test while the model loads."""
    http.begin()
    http.raw(b": loading large\n\n")
    http.mock.go_on.wait(20)
    plain_end(http, body)


def plain_end(http, body):
    http.say(body["model"], "Loaded.")
    http.complete(body["model"])


def think(http, body):
    http.begin()
    http.say("large", "Let me see. Two and two.", "reasoning_content", 0.02)
    http.say("large", "It is **four**.", pause=0.02)
    http.complete("large")


def markdown(http, body):
    http.begin()
    for at in range(0, len(MARKDOWN), 7):
        http.chunk("large", {"content": MARKDOWN[at : at + 7]})
    http.complete("large")


def xss(http, body):
    http.begin()
    for at in range(0, len(XSS), 11):
        http.chunk("large", {"content": XSS[at : at + 11]})
    http.complete("large")


def split(http, body):
    """Bytes cut within characters and lines, with CRLF."""
    http.begin()
    value = {"model": "large", "choices": [{"index": 0, "delta": {"content": "gr\u00fc\u00dfe \U0001f642"}, "finish_reason": "stop"}]}
    data = f"data: {json.dumps(value, ensure_ascii=False)}\r\n\r\ndata: [DONE]\r\n\r\n".encode()
    for at in range(len(data)):
        http.raw(data[at : at + 1])


def flood(http, body):
    """A long answer as fast as it goes."""
    http.begin()
    paragraph = "Some **words** of a long answer with `code` in them, and then more.\n\n"
    for _ in range(1500):
        http.chunk("large", {"content": paragraph})
    http.complete("large", 30000)


SCRIPTS = {
    name: script
    for name, script in globals().items()
    if callable(script) and name in "slow drop takeover error busy long broken honest load think markdown xss split flood".split()
}


if __name__ == "__main__":
    server = MockServer()
    print(server.url, flush=True)
    threading.Event().wait()
