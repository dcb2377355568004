//! From the command line to an engine: which models.toml, or which file without one, and what the flags replace in it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use downshift::{Config, Downshift, ModelEntry, ModelSpec, Settings};
use downshift_engine::Isa;
use downshift_scheduler::config::{self as places, Candidate};
use downshift_worker::{DeviceChoice, Faults, Subprocess};

use crate::{args, log};

/// The models to ask, and the one that a request names; `None` leaves that to models.toml.
pub struct Setup {
    pub engine: Downshift,
    pub model: Option<String>,
}

/// What flags replace in models.toml, for every model.
#[derive(Clone, Copy, Default)]
pub struct Overrides {
    pub context: Option<u32>,
    pub device: Option<DeviceChoice>,
    /// Requests that each model answers side by side.
    pub parallel: Option<u32>,
    /// Run models in this process, whatever models.toml says.
    pub in_process: bool,
}

/// The engine for `-m NAME|FILE`, or for no `-m`.
pub fn engine(model: Option<&str>, config: &args::Config, overrides: Overrides) -> Result<Setup> {
    let (model, settings, entries) = match model.filter(|model| is_file(model)) {
        Some(file) => (None, Settings::default(), vec![ModelEntry::new(ModelSpec::from_path(file))]),
        None => {
            let config = Config::from_file(&find_for(model, config)?)?;
            (model.map(str::to_owned), config.settings.clone(), config.models().to_vec())
        }
    };
    Faults::from_env()?;
    let mut builder = Downshift::builder();
    if settings.isolate && !overrides.in_process {
        let program = Subprocess::this_program().context("worker processes cannot be started; try --in-process")?;
        builder = builder.launcher(program.arg("worker").env(log::VARIABLE, log::level()));
    }
    for entry in entries {
        builder = builder.entry(ModelEntry { spec: overrides.apply(entry.spec.clone()), ..entry });
    }
    Ok(Setup { engine: builder.settings(settings).build()?, model })
}

/// A model and the one that answers in its place.
pub struct Chain {
    pub settings: Settings,
    pub first: ModelEntry,
    pub next: Option<ModelEntry>,
}

/// The first two models of the chain of `-m NAME|FILE`, or of the default model.
pub fn chain(model: Option<&str>, config: &args::Config) -> Result<Chain> {
    if let Some(file) = model.filter(|model| is_file(model)) {
        return Ok(Chain { settings: Settings::default(), first: ModelEntry::new(ModelSpec::from_path(file)), next: None });
    }
    let config = Config::from_file(&find(config)?)?;
    let index = match model {
        Some(name) => config.index_of(name).ok_or_else(|| no_such_model(name, &config))?,
        None => config.default_index(),
    };
    let entry = |index: &usize| config.models()[*index].clone();
    let chain = config.chain(index);
    Ok(Chain { settings: config.settings.clone(), first: entry(&index), next: chain.get(1).map(entry) })
}

/// The file of a model that is named by its path or by its entry in models.toml.
pub fn model_file(model: &str, config: &args::Config) -> Result<PathBuf> {
    if is_file(model) {
        return Ok(model.into());
    }
    let config = Config::from_file(&find_for(Some(model), config)?)?;
    let index = config.index_of(model).ok_or_else(|| no_such_model(model, &config))?;
    Ok(config.models()[index].spec.path.clone())
}

/// The error that names the models there are.
pub fn no_such_model(model: &str, config: &Config) -> anyhow::Error {
    let names: Vec<&str> = config.models().iter().map(ModelEntry::name).collect();
    anyhow::anyhow!("`{model}` is neither a file nor a model of models.toml, which has {}", names.join(", "))
}

/// The models.toml that is used.
///
/// # Errors
/// There is none.
pub fn find(config: &args::Config) -> Result<PathBuf> {
    let candidates = candidates(config)?;
    if let Some(found) = places::locate(&candidates)? {
        return Ok(found.path.clone());
    }
    let places: Vec<String> = candidates.iter().map(|place| place.path.display().to_string()).collect();
    bail!(
        "there is no models.toml (looked for {}); name a GGUF file with -m FILE, or write one:\n\n[models.chat]\npath = \"model.gguf\"",
        places.join(" and ")
    )
}

/// As [`find`], for a name that is no file's.
fn find_for(model: Option<&str>, config: &args::Config) -> Result<PathBuf> {
    let found = find(config);
    match model {
        Some(model) => found.with_context(|| format!("there is no file `{model}`")),
        None => found,
    }
}

/// The places where models.toml is looked for.
pub fn candidates(config: &args::Config) -> Result<Vec<Candidate>> {
    let current = env::current_dir().context("the current folder is gone")?;
    let user_folder = places::user_config_folder(|name| env::var_os(name));
    Ok(places::candidates(config.config.as_deref(), env::var_os("DOWNSHIFT_CONFIG"), &current, user_folder.as_deref()))
}

/// Whether a model is named by its path rather than by its entry.
fn is_file(model: &str) -> bool {
    let path = Path::new(model);
    let in_a_folder = path.components().count() > 1 && path.exists();
    let is_path = path.is_absolute() || ["./", "../", "~/"].iter().any(|start| model.starts_with(start)) || matches!(model, "." | "..");
    let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    path.is_file() || in_a_folder || is_path || is_gguf || (model.ends_with(std::path::is_separator) && path.is_dir())
}

impl Overrides {
    fn apply(self, mut spec: ModelSpec) -> ModelSpec {
        if let Some(context) = self.context {
            spec.context = Some(context);
            spec.min_context = context;
        }
        spec.device = self.device.unwrap_or(spec.device);
        spec.parallel = self.parallel.unwrap_or(spec.parallel);
        spec
    }
}

/// An instruction set that does not exist must not be taken for another.
///
/// # Errors
/// `DOWNSHIFT_ISA` names none of this machine.
pub fn check_isa() -> Result<()> {
    let Some(name) = env::var_os("DOWNSHIFT_ISA") else { return Ok(()) };
    if name.to_str().is_some_and(|name| Isa::named(name).is_some()) {
        return Ok(());
    }
    let known: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
    bail!("DOWNSHIFT_ISA is `{}`, and this machine has {}", name.display(), known.join(", "))
}
