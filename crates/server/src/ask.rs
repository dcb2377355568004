//! From blocking to async: submissions run on threads of their own, and what they tell comes as an async sequence.
//!
//! Owns the threads, the bounded way from them, and cancellation: dropping [`Answers`] ends what still runs, within one token.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use downshift_scheduler::{Answer, Attempt, Event, Refused, Submission};
use downshift_worker::{Delta, Device, Failure, FailureKind, RequestId, Stage};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use crate::app::App;
use crate::error::ApiError;
use crate::token_names::{NamedLogprob, NamedPromptToken, TokenNames};

/// Submissions of one request that run at once; its others wait for their turn.
const AT_ONCE: usize = 4;
/// Events that may wait for a slow reader.
const MAX_WAITING: usize = 512;
/// How often a cancellation is said again until the scheduler has heard it.
const SAY_AGAIN: Duration = Duration::from_millis(50);

/// What a submission tells, owned.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It waits for this model to load.
    Loading { model: String },
    /// An attempt failed, or a model was skipped.
    Failed(Attempt),
    /// The first real text is there.
    Started { model: String, device: Device },
    /// The next tokens of the prompt, where their probabilities were asked for.
    Prompt(Vec<NamedPromptToken>),
    /// A piece of the answer, with the texts of its tokens where their probabilities were asked for.
    Delta(Delta, Vec<NamedLogprob>),
    /// The answer broke off and goes on.
    Continued { from: String, to: String, reason: &'static str },
    /// The end; the last of each submission.
    Done(Result<Answer, Refused>),
}

/// What came next.
#[derive(Debug)]
pub(crate) enum Next {
    /// From the submission at this index.
    Heard(usize, Heard),
    /// Nothing, for the time given.
    Silence,
    /// All have ended.
    End,
}

/// How a request has begun.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Nobody answers.
    Refused(Refused),
    /// Somebody does; the event that says so comes again.
    Started,
    /// That is open still.
    Silent,
}

/// The answers of some submissions, as they come. Dropping it cancels those that have not ended.
pub(crate) struct Answers {
    app: Arc<App>,
    requested: String,
    sender: Option<mpsc::Sender<(usize, Heard)>>,
    receiver: mpsc::Receiver<(usize, Heard)>,
    waiting: VecDeque<(usize, Submission)>,
    running: Vec<(usize, RequestId)>,
    /// Threads that have not ended.
    threads: Arc<AtomicUsize>,
    leave: Arc<OwnedSemaphorePermit>,
    put_back: VecDeque<(usize, Heard)>,
    attempts: Vec<Attempt>,
    loading: Option<String>,
    /// What the body counts for.
    room: Option<OwnedSemaphorePermit>,
}

impl App {
    /// Submits all of these, some at once; their indices tell the answers apart.
    pub fn ask(self: &Arc<Self>, submissions: Vec<Submission>) -> Result<Answers, ApiError> {
        let at_once = submissions.len().clamp(1, AT_ONCE);
        let leave = Arc::new(self.leave_to_ask(at_once as u32)?);
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let requested = submissions.first().map_or_else(String::new, |submission| self.requested(&submission.models));
        let mut answers = Answers {
            app: self.clone(),
            requested,
            sender: Some(sender),
            receiver,
            waiting: submissions.into_iter().enumerate().collect(),
            running: Vec::new(),
            threads: Arc::default(),
            leave,
            put_back: VecDeque::new(),
            attempts: Vec::new(),
            loading: None,
            room: None,
        };
        for _ in 0..at_once {
            answers.start_one()?;
        }
        Ok(answers)
    }
}

impl Answers {
    /// What comes next, waiting at most for `silence`.
    pub async fn next(&mut self, silence: Duration) -> Next {
        if let Some((index, heard)) = self.put_back.pop_front() {
            return Next::Heard(index, heard);
        }
        let deadline = Instant::now() + silence;
        if self.running.is_empty() && self.waiting.is_empty() {
            return Next::End;
        }
        match timeout_at(deadline, self.receiver.recv()).await {
            Err(_) => Next::Silence,
            Ok(None) => Next::End,
            Ok(Some((index, heard))) => {
                self.note(index, &heard);
                Next::Heard(index, heard)
            }
        }
    }

    /// Waits until somebody answers or nobody does, at most for `silence`.
    pub async fn begin(&mut self, silence: Duration) -> Begun {
        let deadline = Instant::now() + silence;
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now())).await {
                Next::Silence => return Begun::Silent,
                Next::End => return Begun::Refused(self.broken()),
                Next::Heard(_, Heard::Loading { .. } | Heard::Failed(_)) => {}
                Next::Heard(_, Heard::Done(Err(refused))) => return Begun::Refused(refused),
                Next::Heard(index, heard) => {
                    self.put_back.push_front((index, heard));
                    return Begun::Started;
                }
            }
        }
    }

    /// Counts the body that the submissions came from for as long as they are answered.
    pub fn hold(&mut self, room: OwnedSemaphorePermit) {
        self.room = Some(room);
    }

    /// Whether every submission has told its end.
    pub fn has_ended(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty() && self.put_back.is_empty()
    }

    /// The model that was asked for.
    pub fn requested(&self) -> &str {
        &self.requested
    }

    /// What failed so far, of all submissions.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Who answers, if that is known and not yet taken.
    pub fn author(&self) -> Option<(String, Device)> {
        self.put_back.iter().find_map(|(_, heard)| match heard {
            Heard::Started { model, device } => Some((model.clone(), *device)),
            _ => None,
        })
    }

    /// What it waits for, for people.
    pub fn waits_for(&self) -> String {
        match &self.loading {
            Some(model) => format!("loading {model}"),
            None => "working".to_owned(),
        }
    }

    /// The refusal for a submission that ended without a word.
    pub fn broken(&self) -> Refused {
        broken(self.requested.clone())
    }

    fn note(&mut self, index: usize, heard: &Heard) {
        match heard {
            Heard::Loading { model } => self.loading = Some(model.clone()),
            Heard::Failed(attempt) => {
                self.loading = None;
                self.attempts.push(attempt.clone());
            }
            Heard::Started { .. } => self.loading = None,
            Heard::Done(_) => {
                self.running.retain(|(running, _)| *running != index);
                // A thread that cannot be started ends its own submission; the others go on.
                let _ = self.start_one();
                if self.running.is_empty() && self.waiting.is_empty() {
                    self.sender = None;
                }
            }
            Heard::Prompt(_) | Heard::Delta(..) | Heard::Continued { .. } => {}
        }
    }

    /// Starts the next submission that waits.
    fn start_one(&mut self) -> Result<(), ApiError> {
        let (Some((index, submission)), Some(sender)) = (self.waiting.pop_front(), self.sender.clone()) else { return Ok(()) };
        let id = submission.request.id;
        let thread = Thread { app: self.app.clone(), index, sender, _leave: self.leave.clone(), _count: Count::new(&self.threads) };
        let refused = broken(self.requested.clone());
        let started = std::thread::Builder::new().name(format!("ask {id}")).spawn(move || thread.run(submission));
        self.running.push((index, id));
        if let Err(error) = started {
            tracing::error!("no thread for a request: {error}");
            self.put_back.push_back((index, Heard::Done(Err(refused))));
            self.running.retain(|(running, _)| *running != index);
            return Err(ApiError::busy("there is no thread left to answer with", Duration::from_secs(5)));
        }
        Ok(())
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.receiver.close();
        let ids: Vec<RequestId> = self.running.iter().map(|(_, id)| *id).collect();
        if ids.is_empty() {
            return;
        }
        let (app, threads) = (self.app.clone(), self.threads.clone());
        ids.iter().for_each(|id| app.scheduler.cancel(*id));
        // The scheduler does not know the id of a thread that is only starting: what it has not heard is said again.
        self.app.runtime.spawn(async move {
            while threads.load(Ordering::Acquire) > 0 {
                sleep(SAY_AGAIN).await;
                ids.iter().for_each(|id| app.scheduler.cancel(*id));
            }
        });
    }
}

/// Counts a thread for as long as it exists.
struct Count(Arc<AtomicUsize>);

impl Count {
    fn new(threads: &Arc<AtomicUsize>) -> Self {
        threads.fetch_add(1, Ordering::AcqRel);
        Self(threads.clone())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The thread of one submission.
struct Thread {
    app: Arc<App>,
    index: usize,
    sender: mpsc::Sender<(usize, Heard)>,
    _leave: Arc<OwnedSemaphorePermit>,
    _count: Count,
}

impl Thread {
    fn run(self, submission: Submission) {
        if self.sender.is_closed() {
            return;
        }
        let requested = self.app.requested(&submission.models);
        let mut names = TokenNames::default();
        let mut author = String::new();
        let submit = || {
            self.app.scheduler.submit(submission, &mut |event| {
                if let Event::Started { model, .. } | Event::Continued { to: model, .. } = &event {
                    (*model).clone_into(&mut author);
                }
                let heard = match event {
                    Event::Loading { model, .. } => Heard::Loading { model: model.to_owned() },
                    Event::Failed(attempt) => Heard::Failed(attempt.clone()),
                    Event::Started { model, device } => Heard::Started { model: model.to_owned(), device },
                    Event::Continued { from, to, reason } => Heard::Continued { from: from.to_owned(), to: to.to_owned(), reason },
                    Event::Delta(mut delta) => {
                        let prompt = std::mem::take(&mut delta.prompt);
                        names.are_of(&author);
                        if !prompt.is_empty() {
                            self.tell(Heard::Prompt(prompt.iter().map(|token| names.prompt_token(&self.app, token)).collect()))?;
                        }
                        let named = delta.logprobs.iter().map(|logprob| names.logprob(&self.app, logprob)).collect();
                        Heard::Delta(delta, named)
                    }
                };
                self.tell(heard)
            })
        };
        let outcome = catch_unwind(AssertUnwindSafe(submit)).unwrap_or_else(|_| Err(broken(requested)));
        // The end must arrive, however slow the reader; a reader that has left makes this fail at once.
        let _ = self.sender.blocking_send((self.index, Heard::Done(outcome)));
    }

    /// Waits a while where the reader is slow, then gives up on it.
    fn tell(&self, heard: Heard) -> ControlFlow<()> {
        match self.sender.try_send((self.index, heard)) {
            Ok(()) | Err(TrySendError::Full((_, Heard::Loading { .. }))) => ControlFlow::Continue(()),
            Err(TrySendError::Closed(_)) => ControlFlow::Break(()),
            Err(TrySendError::Full(message)) => {
                let patience = self.app.options.limits.write_timeout;
                let sent = self.app.runtime.block_on(self.sender.send_timeout(message, patience));
                if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }
        }
    }
}

fn broken(requested: String) -> Refused {
    let failure = Failure::new(FailureKind::Panicked, Stage::Admission, "the server failed while it answered");
    Refused { requested, failure, attempts: Vec::new(), shown: false, retry_after: None }
}
