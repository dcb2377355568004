//! Faults on demand: a launcher around a launcher whose models fail when they are told to, so that every fallback can be seen at
//! work in the program that ships.
//!
//! ```text
//! DOWNSHIFT_FAULT="chat@load:corrupt;mid@token=20:segv"
//! rule   = model "@" stage ":" fault ["!"]
//! stage  = load | prefill | token=N            after N tokens were passed on
//! fault  = corrupt | unsupported               at load
//!        | nan                                 at prefill or token
//!        | oom | oom_kill | segv | abort | bus | panic | hang | slow | device
//! ```
//! A rule fires once; in a worker process only in the first life of its model, so that a restart succeeds. With `!` it fires
//! every time. What ends a process really ends a worker process (the signals are real; only the kernel's out-of-memory kill is a
//! SIGKILL that the parent takes for one); in a host's process it is returned as the failure it would have caused.

mod rules;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub(crate) use rules::FAULT_VARIABLE;
use rules::{At, Fault, Rule};
pub use rules::{FaultError, Faults};

use crate::platform::{self, FatalSignal};
use crate::subprocess::LIFE_VARIABLE;
use crate::{
    Completion, Delta, DeviceMemory, Embedded, Failure, FailureKind, Input, Launcher, LoadProgress, ModelInfo, ModelSpec, Placement,
    Prompt, Request, RequestId, ResidentMemory, Sink, Stage, Stats, Worker, lock,
};

/// What a slow load or prefill takes longer.
const SLOW_START: Duration = Duration::from_secs(2);
/// What every token takes longer once they are slow.
const SLOW_TOKEN: Duration = Duration::from_millis(500);

/// A launcher whose models fail by the rules.
pub struct Faulty<L> {
    inner: L,
    rules: Arc<Rules>,
}

impl<L: Launcher> Faulty<L> {
    /// `inner` under the rules of `DOWNSHIFT_FAULT`; without any it changes nothing.
    ///
    /// # Errors
    /// For a rule that does not parse.
    pub fn from_env(inner: L) -> Result<Self, FaultError> {
        let life = std::env::var(LIFE_VARIABLE).ok().and_then(|life| life.parse().ok());
        Ok(Self::with(inner, Faults::from_env()?, life))
    }

    /// `inner` under `faults`, in the process of a host, which they do not end.
    pub fn new(inner: L, faults: Faults) -> Self {
        Self::with(inner, faults, None)
    }
}

impl<L> Faulty<L> {
    fn with(inner: L, faults: Faults, life: Option<u32>) -> Self {
        let rules = faults.0.into_iter().map(|rule| (rule, AtomicBool::new(false))).collect();
        let rules =
            Rules { rules, is_worker_process: life.is_some(), reborn: life > Some(1), released: Mutex::default(), bell: Condvar::new() };
        Self { inner, rules: Arc::new(rules) }
    }
}

impl<L: Launcher> Launcher for Faulty<L> {
    fn inspect(&self, spec: &ModelSpec) -> Result<ModelInfo, Failure> {
        self.inner.inspect(spec)
    }

    fn count(&self, spec: &ModelSpec, request: &Request) -> Result<usize, Failure> {
        self.inner.count(spec, request)
    }

    fn launch(&self, spec: &ModelSpec, placement: &Placement, progress: LoadProgress<'_>) -> Result<Arc<dyn Worker>, Failure> {
        if let Some(fault) = self.rules.due(&spec.name, |at| at == At::Load) {
            self.rules.act(fault, Stage::Load, &spec.name)?;
        }
        let inner = self.inner.launch(spec, placement, progress)?;
        if self.rules.rules.iter().all(|(rule, _)| rule.model != spec.name) {
            return Ok(inner);
        }
        Ok(Arc::new(FaultyWorker { inner, model: spec.name.clone(), rules: Arc::clone(&self.rules) }))
    }

    fn abort(&self, model: &str) {
        self.rules.release(model);
        self.inner.abort(model);
    }

    fn devices(&self) -> Vec<DeviceMemory> {
        self.inner.devices()
    }
}

struct Rules {
    rules: Vec<(Rule, AtomicBool)>,
    /// Whether this process is there to be ended.
    is_worker_process: bool,
    /// Whether the model has had a process before this one.
    reborn: bool,
    /// How often the hanging calls of a model have been given up.
    released: Mutex<HashMap<String, u64>>,
    bell: Condvar,
}

impl Rules {
    /// The fault of the first rule for `model` that fires now.
    fn due(&self, model: &str, is_at: impl Fn(At) -> bool) -> Option<Fault> {
        let fires = |(rule, fired): &&(Rule, AtomicBool)| {
            rule.model == model && is_at(rule.at) && (rule.always || !self.reborn && !fired.swap(true, Ordering::Relaxed))
        };
        self.rules.iter().find(fires).map(|(rule, _)| rule.fault)
    }

    /// Does what the fault says; `Ok` only for the ones that merely take time.
    fn act(&self, fault: Fault, stage: Stage, model: &str) -> Result<(), Failure> {
        let fail = |kind, what: &str| Err(Failure::new(kind, stage, format!("fault on demand: {what}")));
        match fault {
            Fault::Corrupt => fail(FailureKind::Corrupt, "the file is corrupt"),
            Fault::Unsupported => fail(FailureKind::UnsupportedArchitecture, "the architecture is not supported"),
            Fault::Oom => fail(FailureKind::OutOfMemory, "an allocation failed"),
            Fault::Nan => fail(FailureKind::NonFinite, "NaN in the logits"),
            Fault::Device => fail(FailureKind::Device, "the device failed"),
            Fault::OomKill if self.is_worker_process && cfg!(unix) => platform::die_by(FatalSignal::Kill),
            Fault::Segv if self.is_worker_process => platform::die_by(FatalSignal::Segv),
            Fault::Bus if self.is_worker_process => platform::die_by(FatalSignal::Bus),
            Fault::Abort if self.is_worker_process => std::process::abort(),
            Fault::OomKill => fail(FailureKind::OutOfMemory, "a worker process would be killed for memory"),
            Fault::Segv => fail(FailureKind::Crashed, "a worker process would die by SIGSEGV"),
            Fault::Bus => fail(FailureKind::Crashed, "a worker process would die by SIGBUS"),
            Fault::Abort => fail(FailureKind::Crashed, "a worker process would abort"),
            Fault::Panic => panic!("fault on demand"),
            Fault::Hang => {
                self.wait_for_release(model);
                fail(FailureKind::Stalled, "it hung until it was given up")
            }
            Fault::Slow => {
                std::thread::sleep(SLOW_START);
                Ok(())
            }
        }
    }

    fn wait_for_release(&self, model: &str) {
        let count = |released: &HashMap<String, u64>| released.get(model).copied().unwrap_or(0);
        let released = lock(&self.released);
        let before = count(&released);
        drop(self.bell.wait_while(released, |released| count(released) == before));
    }

    fn release(&self, model: &str) {
        *lock(&self.released).entry(model.to_owned()).or_insert(0) += 1;
        self.bell.notify_all();
    }
}

struct FaultyWorker {
    inner: Arc<dyn Worker>,
    model: String,
    rules: Arc<Rules>,
}

impl FaultyWorker {
    fn prefill(&self) -> Result<(), Failure> {
        self.rules.due(&self.model, |at| at == At::Prefill).map_or(Ok(()), |fault| self.rules.act(fault, Stage::Prefill, &self.model))
    }
}

impl Worker for FaultyWorker {
    fn generate(&self, request: &Request, sink: &mut dyn Sink) -> Result<Completion, Failure> {
        self.prefill()?;
        let mut counted = Counted { worker: self, sink, tokens: 0, is_slow: false, fault: None };
        let outcome = self.inner.generate(request, &mut counted);
        match counted.fault {
            Some(fault) => self.rules.act(fault, Stage::Decode, &self.model).and(outcome),
            None => outcome,
        }
    }

    fn embed(&self, inputs: &[Prompt]) -> Result<Embedded, Failure> {
        self.prefill()?;
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
        self.rules.release(&self.model);
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

/// Counts tokens on their way, and stops the request when a fault is due.
struct Counted<'a> {
    worker: &'a FaultyWorker,
    sink: &'a mut dyn Sink,
    tokens: u32,
    is_slow: bool,
    fault: Option<Fault>,
}

impl Sink for Counted<'_> {
    fn send(&mut self, delta: Delta) -> ControlFlow<()> {
        let before = self.tokens;
        self.tokens = before.saturating_add(u32::try_from(delta.token_ids.len()).unwrap_or(u32::MAX));
        if self.is_slow {
            std::thread::sleep(SLOW_TOKEN);
        }
        self.sink.send(delta)?;
        let reached = |at| matches!(at, At::Token(count) if before < count && count <= self.tokens);
        match self.worker.rules.due(&self.worker.model, reached) {
            None => ControlFlow::Continue(()),
            Some(Fault::Slow) => {
                self.is_slow = true;
                ControlFlow::Continue(())
            }
            Some(fault) => {
                self.fault = Some(fault);
                ControlFlow::Break(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fires_once_in_the_first_life_and_always_with_a_bang() {
        let fires = |text: &str, life| {
            let faulty = Faulty::with((), text.parse().unwrap(), life);
            let due = || faulty.rules.due("m", |at| at == At::Load);
            (due(), due())
        };
        assert_eq!(fires("m@load:oom", None), (Some(Fault::Oom), None));
        assert_eq!(fires("m@load:oom", Some(1)), (Some(Fault::Oom), None));
        assert_eq!(fires("m@load:oom", Some(2)), (None, None));
        assert_eq!(fires("m@load:oom!", Some(2)), (Some(Fault::Oom), Some(Fault::Oom)));
        assert_eq!(fires("m@load:oom;m@load:device", None), (Some(Fault::Oom), Some(Fault::Device)));
        assert_eq!(fires("other@load:oom;m@prefill:oom", None), (None, None));
    }
}
