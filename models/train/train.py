"""Trains one model from the prepared pools, with checkpoints that a later call resumes from.

    python train.py large [--steps 2800] [--minutes 80] [--out out]

Prints the loss and the speed, now and then a quick score on held-out questions, and the full score at the end.
"""

import argparse
import os
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

from batches import Batches
from greedy_answers import greedy_answers
from model import CONFIGS, Decoder
from scoring import Score, read_questions

# What the shipped files were trained for, rounded up.
STEPS = {"large": 2800, "middle": 1900, "small": 1300}
TOKENS_PER_BATCH = 8192
PEAK_LR = {"large": 3e-3, "middle": 4e-3, "small": 5e-3}
WARMUP_STEPS = 100
# The rate stays at its peak for the first part of the run and then falls to zero in a straight line.
DECAY_FROM = 0.4
CHECKPOINT_EVERY = 100


def learning_rate(peak: float, step: int, progress: float) -> float:
    return peak * min(1.0, (step + 1) / WARMUP_STEPS, max(0.0, (1 - progress) / (1 - DECAY_FROM)))


def make_optimizers(model: Decoder) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms."""
    matrices = [weight for name, weight in model.named_parameters() if name.endswith("_proj.weight")]
    others = [weight for name, weight in model.named_parameters() if not name.endswith("_proj.weight")]
    return [
        torch.optim.Muon(matrices, lr=1.0, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def save_checkpoint(path: Path, state: dict) -> None:
    """Writes beside the old one and renames, so that an interrupted write loses nothing."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONFIGS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    parser.add_argument("--steps", type=int, help="default: per model, see STEPS")
    parser.add_argument("--minutes", type=float, help="end by this time over all calls, even if fewer steps are done")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="one per model is best when several train at once")
    parser.add_argument("--score-every", type=int, default=500)
    parser.add_argument("--no-compile", action="store_true", help="where no C++ compiler is at hand; slower")
    args = parser.parse_args()
    steps = args.steps or STEPS[args.name]
    torch.set_num_threads(args.threads)

    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
    batches = Batches(args.out / "pools.npz", TOKENS_PER_BATCH, args.seed)
    quick_questions = read_questions(args.out / "held_out.jsonl", per_category=10)
    model = Decoder(CONFIGS[args.name], args.seed)
    optimizers = make_optimizers(model)
    checkpoint_path = args.out / f"{args.name}.pt"
    step, trained_s = 0, 0.0
    if checkpoint_path.exists():
        state = torch.load(checkpoint_path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        step, trained_s = state["step"], state["trained_s"]
        print(f"resuming at step {step}")
    print(f"{args.name}: {sum(weight.numel() for weight in model.parameters()):,} parameters, {steps} steps")
    loss_of = model if args.no_compile else torch.compile(model, dynamic=False)

    last, shown_at, shown_tokens, shown_loss = time.monotonic(), time.monotonic(), 0, []
    progress = 0.0
    while True:
        now = time.monotonic()
        trained_s, last = trained_s + now - last, now
        progress = max(step / steps, trained_s / 60 / args.minutes if args.minutes else 0.0)
        if progress >= 1:
            break
        batch = batches.batch(step)
        rate = learning_rate(PEAK_LR[args.name], step, progress)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(batch.token_ids, batch.segments, batch.positions, batch.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        shown_tokens += batch.n_tokens
        shown_loss.append(loss.item())
        if step % 50 == 0:
            elapsed = time.monotonic() - shown_at
            print(f"step {step:5}  loss {sum(shown_loss) / len(shown_loss):.4f}  rate {rate:.5f}  {shown_tokens / elapsed:6.0f} tokens/s  {trained_s / 60:5.1f} min  {100 * progress:3.0f} %", flush=True)
            shown_at, shown_tokens, shown_loss = time.monotonic(), 0, []
        if step % CHECKPOINT_EVERY == 0:
            save_checkpoint(checkpoint_path, {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step, "trained_s": trained_s})
        if step % args.score_every == 0:
            print(f"step {step:5}  held out {Score(quick_questions, greedy_answers(model, tokenizer, quick_questions)).line()}", flush=True)

    save_checkpoint(checkpoint_path, {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step, "trained_s": trained_s})
    questions = read_questions(args.out / "held_out.jsonl")
    score = Score(questions, greedy_answers(model, tokenizer, questions))
    print(score.table())
    for question, answer in score.wrong:
        print(f"wrong: {question['category']}: {question['messages'][-1]['content']!r}: {answer!r} is not {question['answer']!r}")


if __name__ == "__main__":
    main()
