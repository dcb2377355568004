//! The parent's side of worker processes: a launcher whose models live in children.
//!
//! Owns which child does what: one per loaded model, short-lived ones that read headers, and a few that keep a vocabulary for
//! counting. This process opens no model file; a hostile one ends a child. Does not own the messages ([`crate::wire`]) or what
//! the child runs ([`crate::serve`]).

mod connection;
mod exit;
mod inbox;
mod oom;
mod outbox;
mod remote;
mod spawner;
mod stderr;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use crate::fault::{FAULT_VARIABLE, Faults};
use crate::wire::{self, ChildRole, FromWorker, ToWorker};
use crate::{
    Device, DeviceMemory, Failure, FailureKind, Launcher, LoadProgress, ModelInfo, ModelSpec, Placement, Request, Stage, Worker, lock,
};
use connection::{Connection, Stop};
use oom::OomKills;
use remote::RemoteWorker;

/// Memory a child may allocate to read a header or build a vocabulary; an honest file needs a fraction.
const READER_MEMORY_BYTES: u64 = 2 << 30;
/// Time to read a header or to count.
const READER_TIMEOUT: Duration = Duration::from_secs(30);
/// A counting child without work ends after this.
const READER_IDLE: Duration = Duration::from_secs(60);
/// Counting children kept at most.
const MAX_COUNTERS: usize = 4;
/// How long free device memory is believed, where a device has memory of its own.
const DEVICES_FRESH: Duration = Duration::from_secs(5);
/// How long devices are not asked for after nobody could list them.
const DEVICES_FAILED: Duration = Duration::from_secs(60);
/// Tells a child how often its model has been launched, this time included.
pub(crate) const LIFE_VARIABLE: &str = "DOWNSHIFT_WORKER_LIFE";

/// Launches each model in a child process: `program args..`, which must call [`crate::serve`] first thing and be of this build.
///
/// A worker's process is killed and reaped when the worker is dropped, and dies with this process. Its stderr goes to
/// `tracing`, target `downshift::worker`, and its last lines into the message of the failure it ends with.
pub struct Subprocess {
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    oom_kills: Arc<OomKills>,
    /// How often each model was launched.
    lives: Mutex<HashMap<String, u32>>,
    /// Children that load, by model.
    loading: Mutex<Vec<(String, Weak<Connection>)>>,
    /// Children that hold a vocabulary, the latest last.
    counters: Mutex<Vec<(FileState, Arc<Connection>)>>,
    devices: Mutex<Option<KnownDevices>>,
}

/// The devices that a child has listed.
struct KnownDevices {
    list: Vec<DeviceMemory>,
    /// When to ask again; `None` where nothing changes.
    until: Option<Instant>,
}

/// What tells whether the files behind a spec are still the same.
type FileState = Vec<(PathBuf, Option<(u64, SystemTime)>)>;

impl Subprocess {
    /// Workers are children that run `program`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            oom_kills: Arc::new(OomKills::of_this_process()),
            lives: Mutex::default(),
            loading: Mutex::default(),
            counters: Mutex::default(),
            devices: Mutex::default(),
        }
    }

    /// Workers are children that run this very program, even if its file has been replaced meanwhile.
    ///
    /// # Errors
    /// Where the system does not tell which program this is.
    pub fn this_program() -> io::Result<Self> {
        let itself = Path::new("/proc/self/exe");
        Ok(Self::new(if itself.exists() { itself.to_owned() } else { std::env::current_exe()? }))
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets a variable in the children's environment.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((key.into(), value.into()));
        self
    }

    fn open(&self, model: &str, role: ChildRole, life: u32) -> Result<Arc<Connection>, Failure> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.envs.iter().map(|(key, value)| (key, value))).env(LIFE_VARIABLE, life.to_string());
        Connection::open(command, model, role, &self.oom_kills, self.plays_oom_kill(model))
    }

    /// Whether a fault on demand stands for the kernel's out-of-memory kill of this model.
    fn plays_oom_kill(&self, model: &str) -> bool {
        let own = self.envs.iter().rev().find(|(key, _)| key == FAULT_VARIABLE);
        let faults = own.map_or_else(Faults::from_env, |(_, rules)| rules.to_string_lossy().parse());
        faults.is_ok_and(|faults| faults.play_oom_kill(model))
    }

    fn reader(&self, model: &str) -> Result<Arc<Connection>, Failure> {
        let idle_ms = READER_IDLE.as_millis() as u64;
        self.open(model, ChildRole::Reader { memory_bytes: READER_MEMORY_BYTES, idle_ms }, 1)
    }

    /// The child that counts for `spec`: the one that has its vocabulary already, or a new one.
    fn counter(&self, spec: &ModelSpec) -> Result<Arc<Connection>, Failure> {
        let state = file_state(spec);
        let mut counters = lock(&self.counters);
        counters.retain(|(_, connection)| connection.is_alive());
        if let Some(at) = counters.iter().position(|(known, _)| *known == state) {
            let found = counters.remove(at);
            let connection = Arc::clone(&found.1);
            counters.push(found);
            return Ok(connection);
        }
        let connection = self.reader(&spec.name)?;
        let oldest = (counters.len() >= MAX_COUNTERS).then(|| counters.remove(0));
        counters.push((state, Arc::clone(&connection)));
        drop(counters);
        drop(oldest);
        Ok(connection)
    }
}

impl Launcher for Subprocess {
    fn inspect(&self, spec: &ModelSpec) -> Result<ModelInfo, Failure> {
        let portable = wire::portable_spec(spec)?;
        let connection = self.reader(&spec.name)?;
        match ask_reader(&connection, &ToWorker::Inspect { spec: portable })? {
            FromWorker::Info(info) => Ok(*info),
            other => Err(unexpected(&other, Stage::Load)),
        }
    }

    fn count(&self, spec: &ModelSpec, request: &Request) -> Result<usize, Failure> {
        let message = ToWorker::Count { spec: wire::portable_spec(spec)?, request: Box::new(wire::portable_request(request)?) };
        let connection = self.counter(spec)?;
        let mut answer = ask_reader(&connection, &message);
        if answer.is_err() && connection.went_idle() {
            // It had decided to end when the question came.
            let connection = self.counter(spec)?;
            answer = ask_reader(&connection, &message);
        }
        match answer? {
            FromWorker::Counted(tokens) => Ok(tokens),
            other => Err(unexpected(&other, Stage::Admission)),
        }
    }

    fn launch(&self, spec: &ModelSpec, placement: &Placement, progress: LoadProgress<'_>) -> Result<Arc<dyn Worker>, Failure> {
        let portable = wire::portable_spec(spec)?;
        let life = {
            let mut lives = lock(&self.lives);
            let life = lives.entry(spec.name.clone()).or_insert(0);
            *life = life.saturating_add(1);
            *life
        };
        let connection = self.open(&spec.name, ChildRole::Model, life)?;
        {
            let mut loading = lock(&self.loading);
            loading.retain(|(_, connection)| connection.strong_count() > 0);
            loading.push((spec.name.clone(), Arc::downgrade(&connection)));
        }
        let loaded = RemoteWorker::load(&connection, portable, *placement, progress);
        lock(&self.loading).retain(|(_, loading)| !std::ptr::eq(loading.as_ptr(), Arc::as_ptr(&connection)));
        let worker: Arc<dyn Worker> = Arc::new(loaded?);
        Ok(worker)
    }

    fn abort(&self, model: &str) {
        let given_up: Vec<_> =
            lock(&self.loading).iter().filter(|(name, _)| name == model).filter_map(|(_, connection)| connection.upgrade()).collect();
        for connection in given_up {
            connection.stop(Stop::new(FailureKind::Stalled, "its launch was given up because it made no progress"));
        }
    }

    fn devices(&self) -> Vec<DeviceMemory> {
        let mut devices = lock(&self.devices);
        if let Some(known) = devices.as_ref().filter(|known| known.until.is_none_or(|until| Instant::now() < until)) {
            return known.list.clone();
        }
        let asked = self.open("devices", ChildRole::Model, 1).and_then(|connection| ask_reader(&connection, &ToWorker::Devices));
        let known = match asked {
            Ok(FromWorker::Devices(list)) if !list.is_empty() => {
                let changes = list.iter().any(|device| device.own_bytes.is_some());
                KnownDevices { list, until: changes.then(|| Instant::now() + DEVICES_FRESH) }
            }
            other => {
                tracing::warn!(?other, "a worker process cannot list the devices; the CPU remains");
                let list = vec![DeviceMemory { device: Device::Cpu, own_bytes: None }];
                KnownDevices { list, until: Some(Instant::now() + DEVICES_FAILED) }
            }
        };
        devices.insert(known).list.clone()
    }
}

impl std::fmt::Debug for Subprocess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subprocess").field("program", &self.program).field("args", &self.args).finish_non_exhaustive()
    }
}

/// Asks a child that reads files one thing, within its time.
fn ask_reader(connection: &Connection, message: &ToWorker<'_>) -> Result<FromWorker, Failure> {
    let answer = connection.call(message, Stage::Load)?.only_answer(Some(Instant::now() + READER_TIMEOUT));
    if answer.as_ref().is_err_and(|failure| failure.kind == FailureKind::Timeout) {
        let reason = format!("reading its header and vocabulary took longer than {} s", READER_TIMEOUT.as_secs());
        connection.stop(Stop::new(FailureKind::Stalled, &reason));
        return Err(Failure::new(FailureKind::Stalled, Stage::Load, reason));
    }
    answer
}

fn unexpected(answer: &FromWorker, stage: Stage) -> Failure {
    let name = format!("{answer:?}");
    let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    Failure::new(FailureKind::Protocol, stage, format!("the worker answered another question: {name}"))
}

fn file_state(spec: &ModelSpec) -> FileState {
    let state = |path: &PathBuf| {
        let known = std::fs::metadata(path).ok().and_then(|data| Some((data.len(), data.modified().ok()?)));
        (path.clone(), known)
    };
    std::iter::once(&spec.path).chain(&spec.chat_template).map(state).collect()
}
