//! Split files: `NAME-00001-of-00003.gguf` and the parts beside it. The first part holds the
//! model's keys; each part says with `split.*` keys which one it is.

use std::path::{Path, PathBuf};

use super::error::{GgufError, shown};
use super::parse::{FileHeader, limits};
use super::{Header, Metadata};

const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
const TENSORS: &str = "split.tensors.count";
/// Far more than any model has; each part costs an open file and a mapping.
const MAX_PARTS: u64 = 1000;

/// Reads the file at `path` with `read` (path, name in errors), and its other parts if it has any.
pub(super) fn read_all(
    path: &Path,
    mut read: impl FnMut(&Path, &str) -> Result<(FileHeader, u64), GgufError>,
) -> Result<Header, GgufError> {
    let name = path.display().to_string();
    let (first, len) = read(path, &name)?;
    let (metadata, first) = first.into_part(path.to_owned(), len);
    let n_parts = metadata.uint(COUNT)?.unwrap_or(1);
    if n_parts <= 1 {
        return Header::join(&name, metadata, vec![first]);
    }
    if n_parts > MAX_PARTS {
        return Err(metadata.unusable(COUNT, n_parts, format!("at most {MAX_PARTS}")));
    }
    let number = metadata.uint(NUMBER)?.ok_or_else(|| metadata.missing(NUMBER))?;
    let named = PartName::of(path);
    if number != 0 {
        let first = named.map(|part| part.path(1).display().to_string());
        return Err(GgufError::NotFirstShard { file: name, part: number.saturating_add(1), first });
    }
    let Some(named) = named.filter(|part| part.number == 1 && part.count == n_parts) else {
        let expected = format!("-00001-of-{n_parts:05}.gguf");
        return Err(GgufError::UnnamedSplit { file: name, n_parts, expected });
    };

    let corrupt = |n_tensors: u64, expected: String| GgufError::Corrupt {
        file: name.clone(),
        place: format!("key `{TENSORS}`"),
        found: format!("{n_tensors} tensors in all parts"),
        expected,
    };
    let mut n_tensors = first.tensors.len() as u64;
    let mut parts = vec![first];
    for number in 2..=n_parts {
        let shard = named.path(number);
        let shard_name = shard.display().to_string();
        let (header, len) = read(&shard, &shard_name).map_err(|error| match error {
            GgufError::Missing { file: shard } => GgufError::MissingShard { file: name.clone(), shard },
            other => other,
        })?;
        let (keys, part) = header.into_part(shard, len);
        check_part(&name, &shard_name, &metadata, &keys, n_parts, number)?;
        n_tensors += part.tensors.len() as u64;
        if n_tensors > limits::TENSORS {
            return Err(corrupt(n_tensors, format!("at most {}", limits::TENSORS)));
        }
        parts.push(part);
    }
    match metadata.uint(TENSORS)? {
        Some(expected) if expected != n_tensors => {
            Err(corrupt(n_tensors, format!("{expected}; are all parts of the same file, of one quantization?")))
        }
        _ => Header::join(&name, metadata, parts),
    }
}

/// A part fits if its own keys say so and contradict none of the first part's.
fn check_part(file: &str, shard: &str, first: &Metadata, part: &Metadata, n_parts: u64, number: u64) -> Result<(), GgufError> {
    let foreign =
        |found: String, expected: String| GgufError::ForeignShard { file: file.to_owned(), shard: shard.to_owned(), found, expected };
    for (key, expected) in [(COUNT, n_parts), (NUMBER, number - 1)] {
        let found = part.uint(key)?;
        if found != Some(expected) {
            let found = found.map_or("absent".to_owned(), |n| n.to_string());
            return Err(foreign(format!("{key} {found}"), expected.to_string()));
        }
    }
    if let (Some(found), Some(expected)) = (part.uint(TENSORS)?, first.uint(TENSORS)?)
        && found != expected
    {
        return Err(foreign(format!("{TENSORS} {found}"), expected.to_string()));
    }
    const ARCHITECTURE: &str = "general.architecture";
    match (part.string(ARCHITECTURE)?, first.string(ARCHITECTURE)?) {
        (Some(found), Some(expected)) if found != expected => Err(foreign(format!("architecture {}", shown(found)), shown(expected))),
        _ => Ok(()),
    }
}

/// What the name of a part says: `STEM-00001-of-00003.gguf`.
struct PartName<'a> {
    folder: &'a Path,
    stem: &'a str,
    number: u64,
    count: u64,
}

impl<'a> PartName<'a> {
    fn of(path: &'a Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (stem, count) = stem.rsplit_once("-of-")?;
        let (stem, number) = stem.rsplit_once('-')?;
        let digits = |text: &str| match text.len() {
            5 if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        Some(Self { folder, stem, number: digits(number)?, count: digits(count)? })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}-{number:05}-of-{:05}.gguf", self.stem, self.count))
    }
}
