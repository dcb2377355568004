//! The scheduler over fake models and a fake clock: one file per family of promises.

mod drills;
mod embeddings;
mod fallback;
mod memory;
mod streams;
mod support;
mod time;
