"""Makes one model from nothing: text and tokenizer, training, GGUF. Called again, it resumes.

    python reproduce.py large [options of train.py]
"""

import subprocess
import sys
from pathlib import Path

from model import CONFIGS

HERE = Path(__file__).parent


def run(script: str, *arguments: str) -> None:
    subprocess.run([sys.executable, str(HERE / script), *arguments], check=True)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in CONFIGS:
        raise SystemExit(f"usage: python reproduce.py {{{','.join(CONFIGS)}}} [options of train.py]")
    name, *options = sys.argv[1:]
    if not (HERE / "out" / "pools.npz").exists():
        run("prepare.py")
    run("train.py", name, *options)
    run("export.py", name)


if __name__ == "__main__":
    main()
