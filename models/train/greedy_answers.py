"""What a model in the framework answers, before any export."""

from tokenizers import Tokenizer

import bpe
from corpus import prompt_text
from model import Decoder


def greedy_answers(model: Decoder, tokenizer: Tokenizer, questions: list[dict], batch_size: int = 100) -> list[str]:
    """The model's own answers, decoded without sampling."""
    prompts = [tokenizer.encode(prompt_text(question["messages"]), add_special_tokens=False).ids for question in questions]
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    end_id = tokenizer.token_to_id(bpe.IM_END)
    for start in range(0, len(by_length), batch_size):
        rows = by_length[start : start + batch_size]
        for row, ids in zip(rows, model.greedy([prompts[i] for i in rows], end_id)):
            answers[row] = tokenizer.decode(ids)
    return answers
