//! What whoever starts the server may choose, and the limits that hold for everyone.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Address or name to listen on. On a loopback one, only requests for a loopback `Host` are answered.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// What clients must send; `None` lets everyone in.
    pub api_key: Option<ApiKey>,
    /// Origins of web pages that may use the server, such as `http://localhost:3000`; `*` is all of them.
    pub cors_origins: Vec<String>,
    /// The model for requests that name none; `None` leaves it to models.toml.
    pub model: Option<String>,
    /// The version that `/props` tells.
    pub version: String,
    /// Sizes, numbers and times.
    pub limits: Limits,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8080,
            api_key: None,
            cors_origins: Vec::new(),
            model: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            limits: Limits::default(),
        }
    }
}

/// A secret that requests carry. Only its hash is kept, so that it can be neither printed nor told from the time a comparison takes.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    /// The key `secret`; `None` if it is empty.
    pub fn new(secret: &str) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(Sha256::digest(secret).into()))
    }

    pub(crate) fn is(&self, offered: &[u8]) -> bool {
        let offered: [u8; 32] = Sha256::digest(offered).into();
        self.0.ct_eq(&offered).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// Sizes, numbers and times that bound what clients can take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; beyond that, the one that was idle longest is closed.
    pub connections: usize,
    /// From the first byte of a request, or the end of the one before, to the end of its head.
    pub head_timeout: Duration,
    /// To read a whole body.
    pub body_timeout: Duration,
    /// Bytes of one body.
    pub body_bytes: usize,
    /// Bytes of all bodies that are being read or answered.
    pub all_bodies_bytes: usize,
    /// A client that takes nothing of its answer for this long is dropped.
    pub write_timeout: Duration,
    /// Requests that are answered at once or wait for a model; then 503.
    pub active_requests: usize,
    /// Silence in a stream after which a comment is sent.
    pub silence: Duration,
    /// After a signal, running answers have this long to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            head_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(60),
            body_bytes: 8 << 20,
            all_bodies_bytes: 64 << 20,
            write_timeout: Duration::from_secs(30),
            active_requests: 256,
            silence: Duration::from_secs(15),
            drain: Duration::from_secs(20),
        }
    }
}
