"""Arithmetic, comparisons and counting. The operands are held out, not the wording."""

import random

from phrases import casual, pick
from turn import Turn

ADD = (
    "What is <a> + <b>?", "What is <a> + <b>?", "<a>+<b>", "<a> + <b>", "{What's|Compute|Calculate} <a> + <b>{?|}",
    "{What is|What's|How much is} <a> plus <b>?", "<a> + <b> =", "<a> plus <b>", "Add <a> and <b>.",
    "What is the sum of <a> and <b>?", "{Can you|Please} add <a> {and|to} <b>{?|.}", "What does <a> + <b> {equal|make|give}?",
)
SUBTRACT = (
    "What is <a> - <b>?", "What is <a> - <b>?", "<a>-<b>", "<a> - <b>", "{What's|Compute|Calculate} <a> - <b>{?|}",
    "{What is|What's|How much is} <a> minus <b>?", "<a> - <b> =", "<a> minus <b>", "Subtract <b> from <a>.",
    "What is the difference <a> - <b>?", "Take <b> away from <a>.", "What does <a> - <b> {equal|make|give}?",
)
MULTIPLY = (
    "What is <a> {*|x|times} <b>?", "<a>*<b>", "<a> {*|x|times} <b>", "{What's|How much is} <a> times <b>?",
    "Multiply <a> by <b>.", "{Compute|Calculate} <a> * <b>.", "What is the product of <a> and <b>?",
)
WHICH_LARGER = ("Which is {larger|bigger|greater|more}, <a> or <b>?", "What is {larger|bigger|greater}: <a> or <b>?", "{Which number|What} is more, <a> or <b>?")
WHICH_SMALLER = ("Which is {smaller|less|lower}, <a> or <b>?", "What is {smaller|less}: <a> or <b>?", "{Which number|What} is less, <a> or <b>?")
IS_GREATER = ("Is <a> {larger|bigger|greater|more|higher} than <b>?", "Is it true that <a> is greater than <b>?", "Is <a> > <b>?")
IS_LESS = ("Is <a> {smaller|less|lower} than <b>?", "Is it true that <a> is less than <b>?", "Is <a> < <b>?")
COUNT_UP = ("Count from <a> to <b>.", "{Please|Can you} count {up|} from <a> to <b>{.|?}", "Count <a> to <b>.", "List the numbers from <a> to <b>.")
COUNT_DOWN = ("Count down from <a> to <b>.", "{Please|Can you} count {down|backwards} from <a> to <b>{.|?}", "Count backwards from <a> to <b>.")
NEXT = ("{What|Which} {number|} comes {right|} after <a>?", "What is {one|1} more than <a>?", "What is the next number after <a>?")
PREVIOUS = ("{What|Which} {number|} comes {right|} before <a>?", "What is {one|1} less than <a>?", "What is the number before <a>?")


def operand(rng: random.Random) -> int:
    return rng.randrange(10) if rng.random() < 0.2 else rng.randrange(100)


def sum_turn(rng: random.Random, a: int, b: int, question: str | None = None) -> Turn:
    question = question or casual(rng, pick(rng, ADD, a=a, b=b))
    return Turn("addition", question, f"{a} + {b} = {a + b}", (f"+|{min(a, b)}|{max(a, b)}",))


def difference_turn(rng: random.Random, a: int, b: int, question: str | None = None) -> Turn:
    question = question or casual(rng, pick(rng, SUBTRACT, a=a, b=b))
    return Turn("subtraction", question, f"{a} - {b} = {a - b}", (f"-|{min(a, b)}|{max(a, b)}",))


def addition(rng: random.Random) -> Turn:
    return sum_turn(rng, operand(rng), operand(rng))


def subtraction(rng: random.Random) -> Turn:
    a, b = operand(rng), operand(rng)
    if a < b and rng.random() < 0.4:
        a, b = b, a
    return difference_turn(rng, a, b)


def multiplication(rng: random.Random) -> Turn:
    """The tables up to ten: facts, so wording and pair together are held out."""
    a, b = rng.randrange(11), rng.randrange(11)
    return Turn("multiplication", casual(rng, pick(rng, MULTIPLY, a=a, b=b)), f"{a} * {b} = {a * b}")


def comparison(rng: random.Random) -> Turn:
    a, b = rng.sample(range(100), 2)
    if rng.random() < 0.3:
        b = min(99, max(0, a + rng.choice((-3, -2, -1, 1, 2, 3))))
        if a == b:
            a -= 1 if a else -1
    kind = rng.randrange(4)
    low, high = min(a, b), max(a, b)
    if kind == 0:
        patterns, answer = WHICH_LARGER, f"{high} is greater than {low}."
    elif kind == 1:
        patterns, answer = WHICH_SMALLER, f"{low} is less than {high}."
    else:
        patterns = IS_GREATER if kind == 2 else IS_LESS
        relation = "greater" if a > b else "less"
        yes = (kind == 2) == (a > b)
        answer = f"{'Yes' if yes else 'No'}, {a} is {relation} than {b}."
    return Turn("comparison", casual(rng, pick(rng, patterns, a=a, b=b)), answer, (f"<|{low}|{high}",))


def counting(rng: random.Random) -> Turn:
    kind = rng.randrange(6)
    if kind < 4:
        start = 1 if rng.random() < 0.15 else rng.randrange(0, 90)
        end = start + rng.randrange(2, 10)
        numbers = list(range(start, end + 1))
        if kind == 3:
            numbers.reverse()
        patterns = COUNT_DOWN if kind == 3 else COUNT_UP
        question = pick(rng, patterns, a=numbers[0], b=numbers[-1])
        return Turn("counting", casual(rng, question), ", ".join(map(str, numbers)), (f"count|{start}|{end}",))
    a = rng.randrange(1, 100)
    step, patterns, word = (1, NEXT, "after") if kind == 4 else (-1, PREVIOUS, "before")
    question = casual(rng, pick(rng, patterns, a=a))
    return Turn("counting", question, f"{a + step} comes {word} {a}.")
