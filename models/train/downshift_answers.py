"""Asks downshift: one process per question, the conversation on its stdin."""

import json
import subprocess


def downshift_answers(binary: str, model: str, questions: list[dict]) -> list[str]:
    command = [binary, "chat", "-m", model, "--in-process", "--json", "--temperature", "0", "--max-tokens", "64", "--messages"]
    answers = []
    for question in questions:
        done = subprocess.run(command, input=json.dumps(question["messages"]), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
        answers.append(json.loads(done.stdout.splitlines()[-1])["content"])
    return answers
