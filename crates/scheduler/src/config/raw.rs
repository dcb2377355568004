//! models.toml as written, before anything in it was compared: keys and types are right, names may still be wrong.

use std::collections::HashMap;
use std::path::Path;

use downshift_worker::{DeviceChoice, ModelSpec, SamplingParams};
use toml::de::DeTable;

use super::places::HfCache;
use super::table::{Bytes, Count, Limit, Located, Source, Table, Threads, suggest};
use super::{Config, ConfigError, ModelEntry, Settings};

/// Settings and entries whose names are not yet checked.
pub struct RawConfig {
    settings: Settings,
    models: Vec<ModelEntry>,
    lines: Lines,
}

/// Where names stand in the file: (key, name) to line. Empty for a configuration made in code.
pub(super) type Lines = HashMap<(String, String), usize>;

impl RawConfig {
    /// Reads the text. Relative paths start at `folder`, or at `models_dir` below it.
    pub fn parse(text: &str, folder: &Path, cache: &HfCache) -> Result<Self, ConfigError> {
        let source = Source(text);
        let document = DeTable::parse(text).map_err(|error| {
            let line = error.span().map(|span| source.line(span));
            ConfigError::new("", error.message().to_owned(), "see https://toml.io for the notation").at(line)
        })?;
        let mut root = Table::new(source, "", document.get_ref());
        let mut lines = Lines::new();
        let (settings, models_dir) = match root.subtable("settings")? {
            Some(table) => read_settings(table.value, folder, &mut lines)?,
            None => (Settings::default(), folder.to_owned()),
        };
        let mut models = Vec::new();
        for table in root.subtables("models")? {
            models.push(read_model(table, &models_dir, cache, &mut lines)?);
        }
        root.finish()?;
        Ok(Self { settings, models, lines })
    }

    /// Settings and entries made in code.
    pub fn from_parts(settings: Settings, models: Vec<ModelEntry>) -> Self {
        Self { settings, models, lines: Lines::new() }
    }

    /// Compares all names: models and aliases are distinct, and every list names models that exist, once, and not its own.
    pub fn check(self) -> Result<Config, ConfigError> {
        if self.models.is_empty() {
            let remedy = "add a table such as [models.chat] with path = \"model.gguf\"";
            return Err(ConfigError::new("models", "no model is named", remedy));
        }
        let by_name = self.names()?;
        let settings = &self.settings;
        if let Some(name) = &settings.default_model {
            self.known(&by_name, "settings.default_model", name)?;
        }
        self.check_list(&by_name, "settings.default_fallbacks", settings.default_fallbacks.as_deref().unwrap_or_default(), None)?;
        for (index, model) in self.models.iter().enumerate() {
            let key = |key: &str| format!("models.{}.{key}", model.name());
            let fallbacks = model.fallbacks.as_deref().unwrap_or_default();
            self.check_list(&by_name, &key("fallbacks"), fallbacks, Some(index))?;
            self.check_list(&by_name, &key("context_window_fallbacks"), &model.context_window_fallbacks, Some(index))?;
            for name in fallbacks {
                self.check_spaces(&key("fallbacks"), model, &self.models[by_name[name]])?;
            }
        }
        Ok(Config { settings: self.settings, models: self.models, by_name, lines: self.lines })
    }

    fn names(&self) -> Result<HashMap<String, usize>, ConfigError> {
        let mut by_name: HashMap<String, usize> = HashMap::new();
        for (index, model) in self.models.iter().enumerate() {
            if by_name.insert(model.name().to_owned(), index).is_some() {
                return Err(ConfigError::new(format!("models.{}", model.name()), "two models have this name", "rename one of them"));
            }
        }
        for (index, model) in self.models.iter().enumerate() {
            for alias in &model.aliases {
                if let Some(other) = by_name.insert(alias.clone(), index) {
                    let key = format!("models.{}.aliases", model.name());
                    let problem = format!("`{alias}` is a name of `{}` already", self.models[other].name());
                    return Err(self.error(&key, alias, problem, "a name leads to one model: remove it from one of them".to_owned()));
                }
            }
        }
        Ok(by_name)
    }

    fn known(&self, by_name: &HashMap<String, usize>, key: &str, name: &str) -> Result<usize, ConfigError> {
        by_name.get(name).copied().ok_or_else(|| {
            let remedy = suggest(name, self.models.iter().map(ModelEntry::name), "models");
            self.error(key, name, format!("there is no model `{name}`"), remedy)
        })
    }

    fn check_list(&self, by_name: &HashMap<String, usize>, key: &str, list: &[String], own: Option<usize>) -> Result<(), ConfigError> {
        let mut seen = Vec::new();
        for name in list {
            let index = self.known(by_name, key, name)?;
            if own == Some(index) {
                return Err(self.error(
                    key,
                    name,
                    "a model cannot be its own fallback".to_owned(),
                    format!("remove `{name}` from the list"),
                ));
            }
            if seen.contains(&index) {
                let problem = format!("`{}` is listed twice", self.models[index].name());
                return Err(self.error(key, name, problem, "each model is tried once: remove one of them".to_owned()));
            }
            seen.push(index);
        }
        Ok(())
    }

    fn check_spaces(&self, key: &str, model: &ModelEntry, other: &ModelEntry) -> Result<(), ConfigError> {
        if model.embedding_space == other.embedding_space {
            return Ok(());
        }
        let space = |entry: &ModelEntry| match &entry.embedding_space {
            Some(space) => format!("`{}` has embedding_space `{space}`", entry.name()),
            None => format!("`{}` has none", entry.name()),
        };
        let problem = format!("{}, {}: another space means other vectors", space(model), space(other));
        let remedy = "give both the same embedding_space if their vectors can be compared, else remove the fallback".to_owned();
        Err(self.error(key, other.name(), problem, remedy))
    }

    fn error(&self, key: &str, name: &str, problem: String, remedy: String) -> ConfigError {
        ConfigError::new(key, problem, remedy).at(self.lines.get(&(key.to_owned(), name.to_owned())).copied())
    }
}

fn read_settings(mut table: Table<'_>, folder: &Path, lines: &mut Lines) -> Result<(Settings, std::path::PathBuf), ConfigError> {
    let default = Settings::default();
    let models_dir =
        table.take("models_dir")?.map_or_else(|| folder.to_owned(), |found: Located<std::path::PathBuf>| folder.join(found.value));
    let default_model: Option<Located<String>> = table.take("default_model")?;
    if let Some(name) = &default_model {
        lines.insert((table.path("default_model"), name.value.clone()), name.line);
    }
    let settings = Settings {
        default_model: default_model.map(|found| found.value),
        default_fallbacks: list(&mut table, "default_fallbacks", lines)?,
        num_retries: table.value_or("num_retries", default.num_retries)?,
        max_fallbacks: table.value_or("max_fallbacks", default.max_fallbacks)?,
        allowed_fails: table.value_or("allowed_fails", default.allowed_fails)?,
        cooldown_time: table.value_or("cooldown_time", default.cooldown_time)?,
        timeout: table.value_or("timeout", Limit(default.timeout))?.0,
        first_token_timeout: table.value_or("first_token_timeout", Limit(default.first_token_timeout))?.0,
        stall_timeout: table.value_or("stall_timeout", Limit(default.stall_timeout))?.0,
        min_tokens_per_second: at_least_zero(&mut table, "min_tokens_per_second")?.unwrap_or(default.min_tokens_per_second),
        keep_alive: table.value_or("keep_alive", default.keep_alive)?,
        memory_limit: table.value_or("memory_limit", default.memory_limit)?,
        memory_margin: table.value_or("memory_margin", Bytes(default.memory_margin))?.0,
        isolate: table.value_or("isolate", default.isolate)?,
        threads: table.value_or("threads", Threads(default.threads))?.0,
        queue: table.value_or("queue", default.queue as u32)? as usize,
        allow_paging: table.value_or("allow_paging", default.allow_paging)?,
        fallback_on: table.value_or("fallback_on", default.fallback_on)?,
        loop_guard: table.value_or("loop_guard", default.loop_guard)?,
        on_stream_failure: table.value_or("on_stream_failure", default.on_stream_failure)?,
    };
    table.finish()?;
    Ok((settings, models_dir))
}

fn read_model(located: Located<Table<'_>>, models_dir: &Path, cache: &HfCache, lines: &mut Lines) -> Result<ModelEntry, ConfigError> {
    let Located { value: mut table, line } = located;
    let key = table.name().to_owned();
    let name = key.strip_prefix("models.").unwrap_or(&key).to_owned();
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(ConfigError::new(&key, "this cannot be a name", "name the model with visible characters").at(Some(line)));
    }
    let path: Option<Located<String>> = table.take("path")?;
    let repo: Option<Located<String>> = table.take("repo")?;
    let file: Option<Located<String>> = table.take("file")?;
    let path = match (path, repo, file) {
        (Some(path), None, None) => models_dir.join(path.value),
        (None, Some(repo), Some(file)) => cached(&table, cache, &repo, &file)?,
        (None, None, None) => {
            let remedy = match table.slip_of("path") {
                Some(slip) => format!("did you mean `path` where it says `{slip}`?"),
                None => "add path = \"model.gguf\"".to_owned(),
            };
            return Err(ConfigError::new(&key, "nothing says where the model is", remedy).at(Some(line)));
        }
        (Some(path), ..) => {
            let problem = "both a path and a repo or file";
            return Err(ConfigError::new(table.path("path"), problem, "keep `path`, or `repo` and `file`").at(Some(path.line)));
        }
        (None, Some(one), None) | (None, None, Some(one)) => {
            return Err(ConfigError::new(&key, "`repo` and `file` need each other", "name both, or a `path`").at(Some(one.line)));
        }
    };
    let mut spec = ModelSpec { name, ..ModelSpec::from_path(path) };
    spec.chat_template = table.take("chat_template")?.map(|found: Located<String>| models_dir.join(found.value));
    let context: Option<Located<Count>> = table.take("context")?;
    let min_context: Option<Located<Count>> = table.take("min_context")?;
    if let (Some(most), Some(least)) = (&context, &min_context)
        && least.value.0 > most.value.0
    {
        let problem = format!("{} is more than the context of {}", least.value.0, most.value.0);
        return Err(ConfigError::new(table.path("min_context"), problem, "lower min_context or raise context").at(Some(least.line)));
    }
    spec.context = context.map(|found| found.value.0);
    spec.min_context = min_context.map_or(spec.min_context, |found| found.value.0).min(spec.context.unwrap_or(u32::MAX));
    spec.parallel = table.value_or("parallel", Count(spec.parallel))?.0;
    spec.device = table.value_or("device", DeviceChoice::Auto)?;
    spec.kv_type = table.value_or("kv_type", spec.kv_type)?;
    spec.quantize = table.take("quantize")?.map(|found| found.value);
    spec.sampling = read_sampling(&mut table)?;
    let aliases = list(&mut table, "aliases", lines)?.unwrap_or_default();
    let entry = ModelEntry {
        aliases,
        fallbacks: list(&mut table, "fallbacks", lines)?,
        context_window_fallbacks: list(&mut table, "context_window_fallbacks", lines)?.unwrap_or_default(),
        keep_alive: table.take("keep_alive")?.map(|found| found.value),
        min_tokens_per_second: at_least_zero(&mut table, "min_tokens_per_second")?,
        embedding_space: table.take("embedding_space")?.map(|found| found.value),
        spec,
    };
    table.finish()?;
    Ok(entry)
}

fn cached(table: &Table<'_>, cache: &HfCache, repo: &Located<String>, file: &Located<String>) -> Result<std::path::PathBuf, ConfigError> {
    let plain = |text: &str| text.split('/').all(|part| !part.is_empty() && part != "." && part != "..") && !text.contains('\\');
    if repo.value.split('/').count() != 2 || !plain(&repo.value) {
        let problem = format!("`{}` is no repository", repo.value);
        return Err(ConfigError::new(table.path("repo"), problem, "write \"OWNER/NAME\"").at(Some(repo.line)));
    }
    if !plain(&file.value) {
        let problem = format!("`{}` is no file of a repository", file.value);
        return Err(ConfigError::new(table.path("file"), problem, "write the name as the repository lists it").at(Some(file.line)));
    }
    Ok(cache.resolve(&repo.value, &file.value))
}

fn read_sampling(table: &mut Table<'_>) -> Result<SamplingParams, ConfigError> {
    let take = |found: Option<Located<u32>>| found.map(|found| found.value);
    Ok(SamplingParams {
        temperature: at_least_zero(table, "temperature")?,
        top_k: take(table.take("top_k")?),
        top_p: share(table, "top_p")?,
        min_p: share(table, "min_p")?,
        repeat_penalty: at_least_zero(table, "repeat_penalty")?,
        frequency_penalty: table.take("frequency_penalty")?.map(|found| found.value),
        presence_penalty: table.take("presence_penalty")?.map(|found| found.value),
        penalty_last_n: take(table.take("penalty_last_n")?),
        seed: table.take("seed")?.map(|found| found.value),
        logit_bias: Vec::new(),
    })
}

fn at_least_zero(table: &mut Table<'_>, key: &'static str) -> Result<Option<f32>, ConfigError> {
    within(table, key, f32::MAX, "write a number that is not negative")
}

fn share(table: &mut Table<'_>, key: &'static str) -> Result<Option<f32>, ConfigError> {
    within(table, key, 1.0, "write a number from 0 to 1")
}

fn within(table: &mut Table<'_>, key: &'static str, most: f32, remedy: &str) -> Result<Option<f32>, ConfigError> {
    match table.take::<f32>(key)? {
        Some(found) if !(0.0..=most).contains(&found.value) => {
            let problem = format!("{} is out of range", found.value);
            Err(ConfigError::new(table.path(key), problem, remedy).at(Some(found.line)))
        }
        found => Ok(found.map(|found| found.value)),
    }
}

/// A list of names, whose lines are noted for later complaints.
fn list(table: &mut Table<'_>, key: &'static str, lines: &mut Lines) -> Result<Option<Vec<String>>, ConfigError> {
    let Some(names) = table.names(key)? else { return Ok(None) };
    for name in &names {
        lines.insert((table.path(key), name.value.clone()), name.line);
    }
    Ok(Some(names.into_iter().map(|name| name.value).collect()))
}
