//! A launcher without models and a clock without time: what each model does is scripted, and every call is noted.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use downshift_scheduler::config::HfCache;
use downshift_scheduler::room::Probe;
use downshift_scheduler::{Answer, Attempt, Bell, Clock, Config, Environment, Event, Options, Refused, Scheduler, Submission};
use downshift_worker::*;

/// Time that only moves when a test or a fake moves it.
#[derive(Default)]
pub struct FakeClock {
    now: Mutex<Duration>,
    bells: Mutex<Vec<Weak<Bell>>>,
}

impl FakeClock {
    pub fn advance(&self, by: Duration) {
        *self.now.lock().unwrap() += by;
        let bells: Vec<_> = self.bells.lock().unwrap().iter().filter_map(Weak::upgrade).collect();
        bells.iter().for_each(|bell| bell.ring());
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn wait(&self, bell: &Arc<Bell>, heard: u64, deadline: Option<Duration>) {
        {
            let mut bells = self.bells.lock().unwrap();
            bells.retain(|known| known.strong_count() > 0 && !known.ptr_eq(&Arc::downgrade(bell)));
            bells.push(Arc::downgrade(bell));
        }
        if deadline.is_none_or(|deadline| self.now() < deadline) {
            bell.wait(heard, None);
        }
    }
}

/// What a load does.
#[derive(Clone, Debug)]
pub enum Load {
    Ok,
    Fail(FailureKind),
    Panic,
    /// Lets this much time pass with progress every second, then loads.
    Slow(u64),
    /// Lets this many seconds pass without progress and never returns until aborted.
    Hang(u64),
    /// Waits until [`Fake::open`].
    Gate,
}

/// What an answer does after `tokens` tokens.
#[derive(Clone, Debug)]
pub struct Act {
    pub tokens: usize,
    /// Seconds that pass before each token.
    pub pace: f32,
    pub then: Then,
}

#[derive(Clone, Debug)]
pub enum Then {
    End,
    Fail(FailureKind),
    Panic,
    /// Lets this many seconds pass, then waits to be cancelled or killed.
    Hang(u64),
    /// As `Hang`, but deaf to cancellation: only `kill` helps.
    Deaf(u64),
    /// Waits until [`Fake::open`], then ends.
    Gate,
    /// Ends; all tokens were the same.
    Repeat,
}

pub fn after(tokens: usize, then: Then) -> Act {
    Act { tokens, pace: 0.0, then }
}

/// The piece that stands for a token, by its number.
type Say = fn(usize) -> Delta;

/// Scripts by model; what is not scripted works.
pub struct Fake {
    pub clock: Arc<FakeClock>,
    pub kinds: Mutex<HashMap<String, ModelKind>>,
    /// Models that fill gaps; by default none does.
    pub infilling: Mutex<Vec<String>>,
    pub footprints: Mutex<HashMap<String, Footprint>>,
    /// What workers are found to have resident; by default they do not know.
    pub resident: Mutex<HashMap<String, ResidentMemory>>,
    pub inspects: Mutex<HashMap<String, VecDeque<FailureKind>>>,
    pub loads: Mutex<HashMap<String, VecDeque<Load>>>,
    pub acts: Mutex<HashMap<String, VecDeque<Act>>>,
    pub counts: Mutex<HashMap<String, usize>>,
    /// What a model sends for a token, where that is not text.
    pub says: Mutex<HashMap<String, Say>>,
    pub devices: Mutex<Vec<DeviceMemory>>,
    /// Where `/proc` and `/sys` of the fake machine lie.
    pub root: tempfile::TempDir,
    pub log: Mutex<Vec<String>>,
    pub requests: Mutex<Vec<Request>>,
    gate: Mutex<bool>,
    gate_changed: Condvar,
    aborted: Mutex<Vec<String>>,
    aborts: Condvar,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::default(),
            kinds: Mutex::default(),
            infilling: Mutex::default(),
            footprints: Mutex::default(),
            resident: Mutex::default(),
            inspects: Mutex::default(),
            loads: Mutex::default(),
            acts: Mutex::default(),
            counts: Mutex::default(),
            says: Mutex::default(),
            devices: Mutex::new(vec![DeviceMemory { device: Device::Cpu, own_bytes: None }]),
            root: tempfile::tempdir().unwrap(),
            log: Mutex::default(),
            requests: Mutex::default(),
            gate: Mutex::default(),
            gate_changed: Condvar::new(),
            aborted: Mutex::default(),
            aborts: Condvar::new(),
        })
    }

    /// The machine has this many MiB of memory available.
    pub fn memory(&self, mib: u64) {
        let proc = self.root.path().join("proc");
        std::fs::create_dir_all(&proc).unwrap();
        std::fs::write(proc.join("meminfo"), format!("MemTotal: {} kB\nMemAvailable: {} kB\n", 64 << 20, mib << 10)).unwrap();
    }

    /// `model` has weights of this many MiB and needs `kv_mib` more for its context of 4096.
    pub fn size(&self, model: &str, weights_mib: u64, kv_mib: u64) {
        let footprint =
            Footprint { weights_bytes: weights_mib << 20, kv_bytes_per_position: (kv_mib << 20) / 4096, ..Footprint::default() };
        self.footprints.lock().unwrap().insert(model.to_owned(), footprint);
    }

    pub fn inspect_fails(&self, model: &str, kinds: impl IntoIterator<Item = FailureKind>) {
        self.inspects.lock().unwrap().entry(model.to_owned()).or_default().extend(kinds);
    }

    pub fn load(&self, model: &str, loads: impl IntoIterator<Item = Load>) {
        self.loads.lock().unwrap().entry(model.to_owned()).or_default().extend(loads);
    }

    pub fn act(&self, model: &str, acts: impl IntoIterator<Item = Act>) {
        self.acts.lock().unwrap().entry(model.to_owned()).or_default().extend(acts);
    }

    pub fn open(&self) {
        *self.gate.lock().unwrap() = true;
        self.gate_changed.notify_all();
    }

    fn pass_gate(&self) {
        drop(self.gate_changed.wait_while(self.gate.lock().unwrap(), |open| !*open).unwrap());
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn count_of(&self, line: &str) -> usize {
        self.log().iter().filter(|entry| *entry == line).count()
    }

    fn note(&self, line: impl Into<String>) {
        self.log.lock().unwrap().push(line.into());
    }

    /// A scheduler over models `a`, `b`, `c` unless `text` says otherwise.
    pub fn scheduler(self: &Arc<Self>, text: &str) -> Scheduler {
        self.scheduler_with(text, Arc::new(FakeLauncher(self.clone())))
    }

    /// As [`Fake::scheduler`], over a launcher that wraps the fake one.
    pub fn scheduler_with(&self, text: &str, launcher: Arc<dyn Launcher>) -> Scheduler {
        let environment = Environment { clock: self.clock.clone(), probe: Probe::at(self.root.path()) };
        Scheduler::with_environment(config(text), launcher, environment)
    }
}

pub const ABC: &str = "[models.a]\npath = \"a\"\n[models.b]\npath = \"b\"\n[models.c]\npath = \"c\"\n";

pub fn config(text: &str) -> Config {
    Config::from_text(text, Path::new("no such folder"), &HfCache { hub: "no such cache".into() }).unwrap()
}

pub struct FakeLauncher(pub Arc<Fake>);

impl Launcher for FakeLauncher {
    fn inspect(&self, spec: &ModelSpec) -> Result<ModelInfo, Failure> {
        if let Some(kind) = self.0.inspects.lock().unwrap().get_mut(&spec.name).and_then(VecDeque::pop_front) {
            return Err(Failure::new(kind, Stage::Load, format!("{}: scripted", spec.name)));
        }
        let kind = self.0.kinds.lock().unwrap().get(&spec.name).copied().unwrap_or(ModelKind::Chat);
        let footprint = self.0.footprints.lock().unwrap().get(&spec.name).copied().unwrap_or_default();
        Ok(ModelInfo {
            kind,
            architecture: "fake".to_owned(),
            title: None,
            parameters: 1,
            dtype: "F16".to_owned(),
            context_train: 4096,
            vocab_size: 32,
            dimension: None,
            has_chat_template: true,
            calls_tools: true,
            infills: self.0.infilling.lock().unwrap().contains(&spec.name),
            footprint,
        })
    }

    fn count(&self, spec: &ModelSpec, _request: &Request) -> Result<usize, Failure> {
        self.0.note(format!("count {}", spec.name));
        Ok(self.0.counts.lock().unwrap().get(&spec.name).copied().unwrap_or(1))
    }

    fn launch(&self, spec: &ModelSpec, placement: &Placement, progress: LoadProgress<'_>) -> Result<Arc<dyn Worker>, Failure> {
        let fake = &self.0;
        fake.note(format!("load {} on {} with {}", spec.name, placement.device, placement.context));
        let load = fake.loads.lock().unwrap().get_mut(&spec.name).and_then(VecDeque::pop_front).unwrap_or(Load::Ok);
        match load {
            Load::Ok => {}
            Load::Fail(kind) => return Err(Failure::new(kind, Stage::Load, format!("{}: scripted", spec.name))),
            Load::Panic => panic!("scripted"),
            Load::Slow(seconds) => {
                for second in 0..seconds {
                    fake.clock.advance(Duration::from_secs(1));
                    progress(second, seconds);
                }
            }
            Load::Hang(seconds) => {
                fake.clock.advance(Duration::from_secs(seconds));
                let aborted = fake.aborted.lock().unwrap();
                drop(fake.aborts.wait_while(aborted, |aborted| !aborted.contains(&spec.name)).unwrap());
            }
            Load::Gate => {
                progress(1, 2);
                fake.pass_gate();
            }
        }
        Ok(Arc::new(FakeWorker {
            fake: fake.clone(),
            name: spec.name.clone(),
            placement: *placement,
            stopped: Mutex::default(),
            stops: Condvar::new(),
            steps: AtomicU64::new(0),
        }))
    }

    fn abort(&self, model: &str) {
        self.0.note(format!("abort {model}"));
        self.0.aborted.lock().unwrap().push(model.to_owned());
        self.0.aborts.notify_all();
    }

    fn devices(&self) -> Vec<DeviceMemory> {
        self.0.devices.lock().unwrap().clone()
    }
}

#[derive(Default)]
struct Stopped {
    cancelled: Vec<RequestId>,
    killed: bool,
}

struct FakeWorker {
    fake: Arc<Fake>,
    name: String,
    placement: Placement,
    stopped: Mutex<Stopped>,
    stops: Condvar,
    steps: AtomicU64,
}

impl FakeWorker {
    fn wait_until_stopped(&self, id: RequestId, deaf: bool) {
        let stopped = self.stopped.lock().unwrap();
        let running = |stopped: &mut Stopped| !stopped.killed && (deaf || !stopped.cancelled.contains(&id));
        drop(self.stops.wait_while(stopped, running).unwrap());
    }
}

impl Worker for FakeWorker {
    fn resident(&self) -> Option<ResidentMemory> {
        self.fake.resident.lock().unwrap().get(&self.name).copied()
    }

    fn generate(&self, request: &Request, sink: &mut dyn Sink) -> Result<Completion, Failure> {
        let fake = &self.fake;
        fake.note(format!("generate {}", self.name));
        fake.requests.lock().unwrap().push(request.clone());
        let act = fake.acts.lock().unwrap().get_mut(&self.name).and_then(VecDeque::pop_front);
        let act = act.unwrap_or(after(3, Then::End));
        let first = match &request.resume {
            Some(Resume::Tokens { token_ids, .. }) => token_ids.len(),
            Some(Resume::Text { tokens, .. }) => *tokens as usize,
            None => 0,
        };
        let stage = if act.tokens == 0 { Stage::Prefill } else { Stage::Decode };
        for token in first..act.tokens.max(first) {
            fake.clock.advance(Duration::from_secs_f32(act.pace));
            self.steps.fetch_add(1, Ordering::Relaxed);
            let says = fake.says.lock().unwrap().get(&self.name).copied();
            let said = says.map_or_else(|| Delta { text: format!("{}{token} ", self.name), ..Delta::default() }, |says| says(token));
            let delta = Delta { token_ids: vec![if matches!(act.then, Then::Repeat) { 7 } else { token as u32 }], ..said };
            if sink.send(delta).is_break() {
                fake.note(format!("stopped {}", self.name));
                return Err(Failure::new(FailureKind::Cancelled, stage, "the client has left"));
            }
        }
        match act.then {
            Then::End | Then::Repeat => {}
            Then::Fail(kind) => return Err(Failure::new(kind, stage, format!("{}: scripted", self.name))),
            Then::Panic => panic!("scripted"),
            Then::Hang(seconds) | Then::Deaf(seconds) => {
                fake.clock.advance(Duration::from_secs(seconds));
                self.wait_until_stopped(request.id, matches!(act.then, Then::Deaf(_)));
                fake.note(format!("stopped {}", self.name));
                return Err(Failure::new(FailureKind::Cancelled, stage, "stopped"));
            }
            Then::Gate => fake.pass_gate(),
        }
        let usage = Usage { prompt_tokens: 5, completion_tokens: act.tokens as u32 };
        Ok(Completion { finish_reason: FinishReason::Stop, usage, timings: Timings::default(), stop_index: None })
    }

    fn embed(&self, inputs: &[Prompt]) -> Result<Embedded, Failure> {
        self.fake.note(format!("embed {}", self.name));
        let act = self.fake.acts.lock().unwrap().get_mut(&self.name).and_then(VecDeque::pop_front);
        let length = |input: &Prompt| match input {
            Prompt::Text(text) => text.len(),
            Prompt::Tokens(token_ids) => token_ids.len(),
        };
        let vectors = match act.map(|act| act.then) {
            Some(Then::Fail(kind)) => return Err(Failure::new(kind, Stage::Prefill, format!("{}: scripted", self.name))),
            Some(Then::Gate) => inputs.iter().map(|_| vec![f32::NAN]).collect(),
            _ => inputs.iter().map(|input| vec![length(input) as f32, 1.0]).collect(),
        };
        Ok(Embedded { vectors, prompt_tokens: inputs.iter().map(length).sum::<usize>() as u32 })
    }

    fn tokenize(&self, text: &str, _special: bool) -> Result<Vec<u32>, Failure> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String, Failure> {
        Ok(format!("{ids:?}"))
    }

    fn apply_template(&self, input: &Input) -> Result<String, Failure> {
        Ok(format!("{input:?}"))
    }

    fn cancel(&self, id: RequestId) {
        self.stopped.lock().unwrap().cancelled.push(id);
        self.stops.notify_all();
    }

    fn kill(&self) {
        self.fake.note(format!("kill {}", self.name));
        self.stopped.lock().unwrap().killed = true;
        self.stops.notify_all();
    }

    fn set_threads(&self, threads: usize) {
        self.fake.note(format!("threads {} {threads}", self.name));
    }

    fn stats(&self) -> Stats {
        Stats {
            device: self.placement.device,
            context: self.placement.context,
            active_requests: 0,
            used_positions: 0,
            steps: self.steps.load(Ordering::Relaxed),
        }
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.fake.note(format!("drop {}", self.name));
    }
}

/// What a caller got.
#[derive(Debug)]
pub struct Outcome {
    pub result: Result<Answer, Refused>,
    /// The text as it came, with `|` where a model started and `>` where another went on.
    pub text: String,
    /// Deltas that came after the end or before the start; always 0.
    pub failed: Vec<Attempt>,
}

impl Outcome {
    /// Kinds of the attempts, with their models: `a:missing b:corrupt`.
    pub fn attempts(&self) -> String {
        let attempts = match &self.result {
            Ok(answer) => answer.fallback.as_ref().map_or(&[][..], |fallback| &fallback.attempts),
            Err(refused) => &refused.attempts,
        };
        assert_eq!(attempts, self.failed, "events and report tell the same");
        attempts.iter().map(|attempt| format!("{}:{}", attempt.model, attempt.kind.as_str())).collect::<Vec<_>>().join(" ")
    }

    pub fn model(&self) -> &str {
        &self.result.as_ref().expect("an answer").model
    }

    pub fn kind(&self) -> &'static str {
        self.result.as_ref().expect_err("a refusal").failure.kind.as_str()
    }
}

pub fn ask(scheduler: &Scheduler, models: &[&str], options: Options) -> Outcome {
    ask_until(scheduler, models, options, usize::MAX)
}

/// Leaves after `deltas` deltas.
pub fn ask_until(scheduler: &Scheduler, models: &[&str], options: Options, deltas: usize) -> Outcome {
    let request = Request::new(scheduler.next_request_id(), Input::chat(vec![Message::user("hi")]));
    submit(scheduler, request, models, options, deltas)
}

pub fn submit(scheduler: &Scheduler, request: Request, models: &[&str], options: Options, deltas: usize) -> Outcome {
    let mut text = String::new();
    let mut failed = Vec::new();
    let mut seen = 0;
    let submission = Submission { request, models: models.iter().map(|name| (*name).to_owned()).collect(), options };
    let mut listener = |event: Event<'_>| {
        match event {
            Event::Loading { .. } => {}
            Event::Failed(attempt) => failed.push(attempt.clone()),
            Event::Started { model, .. } => text.push_str(&format!("{model}| ")),
            Event::Continued { from, to, reason } => text.push_str(&format!("{from}>{to}({reason}) ")),
            Event::Delta(delta) => {
                text.push_str(&delta.text);
                seen += 1;
                if seen >= deltas {
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    };
    let result = scheduler.submit(submission, &mut listener);
    Outcome { result, text, failed }
}

pub fn streamed() -> Options {
    Options { stream: true, ..Options::default() }
}
