//! Time and waiting, so that tests own both.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tells the time and waits. Times are counted from an origin of the clock's own.
pub trait Clock: Send + Sync {
    /// Now; never goes back.
    fn now(&self) -> Duration;

    /// Returns once `bell` has rung since `heard` was taken from it, or `deadline` has passed; sooner is allowed.
    fn wait(&self, bell: &Arc<Bell>, heard: u64, deadline: Option<Duration>);
}

/// Wakes whoever waits for something to change.
#[derive(Default)]
pub struct Bell {
    rings: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    /// How often it has rung: take it before looking at what may change, and wait for more.
    pub fn heard(&self) -> u64 {
        *lock(&self.rings)
    }

    /// Wakes everybody.
    pub fn ring(&self) {
        *lock(&self.rings) += 1;
        self.changed.notify_all();
    }

    /// Blocks until it has rung since `heard`, or `longest` has passed.
    pub fn wait(&self, heard: u64, longest: Option<Duration>) {
        let rings = lock(&self.rings);
        match longest {
            Some(longest) => drop(self.changed.wait_timeout_while(rings, longest, |rings| *rings == heard)),
            None => drop(self.changed.wait_while(rings, |rings| *rings == heard)),
        }
    }
}

/// The clock of the machine.
pub struct SystemClock(Instant);

impl SystemClock {
    /// A clock whose origin is now.
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait(&self, bell: &Arc<Bell>, heard: u64, deadline: Option<Duration>) {
        let longest = deadline.map(|deadline| deadline.saturating_sub(self.now()));
        bell.wait(heard, longest);
    }
}

/// Locks, also where a thread panicked while it held the lock: states here change in single steps and stay whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
