//! Chooses what to try after a failure, what to remember of it, and whether the worker may be kept.
//! Pure: no clock, no I/O, no logging. Does not own models or queues; `run_loop` performs what is decided here.

use downshift_worker::{FailureKind, Stage};

/// What happens next to a request whose attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The caller is told; nothing else is tried.
    Surface,
    /// The same model again, with this change.
    Again(Change),
    /// The next model of the chain that qualifies; without one, the caller is told.
    Next(Among),
}

/// What is different when the same model is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A fresh worker.
    Restart,
    /// A fresh worker, after every idle model was unloaded.
    FreeIdle,
    /// A fresh worker on the next device of those the model may use.
    OtherDevice,
}

/// Which of the models that are left qualify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    /// All of them.
    Any,
    /// `context_window_fallbacks` first, then those whose context holds the prompt.
    Longer,
    /// Those that are loaded and idle: no second model is loaded because the first is busy.
    LoadedIdle,
}

/// What a request has left to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How often the same model may be tried again.
    pub retries: u32,
    /// Whether time is left of the whole request.
    pub time_left: bool,
    /// Whether the model may run on another device than the one it failed on.
    pub other_device: bool,
    /// What the caller has seen.
    pub shown: Shown,
}

/// What the caller has seen of the answer, and who may continue it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing: every attempt starts over.
    Nothing,
    /// Text that the same model, and then another one, may continue.
    Continuable,
    /// Text that only the same model may continue.
    BySameModel,
    /// Text that nobody may continue.
    Sealed,
}

/// What to try after a failure: the taxonomy of causes, one arm each.
pub fn decide(kind: FailureKind, stage: Stage, budget: Budget) -> Decision {
    let wanted = wanted(kind, stage, budget);
    match (budget.shown, wanted) {
        (Shown::Sealed, _) | (Shown::BySameModel, Decision::Next(_)) => Decision::Surface,
        _ => wanted,
    }
}

/// What would be right if nothing had been shown.
fn wanted(kind: FailureKind, stage: Stage, budget: Budget) -> Decision {
    let again = |change| if budget.retries > 0 { Decision::Again(change) } else { Decision::Next(Among::Any) };
    match kind {
        FailureKind::InvalidRequest | FailureKind::UnknownModel | FailureKind::Cancelled => Decision::Surface,
        FailureKind::PromptTooLong { .. } => Decision::Next(Among::Longer),
        FailureKind::CannotDo => Decision::Next(Among::Any),

        FailureKind::Missing
        | FailureKind::Unreadable
        | FailureKind::Truncated
        | FailureKind::Corrupt
        | FailureKind::UnsupportedArchitecture
        | FailureKind::UnsupportedType
        | FailureKind::BrokenTokenizer
        | FailureKind::BrokenTemplate => Decision::Next(Among::Any),

        FailureKind::DoesNotFit => Decision::Next(Among::Any),
        FailureKind::OutOfMemory if stage >= Stage::Prefill && budget.other_device => Decision::Again(Change::OtherDevice),
        FailureKind::OutOfMemory => again(Change::FreeIdle),

        FailureKind::NonFinite | FailureKind::Stalled | FailureKind::Protocol => Decision::Next(Among::Any),
        FailureKind::FirstTokenTimeout | FailureKind::TooSlow => Decision::Next(Among::Any),
        FailureKind::Timeout if budget.time_left => Decision::Next(Among::Any),
        FailureKind::Timeout => Decision::Surface,
        FailureKind::Device if budget.other_device => Decision::Again(Change::OtherDevice),
        FailureKind::Device => Decision::Next(Among::Any),
        FailureKind::Crashed | FailureKind::Panicked => again(Change::Restart),

        FailureKind::EmptyAnswer | FailureKind::InvalidJson | FailureKind::Mock => Decision::Next(Among::Any),
        FailureKind::QueueFull => Decision::Next(Among::LoadedIdle),
    }
}

/// What is remembered of a failure beyond its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing.
    Nothing,
    /// The file is not tried again until it changes.
    Quarantine,
    /// One more failure towards a cooldown.
    Count,
    /// A cooldown at once.
    Cool,
    /// The model needs more memory than was thought.
    RaiseEstimate,
}

/// What is remembered of a failure.
pub fn remember(kind: FailureKind) -> Memory {
    match kind {
        FailureKind::InvalidRequest
        | FailureKind::UnknownModel
        | FailureKind::PromptTooLong { .. }
        | FailureKind::CannotDo
        | FailureKind::Cancelled => Memory::Nothing,
        FailureKind::Missing
        | FailureKind::Unreadable
        | FailureKind::Truncated
        | FailureKind::Corrupt
        | FailureKind::UnsupportedArchitecture
        | FailureKind::UnsupportedType
        | FailureKind::BrokenTokenizer
        | FailureKind::BrokenTemplate => Memory::Quarantine,
        FailureKind::DoesNotFit => Memory::Nothing,
        FailureKind::OutOfMemory => Memory::RaiseEstimate,
        FailureKind::NonFinite | FailureKind::Stalled | FailureKind::Crashed | FailureKind::Panicked | FailureKind::Protocol => {
            Memory::Count
        }
        FailureKind::Device => Memory::Cool,
        FailureKind::FirstTokenTimeout | FailureKind::TooSlow | FailureKind::Timeout => Memory::Nothing,
        FailureKind::EmptyAnswer | FailureKind::InvalidJson | FailureKind::QueueFull | FailureKind::Mock => Memory::Nothing,
    }
}

/// Whether a loaded worker must be killed after a failure; otherwise it goes on serving other requests.
pub fn spoils_worker(kind: FailureKind) -> bool {
    match kind {
        FailureKind::OutOfMemory
        | FailureKind::Stalled
        | FailureKind::Device
        | FailureKind::Crashed
        | FailureKind::Panicked
        | FailureKind::Protocol => true,
        FailureKind::InvalidRequest
        | FailureKind::UnknownModel
        | FailureKind::PromptTooLong { .. }
        | FailureKind::CannotDo
        | FailureKind::Cancelled
        | FailureKind::Missing
        | FailureKind::Unreadable
        | FailureKind::Truncated
        | FailureKind::Corrupt
        | FailureKind::UnsupportedArchitecture
        | FailureKind::UnsupportedType
        | FailureKind::BrokenTokenizer
        | FailureKind::BrokenTemplate
        | FailureKind::DoesNotFit
        | FailureKind::NonFinite
        | FailureKind::FirstTokenTimeout
        | FailureKind::TooSlow
        | FailureKind::Timeout
        | FailureKind::EmptyAnswer
        | FailureKind::InvalidJson
        | FailureKind::QueueFull
        | FailureKind::Mock => false,
    }
}

/// Whether the same request may succeed later with nothing changed by hand. A skip at admission for an earlier failure may.
pub fn passes_with_time(kind: FailureKind, stage: Stage) -> bool {
    match remember(kind) {
        Memory::Quarantine => false,
        Memory::Cool | Memory::RaiseEstimate => true,
        Memory::Count => stage == Stage::Admission || kind == FailureKind::Stalled,
        Memory::Nothing => matches!(
            kind,
            FailureKind::DoesNotFit
                | FailureKind::QueueFull
                | FailureKind::FirstTokenTimeout
                | FailureKind::TooSlow
                | FailureKind::Timeout
                | FailureKind::Mock
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureKind as K;
    use Stage::{Admission, Decode, Load, Prefill};

    const FULL: Budget = Budget { retries: 1, time_left: true, other_device: false, shown: Shown::Nothing };
    const NEXT: Decision = Decision::Next(Among::Any);

    /// Cause, stage, first decision, decision without retries, time or other device, what is remembered, worker killed.
    type Row = (K, Stage, Decision, Decision, Memory, bool);

    const TABLE: &[Row] = &[
        (K::InvalidRequest, Admission, Decision::Surface, Decision::Surface, Memory::Nothing, false),
        (K::UnknownModel, Admission, Decision::Surface, Decision::Surface, Memory::Nothing, false),
        (
            K::PromptTooLong { needed: 9, limit: 8 },
            Admission,
            Decision::Next(Among::Longer),
            Decision::Next(Among::Longer),
            Memory::Nothing,
            false,
        ),
        (K::CannotDo, Admission, NEXT, NEXT, Memory::Nothing, false),
        (K::Cancelled, Decode, Decision::Surface, Decision::Surface, Memory::Nothing, false),
        (K::Missing, Load, NEXT, NEXT, Memory::Quarantine, false),
        (K::Unreadable, Load, NEXT, NEXT, Memory::Quarantine, false),
        (K::Truncated, Load, NEXT, NEXT, Memory::Quarantine, false),
        (K::Corrupt, Load, NEXT, NEXT, Memory::Quarantine, false),
        (K::UnsupportedArchitecture, Load, NEXT, NEXT, Memory::Quarantine, false),
        (K::UnsupportedType, Load, NEXT, NEXT, Memory::Quarantine, false),
        (K::BrokenTokenizer, Load, NEXT, NEXT, Memory::Quarantine, false),
        (K::BrokenTemplate, Load, NEXT, NEXT, Memory::Quarantine, false),
        (K::DoesNotFit, Admission, NEXT, NEXT, Memory::Nothing, false),
        (K::OutOfMemory, Load, Decision::Again(Change::FreeIdle), NEXT, Memory::RaiseEstimate, true),
        (K::OutOfMemory, Decode, Decision::Again(Change::FreeIdle), NEXT, Memory::RaiseEstimate, true),
        (K::NonFinite, Decode, NEXT, NEXT, Memory::Count, false),
        (K::Stalled, Load, NEXT, NEXT, Memory::Count, true),
        (K::Stalled, Decode, NEXT, NEXT, Memory::Count, true),
        (K::FirstTokenTimeout, Prefill, NEXT, NEXT, Memory::Nothing, false),
        (K::TooSlow, Decode, NEXT, NEXT, Memory::Nothing, false),
        (K::Timeout, Prefill, NEXT, Decision::Surface, Memory::Nothing, false),
        (K::Device, Decode, NEXT, NEXT, Memory::Cool, true),
        (K::Crashed, Load, Decision::Again(Change::Restart), NEXT, Memory::Count, true),
        (K::Crashed, Decode, Decision::Again(Change::Restart), NEXT, Memory::Count, true),
        (K::Panicked, Prefill, Decision::Again(Change::Restart), NEXT, Memory::Count, true),
        (K::Protocol, Decode, NEXT, NEXT, Memory::Count, true),
        (K::EmptyAnswer, Decode, NEXT, NEXT, Memory::Nothing, false),
        (K::InvalidJson, Decode, NEXT, NEXT, Memory::Nothing, false),
        (K::QueueFull, Admission, Decision::Next(Among::LoadedIdle), Decision::Next(Among::LoadedIdle), Memory::Nothing, false),
        (K::Mock, Admission, NEXT, NEXT, Memory::Nothing, false),
    ];

    #[test]
    fn every_cause_is_decided_as_the_taxonomy_says() {
        let spent = Budget { retries: 0, time_left: false, ..FULL };
        for &(kind, stage, first, later, memory, killed) in TABLE {
            assert_eq!(decide(kind, stage, FULL), first, "{kind:?} at {stage:?}, first");
            assert_eq!(decide(kind, stage, spent), later, "{kind:?} at {stage:?}, budget spent");
            assert_eq!(remember(kind), memory, "{kind:?}");
            assert_eq!(spoils_worker(kind), killed, "{kind:?}");
        }
    }

    #[test]
    fn a_failed_gpu_is_left_for_another_device_first() {
        let gpu = Budget { other_device: true, ..FULL };
        assert_eq!(decide(K::Device, Load, gpu), Decision::Again(Change::OtherDevice));
        assert_eq!(decide(K::Device, Decode, gpu), Decision::Again(Change::OtherDevice));
        assert_eq!(decide(K::OutOfMemory, Decode, gpu), Decision::Again(Change::OtherDevice));
        assert_eq!(decide(K::OutOfMemory, Load, gpu), Decision::Again(Change::FreeIdle));
    }

    #[test]
    fn shown_text_is_continued_by_those_who_may_and_never_replaced() {
        for &(kind, stage, first, ..) in TABLE {
            let with = |shown| decide(kind, stage, Budget { shown, ..FULL });
            assert_eq!(with(Shown::Sealed), Decision::Surface);
            assert_eq!(with(Shown::Continuable), first);
            let by_same = if matches!(first, Decision::Again(_)) { first } else { Decision::Surface };
            assert_eq!(with(Shown::BySameModel), by_same);
        }
    }

    #[test]
    fn only_causes_that_pass_are_worth_trying_later() {
        for kind in [K::DoesNotFit, K::OutOfMemory, K::QueueFull, K::Timeout, K::Stalled, K::Device] {
            assert!(passes_with_time(kind, Load), "{kind:?}");
        }
        for kind in [K::Missing, K::Corrupt, K::CannotDo, K::Crashed, K::NonFinite, K::PromptTooLong { needed: 2, limit: 1 }] {
            assert!(!passes_with_time(kind, Load), "{kind:?}");
        }
        assert!(passes_with_time(K::Crashed, Admission), "a cooldown ends");
    }
}
