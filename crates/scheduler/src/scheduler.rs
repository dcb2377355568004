//! The handle that others hold: submit, look, unload, shut down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use downshift_worker::{Embedded, Failure, FailureKind, Launcher, ModelInfo, Placement, Prompt, Request, RequestId, Worker};

use crate::attempt::{Answer, Refused};
use crate::chain::Options;
use crate::config::{Config, ConfigError};
use crate::counters::Counters;
use crate::file_id::FileId;
use crate::load::Want;
use crate::plan::{Ledger, Need, Plan, plan};
use crate::residents::{Slot, State};
use crate::run_loop::{Environment, Shared, Ticket};
use crate::submit::{Listener, Submission, embed, submit};
use crate::verdict::Verdict;

/// Chooses which model answers. Dropping it ends all requests and stops all workers.
pub struct Scheduler {
    shared: Arc<Shared>,
}

/// How a model stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelStatus {
    /// The name callers send.
    pub name: String,
    /// Unloaded, loading, ready or draining.
    pub state: ModelState,
    /// Whether it is tried at all.
    pub verdict: ModelVerdict,
    /// Bytes made resident so far and in all, of a load that is under way; 0 in all while that is unknown.
    pub progress: Option<(u64, u64)>,
    /// Where it is loaded, or being loaded.
    pub placement: Option<Placement>,
    /// Requests that run on it.
    pub running: usize,
    /// Requests that wait for it.
    pub waiting: usize,
}

/// What loading a model would take, and what there is.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// What would happen.
    pub plan: Plan,
    /// Whether it is loaded already; the plan is then for a second one.
    pub loaded: bool,
    /// Bytes by component.
    pub need: Need,
    /// The room, where its limits come from, and what is loaded.
    pub ledger: Ledger,
}

/// Where a model is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Nothing of it is in memory.
    Unloaded,
    /// It is being loaded.
    Loading,
    /// It answers.
    Ready,
    /// It finishes its requests and is then unloaded.
    Draining,
}

/// Whether a model is tried.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelVerdict {
    /// It is.
    Ok,
    /// Not for this long, because of this.
    Cooling(Duration, Failure),
    /// Not until its files change, because of this.
    Quarantined(Failure),
}

impl Scheduler {
    /// A scheduler on this machine.
    pub fn new(config: Config, launcher: Arc<dyn Launcher>) -> Self {
        Self::with_environment(config, launcher, Environment::system())
    }

    /// A scheduler with a clock and a memory of the caller's making, for tests.
    pub fn with_environment(config: Config, launcher: Arc<dyn Launcher>, environment: Environment) -> Self {
        Self { shared: Shared::new(config, launcher, environment) }
    }

    /// What models.toml says.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// An id that no other request of this scheduler has.
    pub fn next_request_id(&self) -> RequestId {
        RequestId(self.shared.next_request.fetch_add(1, Ordering::Relaxed))
    }

    /// Answers a request with the first model of its chain that can. Blocks this thread, on which `listener` is called.
    ///
    /// # Errors
    /// Nobody answered, the client left, or an answer broke off after text was shown; every attempt is in the error.
    pub fn submit(&self, submission: Submission, listener: &mut Listener<'_>) -> Result<Answer, Refused> {
        submit(&self.shared, submission, listener)
    }

    /// Vectors of `inputs`, in order, by the first embedder of the chain that can. Blocks this thread.
    ///
    /// # Errors
    /// Nobody answered; every attempt is in the error.
    pub fn embed(&self, id: RequestId, inputs: Vec<Prompt>, models: Vec<String>, options: Options) -> Result<Answer<Embedded>, Refused> {
        embed(&self.shared, id, inputs, models, options)
    }

    /// Ends a request because its client has left; unknown ids are ignored.
    pub fn cancel(&self, id: RequestId) {
        self.shared.cancel(id);
    }

    /// How every model stands, in the order of models.toml.
    pub fn models(&self) -> Vec<ModelStatus> {
        let now = self.shared.clock.now();
        let names = self.config().models().iter().map(|entry| entry.name().to_owned());
        self.shared.look(|state| {
            let resident = |(index, name): (usize, String)| {
                let resident = &state.residents.models[index];
                let mut loaded_bytes = None;
                let (life, placement, running) = match &resident.state {
                    State::Unloaded => (ModelState::Unloaded, None, 0),
                    State::Loading { placement, progress, .. } => {
                        let read = progress.read();
                        loaded_bytes = Some((read.done_bytes, read.total_bytes));
                        (ModelState::Loading, Some(*placement), 0)
                    }
                    State::Ready(loaded) => (ModelState::Ready, Some(loaded.placement), loaded.leases.len()),
                    State::Draining(loaded) => (ModelState::Draining, Some(loaded.placement), loaded.leases.len()),
                };
                let verdict = match &resident.verdict {
                    Verdict::Ok { .. } => ModelVerdict::Ok,
                    Verdict::Cooling { until, failure, .. } => ModelVerdict::Cooling(until.saturating_sub(now), failure.clone()),
                    Verdict::Quarantined { failure, .. } => ModelVerdict::Quarantined(failure.clone()),
                };
                let waiting = state.residents.waiting(index);
                ModelStatus { name, state: life, verdict, progress: loaded_bytes, placement, running, waiting }
            };
            names.enumerate().map(resident).collect()
        })
    }

    /// What the header of a model says; read from the file unless it is known.
    ///
    /// # Errors
    /// [`FailureKind::UnknownModel`], or why it cannot be loaded.
    pub fn inspect(&self, name: &str) -> Result<Arc<ModelInfo>, Failure> {
        let Some(index) = self.config().index_of(name) else {
            let message = format!("there is no model `{name}`");
            return Err(Failure::new(FailureKind::UnknownModel, downshift_worker::Stage::Admission, message));
        };
        self.shared.header(index, &FileId::of(&self.config().models()[index].spec))
    }

    /// Reads every header and compares the kinds along all lists of fallbacks, as a start-up check.
    ///
    /// # Errors
    /// A model lists a fallback of another kind. Models that cannot be loaded are no error here.
    pub fn check(&self) -> Result<(), ConfigError> {
        let kinds: Vec<_> = self.config().models().iter().map(|entry| self.inspect(entry.name()).ok().map(|info| info.kind)).collect();
        self.config().check_kinds(&kinds)
    }

    /// Calls `work` with a worker of this very model, loading it if need be: to tokenize, to apply its template, or to have it
    /// ready. Nobody takes its place.
    ///
    /// # Errors
    /// [`FailureKind::UnknownModel`], or why it cannot be loaded.
    pub fn with_worker<R>(&self, name: &str, work: impl FnOnce(&dyn Worker) -> R) -> Result<R, Failure> {
        let info = self.inspect(name)?;
        let index = self.config().index_of(name).unwrap_or_default();
        let shared = &self.shared;
        let ticket = Ticket::default();
        let next_load = shared.look(|state| state.residents.next_load(index));
        let want = Want { index, info: &info, ticket: &ticket, positions: 0, next_load, deadline: None, not_on: None, free_idle: false };
        let slot = shared.acquire(&want, &mut |_| true).map_err(|failed| failed.failure)?;
        let _release = Release { shared, slot: &slot };
        Ok(work(slot.worker.as_ref()))
    }

    /// Tokens of the request's prompt as this very model reads it. Nothing of it is loaded but its vocabulary.
    ///
    /// # Errors
    /// As [`Scheduler::inspect`], or what is wrong with the request.
    pub fn count(&self, name: &str, request: &Request) -> Result<usize, Failure> {
        self.inspect(name)?;
        let index = self.config().index_of(name).unwrap_or_default();
        self.shared.launcher.count(&self.config().models()[index].spec, request)
    }

    /// Calls `look` with the worker of this model if it is loaded, without waiting for a turn: for what costs the worker little.
    pub fn peek<R>(&self, name: &str, look: impl FnOnce(&dyn Worker) -> R) -> Option<R> {
        let index = self.config().index_of(name)?;
        let worker = self.shared.look(|state| match &state.residents.models[index].state {
            State::Ready(loaded) | State::Draining(loaded) => Some(loaded.worker.clone()),
            State::Unloaded | State::Loading { .. } => None,
        })?;
        Some(look(worker.as_ref()))
    }

    /// What loading a model would take now, and whether there is room: for `context` positions, or those it is configured with.
    ///
    /// # Errors
    /// As [`Scheduler::inspect`].
    pub fn plan(&self, name: &str, context: Option<u32>) -> Result<Forecast, Failure> {
        let info = self.inspect(name)?;
        let index = self.config().index_of(name).unwrap_or_default();
        let mut setting = self.shared.setting(index, &info, 0, None);
        if let Some(context) = context {
            setting.ask_for(context);
        }
        Ok(self.shared.look(|state| {
            let (need, ledger) = setting.ledger(&self.shared, state);
            Forecast { plan: plan(&need, &ledger), loaded: state.residents.is_loaded(index), need, ledger }
        }))
    }

    /// Unloads a model: at once if it is idle, else when its requests have ended. False if there is no such model.
    pub fn unload(&self, name: &str) -> bool {
        let Some(index) = self.config().index_of(name) else { return false };
        self.shared.change(|state, effects| effects.dropped.extend(state.residents.unload(index)));
        true
    }

    /// Unloads the models whose idle time is over. A thread of the scheduler does this by itself.
    pub fn unload_idle(&self) {
        self.shared.sweep();
    }

    /// Totals for metrics.
    pub fn counters(&self) -> Counters {
        self.shared.look(|state| state.counters.clone())
    }

    /// Ends all requests as if their clients had left, stops all workers, and refuses new requests.
    pub fn shutdown(&self) {
        self.shared.close();
    }
}

/// Frees a slot, however its use ends.
struct Release<'a> {
    shared: &'a Shared,
    slot: &'a Slot,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.shared.release(self.slot);
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.close();
    }
}
