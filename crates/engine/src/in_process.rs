//! The engine behind the worker contract, on a thread of this process.
//!
//! The only place where an engine error becomes a [`Failure`]. Errors and panics are caught here; what kills a process (an
//! abort, SIGBUS from a file that was cut while mapped, the kernel's OOM killer) ends the host.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use downshift_worker::{
    Completion, DeviceMemory, Embedded, Failure, FailureKind, FinishReason, Input, Launcher, LoadProgress, ModelInfo, ModelSpec, Placement,
    Prompt, Request, RequestId, Sink, Stage, Stats, Worker,
};

use crate::answer::Answer;
use crate::batcher::{Batcher, Event, Job};
use crate::chat_template::{Limit, TemplateError};
use crate::embedder::{self, Embedder, FolderError, is_embedder};
use crate::engine::{LoadOptions, Model};
use crate::error::Error;
use crate::grammar;
use crate::healing::{Healed, heal};
use crate::output::Splitter;
use crate::prompt::{Prepared, PromptBuilder};
use crate::weights::GgufErrorClass;
use crate::{prompt_cache, sampling};

/// Launches models on threads of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcess;

impl Launcher for InProcess {
    fn inspect(&self, spec: &ModelSpec) -> Result<ModelInfo, Failure> {
        guarded(Stage::Load, || {
            if is_embedder(&spec.path) {
                let embedder = Embedder::open(spec)?;
                embedder.words()?;
                return Ok(embedder.info());
            }
            let model = Model::open(&spec.path)?;
            let prompts = model.prompts(spec.chat_template.as_deref())?;
            let mut info = model.info(spec.kv_type)?;
            info.has_chat_template = prompts.has_own_template();
            info.calls_tools = prompts.calls_tools();
            info.infills = prompts.infills();
            Ok(info)
        })
    }

    fn count(&self, spec: &ModelSpec, request: &Request) -> Result<usize, Failure> {
        if is_embedder(&spec.path) {
            let words = guarded(Stage::Load, || Embedder::open(spec)?.words())?;
            return match &request.input {
                Input::Completion(Prompt::Text(text)) => guarded(Stage::Admission, || Ok(words.text(text)?.len())),
                Input::Completion(Prompt::Tokens(ids)) => guarded(Stage::Admission, || Ok(words.framed(ids)?.len())),
                Input::Chat { .. } | Input::Infill { .. } => {
                    let message = format!("{} makes vectors and writes no text", spec.name);
                    Err(Failure::new(FailureKind::CannotDo, Stage::Admission, message))
                }
            };
        }
        let prompts = guarded(Stage::Load, || prompt_cache::prompts(&spec.path, spec.chat_template.as_deref()))?;
        guarded(Stage::Admission, || Ok(prompts.encode(&request.input)?.len()))
    }

    fn launch(&self, spec: &ModelSpec, placement: &Placement, progress: LoadProgress<'_>) -> Result<Arc<dyn Worker>, Failure> {
        guarded(Stage::Load, || {
            if is_embedder(&spec.path) {
                return embedder::launch(spec, placement, progress);
            }
            let model = Model::open(&spec.path)?;
            let prompts = model.prompts(spec.chat_template.as_deref())?;
            let options =
                LoadOptions { device: placement.device, context: placement.context, threads: placement.threads, kv_type: spec.kv_type };
            let session = model.load(&options, progress)?;
            let worker: Arc<dyn Worker> =
                Arc::new(ThreadWorker::start(spec, *placement, prompts, Batcher::new(session, spec.parallel as usize))?);
            Ok(worker)
        })
    }

    fn devices(&self) -> Vec<DeviceMemory> {
        crate::device::available()
    }
}

/// What the thread that steps is told.
enum Command {
    Submit(Box<Job>),
    Cancel(RequestId),
    SetThreads(usize),
}

/// A loaded model on its own thread.
struct ThreadWorker {
    prompts: PromptBuilder,
    /// Rows of logits; some files have more than tokens.
    n_vocab: usize,
    spec: ModelSpec,
    placement: Placement,
    ends: Arc<dyn Fn(u32) -> bool + Send + Sync>,
    commands: Mutex<Sender<Command>>,
    gauges: Arc<Gauges>,
}

/// What the stepping thread shows of itself.
#[derive(Default)]
struct Gauges {
    active_requests: AtomicUsize,
    used_positions: AtomicU32,
    steps: AtomicU64,
}

impl ThreadWorker {
    fn start(spec: &ModelSpec, placement: Placement, prompts: PromptBuilder, mut batcher: Batcher) -> Result<Self, Error> {
        let n_vocab = batcher.session().n_vocab();
        let (commands, inbox) = mpsc::channel();
        let gauges = Arc::<Gauges>::default();
        let shown = Arc::clone(&gauges);
        thread::Builder::new()
            .name(format!("model-{}", spec.name))
            .spawn(move || run(batcher, &inbox, &shown))
            .map_err(|source| Error::Read { path: "a new thread".into(), source })?;
        let end_ids = prompts.tokenizer().end_of_generation().to_vec();
        Ok(Self {
            prompts,
            n_vocab,
            spec: spec.clone(),
            placement,
            ends: Arc::new(move |id| end_ids.binary_search(&id).is_ok()),
            commands: Mutex::new(commands),
            gauges,
        })
    }

    fn tell(&self, command: Command) -> Result<(), Failure> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.send(command).map_err(|_| Failure::new(FailureKind::Panicked, Stage::Decode, "the model's thread has ended after a panic"))
    }

    /// Prepares the job and the consumer of its events.
    fn admit(&self, request: &Request, events: Sender<Event>) -> Result<(Job, Answer<'_>), Failure> {
        let Prepared { token_ids: prompt, thought } = guarded(Stage::Admission, || self.prompts.prepare(&request.input))?;
        let mut resumed = sampling::resumed_tokens(request, &self.prompts, thought);
        let needed = prompt.len() + resumed.len() + 1;
        let limit = self.placement.context as usize;
        if needed > limit {
            let message = format!("the prompt of {} tokens exceeds the available context size of {limit}", prompt.len() + resumed.len());
            let kind = FailureKind::PromptTooLong { needed: needed as u32, limit: limit as u32 };
            return Err(Failure::new(kind, Stage::Admission, message));
        }
        if prompt.is_empty() {
            return Err(Failure::new(FailureKind::InvalidRequest, Stage::Admission, "the prompt is empty"));
        }
        let (sampler, respelled_bytes) = guarded(Stage::Admission, || {
            let guide = sampling::guide(request, &self.prompts, thought, &resumed)?;
            let Healed { constraint, respelled_bytes } = heal(request, self.prompts.tokenizer(), &prompt, &mut resumed, guide);
            let sampler = sampling::sampler(request, &self.spec.sampling, self.n_vocab, &prompt, &resumed, constraint)?;
            Ok((sampler, respelled_bytes))
        })?;
        let answer = guarded(Stage::Admission, || {
            let splitter = match &request.input {
                Input::Chat { .. } => {
                    let tools = grammar::offered(&request.input).into_iter().map(|tool| tool.name).collect();
                    Splitter::new(self.prompts.dialect(), thought, tools)
                }
                Input::Completion(_) | Input::Infill { .. } => Splitter::default(),
            };
            Ok(Answer::new(&self.prompts, splitter, request, &prompt, &resumed)?.respelling(respelled_bytes))
        })?;
        let job = Job {
            id: request.id,
            n_resumed: resumed.len(),
            token_ids: [prompt, resumed].concat(),
            sampler,
            max_tokens: request.max_tokens.map_or(usize::MAX, |n| n as usize),
            is_end: Arc::clone(&self.ends),
            logprobs: request.logprobs.map(usize::from),
            prompt_logprobs: request.prompt_logprobs.filter(|_| request.resume.is_none()).map(usize::from),
            events,
        };
        Ok((job, answer))
    }
}

impl Worker for ThreadWorker {
    fn generate(&self, request: &Request, sink: &mut dyn Sink) -> Result<Completion, Failure> {
        let (events, inbox) = mpsc::channel();
        let (job, mut answer) = self.admit(request, events)?;
        // A prompt whose tokens are told is computed, whatever the answer.
        let is_told = job.prompt_logprobs.is_some();
        if request.max_tokens == Some(0) && !is_told {
            return Ok(answer.finish(FinishReason::Length));
        }
        if job.sampler.is_complete()
            && !is_told
            && let Some(completion) = answer.end(FinishReason::Stop, sink)?
        {
            return Ok(completion);
        }
        self.tell(Command::Submit(Box::new(job)))?;
        loop {
            let stage = answer.stage();
            let outcome = match inbox.recv() {
                Ok(Event::Prompt(tokens)) => answer.prompt(tokens, sink),
                Ok(Event::Last(logprob)) => answer.last(logprob, sink),
                Ok(Event::Prefilled { n_cached }) => answer.prefilled(n_cached),
                Ok(Event::Token { id, logprob, at }) => answer.token(id, logprob, at, sink),
                Ok(Event::End(Ok(reason))) => answer.end(reason, sink),
                Ok(Event::End(Err(error))) => Err(failure(&error, stage)),
                Err(_) => Err(Failure::new(FailureKind::Panicked, stage, "the model's thread panicked")),
            };
            match outcome {
                Ok(None) => {}
                Ok(Some(completion)) => {
                    self.cancel(request.id);
                    return Ok(completion);
                }
                Err(failure) => {
                    self.cancel(request.id);
                    return Err(failure);
                }
            }
        }
    }

    fn embed(&self, _inputs: &[Prompt]) -> Result<Embedded, Failure> {
        Err(Failure::new(FailureKind::CannotDo, Stage::Admission, format!("{} generates text and makes no embeddings", self.spec.name)))
    }

    fn tokenize(&self, text: &str, special: bool) -> Result<Vec<u32>, Failure> {
        guarded(Stage::Admission, || Ok(self.prompts.tokenize(text, special)))
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String, Failure> {
        guarded(Stage::Admission, || self.prompts.detokenize(ids))
    }

    fn apply_template(&self, input: &Input) -> Result<String, Failure> {
        guarded(Stage::Admission, || self.prompts.render(input))
    }

    fn cancel(&self, id: RequestId) {
        // A thread that is gone has nothing left to cancel.
        let _ = self.tell(Command::Cancel(id));
    }

    fn set_threads(&self, threads: usize) {
        // As in `cancel`.
        let _ = self.tell(Command::SetThreads(threads));
    }

    fn stats(&self) -> Stats {
        Stats {
            device: self.placement.device,
            context: self.placement.context,
            active_requests: self.gauges.active_requests.load(Ordering::Relaxed),
            used_positions: self.gauges.used_positions.load(Ordering::Relaxed),
            steps: self.gauges.steps.load(Ordering::Relaxed),
        }
    }
}

/// The stepping thread: takes what waits in the inbox, steps, and sleeps only when there is nothing to step. It ends when the
/// worker is dropped, or with a panic, which closes every request's channel.
fn run(mut batcher: Batcher, inbox: &Receiver<Command>, gauges: &Gauges) {
    loop {
        let command = match batcher.is_empty() {
            true => match inbox.recv() {
                Ok(command) => Some(command),
                Err(_) => return,
            },
            false => match inbox.try_recv() {
                Ok(command) => Some(command),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return,
            },
        };
        match command {
            Some(Command::Submit(job)) => batcher.submit(*job),
            Some(Command::Cancel(id)) => batcher.cancel(id),
            Some(Command::SetThreads(threads)) => batcher.session().set_threads(threads),
            None => {
                batcher.step();
                gauges.steps.fetch_add(1, Ordering::Relaxed);
            }
        }
        gauges.active_requests.store(batcher.len(), Ordering::Relaxed);
        gauges.used_positions.store(batcher.session().used_positions() as u32, Ordering::Relaxed);
    }
}

/// Runs what may fail or panic, and names the failure.
pub(crate) fn guarded<T>(stage: Stage, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|error| failure(&error, stage)),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
            let message = format!("the engine panicked: {}", said.unwrap_or_else(|| "no message".into()));
            Err(Failure::new(FailureKind::Panicked, stage, message))
        }
    }
}

fn failure(error: &Error, stage: Stage) -> Failure {
    let kind = match error {
        Error::Gguf(error) => match error.class() {
            GgufErrorClass::Missing => FailureKind::Missing,
            GgufErrorClass::Unreadable => FailureKind::Unreadable,
            GgufErrorClass::Truncated | GgufErrorClass::BrokenSplit => FailureKind::Truncated,
            GgufErrorClass::NotGguf | GgufErrorClass::Corrupt | GgufErrorClass::Invalid => FailureKind::Corrupt,
            GgufErrorClass::UnsupportedVersion | GgufErrorClass::UnsupportedType => FailureKind::UnsupportedType,
        },
        Error::UnsupportedArchitecture { .. } => FailureKind::UnsupportedArchitecture,
        Error::Key { .. } | Error::Tensor { .. } => FailureKind::Corrupt,
        Error::UnsupportedType { .. } => FailureKind::UnsupportedType,
        Error::Tokenizer(_) => FailureKind::BrokenTokenizer,
        Error::Template(TemplateError::Limit { limit: Limit::Input }) if stage != Stage::Load => FailureKind::InvalidRequest,
        // It was rendered once at load, so the template is sound; another model's may take the conversation that it does not.
        Error::Template(_) if stage != Stage::Load => FailureKind::CannotDo,
        Error::Content { .. } => FailureKind::CannotDo,
        Error::Template(_) => FailureKind::BrokenTemplate,
        Error::Folder(error) => match error {
            FolderError::Unreadable { .. } => FailureKind::Unreadable,
            FolderError::Truncated { .. } => FailureKind::Truncated,
            FolderError::Corrupt { .. } => FailureKind::Corrupt,
            FolderError::Unsupported { .. } => FailureKind::UnsupportedArchitecture,
            FolderError::ElementType { .. } => FailureKind::UnsupportedType,
            FolderError::Tokenizer { .. } => FailureKind::BrokenTokenizer,
        },
        Error::InputTooLong { needed, limit } => FailureKind::PromptTooLong { needed: *needed as u32, limit: *limit as u32 },
        Error::EmptyInput | Error::Unreadable(_) => FailureKind::InvalidRequest,
        Error::NonFiniteVector => FailureKind::NonFinite,
        Error::Read { .. } => FailureKind::Unreadable,
        Error::OutOfMemory { .. } => FailureKind::OutOfMemory,
        Error::ContextFull { positions } => FailureKind::PromptTooLong { needed: *positions as u32 + 1, limit: *positions as u32 },
        Error::NonFinite { .. } => FailureKind::NonFinite,
        Error::TokenId { .. } | Error::Sampling(_) | Error::Format { .. } => FailureKind::InvalidRequest,
        Error::Constraint(error) if error.is_too_complex => FailureKind::InvalidRequest,
        Error::CannotDo { .. } | Error::Constraint(_) => FailureKind::CannotDo,
        Error::DeviceUnavailable { .. } | Error::Candle(_) => FailureKind::Device,
    };
    Failure::new(kind, stage, error.to_string())
}
