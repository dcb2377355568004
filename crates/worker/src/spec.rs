//! What a model is: the entry that names it, what its header says, and where it is placed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::SamplingParams;

/// One model as configured: all that is needed to inspect and launch it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// The name callers send.
    pub name: String,
    /// A GGUF file (the first shard of a split one) or a folder in safetensors layout.
    pub path: PathBuf,
    /// Replaces the template of the file.
    pub chat_template: Option<PathBuf>,
    /// Positions of KV; `None` means what the file says, at most [`ModelSpec::DEFAULT_CONTEXT`].
    pub context: Option<u32>,
    /// The model may load with fewer positions than `context`, never with fewer than this.
    pub min_context: u32,
    /// Sequences that share the positions.
    pub parallel: u32,
    /// Where it may run.
    pub device: DeviceChoice,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Quantization of a safetensors folder at load.
    pub quantize: Option<Quantize>,
    /// Sampling where a request leaves it open.
    pub sampling: SamplingParams,
}

impl ModelSpec {
    /// Positions of KV where neither the entry nor the file asks for fewer.
    pub const DEFAULT_CONTEXT: u32 = 8192;
    /// Default of `min_context`.
    pub const DEFAULT_MIN_CONTEXT: u32 = 2048;

    /// A model known by its path alone, with every default; its name is the file stem.
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned());
        Self {
            name,
            path,
            chat_template: None,
            context: None,
            min_context: Self::DEFAULT_MIN_CONTEXT,
            parallel: 1,
            device: DeviceChoice::Auto,
            kv_type: KvType::F16,
            quantize: None,
            sampling: SamplingParams::default(),
        }
    }
}

/// Where a model may run, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The fastest device with room; another one when that fails.
    Auto,
    /// This device and no other.
    Only(Device),
}

/// A device that runs a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The CPU, through downshift's kernels.
    Cpu,
    /// The CPU, through candle's operations: the arm of the GPUs, checked without one.
    CandleCpu,
    /// An NVIDIA GPU by index.
    Cuda(u32),
    /// Apple's GPU.
    Metal,
}

/// The name is not one of `auto`, `cpu`, `cuda`, `cuda:N`, `metal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownDevice(String);

impl fmt::Display for UnknownDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown device `{}`: expected auto, cpu, cuda, cuda:N or metal", self.0)
    }
}

impl std::error::Error for UnknownDevice {}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "candle-cpu" => Ok(Self::CandleCpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            _ => name
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| UnknownDevice(name.to_owned())),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::CandleCpu => f.write_str("candle-cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        if name == "auto" { Ok(Self::Auto) } else { name.parse().map(Self::Only) }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Only(device) => device.fmt(f),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = UnknownDevice;

    fn try_from(name: String) -> Result<Self, UnknownDevice> {
        name.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = UnknownDevice;

    fn try_from(name: String) -> Result<Self, UnknownDevice> {
        name.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// Half precision.
    #[default]
    F16,
    /// 8-bit blocks of 32 with one scale.
    Q8_0,
}

/// Quantization of a safetensors folder at load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantize {
    /// 8-bit blocks of 32.
    Q8_0,
    /// 4-bit super-blocks of 256.
    Q4K,
}

/// What a model is for, read from its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Generates text.
    Chat,
    /// Turns text into vectors.
    Embedding,
}

/// What the header of a model says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// What the model is for.
    pub kind: ModelKind,
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`.
    pub title: Option<String>,
    /// Weights, counted in elements.
    pub parameters: u64,
    /// The element type that holds most of the weights, by ggml's name.
    pub dtype: String,
    /// Positions the model was trained for.
    pub context_train: u32,
    /// Entries of the vocabulary.
    pub vocab_size: u32,
    /// Numbers of one vector, where the model makes vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimension: Option<u32>,
    /// Whether the file or the entry has a chat template.
    pub has_chat_template: bool,
    /// Whether that template hears of tools; where it does not, the model is told of them in words.
    pub calls_tools: bool,
    /// Whether its vocabulary has the tokens that [`crate::Input::Infill`] needs.
    pub infills: bool,
    /// What running it needs.
    pub footprint: Footprint,
}

/// Bytes a model needs, by component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Mapped weights: page cache, shared by workers of the same file.
    pub weights_bytes: u64,
    /// The program's own code: page cache, shared by all workers.
    pub program_bytes: u64,
    /// Keys and values of one position, all layers.
    pub kv_bytes_per_position: u64,
    /// Scratch planned at load for one step, logits included.
    pub scratch_bytes: u64,
    /// Tokenizer, template and run-time constant.
    pub fixed_bytes: u64,
}

impl Footprint {
    /// Memory that is a file's and can be read again: what stays resident of it while the model is in use.
    pub fn soft_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.program_bytes)
    }

    /// Memory that cannot be given back while the model is loaded, with a KV pool of `context` positions.
    pub fn hard_bytes(&self, context: u32) -> u64 {
        self.kv_bytes_per_position.saturating_mul(u64::from(context)).saturating_add(self.scratch_bytes).saturating_add(self.fixed_bytes)
    }
}

/// A device and the memory that is free on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// The device.
    pub device: Device,
    /// Free bytes of its own memory now; `None` where it uses the host's.
    pub own_bytes: Option<u64>,
}

/// Where and how large a model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The device that runs it.
    pub device: Device,
    /// Positions of the KV pool.
    pub context: u32,
    /// Cores it may use.
    pub threads: usize,
}
