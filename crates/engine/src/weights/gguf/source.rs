//! Opens what a path names, if it is a regular file: never blocks on a pipe, never reads a device.

use std::fs::{self, File, FileType};
use std::io;
use std::path::Path;

use super::error::GgufError;

/// Opens `path` for reading and gives its length in bytes.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64), GgufError> {
    let failed = |source: io::Error| {
        let file = path.display().to_string();
        match source.kind() {
            io::ErrorKind::NotFound => GgufError::Missing { file },
            _ => GgufError::Unreadable { file, source },
        }
    };
    let regular = |kind: FileType| match kind.is_file() {
        true => Ok(()),
        false => Err(GgufError::NotAFile { file: path.display().to_string(), found: named(kind) }),
    };
    // Before opening, because opening a pipe waits for its other end; after it too, because the
    // name may have come to mean something else meanwhile.
    regular(fs::metadata(path).map_err(failed)?.file_type())?;
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    regular(metadata.file_type())?;
    Ok((file, metadata.len()))
}

#[cfg(unix)]
fn named(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn named(kind: FileType) -> &'static str {
    if kind.is_dir() { "a directory" } else { "something else" }
}
