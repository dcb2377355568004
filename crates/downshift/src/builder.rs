//! Builds an engine from code instead of a models.toml.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use downshift_scheduler::config::{ModelEntry, Settings};
use downshift_scheduler::{Config, ConfigError, Scheduler};
use downshift_worker::{Faulty, Launcher, ModelSpec, Subprocess};

use crate::{Downshift, Error};

/// An engine in the making: models in the order they are tried, settings, and what runs them.
///
/// ```
/// use downshift::{Downshift, ModelEntry, ModelSpec, Settings, testing::Scripted};
/// let mut entry = ModelEntry::new(ModelSpec { context: Some(16384), ..ModelSpec::from_path("models/big.gguf") });
/// entry.aliases = vec!["gpt-4o".to_owned()];
/// let engine = Downshift::builder()
///     .entry(entry)
///     .model("small", "models/small.gguf")
///     .settings(Settings { num_retries: 0, ..Settings::default() })
///     .launcher(Scripted::new())
///     .build()?;
/// assert_eq!(engine.config().models()[0].name(), "big");
/// # Ok::<(), downshift::Error>(())
/// ```
#[derive(Default)]
pub struct Builder {
    settings: Settings,
    models: Vec<ModelEntry>,
    worker_program: Option<PathBuf>,
    launcher: Option<Arc<dyn Launcher>>,
}

impl Builder {
    /// Starts from the models and settings of a models.toml.
    ///
    /// # Errors
    /// As [`Downshift::from_file`].
    pub fn file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let config = Config::from_file(path.as_ref())?;
        Ok(Self { settings: config.settings.clone(), models: config.models().to_vec(), ..Self::default() })
    }

    /// Adds a model with every option at its default.
    pub fn model(self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.entry(ModelEntry::new(ModelSpec { name: name.into(), ..ModelSpec::from_path(path) }))
    }

    /// Adds a model.
    pub fn entry(mut self, entry: ModelEntry) -> Self {
        self.models.push(entry);
        self
    }

    /// Replaces all settings.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// What runs the models, whatever the settings say; by default the engine on threads of this process.
    pub fn launcher(mut self, launcher: impl Launcher + 'static) -> Self {
        self.launcher = Some(Arc::new(launcher));
        self
    }

    /// Runs each model in a child process: `program worker`, where `program` is the `downshift` command of this very version. What
    /// kills a model then kills no host. Only the host knows where that program is, so without this call models run in process;
    /// with it they do where `isolate = false` is set.
    ///
    /// ```no_run
    /// let engine = downshift::Builder::file("models.toml")?.worker_program("/usr/local/bin/downshift").build()?;
    /// # Ok::<(), downshift::Error>(())
    /// ```
    pub fn worker_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.worker_program = Some(program.into());
        self
    }

    /// The engine. Nothing is loaded before it is asked for.
    ///
    /// # Errors
    /// There is no model, two have one name, or a list names one that does not exist.
    pub fn build(self) -> Result<Downshift, Error> {
        let config = Config::new(self.settings, self.models)?;
        let worker_program = self.worker_program.filter(|_| config.settings.isolate);
        let launcher = match (self.launcher, worker_program) {
            (Some(launcher), _) => launcher,
            (None, Some(program)) => Arc::new(Subprocess::new(program).arg("worker")),
            (None, None) => in_process()?,
        };
        Ok(Downshift::with_scheduler(Scheduler::new(config, launcher)))
    }
}

/// Runs models on threads of this process; they fail on purpose if the environment says so.
pub(crate) fn in_process() -> Result<Arc<dyn Launcher>, Error> {
    let engine = downshift_engine::InProcess;
    let faulty = Faulty::from_env(engine).map_err(|error| ConfigError::new("", error.to_string(), "correct or unset the variable"))?;
    Ok(Arc::new(faulty))
}
