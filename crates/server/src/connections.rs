//! Which connections there are: when there are too many, the one that was idle longest makes room.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;

use crate::app::lock;

/// All connections.
#[derive(Debug)]
pub(crate) struct Connections {
    most: usize,
    open: Mutex<Vec<Arc<Connection>>>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Requests under way; never more than one or two.
    busy: AtomicUsize,
    idle_since: Mutex<Instant>,
    must_close: Notify,
}

impl Connections {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// Enters a new connection; `None` if all that there may be are busy.
    pub fn enter(self: &Arc<Self>) -> Option<Entered> {
        let mut open = lock(&self.open);
        if open.len() >= self.most {
            let idle = open.iter().enumerate().filter(|(_, connection)| connection.busy.load(Ordering::Acquire) == 0);
            let (at, _) = idle.min_by_key(|(_, connection)| *lock(&connection.idle_since))?;
            open.swap_remove(at).must_close.notify_one();
        }
        let connection =
            Arc::new(Connection { busy: AtomicUsize::new(0), idle_since: Mutex::new(Instant::now()), must_close: Notify::new() });
        open.push(connection.clone());
        Some(Entered { connections: self.clone(), connection })
    }
}

/// A connection for as long as it is open.
pub(crate) struct Entered {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

impl Entered {
    /// Returns when the connection has to make room.
    pub async fn must_close(&self) {
        self.connection.must_close.notified().await;
    }

    /// Marks the connection as busy.
    pub fn begin_request(&self) -> Busy {
        self.connection.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.connection.clone())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        lock(&self.connections.open).retain(|open| !Arc::ptr_eq(open, &self.connection));
    }
}

/// A request under way.
pub(crate) struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        *lock(&self.0.idle_since) = Instant::now();
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A body that keeps its connection busy until it is written.
pub(crate) struct BusyBody {
    pub body: Body,
    pub _busy: Busy,
}

impl http_body::Body for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
