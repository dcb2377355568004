//! The contract between what chooses a model and what runs it: request in, tokens out.
//!
//! Owns the plain types that cross the boundary and the two traits, [`Launcher`] and [`Worker`]. A thread in this process
//! and a child process look the same behind them, and the scheduler is tested with fakes of them. Owns the child process too:
//! [`Subprocess`] is the parent's side of the pipe and [`serve`] the child's, whatever launcher runs there.
//! Does not own models (the engine implements the traits) or decisions (the scheduler consumes them).

mod failure;
mod fault;
mod output;
mod platform;
mod request;
mod serve;
mod spec;
mod subprocess;
mod wire;

pub use failure::{Failure, FailureKind, Stage};
pub use fault::{FaultError, Faults, Faulty};
pub use output::{Completion, Delta, Embedded, FinishReason, PromptToken, Timings, TokenLogprob, ToolCallDelta, Usage};
pub use request::{Input, Message, Prompt, Request, RequestId, ResponseFormat, Resume, Role, SamplingParams, ToolChoice};
pub use serve::serve;
pub use spec::{
    Device, DeviceChoice, DeviceMemory, Footprint, KvType, ModelInfo, ModelKind, ModelSpec, Placement, Quantize, UnknownDevice,
};
pub use subprocess::Subprocess;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Receives what one request produces, in order, on the thread that called [`Worker::generate`].
///
/// `Break` means that the client has left: the worker stops within one token and returns [`FailureKind::Cancelled`].
pub trait Sink: Send {
    /// Takes one piece of the answer.
    fn send(&mut self, delta: Delta) -> ControlFlow<()>;
}

impl<F: FnMut(Delta) -> ControlFlow<()> + Send> Sink for F {
    fn send(&mut self, delta: Delta) -> ControlFlow<()> {
        self(delta)
    }
}

/// Told while a model loads: bytes of weights made resident so far, and in all. Every call counts as progress.
pub type LoadProgress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Looks at models and starts workers for them.
pub trait Launcher: Send + Sync {
    /// Reads the header of a model without loading it: what it is and what it would need.
    ///
    /// # Errors
    /// A load failure that is known before loading: missing, truncated, unsupported, a broken tokenizer or template.
    fn inspect(&self, spec: &ModelSpec) -> Result<ModelInfo, Failure>;

    /// Counts the prompt tokens of `request` with the model's own template and tokenizer, without loading its weights.
    ///
    /// # Errors
    /// As [`Launcher::inspect`]; and [`FailureKind::CannotDo`] where the template refuses the messages.
    fn count(&self, spec: &ModelSpec, request: &Request) -> Result<usize, Failure>;

    /// Loads the model where `placement` says and returns once it can answer.
    ///
    /// # Errors
    /// Any load or memory failure, with [`Stage::Load`].
    fn launch(&self, spec: &ModelSpec, placement: &Placement, progress: LoadProgress<'_>) -> Result<Arc<dyn Worker>, Failure>;

    /// Gives up a launch of the model named `model` that makes no progress: a child process is killed, a thread is left behind.
    fn abort(&self, _model: &str) {}

    /// The devices models may run on, best first, with their memory where it is not the host's.
    fn devices(&self) -> Vec<DeviceMemory> {
        vec![DeviceMemory { device: Device::Cpu, own_bytes: None }]
    }
}

/// One loaded model. Methods may be called from several threads; requests run side by side and are told apart by their ids.
pub trait Worker: Send + Sync {
    /// Answers `request`, pushing text into `sink` as it is produced; returns when the answer has ended.
    ///
    /// # Errors
    /// The caller's fault ([`FailureKind::PromptTooLong`], [`FailureKind::InvalidRequest`], [`FailureKind::Cancelled`]) or
    /// what went wrong while generating. What was already sent stays sent.
    fn generate(&self, request: &Request, sink: &mut dyn Sink) -> Result<Completion, Failure>;

    /// Vectors of `inputs`, in order, pooled and normalized as the model says.
    ///
    /// # Errors
    /// [`FailureKind::CannotDo`] where the model is no embedder; [`FailureKind::PromptTooLong`] and
    /// [`FailureKind::InvalidRequest`] for an input that it cannot read.
    fn embed(&self, inputs: &[Prompt]) -> Result<Embedded, Failure>;

    /// Token ids of `text`; with `special`, spellings of special tokens become those tokens.
    ///
    /// # Errors
    /// Only where the worker itself fails.
    fn tokenize(&self, text: &str, special: bool) -> Result<Vec<u32>, Failure>;

    /// The text of `ids`; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`FailureKind::InvalidRequest`] for an id outside the vocabulary.
    fn detokenize(&self, ids: &[u32]) -> Result<String, Failure>;

    /// The prompt text that the model's template makes of a conversation.
    ///
    /// # Errors
    /// [`FailureKind::CannotDo`] where the template refuses the messages.
    fn apply_template(&self, input: &Input) -> Result<String, Failure>;

    /// Ends the request with this id, wherever it is; unknown ids are ignored.
    fn cancel(&self, id: RequestId);

    /// Ends the worker and all its requests now, because it hangs or is no longer trusted: a child process is killed, a thread
    /// is told to cancel everything and is left behind.
    fn kill(&self) {}

    /// How many cores this worker may use from its next step on; at least one is used.
    fn set_threads(&self, threads: usize);

    /// What the worker was placed on and how busy it is.
    fn stats(&self) -> Stats;

    /// What the worker's own process has resident now; `None` for a thread, whose memory is the host's.
    fn resident(&self) -> Option<ResidentMemory> {
        None
    }
}

/// Resident memory of one process, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ResidentMemory {
    /// Memory of its own: KV pool, scratch, tokenizer.
    pub anon_bytes: u64,
    /// Mapped files: the weights.
    pub file_bytes: u64,
}

/// A snapshot of one worker.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// Where the model runs.
    pub device: Device,
    /// Positions of its KV pool.
    pub context: u32,
    /// Requests that are running now.
    pub active_requests: usize,
    /// Positions of the KV pool that are in use.
    pub used_positions: u32,
    /// Steps (forward passes) made so far: the heartbeat.
    pub steps: u64,
}

/// A lock whose data stays usable after a panic elsewhere: every critical section leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the worker panicked: {}", text.unwrap_or("without a message"))
}
