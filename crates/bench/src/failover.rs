//! How long an answer pauses when its worker is killed, or when a load fails: from that moment to the next token that is shown.
//!
//! Each run has an engine of its own, whose models are in processes of their own; files are in the page cache, as they are for
//! models in use. Measures through the library, as a program sees it. Does not own what is done about a failure.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use downshift::worker::{
    self, DeviceMemory, Embedded, Failure, Input, Launcher, LoadProgress, ModelInfo, ModelSpec, Placement, Prompt, Request, RequestId,
    ResidentMemory, Sink, Stats, Subprocess, Worker,
};
use downshift::{Chat, Downshift, KeepAlive, ModelEntry, OnStreamFailure, Settings};

/// Most answers begun for one sample: a small model may have said all before its worker is killed.
const MAX_TRIES: usize = 20;
/// A question with a long answer, for the demo models as for others.
const QUESTION: &str = "Count from 5 to 15.";
const MAX_TOKENS: u32 = 64;

/// What goes wrong, and who goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// The worker is killed mid-stream; the same model is loaded again.
    SameModel,
    /// The worker is killed mid-stream; the next model is loaded already.
    NextLoaded,
    /// The worker is killed mid-stream; the next model was never looked at.
    NextUnloaded,
    /// The first model dies while it loads; the next one was never looked at.
    FailedLoad,
}

impl Case {
    /// A few words for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::SameModel => "killed, same model",
            Self::NextLoaded => "killed, next model loaded",
            Self::NextUnloaded => "killed, next model not loaded",
            Self::FailedLoad => "failed load, next model",
        }
    }
}

/// A pair of models and how they are run.
pub struct Failover<'a> {
    /// The settings of models.toml; those that decide who goes on are replaced.
    pub settings: Settings,
    /// The model that fails.
    pub first: ModelEntry,
    /// The model after it, where there is one.
    pub next: Option<ModelEntry>,
    /// Starts worker processes.
    pub workers: &'a dyn Fn() -> Subprocess,
}

/// The samples of one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Pauses {
    /// What went wrong.
    pub case: Case,
    /// The model that failed.
    pub from: String,
    /// The model that went on.
    pub to: String,
    /// One a run.
    pub samples: Vec<Pause>,
}

/// One pause, and what it was spent on. What is left of it are threads that wake each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// From the failure to the next token shown.
    pub total: Duration,
    /// Until the failure was known.
    pub noticed: Duration,
    /// Reading the header of the model that goes on, in a process.
    pub inspect: Duration,
    /// Counting the prompt for it, in a process.
    pub count: Duration,
    /// Starting its process and loading it.
    pub load: Duration,
    /// From its request to its first token.
    pub prefill: Duration,
}

/// Why there is no figure.
#[derive(Debug)]
pub enum FailoverError {
    /// The models do not answer even undisturbed.
    Engine(downshift::Error),
    /// Its answers are too short to be disturbed.
    Unbroken {
        /// The model.
        model: String,
    },
}

impl fmt::Display for FailoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Unbroken { model } => write!(f, "the answers of `{model}` end before its worker can be killed"),
        }
    }
}

impl std::error::Error for FailoverError {}

impl From<downshift::Error> for FailoverError {
    fn from(error: downshift::Error) -> Self {
        Self::Engine(error)
    }
}

impl Failover<'_> {
    /// The cases that these models allow.
    pub fn cases(&self) -> Vec<Case> {
        let all = [Case::SameModel, Case::NextLoaded, Case::NextUnloaded, Case::FailedLoad];
        all.into_iter().filter(|case| *case == Case::SameModel || self.next.is_some()).collect()
    }

    /// Measures `case` so many times; `progress` is told the number of each run before it starts.
    ///
    /// # Errors
    /// The models do not answer, or not long enough.
    pub fn run(&self, case: Case, runs: usize, progress: &mut dyn FnMut(usize)) -> Result<Pauses, FailoverError> {
        let mut samples = Vec::with_capacity(runs);
        for run in 1..=runs {
            progress(run);
            samples.push(self.sample(case)?);
        }
        let from = self.first.name().to_owned();
        let to = self.next.as_ref().filter(|_| case != Case::SameModel).map_or_else(|| from.clone(), |next| next.name().to_owned());
        Ok(Pauses { case, from, to, samples })
    }

    fn sample(&self, case: Case) -> Result<Pause, FailoverError> {
        for _ in 0..MAX_TRIES {
            let log = Arc::<Log>::default();
            let engine = self.engine(case, &log)?;
            if case == Case::NextLoaded
                && let Some(next) = &self.next
            {
                let loaded = engine.scheduler().with_worker(next.name(), |_| ());
                loaded.map_err(|failure| downshift::Error::Refused(refused(next.name(), failure)))?;
            }
            if let Some(pause) = pause(&engine, &log, case)? {
                return Ok(pause);
            }
        }
        Err(FailoverError::Unbroken { model: self.first.name().to_owned() })
    }

    fn engine(&self, case: Case, log: &Arc<Log>) -> Result<Downshift, downshift::Error> {
        let settings = Settings {
            num_retries: u32::from(case == Case::SameModel),
            default_model: Some(self.first.name().to_owned()),
            default_fallbacks: None,
            keep_alive: KeepAlive::Forever,
            on_stream_failure: OnStreamFailure::Continue,
            ..self.settings.clone()
        };
        let mut workers = (self.workers)();
        if case == Case::FailedLoad {
            workers = workers.env("DOWNSHIFT_FAULT", format!("{}@load:abort!", self.first.name()));
        }
        let entries = std::iter::once(&self.first).chain(self.next.as_ref().filter(|_| case != Case::SameModel));
        let plain = |entry: &ModelEntry| ModelEntry {
            fallbacks: None,
            context_window_fallbacks: Vec::new(),
            keep_alive: None,
            aliases: Vec::new(),
            ..entry.clone()
        };
        let builder = Downshift::builder().settings(settings).launcher(Watched { inner: workers, log: Arc::clone(log) });
        entries.fold(builder, |builder, entry| builder.entry(plain(entry))).build()
    }
}

/// Asks once; `None` where the answer was whole before it could be disturbed.
fn pause(engine: &Downshift, log: &Log, case: Case) -> Result<Option<Pause>, downshift::Error> {
    let mut resumed = None;
    let question = Chat::from(QUESTION).temperature(0.0).max_tokens(MAX_TOKENS);
    let outcome = engine.chat_with(question, |piece| {
        if piece.text.is_empty() {
            return ControlFlow::Continue(());
        }
        if piece.continued.is_some() || case == Case::FailedLoad {
            resumed = Some(Instant::now());
            return ControlFlow::Break(());
        }
        log.kill_once(&piece.model);
        ControlFlow::Continue(())
    });
    match (resumed, log.failed_at()) {
        (Some(resumed), Some(failed)) => Ok(Some(log.pause(failed, resumed))),
        _ => outcome.map(|_| None),
    }
}

fn refused(model: &str, failure: Failure) -> downshift::Refused {
    downshift::Refused { requested: model.to_owned(), failure, attempts: Vec::new(), shown: false, retry_after: None }
}

/// What the calls of one run took.
#[derive(Default)]
struct Log(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    workers: HashMap<String, Weak<dyn Worker>>,
    /// When a worker was killed, or a load failed.
    failed: Option<Instant>,
    /// When that was known.
    noticed: Option<Instant>,
    calls: Vec<(Step, Instant, Instant)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Inspect,
    Count,
    Load,
    Prefill,
}

impl Log {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timed<T>(&self, step: Step, call: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = call();
        self.entries().calls.push((step, began, Instant::now()));
        result
    }

    fn failed_at(&self) -> Option<Instant> {
        self.entries().failed
    }

    /// Kills the worker of this model, the first time.
    fn kill_once(&self, model: &str) {
        let worker = {
            let mut entries = self.entries();
            let worker = entries.workers.get(model).and_then(Weak::upgrade);
            match (&worker, entries.failed) {
                (Some(_), None) => entries.failed = Some(Instant::now()),
                _ => return,
            }
            worker
        };
        if let Some(worker) = worker {
            worker.kill();
        }
    }

    fn pause(&self, failed: Instant, resumed: Instant) -> Pause {
        let entries = self.entries();
        let took = |step: Step| {
            let after = entries.calls.iter().filter(|(of, began, _)| *of == step && *began >= failed);
            after.map(|(_, began, ended)| *ended - *began).sum()
        };
        Pause {
            total: resumed - failed,
            noticed: entries.noticed.map_or(Duration::ZERO, |noticed| noticed.saturating_duration_since(failed)),
            inspect: took(Step::Inspect),
            count: took(Step::Count),
            load: took(Step::Load),
            prefill: took(Step::Prefill),
        }
    }
}

/// A launcher that is watched.
struct Watched {
    inner: Subprocess,
    log: Arc<Log>,
}

impl Launcher for Watched {
    fn inspect(&self, spec: &ModelSpec) -> Result<ModelInfo, Failure> {
        self.log.timed(Step::Inspect, || self.inner.inspect(spec))
    }

    fn count(&self, spec: &ModelSpec, request: &Request) -> Result<usize, Failure> {
        self.log.timed(Step::Count, || self.inner.count(spec, request))
    }

    fn launch(&self, spec: &ModelSpec, placement: &Placement, progress: LoadProgress<'_>) -> Result<Arc<dyn Worker>, Failure> {
        let launched = self.log.timed(Step::Load, || self.inner.launch(spec, placement, progress));
        let mut entries = self.log.entries();
        match launched {
            Ok(inner) => {
                let worker: Arc<dyn Worker> = Arc::new(WatchedWorker { inner, log: Arc::clone(&self.log) });
                entries.workers.insert(spec.name.clone(), Arc::downgrade(&worker));
                Ok(worker)
            }
            Err(failure) => {
                let now = Instant::now();
                entries.failed.get_or_insert(now);
                entries.noticed.get_or_insert(now);
                Err(failure)
            }
        }
    }

    fn abort(&self, model: &str) {
        self.inner.abort(model);
    }

    fn devices(&self) -> Vec<DeviceMemory> {
        self.inner.devices()
    }
}

struct WatchedWorker {
    inner: Arc<dyn Worker>,
    log: Arc<Log>,
}

impl Worker for WatchedWorker {
    fn generate(&self, request: &Request, sink: &mut dyn Sink) -> Result<worker::Completion, Failure> {
        let began = Instant::now();
        let mut first = true;
        let mut sink = |delta| {
            if std::mem::take(&mut first) {
                self.log.entries().calls.push((Step::Prefill, began, Instant::now()));
            }
            sink.send(delta)
        };
        let outcome = self.inner.generate(request, &mut sink);
        if outcome.is_err() {
            self.log.entries().noticed.get_or_insert_with(Instant::now);
        }
        outcome
    }

    fn embed(&self, inputs: &[Prompt]) -> Result<Embedded, Failure> {
        self.inner.embed(inputs)
    }

    fn tokenize(&self, text: &str, special: bool) -> Result<Vec<u32>, Failure> {
        self.inner.tokenize(text, special)
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String, Failure> {
        self.inner.detokenize(ids)
    }

    fn apply_template(&self, input: &Input) -> Result<String, Failure> {
        self.inner.apply_template(input)
    }

    fn cancel(&self, id: RequestId) {
        self.inner.cancel(id);
    }

    fn kill(&self) {
        self.inner.kill();
    }

    fn set_threads(&self, threads: usize) {
        self.inner.set_threads(threads);
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }

    fn resident(&self) -> Option<ResidentMemory> {
        self.inner.resident()
    }
}
