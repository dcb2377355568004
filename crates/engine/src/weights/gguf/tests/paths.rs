//! What paths lead to: files that come in parts, and things that are no files.

use std::fs;
use std::path::{Path, PathBuf};

use super::GgufErrorClass::{BrokenSplit, Corrupt, Invalid, Missing, Truncated, Unreadable};
use super::{GgufErrorClass, says, small};
use crate::testing::{GgufWriter, Stored, TinyModel};
use crate::weights::gguf::{Gguf, limits};

/// That the path is refused alike by both ways of reading it.
#[track_caller]
fn refused(path: &Path, class: GgufErrorClass, part: &str) {
    says(&Gguf::open(path).unwrap_err(), class, part);
    says(&Gguf::read_header(path, limits::HEADER_BYTES).unwrap_err(), class, part);
}

fn part(number: u16, n_parts: u16, n_tensors: i32) -> GgufWriter {
    let writer = match number {
        0 => GgufWriter::new("llama").string("general.name", "split"),
        _ => GgufWriter::default(),
    };
    writer
        .raw("split.no", 2, &number.to_le_bytes())
        .raw("split.count", 2, &n_parts.to_le_bytes())
        .raw("split.tensors.count", 5, &n_tensors.to_le_bytes())
        .tensor(&format!("t{number}"), &[2], Stored::F32, &[f32::from(number), 1.0])
}

/// `m-00001-of-00003.gguf` and so on, each with one tensor.
fn split(dir: &Path) -> Vec<PathBuf> {
    (0..3)
        .map(|number| {
            let path = dir.join(format!("m-{:05}-of-00003.gguf", number + 1));
            fs::write(&path, part(number, 3, 3).finish()).unwrap();
            path
        })
        .collect()
}

#[test]
fn a_mapped_file_and_its_header_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let bytes = TinyModel::default().writer().finish();
    fs::write(&path, &bytes).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let header = Gguf::read_header(&path, limits::HEADER_BYTES).unwrap();
    let rows = |header: &crate::weights::gguf::Header| -> Vec<_> {
        header.tensors().map(|t| (t.name.clone(), t.start(), t.size_bytes())).collect()
    };
    assert_eq!(rows(gguf.header()), rows(&header));
    assert!(gguf.metadata().keys().eq(header.metadata().keys()));
    assert_eq!(gguf.header().shards()[0].len_bytes, bytes.len() as u64);
    for tensor in gguf.tensors() {
        let (start, size) = (tensor.start() as usize, tensor.size_bytes().unwrap() as usize);
        assert_eq!(gguf.data(tensor).unwrap(), &bytes[start..start + size]);
    }
}

#[test]
fn all_parts_of_a_split_file_are_one_model() {
    let dir = tempfile::tempdir().unwrap();
    let paths = split(dir.path());
    let gguf = Gguf::open(&paths[0]).unwrap();
    assert_eq!(gguf.metadata().string("general.name").unwrap(), Some("split"));
    assert_eq!(gguf.header().shards().len(), 3);
    for number in 0..3u8 {
        let tensor = gguf.tensor(&format!("t{number}")).unwrap();
        assert_eq!(tensor.shard(), usize::from(number));
        assert_eq!(gguf.data(tensor).unwrap()[..4], f32::from(number).to_le_bytes());
    }
    let header = Gguf::read_header(&paths[0], limits::HEADER_BYTES).unwrap();
    assert_eq!(header.tensors().len(), 3);
}

#[test]
fn a_missing_or_cut_part_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let paths = split(dir.path());
    let whole = fs::read(&paths[2]).unwrap();
    fs::write(&paths[2], &whole[..whole.len() - 1]).unwrap();
    refused(&paths[0], Truncated, "m-00003-of-00003.gguf: is truncated");
    fs::remove_file(&paths[1]).unwrap();
    refused(&paths[0], BrokenSplit, "m-00002-of-00003.gguf is missing");
}

#[test]
fn a_foreign_part_is_named() {
    let rows: [(GgufWriter, &str); 5] = [
        (part(2, 3, 3), "found split.no 2, expected 1"),
        (part(1, 4, 3), "found split.count 4, expected 3"),
        (GgufWriter::default(), "found split.count absent, expected 3"),
        (part(1, 3, 3).string("general.architecture", "qwen2"), "found architecture `qwen2`"),
        (part(1, 3, 2), "found split.tensors.count 2, expected 3"),
    ];
    for (foreign, expected) in rows {
        let dir = tempfile::tempdir().unwrap();
        let paths = split(dir.path());
        fs::write(&paths[1], foreign.finish()).unwrap();
        refused(&paths[0], BrokenSplit, "m-00002-of-00003.gguf belongs to another file");
        refused(&paths[0], BrokenSplit, expected);
    }
    let dir = tempfile::tempdir().unwrap();
    let paths = split(dir.path());
    let twice = part(1, 3, 3).tensor("t0", &[1], Stored::F32, &[1.0]).finish();
    fs::write(&paths[1], twice).unwrap();
    refused(&paths[0], Corrupt, "tensors in all parts");
    fs::write(&paths[2], GgufWriter::finish(&no_tensor(2))).unwrap();
    refused(&paths[0], Corrupt, "tensor `t0`: found the name twice");
}

fn no_tensor(number: u16) -> GgufWriter {
    GgufWriter::default().raw("split.no", 2, &number.to_le_bytes()).raw("split.count", 2, &3u16.to_le_bytes())
}

#[test]
fn only_the_first_part_is_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let paths = split(dir.path());
    refused(&paths[2], BrokenSplit, "is part 3 of a split file");
    refused(&paths[2], BrokenSplit, "m-00001-of-00003.gguf");
    let renamed = dir.path().join("model.gguf");
    fs::rename(&paths[0], &renamed).unwrap();
    refused(&renamed, BrokenSplit, "-00001-of-00003.gguf");
    for n_parts in [1001u64, u64::MAX] {
        let file = GgufWriter::new("x").raw("split.count", 10, &n_parts.to_le_bytes());
        fs::write(&renamed, file.finish()).unwrap();
        refused(&renamed, Invalid, "key `split.count`: found");
    }
    let file = GgufWriter::new("x").raw("split.count", 2, &[2, 0]);
    fs::write(&renamed, file.finish()).unwrap();
    refused(&renamed, Invalid, "key `split.no` is missing");
}

#[test]
fn a_file_of_one_part_is_whole_under_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, part(0, 1, 1).finish()).unwrap();
    assert_eq!(Gguf::open(&path).unwrap().tensors().len(), 1);
}

#[test]
fn a_file_that_is_gone_cut_or_replaced_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    refused(&path, Missing, "m.gguf: no such file");
    fs::write(&path, "").unwrap();
    refused(&path, Truncated, "found 0");
    let file = small().finish();
    fs::write(&path, &file[..file.len() / 2]).unwrap();
    refused(&path, Truncated, "is truncated");
    fs::write(&path, "not a model").unwrap();
    refused(&path, GgufErrorClass::NotGguf, "found `not `");
    refused(dir.path(), Unreadable, "is a directory, expected a regular file");
    refused(&path.join("below"), Unreadable, "cannot be read");
}

#[cfg(unix)]
#[test]
fn pipes_devices_and_loops_are_refused_at_once() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
    assert!(made.success());
    refused(&path("pipe"), Unreadable, "is a pipe");
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    refused(&path("socket"), Unreadable, "is a socket");
    refused(Path::new("/dev/zero"), Unreadable, "/dev/zero: is a device");
    symlink("loop", path("loop")).unwrap();
    refused(&path("loop"), Unreadable, "cannot be read");
    symlink("nowhere", path("dangling")).unwrap();
    refused(&path("dangling"), Missing, "no such file");
    symlink("/dev/zero", path("zero")).unwrap();
    refused(&path("zero"), Unreadable, "is a device");

    fs::write(path("secret"), small().finish()).unwrap();
    fs::set_permissions(path("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser may read it all the same.
    if fs::File::open(path("secret")).is_err() {
        refused(&path("secret"), Unreadable, "cannot be read");
    }
}

#[test]
fn populating_counts_every_byte_and_can_be_stopped() {
    use std::ops::ControlFlow;
    use std::sync::Mutex;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.gguf");
    let file = GgufWriter::new("x").raw_tensor("t", &[40 << 20], 24, None, vec![7; 40 << 20]).finish();
    fs::write(&path, &file).unwrap();
    let gguf = Gguf::open(&path).unwrap();

    let seen = Mutex::new(Vec::new());
    let all = gguf.populate(2, &|done| {
        seen.lock().unwrap().push(done);
        ControlFlow::Continue(())
    });
    assert!(all.unwrap().is_continue());
    let seen = seen.into_inner().unwrap();
    assert_eq!((seen.len(), seen.iter().max()), (3, Some(&(file.len() as u64))));

    let stopped = gguf.populate(1, &|_| ControlFlow::Break(()));
    assert!(stopped.unwrap().is_break());
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_cut_while_it_is_mapped_is_truncated_when_it_is_populated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.gguf");
    fs::write(&path, GgufWriter::new("x").raw_tensor("t", &[1 << 20], 24, None, vec![7; 1 << 20]).finish()).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let error = gguf.populate(2, &|_| std::ops::ControlFlow::Continue(())).unwrap_err();
    says(&error, Truncated, "cut.gguf: is truncated");
}

#[test]
fn parts_together_have_no_more_tensors_than_one_file_may_have() {
    let dir = tempfile::tempdir().unwrap();
    // Tensors of an unknown type need one byte each, aligned.
    let half = limits::TENSORS / 2;
    for number in 0..3u16 {
        let mut writer = no_tensor(number).alignment(8);
        for i in 0..half {
            writer = writer.raw_tensor(&format!("t{number}.{i}"), &[1], 99, None, vec![0]);
        }
        fs::write(dir.path().join(format!("m-{:05}-of-00003.gguf", number + 1)), writer.finish()).unwrap();
    }
    let first = dir.path().join("m-00001-of-00003.gguf");
    refused(&first, Corrupt, "tensors in all parts, expected at most");
}
