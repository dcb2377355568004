"""The tokenizer that all three models share: byte-level BPE, 2048 tokens, GGUF's `gpt2` with the `qwen2` split.

The merges are chosen so that the models can see letters where they need them: a word grows from its
leading space (or capital) one letter at a time, and no merge starts with a lower-case letter. So
` lamp` is one token if it is common, while `"lamp"` after a quote is always six. Words of the spelling lists choose no merges. The names of the
roles are the only exception.
"""

import collections
import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from corpus import SINGLE_TASKS, draw, messages_of
from words import WORDS

VOCAB_SIZE = 2048
IM_START, IM_END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END)
PRE = "qwen2"
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Built from rare letter pairs, so that few words to be spelled contain one.
_ROLE_MERGES = (
    ("u", "s"), ("us", "e"), ("use", "r"),
    ("s", "i"), ("s", "si"), ("a", "ssi"), ("assi", "s"), ("assis", "t"), ("assist", "a"), ("assista", "n"), ("assistan", "t"),
    ("s", "y"), ("sy", "s"), ("sys", "t"), ("syst", "e"), ("syste", "m"),
)


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte, in byte order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _may_merge(piece: str) -> bool:
    return len(piece) > 1 and not piece[0].islower() and piece[0] not in '"-'


def choose_merges(texts: list[str]) -> list[tuple[str, str]]:
    """The most frequent beginnings of the pieces that may merge; each is its own beginning plus one character."""
    pre_tokenizer = _pre_tokenizer()
    spelled = {"Ġ" + word for word in WORDS}
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        for piece, _ in pre_tokenizer.pre_tokenize_str(text):
            if _may_merge(piece) and piece not in spelled:
                counts.update(piece[:n] for n in range(2, len(piece) + 1))
    n_merges = VOCAB_SIZE - 256 - len(SPECIAL_TOKENS) - len(_ROLE_MERGES)
    chosen = sorted(counts, key=lambda prefix: (-counts[prefix], len(prefix), prefix))[:n_merges]
    return [(prefix[:-1], prefix[-1]) for prefix in chosen] + list(_ROLE_MERGES)


def training_sample(seed: int = 0, per_task: int = 4000) -> list[str]:
    """Text to choose merges from: every task alike, the ones about downshift more, for their many words."""
    rng = random.Random(f"{seed}/vocabulary")
    pools = {**dict.fromkeys(SINGLE_TASKS, per_task), "unknown": per_task // 2, "downshift": 3 * per_task, "capitals": 2 * per_task, "follow-up": per_task, "persona": per_task}
    drawn = (draw(pool, rng) for pool, size in pools.items() for _ in range(size))
    return [message["content"] for dialogue in drawn for message in messages_of(dialogue)]


def build(merges: list[tuple[str, str]]) -> Tokenizer:
    tokens = byte_alphabet() + ["".join(merge) for merge in merges]
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    assert len(vocab) == len(tokens) == VOCAB_SIZE - len(SPECIAL_TOKENS)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def train() -> Tokenizer:
    return build(choose_merges(training_sample()))


def merges_of(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """The merges of a built tokenizer, in order."""
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
