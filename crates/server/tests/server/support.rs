//! Models that say what they are told to, a server over them on a real socket, and a client that sees every byte.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use downshift_scheduler::config::HfCache;
use downshift_scheduler::{Config, Scheduler};
use downshift_server::{Limits, ServeOptions, Server, Stopper};
use downshift_worker::*;
use serde_json::Value;

/// What a model does.
#[derive(Clone, Debug)]
pub enum Script {
    /// Says these pieces.
    Says(Vec<Delta>),
    /// Says these pieces, then fails.
    BreaksOff(Vec<Delta>, FailureKind),
    /// Says these pieces, then waits until it is opened or its client has left.
    Waits(Vec<Delta>),
    /// Says words without end.
    Babbles,
    /// Cannot be loaded.
    FailsToLoad(FailureKind),
    /// Loads once it is opened.
    LoadsLate,
    /// Refuses every request with this.
    Refuses(FailureKind),
    /// Makes vectors: the length of the text, and 1.
    Embeds,
}

/// A piece for each word.
pub fn words(text: &str) -> Vec<Delta> {
    let delta = |(at, word): (usize, &str)| Delta { text: word.to_owned(), token_ids: vec![at as u32 + 65], ..Delta::default() };
    text.split_inclusive(' ').enumerate().map(delta).collect()
}

/// A piece of thought.
pub fn thought(text: &str) -> Delta {
    Delta { reasoning: text.to_owned(), token_ids: vec![2], ..Delta::default() }
}

/// A piece of a tool call.
pub fn call(index: u32, name: Option<&str>, arguments: &str) -> Delta {
    let call = ToolCallDelta { index, name: name.map(str::to_owned), arguments: arguments.to_owned() };
    Delta { tool_calls: vec![call], token_ids: vec![3], ..Delta::default() }
}

pub fn says(text: &str) -> Script {
    Script::Says(words(text))
}

/// The models of a test, and what was asked of them.
#[derive(Default)]
pub struct Fake {
    scripts: HashMap<String, Script>,
    pub seen: Mutex<Vec<Request>>,
    gate: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Default)]
struct Gate {
    open: bool,
    cancelled: Vec<RequestId>,
    running: usize,
}

impl Fake {
    pub fn open(&self) {
        self.gate.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    /// Waits until this many requests run on workers.
    pub fn wait_for_running(&self, number: usize) {
        let gate = self.gate.lock().unwrap();
        let (_gate, timed_out) = self.changed.wait_timeout_while(gate, Duration::from_secs(10), |gate| gate.running != number).unwrap();
        assert!(!timed_out.timed_out(), "{number} requests are to run");
    }

    /// The only request so far.
    pub fn request(&self) -> Request {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        seen[0].clone()
    }
}

struct FakeLauncher(Arc<Fake>);

impl FakeLauncher {
    fn script(&self, name: &str) -> Script {
        self.0.scripts.get(name).cloned().unwrap_or_else(|| says(name))
    }
}

impl Launcher for FakeLauncher {
    fn inspect(&self, spec: &ModelSpec) -> Result<ModelInfo, Failure> {
        let script = self.script(&spec.name);
        if let Script::FailsToLoad(kind) = script {
            return Err(Failure::new(kind, Stage::Load, format!("{}: {}", spec.name, kind.as_str())));
        }
        Ok(ModelInfo {
            kind: if matches!(script, Script::Embeds) { ModelKind::Embedding } else { ModelKind::Chat },
            architecture: "fake".to_owned(),
            title: None,
            parameters: 0,
            dtype: "F32".to_owned(),
            context_train: 4096,
            vocab_size: 256,
            dimension: Some(2).filter(|_| matches!(script, Script::Embeds)),
            has_chat_template: true,
            calls_tools: true,
            infills: spec.name != "c",
            footprint: Footprint { weights_bytes: 1 << 20, ..Footprint::default() },
        })
    }

    fn count(&self, _spec: &ModelSpec, request: &Request) -> Result<usize, Failure> {
        Ok(match &request.input {
            Input::Chat { messages, .. } => messages.iter().map(|message| message.content.to_string().len()).sum(),
            Input::Completion(Prompt::Text(text)) => text.len(),
            Input::Completion(Prompt::Tokens(ids)) => ids.len(),
            Input::Infill { suffix, .. } => suffix.len(),
        })
    }

    fn launch(&self, spec: &ModelSpec, placement: &Placement, progress: LoadProgress<'_>) -> Result<Arc<dyn Worker>, Failure> {
        progress(1, 2);
        let script = self.script(&spec.name);
        if matches!(script, Script::LoadsLate) {
            drop(self.0.changed.wait_while(self.0.gate.lock().unwrap(), |gate| !gate.open).unwrap());
        }
        Ok(Arc::new(FakeWorker { fake: self.0.clone(), name: spec.name.clone(), script, placement: *placement }))
    }
}

struct FakeWorker {
    fake: Arc<Fake>,
    name: String,
    script: Script,
    placement: Placement,
}

/// The bytes of a prompt as tokens, each less likely than the one before it.
fn scored(input: &Input, top: u8) -> Vec<PromptToken> {
    let ids: Vec<u32> = match input {
        Input::Completion(Prompt::Text(text)) => text.bytes().map(u32::from).collect(),
        Input::Completion(Prompt::Tokens(ids)) => ids.clone(),
        _ => Vec::new(),
    };
    let score = |(at, id): (usize, u32)| match at {
        0 => PromptToken::First(id),
        _ => {
            let top = [(88, -0.125), (89, -3.0)].into_iter().take(usize::from(top)).collect();
            PromptToken::Scored(TokenLogprob { token_id: id, logprob: -(at as f32), top })
        }
    };
    ids.into_iter().enumerate().map(score).collect()
}

/// Counts a request that runs.
struct Running<'a>(&'a Fake);

impl<'a> Running<'a> {
    fn new(fake: &'a Fake) -> Self {
        fake.gate.lock().unwrap().running += 1;
        fake.changed.notify_all();
        Self(fake)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.gate.lock().unwrap().running -= 1;
        self.0.changed.notify_all();
    }
}

impl Worker for FakeWorker {
    fn generate(&self, request: &Request, sink: &mut dyn Sink) -> Result<Completion, Failure> {
        let _running = Running::new(&self.fake);
        self.fake.seen.lock().unwrap().push(request.clone());
        let cancelled = || Failure::new(FailureKind::Cancelled, Stage::Decode, "the client has left");
        let own = format!("{} ", self.name);
        let pieces = match &self.script {
            Script::Says(pieces) | Script::BreaksOff(pieces, _) | Script::Waits(pieces) => pieces.clone(),
            Script::LoadsLate => words(&own),
            Script::Refuses(kind) => return Err(Failure::new(*kind, Stage::Prefill, "logit_bias names a token that is none")),
            Script::Babbles => loop {
                let delta = Delta { text: "a word and another one ".repeat(20), token_ids: vec![1], ..Delta::default() };
                if sink.send(delta).is_break() {
                    return Err(cancelled());
                }
            },
            Script::FailsToLoad(_) | Script::Embeds => Vec::new(),
        };
        let before = match &request.resume {
            Some(Resume::Tokens { token_ids, .. }) => token_ids.len(),
            Some(Resume::Text { tokens, .. }) => *tokens as usize,
            None => 0,
        };
        if let Some(top) = request.prompt_logprobs
            && sink.send(Delta { prompt: scored(&request.input, top), ..Delta::default() }).is_break()
        {
            return Err(cancelled());
        }
        // A piece that is a stop string ends the answer, as one in the text does for a real model.
        let stopping = pieces.iter().find_map(|piece| request.stop.iter().position(|stop| *stop == piece.text));
        let pieces: Vec<_> = pieces.into_iter().take_while(|piece| !request.stop.contains(&piece.text)).collect();
        let most = request.max_tokens.map_or(usize::MAX, |tokens| tokens as usize);
        let mut said = before;
        let mut calls = false;
        let shown = pieces.len().min(most);
        for mut delta in pieces.into_iter().take(most).skip(before) {
            said += 1;
            calls |= !delta.tool_calls.is_empty();
            if let Some(top) = request.logprobs {
                let best = |id: u32| [(id, -0.5), (90, -2.0)].into_iter().take(usize::from(top)).collect();
                let logprob = |id: u32| TokenLogprob { token_id: id, logprob: -0.5, top: best(id) };
                delta.logprobs = delta.token_ids.iter().map(|id| logprob(*id)).collect();
            }
            if sink.send(delta).is_break() {
                return Err(cancelled());
            }
        }
        match &self.script {
            Script::BreaksOff(_, kind) => {
                return Err(Failure::new(*kind, if said == 0 { Stage::Prefill } else { Stage::Decode }, "as scripted"));
            }
            Script::Waits(_) => {
                let waits = |gate: &mut Gate| !gate.open && !gate.cancelled.contains(&request.id);
                let gate = self.fake.changed.wait_while(self.fake.gate.lock().unwrap(), waits).unwrap();
                if gate.cancelled.contains(&request.id) {
                    return Err(cancelled());
                }
            }
            _ => {}
        }
        let finish_reason = match (calls, shown < said.max(shown) || most <= shown) {
            (true, _) => FinishReason::ToolCalls,
            (_, true) => FinishReason::Length,
            _ => FinishReason::Stop,
        };
        let usage = Usage { prompt_tokens: 7, completion_tokens: said as u32 };
        let timings = Timings { cache_n: 3, prompt_n: 4, prompt_ms: 2.0, predicted_n: said as u32, predicted_ms: 4.0 };
        Ok(Completion { finish_reason, usage, timings, stop_index: stopping.map(|index| index as u16) })
    }

    fn embed(&self, inputs: &[Prompt]) -> Result<Embedded, Failure> {
        let length = |input: &Prompt| match input {
            Prompt::Text(text) => text.len(),
            Prompt::Tokens(ids) => ids.len(),
        };
        let vectors = inputs.iter().map(|input| vec![length(input) as f32, 1.0]).collect();
        Ok(Embedded { vectors, prompt_tokens: inputs.iter().map(length).sum::<usize>() as u32 })
    }

    fn tokenize(&self, text: &str, _special: bool) -> Result<Vec<u32>, Failure> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String, Failure> {
        let bytes: Vec<u8> = ids.iter().map(|id| *id as u8).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn apply_template(&self, input: &Input) -> Result<String, Failure> {
        let Input::Chat { messages, .. } = input else { return Ok(String::new()) };
        Ok(messages.iter().map(|message| format!("<{:?}>{}", message.role, message.content)).collect())
    }

    fn cancel(&self, id: RequestId) {
        self.fake.gate.lock().unwrap().cancelled.push(id);
        self.fake.changed.notify_all();
    }

    fn set_threads(&self, _threads: usize) {}

    fn stats(&self) -> Stats {
        Stats { device: self.placement.device, context: self.placement.context, active_requests: 0, used_positions: 0, steps: 0 }
    }
}

/// A server over fakes; ended when dropped.
pub struct TestServer {
    pub address: SocketAddr,
    pub fake: Arc<Fake>,
    pub stopper: Stopper,
    thread: Option<JoinHandle<bool>>,
}

/// Models `a`, `b` and `c`, each falling back to those that follow. All but `c` fill gaps.
pub fn abc(scripts: impl IntoIterator<Item = (&'static str, Script)>) -> TestServer {
    serve("", scripts, ServeOptions::default())
}

/// As [`abc`], with settings in models.toml and options of the server.
pub fn serve(settings: &str, scripts: impl IntoIterator<Item = (&'static str, Script)>, options: ServeOptions) -> TestServer {
    let text = format!(
        "[settings]\nmemory_limit = \"64GiB\"\nmemory_margin = \"0\"\n{settings}\n[models.a]\npath = \"a\"\naliases = [\"gpt-4o\"]\n\
         parallel = 8\n[models.b]\npath = \"b\"\n[models.c]\npath = \"c\"\n"
    );
    let fake = Arc::new(Fake { scripts: scripts.into_iter().map(|(name, script)| (name.to_owned(), script)).collect(), ..Fake::default() });
    let config = Config::from_text(&text, Path::new("no such folder"), &HfCache { hub: "no such cache".into() }).unwrap();
    let scheduler = Scheduler::new(config, Arc::new(FakeLauncher(fake.clone())));
    let limits = Limits { drain: Duration::from_millis(200), ..options.limits.clone() };
    let server = Server::bind(Arc::new(scheduler), ServeOptions { port: 0, limits, ..options }).unwrap();
    let (address, stopper) = (server.address(), server.stopper());
    let thread = std::thread::spawn(move || server.run());
    TestServer { address, fake, stopper, thread: Some(thread) }
}

impl TestServer {
    pub fn get(&self, path: &str) -> Reply {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address))
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.exchange(self.request(path, &body.to_string()))
    }

    /// A chat whose answer is streamed.
    pub fn stream(&self, mut body: Value) -> Reply {
        body["stream"] = true.into();
        self.post("/v1/chat/completions", &body)
    }

    /// The bytes of a POST.
    pub fn request(&self, path: &str, body: &str) -> String {
        let length = body.len();
        let head = "Content-Type: application/json\r\nConnection: close";
        format!("POST {path} HTTP/1.1\r\nHost: {}\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}", self.address)
    }

    /// Sends bytes and reads all that comes back.
    pub fn exchange(&self, request: impl AsRef<[u8]>) -> Reply {
        Reply::read(self.send(request))
    }

    /// Sends bytes.
    pub fn send(&self, request: impl AsRef<[u8]>) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(request.as_ref()).unwrap();
        socket
    }

    /// Ends it and says whether it ended by itself.
    pub fn stop(mut self) -> bool {
        self.stopper.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.fake.open();
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Reply {
    /// Reads until the server closes.
    pub fn read(mut socket: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A reset after the answer is as good an end as any.
        let _ = socket.read_to_end(&mut bytes);
        Self::parse(&bytes)
    }

    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return Self { status: 0, headers: HashMap::new(), body: text.into_owned() };
        };
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok()).unwrap_or(0);
        let field = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let headers: HashMap<String, String> = lines.filter_map(field).collect();
        let chunked = headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked");
        Self { status, headers, body: if chunked { unchunked(body) } else { body.to_owned() } }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The data of the events of a stream, comments left out.
    pub fn events(&self) -> Vec<String> {
        self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: ").map(str::to_owned)).collect()
    }

    /// The named events of a stream that is not OpenAI's chunks, with their data; comments left out.
    pub fn named_events(&self) -> Vec<(String, Value)> {
        let event = |event: &str| {
            let (name, data) = event.strip_prefix("event: ")?.split_once("\ndata: ")?;
            Some((name.to_owned(), serde_json::from_str(data).ok()?))
        };
        self.body.split("\n\n").filter_map(event).collect()
    }

    /// The events that are JSON.
    pub fn chunks(&self) -> Vec<Value> {
        self.events().iter().filter_map(|event| serde_json::from_str(event).ok()).collect()
    }

    /// The text of a streamed chat.
    pub fn streamed_text(&self) -> String {
        self.chunks().iter().filter_map(|chunk| chunk.pointer("/choices/0/delta/content")?.as_str().map(str::to_owned)).collect()
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let Ok(length) = usize::from_str_radix(length, 16) else { break };
        let Some(chunk) = rest.get(..length) else { break };
        whole.push_str(chunk);
        body = rest.get(length + 2..).unwrap_or("");
    }
    whole
}
