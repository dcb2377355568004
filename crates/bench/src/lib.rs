//! Measures prefill and decode of one model, with llama-bench's tests and names.
//!
//! A test is a number of prompt tokens or of generated tokens at a depth of context; tokens are random, the cache is cleared
//! before each repetition, one repetition warms up, and only forward passes are timed. Measures the engine through the same
//! session as chat and eval; does not own a queue, sampling or text.
//!
//! The failover mode measures through the library instead: how long an answer pauses when its worker is killed.

mod breakdown;
mod failover;
mod host;
mod measure;
mod pauses;
mod plan;
mod report;

pub use breakdown::{Breakdown, PartShare};
pub use failover::{Case, Failover, FailoverError, Pause, Pauses};
pub use host::Host;
pub use measure::{Measurement, measure};
pub use pauses::HEAD as PAUSES_HEAD;
pub use plan::{Plan, Test};
pub use report::{Format, Report};
