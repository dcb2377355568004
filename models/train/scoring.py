"""Exact match on the held-out questions, per category."""

import collections
import json
from pathlib import Path

from corpus import held_out_questions


def read_questions(path: Path | None = None, per_category: int | None = None) -> list[dict]:
    """The questions of a file, or else the generator's own; all, or the first few of each category."""
    questions = [json.loads(line) for line in path.read_text().splitlines()] if path else held_out_questions()
    taken: collections.Counter[str] = collections.Counter()
    chosen = []
    for question in questions:
        taken[question["category"]] += 1
        if per_category is None or taken[question["category"]] <= per_category:
            chosen.append(question)
    return chosen


class Score:
    """Counts right answers by category and keeps the wrong ones."""

    def __init__(self, questions: list[dict], answers: list[str]):
        self.right: collections.Counter[str] = collections.Counter()
        self.asked: collections.Counter[str] = collections.Counter()
        self.wrong: list[tuple[dict, str]] = []
        for question, answer in zip(questions, answers, strict=True):
            self.asked[question["category"]] += 1
            if answer.strip() == question["answer"]:
                self.right[question["category"]] += 1
            else:
                self.wrong.append((question, answer))

    @property
    def percent(self) -> float:
        return 100 * self.right.total() / max(self.asked.total(), 1)

    def line(self) -> str:
        return f"{self.percent:5.1f}%  " + "  ".join(f"{name} {100 * self.right[name] // n}" for name, n in self.asked.items())

    def table(self) -> str:
        rows = [f"| {name} | {self.right[name]} / {n} | {100 * self.right[name] / n:.0f} % |" for name, n in self.asked.items()]
        total = f"| **all** | **{self.right.total()} / {self.asked.total()}** | **{self.percent:.1f} %** |"
        return "\n".join(["| category | right | |", "|---|---|---|", *rows, total])
