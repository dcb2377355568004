#!/usr/bin/env python3
"""Holds many streams open against `downshift serve` for minutes, leaves some of them early, and kills workers if asked.

Starts the server over the demo models, keeps `--streams` clients busy, and reports how every stream ended. A stream that was
not left by its client must end whole (a finish reason, then `[DONE]`) or with one error chunk and no `[DONE]`; before it
begins, only 429 and 503 are fair answers. Exits with 1 where that does not hold, or where the server's memory grows.

    cargo build --release && benches/soak.py --seconds 300
    benches/soak.py --seconds 300 --kill-every 10
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = ["What is 17 + 25?", "Count from 1 to 20.", "What is the capital of France?", "Spell the word house.", "Hello!"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=str(ROOT / "target/release/downshift"))
    parser.add_argument("--config", default=str(ROOT / "models.toml"))
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--leave", type=float, default=0.3, help="share of streams that their client leaves early")
    parser.add_argument("--kill-every", type=float, default=0, metavar="SECONDS", help="kill -9 a worker this often; 0 = never")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def memory_kib(pid: int) -> int:
    """Resident anonymous memory of one process; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def workers(pid: int) -> list[int]:
    """Child processes of `pid` that run a model."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            try:
                if b"worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
            except OSError:
                pass
    return found


async def stream(port: int, dice: random.Random, leave: float) -> str:
    """Asks one question and reads its stream; how it ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        message = {"role": "user", "content": dice.choice(QUESTIONS)}
        body = json.dumps({"messages": [message], "stream": True, "max_tokens": 200}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        leaves_after = dice.randint(0, 12) if dice.random() < leave else None
        if leaves_after == 0:
            await writer.drain()
            return "left before the first byte"
        status = int((await reader.readline()).split()[1])
        while (await reader.readline()).strip():
            pass
        if status != 200:
            return f"status {status}"
        events, finish, failed, done = 0, None, False, False
        async for line in reader:
            if not line.startswith(b"data: "):
                continue
            if done or failed:
                return "BROKEN: something follows the ending"
            data = line[6:].strip()
            if data == b"[DONE]":
                done = True
                continue
            chunk = json.loads(data)
            failed = "error" in chunk
            for choice in chunk.get("choices", []):
                finish = choice.get("finish_reason") or finish
            events += 1
            if leaves_after is not None and events >= leaves_after:
                return "left midway"
        if done and not failed and finish in ("stop", "length"):
            return "whole"
        if failed and not done:
            return "one error"
        return f"BROKEN: cut (finish {finish}, done {done})"
    except (ConnectionError, asyncio.IncompleteReadError, IndexError) as error:
        return f"BROKEN: {type(error).__name__}"
    finally:
        writer.close()


async def client(number: int, port: int, options, end: float, endings: Counter):
    dice = random.Random(options.seed * 100_003 + number)
    while time.monotonic() < end:
        try:
            ending = await asyncio.wait_for(stream(port, dice, options.leave), 120)
        except (TimeoutError, asyncio.TimeoutError):
            ending = "BROKEN: no end within 120 s"
        endings[ending] += 1
        if ending.startswith("status"):
            await asyncio.sleep(0.2 + dice.random())


async def killer(pid: int, every: float, end: float, dice: random.Random, killed: Counter):
    while every and time.monotonic() + every < end:
        await asyncio.sleep(every)
        for victim in workers(pid)[:1]:
            os.kill(victim, signal.SIGKILL)
            killed["workers"] += 1


async def watch(pid: int, end: float, samples: list):
    began = time.monotonic()
    while time.monotonic() < end:
        children = workers(pid)
        samples.append((time.monotonic() - began, memory_kib(pid), sum(memory_kib(child) for child in children), len(children)))
        await asyncio.sleep(1)


async def soak(server, port: int, options) -> int:
    end = time.monotonic() + options.seconds
    endings, killed, samples = Counter(), Counter(), []
    clients = [client(number, port, options, end, endings) for number in range(options.streams)]
    await asyncio.gather(
        *clients, killer(server.pid, options.kill_every, end, random.Random(options.seed), killed), watch(server.pid, end, samples)
    )
    print(f"{sum(endings.values())} streams in {options.seconds:.0f} s, {killed['workers']} workers killed")
    for ending, count in endings.most_common():
        print(f"  {count:8}  {ending}")
    warm = [sample for sample in samples if sample[0] >= options.seconds * 0.2]
    half = len(warm) // 2
    grown = []
    for name, column in (("server", 1), ("workers", 2)):
        values = [sample[column] for sample in warm]
        early, late = max(values[:half], default=0), max(values[half:], default=0)
        print(f"  {name}: anonymous memory at most {early / 1024:.1f} MiB in the first half, {late / 1024:.1f} MiB in the second")
        grown.append(column == 1 and late > early * 1.05 + 1024)
    fair = {"whole", "one error", "left midway", "left before the first byte", "status 429", "status 503"}
    broken = [ending for ending in endings if ending not in fair]
    alive = server.poll() is None
    print("the server lives" if alive else f"the server ended with {server.poll()}")
    return 0 if alive and not broken and not any(grown) and endings["whole"] else 1


def main() -> int:
    options = arguments()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        command = [options.bin, "serve", "--port", str(port), "--config", options.config]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            idle = memory_kib(server.pid)
            print(f"idle: {idle / 1024:.1f} MiB anonymous")
            outcome = asyncio.run(soak(server, port, options))
            server.send_signal(signal.SIGTERM)
            print(f"ended by SIGTERM with {server.wait(30)}")
            return outcome
        finally:
            server.kill()


if __name__ == "__main__":
    raise SystemExit(main())
