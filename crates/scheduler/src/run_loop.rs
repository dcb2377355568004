//! The one owner of all state: events and deadlines in, effects out. State changes under one lock that is held for single
//! transitions only; loading, inspecting, generating, stopping and dropping workers happen outside of it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use downshift_worker::{
    Device, DeviceChoice, DeviceMemory, Failure, FailureKind, Footprint, Launcher, ModelInfo, ModelSpec, Placement, RequestId, Stage,
    Worker,
};

use crate::clock::{Bell, Clock, SystemClock, lock};
use crate::config::{Config, MemoryLimit};
use crate::counters::Counters;
use crate::file_id::FileId;
use crate::load::{Progress, Snapshot};
use crate::plan::{Ledger, Need, Plan, plan};
use crate::policy::{self, Memory};
use crate::residents::{Claim, Reserve, Residents, Slot, State as ModelState};
use crate::room::{Limit, Probe, Room};
use crate::running::{client_left, panic_message};
use crate::verdict::Standing;

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
    own_bytes_at_start: u64,
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
    dropped: Vec<Arc<dyn Worker>>,
    killed: Vec<Arc<dyn Worker>>,
}

impl Effects {
    /// Drops these workers: their memory is free once the effects are done.
    pub fn drop_workers(&mut self, workers: impl IntoIterator<Item = Arc<dyn Worker>>) {
        self.dropped.extend(workers);
    }
}

/// A model that ran out of memory although it was to fit is planned with this much more, doubled each time.
const LEAST_RAISE_BYTES: u64 = 64 << 20;

/// What a request wants of a model.
pub(crate) struct Want<'a> {
    pub index: usize,
    pub info: &'a ModelInfo,
    pub ticket: &'a Ticket,
    /// When waiting for it is no longer worthwhile.
    pub deadline: Option<Duration>,
    /// Positions of KV without which the model is of no use to the request.
    pub positions: u32,
    /// A device it just failed on.
    pub not_on: Option<Device>,
    /// Unload every idle model before it is loaded.
    pub free_idle: bool,
}

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

    fn remember_in(&self, state: &mut State, index: usize, device: Option<Device>, failure: &Failure, file: FileId) {
        let memory = policy::remember(failure.kind);
        let now = self.clock.now();
        let resident = &mut state.residents.models[index];
        match (memory, device) {
            (Memory::Nothing, _) => resident.verdict.trial_ended(),
            (Memory::RaiseEstimate, _) => {
                resident.extra_bytes = resident.extra_bytes.saturating_mul(2).max(LEAST_RAISE_BYTES);
                resident.verdict.trial_ended();
            }
            (Memory::Cool, Some(device)) if self.config.models()[index].spec.device == DeviceChoice::Auto => {
                resident.cooled.insert(device, (now + self.config.settings.cooldown_time, failure.clone()));
                resident.verdict.trial_ended();
            }
            _ => resident.verdict.failed(failure, memory, now, file, &self.config.settings),
        }
    }

    /// Notes that the model answered.
    pub fn succeeded(&self, index: usize) {
        lock(&self.state).residents.models[index].verdict.succeeded();
    }

    /// Frees the slot of a request that has ended.
    pub fn release(&self, slot: &Slot) {
        let now = self.clock.now();
        self.change(|state, effects| effects.dropped.extend(state.residents.release(slot, now)));
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

    /// The devices the model may be placed on now, best first.
    pub fn devices(&self, index: usize, not_on: Option<Device>) -> Vec<DeviceMemory> {
        let mut devices = self.launcher.devices();
        if let DeviceChoice::Only(device) = self.config.models()[index].spec.device {
            let known = devices.into_iter().find(|memory| memory.device == device);
            devices = vec![known.unwrap_or(DeviceMemory { device, own_bytes: None })];
        }
        let now = self.clock.now();
        self.look(|state| {
            let cooled = |device| state.residents.models[index].cooled.get(&device).is_some_and(|(until, _)| *until > now);
            devices.retain(|memory| Some(memory.device) != not_on && !cooled(memory.device));
        });
        devices
    }

    /// A slot on the model: waits in line, joins a load, or loads it. `progress` hears of loads and says whether to go on.
    pub fn acquire(self: &Arc<Self>, want: &Want<'_>, progress: &mut dyn FnMut(Snapshot) -> bool) -> Result<Slot, Failure> {
        let mut place = None;
        let result = self.wait_for_slot(want, &mut place, progress);
        if let (Some(place), Err(_)) = (place, &result) {
            self.change(|state, _| state.residents.leave_line(want.index, place));
        }
        result
    }

    fn wait_for_slot(
        self: &Arc<Self>,
        want: &Want<'_>,
        place: &mut Option<u64>,
        progress: &mut dyn FnMut(Snapshot) -> bool,
    ) -> Result<Slot, Failure> {
        let index = want.index;
        let parallel = self.config.models()[index].spec.parallel as usize;
        let queue = self.config.settings.queue;
        let started = self.clock.now();
        let mut joined = None;
        let mut seen = None;
        loop {
            let heard = self.bell.heard();
            let now = self.clock.now();
            if want.ticket.is_cancelled() {
                return Err(client_left(Stage::Load));
            }
            if let Some(deadline) = want.deadline.filter(|deadline| *deadline <= now) {
                let waited = deadline.saturating_sub(started).as_secs_f32();
                return Err(Failure::new(
                    FailureKind::Timeout,
                    Stage::Load,
                    format!("not ready after {waited:.1} s, its share of the time"),
                ));
            }
            if let Some(failure) = joined.and_then(|generation| self.look(|state| state.residents.load_failure(index, generation))) {
                return Err(failure);
            }
            let claim = {
                let mut state = lock(&self.state);
                if state.closed {
                    return Err(client_left(Stage::Load));
                }
                state.residents.claim(index, *place, parallel, queue)
            };
            let mut wake = want.deadline;
            match claim {
                Claim::Run(slot) => {
                    self.change(|_, _| ());
                    return Ok(slot);
                }
                Claim::Full => {
                    let message = format!("{queue} requests wait for this model already");
                    return Err(Failure::new(FailureKind::QueueFull, Stage::Admission, message));
                }
                Claim::Vacant { ticket } => {
                    *place = Some(ticket);
                    joined = self.begin_load(want)?;
                    if joined.is_some() {
                        continue;
                    }
                }
                Claim::Wait { ticket, load } => {
                    *place = Some(ticket);
                    if let Some((generation, load)) = load {
                        joined = Some(generation);
                        let snapshot = load.read();
                        if seen.replace(snapshot) != Some(snapshot) && !progress(snapshot) {
                            return Err(client_left(Stage::Load));
                        }
                        let stalls = self.config.settings.stall_timeout.map(|limit| snapshot.at + limit);
                        if stalls.is_some_and(|at| at <= now) {
                            self.give_up_load(index, generation);
                            continue;
                        }
                        wake = [wake, stalls].into_iter().flatten().min();
                    }
                }
            }
            self.clock.wait(&self.bell, heard, wake);
        }
    }

    /// Starts to load the model; `None` if another load must end first.
    fn begin_load(self: &Arc<Self>, want: &Want<'_>) -> Result<Option<u64>, Failure> {
        let index = want.index;
        let spec = &self.config.models()[index].spec;
        if want.free_idle {
            self.change(|state, effects| {
                let others = (0..state.residents.models.len()).filter(|other| *other != index);
                let idle: Vec<usize> = others.filter(|other| state.residents.is_idle(*other)).collect();
                idle.into_iter().for_each(|other| self.evict(state, effects, other, &spec.name));
            });
        }
        let setting = self.setting(index, want.info, want.positions, want.not_on);
        let progress = Arc::new(Progress::start(self.clock.now()));
        let begun = self.change(|state, effects| {
            let (need, ledger) = setting.ledger(self, state);
            let (device, context, evict) = match plan(&need, &ledger) {
                Plan::Fits { device, context, evict } => (device, context, evict),
                Plan::Wait => return Ok(None),
                Plan::DoesNotFit(reason) => return Err(Failure::new(FailureKind::DoesNotFit, Stage::Admission, reason)),
            };
            let busy = |model: &ModelState| matches!(model, ModelState::Loading { placement, .. } if placement.device == device);
            if state.residents.models.iter().any(|resident| busy(&resident.state)) {
                return Ok(None);
            }
            for other in evict {
                self.evict(state, effects, other, &spec.name);
            }
            if context < need.context {
                tracing::warn!(model = %spec.name, context, wanted = need.context, "loads with fewer positions: there is no room for all");
            }
            let threads = state.residents.thread_share(self.cores, 1);
            let placement = Placement { device, context, threads };
            let reserve =
                Reserve { hard_bytes: need.hard_bytes(context), weights_bytes: need.footprint.weights_bytes, weights_id: need.weights_id };
            Ok(Some((state.residents.begin_load(index, placement, reserve, progress.clone()), placement)))
        })?;
        let Some((generation, placement)) = begun else { return Ok(None) };
        let shared = self.clone();
        let body = move || {
            let spec = &shared.config.models()[index].spec;
            let report = |done, total| {
                progress.advance(done, total, shared.clock.now());
                shared.bell.ring();
            };
            let result = catch_unwind(AssertUnwindSafe(|| shared.launcher.launch(spec, &placement, &report)))
                .unwrap_or_else(|panic| Err(Failure::new(FailureKind::Panicked, Stage::Load, panic_message(panic.as_ref()))));
            shared.end_load(index, generation, placement.device, result);
        };
        let thread = std::thread::Builder::new().name(format!("load {}", spec.name)).spawn(body);
        if let Err(error) = thread {
            let message = format!("no thread could be started to load it: {error}");
            self.end_load(index, generation, placement.device, Err(Failure::new(FailureKind::OutOfMemory, Stage::Load, message)));
        }
        Ok(Some(generation))
    }

    fn evict(&self, state: &mut State, effects: &mut Effects, index: usize, room_for: &str) {
        let name = self.config.models()[index].name();
        tracing::info!(model = name, room_for, "unloaded to make room");
        *state.counters.evict_total.entry(name.to_owned()).or_default() += 1;
        effects.dropped.extend(state.residents.unload(index));
    }

    /// Reads all that a plan for this model depends on, outside of the lock.
    pub fn setting(&self, index: usize, info: &ModelInfo, positions: u32, not_on: Option<Device>) -> Setting {
        let spec = &self.config.models()[index].spec;
        let loaded = self.look(|state| state.residents.workers());
        let resident = loaded.into_iter().filter_map(|(generation, worker)| Some((generation, worker.resident()?.anon_bytes))).collect();
        let context = wanted_context(spec, info);
        Setting {
            index,
            footprint: info.footprint,
            weights_id: FileId::of(spec).weights_id(spec),
            context,
            least_context: spec.min_context.max(positions).min(context),
            devices: self.devices(index, not_on),
            resident,
            room: self.probe.read(),
        }
    }

    fn end_load(&self, index: usize, generation: u64, device: Device, result: Result<Arc<dyn Worker>, Failure>) {
        let now = self.clock.now();
        let name = self.config.models()[index].name();
        let file = FileId::of(&self.config.models()[index].spec);
        self.change(|state, effects| {
            if !state.residents.is_loading(index, generation) {
                effects.killed.extend(result.ok());
                return;
            }
            if let Err(failure) = &result {
                tracing::warn!(model = name, %device, kind = failure.kind.as_str(), "load failed: {failure}");
                self.remember_in(state, index, Some(device), failure, file);
            }
            if result.is_ok() {
                state.residents.models[index].extra_bytes /= 2;
            }
            state.counters.load(name, result.as_ref().map_or_else(|failure| failure.kind.as_str(), |_| "ok"));
            effects.killed.extend(state.residents.end_load(index, generation, result, now));
            if state.closed {
                effects.dropped.extend(state.residents.unload(index));
            }
        });
    }

    fn give_up_load(&self, index: usize, generation: u64) {
        let device = self.look(|state| match &state.residents.models[index].state {
            ModelState::Loading { generation: current, placement, .. } if *current == generation => Some(placement.device),
            _ => None,
        });
        if let Some(device) = device {
            let limit = self.config.settings.stall_timeout.unwrap_or_default().as_secs_f32();
            let failure = Failure::new(FailureKind::Stalled, Stage::Load, format!("the load made no progress for {limit} s"));
            self.end_load(index, generation, device, Err(failure));
            self.launcher.abort(self.config.models()[index].name());
        }
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

/// Positions of KV that a model has if there is room for them.
pub(crate) fn wanted_context(spec: &ModelSpec, info: &ModelInfo) -> u32 {
    spec.context.unwrap_or(info.context_train.min(ModelSpec::DEFAULT_CONTEXT))
}

/// What a plan for one model depends on, read at one moment.
pub(crate) struct Setting {
    index: usize,
    footprint: Footprint,
    weights_id: u64,
    context: u32,
    least_context: u32,
    devices: Vec<DeviceMemory>,
    resident: HashMap<u64, u64>,
    room: Room,
}

impl Setting {
    /// Plans for exactly this context.
    pub fn ask_for(&mut self, context: u32) {
        (self.context, self.least_context) = (context, context);
    }

    /// The need of the model and the ledger of what is loaded.
    pub fn ledger(&self, shared: &Shared, state: &State) -> (Need, Ledger) {
        let settings = &shared.config.settings;
        let Self { index, footprint, weights_id, context, least_context, devices, resident, room } = self;
        let extra_bytes = state.residents.models[*index].extra_bytes;
        let need = Need { footprint: *footprint, extra_bytes, weights_id: *weights_id, context: *context, least_context: *least_context };
        let own_bytes = room.own_anon_bytes.saturating_sub(shared.own_bytes_at_start);
        let entries = state.residents.entries(&shared.config, resident, own_bytes);
        let mut limits = room.limits.clone();
        let of_machine = || room.limits.iter().map(|limit| limit.limit_bytes).min();
        let own_limit = match settings.memory_limit {
            MemoryLimit::Auto => None,
            MemoryLimit::Bytes(bytes) => Some(bytes),
            MemoryLimit::Share(share) => of_machine().map(|bytes| (bytes as f64 * share) as u64),
        };
        let fixed_bytes = entries.iter().map(|entry| entry.hard_bytes - entry.pending_bytes).sum();
        limits.extend(own_limit.map(|limit_bytes| Limit { source: "memory_limit".to_owned(), limit_bytes, fixed_bytes }));
        let ledger = Ledger {
            limits,
            address_space: room.address_space.clone(),
            devices: devices.clone(),
            entries,
            margin_bytes: settings.memory_margin,
            allow_paging: settings.allow_paging,
        };
        (need, ledger)
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
