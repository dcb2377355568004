//! The answers of one call, between the thread that reads the pipe and the one that asked. Bounded: a child that sends more
//! than it was allowed to is refused.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::lock;
use crate::wire::{FromWorker, WINDOW};

#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    messages: VecDeque<FromWorker>,
    /// No message will come any more.
    ended: bool,
    /// Nobody will take one any more.
    abandoned: bool,
}

/// What waiting for an answer gave.
#[derive(Debug)]
pub(crate) enum Received {
    Message(FromWorker),
    Ended,
    TimedOut,
}

impl Inbox {
    /// Whether there was room for `message`.
    pub fn put(&self, message: FromWorker) -> bool {
        let mut state = lock(&self.state);
        if state.abandoned {
            return true;
        }
        // What is being taken just now counts neither here nor there, hence twice the window.
        let is_full = state.messages.len() > 2 * WINDOW;
        match (state.messages.back_mut(), &message) {
            (Some(last @ FromWorker::Progress { .. }), FromWorker::Progress { .. }) => *last = message,
            _ if is_full => return false,
            _ => state.messages.push_back(message),
        }
        drop(state);
        self.arrived.notify_one();
        true
    }

    pub fn end(&self) {
        lock(&self.state).ended = true;
        self.arrived.notify_one();
    }

    pub fn abandon(&self) {
        let mut state = lock(&self.state);
        state.abandoned = true;
        state.messages.clear();
    }

    /// The next message; those that arrived before the end come before it.
    pub fn next(&self, until: Option<Instant>) -> Received {
        let mut state = lock(&self.state);
        loop {
            if let Some(message) = state.messages.pop_front() {
                return Received::Message(message);
            }
            if state.ended {
                return Received::Ended;
            }
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return Received::TimedOut,
                Some(left) => self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Delta;

    #[test]
    fn progress_is_merged_and_a_flood_refused() {
        let inbox = Inbox::default();
        for done_bytes in 0..10_000 {
            assert!(inbox.put(FromWorker::Progress { done_bytes, total_bytes: 10_000 }));
        }
        let Received::Message(message) = inbox.next(None) else { panic!("no message") };
        assert_eq!(message, FromWorker::Progress { done_bytes: 9999, total_bytes: 10_000 });
        assert!(matches!(inbox.next(Some(Instant::now())), Received::TimedOut));

        let accepted = (0..10 * WINDOW).take_while(|_| inbox.put(FromWorker::Delta(Delta::default()))).count();
        assert_eq!(accepted, 2 * WINDOW + 1);
    }

    #[test]
    fn what_arrived_before_the_end_is_taken_before_it() {
        let inbox = Inbox::default();
        assert!(inbox.put(FromWorker::Counted(1)));
        inbox.end();
        assert!(matches!(inbox.next(None), Received::Message(FromWorker::Counted(1))));
        assert!(matches!(inbox.next(None), Received::Ended));
    }
}
