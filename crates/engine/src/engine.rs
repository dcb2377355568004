//! Loads one model: file, tokenizer, template and weights become a session that can step.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use downshift_kernels::rope::Rope;
use downshift_worker::{Device, Footprint, KvType, ModelInfo, ModelKind};

use crate::error::Error;
use crate::footprint::{self, Traffic};
use crate::kv_cache::BlockPool;
use crate::layers::{CandleArm, CpuArm, ShapeCheck};
use crate::model_config::ModelConfig;
use crate::models::{Decoder, Forward, Weights};
use crate::prompt::PromptBuilder;
use crate::session::Session;
use crate::weights::Gguf;

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where it runs.
    pub device: Device,
    /// Positions of the KV pool.
    pub context: u32,
    /// Cores it may use on the CPU.
    pub threads: usize,
    /// How keys and values are stored.
    pub kv_type: KvType,
}

impl Default for LoadOptions {
    /// The CPU with all its cores and a short context.
    fn default() -> Self {
        Self { device: Device::Cpu, context: 2048, threads: downshift_kernels::pool::default_threads(), kv_type: KvType::F16 }
    }
}

/// A model file that was opened and checked; its weights are mapped and not yet read.
pub struct Model {
    path: PathBuf,
    gguf: Gguf,
    config: ModelConfig,
}

impl Model {
    /// Opens a GGUF file and checks that its metadata, tensors and types make a model that the engine runs.
    ///
    /// # Errors
    /// Everything that can be known without reading weights.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let gguf = Gguf::open(path)?;
        let config = config_of(&gguf)?;
        Weights::load(&ShapeCheck, &gguf, &config)?;
        let model = Self { path: path.to_owned(), gguf, config };
        model.rope()?;
        Ok(model)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The parsed file.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model's tokenizer and template; `chat_template` replaces the file's.
    ///
    /// # Errors
    /// As [`PromptBuilder::from_metadata`].
    pub fn prompts(&self, chat_template: Option<&Path>) -> Result<PromptBuilder, Error> {
        let prompts = PromptBuilder::from_metadata(self.gguf.metadata(), chat_template)?;
        let (tokens, rows) = (prompts.tokenizer().n_vocab(), self.config.n_vocab);
        if tokens > rows {
            let key = "tokenizer.ggml.tokens".to_owned();
            return Err(Error::Key { key, found: format!("{tokens} tokens"), expected: format!("at most the embedding's {rows} rows") });
        }
        Ok(prompts)
    }

    /// What the header says, for people and for planning.
    ///
    /// # Errors
    /// A key of another type.
    pub fn info(&self, kv_type: KvType) -> Result<ModelInfo, Error> {
        let metadata = self.gguf.metadata();
        Ok(ModelInfo {
            kind: ModelKind::Chat,
            architecture: self.config.architecture.name.to_owned(),
            title: metadata.string("general.name")?.map(str::to_owned),
            parameters: self.gguf.tensors().map(|tensor| tensor.n_elements()).sum(),
            dtype: footprint::main_dtype(&self.gguf),
            context_train: self.config.context_train,
            vocab_size: self.config.n_vocab as u32,
            dimension: None,
            has_chat_template: metadata.string("tokenizer.chat_template")?.is_some(),
            calls_tools: false,
            infills: false,
            footprint: self.footprint(kv_type),
        })
    }

    /// Bytes that running it takes, by component.
    pub fn footprint(&self, kv_type: KvType) -> Footprint {
        footprint::predict(&self.gguf, &self.config, kv_type)
    }

    /// What its forward passes read and multiply.
    pub fn traffic(&self, kv_type: KvType) -> Traffic {
        footprint::traffic(&self.gguf, &self.config, kv_type)
    }

    /// Takes the weights and reserves scratch and KV memory; `progress` is told of bytes made resident, and of all there are.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceUnavailable`], a device error, or a tensor type that the device lacks.
    pub fn load(&self, options: &LoadOptions, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Session, Error> {
        let rope = self.rope()?;
        let n_blocks = BlockPool::blocks_for(options.context as usize);
        let decoder: Box<dyn Forward> = match options.device {
            Device::Cpu => {
                let total = self.gguf.tensors().filter_map(|tensor| tensor.size_bytes()).sum();
                let told = |done: u64| {
                    progress(done, total);
                    ControlFlow::Continue(())
                };
                // It always runs to its end: `told` never breaks.
                let _ = self.gguf.populate(options.threads, &told)?;
                let arm = CpuArm::new(&self.config, rope, n_blocks, options.kv_type, options.threads)?;
                let weights = Weights::load(&arm, &self.gguf, &self.config)?;
                Box::new(Decoder::new(arm, weights))
            }
            device => {
                let arm = CandleArm::new(crate::device::candle_device(device)?, &self.config, rope, n_blocks)?;
                let weights = Weights::load(&arm, &self.gguf, &self.config)?;
                Box::new(Decoder::new(arm, weights))
            }
        };
        Ok(Session::new(decoder, options.context as usize, self.config.n_vocab))
    }

    fn rope(&self) -> Result<Rope, Error> {
        let name = "rope_freqs.weight";
        let host = downshift_kernels::Cpu::new(downshift_kernels::Isa::from_env(), 1);
        let factors = match self.gguf.tensor(name) {
            Some(_) => Some(crate::weights::HostMatrix::from_gguf(&self.gguf, name, 1, self.config.rope.dim / 2)?.row(&host, 0)),
            None => None,
        };
        self.config.rope.frequencies(factors.as_deref()).map_err(|error| Error::Tensor {
            name: name.to_owned(),
            found: error.to_string(),
            expected: "positive frequencies".into(),
        })
    }
}

fn config_of(gguf: &Gguf) -> Result<ModelConfig, Error> {
    let embedding = gguf.require("token_embd.weight")?;
    let n_vocab = embedding.dims.get(1).copied().unwrap_or(1);
    let n_vocab = usize::try_from(n_vocab).ok().filter(|&n| n <= 1 << 24);
    let n_vocab = n_vocab.ok_or_else(|| Error::Tensor {
        name: embedding.name.clone(),
        found: format!("dimensions {:?}", embedding.dims),
        expected: "at most 16 Mi rows".into(),
    })?;
    ModelConfig::from_metadata(gguf.metadata(), n_vocab)
}
