//! Counts of what happened, for metrics.

use std::collections::BTreeMap;

/// Totals since the scheduler started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `fallback_total{from, to, reason}`: a request went on to another model.
    pub fallback_total: BTreeMap<(String, String, &'static str), u64>,
    /// `load_total{model, result}`: `ok`, or the cause of the failure.
    pub load_total: BTreeMap<(String, &'static str), u64>,
    /// `evict_total{model}`: a model left to make room for another.
    pub evict_total: BTreeMap<String, u64>,
}

impl Counters {
    pub(crate) fn fallback(&mut self, from: &str, to: &str, reason: &'static str) {
        *self.fallback_total.entry((from.to_owned(), to.to_owned(), reason)).or_default() += 1;
    }

    pub(crate) fn load(&mut self, model: &str, result: &'static str) {
        *self.load_total.entry((model.to_owned(), result)).or_default() += 1;
    }
}
