//! Models that turn texts into vectors: BERT and its relatives, from folders in sentence-transformers' layout, through candle.
//!
//! One-way inside: worker -> encoder -> words, pooling; `folder` and `json` feed constructors only. Vectors, truncation and pooling
//! are sentence-transformers': a text beyond `max_seq_length` tokens is cut there, and where the folder gives no such limit a text
//! that is longer than the position table is an error.

mod encoder;
mod folder;
mod json;
mod pooling;
mod words;
mod worker;

use std::path::Path;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use downshift_worker::{Footprint, ModelInfo, ModelKind, ModelSpec};

use encoder::{Encoder, Tensors};
use folder::Folder;
pub use json::FolderError;
pub(crate) use json::Json;
use words::{Reading, Words};
pub(crate) use worker::launch;

use crate::error::Error;
use crate::weights::Safetensors;

/// Code, stacks and allocator of a process that runs an embedder, measured on Linux x86-64 with all-MiniLM-L6-v2.
const RUNTIME_BYTES: u64 = 24 << 20;
/// Bytes of tables per vocabulary entry, as measured with the same.
const TOKENIZER_BYTES_PER_TOKEN: u64 = 512;

/// An embedder's folder that was opened and checked; its weights are not read yet.
pub(crate) struct Embedder {
    folder: Folder,
    weights: Safetensors,
    tensors: Tensors,
    /// Tokens a text may have.
    limit: usize,
    truncates: bool,
}

impl Embedder {
    /// Opens the folder that `spec` names; its `context`, where given, is a limit at which texts are cut.
    ///
    /// # Errors
    /// Everything that can be known without reading weights: a file is missing, cut or broken, a tensor is missing or of another
    /// shape or type, or the folder asks for something that is not computed here.
    pub fn open(spec: &ModelSpec) -> Result<Self, Error> {
        let folder = Folder::read(&spec.path)?;
        let weights = Safetensors::open(&folder.transformer)?;
        let tensors = Tensors::find(&weights, &folder)?;
        let given = [folder.max_seq_length, spec.context.map(|context| context as usize)];
        let cut = given.into_iter().flatten().min();
        let limit = cut.unwrap_or(usize::MAX).min(folder.config.max_position_embeddings);
        Ok(Self { folder, weights, tensors, limit, truncates: cut.is_some() })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// It is missing, broken, or has tokens that the model lacks.
    pub fn words(&self) -> Result<Words, Error> {
        let Folder { transformer, lower_cases, prompt, config, .. } = &self.folder;
        let (limit, truncates, n_vocab) = (self.limit, self.truncates, config.vocab_size);
        Words::open(transformer, &Reading { limit, truncates, lower_cases: *lower_cases, prompt, n_vocab })
    }

    /// What the folder says, for people and for planning.
    pub fn info(&self) -> ModelInfo {
        let config = &self.folder.config;
        ModelInfo {
            kind: ModelKind::Embedding,
            architecture: self.folder.model_type.to_owned(),
            title: None,
            parameters: self.tensors.n_elements(),
            dtype: self.tensors.dtype().to_owned(),
            context_train: self.limit as u32,
            vocab_size: config.vocab_size as u32,
            dimension: Some(self.folder.dimension() as u32),
            has_chat_template: false,
            calls_tools: false,
            infills: false,
            footprint: self.footprint(),
        }
    }

    /// Nothing is mapped: the weights are memory of the worker's own, as f32.
    fn footprint(&self) -> Footprint {
        let tokenizer = TOKENIZER_BYTES_PER_TOKEN * self.folder.config.vocab_size as u64;
        Footprint {
            weights_bytes: 0,
            program_bytes: crate::footprint::PROGRAM_BYTES,
            kv_bytes_per_position: 0,
            scratch_bytes: Encoder::scratch_bytes(&self.folder.config, self.limit),
            fixed_bytes: RUNTIME_BYTES + tokenizer + 4 * self.tensors.n_elements(),
        }
    }

    /// Reads the weights; `progress` is told of bytes read, and of all there are.
    ///
    /// # Errors
    /// A file cannot be read or was cut, a weight is not finite, [`Error::OutOfMemory`], or a device error.
    pub fn load(&self, device: &Device, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Encoder, Error> {
        let tensors = self.tensors.read(&self.weights, device, progress)?;
        let weights = VarBuilder::from_tensors(tensors, DType::F32, device);
        Encoder::new(weights, &self.folder)
    }
}

/// Whether a model of this path is an embedder: only they come as folders.
pub(crate) fn is_embedder(path: &Path) -> bool {
    path.is_dir()
}
