//! One request on one worker, watched: the worker runs in a thread of its own, and this side passes its deltas on and keeps
//! the deadlines. A worker that hangs costs a thread, never the caller.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use downshift_worker::{Delta, Failure, FailureKind, RequestId, Sink, Stage, Worker};

use crate::clock::{Bell, Clock, lock};
use crate::run_loop::Ticket;

/// Deltas that may wait for a slow reader; then the worker waits too.
const MAX_WAITING: usize = 256;
/// Tokens over which [`Limits::min_tokens_per_second`] is measured.
const SPEED_WINDOW: usize = 16;

/// How long an attempt may take, in all and without progress.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// When the whole request must have ended.
    pub total: Option<Duration>,
    /// When this attempt must have shown something, so that others get their turn.
    pub until_shown: Option<Duration>,
    /// From the start to the first token.
    pub first_token: Option<Duration>,
    /// Without a token or a step.
    pub stall: Option<Duration>,
    /// 0 means that any speed will do.
    pub min_tokens_per_second: f32,
}

/// Whether a delta has been shown to the caller, or the caller has left.
pub(crate) enum Taken {
    Held,
    Shown,
    Left,
    /// Nothing more is wanted: the answer ends here.
    Enough,
}

/// How an attempt ended that did not fail.
pub(crate) enum Ended<T> {
    /// The worker says so.
    Whole(T),
    /// [`Taken::Enough`].
    Cut,
}

/// What the worker's thread leaves for the caller's.
struct Mailbox<T> {
    bell: Arc<Bell>,
    contents: Mutex<Contents<T>>,
    room: Condvar,
}

struct Contents<T> {
    deltas: VecDeque<(Duration, Delta)>,
    outcome: Option<Result<T, Failure>>,
    ended: bool,
    closed: bool,
    /// Time the worker spent waiting for a slow reader: not its fault.
    blocked: Duration,
}

/// What was in the mailbox.
struct Mail<T> {
    deltas: VecDeque<(Duration, Delta)>,
    outcome: Option<Result<T, Failure>>,
    blocked: Duration,
}

impl<T> Mailbox<T> {
    fn new(bell: Arc<Bell>) -> Self {
        let contents = Contents { deltas: VecDeque::new(), outcome: None, ended: false, closed: false, blocked: Duration::ZERO };
        Self { bell, contents: Mutex::new(contents), room: Condvar::new() }
    }

    /// True once the worker has let go of the request.
    fn has_ended(&self) -> bool {
        lock(&self.contents).ended
    }

    fn put(&self, delta: Delta, clock: &dyn Clock) -> ControlFlow<()> {
        let arrived = clock.now();
        let mut contents = lock(&self.contents);
        while contents.deltas.len() >= MAX_WAITING && !contents.closed {
            contents = self.room.wait(contents).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if contents.closed {
            return ControlFlow::Break(());
        }
        let at = arrived.saturating_sub(contents.blocked);
        contents.deltas.push_back((at, delta));
        contents.blocked += clock.now().saturating_sub(arrived);
        drop(contents);
        self.bell.ring();
        ControlFlow::Continue(())
    }

    fn finish(&self, outcome: Result<T, Failure>) {
        let mut contents = lock(&self.contents);
        contents.outcome = Some(outcome);
        contents.ended = true;
        drop(contents);
        self.bell.ring();
    }

    fn close(&self) {
        lock(&self.contents).closed = true;
        self.room.notify_all();
    }

    fn take(&self) -> Mail<T> {
        let mut contents = lock(&self.contents);
        let mail = Mail { deltas: std::mem::take(&mut contents.deltas), outcome: contents.outcome.take(), blocked: contents.blocked };
        drop(contents);
        self.room.notify_all();
        mail
    }
}

/// What watches over an attempt.
pub(crate) struct Run<'a> {
    pub worker: &'a Arc<dyn Worker>,
    pub limits: Limits,
    pub clock: &'a Arc<dyn Clock>,
    pub ticket: &'a Ticket,
}

impl Run<'_> {
    /// Runs `call` and passes its deltas to `take` on this thread. `ended` is called on the worker's thread once the worker has
    /// let go of the request, which may be long after this returned.
    pub fn go<T: Send + 'static>(
        &self,
        id: RequestId,
        call: impl FnOnce(&dyn Worker, &mut dyn Sink) -> Result<T, Failure> + Send + 'static,
        take: &mut dyn FnMut(Delta) -> Taken,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Ended<T>, Failure> {
        let Self { worker, limits, clock, ticket } = self;
        let mailbox = Arc::new(Mailbox::new(ticket.bell.clone()));
        let mut watch = Watch::start(*limits, clock.now(), worker.as_ref());
        start((*worker).clone(), call, mailbox.clone(), (*clock).clone(), ended)?;
        // However this ends, by a panic of the caller's listener too, the worker must not wait for a reader.
        let _close = CloseOnDrop { mailbox: &mailbox, worker: worker.as_ref(), id };
        loop {
            let heard = ticket.bell.heard();
            let mail = mailbox.take();
            let quiet = mail.deltas.is_empty();
            for (at, delta) in mail.deltas {
                watch.token_arrived(at, delta.token_ids.len());
                match take(delta) {
                    Taken::Held => {}
                    Taken::Shown => watch.shown = true,
                    Taken::Left => return Err(client_left(watch.stage())),
                    Taken::Enough => return Ok(Ended::Cut),
                }
            }
            if let Some(outcome) = mail.outcome {
                return outcome.map(Ended::Whole);
            }
            if ticket.is_cancelled() {
                return Err(client_left(watch.stage()));
            }
            // Only an empty mailbox tells how fast the worker is: a full one tells how slow the reader is.
            let now = clock.now();
            let checked = watch
                .check_limits(now)
                .and_then(|next| if quiet { watch.check_pace(now, mail.blocked, worker.as_ref(), next) } else { Ok(next) });
            match checked {
                Ok(next) if quiet => clock.wait(&ticket.bell, heard, next),
                Ok(_) => {}
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// Closes the mailbox and, if the worker still runs, tells it to stop.
struct CloseOnDrop<'a, T> {
    mailbox: &'a Mailbox<T>,
    worker: &'a dyn Worker,
    id: RequestId,
}

impl<T> Drop for CloseOnDrop<'_, T> {
    fn drop(&mut self) {
        self.mailbox.close();
        if !self.mailbox.has_ended() {
            self.worker.cancel(self.id);
        }
    }
}

pub(crate) fn client_left(stage: Stage) -> Failure {
    Failure::new(FailureKind::Cancelled, stage, "the client has left")
}

fn start<T: Send + 'static>(
    worker: Arc<dyn Worker>,
    call: impl FnOnce(&dyn Worker, &mut dyn Sink) -> Result<T, Failure> + Send + 'static,
    mailbox: Arc<Mailbox<T>>,
    clock: Arc<dyn Clock>,
    ended: impl FnOnce() + Send + 'static,
) -> Result<(), Failure> {
    struct ToMailbox<'a, T> {
        mailbox: &'a Mailbox<T>,
        clock: &'a dyn Clock,
        stage: Stage,
    }
    impl<T: Send> Sink for ToMailbox<'_, T> {
        fn send(&mut self, delta: Delta) -> ControlFlow<()> {
            self.stage = Stage::Decode;
            self.mailbox.put(delta, self.clock)
        }
    }
    let body = move || {
        let mut sink = ToMailbox { mailbox: &mailbox, clock: clock.as_ref(), stage: Stage::Prefill };
        let outcome = catch_unwind(AssertUnwindSafe(|| call(worker.as_ref(), &mut sink)))
            .unwrap_or_else(|panic| Err(Failure::new(FailureKind::Panicked, sink.stage, panic_message(panic.as_ref()))));
        drop(worker);
        ended();
        mailbox.finish(outcome);
    };
    std::thread::Builder::new().name("attempt".to_owned()).spawn(body).map(drop).map_err(|error| {
        Failure::new(FailureKind::OutOfMemory, Stage::Prefill, format!("no thread could be started for the request: {error}"))
    })
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the worker panicked: {}", text.unwrap_or("without a message"))
}

/// The deadlines of one attempt.
struct Watch {
    limits: Limits,
    started: Duration,
    progress: Duration,
    steps: u64,
    arrivals: VecDeque<Duration>,
    tokens: usize,
    /// Whether tokens arrived since the step counter was read.
    fresh: bool,
    shown: bool,
}

impl Watch {
    fn start(limits: Limits, now: Duration, worker: &dyn Worker) -> Self {
        let steps = if limits.stall.is_some() { worker.stats().steps } else { 0 };
        Self { limits, started: now, progress: now, steps, arrivals: VecDeque::new(), tokens: 0, fresh: false, shown: false }
    }

    fn stage(&self) -> Stage {
        if self.tokens == 0 { Stage::Prefill } else { Stage::Decode }
    }

    fn token_arrived(&mut self, at: Duration, tokens: usize) {
        self.progress = self.progress.max(at);
        self.tokens += tokens;
        self.fresh = true;
        for _ in 0..tokens.min(SPEED_WINDOW) {
            if self.arrivals.len() == SPEED_WINDOW {
                self.arrivals.pop_front();
            }
            self.arrivals.push_back(at);
        }
    }

    /// The next moment at which the attempt must end whatever its pace, or how it has failed.
    fn check_limits(&self, now: Duration) -> Result<Option<Duration>, Failure> {
        if let Some(at) = self.limits.total.filter(|at| *at <= now) {
            return self
                .fail(FailureKind::Timeout, format!("the request's time was used up after {} in this attempt", span(at, self.started)));
        }
        let until_shown = self.limits.until_shown.filter(|_| !self.shown);
        if let Some(at) = until_shown.filter(|at| *at <= now) {
            return self
                .fail(FailureKind::Timeout, format!("nothing to show after {}, half of the time that was left", span(at, self.started)));
        }
        Ok([self.limits.total, until_shown].into_iter().flatten().min())
    }

    /// The next moment, `limit` included, at which the worker may turn out too slow, or how it has failed. `blocked` does not count.
    fn check_pace(
        &mut self,
        now: Duration,
        blocked: Duration,
        worker: &dyn Worker,
        limit: Option<Duration>,
    ) -> Result<Option<Duration>, Failure> {
        let first_token = self.limits.first_token.filter(|_| self.tokens == 0).map(|limit| self.started + limit);
        if let Some(at) = first_token.filter(|at| *at <= now) {
            return self.fail(FailureKind::FirstTokenTimeout, format!("no token within {}", span(at, self.started)));
        }
        let slowest = self.slowest().map(|at| at + blocked);
        if slowest.is_some_and(|at| at <= now) {
            let message = format!("fewer than {} tokens per second over the last {SPEED_WINDOW}", self.limits.min_tokens_per_second);
            return self.fail(FailureKind::TooSlow, message);
        }
        let stalled = self.stalled(now, blocked, worker)?;
        Ok([limit, first_token, slowest, stalled].into_iter().flatten().min())
    }

    fn fail<T>(&self, kind: FailureKind, message: String) -> Result<T, Failure> {
        Err(Failure::new(kind, self.stage(), message))
    }

    /// When the oldest token of the window is too old.
    fn slowest(&self) -> Option<Duration> {
        let rate = self.limits.min_tokens_per_second;
        let oldest = self.arrivals.front().filter(|_| rate > 0.0 && self.arrivals.len() == SPEED_WINDOW)?;
        Duration::try_from_secs_f32(SPEED_WINDOW as f32 / rate).ok().map(|window| *oldest + window)
    }

    /// When the worker will have stalled. Between tokens its step counter is looked at only when that time has come.
    fn stalled(&mut self, now: Duration, blocked: Duration, worker: &dyn Worker) -> Result<Option<Duration>, Failure> {
        let Some(limit) = self.limits.stall else { return Ok(None) };
        if std::mem::take(&mut self.fresh) {
            self.steps = worker.stats().steps;
        }
        if self.progress + blocked + limit > now {
            return Ok(Some(self.progress + blocked + limit));
        }
        let steps = worker.stats().steps;
        if steps == self.steps {
            return self.fail(FailureKind::Stalled, format!("no progress for {} s", limit.as_secs_f32()));
        }
        self.steps = steps;
        self.progress = now.saturating_sub(blocked);
        Ok(Some(now + limit))
    }
}

fn span(at: Duration, since: Duration) -> String {
    format!("{:.1} s", at.saturating_sub(since).as_secs_f32())
}
