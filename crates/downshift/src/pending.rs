//! Replies as futures, without a runtime of our own: a thread answers, and wakes whoever polls.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use downshift_worker::{FailureKind, RequestId};

use crate::stream::broken;
use crate::{Downshift, Error};

/// A reply under way. Dropping it stops the answer.
pub struct Pending<T> {
    engine: Downshift,
    id: RequestId,
    shared: Arc<Mutex<Shared<T>>>,
    ended: bool,
}

struct Shared<T> {
    result: Option<Result<T, Error>>,
    waker: Option<Waker>,
    /// Nobody waits any more: an answer that has not begun need not begin.
    dropped: bool,
}

impl<T: Send + 'static> Pending<T> {
    pub(crate) fn start(engine: &Downshift, id: RequestId, answer: impl FnOnce(&Downshift) -> Result<T, Error> + Send + 'static) -> Self {
        let shared = Arc::new(Mutex::new(Shared { result: None, waker: None, dropped: false }));
        let body = {
            let (engine, shared) = (engine.clone(), shared.clone());
            move || {
                if shared.lock().unwrap_or_else(PoisonError::into_inner).dropped {
                    return;
                }
                let result = catch_unwind(AssertUnwindSafe(|| answer(&engine)));
                let panicked = || Err(broken(FailureKind::Panicked, "the thread that answers panicked".to_owned()));
                finish(&shared, result.unwrap_or_else(|_| panicked()));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("reply".to_owned()).spawn(body) {
            finish(&shared, Err(broken(FailureKind::OutOfMemory, format!("no thread could be started: {error}"))));
        }
        Self { engine: engine.clone(), id, shared, ended: false }
    }
}

fn finish<T>(shared: &Mutex<Shared<T>>, result: Result<T, Error>) {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    shared.result = Some(result);
    let waker = shared.waker.take();
    drop(shared);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Error>;

    /// Never ready again once it was.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut shared = this.shared.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.result.take() {
            Some(result) => {
                this.ended = true;
                Poll::Ready(result)
            }
            None => {
                shared.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).dropped = true;
            self.engine.scheduler().cancel(self.id);
        }
    }
}
