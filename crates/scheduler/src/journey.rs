//! One request on its way along its chain: static checks, verdict, a slot, an attempt, and after a failure what policy says.
//! Does not own what is asked (`work`) or what a model is worth (`verdict`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use downshift_worker::{Device, Failure, FailureKind, RequestId, Stage};

use crate::attempt::{Answer, Attempt, Fallback, Refused};
use crate::chain::{Chain, Options};
use crate::file_id::FileId;
use crate::load::{Failed, Snapshot, Want};
use crate::outlet::Written;
use crate::policy::{self, Among, Budget, Change, Decision};
use crate::run_loop::{Shared, Ticket};
use crate::running::{Limits, client_left};
use crate::submit::{Event, Listener};
use crate::verdict::Standing;
use crate::work::{Attempted, Work};

/// Target of the log events of attempts, one for each. A program that tells a person of attempts itself need not show them.
pub const ATTEMPTS: &str = "downshift::attempt";

/// One request under way.
pub(crate) struct Journey<'a, 'l, W> {
    shared: &'a Arc<Shared>,
    id: RequestId,
    work: W,
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

impl<'a, 'l, W: Work> Journey<'a, 'l, W> {
    pub fn new(
        shared: &'a Arc<Shared>,
        (id, ticket): (RequestId, Arc<Ticket>),
        work: W,
        options: Options,
        chain: Chain,
        listener: &'a mut Listener<'l>,
    ) -> Self {
        let timeout = options.timeout.or(shared.config.settings.timeout).filter(|time| !time.is_zero());
        let deadline = timeout.map(|time| shared.clock.now() + time);
        let (attempts, written, reason) = (Vec::new(), Written::default(), None);
        Self { shared, id, work, options, ticket, deadline, chain, attempts, written, reason, listener }
    }

    /// Tries the models of the chain until one answers.
    pub fn travel(mut self) -> Result<Answer<W::Output>, Refused> {
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
                Err(Stop::Surface(failure)) => {
                    self.count_fallback(from.as_ref(), index);
                    return Err(self.refuse(failure));
                }
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
        tracing::warn!(
            target: ATTEMPTS,
            request = %self.id,
            requested = %self.chain.requested,
            stage = failure.stage.as_str(),
            kind = failure.kind.as_str(),
            attempts = self.attempts.len(),
            "refused: {failure}"
        );
        let comes_back = self.shared.comes_back(&self.chain.models);
        Refused::new(self.chain.requested, failure, self.attempts, self.written.is_shown(), comes_back)
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
    fn try_model(&mut self, index: usize, primary: bool, last: bool) -> Result<Answer<W::Output>, Stop> {
        let settings = &self.shared.config.settings;
        let mut retries = self.options.num_retries.unwrap_or(settings.num_retries);
        let mut repeats = 0;
        let mut change = None;
        let mut failed_on = None;
        loop {
            let started = self.shared.clock.now();
            let continues = self.written.is_shown();
            let failed = match self.attempt(index, primary, last, change, failed_on) {
                Ok(Some(mut answer)) => {
                    answer.retries = repeats;
                    self.log_answer(&answer, continues, self.shared.clock.now().saturating_sub(started));
                    return Ok(answer);
                }
                Ok(None) => return Err(Stop::PassOver),
                Err(failed) => failed,
            };
            let now = self.shared.clock.now();
            self.record(index, &failed, (repeats, continues), now.saturating_sub(started));
            if self.ticket.is_cancelled() {
                return Err(Stop::Surface(client_left(failed.failure.stage)));
            }
            let budget = Budget {
                retries,
                time_left: self.deadline.is_none_or(|deadline| now < deadline),
                other_device: failed.device.is_some_and(|device| !self.shared.devices(index, Some(device)).is_empty()),
                shown: self.work.shown(&self.written, self.options.on_stream_failure.unwrap_or(settings.on_stream_failure)),
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

    /// Tells the log and the listener of an attempt that did not answer, the `retry`-th of this model.
    fn record(&mut self, index: usize, failed: &Failed, (retry, continues): (u32, bool), took: Duration) {
        let Failed { failure, device } = failed;
        let attempt = Attempt::new(self.shared.config.models()[index].name(), *device, failure, took);
        let Attempt { model, stage, kind, message, ms, .. } = &attempt;
        let (stage, kind, device) = (stage.as_str(), kind.as_str(), device.map(tracing::field::display));
        if failure.kind == FailureKind::Cancelled {
            tracing::info!(target: ATTEMPTS, request = %self.id, model, device, stage, kind, ms, retry, continues, "cancelled: {message}");
            return;
        }
        let what = if failure.stage == Stage::Admission { "skipped" } else { "failed" };
        tracing::warn!(target: ATTEMPTS, request = %self.id, model, device, stage, kind, ms, retry, continues, "{what}: {message}");
        if (self.listener)(Event::Failed(&attempt)).is_break() {
            self.shared.cancel(self.id);
        }
        self.reason.get_or_insert(failure.kind.as_str());
        self.attempts.push(attempt);
    }

    fn log_answer(&self, answer: &Answer<W::Output>, continues: bool, took: Duration) {
        let Answer { model, device, retries: retry, .. } = answer;
        let (ms, failed) = (took.as_millis() as u64, self.attempts.len());
        tracing::info!(target: ATTEMPTS, request = %self.id, model, %device, ms, retry, continues, failed, "answered");
    }

    /// One attempt; `None` if the model cannot do this and was never asked for.
    fn attempt(
        &mut self,
        index: usize,
        primary: bool,
        last: bool,
        change: Option<Change>,
        failed_on: Option<Device>,
    ) -> Result<Option<Answer<W::Output>>, Failed> {
        let shared = self.shared;
        let at_admission = |kind, message: &str| Failed::from(Failure::new(kind, Stage::Admission, message));
        if self.options.mock_testing_fallbacks && primary {
            return Err(at_admission(FailureKind::Mock, "failed on purpose: mock_testing_fallbacks"));
        }
        let spec = &shared.config.models()[index].spec;
        let file = FileId::of(spec);
        let next_load = shared.look(|state| state.residents.next_load(index));
        let _trial = match shared.standing(index, &file, last) {
            Standing::Go => None,
            Standing::Trial => Some(Trial { shared, index }),
            Standing::Skip(failure) => return Err(failure.into()),
        };
        let noted = |failure: Failure| {
            shared.remember(index, None, &failure);
            Failed::from(failure)
        };
        let info = shared.header(index, &file).map_err(|failure| {
            // A load that ends before it begins is counted as the load it is.
            shared.change(|state, _| state.counters.load(&spec.name, failure.kind.as_str()));
            noted(failure)
        })?;
        if let Some(refusal) = self.work.refuses(shared, &info, self.chain.models[0], index) {
            if self.chain.implied && !primary && refusal.is_stranger {
                return Ok(None);
            }
            return Err(at_admission(FailureKind::CannotDo, refusal.reason));
        }
        let positions = self.work.positions(shared, index, &info).map_err(noted)?;
        let now = shared.clock.now();
        let until_shown =
            self.deadline.filter(|_| !last && !self.written.is_shown()).map(|deadline| now + deadline.saturating_sub(now) / 2);
        let want = Want {
            index,
            info: &info,
            ticket: &self.ticket,
            positions,
            next_load,
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
        let attempted = Attempted {
            shared,
            slot: &slot,
            limits,
            ticket: &self.ticket,
            stream: self.options.stream,
            written: &mut self.written,
            reason: &mut self.reason,
            listener: self.listener,
        };
        let outcome = self.work.run(self.id, attempted);
        match outcome {
            Ok(output) => {
                shared.succeeded(index);
                Ok(Some(Answer { model: spec.name.clone(), device, output, retries: 0, fallback: None }))
            }
            Err(failure) => {
                shared.abandon(&slot, policy::spoils_worker(failure.kind));
                shared.remember(index, Some(device), &failure);
                Err(Failed { failure, device: Some(device) })
            }
        }
    }
}

/// A trial of a model that has cooled down; the next one may begin when it is over.
struct Trial<'a> {
    shared: &'a Shared,
    index: usize,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.shared.end_trial(self.index);
    }
}
