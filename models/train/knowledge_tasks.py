"""Capitals, the calendar and units. Facts cannot be held out, so the wording with its operands is."""

import random

from facts import CAPITALS, CONVERSIONS, DAYS, IRREGULAR_PLURALS, METRIC, MONTHS, ORDINALS, WITH_ARTICLE
from phrases import casual, pick
from turn import Turn

CAPITAL_OF = (
    "What is the capital of <c>?", "{What's|Name|Tell me} the capital {city|} of <c>{?|.}", "Which city is the capital of <c>?",
    "What city is <c>'s capital?", "What is <c>'s capital {city|}?", "capital of <c>", "{Do you know|Can you tell me} the capital of <c>?",
    "The capital of <c>?",
)
COUNTRY_OF = (
    "{Which|What} country has <k> as its capital?", "<k> is the capital of {which|what} country?", "<k> is the capital of what?",
    "Of which country is <k> the capital?", "What is <k> the capital of?",
)
DAY_AFTER = ("{What|Which} day {comes|is} {right|} after <d>?", "What day follows <d>?", "{What's|What is} the day after <d>?", "If today is <d>, what day is tomorrow?")
DAY_BEFORE = ("{What|Which} day {comes|is} {right|} before <d>?", "{What's|What is} the day before <d>?", "If today is <d>, what day was yesterday?")
TWO_DAYS = ("{What|Which} day is two days after <d>?", "What day comes two days after <d>?", "If today is <d>, what day is it in two days?")
MONTH_AFTER = ("{What|Which} month {comes|is} {right|} after <m>?", "What month follows <m>?", "{What's|What is} the month after <m>?")
MONTH_BEFORE = ("{What|Which} month {comes|is} {right|} before <m>?", "{What's|What is} the month before <m>?")
MONTH_DAYS = ("How many days does <m> have?", "How many days are {there|} in <m>?", "How long is <m>?", "{What is|What's} the number of days in <m>?")
MONTH_NUMBER = ("{What|Which} is the <o> month {of the year|}?", "{What|Which} month is the <o> {of the year|}?", "{Tell me|Name} the <o> month.")
DAY_NUMBER = ("{What|Which} is the <o> day of the week?", "{What|Which} day is the <o> {of the week|day}?", "{Tell me|Name} the <o> day of the week.")
ALL_DAYS = ("{Name|List|Tell me|What are} the days of the week{.|?}", "{Name|List} {all|} {seven|7} days {of the week|}.", "Which days does a week have?")
ALL_MONTHS = ("{Name|List|Tell me|What are} the months of the year{.|?}", "{Name|List} {all|} {twelve|12} months {of the year|}.", "Which months does a year have?")
CONVERT = (
    "How many <t> {are|are there} in <n> <f>?", "How many <t> is <n> <f>?", "{Convert|Change} <n> <f> {to|into} <t>.", "{What is|What's} <n> <f> in <t>?",
    "<n> <f> in <t>", "<n> <f> to <t>", "How many <t> do <n> <f> {make|have}?", "Express <n> <f> in <t>.",
)
FAHRENHEIT = ("{What is|What's} <n> {degrees|} Celsius in Fahrenheit?", "Convert <n> {degrees|} Celsius to Fahrenheit.", "<n> Celsius in Fahrenheit", "How much is <n> {degrees|} Celsius in Fahrenheit?")
CELSIUS = ("{What is|What's} <n> {degrees|} Fahrenheit in Celsius?", "Convert <n> {degrees|} Fahrenheit to Celsius.", "<n> Fahrenheit in Celsius", "How much is <n> {degrees|} Fahrenheit in Celsius?")


def with_article(country: str) -> str:
    return f"the {country}" if country in WITH_ARTICLE else country


def capital_turn(country: str, question: str) -> Turn:
    return Turn("capitals", question, f"The capital of {with_article(country)} is {CAPITALS[country]}.")


def capitals(rng: random.Random) -> Turn:
    country = rng.choice(tuple(CAPITALS))
    if rng.random() < 0.7:
        return capital_turn(country, casual(rng, pick(rng, CAPITAL_OF, c=with_article(country))))
    city = CAPITALS[country]
    return Turn("capitals", casual(rng, pick(rng, COUNTRY_OF, k=city)), f"{city} is the capital of {with_article(country)}.")


def calendar(rng: random.Random) -> Turn:
    months = tuple(MONTHS)
    d, m = rng.randrange(7), rng.randrange(12)
    day, month = DAYS[d], months[m]
    day_after, month_after = DAYS[(d + 1) % 7], months[(m + 1) % 12]
    day_before, month_before = DAYS[d - 1], months[m - 1]
    days = "28 days, or 29 in a leap year" if month == "February" else f"{MONTHS[month]} days"
    cases = (
        (2, DAY_AFTER, f"{day_after} comes after {day}."),
        (2, DAY_BEFORE, f"{day_before} comes before {day}."),
        (2, TWO_DAYS, f"{DAYS[(d + 2) % 7]} is two days after {day}."),
        (3, MONTH_AFTER, f"{month_after} comes after {month}."),
        (3, MONTH_BEFORE, f"{month_before} comes before {month}."),
        (3, MONTH_DAYS, f"{month} has {days}."),
        (3, MONTH_NUMBER, f"{month} is the {ORDINALS[m]} month."),
        (2, DAY_NUMBER, f"{day} is the {ORDINALS[d]} day of the week."),
        (0.5, ALL_DAYS, ", ".join(DAYS) + "."),
        (0.5, ALL_MONTHS, ", ".join(months) + "."),
    )
    _, patterns, answer = rng.choices(cases, [case[0] for case in cases])[0]
    ordinal = ORDINALS[d if patterns is DAY_NUMBER else m]
    return Turn("calendar", casual(rng, pick(rng, patterns, d=day, m=month, o=ordinal)), answer)


def unit_name(unit: str, n: object) -> str:
    return unit if str(n) == "1" else IRREGULAR_PLURALS.get(unit, unit + "s")


def quantity(n: object, unit: str) -> str:
    return f"{n} {unit_name(unit, n)}"


def conversion_turn(rng: random.Random, n: object, source: str, result: object, target: str) -> Turn:
    question = pick(rng, CONVERT, n=n, f=unit_name(source, n), t=unit_name(target, 2))
    return Turn("units", casual(rng, question), conversion_answer(n, source, result, target))


def conversion_answer(n: object, source: str, result: object, target: str) -> str:
    return f"{quantity(n, source)} {'is' if str(n) == '1' else 'are'} {quantity(result, target)}."


def hundredths(n: int) -> str:
    return f"{n / 100:.2f}".rstrip("0").rstrip(".")


def units(rng: random.Random) -> Turn:
    kind = rng.random()
    if kind < 0.1:
        unit, metric, factor, largest = rng.choice(METRIC)
        n = rng.randint(1, largest)
        return conversion_turn(rng, n, unit, hundredths(n * factor), metric)
    if kind < 0.25:
        celsius = rng.randrange(-10, 101, 5)
        fahrenheit = celsius * 9 // 5 + 32
        if rng.random() < 0.6:
            return Turn("units", casual(rng, pick(rng, FAHRENHEIT, n=celsius)), f"{celsius} degrees Celsius is {fahrenheit} degrees Fahrenheit.")
        return Turn("units", casual(rng, pick(rng, CELSIUS, n=fahrenheit)), f"{fahrenheit} degrees Fahrenheit is {celsius} degrees Celsius.")
    large, small, factor, largest = rng.choice(CONVERSIONS)
    n = rng.randint(1, largest)
    if rng.random() < 0.7:
        return conversion_turn(rng, n, large, n * factor, small)
    return conversion_turn(rng, n * factor, small, n, large)
