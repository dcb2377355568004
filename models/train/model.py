"""The decoder in PyTorch: llama's block (RMSNorm, grouped-query attention with RoPE, SwiGLU), tied embeddings.

Owns shapes, initialisation, the forward pass and greedy decoding; does not own data or file formats.
RoPE pairs the two halves of a head here, which is the faster layout to train; `export.py` permutes
the query and key rows into the interleaved pairs that GGUF's llama architecture means.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of one model. Every row length is a multiple of 32, the block of Q8_0."""

    hidden_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    ffn_size: int
    vocab_size: int = 2048
    head_dim: int = 32
    context_len: int = 1024
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5


CONFIGS = {
    "large": ModelConfig(hidden_size=192, n_layers=6, n_heads=6, n_kv_heads=2, ffn_size=512),
    "middle": ModelConfig(hidden_size=128, n_layers=4, n_heads=4, n_kv_heads=2, ffn_size=352),
    "small": ModelConfig(hidden_size=96, n_layers=3, n_heads=3, n_kv_heads=1, ffn_size=256),
}


def rope_tables(config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, each `(context_len, head_dim / 2)`."""
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-torch.arange(half) / half)
    angles = torch.arange(config.context_len)[:, None] * frequencies
    return angles.cos(), angles.sin()


def apply_rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Block(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        d, q_size, kv_size = config.hidden_size, config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.config = config
        self.attn_norm = nn.RMSNorm(d, eps=config.norm_eps)
        self.q_proj = nn.Linear(d, q_size, bias=False)
        self.k_proj = nn.Linear(d, kv_size, bias=False)
        self.v_proj = nn.Linear(d, kv_size, bias=False)
        self.o_proj = nn.Linear(q_size, d, bias=False)
        self.ffn_norm = nn.RMSNorm(d, eps=config.norm_eps)
        self.gate_proj = nn.Linear(d, config.ffn_size, bias=False)
        self.up_proj = nn.Linear(d, config.ffn_size, bias=False)
        self.down_proj = nn.Linear(config.ffn_size, d, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        c = self.config
        b, t, _ = x.shape
        h = self.attn_norm(x)
        q = apply_rope(self.q_proj(h).view(b, t, c.n_heads, c.head_dim).transpose(1, 2), cos, sin)
        k = apply_rope(self.k_proj(h).view(b, t, c.n_kv_heads, c.head_dim).transpose(1, 2), cos, sin)
        v = self.v_proj(h).view(b, t, c.n_kv_heads, c.head_dim).transpose(1, 2)
        # The query heads of one key head are stacked along time: one product per key head.
        q = q.reshape(b, c.n_kv_heads, -1, c.head_dim)  # (b, k, g * t, h)
        scores = (q @ k.transpose(-1, -2)).view(b, c.n_heads, t, t) / math.sqrt(c.head_dim) + bias
        mixed = scores.softmax(-1).to(v.dtype).view(b, c.n_kv_heads, -1, t) @ v  # (b, k, g * t, h)
        x = x + self.o_proj(mixed.view(b, c.n_heads, t, c.head_dim).transpose(1, 2).reshape(b, t, -1))
        h = self.ffn_norm(x)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class Decoder(nn.Module):
    def __init__(self, config: ModelConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.final_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        cos, sin = rope_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise(torch.Generator().manual_seed(seed))

    def _initialise(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.embedding.weight, std=0.05, generator=generator)
        for name, weight in self.named_parameters():
            if name.endswith("_proj.weight"):
                residual = 1 / math.sqrt(2 * self.config.n_layers) if "o_proj" in name or "down_proj" in name else 1.0
                nn.init.normal_(weight, std=residual / math.sqrt(weight.shape[1]), generator=generator)

    def hidden_states(self, token_ids: torch.Tensor, visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Final normed states `(b, t, d)`; `visible` is `(b, t, t)`, true where a query may see a key."""
        t = token_ids.shape[1]
        bias = torch.where(visible, 0.0, -1e9)[:, None].to(dtype)
        x = self.embedding(token_ids).to(dtype)
        cos, sin = self.cos[:t].to(dtype), self.sin[:t].to(dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, bias)
        return self.final_norm(x)

    def forward(self, token_ids: torch.Tensor, segments: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy over the answers' tokens only.

        Conversations packed into one row have different `segments` and do not see each other; RoPE is
        relative, so they need no positions of their own. `positions` index the flattened `(b * t)` states
        that predict `targets` (-1 is padding): only these rows meet the vocabulary, which at 2k tokens
        would otherwise cost as much as the layers.
        """
        t = token_ids.shape[1]
        causal = torch.ones(t, t, dtype=torch.bool).tril()
        visible = causal & (segments[:, :, None] == segments[:, None, :])
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        states = self.hidden_states(token_ids, visible, dtype).reshape(-1, self.config.hidden_size)[positions]
        logits = states @ self.embedding.weight.T.to(states.dtype)
        return F.cross_entropy(logits.float(), targets, ignore_index=-1)

    @torch.no_grad()
    def greedy(self, prompts: list[list[int]], end_id: int, max_tokens: int = 64) -> list[list[int]]:
        """The most likely answer to each prompt, without its end mark. Prompts are padded on the left."""
        answers: list[list[int]] = [[] for _ in prompts]
        open_rows = list(range(len(prompts)))
        while open_rows:
            sequences = [prompts[row] + answers[row] for row in open_rows]
            t = max(map(len, sequences))
            ids = torch.tensor([[0] * (t - len(sequence)) + sequence for sequence in sequences])
            real = torch.arange(t)[None] >= torch.tensor([t - len(sequence) for sequence in sequences])[:, None]
            visible = torch.ones(t, t, dtype=torch.bool).tril() & real[:, None, :]
            states = self.hidden_states(ids, visible, torch.float32)[:, -1]
            for row, token_id in zip(list(open_rows), (states @ self.embedding.weight.T).argmax(-1).tolist()):
                if token_id != end_id:
                    answers[row].append(token_id)
                if token_id == end_id or len(answers[row]) == max_tokens:
                    open_rows.remove(row)
        return answers
