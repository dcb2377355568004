//! Whether a model deserves another attempt, from what became of earlier ones. Pure: the time is passed in.

use std::time::Duration;

use downshift_worker::Failure;

use crate::config::Settings;
use crate::file_id::FileId;
use crate::policy::Memory;

/// The standing of one model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is tried; `fails` unexplained failures in a row so far.
    Ok { fails: u32 },
    /// It is passed over until then; afterwards one request at a time may try it.
    Cooling { until: Duration, times: u32, failure: Failure, trial: bool },
    /// It is passed over until its files change.
    Quarantined { file: FileId, failure: Failure },
}

/// What a verdict says to one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    /// Try it.
    Go,
    /// Try it; others wait for the outcome.
    Trial,
    /// Pass it over, for this reason.
    Skip(Failure),
}

impl Verdict {
    /// Whether a request may try the model now. `last`: nothing is left after it, so a cooldown is ignored.
    pub fn ask(&mut self, now: Duration, file: &FileId, last: bool) -> Standing {
        match self {
            Self::Ok { .. } => Standing::Go,
            Self::Cooling { .. } if last => Standing::Go,
            Self::Cooling { until, failure, .. } if now < *until => {
                let left = (*until - now).as_secs().max(1);
                Standing::Skip(skip(failure, &format!("cooling down for another {left} s, after:")))
            }
            Self::Cooling { trial, failure, .. } if *trial => Standing::Skip(skip(failure, "another request tries it again, after:")),
            Self::Cooling { trial, .. } => {
                *trial = true;
                Standing::Trial
            }
            Self::Quarantined { file: bad, failure } if bad == file => {
                Standing::Skip(skip(failure, "not tried again until its file changes:"))
            }
            Self::Quarantined { .. } => {
                *self = Self::Ok { fails: 0 };
                Standing::Go
            }
        }
    }

    /// Notes that it answered.
    pub fn succeeded(&mut self) {
        *self = Self::Ok { fails: 0 };
    }

    /// Notes that a trial ended without telling anything about the model.
    pub fn trial_ended(&mut self) {
        if let Self::Cooling { trial, .. } = self {
            *trial = false;
        }
    }

    /// Notes a failure that is to be remembered as `memory` says.
    pub fn failed(&mut self, failure: &Failure, memory: Memory, now: Duration, file: FileId, settings: &Settings) {
        let (fails, times) = match self {
            Self::Ok { fails } => (*fails, 0),
            Self::Cooling { times, .. } => (settings.allowed_fails, *times),
            Self::Quarantined { .. } => (0, 0),
        };
        match memory {
            Memory::Nothing | Memory::RaiseEstimate => {}
            Memory::Quarantine => *self = Self::Quarantined { file, failure: failure.clone() },
            Memory::Count if fails < settings.allowed_fails => *self = Self::Ok { fails: fails + 1 },
            Memory::Count | Memory::Cool => {
                let doubled = settings.cooldown_time.saturating_mul(1 << times.min(20));
                let until = now + doubled.min(Settings::LONGEST_COOLDOWN.max(settings.cooldown_time));
                *self = Self::Cooling { until, times: times + 1, failure: failure.clone(), trial: false };
            }
        }
    }
}

fn skip(failure: &Failure, why: &str) -> Failure {
    Failure::new(failure.kind, downshift_worker::Stage::Admission, format!("{why} {}", failure.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use downshift_worker::{FailureKind, ModelSpec, Stage};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn file() -> FileId {
        FileId::of(&ModelSpec::from_path("no such file"))
    }

    fn crash(verdict: &mut Verdict, now: u64) {
        let failure = Failure::new(FailureKind::Crashed, Stage::Decode, "signal 11");
        verdict.failed(&failure, Memory::Count, seconds(now), file(), &Settings::default());
    }

    #[test]
    fn a_cooldown_follows_more_failures_in_a_row_than_allowed_and_doubles() {
        let mut verdict = Verdict::Ok { fails: 0 };
        crash(&mut verdict, 0);
        crash(&mut verdict, 0);
        verdict.succeeded();
        crash(&mut verdict, 0);
        crash(&mut verdict, 0);
        assert_eq!(verdict.ask(seconds(0), &file(), false), Standing::Go);
        let mut now = 0;
        for wait in [60, 120, 240, 480, 900, 900] {
            crash(&mut verdict, now);
            assert!(matches!(verdict.ask(seconds(now + wait - 1), &file(), false), Standing::Skip(_)), "{wait}");
            now += wait;
            assert_eq!(verdict.ask(seconds(now), &file(), false), Standing::Trial, "{wait}");
        }
    }

    #[test]
    fn after_a_cooldown_one_request_tries_and_the_others_pass_by() {
        let mut verdict = Verdict::Ok { fails: 2 };
        crash(&mut verdict, 0);
        assert_eq!(verdict.ask(seconds(60), &file(), false), Standing::Trial);
        let Standing::Skip(reason) = verdict.ask(seconds(60), &file(), false) else { panic!("a second trial") };
        assert_eq!((reason.kind, reason.stage), (FailureKind::Crashed, Stage::Admission));
        assert!(reason.message.ends_with("signal 11"), "{reason}");
        verdict.trial_ended();
        assert_eq!(verdict.ask(seconds(61), &file(), false), Standing::Trial);
        verdict.succeeded();
        assert_eq!(verdict.ask(seconds(61), &file(), false), Standing::Go);
    }

    #[test]
    fn the_last_of_the_chain_is_tried_while_it_cools() {
        let mut verdict = Verdict::Ok { fails: 2 };
        crash(&mut verdict, 0);
        assert_eq!(verdict.ask(seconds(1), &file(), true), Standing::Go);
    }

    #[test]
    fn quarantine_ends_when_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let spec = ModelSpec::from_path(folder.path().join("m.gguf"));
        let mut verdict = Verdict::Ok { fails: 0 };
        let failure = Failure::new(FailureKind::Missing, Stage::Load, "no such file");
        verdict.failed(&failure, Memory::Quarantine, seconds(0), FileId::of(&spec), &Settings::default());
        assert!(matches!(verdict.ask(seconds(9999), &FileId::of(&spec), true), Standing::Skip(_)));
        std::fs::write(&spec.path, "here").unwrap();
        assert_eq!(verdict.ask(seconds(9999), &FileId::of(&spec), false), Standing::Go);
    }
}
