//! Linux, macOS and other Unix systems.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};

use super::{Ending, FatalSignal};
use crate::ResidentMemory;

/// Takes the pipes of the process for the protocol: whatever reads stdin from now on finds it empty, and whatever writes to
/// stdout writes to stderr, so that no library can corrupt a frame.
pub(crate) fn take_stdio() -> io::Result<(Box<dyn Read + Send>, Box<dyn Write + Send>)> {
    let frames_in = io::stdin().as_fd().try_clone_to_owned()?;
    let frames_out = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok((Box::new(File::from(frames_in)), Box::new(File::from(frames_out))))
}

/// Asks the kernel to end this process with its parent, and to prefer it to its parent when memory runs out. Where the kernel
/// cannot, the end of stdin still ends the worker.
pub(crate) fn die_with_parent() {
    #[cfg(target_os = "linux")]
    {
        let asked = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let offered = std::fs::write("/proc/self/oom_score_adj", "1000");
        for error in [asked.err().map(io::Error::from), offered.err()].into_iter().flatten() {
            tracing::debug!(%error, "the worker could not tie itself to its parent");
        }
    }
}

/// Bounds the memory this process may allocate; mapped files are not counted.
pub(crate) fn limit_memory(bytes: u64) -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Data);
    let least = |limit: Option<u64>| Some(limit.map_or(bytes, |limit| limit.min(bytes)));
    Ok(setrlimit(Resource::Data, Rlimit { current: least(current), maximum: least(maximum) })?)
}

/// Whether this process, and so its children, may have less memory than that anyway. A limit on address space always means less:
/// mapped files and stacks are taken from it too.
pub(crate) fn has_less_memory_than(bytes: u64) -> bool {
    getrlimit(Resource::As).current.is_some() || getrlimit(Resource::Data).current.is_some_and(|limit| limit < bytes)
}

/// A process group of its own, because Ctrl-C in the terminal is for the parent alone; and the parent's name, where the program
/// is only known as this one.
pub(crate) fn configure(command: &mut Command) {
    command.process_group(0);
    if command.get_program() == "/proc/self/exe"
        && let Some(name) = std::env::args_os().next()
    {
        command.arg0(name);
    }
}

/// How a process with this status ended.
pub(crate) fn describe(status: ExitStatus) -> Ending {
    let Some(signal) = status.signal() else { return status.code().map_or(Ending::Unknown, Ending::Code) };
    let known = [
        (Signal::SEGV, "SIGSEGV", "an invalid memory access"),
        (Signal::BUS, "SIGBUS", "the model's file may have been changed or cut while it was in use"),
        (Signal::ILL, "SIGILL", "an instruction this processor does not have"),
        (Signal::FPE, "SIGFPE", "an arithmetic error"),
        (Signal::ABORT, "SIGABRT", "it ended itself"),
        (Signal::KILL, "SIGKILL", "not by this program"),
        (Signal::TERM, "SIGTERM", "asked to end by another program"),
        (Signal::INT, "SIGINT", "interrupted by another program"),
        (Signal::HUP, "SIGHUP", "its terminal was closed"),
        (Signal::XCPU, "SIGXCPU", "its processor time was used up"),
    ];
    let named = known.iter().find(|(known, ..)| known.as_raw() == signal);
    Ending::Signal {
        name: named.map_or_else(|| format!("signal {signal}"), |(_, name, _)| (*name).to_owned()),
        meaning: named.map_or("", |(.., meaning)| meaning),
        is_kill: signal == Signal::KILL.as_raw(),
        is_abort: signal == Signal::ABORT.as_raw(),
    }
}

/// Resident memory of the process `pid`, where the system tells.
pub(crate) fn memory_of(pid: u32) -> Option<ResidentMemory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(ResidentMemory { anon_bytes: bytes("RssAnon:")?, file_bytes: bytes("RssFile:")? })
}

/// Ends this process by a signal.
pub(crate) fn die_by(signal: FatalSignal) -> ! {
    let signal = match signal {
        FatalSignal::Segv => Signal::SEGV,
        FatalSignal::Bus => Signal::BUS,
        FatalSignal::Kill => Signal::KILL,
    };
    // The first one may only remove the handler that Rust's run time has for stack overflows.
    loop {
        let _ = kill_process(getpid(), signal);
        std::thread::yield_now();
    }
}
