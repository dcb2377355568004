//! What differs between systems about a worker process: its pipes, its death with the parent, its limits.
//!
//! Owns the system calls, all through safe wrappers. Does not own the protocol or what an exit means.

#[cfg(unix)]
#[path = "platform/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "platform/other.rs"]
mod system;

pub(crate) use system::{configure, describe, die_by, die_with_parent, has_less_memory_than, limit_memory, memory_of, take_stdio};

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By a signal.
    Signal {
        /// Its name, such as `SIGSEGV`.
        name: String,
        /// What it means, where it has one meaning.
        meaning: &'static str,
        /// SIGKILL: nobody but the kernel, a supervisor or an administrator sends it.
        is_kill: bool,
        /// SIGABRT: the process ended itself.
        is_abort: bool,
    },
    /// By itself, with this code.
    Code(i32),
    /// The system does not say.
    Unknown,
}

/// Signals that end a process, for faults on demand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FatalSignal {
    Segv,
    Bus,
    Kill,
}
