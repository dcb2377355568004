"""Conversations of more than one message: follow-ups, personas, and chats of mixed questions."""

import random

import knowledge_tasks as knowledge
from facts import CAPITALS, CONVERSIONS, DAYS, METRIC, MONTHS
from letters_tasks import any_word, reverse_turn, spell_turn
from numbers_tasks import difference_turn, operand, sum_turn
from phrases import casual, expand_all, normalized, pick
from talk_tasks import NAMES, small_talk
from turn import ALWAYS_TRAINED, Dialogue, Turn, is_held_out

AND = ("{And|What about|How about|and} <x>?", "{And|Ok, and|And what about} <x>?")
AND_OF = ("{And|What about|How about|and} {of |}<x>?", "{And|Ok, and|And what about|And the capital} of <x>?")
AND_IN = ("{And|What about|How about|and} in <x>?", "{Ok, and|And what is that|What is that} in <x>?", "In <x>?", "And how many <x>?")
NAME_IS = ("My name is <x>.", "I am <x>.", "{Hi|Hello}, {my name is|I am|I'm} <x>{.|!}", "Call me <x>.", "You can call me <x>.")
ASK_NAME = ("What is my name?", "{What's|Tell me} my name{?|.}", "Who am I?", "Do you {know|remember} my name?", "What did I say my name was?", "How am I called?")


def _by_wording(turns: list[Turn]) -> str:
    return "follow-up|" + " / ".join(normalized(turn.question) for turn in turns)


def _unit_followup(rng: random.Random) -> list[Turn]:
    table = [(large, small, factor * n, n) for large, small, factor, largest in CONVERSIONS for n in [rng.randint(1, largest)]]
    table += [(unit, metric, knowledge.hundredths(factor * n), n) for unit, metric, factor, largest in METRIC for n in [rng.randint(1, largest)]]
    by_source: dict[str, list] = {}
    for source, target, result, n in table:
        by_source.setdefault(source, []).append((target, result, n))
    source = rng.choice([source for source, targets in by_source.items() if len(targets) > 1])
    (first_target, _, n), (second_target, _, _) = rng.sample(by_source[source], 2)
    n = min(n, min(_largest(source, first_target), _largest(source, second_target)))
    first = knowledge.conversion_turn(rng, n, source, _convert(n, source, first_target), first_target)
    question = casual(rng, pick(rng, AND_IN, x=knowledge.unit_name(second_target, 2)))
    return [first, Turn("follow-up", question, knowledge.conversion_answer(n, source, _convert(n, source, second_target), second_target))]


def _convert(n: int, source: str, target: str) -> object:
    for large, small, factor, _ in CONVERSIONS:
        if (large, small) == (source, target):
            return n * factor
    factor = next(factor for unit, metric, factor, _ in METRIC if (unit, metric) == (source, target))
    return knowledge.hundredths(n * factor)


def _largest(source: str, target: str) -> int:
    return next(row[3] for row in CONVERSIONS + METRIC if row[:2] == (source, target))


def _amount_followup(rng: random.Random) -> list[Turn]:
    large, small, factor, largest = rng.choice(CONVERSIONS)
    n, m = rng.sample(range(1, largest + 1), 2)
    first = knowledge.conversion_turn(rng, n, large, n * factor, small)
    question = casual(rng, pick(rng, AND, x=knowledge.quantity(m, large)))
    return [first, Turn("follow-up", question, knowledge.conversion_answer(m, large, m * factor, small))]


def _capital_followup(rng: random.Random) -> list[Turn]:
    countries = rng.sample(tuple(CAPITALS), rng.choice((2, 2, 3)))
    turns = [knowledge.capital_turn(countries[0], casual(rng, pick(rng, knowledge.CAPITAL_OF, c=knowledge.with_article(countries[0]))))]
    for country in countries[1:]:
        question = casual(rng, pick(rng, AND_OF, x=knowledge.with_article(country)))
        turns.append(Turn("follow-up", question, knowledge.capital_turn(country, "").answer))
    return turns


def _arithmetic_followup(rng: random.Random) -> list[Turn]:
    """"And plus 5?" carries on from the last result, which must stay within two digits."""
    while True:
        first = rng.choice((sum_turn, difference_turn))(rng, operand(rng), operand(rng))
        result = int(first.answer.split("= ")[1])
        if 0 <= result < 100:
            break
    b = operand(rng)
    if rng.random() < 0.5:
        wording = pick(rng, ("{And|Now|And now|} {plus|+|add} <b>{?|.}", "{Now add|Add} <b> {to that|}{?|.}"), b=b)
        second = sum_turn(rng, result, b, casual(rng, wording))
    else:
        wording = pick(rng, ("{And|Now|And now|} {minus|-} <b>{?|.}", "{Now subtract|Subtract} <b> {from that|}{?|.}"), b=b)
        second = difference_turn(rng, result, b, casual(rng, wording))
    return [first, Turn("follow-up", second.question, second.answer, second.keys)]


def _calendar_followup(rng: random.Random) -> list[Turn]:
    names, after, before = rng.choice(((DAYS, knowledge.DAY_AFTER[:3], knowledge.DAY_BEFORE[:2]), (tuple(MONTHS), knowledge.MONTH_AFTER, knowledge.MONTH_BEFORE)))
    i, j = rng.randrange(len(names)), rng.randrange(len(names))
    patterns, step, word = rng.choice(((after, 1, "after"), (before, -1, "before")))
    first = Turn("calendar", casual(rng, pick(rng, patterns, d=names[i], m=names[i])), f"{names[(i + step) % len(names)]} comes {word} {names[i]}.")
    question = casual(rng, pick(rng, ("{And|And what comes|What about} <w> <x>?",), w=word, x=names[j]))
    return [first, Turn("follow-up", question, f"{names[(j + step) % len(names)]} comes {word} {names[j]}.")]


def _letters_followup(rng: random.Random) -> list[Turn]:
    first_word, second_word = any_word(rng, 6), any_word(rng, 6)
    if rng.random() < 0.5:
        first = spell_turn(first_word, pick(rng, ('Spell "<w>".', 'Spell the word "<w>".'), w=first_word))
        second = spell_turn(second_word, pick(rng, AND, x=f'"{second_word}"'))
    else:
        first = reverse_turn(first_word, pick(rng, ('Reverse "<w>".', 'Write "<w>" backwards.'), w=first_word))
        second = reverse_turn(second_word, pick(rng, AND, x=f'"{second_word}"'))
    return [first, Turn("follow-up", second.question, second.answer, second.keys)]


def _name_followup(rng: random.Random) -> list[Turn]:
    name = rng.choice(NAMES)
    first = Turn("small talk", pick(rng, NAME_IS, x=name), f"Nice to meet you, {name}!", (ALWAYS_TRAINED,))
    between = [small_talk(rng)] if rng.random() < 0.3 else []
    return [first, *between, Turn("follow-up", casual(rng, pick(rng, ASK_NAME)), f"Your name is {name}.")]


_FOLLOWUPS = (
    (3, _unit_followup), (2, _amount_followup), (3, _capital_followup), (3, _arithmetic_followup),
    (2, _calendar_followup), (1, _letters_followup), (2, _name_followup),
)


def follow_up(rng: random.Random) -> Dialogue:
    """Two or three turns; the last cannot be understood alone."""
    turns = rng.choices([make for _, make in _FOLLOWUPS], [weight for weight, _ in _FOLLOWUPS])[0](rng)
    # Where the last turn has operands or a word of its own, those are held out; else the wording of the whole.
    inner = [turn if turn.keys else Turn(turn.category, turn.question, turn.answer, (ALWAYS_TRAINED,)) for turn in turns]
    key = "" if turns[-1].keys else _by_wording(turns)
    return Dialogue(tuple(inner), key=key)


# Manner of speaking: system prompts, and what every answer begins with.
MANNERS = (
    ("Arr! ", ("You are a {pirate|sea pirate|friendly pirate}.", "{Talk|Speak|Answer} like a pirate.", "Pretend {to be|that you are} a pirate.")),
    ("Beep. ", ("You are a {robot|friendly robot|small robot}.", "{Talk|Speak|Answer} like a robot.", "Pretend {to be|that you are} a robot.")),
    ("Howdy! ", ("You are a {cowboy|friendly cowboy|old cowboy}.", "{Talk|Speak|Answer} like a cowboy.", "Pretend {to be|that you are} a cowboy.")),
    ("Certainly. ", ("You are a {butler|polite butler|very polite butler}.", "{Talk|Speak|Answer} like a butler.", "Pretend {to be|that you are} a butler.")),
    ("Ho ho ho! ", ("You are {Santa|Santa Claus|a cheerful Santa}.", "{Talk|Speak|Answer} like Santa {Claus|}.", "Pretend {to be|that you are} Santa {Claus|}.")),
)
PLAIN_SYSTEM = (
    "You are a {helpful|friendly|kind|polite|useful|good|} assistant{.|}", "You are {downshift|a small model|a chat model|an assistant|a helpful AI assistant}.", "{Answer|Reply} {briefly|shortly|in one sentence|in English|politely|the question}.",
    "You are a {helpful|friendly|} assistant. {Answer|Reply} {briefly|shortly|in one sentence|politely}.", "Be {helpful|brief|short|polite|kind|honest}.", "{Help the user|Answer the user's questions}.", "Be {brief|concise} and {honest|correct|polite}.",
)
ROLES = tuple("teacher doctor baker sailor farmer pilot singer painter librarian gardener cook driver builder writer tailor nurse".split())
PERSONA_NAMES = NAMES + tuple("Ruby Milo Orion Luna Pip Nova Atlas Echo Juno Otto Bruno Clara Rex Sunny Iris Finn".split())
NAMED_SYSTEM = ("You are <n>, a <r>.", "You are {a|the} <r> {called|named} <n>.", "Your name is <n>. You are a <r>.", "You are <n>. You work as a <r>.")
ASK_WHO = ("Who are you?", "{Tell me|Hi,|So} who are you{?|}", "{Introduce yourself|Please introduce yourself}.", "{Who am I talking to|Who is this}?")
ASK_ITS_NAME = ("What is your name?", "{What's|Tell me} your name{?|.}", "How are you called?", "What should I call you?", "Do you have a name?")
ASK_ROLE = ("What {do you do|is your job|is your work|are you}?", "What's your job?", "What do you work as?", "What is your profession?")


def persona(rng: random.Random, single) -> Dialogue:
    """A system prompt, then one to three questions. `single` draws an ordinary question."""
    kind = rng.random()
    if kind < 0.4:
        opening, systems = rng.choice(MANNERS)
        system = rng.choice(expand_all(systems))
        turns = [single(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        turns = [Turn("persona", turn.question, opening + turn.answer, turn.all_keys()) for turn in turns]
    elif kind < 0.75:
        name, role = rng.choice(PERSONA_NAMES), rng.choice(ROLES)
        system = pick(rng, NAMED_SYSTEM, n=name, r=role)
        asked = (
            (ASK_WHO, f"I am {name}, a {role}."),
            (ASK_ITS_NAME, f"My name is {name}."),
            (ASK_ROLE, f"I am a {role}."),
        )
        turns = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            if rng.random() < 0.8:
                patterns, answer = rng.choice(asked)
                turns.append(Turn("persona", casual(rng, pick(rng, patterns)), answer, (ALWAYS_TRAINED,)))
            else:
                turns.append(ordinary(rng, single))
    else:
        system = rng.choice(expand_all(PLAIN_SYSTEM))
        turns = [single(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
        turns = [Turn("persona", turn.question, turn.answer, turn.all_keys()) for turn in turns]
    if rng.random() < 0.15:
        system = system.rstrip(".")
    key = "persona|" + " / ".join([normalized(system), *(normalized(turn.question) for turn in turns)])
    return Dialogue(tuple(turns), system, key)


def ordinary(rng: random.Random, single) -> Turn:
    """A question whose answer does not depend on who answers."""
    while (turn := single(rng)).category == "small talk":
        pass
    return turn


def chat(rng: random.Random, single, n_turns: int) -> Dialogue:
    """Unrelated questions one after another, so that a growing history does not disturb the models.

    Only for training: nothing held out is drawn.
    """
    turns: list[Turn] = []
    while len(turns) < n_turns:
        part = follow_up(rng) if rng.random() < 0.15 else Dialogue((single(rng),))
        if not is_held_out(part):
            turns.extend(part.turns)
    return Dialogue(tuple(turns[:n_turns]))
