"""Asks the held-out questions at temperature 0 and prints the share of exact answers per category.

    python score.py ../demo-large.gguf --bin ../../target/release/downshift
    python score.py ../demo-large.gguf --llama-cpp        through llama-cpp-python
    python score.py large --checkpoint                    the checkpoint in out/, in the framework
"""

import argparse
import sys
from pathlib import Path

from scoring import Score, read_questions


def llama_cpp_answers(model: str, questions: list[dict]) -> list[str]:
    """llama.cpp renders the file's own chat template and tokenizes it itself."""
    from llama_cpp import Llama

    llama = Llama(model, n_ctx=1024, n_threads=1, verbose=False)
    answers = []
    for question in questions:
        reply = llama.create_chat_completion(question["messages"], temperature=0.0, repeat_penalty=1.0, max_tokens=64)
        answers.append(reply["choices"][0]["message"]["content"])
    return answers


def checkpoint_answers(model: str, questions: list[dict]) -> list[str]:
    import torch
    from tokenizers import Tokenizer

    from greedy_answers import greedy_answers
    from model import CONFIGS, Decoder

    out = Path(__file__).parent / "out"
    decoder = Decoder(CONFIGS[model])
    decoder.load_state_dict(torch.load(out / f"{model}.pt", weights_only=True)["model"])
    return greedy_answers(decoder, Tokenizer.from_file(str(out / "tokenizer.json")), questions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file; with --checkpoint the name of a model")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--bin", help="the downshift binary")
    how.add_argument("--llama-cpp", action="store_true")
    how.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--questions", type=Path, help="JSON lines; default: the generator's own 800 held-out questions")
    parser.add_argument("--per-category", type=int, help="only the first few of each category")
    parser.add_argument("--wrong", action="store_true", help="also print the wrong answers")
    args = parser.parse_args()

    questions = read_questions(args.questions, args.per_category)
    if args.bin:
        from downshift_answers import downshift_answers

        answers = downshift_answers(args.bin, args.model, questions)
    elif args.llama_cpp:
        answers = llama_cpp_answers(args.model, questions)
    else:
        answers = checkpoint_answers(args.model, questions)

    score = Score(questions, answers)
    print(score.table())
    if args.wrong:
        for question, answer in score.wrong:
            print(f"{question['category']}: {question['messages'][-1]['content']!r}: {answer!r} is not {question['answer']!r}", file=sys.stderr)


if __name__ == "__main__":
    main()
