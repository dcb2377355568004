"""Writes what training reads: the tokenizer, the pools as token arrays, and the held-out questions.

    python prepare.py [--out out] [--seed 0]
    python prepare.py --sample ../../tests/data/demo_heldout.jsonl      only the first four questions of each category
"""

import argparse
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import bpe
from corpus import POOL_SIZES, held_out_questions, training_pool, training_text, write_questions
from scoring import read_questions


def answer_mask(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """True where a token belongs to an answer, its `<|im_end|>` included."""
    start, end, assistant = (tokenizer.token_to_id(token) for token in (bpe.IM_START, bpe.IM_END, "assistant"))
    begins = np.flatnonzero((ids[:-1] == start) & (ids[1:] == assistant)) + 3  # past the mark, the role and its newline
    end_positions = np.flatnonzero(ids == end)
    ends = end_positions[np.searchsorted(end_positions, begins)] + 1
    edges = np.zeros(len(ids) + 1, np.int32)
    edges[begins] += 1
    edges[ends] -= 1
    return np.cumsum(edges[:-1]) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=Path, metavar="FILE", help="write the sample that downshift's own tests ask, and stop")
    args = parser.parse_args()
    if args.sample:
        write_questions(read_questions(per_category=4), args.sample)
        return
    args.out.mkdir(parents=True, exist_ok=True)

    tokenizer = bpe.train()
    tokenizer.save(str(args.out / "tokenizer.json"))
    questions = held_out_questions()
    write_questions(questions, args.out / "held_out.jsonl")
    print(f"{len(questions)} held-out questions")

    arrays = {}
    for pool in POOL_SIZES:
        started = time.monotonic()
        texts = [training_text(dialogue) for dialogue in training_pool(pool, args.seed)]
        encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        ids = np.concatenate([np.asarray(sequence, np.uint16) for sequence in encoded])
        arrays[f"{pool}/ids"] = ids
        arrays[f"{pool}/mask"] = answer_mask(ids, tokenizer)
        arrays[f"{pool}/offsets"] = np.cumsum([0, *map(len, encoded)])
        print(f"{pool:15} {len(texts):7} conversations {len(ids) / len(texts):6.1f} tokens each  {time.monotonic() - started:5.1f} s", flush=True)
    np.savez(args.out / "pools.npz", **arrays)


if __name__ == "__main__":
    main()
