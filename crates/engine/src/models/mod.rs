//! The one decoder and the table of what its architectures do differently.

pub mod architectures;
mod batch;
mod decoder;
mod times;

pub use batch::Batch;
pub use decoder::{AttentionBlock, Decoder, Forward, Linear, Mlp, Weights};
pub use times::{Part, Times};
