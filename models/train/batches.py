"""Packs conversations from the pools into rows of fixed length. Seeded; owns the mixture."""

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

# Share of conversations drawn from each pool; harder tasks are shown more often.
POOL_WEIGHTS = {
    "small talk": 3.0, "addition": 5.0, "subtraction": 7.0, "multiplication": 3.0, "comparison": 5.0, "counting": 3.0,
    "capitals": 4.0, "calendar": 3.5, "units": 6.0, "spelling": 5.0, "reversing": 6.0, "letters": 3.0, "downshift": 8.0,
    "unknown": 6.0, "follow-up": 6.0, "persona": 8.0, "chat": 7.0,
}
ROW_LEN = 128
LONG_ROW_LEN = 1024
LONG_EVERY = 16
ANSWER_SHARE = 0.4


@dataclass
class Batch:
    """`token_ids` and `segments` (b, t); `positions` and `targets` (n), see `Decoder.forward`."""

    token_ids: torch.Tensor
    segments: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    n_tokens: int


class Batches:
    """Endless batches of `tokens_per_batch`; every sixteenth is made of conversations that fill the context."""

    def __init__(self, pools_path: Path, tokens_per_batch: int, seed: int):
        arrays = np.load(pools_path)
        names = sorted({key.split("/")[0] for key in arrays.files})
        self._pools = {name: tuple(arrays[f"{name}/{part}"] for part in ("ids", "mask", "offsets")) for name in names}
        self._weights = np.array(list(POOL_WEIGHTS.values())) / sum(POOL_WEIGHTS.values())
        self._tokens_per_batch = tokens_per_batch
        self._seed = seed

    def batch(self, step: int) -> Batch:
        """The batch of one step, the same whenever it is asked for."""
        rng = np.random.default_rng((self._seed, step))
        if step % LONG_EVERY == LONG_EVERY - 1:
            return self._pack(rng, LONG_ROW_LEN, lambda: "long")
        names = iter(rng.choice(list(POOL_WEIGHTS), size=self._tokens_per_batch // 8, p=self._weights))
        return self._pack(rng, ROW_LEN, lambda: next(names))

    def _conversation(self, rng: np.random.Generator, pool: str) -> tuple[np.ndarray, np.ndarray]:
        ids, mask, offsets = self._pools[pool]
        i = rng.integers(len(offsets) - 1)
        return ids[offsets[i] : offsets[i + 1]], mask[offsets[i] : offsets[i + 1]]

    def _pack(self, rng: np.random.Generator, row_len: int, next_pool) -> Batch:
        n_rows = self._tokens_per_batch // row_len
        token_ids = np.zeros((n_rows, row_len), np.int64)
        mask = np.zeros((n_rows, row_len), bool)
        segments = np.full((n_rows, row_len), -1, np.int64)
        n_tokens = 0
        waiting: deque = deque()
        for row in range(n_rows):
            filled, segment, misses = 0, 0, 0
            while filled < row_len and misses < 4:
                ids, answer = waiting.popleft() if waiting and not misses else self._conversation(rng, next_pool())
                if len(ids) > row_len:
                    if filled or row_len < LONG_ROW_LEN:
                        continue
                    ids, answer = ids[:row_len], answer[:row_len]
                if filled + len(ids) > row_len:
                    misses += 1
                    waiting.append((ids, answer))
                    continue
                end = filled + len(ids)
                token_ids[row, filled:end], mask[row, filled:end], segments[row, filled:end] = ids, answer, segment
                filled, segment = end, segment + 1
            n_tokens += filled

        # The state before an answer's token predicts it; a row's first token is never an answer's.
        positions = np.flatnonzero(mask.reshape(-1)) - 1
        room = int(n_rows * row_len * ANSWER_SHARE)
        chosen = positions[:room]
        padding = room - len(chosen)
        targets = np.pad(token_ids.reshape(-1)[chosen + 1], (0, padding), constant_values=-1)
        return Batch(
            torch.from_numpy(token_ids), torch.from_numpy(segments), torch.from_numpy(np.pad(chosen, (0, padding))), torch.from_numpy(targets), n_tokens
        )
