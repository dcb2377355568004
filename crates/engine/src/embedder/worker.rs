//! An embedder behind the worker contract.
//!
//! Everything candle computes runs on threads that this worker owns: candle sets up a core's matrix tiles once for each thread, as
//! our kernels do, and the two must not share one. Texts are computed in batches of bounded size, one batch at a time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use downshift_worker::{
    Completion, Embedded, Failure, FailureKind, Input, LoadProgress, ModelSpec, Placement, Prompt, Request, RequestId, Sink, Stage, Stats,
    Worker,
};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::Embedder;
use super::encoder::Encoder;
use super::words::Words;
use crate::error::Error;
use crate::in_process::guarded;

/// A loaded embedder.
struct EmbedWorker {
    name: String,
    placement: Placement,
    words: Words,
    encoder: Encoder,
    /// Held while a batch is computed: its scratch is what was planned for.
    pool: Mutex<ThreadPool>,
    active_requests: AtomicUsize,
    steps: AtomicU64,
    stopped: AtomicBool,
}

impl EmbedWorker {
    /// Loads the folder that `spec` names.
    ///
    /// # Errors
    /// As [`Embedder::open`], [`Embedder::words`] and [`Embedder::load`].
    fn load(spec: &ModelSpec, placement: &Placement, progress: LoadProgress<'_>) -> Result<Self, Error> {
        let embedder = Embedder::open(spec)?;
        let words = embedder.words()?;
        let pool = threads(placement.threads)?;
        let device = crate::device::candle_device(placement.device)?;
        let encoder = pool.install(|| embedder.load(&device, progress))?;
        Ok(Self {
            name: spec.name.clone(),
            placement: Placement { context: embedder.limit as u32, ..*placement },
            words,
            encoder,
            pool: Mutex::new(pool),
            active_requests: AtomicUsize::new(0),
            steps: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        })
    }

    fn vectors(&self, inputs: &[Prompt]) -> Result<Embedded, Failure> {
        let read = |input: &Prompt| match input {
            Prompt::Text(text) => self.words.text(text),
            Prompt::Tokens(ids) => self.words.framed(ids),
        };
        let texts = guarded(Stage::Admission, || inputs.iter().map(read).collect::<Result<Vec<Vec<u32>>, _>>())?;
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let mut vectors = vec![Vec::new(); texts.len()];
        for batch in Encoder::batches(&lengths) {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Failure::new(FailureKind::Cancelled, Stage::Prefill, "the worker was stopped"));
            }
            let ids: Vec<&[u32]> = batch.iter().map(|&at| texts[at].as_slice()).collect();
            let found = guarded(Stage::Prefill, || self.pool().install(|| self.encoder.encode(&ids)))?;
            for (at, vector) in batch.into_iter().zip(found) {
                vectors[at] = vector;
            }
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
        let prompt_tokens = u32::try_from(lengths.iter().sum::<usize>()).unwrap_or(u32::MAX);
        Ok(Embedded { vectors, prompt_tokens })
    }

    fn pool(&self) -> MutexGuard<'_, ThreadPool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cannot<T>(&self, what: &str) -> Result<T, Failure> {
        Err(Failure::new(FailureKind::CannotDo, Stage::Admission, format!("{} makes vectors and {what}", self.name)))
    }
}

fn threads(count: usize) -> Result<ThreadPool, Error> {
    let pool = ThreadPoolBuilder::new().num_threads(count.max(1)).thread_name(|at| format!("embed-{at}")).build();
    pool.map_err(|error| Error::Read { path: "new threads".into(), source: std::io::Error::other(error) })
}

impl Worker for EmbedWorker {
    fn generate(&self, _request: &Request, _sink: &mut dyn Sink) -> Result<Completion, Failure> {
        self.cannot("no text")
    }

    fn embed(&self, inputs: &[Prompt]) -> Result<Embedded, Failure> {
        self.active_requests.fetch_add(1, Ordering::Relaxed);
        let outcome = self.vectors(inputs);
        self.active_requests.fetch_sub(1, Ordering::Relaxed);
        outcome
    }

    fn tokenize(&self, text: &str, special: bool) -> Result<Vec<u32>, Failure> {
        guarded(Stage::Admission, || self.words.tokens(text, special))
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String, Failure> {
        guarded(Stage::Admission, || self.words.decode(ids))
    }

    fn apply_template(&self, _input: &Input) -> Result<String, Failure> {
        self.cannot("has no chat template")
    }

    /// Embedding has no request that could be named; it ends by itself or with the worker.
    fn cancel(&self, _id: RequestId) {}

    fn kill(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn set_threads(&self, count: usize) {
        // Where no threads can be had, the old ones go on.
        if let Ok(pool) = threads(count) {
            *self.pool() = pool;
        }
    }

    fn stats(&self) -> Stats {
        Stats {
            device: self.placement.device,
            context: self.placement.context,
            active_requests: self.active_requests.load(Ordering::Relaxed),
            used_positions: 0,
            steps: self.steps.load(Ordering::Relaxed),
        }
    }
}

/// Starts a worker behind the contract.
pub(crate) fn launch(spec: &ModelSpec, placement: &Placement, progress: LoadProgress<'_>) -> Result<Arc<dyn Worker>, Error> {
    Ok(Arc::new(EmbedWorker::load(spec, placement, progress)?))
}
