//! Finds stop strings in text that arrives in pieces, and holds back what could begin one. One pass over the
//! text however many strings there are (Aho-Corasick over bytes).
//! Does not own tokens: its text is what the detokenizer gives.

use std::collections::{HashMap, VecDeque};

use super::InvalidParameter;

/// Most bytes of all stop strings together.
const MAX_STOP_BYTES: usize = 1 << 16;

/// What a piece of text led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopStep {
    /// Text that can be shown now.
    pub text: String,
    /// The stop string that was found, as its index. Nothing follows it.
    pub stopped: Option<usize>,
}

#[derive(Default)]
struct State {
    /// Bytes of a stop string that lead here.
    depth: usize,
    /// The state of the longest shorter suffix.
    fallback: usize,
    /// The longest stop string that ends here.
    found: Option<usize>,
}

/// Matches stop strings against generated text.
pub struct StopMatcher {
    stops: Vec<String>,
    states: Vec<State>,
    next: HashMap<(usize, u8), usize>,
    at: usize,
    held: String,
    stopped: Option<usize>,
}

impl StopMatcher {
    /// A matcher of `stops`.
    ///
    /// # Errors
    /// If one of them is empty, or all of them together are longer than 64 KiB.
    pub fn new(stops: Vec<String>) -> Result<Self, InvalidParameter> {
        let invalid = |reason: String| InvalidParameter { parameter: "stop", reason };
        let n_bytes: usize = stops.iter().map(String::len).sum();
        if n_bytes > MAX_STOP_BYTES {
            return Err(invalid(format!("strings have {n_bytes} bytes; at most {MAX_STOP_BYTES} are allowed")));
        }
        let mut states = vec![State::default()];
        let mut next = HashMap::new();
        for (i, stop) in stops.iter().enumerate() {
            if stop.is_empty() {
                return Err(invalid("strings must not be empty".into()));
            }
            let mut at = 0;
            for (depth, byte) in stop.bytes().enumerate() {
                at = *next.entry((at, byte)).or_insert_with(|| {
                    states.push(State { depth: depth + 1, ..State::default() });
                    states.len() - 1
                });
            }
            states[at].found.get_or_insert(i);
        }
        let mut matcher = Self { stops, states, next, at: 0, held: String::new(), stopped: None };
        matcher.link();
        Ok(matcher)
    }

    /// Sets the fallbacks, breadth first: a state's are found through those of its shallower parent.
    fn link(&mut self) {
        let mut children: Vec<Vec<(u8, usize)>> = vec![Vec::new(); self.states.len()];
        for (&(from, byte), &to) in &self.next {
            children[from].push((byte, to));
        }
        let mut queue: VecDeque<usize> = children[0].iter().map(|c| c.1).collect();
        while let Some(from) = queue.pop_front() {
            for &(byte, to) in &children[from] {
                let fallback = self.step(self.states[from].fallback, byte);
                self.states[to].fallback = fallback;
                // A stop string that ends here itself is longer than what its suffixes end.
                self.states[to].found = self.states[to].found.or(self.states[fallback].found);
                queue.push_back(to);
            }
        }
    }

    fn step(&self, mut at: usize, byte: u8) -> usize {
        loop {
            match self.next.get(&(at, byte)) {
                Some(&to) => return to,
                None if at == 0 => return 0,
                None => at = self.states[at].fallback,
            }
        }
    }

    /// Takes the next piece of text. After a stop string nothing is shown any more.
    pub fn push(&mut self, text: &str) -> StopStep {
        if self.stopped.is_some() {
            return StopStep { text: String::new(), stopped: self.stopped };
        }
        for (i, byte) in text.bytes().enumerate() {
            self.at = self.step(self.at, byte);
            if let Some(found) = self.states[self.at].found {
                self.stopped = Some(found);
                self.held.push_str(&text[..=i]);
                self.held.truncate(self.held.len() - self.stops[found].len());
                return StopStep { text: std::mem::take(&mut self.held), stopped: self.stopped };
            }
        }
        self.held.push_str(text);
        // Stop strings begin with whole characters, so this is a boundary.
        let free = self.held.len() - self.states[self.at].depth;
        let held = self.held.split_off(free);
        StopStep { text: std::mem::replace(&mut self.held, held), stopped: None }
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        self.at = 0;
        std::mem::take(&mut self.held)
    }
}
