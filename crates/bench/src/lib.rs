//! Measures prefill and decode of one model, with llama-bench's tests and names.
//!
//! A test is a number of prompt tokens or of generated tokens at a depth of context; tokens are random, the cache is cleared
//! before each repetition, one repetition warms up, and only forward passes are timed. Measures the engine through the same
//! session as chat and eval; does not own a queue, sampling or text.

mod host;
mod measure;
mod plan;
mod report;

pub use host::Host;
pub use measure::{Measurement, measure};
pub use plan::{Plan, Test};
pub use report::{Format, Report};
