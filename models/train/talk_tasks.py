"""Greetings, small talk, and honest answers to what the models do not know."""

import random

from facts import CAPITALS
from letters_tasks import made_up_word
from phrases import casual, expand_all, normalized, pick
from turn import ALWAYS_TRAINED, Turn
from words import WORDS

NAMES = tuple(
    """Anna Ben Carla David Emma Felix Grace Hugo Ida Jonas Kate Leo Maria Noah Olga Paul Rosa Sam Tina Victor Wendy Alex Bella Chris Diana
    Eric Fiona George Helen Ivan Julia Kevin Laura Max Nina Oscar Petra Ruth Simon Tom Uma Vera Walter Zoe""".split()
)

# Answer, the core forms (always trained on), and further wordings (some of them held out).
SMALL_TALK = (
    ("Hello! How can I help you?", ("hi", "hello", "hey", "Hi!", "Hello!", "Hey!", "hello there", "hi there"),
     ("{hi|hello|hey|oh hi|oh hello|well hello|hi again|hello again} {there|you|friend|my friend|everyone|downshift|assistant|} {!|.|}", "{greetings|howdy|hiya} {friend|there|downshift|} {!|.|}")),
    ("Good morning! How can I help you?", ("good morning", "Good morning!"), ("{hi|hello|hey|oh|} good morning {to you|there|friend|downshift|my friend|} {!|.|}",)),
    ("Good evening! How can I help you?", ("good evening", "Good evening!"), ("{hi|hello|hey|oh|} good evening {to you|there|friend|downshift|my friend|} {!|.|}",)),
    ("Good night!", ("good night", "Good night!"), ("{ok|thanks|well|so|} good night {to you|then|friend|downshift|my friend|} {!|.|}",)),
    ("I am fine, thank you. How can I help you?", ("How are you?", "how are you", "How are you doing?"),
     ("{hi|hello|hey|so|and|} how are {you|things} {today|now|doing|doing today|}?", "{hi|hello|hey|} how {is it going|do you feel|do you do} {today|}?", "Are you {well|ok|fine} {today|}?")),
    ("You are welcome!", ("thanks", "thank you", "Thanks!", "Thank you!"),
     ("{ok|great|good|oh|} {thanks|thank you|many thanks} {a lot|so much|very much|for that|for your help|friend|} {!|.|}",)),
    ("Goodbye!", ("bye", "goodbye", "Bye!", "see you later"), ("{ok|well|thanks|so|} {bye|goodbye|bye bye|see you|see you later|see you tomorrow} {then|now|friend|downshift|} {!|.|}",)),
    ("I am a small demo model of downshift.", ("Who are you?", "What are you?", "who are you"),
     ("{hi|hello|so|and|tell me|} {who|what} {are you|exactly are you|are you exactly|are you really} {?|}", "{Please|Can you} {introduce yourself|tell me who you are|tell me about yourself} {?|.}")),
    ("I am called downshift demo.", ("What is your name?", "what's your name", "Do you have a name?"),
     ("{hi|hello|so|and|} {what is|what's|tell me} your name {please|}?", "{What|How} {are you called|should I call you}?")),
    ("I can do small sums, units, capitals, dates, spelling and questions on downshift.", ("What can you do?", "help", "Help!", "what can you do"),
     ("{hi|so|and|tell me|} {what can you do|what do you know|what are you good at|how can you help me|what can I ask you} {for me|here|}?", "{Can|Could} you help me?", "I need {some|} help.")),
    ("No, I am a very small language model.", ("Are you a human?", "Are you real?", "are you human"), ("{so|hi|tell me|} are you {a human|a person|a real person|human|alive|a man|a woman|conscious} {being|really|}?",)),
    ("Yes, I am a computer program.", ("Are you a robot?", "Are you an AI?"), ("{so|hi|tell me|} are you {a robot|an AI|a computer|a program|a machine|a chatbot|a bot} {really|then|}?",)),
    ("Why did the engine change down? It wanted to keep going.", ("Tell me a joke.", "tell me a joke"),
     ("{please|can you|} {tell me|tell us|make|say} a {good|funny|short|new|} joke {please|}{.|?}", "{do you know|know} {a joke|any jokes}?")),
    ("I am glad to hear that.", ("That is great.", "great", "nice", "Cool!"), ("{that is|that's|this is|it's} {great|nice|good|cool|wonderful|perfect|very good|very nice|really good} {!|.|}", "{well done|good job|good answer|I like that} {friend|downshift|}{!|.|}")),
    ("I am sorry about that.", ("That is wrong.", "wrong", "No, that is wrong."), ("{that is|that's|this is|no, that is} {wrong|not right|incorrect|false|bad|a mistake|not true} {!|.|}", "{you are|you were} {wrong|mistaken|not right} {!|.|}")),
    ("All right.", ("ok", "okay", "Ok."), ("{ok|okay|all right|fine|good|I see} {then|downshift|friend|now|} {.|!|}",)),
    ("Yes, I work without a network.", ("Do you need the internet?", "Are you offline?"), ("{do|will} you {need|use|require} {the internet|a network|the network|an internet connection}?", "{do|can} you work {offline|without internet|without a network|without the internet}?")),
)

UNKNOWN_ANSWER = "I don't know that one."
UNKNOWN = (
    "Who {wrote|painted|composed|invented|discovered|built|founded} {the |}<thing>?", "Who {is|was} <name> {Smith|Brown|Miller|Stone|Baker|Hill|King|}?", "{What is|What's} the {population|area|currency|anthem|president} of <country>?",
    "Who is the {president|king|queen|prime minister} of <country>?", "{What is|How is|What's} the weather {like|} {today|tomorrow|} in <city>?", "How {tall|old|heavy|fast|far away} is {the|a|my} <thing>?",
    "{Write|Tell me} {a poem|a story|a song|an essay|a letter} about {a|the|my} <thing>.", "{What is|What's} the meaning of <made>?", "What does <made> mean?", "{Translate|Say} \"<thing>\" {into|in} {French|German|Spanish|Latin|Chinese}.",
    "What {time|year} is it {now|}?", "Who won the {race|match|election|cup|game} in {19|20}<two>?", "{What is|What's} the price of {a|an|one} <thing>?", "Why is {the|a} <thing> so {blue|big|loud|old|small|hot|cold}?",
    "How do I {cook|bake|grow|fix|paint|clean|build|sell} {a|my|the} <thing>?", "{What is|What's} {your|the} opinion {on|of|about} {the|} <thing>?", "Where {is|was} {my|the} <thing>?", "When was {the|} <thing> {invented|built|found}?",
    "What is the capital of <land>?", "What is the capital of <land>?", "{What is|What's|How much is} <big> {+|-|plus|minus} <other>?", "<big> {+|-} <other>", "{What is|What's|How much is} <other> {+|-|plus|minus} <big>?", "{What is|What's} <big> times <two>?", "{What is|What's} <two> divided by <one>?",
    "{What is|What's} the square root of <two>?", "Which {stock|car|phone|book|film|song} should I buy?", "Can you {fly|swim|sing|cook|drive|dance|see me|hear me}?", "{Do|Did} you {like|see|eat|know|have} {the|my|a} <thing>?",
    "What {color|colour|size|shape} is {a|the|my} <thing>?", "How many {people|stars|fish|trees|books} are {there|} in {the|} {world|sea|sky|<country>}?", "{Who|What} is <made>?", "<made> <nonsense>", "<made> <nonsense> <thing>?", "Tell me about {the|} <thing>.", "Tell me about <country>.",
    "What happened in {18|19|20}<two>?", "Who is the best {singer|player|writer|actor} {in <country>|of all time|}?", "What is {the|a} <thing> made of?", "{Play|Show me|Find|Draw|Send me|Buy} {a|the|my} <thing>.", "What do <thing>s eat?", "How many {legs|eyes|wheels|rooms} does {a|the} <thing> have?",
)
FAR_LANDS = tuple(
    """Atlantis Narnia Mordor Utopia Gondor Oz Wakanda Genovia Mars Jupiter Texas Bavaria Tuscany Ohio Florida Africa Europe Asia Antarctica
    Tuvalu Palau Tonga Samoa Togo Benin Chad Malta Fiji Oman Qatar Kuwait Laos Gabon Angola Zambia Rwanda Haiti Panama Belize""".split()
)


def small_talk(rng: random.Random) -> Turn:
    answer, core, more = rng.choice(SMALL_TALK)
    if rng.random() < 0.3:
        question = rng.choice(core)
        return Turn("small talk", question, answer, (ALWAYS_TRAINED,))
    text = rng.choice(expand_all(more)).replace(" !", "!").replace(" .", ".").replace(" ?", "?")
    if rng.random() < 0.6:
        text = text[0].upper() + text[1:]
    is_core = normalized(text) in {normalized(question) for question in core}
    return Turn("small talk", casual(rng, text), answer, (ALWAYS_TRAINED,) if is_core else ())


def unknown(rng: random.Random) -> Turn:
    question = pick(
        rng, UNKNOWN, thing=rng.choice(WORDS), name=rng.choice(NAMES), country=rng.choice(tuple(CAPITALS)), city=rng.choice(tuple(CAPITALS.values())),
        land=rng.choice(FAR_LANDS), made=made_up_word(rng, 7), nonsense=made_up_word(rng, 7), big=rng.randrange(100, 10000), other=rng.choice((rng.randrange(100), rng.randrange(100, 10000))), two=rng.randrange(10, 100), one=rng.randrange(2, 10),
    )
    return Turn("unknown", casual(rng, question), UNKNOWN_ANSWER)
