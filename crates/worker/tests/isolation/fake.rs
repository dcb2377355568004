//! A launcher without a model: an answer is the words of the prompt, and some words do what models do when they fail.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use downshift_worker::{
    Completion, Delta, Device, DeviceMemory, Embedded, Failure, FailureKind, FinishReason, Footprint, Input, Launcher, LoadProgress,
    ModelInfo, ModelKind, ModelSpec, Placement, Prompt, Request, RequestId, Sink, Stage, Stats, Timings, Usage, Worker,
};

/// A spec of the fake; its name says how loading goes.
pub fn spec(name: &str) -> ModelSpec {
    ModelSpec { name: name.to_owned(), ..ModelSpec::from_path("/nowhere/fake.gguf") }
}

/// A request to say `words`.
pub fn request(id: u64, words: &str) -> Request {
    Request::new(RequestId(id), Input::Completion(Prompt::Text(words.to_owned())))
}

/// A sink that joins the text.
pub fn collect(text: &mut String) -> impl FnMut(Delta) -> ControlFlow<()> + Send {
    |delta| {
        text.push_str(&delta.text);
        ControlFlow::Continue(())
    }
}

pub struct Fake;

impl Launcher for Fake {
    fn inspect(&self, spec: &ModelSpec) -> Result<ModelInfo, Failure> {
        match spec.name.as_str() {
            "missing" => return Err(Failure::new(FailureKind::Missing, Stage::Load, "there is no file /nowhere/fake.gguf")),
            "crash" => std::process::abort(),
            "greedy" => drop(std::hint::black_box(vec![1_u8; 3 << 30])),
            _ => {}
        }
        Ok(ModelInfo {
            kind: ModelKind::Chat,
            architecture: "fake".to_owned(),
            title: None,
            parameters: 7,
            dtype: "F32".to_owned(),
            context_train: 4096,
            vocab_size: 256,
            dimension: None,
            has_chat_template: false,
            calls_tools: false,
            infills: true,
            footprint: Footprint { weights_bytes: u64::MAX, program_bytes: 1, kv_bytes_per_position: 2, scratch_bytes: 3, fixed_bytes: 4 },
        })
    }

    fn count(&self, spec: &ModelSpec, request: &Request) -> Result<usize, Failure> {
        if spec.name == "pid" {
            return Ok(std::process::id() as usize);
        }
        Ok(text_of(&request.input)?.split_whitespace().count())
    }

    fn launch(&self, spec: &ModelSpec, placement: &Placement, progress: LoadProgress<'_>) -> Result<Arc<dyn Worker>, Failure> {
        for done in 0..=4 {
            progress(done * 16, 64);
        }
        match spec.name.as_str() {
            "corrupt" => return Err(Failure::new(FailureKind::Corrupt, Stage::Load, "tensor `x` overlaps tensor `y`")),
            "panic" => panic!("while loading"),
            "abort" => std::process::abort(),
            "hang" => hang(),
            "exit" => std::process::exit(7),
            _ => {}
        }
        Ok(Arc::new(FakeWorker { placement: *placement, ..FakeWorker::default() }))
    }

    fn devices(&self) -> Vec<DeviceMemory> {
        vec![DeviceMemory { device: Device::Cuda(3), own_bytes: Some(5) }, DeviceMemory { device: Device::Cpu, own_bytes: None }]
    }
}

pub struct FakeWorker {
    placement: Placement,
    steps: AtomicU64,
    active: AtomicUsize,
    threads: AtomicUsize,
    cancelled: Mutex<HashMap<RequestId, Arc<AtomicBool>>>,
    /// How many requests have come to the word `meet`.
    met: (Mutex<usize>, Condvar),
    changed: Condvar,
}

impl Default for FakeWorker {
    fn default() -> Self {
        Self {
            placement: Placement { device: Device::Cpu, context: 0, threads: 0 },
            steps: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            threads: AtomicUsize::new(0),
            cancelled: Mutex::default(),
            met: Default::default(),
            changed: Condvar::new(),
        }
    }
}

impl FakeWorker {
    /// What the word `word` becomes.
    fn say(&self, word: &str, flag: &AtomicBool) -> Result<String, Failure> {
        match word {
            "pid" => return Ok(std::process::id().to_string()),
            "threads" => return Ok(self.threads.load(Ordering::SeqCst).to_string()),
            "segv" => raise("SEGV"),
            "bus" => raise("BUS"),
            "kill" => raise("KILL"),
            "abort" => std::process::abort(),
            "panic" => panic!("on purpose"),
            "hang" => hang(),
            "print" => print_garbage(),
            "flood" => flood_stderr(),
            "alloc" => drop(std::hint::black_box(vec![1_u8; usize::MAX >> 2])),
            "gorge" => drop(std::hint::black_box(vec![1_u8; 1 << 30])),
            "nan" => return Err(Failure::new(FailureKind::NonFinite, Stage::Decode, "NaN in the logits")),
            "meet" => {
                let mut met = self.met.0.lock().unwrap();
                *met += 1;
                self.met.1.notify_all();
                drop(self.met.1.wait_while(met, |met| *met < 2).unwrap());
            }
            "wait" => {
                let requests = self.cancelled.lock().unwrap();
                drop(self.changed.wait_while(requests, |_| !flag.load(Ordering::SeqCst)).unwrap());
            }
            _ => {}
        }
        Ok(format!("{word} "))
    }
}

impl Worker for FakeWorker {
    fn generate(&self, request: &Request, sink: &mut dyn Sink) -> Result<Completion, Failure> {
        let text = text_of(&request.input)?;
        let flag = Arc::new(AtomicBool::new(false));
        self.cancelled.lock().unwrap().insert(request.id, Arc::clone(&flag));
        self.active.fetch_add(1, Ordering::SeqCst);
        let mut said = 0;
        let forever = text.ends_with("forever");
        let mut words = text.split_whitespace();
        let outcome = loop {
            let Some(word) = words.next().or(forever.then_some("again")) else { break Ok(()) };
            self.steps.fetch_add(1, Ordering::SeqCst);
            let text = match self.say(word, &flag) {
                Ok(text) => text,
                Err(failure) => break Err(failure),
            };
            let cancelled = flag.load(Ordering::SeqCst);
            if cancelled || sink.send(Delta { text, token_ids: vec![said], ..Delta::default() }).is_break() {
                break Err(Failure::new(FailureKind::Cancelled, Stage::Decode, "cancelled"));
            }
            said += 1;
        };
        self.active.fetch_sub(1, Ordering::SeqCst);
        self.cancelled.lock().unwrap().remove(&request.id);
        outcome.map(|()| Completion {
            finish_reason: FinishReason::Stop,
            usage: Usage { prompt_tokens: 1, completion_tokens: said },
            timings: Timings { prompt_ms: 0.1, ..Timings::default() },
            stop_index: None,
        })
    }

    fn embed(&self, inputs: &[Prompt]) -> Result<Embedded, Failure> {
        let length = |input: &Prompt| match input {
            Prompt::Text(text) => text.len(),
            Prompt::Tokens(token_ids) => token_ids.len(),
        };
        let vector = |input| vec![length(input) as f32, 0.1, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE];
        let prompt_tokens = inputs.iter().map(length).sum::<usize>() as u32;
        Ok(Embedded { vectors: inputs.iter().map(vector).collect(), prompt_tokens })
    }

    fn tokenize(&self, text: &str, special: bool) -> Result<Vec<u32>, Failure> {
        Ok(text.bytes().map(u32::from).chain(special.then_some(256)).collect())
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String, Failure> {
        let bytes = ids.iter().map(|id| u8::try_from(*id)).collect::<Result<Vec<_>, _>>();
        let bytes = bytes.map_err(|_| Failure::new(FailureKind::InvalidRequest, Stage::Admission, "no such token"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn apply_template(&self, input: &Input) -> Result<String, Failure> {
        text_of(input)
    }

    fn cancel(&self, id: RequestId) {
        if let Some(flag) = self.cancelled.lock().unwrap().get(&id) {
            flag.store(true, Ordering::SeqCst);
            self.changed.notify_all();
        }
    }

    fn set_threads(&self, threads: usize) {
        self.threads.store(threads, Ordering::SeqCst);
    }

    fn stats(&self) -> Stats {
        Stats {
            device: self.placement.device,
            context: self.placement.context,
            active_requests: self.active.load(Ordering::SeqCst),
            used_positions: 1,
            steps: self.steps.load(Ordering::SeqCst),
        }
    }
}

fn text_of(input: &Input) -> Result<String, Failure> {
    match input {
        Input::Completion(Prompt::Text(text)) => Ok(text.clone()),
        Input::Infill { prefix: Prompt::Text(prefix), suffix } => Ok(format!("{prefix}_{suffix}")),
        Input::Chat { messages, .. } => Ok(messages.iter().map(|message| format!("{:?}:{} ", message.role, message.content)).collect()),
        Input::Completion(Prompt::Tokens(_)) | Input::Infill { .. } => {
            Err(Failure::new(FailureKind::CannotDo, Stage::Admission, "ids of another vocabulary"))
        }
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

#[allow(clippy::print_stdout)]
fn print_garbage() {
    println!("{{\"garbage\": 1}}\u{0}\u{0}\u{0}\u{0} a library prints what it likes");
}

#[allow(clippy::print_stderr)]
fn flood_stderr() {
    let line = "x".repeat(1023);
    for _ in 0..10 << 10 {
        eprintln!("{line}");
    }
}

#[cfg(unix)]
fn raise(name: &str) -> ! {
    use rustix::process::{Signal, getpid, kill_process};
    let signal = match name {
        "SEGV" => Signal::SEGV,
        "BUS" => Signal::BUS,
        _ => Signal::KILL,
    };
    // The first one may only remove the handler of Rust's run time.
    loop {
        let _ = kill_process(getpid(), signal);
        std::thread::yield_now();
    }
}

#[cfg(not(unix))]
fn raise(_name: &str) -> ! {
    std::process::abort()
}
