//! The child's side of a worker process: calls in, answers out, over any launcher.
//!
//! Owns the pipes of the process and a thread per call. Does not own the model, and decides nothing: whatever goes wrong is
//! answered as a [`Failure`], and what cannot be answered ends the process, which the parent sees.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::wire::{self, BUILD, ChildRole, FromWorker, PROTOCOL, ToWorker, WINDOW, WireError};
use crate::{Delta, Embedded, Failure, FailureKind, Launcher, Request, RequestId, Sink, Stage, Worker, lock, panic_text, platform};

/// How often changed gauges are reported while requests run.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// As much as a main thread has, so that a call gets as deep here as in the process of a host.
const STACK_BYTES: usize = 8 << 20;

/// Serves `launcher` to the parent process, over stdin and stdout, until the parent closes the pipe or dies; call it before
/// anything else, and return what it returns from `main`.
///
/// Stdin and stdout are taken away from the rest of the process: what prints to stdout afterwards prints to stderr.
pub fn serve(launcher: impl Launcher + 'static) -> ExitCode {
    platform::die_with_parent();
    match platform::take_stdio() {
        Ok((input, output)) => serve_on(input, output, Box::new(launcher)),
        Err(error) => {
            tracing::error!(%error, "the worker has no pipes to serve");
            ExitCode::FAILURE
        }
    }
}

fn serve_on(input: impl Read, output: Box<dyn Write + Send>, launcher: Box<dyn Launcher>) -> ExitCode {
    let session = Arc::new(Session {
        launcher,
        output: Mutex::new(output),
        worker: OnceLock::new(),
        calls: Mutex::default(),
        wake: Condvar::new(),
        heard: Mutex::new(Instant::now()),
    });
    session.send(0, &FromWorker::Ready { protocol: PROTOCOL, build: BUILD.to_owned() });
    let mut input = BufReader::new(input);
    let complaint = loop {
        match wire::read::<ToWorker<'static>>(&mut input) {
            Ok(Some((call, message))) => {
                *lock(&session.heard) = Instant::now();
                if let Err(complaint) = session.take(call, message) {
                    break complaint;
                }
            }
            Ok(None) | Err(WireError::Gone(_)) => return ExitCode::SUCCESS,
            Err(error) => break error.to_string(),
        }
    };
    session.send(0, &FromWorker::Failure(Failure::new(FailureKind::Protocol, Stage::Admission, complaint)));
    ExitCode::FAILURE
}

/// What the threads of a worker process share.
struct Session {
    launcher: Box<dyn Launcher>,
    output: Mutex<Box<dyn Write + Send>>,
    worker: OnceLock<Arc<dyn Worker>>,
    /// The calls that run now.
    calls: Mutex<HashMap<u64, Arc<Running>>>,
    /// Rung when the first call arrives and when the last one has ended.
    wake: Condvar,
    heard: Mutex<Instant>,
}

/// A call that runs.
struct Running {
    /// The request it answers, where it is one.
    request: Option<RequestId>,
    window: Mutex<Window>,
    changed: Condvar,
}

/// What the sink of a call may still send.
struct Window {
    deltas: usize,
    cancelled: bool,
}

impl Session {
    /// Takes one message; says what is wrong with it if the connection cannot go on.
    fn take(self: &Arc<Self>, call: u64, message: ToWorker<'static>) -> Result<(), String> {
        match message {
            ToWorker::Open { protocol, build, role } => {
                if protocol != PROTOCOL || build != BUILD {
                    return Err(format!("the parent is of build {build} (protocol {protocol}), the worker of {BUILD} ({PROTOCOL})"));
                }
                self.spawn("heartbeat", |session| session.report()).map_err(|error| error.to_string())?;
                if let ChildRole::Reader { memory_bytes, idle_ms } = role {
                    platform::limit_memory(memory_bytes).map_err(|error| format!("the memory limit cannot be set: {error}"))?;
                    let idle = Duration::from_millis(idle_ms);
                    self.spawn("idle", move |session| session.end_when_idle(idle)).map_err(|error| error.to_string())?;
                }
                Ok(())
            }
            ToWorker::Taken { deltas } => {
                if let Some(running) = lock(&self.calls).get(&call) {
                    let mut window = lock(&running.window);
                    window.deltas = window.deltas.saturating_add(deltas).min(WINDOW);
                    running.changed.notify_all();
                }
                Ok(())
            }
            ToWorker::Cancel { id } => {
                // The flag reaches a request that the worker does not know yet.
                for running in lock(&self.calls).values().filter(|running| running.request == Some(id)) {
                    lock(&running.window).cancelled = true;
                    running.changed.notify_all();
                }
                if let Some(worker) = self.worker.get() {
                    worker.cancel(id);
                }
                Ok(())
            }
            ToWorker::SetThreads { threads } => {
                if let Some(worker) = self.worker.get() {
                    worker.set_threads(threads);
                }
                Ok(())
            }
            message => self.start(call, message),
        }
    }

    /// Answers a call on a thread of its own.
    fn start(self: &Arc<Self>, call: u64, message: ToWorker<'static>) -> Result<(), String> {
        let request = if let ToWorker::Generate { request } = &message { Some(request.id) } else { None };
        let stage = match &message {
            ToWorker::Generate { .. } | ToWorker::Embed { .. } => Stage::Prefill,
            ToWorker::Inspect { .. } | ToWorker::Launch { .. } => Stage::Load,
            _ => Stage::Admission,
        };
        let running =
            Arc::new(Running { request, window: Mutex::new(Window { deltas: WINDOW, cancelled: false }), changed: Condvar::new() });
        if lock(&self.calls).insert(call, Arc::clone(&running)).is_some() {
            return Err(format!("call {call} is opened twice"));
        }
        self.wake.notify_all();
        let spawned = self.spawn("call", move |session| {
            let answer = catch_unwind(AssertUnwindSafe(|| session.answer(call, &running, message)))
                .unwrap_or_else(|panic| Err(Failure::new(FailureKind::Panicked, stage, panic_text(panic.as_ref()))))
                .unwrap_or_else(FromWorker::Failure);
            session.finish(call, &answer);
        });
        if let Err(error) = spawned {
            let message = format!("no thread could be started for the call: {error}");
            self.finish(call, &FromWorker::Failure(Failure::new(FailureKind::OutOfMemory, stage, message)));
        }
        Ok(())
    }

    fn answer(&self, call: u64, running: &Running, message: ToWorker<'static>) -> Result<FromWorker, Failure> {
        Ok(match message {
            ToWorker::Inspect { spec } => FromWorker::Info(Box::new(self.launcher.inspect(&spec)?)),
            ToWorker::Count { spec, request } => FromWorker::Counted(self.launcher.count(&spec, &request)?),
            ToWorker::Devices => FromWorker::Devices(self.launcher.devices()),
            ToWorker::Launch { spec, placement } => {
                let progress = |done_bytes, total_bytes| {
                    self.send(call, &FromWorker::Progress { done_bytes, total_bytes });
                };
                let worker = self.launcher.launch(&spec, &placement, &progress)?;
                let stats = worker.stats();
                if self.worker.set(worker).is_err() {
                    return Err(Failure::new(FailureKind::Protocol, Stage::Load, "this worker has loaded a model already"));
                }
                FromWorker::Loaded(stats)
            }
            ToWorker::Generate { request } => FromWorker::Completion(self.generate(call, running, &request)?),
            ToWorker::Embed { inputs } => {
                let Embedded { vectors, prompt_tokens } = self.worker()?.embed(&inputs)?;
                let bits = vectors.into_iter().map(|vector| vector.into_iter().map(f32::to_bits).collect()).collect();
                FromWorker::Vectors { bits, prompt_tokens }
            }
            ToWorker::Tokenize { text, special } => FromWorker::Tokens(self.worker()?.tokenize(&text, special)?),
            ToWorker::Detokenize { ids } => FromWorker::Text(self.worker()?.detokenize(&ids)?),
            ToWorker::ApplyTemplate { input } => FromWorker::Text(self.worker()?.apply_template(&input)?),
            ToWorker::Open { .. } | ToWorker::Taken { .. } | ToWorker::Cancel { .. } | ToWorker::SetThreads { .. } => {
                return Err(Failure::new(FailureKind::Protocol, Stage::Admission, "this message has no answer"));
            }
        })
    }

    fn generate(&self, call: u64, running: &Running, request: &Request) -> Result<crate::Completion, Failure> {
        let worker = self.worker()?;
        let mut sink = Pipe { session: self, call, running, sent: false };
        let outcome = catch_unwind(AssertUnwindSafe(|| worker.generate(request, &mut sink)));
        self.send(0, &FromWorker::Heartbeat(worker.stats()));
        outcome.unwrap_or_else(|panic| {
            let stage = if sink.sent { Stage::Decode } else { Stage::Prefill };
            Err(Failure::new(FailureKind::Panicked, stage, panic_text(panic.as_ref())))
        })
    }

    fn worker(&self) -> Result<&Arc<dyn Worker>, Failure> {
        self.worker.get().ok_or_else(|| Failure::new(FailureKind::Protocol, Stage::Admission, "no model is loaded in this worker"))
    }

    /// Ends a call with its last frame.
    fn finish(&self, call: u64, answer: &FromWorker) {
        lock(&self.calls).remove(&call);
        *lock(&self.heard) = Instant::now();
        self.wake.notify_all();
        self.send(call, answer);
    }

    /// Whether the parent could be told. An answer that does not fit a frame is replaced by the failure it is.
    fn send(&self, call: u64, message: &FromWorker) -> bool {
        let frame = wire::encode(call, message).or_else(|error| {
            let failure = Failure::new(FailureKind::Protocol, Stage::Admission, format!("the answer cannot be sent: {error}"));
            wire::encode(call, &FromWorker::Failure(failure))
        });
        let mut output = lock(&self.output);
        frame.is_ok_and(|frame| output.write_all(&frame).and_then(|()| output.flush()).is_ok())
    }

    /// Reports the worker's gauges whenever they have changed, while calls run.
    fn report(&self) {
        let mut last = None;
        loop {
            let calls = lock(&self.calls);
            drop(self.wake.wait_while(calls, |calls| calls.is_empty()));
            if let Some(worker) = self.worker.get() {
                let stats = worker.stats();
                if last.as_ref() != Some(&stats) {
                    last = Some(stats.clone());
                    self.send(0, &FromWorker::Heartbeat(stats));
                }
            }
            std::thread::sleep(HEARTBEAT);
        }
    }

    /// Ends the process once nothing was asked for `idle`.
    fn end_when_idle(&self, idle: Duration) {
        loop {
            let calls = lock(&self.calls);
            drop(self.wake.wait_while(calls, |calls| !calls.is_empty()));
            let quiet = lock(&self.heard).elapsed();
            match idle.checked_sub(quiet) {
                Some(left) if !left.is_zero() => std::thread::sleep(left),
                _ if lock(&self.calls).is_empty() => std::process::exit(0),
                _ => {}
            }
        }
    }

    fn spawn(self: &Arc<Self>, name: &str, body: impl FnOnce(&Self) + Send + 'static) -> std::io::Result<()> {
        let session = Arc::clone(self);
        std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || body(&session)).map(drop)
    }
}

/// Sends the deltas of a call, as fast as the parent takes them.
struct Pipe<'a> {
    session: &'a Session,
    call: u64,
    running: &'a Running,
    sent: bool,
}

impl Sink for Pipe<'_> {
    fn send(&mut self, delta: Delta) -> ControlFlow<()> {
        let window = lock(&self.running.window);
        let waited = self.running.changed.wait_while(window, |window| window.deltas == 0 && !window.cancelled);
        let mut window = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        if window.cancelled {
            return ControlFlow::Break(());
        }
        window.deltas -= 1;
        drop(window);
        self.sent = true;
        if self.session.send(self.call, &FromWorker::Delta(delta)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}
