//! Chooses which model answers: loads models, keeps them, and falls back from one to the next when one fails.
//!
//! Owns models.toml, the chain of a request, the policy after a failure, the memory plan and the state of every model.
//! Does not look inside a model: what runs them sits behind [`downshift_worker::Launcher`], and tests put fakes there.

pub mod config;

mod attempt;
mod chain;
mod clock;
mod file_id;
mod policy;
