//! Why a child ended, as a failure of whatever it was doing.
//!
//! Pure: status, counters and last words in, cause out.

use super::stderr::Words;
use crate::platform::Ending;
use crate::{Failure, FailureKind, Stage};

/// Bytes of the last words that a message holds.
const MAX_WORDS_BYTES: usize = 400;

/// A child that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    pub kind: FailureKind,
    pub message: String,
    /// It ended by itself and without complaint.
    pub quiet: bool,
}

impl Death {
    /// What a call at `stage` fails with.
    pub fn failure(&self, stage: Stage) -> Failure {
        Failure::new(self.kind, stage, self.message.clone())
    }
}

/// The cause of an end that the parent did not bring about. `oom_killed` says that the kernel has counted it; `words` are what it
/// said on stderr; `limited` says that the child ran with bounded memory.
pub(crate) fn diagnose(ending: &Ending, oom_killed: bool, words: &Words, limited: bool) -> Death {
    let died = |kind, how: String| Death { kind, message: format!("the worker process {how}{}", last_words(words)), quiet: false };
    match ending {
        Ending::Signal { is_kill: true, .. } if oom_killed => {
            died(FailureKind::OutOfMemory, "was killed by the kernel because memory ran out".to_owned())
        }
        Ending::Signal { is_abort: true, .. } if limited && words.allocation_failed => {
            died(FailureKind::Corrupt, "that read the file needed more memory than any honest header does".to_owned())
        }
        Ending::Signal { is_abort: true, .. } if words.allocation_failed => {
            died(FailureKind::OutOfMemory, "could not allocate memory".to_owned())
        }
        Ending::Signal { name, meaning: "", .. } => died(FailureKind::Crashed, format!("died by {name}")),
        Ending::Signal { name, meaning, .. } => died(FailureKind::Crashed, format!("died by {name} ({meaning})")),
        Ending::Code(0) => Death { quiet: true, ..died(FailureKind::Crashed, "ended by itself".to_owned()) },
        Ending::Code(code) => died(FailureKind::Crashed, format!("ended with exit code {code}")),
        Ending::Unknown => died(FailureKind::Crashed, "ended in a way the system does not tell".to_owned()),
    }
}

fn last_words(words: &Words) -> String {
    let mut said = String::new();
    for line in words.lines.iter().rev().take(3) {
        let joined = if said.is_empty() { line.clone() } else { format!("{line} / {said}") };
        if joined.len() > MAX_WORDS_BYTES && !said.is_empty() {
            break;
        }
        said = joined;
    }
    said.truncate(said.floor_char_boundary(MAX_WORDS_BYTES));
    if said.is_empty() { said } else { format!("; its last words: {said}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(name: &str, meaning: &'static str) -> Ending {
        Ending::Signal { name: name.to_owned(), meaning, is_kill: name == "SIGKILL", is_abort: name == "SIGABRT" }
    }

    #[test]
    fn every_ending_has_its_cause() {
        let silent = Words::default();
        let said = |line: &str| Words { lines: [line.to_owned()].into(), allocation_failed: false };
        let alloc = Words { allocation_failed: true, ..said("memory allocation of 4096 bytes failed") };
        let check = |ending, oom, words: &Words, limited, kind, message: &str| {
            let death = diagnose(&ending, oom, words, limited);
            assert_eq!((death.kind, death.message.as_str()), (kind, message));
        };
        use FailureKind::{Corrupt, Crashed, OutOfMemory};
        check(
            signal("SIGKILL", ""),
            true,
            &silent,
            false,
            OutOfMemory,
            "the worker process was killed by the kernel because memory ran out",
        );
        check(
            signal("SIGKILL", "not by this program"),
            false,
            &silent,
            false,
            Crashed,
            "the worker process died by SIGKILL (not by this program)",
        );
        check(signal("SIGSEGV", ""), true, &silent, false, Crashed, "the worker process died by SIGSEGV");
        check(signal("SIGABRT", ""), false, &silent, false, Crashed, "the worker process died by SIGABRT");
        check(
            signal("SIGABRT", ""),
            false,
            &alloc,
            false,
            OutOfMemory,
            "the worker process could not allocate memory; its last words: memory allocation of 4096 bytes failed",
        );
        assert_eq!(diagnose(&signal("SIGABRT", ""), false, &alloc, true).kind, Corrupt);
        check(
            Ending::Code(3),
            false,
            &said("bad\u{e9}"),
            false,
            Crashed,
            "the worker process ended with exit code 3; its last words: bad\u{e9}",
        );
        assert!(diagnose(&Ending::Code(0), false, &silent, false).quiet);
    }

    #[test]
    fn last_words_are_bounded_at_a_character() {
        let words = Words { lines: std::iter::repeat_n("\u{e9}".repeat(300), 16).collect(), ..Words::default() };
        let said = last_words(&words);
        assert_eq!(said, format!("; its last words: {}", "\u{e9}".repeat(200)));
    }
}
