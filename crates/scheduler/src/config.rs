//! What models.toml says, checked: [`Config`] exists only after every name, alias and list in it was found sound.
//!
//! Owns the settings, the entries and their order. Does not open model files: whether a model can run is found when it is asked for.

mod places;
mod raw;
mod table;
mod units;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use downshift_worker::{ModelKind, ModelSpec};

pub use places::{Candidate, HfCache, candidates, locate, user_config_folder};
pub use raw::RawConfig;
pub use units::{KeepAlive, MemoryLimit, parse_bytes, parse_duration};

/// The settings and the models, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What holds for all models.
    pub settings: Settings,
    models: Vec<ModelEntry>,
    by_name: HashMap<String, usize>,
    lines: raw::Lines,
}

/// The `[settings]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The model for requests that name none; `None` means the first.
    pub default_model: Option<String>,
    /// For models that list no fallbacks.
    pub default_fallbacks: Option<Vec<String>>,
    /// The same model again, at most this often per request, only where that can help.
    pub num_retries: u32,
    /// Other models tried per request; 0 means never.
    pub max_fallbacks: u32,
    /// Unexplained failures in a row before a cooldown.
    pub allowed_fails: u32,
    /// First cooldown; it doubles up to [`Settings::LONGEST_COOLDOWN`].
    pub cooldown_time: Duration,
    /// The whole request, all attempts.
    pub timeout: Option<Duration>,
    /// From a loaded model to its first token, per attempt.
    pub first_token_timeout: Option<Duration>,
    /// Without progress of any kind.
    pub stall_timeout: Option<Duration>,
    /// An attempt slower than this over its last 16 tokens drops a gear; 0 means off.
    pub min_tokens_per_second: f32,
    /// Idle time before a model is unloaded.
    pub keep_alive: KeepAlive,
    /// Bytes that all models together may use of the host.
    pub memory_limit: MemoryLimit,
    /// Bytes left free on every device.
    pub memory_margin: u64,
    /// One worker process per model.
    pub isolate: bool,
    /// Cores for all workers; `None` means those of this process.
    pub threads: Option<usize>,
    /// Requests that may wait per model.
    pub queue: usize,
    /// Load weights larger than the room, and read them again from disk.
    pub allow_paging: bool,
    /// Content that counts as a failure, of unstreamed answers only.
    pub fallback_on: Vec<ContentCheck>,
    /// End answers that repeat themselves without end.
    pub loop_guard: bool,
    /// What happens when an answer breaks off after text was shown.
    pub on_stream_failure: OnStreamFailure,
}

impl Settings {
    /// Cooldowns stop doubling here.
    pub const LONGEST_COOLDOWN: Duration = Duration::from_secs(15 * 60);
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_model: None,
            default_fallbacks: None,
            num_retries: 1,
            max_fallbacks: 5,
            allowed_fails: 2,
            cooldown_time: Duration::from_secs(60),
            timeout: None,
            first_token_timeout: None,
            stall_timeout: Some(Duration::from_secs(30)),
            min_tokens_per_second: 0.0,
            keep_alive: KeepAlive::For(Duration::from_secs(300)),
            memory_limit: MemoryLimit::Auto,
            memory_margin: 512 << 20,
            isolate: true,
            threads: None,
            queue: 64,
            allow_paging: false,
            fallback_on: Vec::new(),
            loop_guard: true,
            on_stream_failure: OnStreamFailure::Continue,
        }
    }
}

/// Content that may count as a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCheck {
    /// Nothing but white space.
    Empty,
    /// Text that is no JSON.
    InvalidJson,
}

/// What happens when an answer breaks off after text was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStreamFailure {
    /// The same model, then the next one, continues the text.
    Continue,
    /// One honest error.
    Error,
}

/// One `[models.NAME]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelEntry {
    /// What a launcher needs.
    pub spec: ModelSpec,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Tried in this order when it fails; `None` leaves the choice to the defaults.
    pub fallbacks: Option<Vec<String>>,
    /// Tried instead when the prompt is too long for it.
    pub context_window_fallbacks: Vec<String>,
    /// Replaces the setting of the same name.
    pub keep_alive: Option<KeepAlive>,
    /// Replaces the setting of the same name.
    pub min_tokens_per_second: Option<f32>,
    /// Embedders with an equal name here are interchangeable.
    pub embedding_space: Option<String>,
}

impl ModelEntry {
    /// An entry that says nothing beyond its spec.
    pub fn new(spec: ModelSpec) -> Self {
        Self {
            spec,
            aliases: Vec::new(),
            fallbacks: None,
            context_window_fallbacks: Vec::new(),
            keep_alive: None,
            min_tokens_per_second: None,
            embedding_space: None,
        }
    }

    /// The name callers send.
    pub fn name(&self) -> &str {
        &self.spec.name
    }
}

impl Config {
    /// Reads and checks a file. Relative paths in it start at its folder, or at its `models_dir`.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is unknown, unclear or contradictory.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let problem = ConfigError::new("", format!("cannot be read: {error}"), "name a readable file of UTF-8 text");
            problem.in_file(path)
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::from_text(&text, folder, &HfCache::from_env()).map_err(|error| error.in_file(path))
    }

    /// Reads and checks the text of a models.toml whose relative paths start at `folder`.
    ///
    /// # Errors
    /// As [`Config::from_file`].
    pub fn from_text(text: &str, folder: &Path, cache: &HfCache) -> Result<Self, ConfigError> {
        RawConfig::parse(text, folder, cache)?.check()
    }

    /// Checks settings and entries made in code, in the order given.
    ///
    /// # Errors
    /// As [`Config::from_file`], without line numbers.
    pub fn new(settings: Settings, models: Vec<ModelEntry>) -> Result<Self, ConfigError> {
        RawConfig::from_parts(settings, models).check()
    }

    /// The entries, in the order of the file; never empty.
    pub fn models(&self) -> &[ModelEntry] {
        &self.models
    }

    /// Where in [`Config::models`] the model is that callers know by this name or alias.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Where in [`Config::models`] the model for requests without a name is.
    pub fn default_index(&self) -> usize {
        self.settings.default_model.as_deref().and_then(|name| self.index_of(name)).unwrap_or(0)
    }

    /// Compares kinds along all lists of fallbacks; `kinds` are those of [`Config::models`], `None` where a file cannot tell.
    ///
    /// # Errors
    /// A model lists a fallback of another kind, or an embedder one without an equal `embedding_space`.
    pub fn check_kinds(&self, kinds: &[Option<ModelKind>]) -> Result<(), ConfigError> {
        for (model, kind) in self.models.iter().zip(kinds) {
            let lists =
                [("fallbacks", model.fallbacks.as_deref()), ("context_window_fallbacks", Some(&model.context_window_fallbacks[..]))];
            for (list, name) in lists.iter().flat_map(|(list, names)| names.unwrap_or_default().iter().map(move |name| (list, name))) {
                let key = format!("models.{}.{list}", model.name());
                let other = self.by_name[name];
                let error = |problem, remedy: &str| {
                    Err(ConfigError::new(&key, problem, remedy).at(self.lines.get(&(key.clone(), name.clone())).copied()))
                };
                let (Some(one), Some(two)) = (kind, kinds[other]) else { continue };
                if *one != two {
                    let word = |kind| if kind == ModelKind::Chat { "a chat model" } else { "an embedding model" };
                    let problem = format!("`{}` is {}, but `{name}` is {}", model.name(), word(*one), word(two));
                    return error(problem, "list models of the same kind only");
                }
                if *one == ModelKind::Embedding
                    && (model.embedding_space.is_none() || model.embedding_space != self.models[other].embedding_space)
                {
                    let problem =
                        format!("`{}` and `{name}` do not declare one embedding_space: another space means other vectors", model.name());
                    return error(problem, "give both the same embedding_space if their vectors can be compared, else remove the fallback");
                }
            }
        }
        Ok(())
    }

    /// Idle time before this model is unloaded.
    pub fn keep_alive(&self, index: usize) -> KeepAlive {
        self.models[index].keep_alive.unwrap_or(self.settings.keep_alive)
    }

    /// Fewest tokens per second of this model; 0 means that any speed will do.
    pub fn min_tokens_per_second(&self, index: usize) -> f32 {
        self.models[index].min_tokens_per_second.unwrap_or(self.settings.min_tokens_per_second)
    }
}

/// Something is wrong in models.toml: where, what, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, where it came from one.
    pub file: Option<PathBuf>,
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// The key or table that is wrong, such as `models.chat.fallbacks`.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl ConfigError {
    /// A problem with `key`, not yet placed in a file.
    pub fn new(key: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file: None, line: None, key: key.into(), problem: problem.into(), remedy: remedy.into() }
    }

    fn at(mut self, line: Option<usize>) -> Self {
        self.line = line;
        self
    }

    fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display())?,
            None => f.write_str("models.toml")?,
        }
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": `{}`", self.key)?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
