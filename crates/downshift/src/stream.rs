//! Replies as streams, without a runtime of our own: a thread answers, and wakes whoever polls.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use downshift_scheduler::{Refused, Submission};
use downshift_worker::{Failure, FailureKind, Input, RequestId, Stage};
use futures_core::Stream;

use crate::ask::Ask;
use crate::reply::{Piece, Reply};
use crate::{Downshift, Error};

/// Pieces that may wait to be polled; then the answer waits too.
const MAX_WAITING: usize = 64;

/// What a [`ReplyStream`] yields: pieces, then the whole reply once.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A piece of the answer.
    Piece(Piece),
    /// The answer has ended; this is all of it.
    End(Reply),
}

/// A reply under way, as a stream. It ends after [`Update::End`] or an error. Dropping it stops the answer.
pub struct ReplyStream(Running);

impl ReplyStream {
    pub(crate) fn new<I: Into<Input>>(engine: &Downshift, ask: Ask<I>) -> Self {
        Self(Running::start(engine, ask))
    }

    /// The next update; `None` once the stream has ended.
    pub async fn next(&mut self) -> Option<Result<Update, Error>> {
        std::future::poll_fn(|context| self.0.poll(context)).await
    }
}

impl Stream for ReplyStream {
    type Item = Result<Update, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll(context)
    }
}

/// The consumer's end of an answer that a thread produces.
struct Running {
    engine: Downshift,
    id: RequestId,
    channel: Arc<Channel>,
    ended: bool,
}

#[derive(Default)]
struct Channel {
    queue: Mutex<Queue>,
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    updates: VecDeque<Result<Update, Error>>,
    closed: bool,
    waker: Option<Waker>,
}

impl Running {
    fn start<I: Into<Input>>(engine: &Downshift, ask: Ask<I>) -> Self {
        let id = engine.scheduler().next_request_id();
        let submission = ask.submission(id, true);
        let channel = Arc::<Channel>::default();
        let body = {
            let (engine, channel) = (engine.clone(), channel.clone());
            move || answer(&engine, submission, &channel)
        };
        if let Err(error) = std::thread::Builder::new().name("reply".to_owned()).spawn(body) {
            let _ = channel.put(Err(broken(FailureKind::OutOfMemory, format!("no thread could be started: {error}"))));
        }
        Self { engine: engine.clone(), id, channel, ended: false }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Update, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut queue = self.channel.lock();
        let Some(update) = queue.updates.pop_front() else {
            queue.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        drop(queue);
        self.channel.room.notify_all();
        self.ended = !matches!(update, Ok(Update::Piece(_)));
        Poll::Ready(Some(update))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.channel.lock().closed = true;
        self.channel.room.notify_all();
        if !self.ended {
            self.engine.scheduler().cancel(self.id);
        }
    }
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room and adds an update; `Break` if nobody will read it.
    fn put(&self, update: Result<Update, Error>) -> ControlFlow<()> {
        let full = |queue: &mut Queue| queue.updates.len() >= MAX_WAITING && !queue.closed;
        let mut queue = self.room.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return ControlFlow::Break(());
        }
        queue.updates.push_back(update);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        ControlFlow::Continue(())
    }
}

fn answer(engine: &Downshift, submission: Submission, channel: &Channel) {
    let mut take = |piece| channel.put(Ok(Update::Piece(piece)));
    let result = catch_unwind(AssertUnwindSafe(|| engine.submit(submission, &mut take)))
        .unwrap_or_else(|_| Err(broken(FailureKind::Panicked, "the thread that answers panicked".to_owned())));
    // Nobody is left to read it if this fails.
    let _ = channel.put(result.map(Update::End));
}

pub(crate) fn broken(kind: FailureKind, message: String) -> Error {
    let failure = Failure::new(kind, Stage::Admission, message);
    Error::Refused(Refused { requested: String::new(), failure, attempts: Vec::new(), shown: false, retry_after: None })
}
