//! What a model needs, predicted from its header alone.

use std::collections::HashMap;

use downshift_worker::{Footprint, KvType};

use crate::layers::CpuArm;
use crate::model_config::ModelConfig;
use crate::weights::Gguf;

/// Code, stacks and allocator of a process that runs a model, measured on Linux x86-64 with the demo models.
const RUNTIME_BYTES: u64 = 12 << 20;

/// Bytes of tables per vocabulary entry that tokenizers build beside the mapped strings.
const TOKENIZER_BYTES_PER_TOKEN: u64 = 96;

/// Bytes by component for the CPU; `kv_type` is how keys and values will be stored.
pub(crate) fn predict(gguf: &Gguf, config: &ModelConfig, kv_type: KvType) -> Footprint {
    Footprint {
        weights_bytes: gguf.tensors().filter_map(|tensor| tensor.size_bytes()).sum(),
        kv_bytes_per_position: CpuArm::kv_bytes_per_position(config, kv_type),
        scratch_bytes: CpuArm::scratch_bytes(config),
        fixed_bytes: RUNTIME_BYTES + TOKENIZER_BYTES_PER_TOKEN * config.n_vocab as u64,
    }
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
