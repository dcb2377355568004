//! The socket: accepting connections, what each may take, and how they all end.
//!
//! Owns the async runtime, so that whoever embeds the server needs none.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use downshift_scheduler::Scheduler;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use crate::app::{App, router};
use crate::connections::{BusyBody, Connections, Entered};
use crate::options::{Limits, ServeOptions};
use crate::patient::Patient;

/// Headers of one request, and the bytes of all of them together.
const MOST_HEADERS: usize = 100;
const MOST_HEAD_BYTES: usize = 64 << 10;
/// Broken-off answers have this long to be told.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// When there are no file descriptors left, accepting again at once would only burn time.
const AFTER_A_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// A server that listens; [`Server::run`] makes it answer.
pub struct Server {
    runtime: Runtime,
    listener: tokio::net::TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    stopper: Stopper,
}

/// Ends a server from elsewhere. Clones are the same.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Stop>);

#[derive(Debug)]
struct Stop {
    draining: watch::Sender<bool>,
    now: Notify,
    asked: AtomicBool,
}

impl Stopper {
    /// The first call lets running answers end, for a while; the second ends the server at once.
    pub fn stop(&self) {
        if self.0.asked.swap(true, Ordering::AcqRel) {
            self.0.now.notify_one();
        } else {
            self.0.draining.send_replace(true);
        }
    }
}

impl Server {
    /// Listens. Must not be called on a thread of an async runtime.
    ///
    /// # Errors
    /// The address is taken, is none of this machine, or cannot be resolved.
    pub fn bind(scheduler: Arc<Scheduler>, options: ServeOptions) -> io::Result<Self> {
        let addresses: Vec<SocketAddr> = (options.host.as_str(), options.port).to_socket_addrs()?.collect();
        let listener = TcpListener::bind(addresses.as_slice())?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("http").enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let app = App::new(scheduler, options, runtime.handle().clone(), address.ip().is_loopback());
        let stop = Stop { draining: watch::Sender::new(false), now: Notify::new(), asked: AtomicBool::new(false) };
        Ok(Self { runtime, listener, address, app, stopper: Stopper(Arc::new(stop)) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Lets Ctrl-C, and SIGTERM where there is such, call [`Stopper::stop`].
    ///
    /// # Errors
    /// The system does not let signals be heard.
    pub fn stop_on_signals(&self) -> io::Result<()> {
        let _inside = self.runtime.enter();
        let stopper = self.stopper();
        let signals = Signals::new()?;
        self.runtime.spawn(signals.pass_on_to(stopper));
        Ok(())
    }

    /// Answers until it is stopped. True if running answers could end, false if they were left.
    pub fn run(self) -> bool {
        let Self { runtime, listener, app, stopper, .. } = self;
        let routes = router(app.clone());
        let whole = runtime.block_on(async {
            tokio::select! {
                () = serve(&listener, routes, &app, &stopper) => true,
                () = stopper.0.now.notified() => false,
            }
        });
        // Threads that wait for a model must not hold up the end.
        runtime.shutdown_background();
        whole
    }
}

/// Accepts until stopped, then waits for what runs.
async fn serve(listener: &tokio::net::TcpListener, routes: Router, app: &Arc<App>, stopper: &Stopper) {
    let limits = app.options.limits.clone();
    let connections = Connections::new(limits.connections);
    let mut draining = stopper.0.draining.subscribe();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = draining.wait_for(|draining| *draining) => break,
        };
        while tasks.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("a connection cannot be accepted: {error}");
                sleep(AFTER_A_FAILED_ACCEPT).await;
                continue;
            }
        };
        match connections.enter() {
            Some(entered) => {
                tasks.spawn(connection(stream, entered, routes.clone(), limits.clone(), stopper.0.draining.subscribe()));
            }
            None => {
                tasks.spawn(turn_away(stream));
            }
        }
    }
    app.drain();
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(limits.drain, all).await.is_err() {
        tracing::warn!("running answers are ended");
        app.scheduler.shutdown();
        let _ = timeout(LAST_WORDS, async { while tasks.join_next().await.is_some() {} }).await;
    }
    app.scheduler.shutdown();
}

/// One connection, from its first byte to its last.
async fn connection(stream: TcpStream, entered: Entered, routes: Router, limits: Limits, mut draining: watch::Receiver<bool>) {
    // Tokens are small, and each is to be seen as it comes.
    let _ = stream.set_nodelay(true);
    let entered = &entered;
    let service = service_fn(move |request: Request<Incoming>| {
        let routes = routes.clone();
        let busy = entered.begin_request();
        async move {
            let response = routes.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {});
            let busy_until_written = |body| Body::new(BusyBody { body, _busy: busy });
            Ok::<Response<Body>, Infallible>(response.map(busy_until_written))
        }
    });
    let io = TokioIo::new(Patient::new(stream, limits.write_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEAD_BYTES)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let mut asked_to_end = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!("a connection ended: {error}");
                }
                return;
            }
            _ = draining.wait_for(|draining| *draining), if !asked_to_end => {
                asked_to_end = true;
                connection.as_mut().graceful_shutdown();
            }
            () = entered.must_close() => return,
        }
    }
}

/// All connections are busy.
async fn turn_away(stream: TcpStream) {
    const BODY: &str = r#"{"error":{"message":"too many connections are busy","type":"server_error","param":null,"code":"overloaded"}}"#;
    let head = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-type: application/json\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    // A fresh socket takes this much at once; one that does not is not worth waiting for.
    let _ = timeout(Duration::from_secs(1), stream.writable()).await.map(|_| stream.try_write(answer.as_bytes()));
}

/// Ctrl-C, and what service managers send.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(unix)]
    async fn pass_on_to(mut self, stopper: Stopper) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            stopper.stop();
        }
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn pass_on_to(self, stopper: Stopper) {
        while tokio::signal::ctrl_c().await.is_ok() {
            stopper.stop();
        }
    }
}
