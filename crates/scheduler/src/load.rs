//! How far a load has come, shared between the thread that loads and those that wait for it.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock::lock;

/// Bytes made resident so far, and when that last changed.
pub(crate) struct Progress(Mutex<Snapshot>);

/// One reading of a [`Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub at: Duration,
}

impl Progress {
    pub fn start(now: Duration) -> Self {
        Self(Mutex::new(Snapshot { done_bytes: 0, total_bytes: 0, at: now }))
    }

    pub fn advance(&self, done_bytes: u64, total_bytes: u64, now: Duration) {
        *lock(&self.0) = Snapshot { done_bytes, total_bytes, at: now };
    }

    pub fn read(&self) -> Snapshot {
        *lock(&self.0)
    }
}
