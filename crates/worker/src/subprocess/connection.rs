//! One child process and the pipe to it: calls are told apart by number, and end with the child at the latest.
//!
//! Owns the process, from its start until it is reaped, and three threads: one writes, one reads and reaps, one drains stderr.
//! Nothing here blocks on the child: what it does not read waits in a bounded queue.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::exit::{Death, diagnose};
use super::inbox::{Inbox, Received};
use super::oom::{Mark, OomKills};
use super::outbox::Outbox;
use super::spawner;
use super::stderr::Tail;
use crate::wire::{self, BUILD, ChildRole, FromWorker, MAX_FRAME_BYTES, PROTOCOL, ToWorker, WireError};
use crate::{Device, Failure, FailureKind, RequestId, ResidentMemory, Stage, Stats, lock, platform};

/// A child that has closed its pipe is given this long to end.
const GRACE: Duration = Duration::from_secs(2);

/// Why the parent ends a child.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    kind: FailureKind,
    reason: String,
}

impl Stop {
    pub fn new(kind: FailureKind, reason: &str) -> Self {
        Self { kind, reason: reason.to_owned() }
    }
}

/// A child process; dropping it kills and reaps it.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    /// Disconnected when the child is reaped and every call has ended.
    buried: Mutex<Receiver<()>>,
}

struct Shared {
    model: String,
    /// Its memory is bounded by us, and by nothing tighter: when it runs out, what it reads is to blame.
    limited: bool,
    child: Mutex<Child>,
    outbox: Outbox,
    calls: Mutex<Calls>,
    stats: Mutex<Stats>,
    /// Why the parent has killed the child, if it has.
    stopped: Mutex<Option<Stop>>,
    tail: Tail,
    oom_kills: Arc<OomKills>,
    mark: Mark,
    /// A SIGKILL of this child is to be taken for the kernel's.
    plays_oom_kill: bool,
}

#[derive(Default)]
struct Calls {
    last: u64,
    open: HashMap<u64, Arc<Inbox>>,
    /// Requests that run, by the number of their call.
    requests: BTreeMap<u64, RequestId>,
    /// The request that ended last.
    ended: Option<RequestId>,
    death: Option<Death>,
}

impl Connection {
    /// Starts the child that `command` describes.
    pub fn open(
        mut command: Command,
        model: &str,
        role: ChildRole,
        oom_kills: &Arc<OomKills>,
        plays_oom_kill: bool,
    ) -> Result<Arc<Self>, Failure> {
        let program = command.get_program().display().to_string();
        let failed = |error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => FailureKind::OutOfMemory,
                _ => FailureKind::Crashed,
            };
            Failure::new(kind, Stage::Load, format!("the worker process {program} could not be started: {error}"))
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        platform::configure(&mut command);
        let mark = oom_kills.mark();
        let mut child = spawner::spawn(command).map_err(failed)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let shared = Arc::new(Shared {
            model: model.to_owned(),
            limited: matches!(role, ChildRole::Reader { memory_bytes, .. } if !platform::has_less_memory_than(memory_bytes)),
            child: Mutex::new(child),
            outbox: Outbox::default(),
            calls: Mutex::default(),
            stats: Mutex::new(Stats { device: Device::Cpu, context: 0, active_requests: 0, used_positions: 0, steps: 0 }),
            stopped: Mutex::default(),
            tail: Tail::default(),
            oom_kills: Arc::clone(oom_kills),
            mark,
            plays_oom_kill,
        });
        // From here on a failure drops the connection, which kills and reaps the child.
        let (burial, buried) = channel::<()>();
        let connection = Self { shared, buried: Mutex::new(buried) };
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(failed(io::ErrorKind::BrokenPipe.into())) };
        let (drained, is_drained) = channel::<()>();
        connection
            .spawn("worker-stderr", move |shared| {
                shared.tail.drain(stderr, &shared.model, || shared.requests());
                drop(drained);
            })
            .map_err(failed)?;
        connection.spawn("worker-writer", move |shared| shared.outbox.write_to(stdin)).map_err(failed)?;
        let read = move |shared: &Shared| {
            shared.read(stdout, &is_drained);
            drop(burial);
        };
        connection.spawn("worker-reader", read).map_err(failed)?;
        connection.tell(0, &ToWorker::Open { protocol: PROTOCOL, build: BUILD.into(), role });
        Ok(Arc::new(connection))
    }

    fn spawn(&self, name: &str, body: impl FnOnce(&Shared) + Send + 'static) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name(name.to_owned()).spawn(move || body(&shared)).map(drop)
    }

    /// Opens a call; its failures carry `stage`.
    pub fn call(&self, message: &ToWorker<'_>, stage: Stage) -> Result<Call<'_>, Failure> {
        let number = {
            let mut calls = lock(&self.shared.calls);
            calls.last += 1;
            calls.last
        };
        let frame = wire::encode(number, message).map_err(|error| match error {
            WireError::TooLong(_) => {
                wire::invalid(format!("the request exceeds the {} MiB that a worker process takes", MAX_FRAME_BYTES >> 20))
            }
            error => Failure::new(FailureKind::InvalidRequest, stage, format!("the request cannot be sent to a worker process: {error}")),
        })?;
        let inbox = Arc::new(Inbox::default());
        {
            let mut calls = lock(&self.shared.calls);
            if let Some(death) = &calls.death {
                return Err(death.failure(stage));
            }
            calls.open.insert(number, Arc::clone(&inbox));
        }
        if !self.shared.outbox.put(frame) {
            lock(&self.shared.calls).open.remove(&number);
            return Err(Failure::new(FailureKind::Stalled, stage, "the worker process does not read what it is sent"));
        }
        Ok(Call { connection: self, number, inbox, stage, request: None, closed: false })
    }

    /// Sends what has no answer. It is lost if the child does not read, as it is then lost itself.
    pub fn tell(&self, call: u64, message: &ToWorker<'_>) {
        if let Ok(frame) = wire::encode(call, message) {
            self.shared.outbox.put(frame);
        }
    }

    pub fn stop(&self, why: Stop) {
        self.shared.stop(why);
    }

    pub fn is_alive(&self) -> bool {
        lock(&self.shared.calls).death.is_none()
    }

    /// Whether the child has ended by itself and without complaint.
    pub fn went_idle(&self) -> bool {
        lock(&self.shared.calls).death.as_ref().is_some_and(|death| death.quiet)
    }

    pub fn note(&self, stats: Stats) {
        *lock(&self.shared.stats) = stats;
    }

    /// The last gauges that the child has sent, with the number of calls that are open here.
    pub fn stats(&self) -> Stats {
        let active_requests = lock(&self.shared.calls).open.len();
        Stats { active_requests, ..lock(&self.shared.stats).clone() }
    }

    pub fn resident(&self) -> Option<ResidentMemory> {
        let mut child = lock(&self.shared.child);
        // Until it is reaped, its number is nobody else's.
        match child.try_wait() {
            Ok(None) => platform::memory_of(child.id()),
            _ => None,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.stop(Stop::new(FailureKind::Crashed, "it is no longer needed"));
        let buried = self.buried.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A process that cannot even be killed (it waits for a disk) is reaped later, by the thread that reads.
        if buried.recv_timeout(GRACE) == Err(RecvTimeoutError::Disconnected) && self.is_alive() {
            // That thread could not be started.
            let _ = self.shared.reap();
        }
        self.shared.outbox.close();
    }
}

impl Shared {
    /// The requests that run, for the log; where none does, the last one, as its end may be known before its last words are read.
    fn requests(&self) -> String {
        let calls = lock(&self.calls);
        let ids: Vec<String> = if calls.requests.is_empty() {
            calls.ended.iter().map(RequestId::to_string).collect()
        } else {
            calls.requests.values().map(RequestId::to_string).collect()
        };
        ids.join(",")
    }

    /// Kills the child. The first reason is the one that counts.
    fn stop(&self, why: Stop) {
        lock(&self.stopped).get_or_insert(why);
        // Fails only for a child that is dead already.
        let _ = lock(&self.child).kill();
    }

    /// Reads until the pipe ends or can no longer be trusted, then buries the child.
    fn read(&self, stdout: impl Read, is_drained: &Receiver<()>) {
        let mut stdout = BufReader::new(stdout);
        let mut greeted = false;
        let complaint = loop {
            match wire::read::<FromWorker>(&mut stdout) {
                Ok(Some((call, message))) => {
                    if let Err(complaint) = self.take(call, message, &mut greeted) {
                        break Some(complaint);
                    }
                }
                Ok(None) | Err(WireError::Gone(_)) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        if let Some(complaint) = complaint {
            self.stop(Stop::new(FailureKind::Protocol, &complaint));
        }
        drop(stdout);
        let status = self.reap();
        // A grandchild may hold stderr open: its words are not waited for.
        let _ = is_drained.recv_timeout(Duration::from_millis(200));
        self.bury(self.cause_of_death(status));
    }

    /// Hands a message to its call; says what is wrong with it if the child cannot be trusted any more.
    fn take(&self, number: u64, message: FromWorker, greeted: &mut bool) -> Result<(), String> {
        match message {
            FromWorker::Ready { protocol, build } if !*greeted => {
                if protocol != PROTOCOL || build != BUILD {
                    return Err(format!("the worker is of build {build} (protocol {protocol}), this program of {BUILD} ({PROTOCOL})"));
                }
                *greeted = true;
                Ok(())
            }
            _ if !*greeted => Err("the first frame is no greeting".to_owned()),
            FromWorker::Heartbeat(stats) => {
                *lock(&self.stats) = stats;
                Ok(())
            }
            FromWorker::Failure(failure) if number == 0 => Err(failure.message),
            message => {
                let mut calls = lock(&self.calls);
                let inbox = if message.closes() { calls.open.remove(&number) } else { calls.open.get(&number).cloned() };
                drop(calls);
                let inbox = inbox.ok_or_else(|| format!("an answer to call {number}, which is not open"))?;
                let closes = message.closes();
                let had_room = inbox.put(message);
                if closes {
                    inbox.end();
                }
                if had_room { Ok(()) } else { Err(format!("call {number} gets more than was asked for")) }
            }
        }
    }

    /// Waits for a child that is dead or about to be, and no longer than [`GRACE`] for one that is not.
    fn reap(&self) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + GRACE;
        let mut pause = Duration::from_micros(100);
        loop {
            {
                let mut child = lock(&self.child);
                if let Some(status) = child.try_wait()? {
                    return Ok(status);
                }
                if Instant::now() > deadline {
                    lock(&self.stopped).get_or_insert(Stop::new(FailureKind::Protocol, "it closed its pipe and lived on"));
                    child.kill()?;
                }
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn cause_of_death(&self, status: io::Result<ExitStatus>) -> Death {
        if let Some(Stop { kind, reason }) = lock(&self.stopped).clone() {
            let message = match kind {
                FailureKind::Protocol => format!("the worker process broke the protocol and was stopped: {reason}"),
                _ => format!("the worker process was killed: {reason}"),
            };
            return Death { kind, message, quiet: false };
        }
        let ending = status.map_or(platform::Ending::Unknown, platform::describe);
        let is_kill = matches!(ending, platform::Ending::Signal { is_kill: true, .. });
        let oom_killed = is_kill && (self.plays_oom_kill || self.oom_kills.explain_death_since(self.mark));
        diagnose(&ending, oom_killed, &self.tail.words(), self.limited)
    }

    /// Ends every call, now and later.
    fn bury(&self, death: Death) {
        let mut calls = lock(&self.calls);
        calls.death = Some(death);
        let open = std::mem::take(&mut calls.open);
        drop(calls);
        open.values().for_each(|inbox| inbox.end());
        self.outbox.close();
    }
}

/// One question and its answers.
pub(crate) struct Call<'a> {
    connection: &'a Connection,
    number: u64,
    inbox: Arc<Inbox>,
    /// Where a failure is to be placed from now on.
    pub stage: Stage,
    /// The request to cancel if the call is given up.
    request: Option<RequestId>,
    closed: bool,
}

impl Call<'_> {
    /// The call answers this request: it is cancelled if the call is given up, and named in the log.
    pub fn is_for(&mut self, request: RequestId) {
        self.request = Some(request);
        lock(&self.connection.shared.calls).requests.insert(self.number, request);
    }

    /// The next answer; a failure, the child's death included, is an `Err`.
    pub fn next(&mut self) -> Result<FromWorker, Failure> {
        self.next_until(None)
    }

    /// The one answer of a call that has one.
    pub fn only_answer(mut self, until: Option<Instant>) -> Result<FromWorker, Failure> {
        self.next_until(until)
    }

    /// Sends what belongs to this call and has no answer.
    pub fn tell(&self, message: &ToWorker<'_>) {
        self.connection.tell(self.number, message);
    }

    fn next_until(&mut self, until: Option<Instant>) -> Result<FromWorker, Failure> {
        match self.inbox.next(until) {
            Received::Message(message) => {
                self.closed = message.closes();
                match message {
                    FromWorker::Failure(failure) => Err(failure),
                    message => Ok(message),
                }
            }
            Received::TimedOut => Err(Failure::new(FailureKind::Timeout, self.stage, "no answer in time")),
            Received::Ended => {
                self.closed = true;
                let calls = lock(&self.connection.shared.calls);
                let gone = || Failure::new(FailureKind::Crashed, self.stage, "the worker process is gone");
                Err(calls.death.as_ref().map_or_else(gone, |death| death.failure(self.stage)))
            }
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.request.is_some() {
            let mut calls = lock(&self.connection.shared.calls);
            calls.requests.remove(&self.number);
            calls.ended = self.request;
        }
        if !self.closed {
            // Its answers still come, and must be known as such.
            self.inbox.abandon();
            if let Some(id) = self.request {
                self.connection.tell(0, &ToWorker::Cancel { id });
            }
        }
    }
}
