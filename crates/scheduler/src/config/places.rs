//! Where models.toml and cached models are found. Reads folders and variables only; never downloads.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::ConfigError;

/// A place where models.toml may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The file.
    pub path: PathBuf,
    /// Who names it: `--config`, `DOWNSHIFT_CONFIG`, `current folder`, `user folder`.
    pub source: &'static str,
    /// Whether it must exist, because a person named it.
    pub named: bool,
}

/// The places to look, first match wins: the flag, the variable, the current folder, the user's folder.
pub fn candidates(flag: Option<&Path>, variable: Option<OsString>, current: &Path, user_folder: Option<&Path>) -> Vec<Candidate> {
    let named = |path: PathBuf, source| Candidate { path, source, named: true };
    let usual = |path: PathBuf, source| Candidate { path, source, named: false };
    let mut list = Vec::new();
    list.extend(flag.map(|path| named(path.to_owned(), "--config")));
    list.extend(variable.filter(|path| !path.is_empty()).map(|path| named(path.into(), "DOWNSHIFT_CONFIG")));
    list.push(usual(current.join("models.toml"), "current folder"));
    list.extend(user_folder.map(|folder| usual(folder.join("models.toml"), "user folder")));
    list
}

/// The first candidate that exists; `None` if there is no models.toml at all.
///
/// # Errors
/// A candidate that a person named is no file that there is.
pub fn locate(candidates: &[Candidate]) -> Result<Option<&Candidate>, ConfigError> {
    for candidate in candidates {
        if candidate.path.is_file() {
            return Ok(Some(candidate));
        }
        if candidate.named {
            let source = candidate.source;
            let problem = match std::fs::metadata(&candidate.path) {
                Ok(found) if found.is_dir() => format!("{source} names a folder, not a file"),
                Ok(_) => format!("{source} names what is no regular file"),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("there is no such file, but {source} names it"),
                Err(error) => format!("{source} names it, and it cannot be looked at: {error}"),
            };
            return Err(ConfigError::new("", problem, "correct the path or leave it out").in_file(&candidate.path));
        }
    }
    Ok(None)
}

/// The folder for this user's models.toml, from environment variables as `variable` reads them.
pub fn user_config_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = if cfg!(windows) {
        folder("APPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")))
    };
    base.map(|base| base.join("downshift"))
}

/// The cache that Hugging Face's tools keep: `models--OWNER--NAME/{refs,snapshots}` under one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HfCache {
    /// The folder that holds the `models--` folders.
    pub hub: PathBuf,
}

impl HfCache {
    /// The cache of this user: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// As [`HfCache::from_env`], from variables as `variable` reads them.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || folder("HOME").or_else(|| folder("USERPROFILE")).unwrap_or_default();
        let hub = folder("HF_HUB_CACHE")
            .or_else(|| folder("HF_HOME").map(|root| root.join("hub")))
            .unwrap_or_else(|| home().join(".cache/huggingface/hub"));
        Self { hub }
    }

    /// Where `file` of `repo` (`OWNER/NAME`) lies: in the snapshot that `refs/main` names, else in any other that has it.
    /// If none has it, the place where it would be, so that using it says that it is missing.
    pub fn resolve(&self, repo: &str, file: &str) -> PathBuf {
        let folder = self.hub.join(format!("models--{}", repo.replace('/', "--")));
        let snapshots = folder.join("snapshots");
        let main = std::fs::read_to_string(folder.join("refs/main")).ok();
        let main = snapshots.join(main.as_deref().map_or("main", str::trim)).join(file);
        if main.exists() {
            return main;
        }
        let mut others: Vec<PathBuf> =
            std::fs::read_dir(&snapshots).into_iter().flatten().flatten().map(|entry| entry.path().join(file)).collect();
        others.retain(|path| path.exists());
        others.sort();
        others.pop().unwrap_or(main)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_then_variable_then_current_then_user_folder() {
        let list = candidates(Some(Path::new("a.toml")), Some("b.toml".into()), Path::new("here"), Some(Path::new("user")));
        let paths: Vec<_> = list.iter().map(|candidate| candidate.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a.toml", "b.toml", "here/models.toml", "user/models.toml"]);
        assert_eq!(list.iter().map(|candidate| candidate.named).collect::<Vec<_>>(), [true, true, false, false]);
        assert_eq!(candidates(None, Some("".into()), Path::new("here"), None).len(), 1);
    }

    #[test]
    fn the_first_that_exists_is_used_and_a_named_one_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let user = folder.path().join("user");
        std::fs::create_dir(&user).unwrap();
        std::fs::write(user.join("models.toml"), "").unwrap();
        let list = candidates(None, None, folder.path(), Some(&user));
        assert_eq!(locate(&list).unwrap().unwrap().source, "user folder");
        std::fs::write(folder.path().join("models.toml"), "").unwrap();
        assert_eq!(locate(&list).unwrap().unwrap().source, "current folder");
        let named = candidates(Some(&folder.path().join("typo.toml")), None, folder.path(), None);
        assert!(locate(&named).unwrap_err().to_string().contains("--config names it"));
        assert_eq!(locate(&candidates(None, None, &folder.path().join("empty"), None)), Ok(None));
    }

    #[test]
    fn the_cache_folder_follows_the_variables() {
        let hub = |pairs: &'static [(&str, &str)]| {
            HfCache::from_variables(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())).hub
        };
        assert_eq!(hub(&[("HOME", "/home/me")]), Path::new("/home/me/.cache/huggingface/hub"));
        assert_eq!(hub(&[("HOME", "/home/me"), ("HF_HOME", "/data")]), Path::new("/data/hub"));
        assert_eq!(hub(&[("HF_HUB_CACHE", "/hub"), ("HF_HOME", "/data")]), Path::new("/hub"));
    }

    #[test]
    fn a_cached_file_is_found_in_the_snapshot_of_main_first() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("models--Qwen--Qwen3-1.7B-GGUF");
        for commit in ["aaa", "bbb", "ccc"] {
            std::fs::create_dir_all(folder.join("snapshots").join(commit)).unwrap();
        }
        let cache = HfCache { hub: cache.path().to_owned() };
        let find = || cache.resolve("Qwen/Qwen3-1.7B-GGUF", "q8.gguf");
        assert_eq!(find(), folder.join("snapshots/main/q8.gguf"));
        std::fs::write(folder.join("snapshots/bbb/q8.gguf"), "").unwrap();
        assert_eq!(find(), folder.join("snapshots/bbb/q8.gguf"));
        std::fs::create_dir(folder.join("refs")).unwrap();
        std::fs::write(folder.join("refs/main"), "aaa\n").unwrap();
        assert_eq!(find(), folder.join("snapshots/bbb/q8.gguf"));
        std::fs::write(folder.join("snapshots/aaa/q8.gguf"), "").unwrap();
        assert_eq!(find(), folder.join("snapshots/aaa/q8.gguf"));
    }
}
