//! Chooses which model answers: loads models, keeps them, and falls back from one to the next when one fails.
//!
//! Owns models.toml, the chain of a request, the policy after a failure, the memory plan and the state of every model.
//! Does not look inside a model: what runs them sits behind [`downshift_worker::Launcher`], and tests put fakes there.

pub mod config;
pub mod policy;

mod attempt;
mod chain;
mod clock;
mod counters;
mod embed;
mod file_id;
mod journey;
mod load;
mod loop_guard;
mod outlet;
pub mod plan;
mod residents;
pub mod room;
mod run_loop;
mod running;
mod scheduler;
mod setting;
mod submit;
mod verdict;
mod work;

pub use attempt::{Answer, Attempt, Fallback, Refused, RefusedClass};
pub use chain::Options;
pub use clock::{Bell, Clock, SystemClock};
pub use config::{Config, ConfigError};
pub use counters::Counters;
pub use run_loop::Environment;
pub use scheduler::{Forecast, ModelState, ModelStatus, ModelVerdict, Scheduler};
pub use submit::{Event, Listener, Submission};
