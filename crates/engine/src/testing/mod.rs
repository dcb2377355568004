//! Small models and hostile files for tests of this and other crates (feature `testing`).
//! Everything is made from a seed; nothing is read from disk and nothing here is for users.

mod corrupt;
mod gguf_writer;
mod stored;
mod tiny_model;

pub use corrupt::{Rng, poison, set_value, value_at};
pub use gguf_writer::GgufWriter;
pub use stored::Stored;
pub use tiny_model::{TinyModel, tiny_model};
