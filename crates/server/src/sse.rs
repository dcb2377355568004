//! A body that is written as it comes: server-sent events, or lines of JSON.
//!
//! Whoever writes runs as a task of its own and learns here that the client has left. Few frames wait; a client that takes none
//! stops the writer, then the submission behind it, and is dropped by the connection's write timeout.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

/// Frames that may wait for the socket.
const MAX_WAITING: usize = 64;

/// The client has left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

/// Where a stream is written.
#[derive(Clone, Debug)]
pub(crate) struct Writer(mpsc::Sender<Bytes>);

/// How the frames of a stream are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// A line of JSON each.
    Lines,
    /// Server-sent events.
    Events,
}

/// A stream, and where to write it.
pub(crate) fn stream(framing: Framing) -> (Writer, Response) {
    let (writer, body) = body();
    let kind = match framing {
        Framing::Lines => "application/x-ndjson",
        Framing::Events => "text/event-stream",
    };
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let fresh = (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that collect an answer before they pass it on make a stream useless.
    let unbuffered = (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    (writer, ([kind, fresh, unbuffered], body).into_response())
}

/// A body, and where to write it.
fn body() -> (Writer, Body) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    (Writer(sender), Body::new(Frames(receiver)))
}

impl Writer {
    /// One event whose data is `value`.
    pub async fn event(&self, value: &impl Serialize) -> Result<(), Gone> {
        self.write(b"data: ", value, b"\n\n").await
    }

    /// The end of a stream of OpenAI's.
    pub async fn done(&self) -> Result<(), Gone> {
        self.send(Bytes::from_static(b"data: [DONE]\n\n")).await
    }

    /// What clients pass over, and what keeps the connection from looking dead.
    pub async fn comment(&self, text: &str) -> Result<(), Gone> {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.send(format!(": {text}\n\n").into()).await
    }

    /// What `next` gives, unless the client leaves before.
    pub async fn unless_gone<T>(&self, next: impl Future<Output = T>) -> Result<T, Gone> {
        tokio::select! {
            next = next => Ok(next),
            () = self.0.closed() => Err(Gone),
        }
    }

    /// `value` as JSON between `before` and `after`.
    pub async fn write(&self, before: &[u8], value: &impl Serialize, after: &[u8]) -> Result<(), Gone> {
        let mut frame = before.to_vec();
        if let Err(error) = serde_json::to_writer(&mut frame, value) {
            tracing::error!("a frame cannot be written: {error}");
            return Err(Gone);
        }
        frame.extend_from_slice(after);
        self.send(frame.into()).await
    }

    async fn send(&self, frame: Bytes) -> Result<(), Gone> {
        self.0.send(frame).await.map_err(|_| Gone)
    }
}

/// The socket's end.
struct Frames(mpsc::Receiver<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}
