//! From the command line to an engine: which models.toml, or which file without one, and what the flags replace in it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use downshift::{Config, Downshift, ModelEntry, ModelSpec, Settings};
use downshift_engine::Isa;
use downshift_scheduler::config::{self as places, Candidate};
use downshift_worker::{DeviceChoice, Faults, Subprocess};

use crate::args;

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
    /// Run models in this process, whatever models.toml says.
    pub in_process: bool,
}

/// The engine for `-m NAME|FILE`, or for no `-m`.
pub fn engine(model: Option<&str>, config: &args::Config, overrides: Overrides) -> Result<Setup> {
    let (model, settings, entries) = match model.filter(|model| is_file(model)) {
        Some(file) => (None, Settings::default(), vec![ModelEntry::new(ModelSpec::from_path(file))]),
        None => {
            let config = Config::from_file(&find(config)?)?;
            (model.map(str::to_owned), config.settings.clone(), config.models().to_vec())
        }
    };
    Faults::from_env()?;
    let mut builder = Downshift::builder();
    if settings.isolate && !overrides.in_process {
        builder =
            builder.launcher(Subprocess::this_program().context("worker processes cannot be started; try --in-process")?.arg("worker"));
    }
    for entry in entries {
        builder = builder.entry(ModelEntry { spec: overrides.apply(entry.spec.clone()), ..entry });
    }
    Ok(Setup { engine: builder.settings(settings).build()?, model })
}

/// The file of a model that is named by its path or by its entry in models.toml.
pub fn model_file(model: &str, config: &args::Config) -> Result<PathBuf> {
    if is_file(model) {
        return Ok(model.into());
    }
    let config = Config::from_file(&find(config)?)?;
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
    path.is_file()
        || in_a_folder
        || (model.ends_with(std::path::is_separator) && path.is_dir())
        || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

impl Overrides {
    fn apply(self, mut spec: ModelSpec) -> ModelSpec {
        if let Some(context) = self.context {
            spec.context = Some(context);
            spec.min_context = context;
        }
        spec.device = self.device.unwrap_or(spec.device);
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
