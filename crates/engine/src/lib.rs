//! Loads one local model on one device and generates from it.
//!
//! One-way inside: engine -> batcher -> session -> models -> layers -> kernels or candle; `weights` feeds constructors only.
//! Does not know other models, HTTP, or async.

mod answer;
mod batcher;
mod ceilings;
pub mod chat_template;
mod device;
mod embedder;
mod engine;
mod error;
mod footprint;
mod grammar;
mod healing;
mod in_process;
mod kv_cache;
mod layers;
mod model_config;
mod models;
mod output;
mod prompt;
mod prompt_cache;
pub mod sampler;
mod sampling;
mod session;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tokenizer;
mod tools_in_words;
pub mod verify;
pub mod weights;

pub use ceilings::Ceilings;
pub use device::available as available_devices;
pub use downshift_kernels::Isa;
pub use downshift_kernels::kv::KV_BLOCK;
pub use embedder::FolderError;
pub use engine::{LoadOptions, Model};
pub use error::Error;
pub use footprint::Traffic;
pub use in_process::InProcess;
pub use model_config::{ModelConfig, RopeConfig};
pub use models::{Part, Times};
pub use prompt::PromptBuilder;
pub use session::{Feed, Sequence, Session};
