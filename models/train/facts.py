"""The facts that the models learn: countries, the calendar and units. Plain data."""

CAPITALS = {
    "Argentina": "Buenos Aires", "Australia": "Canberra", "Austria": "Vienna", "Belgium": "Brussels", "Bolivia": "Sucre",
    "Brazil": "Brasilia", "Bulgaria": "Sofia", "Canada": "Ottawa", "Chile": "Santiago", "China": "Beijing",
    "Colombia": "Bogota", "Croatia": "Zagreb", "Cuba": "Havana", "Cyprus": "Nicosia", "Denmark": "Copenhagen",
    "Ecuador": "Quito", "Egypt": "Cairo", "Estonia": "Tallinn", "Ethiopia": "Addis Ababa", "Finland": "Helsinki",
    "France": "Paris", "Germany": "Berlin", "Ghana": "Accra", "Greece": "Athens", "Hungary": "Budapest",
    "Iceland": "Reykjavik", "India": "New Delhi", "Indonesia": "Jakarta", "Iran": "Tehran", "Iraq": "Baghdad",
    "Ireland": "Dublin", "Italy": "Rome", "Jamaica": "Kingston", "Japan": "Tokyo", "Kenya": "Nairobi",
    "Latvia": "Riga", "Lebanon": "Beirut", "Lithuania": "Vilnius", "Malaysia": "Kuala Lumpur", "Mexico": "Mexico City",
    "Mongolia": "Ulaanbaatar", "Morocco": "Rabat", "Nepal": "Kathmandu", "Netherlands": "Amsterdam", "New Zealand": "Wellington",
    "Nigeria": "Abuja", "Norway": "Oslo", "Pakistan": "Islamabad", "Peru": "Lima", "Philippines": "Manila",
    "Poland": "Warsaw", "Portugal": "Lisbon", "Romania": "Bucharest", "Russia": "Moscow", "Serbia": "Belgrade",
    "Slovakia": "Bratislava", "Slovenia": "Ljubljana", "South Korea": "Seoul", "Spain": "Madrid", "Sweden": "Stockholm",
    "Switzerland": "Bern", "Thailand": "Bangkok", "Turkey": "Ankara", "Ukraine": "Kyiv", "Vietnam": "Hanoi",
}
"""Country to capital. Those that take an article ("the Netherlands") are in `WITH_ARTICLE`."""

WITH_ARTICLE = {"Netherlands", "Philippines"}

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

MONTHS = {
    "January": 31, "February": 28, "March": 31, "April": 30, "May": 31, "June": 30,
    "July": 31, "August": 31, "September": 30, "October": 31, "November": 30, "December": 31,
}
"""Month to its number of days, in order."""

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth")

# (larger unit, smaller unit, how many smaller ones make a larger one, largest amount asked for)
CONVERSIONS = (
    ("foot", "inch", 12, 12),
    ("yard", "foot", 3, 20),
    ("yard", "inch", 36, 5),
    ("kilometer", "meter", 1000, 60),
    ("meter", "centimeter", 100, 60),
    ("meter", "millimeter", 1000, 60),
    ("centimeter", "millimeter", 10, 60),
    ("kilogram", "gram", 1000, 60),
    ("pound", "ounce", 16, 10),
    ("liter", "milliliter", 1000, 60),
    ("gallon", "quart", 4, 12),
    ("quart", "pint", 2, 20),
    ("week", "day", 7, 12),
    ("day", "hour", 24, 7),
    ("hour", "minute", 60, 10),
    ("minute", "second", 60, 10),
    ("year", "month", 12, 10),
)

# (unit, metric unit, factor in hundredths, largest amount asked for)
METRIC = (("inch", "centimeter", 254, 12), ("foot", "centimeter", 3048, 6))

IRREGULAR_PLURALS = {"foot": "feet", "inch": "inches"}
