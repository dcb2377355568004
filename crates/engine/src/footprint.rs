//! What a model needs, predicted from its header alone.

use std::collections::HashMap;

use downshift_worker::{Footprint, KvType};

use crate::layers::CpuArm;
use crate::model_config::ModelConfig;
use crate::weights::Gguf;

/// Stacks, allocator and the small things of a process that runs a model, measured on Linux x86-64.
const RUNTIME_BYTES: u64 = 2 << 20;

/// Pages of the program itself that a worker uses, measured on Linux x86-64.
pub(crate) const PROGRAM_BYTES: u64 = 10_500 << 10;

/// Bytes by component for the CPU; `kv_type` is how keys and values will be stored.
pub(crate) fn predict(gguf: &Gguf, config: &ModelConfig, kv_type: KvType) -> Footprint {
    Footprint {
        weights_bytes: gguf.tensors().filter_map(|tensor| tensor.size_bytes()).sum(),
        program_bytes: PROGRAM_BYTES,
        kv_bytes_per_position: CpuArm::kv_bytes_per_position(config, kv_type),
        scratch_bytes: CpuArm::scratch_bytes(gguf, config),
        fixed_bytes: RUNTIME_BYTES + tokenizer_bytes(gguf),
    }
}

/// Weights that a forward pass multiplies: those of the layers for every row, those of the head for rows whose logits are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Weights of all layers.
    pub layer_weights: u64,
    /// Bytes of them, read once a pass.
    pub layer_bytes: u64,
    /// Weights of the head.
    pub head_weights: u64,
    /// Bytes of them.
    pub head_bytes: u64,
    /// Bytes of keys and values of one position, all layers.
    pub kv_bytes_per_position: u64,
}

/// What passes read and multiply.
pub(crate) fn traffic(gguf: &Gguf, config: &ModelConfig, kv_type: KvType) -> Traffic {
    let sum = |is_wanted: &dyn Fn(&str) -> bool| {
        let wanted = gguf.tensors().filter(|tensor| tensor.dims.len() > 1 && is_wanted(&tensor.name));
        wanted.fold((0, 0), |(n, bytes), tensor| (n + tensor.n_elements(), bytes + tensor.size_bytes().unwrap_or(0)))
    };
    let head = if gguf.tensor("output.weight").is_some() { "output.weight" } else { "token_embd.weight" };
    let (layer_weights, layer_bytes) = sum(&|name| name.starts_with("blk."));
    let (head_weights, head_bytes) = sum(&|name| name == head);
    let kv_bytes_per_position = CpuArm::kv_bytes_per_position(config, kv_type);
    Traffic { layer_weights, layer_bytes, head_weights, head_bytes, kv_bytes_per_position }
}

/// The tables of a tokenizer, which are copied out of the file: spellings with their ends and kinds, a half-empty index of 16
/// bytes a slot, and the pairs of the merges in a table that is at most seven eighths full.
fn tokenizer_bytes(gguf: &Gguf) -> u64 {
    let strings = |key: &str| gguf.metadata().strings(key).ok().flatten();
    let (n_tokens, text) = strings("tokenizer.ggml.tokens")
        .map_or((0, 0), |tokens| (tokens.len() as u64, tokens.iter().map(|token| token.len() as u64).sum()));
    let n_merges = strings("tokenizer.ggml.merges").map_or(0, |merges| merges.len() as u64);
    let pairs = if n_merges == 0 { 0 } else { (n_merges * 8 / 7).next_power_of_two() };
    text + n_tokens * 10 + 16 * (2 * n_tokens).next_power_of_two() + 17 * pairs
}

/// The element type that holds most of the weights.
pub(crate) fn main_dtype(gguf: &Gguf) -> String {
    let mut bytes: HashMap<u32, u64> = HashMap::new();
    for tensor in gguf.tensors() {
        *bytes.entry(tensor.ggml_type).or_default() += tensor.size_bytes().unwrap_or(0);
    }
    let main = gguf.tensors().max_by_key(|tensor| bytes[&tensor.ggml_type]);
    main.and_then(|tensor| tensor.layout()).map_or_else(|| "unknown".to_owned(), |layout| layout.name.to_lowercase())
}
