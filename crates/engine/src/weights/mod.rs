//! Where weights come from: files mapped into memory and the formats they hold.
//! Does not own what a tensor means to a model; constructors of layers ask by name.

pub mod gguf;
mod matrix;
mod mmap;
mod safetensors;

pub use gguf::{Gguf, GgufError, GgufErrorClass, Header, Metadata};
pub use matrix::HostMatrix;
pub use mmap::Bytes;
pub(crate) use safetensors::Safetensors;
