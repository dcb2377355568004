//! Counts of what the server did, and the text that Prometheus reads. What the scheduler counts is asked of it.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Mutex;

use downshift_scheduler::{Answer, ModelState, ModelVerdict, Scheduler};

use crate::app::lock;

/// Totals since the server started.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Totals>);

#[derive(Debug, Default)]
struct Totals {
    requests: BTreeMap<(String, u16), u64>,
    /// Prompt and completion tokens by model.
    tokens: BTreeMap<String, (u64, u64)>,
    predicted_seconds: BTreeMap<String, f64>,
}

impl Metrics {
    /// Counts an answered request.
    pub fn request(&self, route: &str, status: u16) {
        *lock(&self.0).requests.entry((route.to_owned(), status)).or_default() += 1;
    }

    /// Counts the tokens of an answer.
    pub fn tokens(&self, answer: &Answer) {
        let mut totals = lock(&self.0);
        let (prompt, completion) = totals.tokens.entry(answer.model.clone()).or_default();
        *prompt += u64::from(answer.output.usage.prompt_tokens);
        *completion += u64::from(answer.output.usage.completion_tokens);
        *totals.predicted_seconds.entry(answer.model.clone()).or_default() += answer.output.timings.predicted_ms / 1e3;
    }

    /// All counts, in Prometheus' text format.
    pub fn text(&self, scheduler: &Scheduler) -> String {
        let mut page = Page::default();
        {
            let totals = lock(&self.0);
            page.head("requests_total", "counter", "HTTP requests by route and status");
            for ((route, status), count) in &totals.requests {
                page.line("requests_total", &[("route", route), ("status", &status.to_string())], count);
            }
            page.head("prompt_tokens_total", "counter", "Tokens of prompts");
            for (model, (tokens, _)) in &totals.tokens {
                page.line("prompt_tokens_total", &[("model", model)], tokens);
            }
            page.head("completion_tokens_total", "counter", "Tokens generated");
            for (model, (_, tokens)) in &totals.tokens {
                page.line("completion_tokens_total", &[("model", model)], tokens);
            }
            page.head("decode_seconds_total", "counter", "Seconds from first tokens to last ones");
            for (model, seconds) in &totals.predicted_seconds {
                page.line("decode_seconds_total", &[("model", model)], seconds);
            }
        }
        let counters = scheduler.counters();
        page.head("fallback_total", "counter", "Requests that went on to another model");
        for ((from, to, reason), count) in &counters.fallback_total {
            page.line("fallback_total", &[("from", from), ("to", to), ("reason", reason)], count);
        }
        page.head("load_total", "counter", "Loads by result");
        for ((model, result), count) in &counters.load_total {
            page.line("load_total", &[("model", model), ("result", result)], count);
        }
        page.head("evict_total", "counter", "Models unloaded to make room");
        for (model, count) in &counters.evict_total {
            page.line("evict_total", &[("model", model)], count);
        }
        let models = scheduler.models();
        page.head("model_state", "gauge", "1 for the state a model is in");
        for model in &models {
            page.line("model_state", &[("model", &model.name), ("state", state_word(model.state))], 1);
        }
        page.head("model_verdict", "gauge", "1 for whether a model is tried");
        for model in &models {
            page.line("model_verdict", &[("model", &model.name), ("verdict", verdict_word(&model.verdict))], 1);
        }
        page.head("requests_active", "gauge", "Requests that run on a model");
        for model in &models {
            page.line("requests_active", &[("model", &model.name)], model.running);
        }
        page.head("requests_waiting", "gauge", "Requests that wait for a model");
        for model in &models {
            page.line("requests_waiting", &[("model", &model.name)], model.waiting);
        }
        page.0
    }
}

/// The word for a state.
pub(crate) fn state_word(state: ModelState) -> &'static str {
    match state {
        ModelState::Unloaded => "unloaded",
        ModelState::Loading => "loading",
        ModelState::Ready => "ready",
        ModelState::Draining => "draining",
    }
}

/// The word for a verdict.
pub(crate) fn verdict_word(verdict: &ModelVerdict) -> &'static str {
    match verdict {
        ModelVerdict::Ok => "ok",
        ModelVerdict::Cooling(..) => "cooling",
        ModelVerdict::Quarantined(_) => "quarantined",
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.0, "# HELP downshift_{name} {help}\n# TYPE downshift_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let _ = writeln!(self.0, "downshift_{name}{{{}}} {value}", labels.join(","));
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.line("x_total", &[("model", "a\"b\\c\nd")], 3);
        assert_eq!(page.0, "downshift_x_total{model=\"a\\\"b\\\\c\\nd\"} 3\n");
    }
}
