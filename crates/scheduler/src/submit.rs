//! One request on its way along its chain: static checks, verdict, a slot, an attempt, and after a failure what policy says.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use downshift_worker::{
    Completion, Delta, Device, Failure, FailureKind, Input, ModelInfo, ModelKind, Prompt, Request, Sink, Stage, Worker,
};

use crate::attempt::{Answer, Attempt, Fallback, Refused};
use crate::chain::{Chain, Options};
use crate::config::OnStreamFailure;
use crate::file_id::FileId;
use crate::load::{Snapshot, Want};
use crate::loop_guard::LoopGuard;
use crate::outlet::{Outlet, Written};
use crate::policy::{self, Among, Budget, Change, Decision, Shown};
use crate::residents::Slot;
use crate::run_loop::{Shared, Ticket};
use crate::running::{Ended, Limits, Run, client_left, panic_message};
use crate::setting::wanted_context;
use crate::verdict::Standing;

/// A request, and which models may answer it.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// What is asked. Its id must be unique: see [`crate::Scheduler::next_request_id`].
    pub request: Request,
    /// Names: none for the default model, one, or the primary and its fallbacks.
    pub models: Vec<String>,
    /// Everything else.
    pub options: Options,
}

/// What a request hears while it is answered.
#[derive(Debug)]
pub enum Event<'a> {
    /// It waits for a model to load; repeated as the load comes along.
    Loading {
        /// The model.
        model: &'a str,
        /// Bytes made resident so far.
        done_bytes: u64,
        /// Bytes in all; 0 while unknown.
        total_bytes: u64,
    },
    /// An attempt failed, or a model was skipped.
    Failed(&'a Attempt),
    /// The first real text is there: from here on the answer is this model's.
    Started {
        /// The model.
        model: &'a str,
        /// Where it runs.
        device: Device,
    },
    /// A piece of the answer.
    Delta(Delta),
    /// The attempt broke off after text was shown; what follows continues that text.
    Continued {
        /// The model that broke off.
        from: &'a str,
        /// The model that goes on, which may be the same.
        to: &'a str,
        /// Why it broke off: [`FailureKind::as_str`].
        reason: &'static str,
    },
}

/// Hears of a request as it goes; `Break` means that the client has left.
pub type Listener<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'a;

/// Takes `submission` along its chain.
pub(crate) fn submit(shared: &Arc<Shared>, submission: Submission, listener: &mut Listener<'_>) -> Result<Answer, Refused> {
    let Submission { request, models, options } = submission;
    let requested = models.first().cloned().unwrap_or_default();
    let refuse = |failure| Err(Refused::new(requested, failure, Vec::new(), false));
    let chain = match Chain::admit(&shared.config, &models, &options) {
        Ok(chain) => chain,
        Err(failure) => return refuse(failure),
    };
    let id = request.id;
    let ticket = Arc::new(Ticket::default());
    let admitted = shared.change(|state, _| {
        let free = !state.closed && !state.requests.contains_key(&id);
        if free {
            state.requests.insert(id, ticket.clone());
        }
        free
    });
    if !admitted {
        return refuse(Failure::new(FailureKind::Cancelled, Stage::Admission, "shut down, or a request with this id is under way"));
    }
    let timeout = options.timeout.or(shared.config.settings.timeout).filter(|time| !time.is_zero());
    let deadline = timeout.map(|time| shared.clock.now() + time);
    let journey = Journey {
        shared,
        request,
        options,
        ticket,
        deadline,
        chain,
        attempts: Vec::new(),
        written: Written::default(),
        reason: None,
        listener,
    };
    let result = journey.travel();
    shared.change(|state, _| state.requests.remove(&id));
    result
}

struct Journey<'a, 'l> {
    shared: &'a Arc<Shared>,
    request: Request,
    options: Options,
    ticket: Arc<Ticket>,
    deadline: Option<Duration>,
    chain: Chain,
    attempts: Vec<Attempt>,
    /// What the caller has seen.
    written: Written,
    /// Why the first attempt failed that came after what the caller has seen.
    reason: Option<&'static str>,
    listener: &'a mut Listener<'l>,
}

/// Why one model did not answer.
enum Stop {
    /// The caller is told.
    Surface(Failure),
    /// The next model that qualifies is tried.
    Next(Failure, Among),
    /// It never belonged to the chain.
    PassOver,
}

/// A failed attempt, with where it ran.
struct Failed {
    failure: Failure,
    device: Option<Device>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, device: None }
    }
}

impl Journey<'_, '_> {
    fn travel(mut self) -> Result<Answer, Refused> {
        let mut left: VecDeque<usize> = self.chain.models.iter().copied().collect();
        let mut tried: Vec<usize> = Vec::new();
        let mut others = 0;
        let mut among = Among::Any;
        let mut from: Option<(usize, Failure)> = None;
        while let Some(index) = left.pop_front() {
            let idle = || self.shared.look(|state| state.residents.is_idle(index));
            if tried.contains(&index) || (among == Among::LoadedIdle && !idle()) {
                continue;
            }
            if !tried.is_empty() && others >= self.shared.config.settings.max_fallbacks {
                break;
            }
            let primary = tried.is_empty();
            tried.push(index);
            let before = self.attempts.len();
            match self.try_model(index, primary, left.is_empty()) {
                Ok(mut answer) => {
                    self.count_fallback(from.as_ref(), index);
                    answer.fallback = self.report();
                    return Ok(answer);
                }
                Err(Stop::PassOver) => continue,
                Err(Stop::Surface(failure)) => return Err(self.refuse(failure)),
                Err(Stop::Next(failure, next)) => {
                    self.count_fallback(from.as_ref(), index);
                    if next == Among::Longer {
                        let longer = std::mem::take(&mut self.chain.longer);
                        longer.into_iter().rev().for_each(|index| left.push_front(index));
                    }
                    among = next;
                    from = Some((index, failure));
                }
            }
            let skipped = self.attempts[before..].iter().all(|attempt| attempt.stage == Stage::Admission);
            others += u32::from(!primary && !skipped);
        }
        let failure = self.verdict_of_all(from);
        Err(self.refuse(failure))
    }

    fn report(&mut self) -> Option<Fallback> {
        let attempts = std::mem::take(&mut self.attempts);
        (!attempts.is_empty()).then(|| Fallback { requested: self.chain.requested.clone(), attempts })
    }

    fn refuse(self, failure: Failure) -> Refused {
        tracing::warn!(request = %self.request.id, kind = failure.kind.as_str(), "refused: {failure}");
        Refused::new(self.chain.requested, failure, self.attempts, self.written.is_shown())
    }

    fn count_fallback(&self, from: Option<&(usize, Failure)>, to: usize) {
        if let Some((from, failure)) = from {
            let models = self.shared.config.models();
            let (from, to) = (models[*from].name(), models[to].name());
            self.shared.change(|state, _| state.counters.fallback(from, to, failure.kind.as_str()));
        }
    }

    /// What the caller is told when all have failed: the caller's own fault only if it was that with every model.
    fn verdict_of_all(&self, last: Option<(usize, Failure)>) -> Failure {
        let callers = |kind| matches!(kind, FailureKind::PromptTooLong { .. } | FailureKind::CannotDo);
        let to_failure = |attempt: &Attempt| Failure::new(attempt.kind, attempt.stage, attempt.message.clone());
        let longest = |attempt: &&Attempt| match attempt.kind {
            FailureKind::PromptTooLong { limit, .. } => limit,
            _ => 0,
        };
        let worlds = self.attempts.iter().rev().find(|attempt| !callers(attempt.kind));
        let worst = worlds.or_else(|| self.attempts.iter().max_by_key(longest)).map(to_failure);
        worst.or(last.map(|(_, failure)| failure)).unwrap_or_else(|| {
            Failure::new(
                FailureKind::CannotDo,
                Stage::Admission,
                format!("no model of the chain of `{}` can do this", self.chain.requested),
            )
        })
    }

    /// Tries one model until it answers or policy says to stop.
    fn try_model(&mut self, index: usize, primary: bool, last: bool) -> Result<Answer, Stop> {
        let settings = &self.shared.config.settings;
        let mut retries = self.options.num_retries.unwrap_or(settings.num_retries);
        let mut repeats = 0;
        let mut change = None;
        let mut failed_on = None;
        loop {
            let started = self.shared.clock.now();
            let failed = match self.attempt(index, primary, last, change, failed_on) {
                Ok(Some(mut answer)) => {
                    answer.retries = repeats;
                    return Ok(answer);
                }
                Ok(None) => return Err(Stop::PassOver),
                Err(failed) => failed,
            };
            let now = self.shared.clock.now();
            self.record(index, &failed, now.saturating_sub(started));
            if self.ticket.is_cancelled() {
                return Err(Stop::Surface(client_left(failed.failure.stage)));
            }
            let budget = Budget {
                retries,
                time_left: self.deadline.is_none_or(|deadline| now < deadline),
                other_device: failed.device.is_some_and(|device| !self.shared.devices(index, Some(device)).is_empty()),
                shown: self.shown(),
            };
            match policy::decide(failed.failure.kind, failed.failure.stage, budget) {
                Decision::Surface => return Err(Stop::Surface(failed.failure)),
                Decision::Next(_) if !budget.time_left => {
                    let message = format!("the request's time was used up; last: {}", failed.failure);
                    return Err(Stop::Surface(Failure::new(FailureKind::Timeout, failed.failure.stage, message)));
                }
                Decision::Next(among) => return Err(Stop::Next(failed.failure, among)),
                Decision::Again(what) => {
                    retries -= u32::from(what != Change::OtherDevice && retries > 0);
                    failed_on = if what == Change::OtherDevice { failed.device } else { None };
                    change = Some(what);
                    repeats += 1;
                }
            }
        }
    }

    /// What the caller has seen, and who may go on with it.
    fn shown(&self) -> Shown {
        let setting = self.options.on_stream_failure.unwrap_or(self.shared.config.settings.on_stream_failure);
        let Request { input, sampling, logprobs, .. } = &self.request;
        let has_tools = matches!(input, Input::Chat { tools, .. } if !tools.is_empty());
        match setting {
            _ if !self.written.is_shown() => Shown::Nothing,
            OnStreamFailure::Error => Shown::Sealed,
            OnStreamFailure::Continue if self.written.taken_over || has_tools || sampling.seed.is_some() || logprobs.is_some() => {
                Shown::BySameModel
            }
            OnStreamFailure::Continue => Shown::Continuable,
        }
    }

    fn record(&mut self, index: usize, failed: &Failed, took: Duration) {
        let Failed { failure, device } = failed;
        if failure.kind == FailureKind::Cancelled {
            return;
        }
        let attempt = Attempt::new(self.shared.config.models()[index].name(), *device, failure, took);
        tracing::warn!(
            request = %self.request.id,
            model = %attempt.model,
            device = device.map(tracing::field::display),
            stage = attempt.stage.as_str(),
            kind = attempt.kind.as_str(),
            ms = attempt.ms,
            "attempt failed: {}", attempt.message
        );
        if (self.listener)(Event::Failed(&attempt)).is_break() {
            self.shared.cancel(self.request.id);
        }
        self.reason.get_or_insert(failure.kind.as_str());
        self.attempts.push(attempt);
    }

    /// One attempt; `None` if the model is of another kind and was never asked for.
    fn attempt(
        &mut self,
        index: usize,
        primary: bool,
        last: bool,
        change: Option<Change>,
        failed_on: Option<Device>,
    ) -> Result<Option<Answer>, Failed> {
        let shared = self.shared;
        let at_admission = |kind, message: &str| Failed::from(Failure::new(kind, Stage::Admission, message));
        if self.options.mock_testing_fallbacks && primary {
            return Err(at_admission(FailureKind::Mock, "failed on purpose: mock_testing_fallbacks"));
        }
        let spec = &shared.config.models()[index].spec;
        let file = FileId::of(spec);
        if let Standing::Skip(failure) = shared.standing(index, &file, last) {
            return Err(failure.into());
        }
        let noted = |failure: Failure| {
            shared.remember(index, None, &failure);
            Failed::from(failure)
        };
        let info = shared.header(index, &file).map_err(noted)?;
        if info.kind != ModelKind::Chat {
            if self.chain.implied && !primary {
                return Ok(None);
            }
            return Err(noted(Failure::new(FailureKind::CannotDo, Stage::Admission, "this model makes vectors and no text")));
        }
        if !primary && matches!(self.request.input, Input::Completion(Prompt::Tokens(_))) {
            return Err(noted(Failure::new(
                FailureKind::CannotDo,
                Stage::Admission,
                "the prompt's token ids belong to another vocabulary",
            )));
        }
        let positions = self.positions(index, &info).map_err(noted)?;
        let now = shared.clock.now();
        let until_shown =
            self.deadline.filter(|_| !last && !self.written.is_shown()).map(|deadline| now + deadline.saturating_sub(now) / 2);
        let want = Want {
            index,
            info: &info,
            ticket: &self.ticket,
            positions,
            deadline: until_shown.or(self.deadline),
            not_on: failed_on,
            free_idle: change == Some(Change::FreeIdle),
        };
        let listener = &mut *self.listener;
        let mut progress = |load: Snapshot| {
            let event = Event::Loading { model: &spec.name, done_bytes: load.done_bytes, total_bytes: load.total_bytes };
            listener(event).is_continue()
        };
        let slot = shared.acquire(&want, &mut progress)?;
        let device = slot.placement.device;
        let settings = &shared.config.settings;
        let limits = Limits {
            total: self.deadline,
            until_shown,
            first_token: settings.first_token_timeout,
            stall: settings.stall_timeout,
            min_tokens_per_second: shared.config.min_tokens_per_second(index),
        };
        let mut request = self.request.clone();
        request.sampling = request.sampling.or(&spec.sampling);
        request.resume = self.written.resume(index);
        let began = shared.clock.now();
        let outcome = self.run(&slot, request, limits);
        match outcome {
            Ok(completion) => {
                shared.succeeded(index);
                let ms = shared.clock.now().saturating_sub(began).as_millis() as u64;
                tracing::info!(request = %self.request.id, model = %spec.name, %device, ms, "answered");
                Ok(Some(Answer { model: spec.name.clone(), device, output: completion, retries: 0, fallback: None }))
            }
            Err(failure) => {
                shared.abandon(&slot, policy::spoils_worker(failure.kind));
                shared.remember(index, Some(device), &failure);
                Err(Failed { failure, device: Some(device) })
            }
        }
    }

    /// Positions of KV the request needs, counted only where the prompt may be too long for a model that is not loaded.
    fn positions(&self, index: usize, info: &ModelInfo) -> Result<u32, Failure> {
        let shared = self.shared;
        let spec = &shared.config.models()[index].spec;
        let limit = wanted_context(spec, info);
        let loaded = shared.look(|state| state.residents.is_loaded(index));
        if loaded || longest_prompt(&self.request.input) < limit as usize {
            return Ok(0);
        }
        let counted = catch_unwind(AssertUnwindSafe(|| shared.launcher.count(spec, &self.request)))
            .unwrap_or_else(|panic| Err(Failure::new(FailureKind::Panicked, Stage::Load, panic_message(panic.as_ref()))))?;
        let needed = u32::try_from(counted).unwrap_or(u32::MAX);
        if needed >= limit {
            let message = format!("the prompt of {needed} tokens exceeds the available context size of {limit} positions");
            return Err(Failure::new(FailureKind::PromptTooLong { needed, limit }, Stage::Admission, message));
        }
        Ok(needed.saturating_add(self.request.max_tokens.unwrap_or(1)).min(limit))
    }

    fn run(&mut self, slot: &Slot, request: Request, limits: Limits) -> Result<Completion, Failure> {
        let shared = self.shared;
        let settings = &shared.config.settings;
        let spec = &shared.config.models()[slot.index].spec;
        let began = shared.clock.now();
        let before = self.written.tokens;
        let mut outlet = Outlet::new(
            self.options.stream,
            &mut self.written,
            &mut self.reason,
            (slot.index, &spec.name, slot.placement.device),
            self.listener,
        );
        outlet.guard = settings.loop_guard.then(LoopGuard::new);
        let ended = {
            let (shared, slot) = (shared.clone(), slot.clone());
            move || shared.release(&slot)
        };
        let run = Run { worker: &slot.worker, limits, clock: &shared.clock, ticket: &self.ticket };
        let counted = request.clone();
        let id = request.id;
        let call = move |worker: &dyn Worker, sink: &mut dyn Sink| worker.generate(&request, sink);
        let completion = match run.go(id, call, &mut |delta| outlet.take(delta, shared.clock.now()), ended)? {
            Ended::Whole(completion) => completion,
            Ended::Cut => {
                shared.abandon(slot, false);
                let prompt_tokens = shared.launcher.count(spec, &counted).unwrap_or(0) as u32;
                let cut = outlet.cut(before, prompt_tokens, began, shared.clock.now());
                tracing::warn!(request = %id, model = %spec.name, tokens = cut.usage.completion_tokens, "ended: the answer repeats itself");
                cut
            }
        };
        if !self.options.stream {
            outlet.check(&settings.fallback_on)?;
        }
        if outlet.flush() { Ok(completion) } else { Err(client_left(Stage::Decode)) }
    }
}

/// No prompt of this input has more tokens: each is a byte at least, and templates add a little to every message.
fn longest_prompt(input: &Input) -> usize {
    match input {
        Input::Chat { messages, tools, variables } => {
            let json = serde_json::to_string(&(messages, tools, variables));
            json.map_or(usize::MAX, |json| 1024 + 32 * messages.len() + json.len())
        }
        Input::Completion(Prompt::Text(text)) => text.len() + 1,
        Input::Completion(Prompt::Tokens(token_ids)) => token_ids.len(),
    }
}
