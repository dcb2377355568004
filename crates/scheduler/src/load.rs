//! Getting hold of a loaded model: waiting in line for it, joining a load that is under way, or loading it in a thread.
//! Does not own what fits where (`plan`) or who is next in line (`residents`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use downshift_worker::{Device, Failure, FailureKind, ModelInfo, Placement, ResidentMemory, Stage, Worker};

use crate::clock::lock;
use crate::file_id::FileId;
use crate::plan::{Plan, plan};
use crate::residents::{Claim, Missed, Reserve, Slot, State as ModelState};
use crate::run_loop::{Effects, Shared, State, Ticket};
use crate::running::{client_left, panic_message};

/// Bytes made resident so far, and when that last changed.
pub(crate) struct Progress(Mutex<Snapshot>);

/// One reading of a [`Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub at: Duration,
}

impl Progress {
    pub fn start(now: Duration) -> Self {
        Self(Mutex::new(Snapshot { done_bytes: 0, total_bytes: 0, at: now }))
    }

    pub fn advance(&self, done_bytes: u64, total_bytes: u64, now: Duration) {
        *lock(&self.0) = Snapshot { done_bytes, total_bytes, at: now };
    }

    pub fn read(&self) -> Snapshot {
        *lock(&self.0)
    }
}

/// What a request wants of a model.
pub(crate) struct Want<'a> {
    pub index: usize,
    pub info: &'a ModelInfo,
    pub ticket: &'a Ticket,
    /// When waiting for it is no longer worthwhile.
    pub deadline: Option<Duration>,
    /// Positions of KV without which the model is of no use to the request.
    pub positions: u32,
    /// From [`crate::residents::Residents::next_load`], before the verdict was asked: loads since then that failed count as joined.
    pub next_load: u64,
    /// A device it just failed on.
    pub not_on: Option<Device>,
    /// Unload every idle model before it is loaded.
    pub free_idle: bool,
}

/// A failed attempt, with the device it failed on.
pub(crate) struct Failed {
    pub failure: Failure,
    pub device: Option<Device>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, device: None }
    }
}

/// A place in line, left when the request gives up, by a panic of its listener too.
struct Place<'a> {
    shared: &'a Shared,
    index: usize,
    ticket: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.change(|state, _| state.residents.leave_line(self.index, ticket));
        }
    }
}

impl Shared {
    /// A slot on the model: waits in line, joins a load, or loads it. `progress` hears of loads and says whether to go on.
    pub fn acquire(self: &Arc<Self>, want: &Want<'_>, progress: &mut dyn FnMut(Snapshot) -> bool) -> Result<Slot, Failed> {
        let mut place = Place { shared: self, index: want.index, ticket: None };
        let slot = self.wait_for_slot(want, &mut place.ticket, progress)?;
        place.ticket = None;
        Ok(slot)
    }

    fn wait_for_slot(
        self: &Arc<Self>,
        want: &Want<'_>,
        place: &mut Option<u64>,
        progress: &mut dyn FnMut(Snapshot) -> bool,
    ) -> Result<Slot, Failed> {
        let index = want.index;
        let parallel = self.config.models()[index].spec.parallel as usize;
        let queue = self.config.settings.queue;
        let started = self.clock.now();
        let mut joined = want.next_load;
        let mut seen = None;
        loop {
            let heard = self.bell.heard();
            let now = self.clock.now();
            if want.ticket.is_cancelled() {
                return Err(client_left(Stage::Load).into());
            }
            if let Some(deadline) = want.deadline.filter(|deadline| *deadline <= now) {
                let waited = deadline.saturating_sub(started).as_secs_f32();
                return Err(Failure::new(
                    FailureKind::Timeout,
                    Stage::Load,
                    format!("not ready after {waited:.1} s, its share of the time"),
                )
                .into());
            }
            let load_failure = self.look(|state| state.residents.load_failure(index, joined));
            if let Some((failure, device)) = load_failure {
                return Err(Failed { failure, device: Some(device) });
            }
            self.unload_if_small(index, want.positions);
            let claim = {
                let mut state = self.state();
                if state.closed {
                    return Err(client_left(Stage::Load).into());
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
                    return Err(Failure::new(FailureKind::QueueFull, Stage::Admission, message).into());
                }
                Claim::Vacant { ticket } => {
                    *place = Some(ticket);
                    if let Some(generation) = self.begin_load(want)? {
                        joined = generation;
                        continue;
                    }
                }
                Claim::Wait { ticket, load } => {
                    *place = Some(ticket);
                    if let Some((generation, load)) = load {
                        joined = generation;
                        let snapshot = load.read();
                        if seen.replace(snapshot) != Some(snapshot) && !progress(snapshot) {
                            return Err(client_left(Stage::Load).into());
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

    /// Unloads the model if it is idle and was loaded with less context than this request needs.
    fn unload_if_small(&self, index: usize, positions: u32) {
        if self.look(|state| state.residents.context(index).is_some_and(|context| context < positions)) {
            self.change(|state, effects| {
                if state.residents.is_idle(index) {
                    effects.dropped.extend(state.residents.unload(index));
                }
            });
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

    fn end_load(&self, index: usize, generation: u64, device: Device, result: Result<Arc<dyn Worker>, Failure>) {
        let now = self.clock.now();
        let name = self.config.models()[index].name();
        let file = FileId::of(&self.config.models()[index].spec);
        let measured = result.as_ref().ok().and_then(|worker| worker.resident());
        self.change(|state, effects| {
            if !state.residents.is_loading(index, generation) {
                effects.killed.extend(result.ok());
                return;
            }
            if let Err(failure) = &result {
                tracing::info!(model = name, %device, kind = failure.kind.as_str(), "load failed: {failure}");
                self.remember_in(state, index, Some(device), failure, file);
            }
            if result.is_ok() {
                state.residents.models[index].extra_bytes /= 2;
            }
            state.counters.load(name, result.as_ref().map_or_else(|failure| failure.kind.as_str(), |_| "ok"));
            effects.killed.extend(state.residents.end_load(index, generation, result, now));
            let header = state.residents.models[index].header.clone();
            if let Some((found, (_, info))) = measured.zip(header) {
                let missed = state.residents.measure_load(index, generation, &info.footprint, found);
                let ResidentMemory { anon_bytes, file_bytes } = found;
                let Missed { hard_bytes, soft_bytes } = missed;
                tracing::debug!(model = name, anon_bytes, file_bytes, missed_hard = hard_bytes, missed_soft = soft_bytes, "loaded");
            }
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
}
