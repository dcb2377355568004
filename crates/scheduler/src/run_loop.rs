//! The one owner of all state: events and deadlines in, effects out. State changes under one lock that is held for single
//! transitions only; loading, inspecting, generating, stopping and dropping workers happen outside of it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use downshift_worker::{Device, DeviceChoice, Failure, FailureKind, Launcher, ModelInfo, RequestId, Stage, Worker};

use crate::clock::{Bell, Clock, SystemClock, lock};
use crate::config::Config;
use crate::counters::Counters;
use crate::file_id::FileId;
use crate::policy::{self, Memory};
use crate::residents::{Residents, Slot};
use crate::room::Probe;
use crate::running::panic_message;
use crate::verdict::{Standing, Verdict};

/// What the scheduler takes from the machine; tests replace it.
#[derive(Clone)]
pub struct Environment {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The memory.
    pub probe: Probe,
}

impl Environment {
    /// This machine's.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock::start()), probe: Probe::system() }
    }
}

/// What all requests share.
pub(crate) struct Shared {
    pub config: Config,
    pub launcher: Arc<dyn Launcher>,
    pub clock: Arc<dyn Clock>,
    pub probe: Probe,
    /// Anonymous bytes of this process before it loaded anything.
    pub own_bytes_at_start: u64,
    pub cores: usize,
    pub next_request: AtomicU64,
    /// Rings when a model's state, a line or a load's progress changes.
    pub bell: Arc<Bell>,
    sweeper: Arc<Bell>,
    state: Mutex<State>,
}

/// Everything that changes.
pub(crate) struct State {
    pub residents: Residents,
    pub counters: Counters,
    pub requests: HashMap<RequestId, Arc<Ticket>>,
    pub closed: bool,
}

/// A request that is under way.
#[derive(Default)]
pub(crate) struct Ticket {
    pub bell: Arc<Bell>,
    cancelled: AtomicBool,
}

impl Ticket {
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

/// What is to be done once the lock is released.
#[derive(Default)]
pub(crate) struct Effects {
    pub dropped: Vec<Arc<dyn Worker>>,
    pub killed: Vec<Arc<dyn Worker>>,
}

/// A model that ran out of memory although it was to fit is planned with this much more, doubled each time.
const LEAST_RAISE_BYTES: u64 = 64 << 20;

impl Shared {
    pub fn new(config: Config, launcher: Arc<dyn Launcher>, environment: Environment) -> Arc<Self> {
        let Environment { clock, probe } = environment;
        let own_bytes_at_start = probe.read().own_anon_bytes;
        let cores = config.settings.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let state = State {
            residents: Residents::new(config.models().len()),
            counters: Counters::default(),
            requests: HashMap::new(),
            closed: false,
        };
        let shared = Arc::new(Self {
            config,
            launcher,
            clock,
            probe,
            own_bytes_at_start,
            cores,
            next_request: AtomicU64::new(1),
            bell: Arc::default(),
            sweeper: Arc::default(),
            state: Mutex::new(state),
        });
        start_sweeping(&shared);
        shared
    }

    /// Changes state, then acts: workers to stop are stopped, and whoever waits looks again.
    pub fn change<R>(&self, change: impl FnOnce(&mut State, &mut Effects) -> R) -> R {
        let mut effects = Effects::default();
        let (result, shares) = {
            let mut state = lock(&self.state);
            let result = change(&mut state, &mut effects);
            (result, state.residents.share_threads(self.cores))
        };
        for (worker, threads) in shares {
            worker.set_threads(threads);
        }
        for worker in effects.killed {
            worker.kill();
        }
        drop(effects.dropped);
        self.bell.ring();
        self.sweeper.ring();
        result
    }

    /// The state, for a single transition.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Looks at state.
    pub fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&lock(&self.state))
    }

    /// Marks a request as one whose client has left.
    pub fn cancel(&self, id: RequestId) {
        if let Some(ticket) = self.look(|state| state.requests.get(&id).cloned()) {
            ticket.cancelled.store(true, Ordering::Release);
            ticket.bell.ring();
            self.bell.ring();
        }
    }

    /// Ends all requests and drops all workers; later requests are refused.
    pub fn close(&self) {
        let tickets: Vec<_> = self.change(|state, effects| {
            state.closed = true;
            let indices = 0..state.residents.models.len();
            effects.dropped.extend(indices.filter_map(|index| state.residents.unload(index)));
            state.requests.values().cloned().collect()
        });
        for ticket in tickets {
            ticket.cancelled.store(true, Ordering::Release);
            ticket.bell.ring();
        }
        self.bell.ring();
    }

    /// What the model's header says; read again only when its files have changed.
    pub fn header(&self, index: usize, file: &FileId) -> Result<Arc<ModelInfo>, Failure> {
        let known = self.look(|state| state.residents.models[index].header.clone());
        if let Some((_, info)) = known.filter(|(of, _)| of == file) {
            return Ok(info);
        }
        let spec = &self.config.models()[index].spec;
        let info = catch_unwind(AssertUnwindSafe(|| self.launcher.inspect(spec)))
            .unwrap_or_else(|panic| Err(Failure::new(FailureKind::Panicked, Stage::Load, panic_message(panic.as_ref()))))?;
        let info = Arc::new(info);
        lock(&self.state).residents.models[index].header = Some((file.clone(), info.clone()));
        Ok(info)
    }

    /// Whether a request may try the model now.
    pub fn standing(&self, index: usize, file: &FileId, last: bool) -> Standing {
        let now = self.clock.now();
        lock(&self.state).residents.models[index].verdict.ask(now, file, last)
    }

    /// Notes what became of an attempt, for later ones.
    pub fn remember(&self, index: usize, device: Option<Device>, failure: &Failure) {
        let file = FileId::of(&self.config.models()[index].spec);
        self.change(|state, _| self.remember_in(state, index, device, failure, file));
    }

    pub fn remember_in(&self, state: &mut State, index: usize, device: Option<Device>, failure: &Failure, file: FileId) {
        let memory = policy::remember(failure.kind);
        let now = self.clock.now();
        let resident = &mut state.residents.models[index];
        match (memory, device) {
            (Memory::Nothing, _) => {}
            (Memory::RaiseEstimate, _) => {
                resident.extra_bytes = resident.extra_bytes.saturating_mul(2).max(LEAST_RAISE_BYTES);
            }
            (Memory::Cool, Some(device)) if self.config.models()[index].spec.device == DeviceChoice::Auto => {
                resident.cooled.insert(device, (now + self.config.settings.cooldown_time, failure.clone()));
            }
            _ => resident.verdict.failed(failure, memory, now, file, &self.config.settings),
        }
    }

    /// When one of these models may be tried again, if all that keeps it back is time.
    pub fn comes_back(&self, models: &[usize]) -> Option<Duration> {
        let now = self.clock.now();
        let until = |state: &State, index: usize| match &state.residents.models[index].verdict {
            Verdict::Cooling { until, .. } => Some(until.saturating_sub(now)),
            Verdict::Ok { .. } | Verdict::Quarantined { .. } => None,
        };
        self.look(|state| models.iter().filter_map(|index| until(state, *index)).min())
    }

    /// Notes that a trial is over, whatever became of it.
    pub fn end_trial(&self, index: usize) {
        self.state().residents.models[index].verdict.trial_ended();
    }

    /// Notes that the model answered.
    pub fn succeeded(&self, index: usize) {
        lock(&self.state).residents.models[index].verdict.succeeded();
    }

    /// Frees the slot of a request that has ended.
    pub fn release(&self, slot: &Slot) {
        let now = self.clock.now();
        let measured = slot.worker.resident();
        self.change(|state, effects| {
            let header = state.residents.models[slot.index].header.clone();
            if let Some((found, (_, info))) = measured.zip(header) {
                state.residents.measure_use(slot.index, slot.generation, &info.footprint, found);
            }
            effects.dropped.extend(state.residents.release(slot, now));
        });
    }

    /// Gives up on a request that still runs: its worker was told, or is killed.
    pub fn abandon(&self, slot: &Slot, kill: bool) {
        let now = self.clock.now();
        self.change(|state, effects| {
            state.residents.abandon(slot, now);
            if kill {
                effects.killed.extend(state.residents.retire(slot.index, slot.generation));
            }
        });
    }

    /// Unloads models that were idle for their time; returns when to look again.
    pub fn sweep(&self) -> Option<Duration> {
        let now = self.clock.now();
        let sweep = lock(&self.state).residents.sweep(&self.config, now);
        if !sweep.dropped.is_empty() || !sweep.killed.is_empty() {
            self.change(|_, effects| {
                for (index, worker) in sweep.dropped {
                    tracing::debug!(model = self.config.models()[index].name(), "unloaded after its idle time");
                    effects.dropped.push(worker);
                }
                for (index, worker) in sweep.killed {
                    tracing::warn!(model = self.config.models()[index].name(), "killed: it did not let go of a cancelled request");
                    effects.killed.push(worker);
                }
            });
        }
        sweep.next
    }
}

/// Sweeps in a thread that ends when the scheduler is gone.
fn start_sweeping(shared: &Arc<Shared>) {
    let (clock, bell) = (shared.clock.clone(), shared.sweeper.clone());
    let weak: Weak<Shared> = Arc::downgrade(shared);
    let body = move || {
        loop {
            let heard = bell.heard();
            let next = match weak.upgrade() {
                Some(shared) if !shared.look(|state| state.closed) => shared.sweep(),
                _ => return,
            };
            clock.wait(&bell, heard, next);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("sweep".to_owned()).spawn(body) {
        tracing::warn!("idle models will stay loaded: {error}");
    }
}
