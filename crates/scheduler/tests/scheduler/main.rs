//! The scheduler over fake models and a fake clock: one file per family of promises.

mod fallback;
mod memory;
mod support;
mod time;
