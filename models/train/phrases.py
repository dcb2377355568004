"""Phrase patterns: `{a|b|}` offers alternatives, `<name>` is a slot. Knows nothing of tasks."""

import itertools
import random
import re
from functools import lru_cache

_CHOICE = re.compile(r"\{([^{}]*)\}")


@lru_cache(maxsize=None)
def expand(pattern: str) -> tuple[str, ...]:
    """Every phrase that a pattern stands for, in a fixed order."""
    parts = _CHOICE.split(pattern)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return tuple(" ".join("".join(combination).split()) for combination in itertools.product(*choices))


@lru_cache(maxsize=None)
def expand_all(patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(phrase for pattern in patterns for phrase in expand(pattern))


def fill(phrase: str, **slots: object) -> str:
    for name, value in slots.items():
        phrase = phrase.replace(f"<{name}>", str(value))
    return phrase


def pick(rng: random.Random, patterns: tuple[str, ...], **slots: object) -> str:
    """One phrase: a pattern first, then one of its alternatives, so that large patterns do not drown small ones."""
    return fill(rng.choice(expand(rng.choice(patterns))), **slots)


def casual(rng: random.Random, text: str) -> str:
    """The same question as people also type it: now and then without capitals or end marks."""
    if rng.random() < 0.2:
        text = text.lower()
    if rng.random() < 0.2:
        text = text.rstrip("?.!")
    return text


def normalized(text: str) -> str:
    """What two spellings of one question share; hold-out is decided on this."""
    return " ".join(re.sub(r"[^\w+\-*\"' ]", " ", text.lower()).split())
