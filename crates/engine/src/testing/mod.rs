//! Small models and hostile files for tests of this and other crates (feature `testing`).
//! Everything is made from a seed; nothing is read from disk and nothing here is for users.

mod corrupt;
mod gguf_writer;
mod stored;
mod tiny_embedder;
mod tiny_model;

pub use corrupt::{Rng, poison, set_value, value_at};
pub use gguf_writer::GgufWriter;
pub use stored::Stored;
pub use tiny_embedder::{HIDDEN_SIZE, INNER_SIZE, MAX_SEQ_LENGTH, N_HEADS, N_LAYERS, N_POSITIONS, NORM_EPS, TinyEmbedder, TinyTensor};
pub use tiny_model::{TinyModel, tiny_model};
