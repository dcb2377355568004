//! An interpreter of Jinja2 templates as transformers runs them: `ImmutableSandboxedEnvironment` with
//! `trim_blocks`, `lstrip_blocks`, loop controls and the `generation` tag.
//!
//! Our own, because chat templates come from untrusted files and their input from untrusted people: every
//! step and byte is paid from one budget (an engine that only counts instructions can't stop a string that
//! doubles), nesting is bounded where it would recurse, values behave and print as Python's, and text knows
//! whether it came from the caller.
//! Does not own chat messages, special tokens or the clock.

mod ast;
mod call;
mod error;
mod filters;
mod format;
mod lexer;
mod methods;
mod ops;
mod parser;
mod print;
mod render;
mod tests;
mod value;

use std::sync::Arc;

pub(super) use error::Fault;
pub use error::Limit;
use error::Result;
use value::{Budget, Value};

/// Longest template source; real ones stay under 50 KB.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Budget of one rendering, and what each byte of input adds to it.
const BASE_BUDGET: u64 = 64 << 20;
const BUDGET_PER_INPUT_BYTE: u64 = 64;
/// Most bytes of variables. Keeps every string under 4 GiB, as the budget bounds what is made of them.
const MAX_INPUT_BYTES: u64 = 16 << 20;

/// A parsed template.
pub(super) struct Template {
    body: ast::Body,
}

/// One variable for a template.
pub(super) struct Variable<'v> {
    pub(super) name: &'v str,
    pub(super) value: &'v serde_json::Value,
    /// Whether its text is the model's own, not the caller's.
    pub(super) trusted: bool,
}

impl Template {
    pub(super) fn parse(source: &str) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Fault::Limit(Limit::Source));
        }
        Ok(Self { body: parser::parse(source)? })
    }

    /// The text, and the byte ranges of it that came from the caller, ascending and disjoint.
    pub(super) fn render(&self, variables: &[Variable<'_>], strftime: &dyn Fn(&str) -> String) -> Result<(String, Vec<(u32, u32)>)> {
        let input: u64 = variables.iter().map(|v| size(v.value)).sum();
        if input > MAX_INPUT_BYTES {
            return Err(Fault::Limit(Limit::Input));
        }
        let budget = Budget::new(BASE_BUDGET.saturating_add(input.saturating_mul(BUDGET_PER_INPUT_BYTE)));
        let globals =
            variables.iter().map(|v| Ok((Arc::from(v.name), Value::from_json(v.value, !v.trusted, &budget, 0)?))).collect::<Result<_>>()?;
        render::render(&self.body, globals, budget, strftime)
    }
}

/// Roughly the bytes that `json` takes.
fn size(json: &serde_json::Value) -> u64 {
    8 + match json {
        serde_json::Value::String(s) => s.len() as u64,
        serde_json::Value::Array(a) => a.iter().map(size).sum(),
        serde_json::Value::Object(o) => o.iter().map(|(k, v)| k.len() as u64 + size(v)).sum(),
        _ => 0,
    }
}
