//! Windows and whatever else runs std.

use std::io::{self, Read, Write};
use std::process::{Command, ExitStatus};

use super::{Ending, FatalSignal};
use crate::ResidentMemory;

/// The pipes of the process. Here stdout stays what it is: a library that prints to it is a protocol failure.
pub(crate) fn take_stdio() -> io::Result<(Box<dyn Read + Send>, Box<dyn Write + Send>)> {
    Ok((Box::new(io::stdin()), Box::new(io::stdout())))
}

/// The end of stdin is what ends the worker here.
pub(crate) fn die_with_parent() {}

/// Whether this process, and so its children, may have less memory than that anyway.
pub(crate) fn has_less_memory_than(_bytes: u64) -> bool {
    false
}

/// There is no such limit here.
pub(crate) fn limit_memory(_bytes: u64) -> io::Result<()> {
    Ok(())
}

/// No console window, and Ctrl-C in the terminal is for the parent alone.
#[cfg(windows)]
pub(crate) fn configure(command: &mut Command) {
    use std::os::windows::process::CommandExt;
    const CREATE_NEW_PROCESS_GROUP: u32 = 0x0000_0200;
    const CREATE_NO_WINDOW: u32 = 0x0800_0000;
    command.creation_flags(CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW);
}

/// Nothing to set here.
#[cfg(not(windows))]
pub(crate) fn configure(_command: &mut Command) {}

/// How a process with this status ended; exceptions are exit codes here.
pub(crate) fn describe(status: ExitStatus) -> Ending {
    let known = [
        (0xC000_0005_u32, "an access violation", ""),
        (0xC000_0006, "an in-page error", "the model's file may have been changed or cut while it was in use"),
        (0xC000_001D, "an illegal instruction", "an instruction this processor does not have"),
        (0xC000_0017, "a lack of memory", ""),
        (0xC000_00FD, "a stack overflow", ""),
        (0xC000_0409, "an abort", "it ended itself"),
    ];
    let Some(code) = status.code() else { return Ending::Unknown };
    match known.iter().find(|(known, ..)| *known == code as u32) {
        Some((known, name, meaning)) => {
            Ending::Signal { name: (*name).to_owned(), meaning, is_kill: false, is_abort: *known == 0xC000_0409 }
        }
        None => Ending::Code(code),
    }
}

/// The system is not asked here.
pub(crate) fn memory_of(_pid: u32) -> Option<ResidentMemory> {
    None
}

/// Without signals, every end is an abort.
pub(crate) fn die_by(_signal: FatalSignal) -> ! {
    std::process::abort()
}
