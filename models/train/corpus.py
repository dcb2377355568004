"""The text that the models are trained and scored on: pools of conversations, and the held-out questions.

Everything is drawn from seeded generators. A question whose key is held out (see `turn.py`) never
enters a pool.
"""

import json
import random
from pathlib import Path

import about_tasks
import dialogues
import knowledge_tasks
import letters_tasks
import numbers_tasks
import talk_tasks
from turn import Dialogue, Turn, is_held_out, key_is_held_out

# One question and one answer each.
SINGLE_TASKS = {
    "small talk": talk_tasks.small_talk,
    "addition": numbers_tasks.addition,
    "subtraction": numbers_tasks.subtraction,
    "multiplication": numbers_tasks.multiplication,
    "comparison": numbers_tasks.comparison,
    "counting": numbers_tasks.counting,
    "capitals": knowledge_tasks.capitals,
    "calendar": knowledge_tasks.calendar,
    "units": knowledge_tasks.units,
    "spelling": letters_tasks.spelling,
    "reversing": letters_tasks.reversing,
    "letters": letters_tasks.letters,
    "downshift": about_tasks.about,
    "unknown": talk_tasks.unknown,
}
CATEGORIES = (*SINGLE_TASKS, "follow-up", "persona")

# Conversations drawn per pool before duplicates are dropped.
POOL_SIZES = {
    **dict.fromkeys(SINGLE_TASKS, 30_000),
    "addition": 80_000, "subtraction": 80_000, "spelling": 40_000, "reversing": 60_000,
    "follow-up": 50_000, "persona": 60_000, "chat": 40_000, "long": 1_000,
}
N_HELD_OUT_PER_CATEGORY = 50
# In mixed conversations harder tasks come more often.
_CHAT_WEIGHTS = {**dict.fromkeys(SINGLE_TASKS, 1.0), "addition": 2.0, "subtraction": 2.0, "reversing": 1.5, "downshift": 2.0}


def any_single(rng: random.Random) -> Turn:
    return rng.choices(tuple(SINGLE_TASKS.values()), [_CHAT_WEIGHTS[name] for name in SINGLE_TASKS])[0](rng)


def draw(pool: str, rng: random.Random) -> Dialogue:
    """One conversation of a pool, held out or not."""
    if pool == "follow-up":
        return dialogues.follow_up(rng)
    if pool == "persona":
        return dialogues.persona(rng, any_single)
    if pool == "chat":
        return dialogues.chat(rng, any_single, rng.randint(2, 5))
    if pool == "long":
        return dialogues.chat(rng, any_single, 30)
    return Dialogue((SINGLE_TASKS[pool](rng),))


def training_pool(pool: str, seed: int, size: int | None = None) -> list[Dialogue]:
    """A pool's conversations without duplicates and without anything held out."""
    rng = random.Random(f"{seed}/{pool}")
    drawn = (draw(pool, rng) for _ in range(size or POOL_SIZES[pool]))
    return list(dict.fromkeys(dialogue for dialogue in drawn if not is_held_out(dialogue)))


def held_out_questions(seed: int = 1, per_category: int = N_HELD_OUT_PER_CATEGORY) -> list[dict]:
    """The test: `{"category", "messages", "answer"}`, the last question of each never trained on."""
    questions = []
    for category in CATEGORIES:
        rng = random.Random(f"{seed}/held out/{category}")
        seen: set[str] = set()
        attempts = 0
        while len(seen) < per_category and attempts < 200_000:
            attempts += 1
            dialogue = _draw_test(category, rng)
            last = dialogue.turns[-1]
            deciding = last.all_keys() if not dialogue.key else (dialogue.key,)
            if not any(key_is_held_out(key) for key in deciding):
                continue
            messages = messages_of(dialogue)[:-1]
            identity = json.dumps(messages)
            if identity not in seen:
                seen.add(identity)
                questions.append({"category": category, "messages": messages, "answer": last.answer})
    return questions


def _draw_test(category: str, rng: random.Random) -> Dialogue:
    if category in ("spelling", "reversing", "letters"):
        return Dialogue((SINGLE_TASKS[category](rng, letters_tasks.real_word),))
    return draw(category, rng)


def messages_of(dialogue: Dialogue) -> list[dict]:
    messages = [{"role": "system", "content": dialogue.system}] if dialogue.system else []
    for turn in dialogue.turns:
        messages += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
    return messages


def chat_text(messages: list[dict]) -> str:
    """ChatML, as the template stored in the GGUF renders it."""
    return "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)


def prompt_text(messages: list[dict]) -> str:
    return chat_text(messages) + "<|im_start|>assistant\n"


def training_text(dialogue: Dialogue) -> str:
    return chat_text(messages_of(dialogue))


def write_questions(questions: list[dict], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
