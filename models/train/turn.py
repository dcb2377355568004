"""A turn of a conversation and the rule that holds some of them out of training."""

import zlib
from dataclasses import dataclass, field

from phrases import normalized

HELD_OUT_PERCENT = 10
# The key of questions that are so short and common that there is no other wording to learn them from ("hi").
ALWAYS_TRAINED = "always trained"


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    `keys` name what must be new for the question to count as held out: operands or a word where a
    rule is to be learned, the question's own wording where facts are.
    """

    category: str
    question: str
    answer: str
    keys: tuple[str, ...] = field(default=())

    def all_keys(self) -> tuple[str, ...]:
        return self.keys or (f"{self.category}|{normalized(self.question)}",)


@dataclass(frozen=True)
class Dialogue:
    """Turns under an optional system prompt. Its own key covers the whole when the wording of all turns matters."""

    turns: tuple[Turn, ...]
    system: str = ""
    key: str = ""

    def keys(self) -> tuple[str, ...]:
        own = (self.key,) if self.key else ()
        return own + tuple(key for turn in self.turns for key in turn.all_keys())


def key_is_held_out(key: str) -> bool:
    return key != ALWAYS_TRAINED and zlib.crc32(key.encode()) % 100 < HELD_OUT_PERCENT


def is_held_out(dialogue: Dialogue) -> bool:
    """True if any part of it is held out; such a dialogue is never trained on."""
    return any(key_is_held_out(key) for key in dialogue.keys())
