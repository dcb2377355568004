"""Writes a checkpoint as a GGUF file of the llama architecture, matrices in Q8_0.

    python export.py large [--out out] [--to ../demo-large.gguf]
"""

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer

import bpe
from model import CONFIGS, Decoder, ModelConfig

LICENSE = "MIT OR Apache-2.0"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}{{ message['content'] | trim }}{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_BLOCK_TENSORS = {
    "attn_norm": "attn_norm", "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
    "ffn_norm": "ffn_norm", "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
}


def interleave_heads(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows `(heads * head_dim, d)` from RoPE on the two halves of a head to RoPE on neighbouring pairs."""
    rows, d = weight.shape
    return weight.reshape(rows // head_dim, 2, head_dim // 2, d).swapaxes(1, 2).reshape(rows, d)


def tensors_of(config: ModelConfig, state: dict[str, torch.Tensor]):
    """GGUF's name and the float32 array of every tensor. The output layer is the embedding itself."""
    arrays = {name: tensor.float().numpy() for name, tensor in state.items()}
    yield "token_embd.weight", arrays["embedding.weight"]
    for i in range(config.n_layers):
        for ours, theirs in _BLOCK_TENSORS.items():
            array = arrays[f"layers.{i}.{ours}.weight"]
            if ours in ("q_proj", "k_proj"):
                array = interleave_heads(array, config.head_dim)
            yield f"blk.{i}.{theirs}.weight", array
    yield "output_norm.weight", arrays["final_norm.weight"]


def add_metadata(writer: gguf.GGUFWriter, name: str, config: ModelConfig, n_parameters: int) -> None:
    writer.add_name(f"downshift demo {name}")
    writer.add_basename("downshift-demo")
    writer.add_size_label(f"{n_parameters / 1e6:.1f}M")
    writer.add_description(
        f"The {name} one of three tiny chat models of downshift, trained from nothing on generated text: small sums, units, capitals, "
        "dates, spelling, and questions on downshift itself. It knows nothing else."
    )
    writer.add_author("The downshift authors")
    writer.add_license(LICENSE)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.context_len)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.ffn_size)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, merges: list[tuple[str, str]]) -> None:
    vocab_size = tokenizer.get_vocab_size()
    tokens = [tokenizer.id_to_token(token_id) for token_id in range(vocab_size)]
    types = [gguf.TokenType.CONTROL if token in bpe.SPECIAL_TOKENS else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(bpe.PRE)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_bos_token_id(tokenizer.token_to_id(bpe.END_OF_TEXT))
    writer.add_pad_token_id(tokenizer.token_to_id(bpe.END_OF_TEXT))
    writer.add_eos_token_id(tokenizer.token_to_id(bpe.IM_END))
    writer.add_eot_token_id(tokenizer.token_to_id(bpe.IM_END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONFIGS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", help="where the checkpoint and the tokenizer are")
    parser.add_argument("--to", type=Path, help="default: demo-NAME.gguf in the folder above")
    args = parser.parse_args()
    target = args.to or Path(__file__).parent.parent / f"demo-{args.name}.gguf"

    config = CONFIGS[args.name]
    state = torch.load(args.out / f"{args.name}.pt", weights_only=True)
    n_parameters = sum(weight.numel() for weight in Decoder(config).parameters())
    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))

    writer = gguf.GGUFWriter(target, "llama")
    add_metadata(writer, args.name, config, n_parameters)
    add_tokenizer(writer, tokenizer, bpe.merges_of(tokenizer))
    for name, array in tensors_of(config, state["model"]):
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{target}: step {state['step']}, {n_parameters:,} parameters, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
