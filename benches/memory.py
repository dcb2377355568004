#!/usr/bin/env python3
"""What `downshift plan` predicts beside what a worker process has resident once its context is full (Linux).

  memory.py BIN MODEL.. [--context 1024,4096,16384] [--kv f16,q8_0] [--isa amx,avx2,..]

One row a cell. Exits with 1 where RssAnon is off the hard prediction by more than a tenth and 16 MiB, or RssFile off the soft one
by more than a twentieth.
"""
import argparse, glob, json, os, subprocess, sys, tempfile, time

MIB = 1 << 20


def status(pid):
    """RssAnon and RssFile in bytes; None once it is gone."""
    try:
        with open(f"/proc/{pid}/status") as f:
            fields = dict(line.split(":", 1) for line in f)
        return [int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile")]
    except (OSError, KeyError):
        return None


def children(pid):
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as f:
                if int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                    yield int(path.split("/")[2])
        except OSError:
            pass


def run(binary, args, env, text=""):
    """Output of the program and the most that any of its children had resident."""
    child = subprocess.Popen([binary, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
    child.stdin.write(text.encode())
    child.stdin.close()
    peaks = {}
    while child.poll() is None:
        for pid in children(child.pid):
            if found := status(pid):
                peaks[pid] = [max(pair) for pair in zip(peaks.get(pid, found), found)]
        time.sleep(0.02)
    return child.stdout.read().decode(), max(peaks.values(), default=[0, 0])


def cell(binary, model, context, kv, isa):
    env = dict(os.environ, **({"DOWNSHIFT_ISA": isa} if isa else {}))
    unit = " 7 a"
    per_unit = len(json.loads(run(binary, ["tokenize", "-m", model], env, unit * 200)[0])) / 200
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "models.toml")
        with open(config, "w") as f:
            f.write(f'[models.m]\npath = "{os.path.abspath(model)}"\ncontext = {context}\nmin_context = {context}\nkv_type = "{kv}"\n')
        plan = json.loads(run(binary, ["plan", "--config", config, "--json"], env)[0])["models"][0]
        if "hard_bytes" not in plan:
            sys.exit(f"{model}: {plan['message']}")
        for share in (1.0, 0.97, 0.93):
            prompt = unit * int((context - 80) / per_unit * share)
            # It answers until the context is full.
            out, (anon, file) = run(binary, ["chat", "--config", config, "--json", "--temperature", "0", "-n", "1000000"], env, prompt)
            reply = json.loads(out)
            if "usage" in reply:
                break
        else:
            sys.exit(f"{model}: {reply['error']['message']}")
    hard, soft, used = plan["hard_bytes"], plan["soft_bytes"], reply["usage"]["total_tokens"]
    good = abs(anon - hard) <= max(hard / 10, 16 * MIB) and abs(file - soft) <= soft / 20 and used >= 0.9 * context
    print(
        f"| {os.path.basename(model)} | {context} ({used} used) | {kv} | {isa or 'default'} | {hard / MIB:.1f} | {anon / MIB:.1f} "
        f"| {anon / hard - 1:+.1%} | {soft / MIB:.1f} | {file / MIB:.1f} | {file / soft - 1:+.1%} |{'' if good else ' MISSED'}",
        flush=True,
    )
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--context", default="1024,4096,16384")
    parser.add_argument("--kv", default="f16,q8_0")
    parser.add_argument("--isa", default="")
    args = parser.parse_args()
    print("| file | context | KV | kernels | hard, predicted | RssAnon | off | soft, predicted | RssFile | off |\n" + "|---" * 10 + "|")
    cells = [(m, int(c), kv, isa) for m in args.models for c in args.context.split(",") for kv in args.kv.split(",") for isa in args.isa.split(",")]
    sys.exit(0 if all([cell(args.binary, *one) for one in cells]) else 1)


main()
