"""Spelling, reversing and counting letters. Whole words are held out.

The tokenizer keeps a quoted word split into letters (see `tokenizer.py`), so the rule can be learned
on made-up words and holds for real ones never seen.
"""

import random

from phrases import casual, pick
from turn import Turn
from words import WORDS

SPELL = (
    'Spell {the word|} "<w>".', 'Spell "<w>"', 'How do you spell {the word|} "<w>"?', 'How is "<w>" spelled?',
    '{Can you|Please} spell {the word|} "<w>"{?|.}', 'Spell out {the word|} "<w>".',
    "Spell {the word|} <w>.", "How do you spell <w>?",
)
REVERSE = (
    'Reverse {the word|} "<w>".', 'Reverse "<w>"', 'Write {the word|} "<w>" {backwards|in reverse}.', 'Spell "<w>" backwards.',
    'What is "<w>" {backwards|reversed|in reverse}?', '{Can you|Please} reverse {the word|} "<w>"{?|.}',
    "Reverse {the word|} <w>.", "Write <w> backwards.",
)
HOW_MANY = ('How many letters are in {the word|} "<w>"?', 'How many letters does "<w>" have?', 'Count the letters in {the word|} "<w>".', 'How long is the word "<w>"?')
FIRST = ('What is the first letter of {the word|} "<w>"?', 'Which letter does "<w>" {start|begin} with?')
LAST = ('What is the last letter of {the word|} "<w>"?', 'Which letter does "<w>" end with?')

_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnprstvwz"
# The tokenizer's few lower-case merges (parts of "user", "assistant", "system"), shown more often than chance would.
_MERGED = ("us", "use", "user", "si", "ssi", "sy", "sys")


def made_up_word(rng: random.Random, max_len: int) -> str:
    length = rng.randint(2, max_len)
    kind = rng.random()
    if kind < 0.4:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))
    start = rng.randrange(2)
    word = "".join(rng.choice((_CONSONANTS, _VOWELS)[(i + start) % 2]) for i in range(length))
    if kind > 0.85:
        part = rng.choice(_MERGED)
        at = rng.randrange(len(word) + 1)
        word = (word[:at] + part + word[at:])[: max_len + 1]
    return word


def any_word(rng: random.Random, max_len: int) -> str:
    if rng.random() < 0.6:
        return made_up_word(rng, max_len)
    return real_word(rng, max_len)


def real_word(rng: random.Random, max_len: int) -> str:
    while len(word := rng.choice(WORDS)) > max_len:
        pass
    return word


def spell_turn(word: str, question: str) -> Turn:
    return Turn("spelling", question, "-".join(word), (f"word|{word}",))


def reverse_turn(word: str, question: str) -> Turn:
    return Turn("reversing", question, word[::-1], (f"word|{word}",))


def spelling(rng: random.Random, choose=any_word) -> Turn:
    word = choose(rng, 8)
    return spell_turn(word, casual(rng, pick(rng, SPELL, w=word)))


def reversing(rng: random.Random, choose=any_word) -> Turn:
    word = choose(rng, 6)
    return reverse_turn(word, casual(rng, pick(rng, REVERSE, w=word)))


def letters(rng: random.Random, choose=any_word) -> Turn:
    word = choose(rng, 8)
    kind = rng.randrange(4)
    if kind < 2:
        patterns, answer = HOW_MANY, f'"{word}" has {len(word)} letters.'
    elif kind == 2:
        patterns, answer = FIRST, f'"{word}" starts with {word[0]}.'
    else:
        patterns, answer = LAST, f'"{word}" ends with {word[-1]}.'
    question = casual(rng, pick(rng, patterns, w=word))
    return Turn("letters", question, answer, (f"word|{word}",))
