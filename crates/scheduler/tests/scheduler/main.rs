//! The scheduler over fake models and a fake clock: one file per family of promises.

mod fallback;
mod support;
mod time;
