//! What a child says on stderr: read always, so that it never blocks; logged; its last lines kept.
//!
//! A line is an event of the child's own log, as JSON, or what a library or the run time prints. Both become events of this
//! process, which name the model and the requests that it ran then, or the one before where it ran none.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::Mutex;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::lock;

/// Lines kept for the message of a failure.
const MAX_LINES: usize = 16;
/// Bytes kept of a line.
const MAX_LINE_BYTES: usize = 512;
/// Bytes read of a line.
const MAX_EVENT_BYTES: usize = 16 << 10;

/// An event as `tracing-subscriber` writes it.
#[derive(Deserialize)]
struct Event {
    level: String,
    fields: Map<String, Value>,
}

impl Event {
    fn parse(line: &str) -> Option<Self> {
        line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten()
    }

    /// The message, then the other fields.
    fn text(&self) -> String {
        let message = self.fields.get("message").and_then(Value::as_str).unwrap_or_default();
        let others = self.fields.iter().filter(|(name, _)| *name != "message");
        others.fold(message.to_owned(), |text, (name, value)| format!("{text} {name}={value}"))
    }
}

/// Target of a worker's events.
const TARGET: &str = "downshift::worker";

/// The last lines of a child.
#[derive(Default)]
pub(crate) struct Tail(Mutex<Words>);

/// What a child has said that matters when it dies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    /// The last lines, oldest first, without backtraces.
    pub lines: VecDeque<String>,
    /// Its allocator has said that it gives up.
    pub allocation_failed: bool,
}

impl Tail {
    /// Reads to the end; `requests` names those that run.
    pub fn drain(&self, from: impl Read, model: &str, requests: impl Fn() -> String) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while let Ok(bytes) = from.fill_buf() {
            if bytes.is_empty() {
                break;
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            line.extend_from_slice(&part[..part.len().min(MAX_EVENT_BYTES - line.len())]);
            let used = part.len() + usize::from(end.is_some());
            from.consume(used);
            if end.is_some() {
                self.push(&line, model, &requests);
                line.clear();
            }
        }
        self.push(&line, model, &requests);
    }

    fn push(&self, line: &[u8], model: &str, requests: &impl Fn() -> String) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        let event = Event::parse(line);
        let text = event.as_ref().map_or_else(|| line.to_owned(), Event::text);
        let request = tracing::field::display(requests());
        match event.as_ref().map_or("DEBUG", |event| event.level.as_str()) {
            "ERROR" => tracing::error!(target: TARGET, model, request, "{text}"),
            "WARN" => tracing::warn!(target: TARGET, model, request, "{text}"),
            "INFO" => tracing::info!(target: TARGET, model, request, "{text}"),
            "TRACE" => tracing::trace!(target: TARGET, model, request, "{text}"),
            _ => tracing::debug!(target: TARGET, model, request, "{text}"),
        }
        if is_backtrace(&text) {
            return;
        }
        let mut words = lock(&self.0);
        words.allocation_failed |= text.starts_with("memory allocation of ") && text.ends_with(" bytes failed");
        if words.lines.len() == MAX_LINES {
            words.lines.pop_front();
        }
        let end = text.floor_char_boundary(MAX_LINE_BYTES);
        words.lines.push_back(text[..end].to_owned());
    }

    pub fn words(&self) -> Words {
        lock(&self.0).clone()
    }
}

/// Whether Rust's run time prints this line below a panic, where it only hides what the panic said.
fn is_backtrace(line: &str) -> bool {
    let is_frame = line.split_once(": ").is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    is_frame || line == "stack backtrace:" || line.starts_with("at ") || line.starts_with("note: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_long_ones_cut() {
        let mut text = (0..100).map(|i| format!("line {i}\n")).collect::<String>();
        text.push_str(&"x".repeat(10 << 20));
        let tail = Tail::default();
        tail.drain(text.as_bytes(), "m", String::new);
        let lines = tail.words().lines;
        assert_eq!(lines.len(), MAX_LINES);
        assert_eq!(lines[0], "line 85");
        assert_eq!(lines[MAX_LINES - 2], "line 99");
        assert_eq!(lines[MAX_LINES - 1], "x".repeat(MAX_LINE_BYTES));
    }

    #[test]
    fn a_failed_allocation_is_noticed_above_its_backtrace() {
        let tail = Tail::default();
        tail.drain(
            "memory allocation of 64 bytes failed\nstack backtrace:\n   0: one\n   at ./one.rs:1:1\nnote: Some".as_bytes(),
            "m",
            String::new,
        );
        let words = tail.words();
        assert!(words.allocation_failed);
        assert_eq!(words.lines, ["memory allocation of 64 bytes failed"]);
    }

    #[test]
    fn an_event_of_the_childs_log_is_kept_as_what_it_says() {
        let tail = Tail::default();
        let line = r#"{"timestamp":"x","level":"WARN","fields":{"message":"slow disk","ms":12},"target":"t"}"#;
        tail.drain(format!("{line}\n{{no event").as_bytes(), "m", String::new);
        assert_eq!(tail.words().lines, ["slow disk ms=12", "{no event"]);
    }
}
