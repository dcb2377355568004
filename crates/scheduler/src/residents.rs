//! The state of every model: Unloaded, Loading with many waiters, Ready, Draining; and who waits in line for it.
//!
//! Transitions only: time is passed in, and workers to stop come back to the caller, who acts without any lock.
//! Does not own verdicts' rules (`verdict`) or what fits where (`plan`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use downshift_worker::{Device, Failure, Footprint, ModelInfo, Placement, ResidentMemory, Worker};

use crate::config::{Config, KeepAlive};
use crate::file_id::FileId;
use crate::load::Progress;
use crate::plan::{Entry, Hold};
use crate::verdict::Verdict;

/// All models, by their index in the configuration.
pub(crate) struct Residents {
    pub models: Vec<Resident>,
    next: u64,
}

/// One model.
pub(crate) struct Resident {
    pub state: State,
    pub verdict: Verdict,
    /// What its header says, for the files it was read from.
    pub header: Option<(FileId, Arc<ModelInfo>)>,
    /// Devices it is not placed on until then, and why.
    pub cooled: HashMap<Device, (Duration, Failure)>,
    /// Bytes it is planned with beyond its footprint because it ran out of memory.
    pub extra_bytes: u64,
    /// What was resident beyond its footprint when last measured; `None` before its first load.
    missed: Option<Missed>,
    line: VecDeque<u64>,
    failed_load: Option<(u64, Failure, Device)>,
}

/// Resident bytes that a footprint did not predict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    /// Of the process's own memory.
    pub hard_bytes: u64,
    /// Of mapped files.
    pub soft_bytes: u64,
}

/// Where a model is in its life.
pub(crate) enum State {
    Unloaded,
    Loading {
        generation: u64,
        placement: Placement,
        reserve: Reserve,
        progress: Arc<Progress>,
    },
    Ready(Loaded),
    /// No new requests; gone once the running ones have ended.
    Draining(Loaded),
}

/// A loaded model.
pub(crate) struct Loaded {
    pub generation: u64,
    pub worker: Arc<dyn Worker>,
    pub placement: Placement,
    pub reserve: Reserve,
    pub last_used: Duration,
    pub threads: usize,
    /// Running requests; those given up carry the time since when.
    pub leases: HashMap<u64, Option<Duration>>,
}

/// Memory that is set aside for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reserve {
    pub hard_bytes: u64,
    pub weights_bytes: u64,
    pub weights_id: u64,
}

/// The right to run one request on one loaded model.
#[derive(Clone)]
pub(crate) struct Slot {
    pub index: usize,
    pub generation: u64,
    pub lease: u64,
    pub worker: Arc<dyn Worker>,
    pub placement: Placement,
}

/// What a request that wants a model is told.
pub(crate) enum Claim {
    /// Run on it now.
    Run(Slot),
    /// Wait in line with this ticket; where it loads, for that load.
    Wait { ticket: u64, load: Option<(u64, Arc<Progress>)> },
    /// Too many wait already.
    Full,
    /// It is not loaded, and this request is the one to load it.
    Vacant { ticket: u64 },
}

impl Residents {
    pub fn new(count: usize) -> Self {
        let resident = || Resident {
            state: State::Unloaded,
            verdict: Verdict::Ok { fails: 0 },
            header: None,
            cooled: HashMap::new(),
            extra_bytes: 0,
            missed: None,
            line: VecDeque::new(),
            failed_load: None,
        };
        Self { models: (0..count).map(|_| resident()).collect(), next: 1 }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Asks for a slot. `ticket` is the place in line from an earlier call, `parallel` and `queue` how many may run and wait.
    pub fn claim(&mut self, index: usize, ticket: Option<u64>, parallel: usize, queue: usize) -> Claim {
        let number = self.number();
        let resident = &mut self.models[index];
        let active = match &resident.state {
            State::Ready(loaded) | State::Draining(loaded) => loaded.leases.len(),
            State::Unloaded | State::Loading { .. } => 0,
        };
        let ticket = match ticket {
            Some(ticket) => ticket,
            None if active + resident.line.len() >= parallel.saturating_add(queue) => return Claim::Full,
            None => {
                resident.line.push_back(number);
                number
            }
        };
        let first = resident.line.front() == Some(&ticket);
        match &mut resident.state {
            State::Ready(loaded) if first && active < parallel => {
                resident.line.pop_front();
                loaded.leases.insert(number, None);
                let (generation, placement, worker) = (loaded.generation, loaded.placement, loaded.worker.clone());
                Claim::Run(Slot { index, generation, lease: number, worker, placement })
            }
            State::Loading { generation, progress, .. } => Claim::Wait { ticket, load: Some((*generation, progress.clone())) },
            State::Unloaded if first => Claim::Vacant { ticket },
            State::Ready(_) | State::Draining(_) | State::Unloaded => Claim::Wait { ticket, load: None },
        }
    }

    /// Leaves the line, because the request gave up or was told that the load failed.
    pub fn leave_line(&mut self, index: usize, ticket: u64) {
        self.models[index].line.retain(|other| *other != ticket);
    }

    /// Begins a load and returns its generation.
    pub fn begin_load(&mut self, index: usize, placement: Placement, reserve: Reserve, progress: Arc<Progress>) -> u64 {
        let generation = self.number();
        self.models[index].state = State::Loading { generation, placement, reserve, progress };
        generation
    }

    /// Whether this load is still the one that is waited for.
    pub fn is_loading(&self, index: usize, generation: u64) -> bool {
        matches!(self.models[index].state, State::Loading { generation: now, .. } if now == generation)
    }

    /// Ends a load. A worker that nobody waits for any more comes back, to be killed.
    pub fn end_load(
        &mut self,
        index: usize,
        generation: u64,
        result: Result<Arc<dyn Worker>, Failure>,
        now: Duration,
    ) -> Option<Arc<dyn Worker>> {
        let resident = &mut self.models[index];
        let (placement, reserve) = match &resident.state {
            State::Loading { generation: current, placement, reserve, .. } if *current == generation => (*placement, *reserve),
            _ => return result.ok(),
        };
        match result {
            Ok(worker) => {
                let threads = placement.threads;
                let loaded = Loaded { generation, worker, placement, reserve, last_used: now, threads, leases: HashMap::new() };
                resident.state = State::Ready(loaded);
            }
            Err(failure) => {
                resident.failed_load = Some((generation, failure, placement.device));
                resident.state = State::Unloaded;
            }
        }
        None
    }

    /// Compares what a worker that has just loaded has resident with `footprint`, and corrects what is set aside for it and what
    /// later loads are planned with. KV and scratch are reserved and not yet touched then: what is resident is the constant.
    pub fn measure_load(&mut self, index: usize, generation: u64, footprint: &Footprint, found: ResidentMemory) -> Missed {
        let missed = Missed {
            hard_bytes: found.anon_bytes.saturating_sub(footprint.fixed_bytes),
            soft_bytes: found.file_bytes.saturating_sub(footprint.soft_bytes()),
        };
        self.correct(index, generation, footprint, missed);
        missed
    }

    /// As [`Residents::measure_load`] for a worker that has answered: it may then have touched all that was planned.
    pub fn measure_use(&mut self, index: usize, generation: u64, footprint: &Footprint, found: ResidentMemory) {
        let (State::Ready(loaded) | State::Draining(loaded)) = &self.models[index].state else { return };
        let context = loaded.placement.context;
        let known = self.models[index].missed.unwrap_or_default();
        let hard_bytes = found.anon_bytes.saturating_sub(footprint.hard_bytes(context)).max(known.hard_bytes);
        self.correct(index, generation, footprint, Missed { hard_bytes, ..known });
    }

    fn correct(&mut self, index: usize, generation: u64, footprint: &Footprint, missed: Missed) {
        let resident = &mut self.models[index];
        let (State::Ready(loaded) | State::Draining(loaded)) = &mut resident.state else { return };
        if loaded.generation == generation && matches!(loaded.placement.device, Device::Cpu | Device::CandleCpu) {
            resident.missed = Some(missed);
            let planned = footprint.hard_bytes(loaded.placement.context).saturating_add(resident.extra_bytes);
            loaded.reserve.hard_bytes = planned.saturating_add(missed.hard_bytes);
        }
    }

    /// What the footprint of a model lacks: as measured; of one never loaded, as with the model that lacked most.
    pub fn missed(&self, index: usize) -> Missed {
        let worst = |field: fn(&Missed) -> u64| self.models.iter().filter_map(|model| model.missed.as_ref()).map(field).max().unwrap_or(0);
        let of_others = || Missed { hard_bytes: worst(|missed| missed.hard_bytes), soft_bytes: worst(|missed| missed.soft_bytes) };
        self.models[index].missed.unwrap_or_else(of_others)
    }

    /// The first generation that a load begun from now on can have, seen from its failures.
    pub fn next_load(&self, index: usize) -> u64 {
        self.models[index].failed_load.as_ref().map_or(0, |(failed, ..)| failed + 1)
    }

    /// Why, and where, the load of this generation or a later one failed.
    pub fn load_failure(&self, index: usize, generation: u64) -> Option<(Failure, Device)> {
        let failed = self.models[index].failed_load.as_ref().filter(|(failed, ..)| *failed >= generation);
        failed.map(|(_, failure, device)| (failure.clone(), *device))
    }

    /// A request on a slot has ended. A drained worker comes back, to be dropped.
    pub fn release(&mut self, slot: &Slot, now: Duration) -> Option<Arc<dyn Worker>> {
        let state = &mut self.models[slot.index].state;
        let (State::Ready(loaded) | State::Draining(loaded)) = state else { return None };
        if loaded.generation != slot.generation {
            return None;
        }
        loaded.leases.remove(&slot.lease);
        loaded.last_used = now;
        let drained = loaded.leases.is_empty() && matches!(state, State::Draining(_));
        if drained { take_worker(state) } else { None }
    }

    /// Nobody listens to a request any more; its worker was told, and has `stall_timeout` to let go of it.
    pub fn abandon(&mut self, slot: &Slot, now: Duration) {
        if let State::Ready(loaded) | State::Draining(loaded) = &mut self.models[slot.index].state
            && loaded.generation == slot.generation
            && let Some(since) = loaded.leases.get_mut(&slot.lease)
        {
            *since = Some(now);
        }
    }

    /// Forgets a worker that is no longer trusted; it comes back, to be killed, unless it was forgotten before.
    pub fn retire(&mut self, index: usize, generation: u64) -> Option<Arc<dyn Worker>> {
        let state = &mut self.models[index].state;
        match state {
            State::Ready(loaded) | State::Draining(loaded) if loaded.generation == generation => take_worker(state),
            _ => None,
        }
    }

    /// Takes a model out: at once if it is idle, else once its running requests have ended.
    pub fn unload(&mut self, index: usize) -> Option<Arc<dyn Worker>> {
        let state = &mut self.models[index].state;
        match std::mem::replace(state, State::Unloaded) {
            State::Ready(loaded) | State::Draining(loaded) if !loaded.leases.is_empty() => {
                *state = State::Draining(loaded);
                None
            }
            State::Ready(loaded) | State::Draining(loaded) => Some(loaded.worker),
            other => {
                *state = other;
                None
            }
        }
    }

    /// What is loaded or being loaded, for the plan. `resident` tells, by generation, the anonymous bytes of workers that know them;
    /// the others share this process, `own_bytes` of which are resident for them.
    pub fn entries(&self, config: &Config, resident: &HashMap<u64, u64>, own_bytes: u64) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut sharing = Vec::new();
        for (index, model) in self.models.iter().enumerate() {
            let pinned = config.keep_alive(index) == KeepAlive::Forever;
            let (placement, reserve, hold, anon) = match &model.state {
                State::Unloaded => continue,
                State::Loading { placement, reserve, .. } => (placement, reserve, Hold::Held, Some(0)),
                State::Ready(loaded) => {
                    let idle = self.is_idle(index) && !pinned;
                    let hold = if idle { Hold::Idle(loaded.last_used.as_millis() as u64) } else { Hold::Held };
                    (&loaded.placement, &loaded.reserve, hold, resident.get(&loaded.generation).copied())
                }
                State::Draining(loaded) => (&loaded.placement, &loaded.reserve, Hold::Leaving, resident.get(&loaded.generation).copied()),
            };
            let hard_bytes = reserve.hard_bytes.max(anon.unwrap_or(0));
            if anon.is_none() {
                sharing.push(entries.len());
            }
            let pending_bytes = hard_bytes - anon.unwrap_or(hard_bytes).min(hard_bytes);
            let Reserve { weights_bytes, weights_id, .. } = *reserve;
            entries.push(Entry { index, device: placement.device, hard_bytes, pending_bytes, weights_bytes, weights_id, hold });
        }
        let mut left = own_bytes;
        for at in sharing {
            let here = left.min(entries[at].hard_bytes);
            left -= here;
            entries[at].pending_bytes = entries[at].hard_bytes - here;
        }
        entries
    }

    /// Whether it is loaded, nothing runs on it and nobody waits for it.
    pub fn is_idle(&self, index: usize) -> bool {
        let resident = &self.models[index];
        matches!(&resident.state, State::Ready(loaded) if loaded.leases.is_empty()) && resident.line.is_empty()
    }

    /// Unloads what was idle for its time, and gives up workers that do not let go of abandoned requests.
    /// Returns the workers to drop, those to kill, and when to look again.
    pub fn sweep(&mut self, config: &Config, now: Duration) -> Sweep {
        let mut sweep = Sweep::default();
        for index in 0..self.models.len() {
            let (State::Ready(loaded) | State::Draining(loaded)) = &self.models[index].state else { continue };
            let stuck = loaded.leases.values().flatten().min().zip(config.settings.stall_timeout).map(|(since, limit)| *since + limit);
            let expires = match config.keep_alive(index) {
                KeepAlive::For(time) if self.is_idle(index) => Some(loaded.last_used + time),
                KeepAlive::For(_) | KeepAlive::Forever => None,
            };
            let generation = loaded.generation;
            if stuck.is_some_and(|at| at <= now) {
                sweep.killed.extend(self.retire(index, generation).map(|worker| (index, worker)));
            } else if expires.is_some_and(|at| at <= now) {
                sweep.dropped.extend(self.unload(index).map(|worker| (index, worker)));
            } else {
                sweep.next = [sweep.next, stuck, expires].into_iter().flatten().min();
            }
        }
        sweep
    }

    /// Shares `cores` among busy workers and returns those whose share has changed.
    pub fn share_threads(&mut self, cores: usize) -> Vec<(Arc<dyn Worker>, usize)> {
        let share = self.thread_share(cores, 0);
        let mut changed = Vec::new();
        for resident in &mut self.models {
            if let State::Ready(loaded) | State::Draining(loaded) = &mut resident.state
                && !loaded.leases.is_empty()
                && loaded.threads != share
            {
                loaded.threads = share;
                changed.push((loaded.worker.clone(), share));
            }
        }
        changed
    }

    /// Cores for each busy worker if `more` become busy.
    pub fn thread_share(&self, cores: usize, more: usize) -> usize {
        let is_busy = |resident: &&Resident| match &resident.state {
            State::Ready(loaded) | State::Draining(loaded) => !loaded.leases.is_empty(),
            State::Unloaded | State::Loading { .. } => false,
        };
        let busy = self.models.iter().filter(is_busy).count() + more;
        (cores / busy.max(1)).max(1)
    }

    /// Positions of KV it is loaded with, or is being loaded with.
    pub fn context(&self, index: usize) -> Option<u32> {
        match &self.models[index].state {
            State::Loading { placement, .. } => Some(placement.context),
            State::Ready(loaded) => Some(loaded.placement.context),
            State::Unloaded | State::Draining(_) => None,
        }
    }

    /// Whether it is in memory, or on its way.
    pub fn is_loaded(&self, index: usize) -> bool {
        !matches!(self.models[index].state, State::Unloaded)
    }

    /// All loaded workers, by generation.
    pub fn workers(&self) -> Vec<(u64, Arc<dyn Worker>)> {
        let worker = |resident: &Resident| match &resident.state {
            State::Ready(loaded) | State::Draining(loaded) => Some((loaded.generation, loaded.worker.clone())),
            State::Unloaded | State::Loading { .. } => None,
        };
        self.models.iter().filter_map(worker).collect()
    }

    /// How many wait in line for a model.
    pub fn waiting(&self, index: usize) -> usize {
        self.models[index].line.len()
    }
}

/// What [`Residents::sweep`] took out.
#[derive(Default)]
pub(crate) struct Sweep {
    pub dropped: Vec<(usize, Arc<dyn Worker>)>,
    pub killed: Vec<(usize, Arc<dyn Worker>)>,
    pub next: Option<Duration>,
}

fn take_worker(state: &mut State) -> Option<Arc<dyn Worker>> {
    match std::mem::replace(state, State::Unloaded) {
        State::Ready(loaded) | State::Draining(loaded) => Some(loaded.worker),
        other => {
            *state = other;
            None
        }
    }
}
