//! Vocabularies and templates of models that are counted for and not loaded: building one takes longer than counting with it.
//! Bounded, and each is as good as the file it came from: a file that changes is read again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::engine::Model;
use crate::error::Error;
use crate::prompt::PromptBuilder;

/// Models whose prompts are kept; of the largest vocabularies one takes about 20 MiB.
const MAX_KEPT: usize = 4;

/// The latest used last.
static KEPT: Mutex<Vec<(Identity, Arc<PromptBuilder>)>> = Mutex::new(Vec::new());

/// What tells whether the files of a model are still the same.
#[derive(PartialEq, Eq)]
struct Identity(Vec<(PathBuf, State)>);

/// Length, time of the last change, and number in the file system where it has one.
type State = (u64, SystemTime, u64);

/// The prompts of the model at `path`, whose template `chat_template` may replace.
///
/// # Errors
/// As [`Model::open`] and [`Model::prompts`].
pub(crate) fn prompts(path: &Path, chat_template: Option<&Path>) -> Result<Arc<PromptBuilder>, Error> {
    let identity = Identity::of(path, chat_template);
    if let Some(known) = identity.as_ref().and_then(find) {
        return Ok(known);
    }
    let built = Arc::new(Model::open(path)?.prompts(chat_template)?);
    if let Some(identity) = identity {
        keep(identity, &built);
    }
    Ok(built)
}

fn find(identity: &Identity) -> Option<Arc<PromptBuilder>> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let at = kept.iter().position(|(known, _)| known == identity)?;
    let found = kept.remove(at);
    let prompts = Arc::clone(&found.1);
    kept.push(found);
    Some(prompts)
}

fn keep(identity: Identity, prompts: &Arc<PromptBuilder>) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    // Another state of the same files is of no use any more.
    kept.retain(|(known, _)| !known.same_files(&identity));
    if kept.len() >= MAX_KEPT {
        kept.remove(0);
    }
    kept.push((identity, Arc::clone(prompts)));
}

impl Identity {
    /// `None` where a file cannot be looked at.
    fn of(path: &Path, chat_template: Option<&Path>) -> Option<Self> {
        let files = std::iter::once(path).chain(chat_template);
        files.map(|file| Some((file.to_owned(), state(file)?))).collect::<Option<_>>().map(Self)
    }

    fn same_files(&self, other: &Self) -> bool {
        self.0.iter().map(|(path, _)| path).eq(other.0.iter().map(|(path, _)| path))
    }
}

fn state(file: &Path) -> Option<State> {
    let found = std::fs::metadata(file).ok()?;
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&found);
    #[cfg(not(unix))]
    let number = 0;
    Some((found.len(), found.modified().ok()?, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Stored, tiny_model};

    #[test]
    fn prompts_are_built_once_for_a_file_and_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = (0..=MAX_KEPT).map(|i| folder.path().join(format!("{i}.gguf"))).collect();
        for file in &files {
            std::fs::write(file, tiny_model("llama", 1, Stored::F16)).unwrap();
        }
        let first = prompts(&files[0], None).unwrap();
        assert!(Arc::ptr_eq(&first, &prompts(&files[0], None).unwrap()));
        let template = folder.path().join("t.jinja");
        std::fs::write(&template, "{{ messages[0].content }}").unwrap();
        assert!(!Arc::ptr_eq(&first, &prompts(&files[0], Some(&template)).unwrap()));

        let mut changed = tiny_model("llama", 1, Stored::F16);
        changed.extend([0; 32]);
        std::fs::write(&files[0], changed).unwrap();
        let again = prompts(&files[0], None).unwrap();
        assert!(!Arc::ptr_eq(&first, &again));

        files[1..].iter().for_each(|file| drop(prompts(file, None).unwrap()));
        assert!(!Arc::ptr_eq(&again, &prompts(&files[0], None).unwrap()), "no more than {MAX_KEPT} are kept");
        std::fs::remove_file(&files[0]).unwrap();
        assert!(prompts(&files[0], None).is_err());
    }
}
