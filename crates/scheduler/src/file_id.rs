//! Tells whether a model's files are still the same: what is quarantined is tried again once they change.

use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::UNIX_EPOCH;

use downshift_worker::ModelSpec;

/// Sizes, times and inodes of the files of one model; absent files count as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileId(Vec<Option<(u64, u128, u64)>>);

impl FileId {
    /// Of the files that `spec` names: the file, its further shards or the files of its folder, and its template.
    pub fn of(spec: &ModelSpec) -> Self {
        let mut ids = vec![stat(&spec.path)];
        if spec.path.is_dir() {
            let mut files: Vec<_> = fs::read_dir(&spec.path).into_iter().flatten().flatten().take(1000).map(|entry| entry.path()).collect();
            files.sort();
            ids.extend(files.iter().map(|path| stat(path)));
        }
        if let Some((stem, count)) = split_name(&spec.path) {
            ids.extend((2..=count.min(1000)).map(|part| stat(&spec.path.with_file_name(format!("{stem}-{part:05}-of-{count:05}.gguf")))));
        }
        ids.extend(spec.chat_template.as_deref().map(stat));
        Self(ids)
    }

    /// Names the weights: equal for two models of one file, however they are named.
    pub fn weights_id(&self, spec: &ModelSpec) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self.0.first() {
            Some(Some((size, _, inode))) if *inode != 0 => (size, inode).hash(&mut hasher),
            _ => spec.path.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// `name-00001-of-00003.gguf` as `name` and 3.
fn split_name(path: &Path) -> Option<(&str, u32)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, _part) = rest.rsplit_once('-')?;
    Some((name, count.parse().ok()?))
}

fn stat(path: &Path) -> Option<(u64, u128, u64)> {
    let metadata = fs::metadata(path).ok()?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    Some((metadata.len(), modified, inode(&metadata)))
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_metadata: &Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_appears_changes_or_gets_a_missing_shard_has_another_id() {
        let folder = tempfile::tempdir().unwrap();
        let spec = ModelSpec::from_path(folder.path().join("big-00001-of-00002.gguf"));
        let absent = FileId::of(&spec);
        assert_eq!(absent, FileId::of(&spec));
        fs::write(&spec.path, "one").unwrap();
        let first = FileId::of(&spec);
        assert_ne!(first, absent);
        assert_eq!(first, FileId::of(&spec));
        fs::write(folder.path().join("big-00002-of-00002.gguf"), "two").unwrap();
        let both = FileId::of(&spec);
        assert_ne!(both, first);
        fs::write(&spec.path, "longer").unwrap();
        assert_ne!(FileId::of(&spec), both);
    }

    #[test]
    fn two_names_of_one_file_are_the_same_weights() {
        let folder = tempfile::tempdir().unwrap();
        let [one, link, other] = ["one.gguf", "link.gguf", "other.gguf"].map(|name| ModelSpec::from_path(folder.path().join(name)));
        fs::write(&one.path, "weights").unwrap();
        fs::hard_link(&one.path, &link.path).unwrap();
        fs::write(&other.path, "weights").unwrap();
        let id = |spec: &ModelSpec| FileId::of(spec).weights_id(spec);
        assert_eq!(id(&one), id(&link));
        assert_ne!(id(&one), id(&other));
    }
}
