//! Models that answer without files, for tests of programs that embed downshift, and of downshift itself.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use downshift_worker::{
    Completion, Delta, Embedded, Failure, FailureKind, FinishReason, Footprint, Input, Launcher, LoadProgress, ModelInfo, ModelKind,
    ModelSpec, Placement, Prompt, Request, RequestId, Resume, Sink, Stage, Stats, Timings, Usage, Worker,
};

/// A launcher whose models say what they were told to say, word by word. A model without a script answers with its name.
#[derive(Clone, Debug, Default)]
pub struct Scripted {
    scripts: HashMap<String, Script>,
}

#[derive(Clone, Debug)]
enum Script {
    Answers(String),
    Embeds,
    FailsToLoad(FailureKind),
    BreaksOff(String, FailureKind),
}

impl Scripted {
    /// Models that all answer with their names.
    pub fn new() -> Self {
        Self::default()
    }

    /// `model` answers `text` to everything.
    pub fn answers(self, model: &str, text: &str) -> Self {
        self.with(model, Script::Answers(text.to_owned()))
    }

    /// `model` cannot be loaded, because of `kind`.
    pub fn fails(self, model: &str, kind: FailureKind) -> Self {
        self.with(model, Script::FailsToLoad(kind))
    }

    /// `model` says `text` and then fails, because of `kind`.
    pub fn breaks_off(self, model: &str, text: &str, kind: FailureKind) -> Self {
        self.with(model, Script::BreaksOff(text.to_owned(), kind))
    }

    /// `model` makes vectors: the length of the text, and 1.
    pub fn embeds(self, model: &str) -> Self {
        self.with(model, Script::Embeds)
    }

    fn with(mut self, model: &str, script: Script) -> Self {
        self.scripts.insert(model.to_owned(), script);
        self
    }
}

impl Launcher for Scripted {
    fn inspect(&self, spec: &ModelSpec) -> Result<ModelInfo, Failure> {
        if let Some(Script::FailsToLoad(kind)) = self.scripts.get(&spec.name) {
            return Err(Failure::new(*kind, Stage::Load, format!("{}: {}", spec.path.display(), kind.as_str())));
        }
        Ok(ModelInfo {
            kind: if matches!(self.scripts.get(&spec.name), Some(Script::Embeds)) { ModelKind::Embedding } else { ModelKind::Chat },
            architecture: "scripted".to_owned(),
            title: None,
            parameters: 0,
            dtype: "F32".to_owned(),
            context_train: 4096,
            vocab_size: 256,
            dimension: None,
            has_chat_template: true,
            calls_tools: true,
            infills: true,
            footprint: Footprint::default(),
        })
    }

    fn count(&self, _spec: &ModelSpec, request: &Request) -> Result<usize, Failure> {
        Ok(words(&format!("{:?}", request.input)).count())
    }

    fn launch(&self, spec: &ModelSpec, placement: &Placement, progress: LoadProgress<'_>) -> Result<Arc<dyn Worker>, Failure> {
        progress(1, 1);
        let script = self.scripts.get(&spec.name).cloned().unwrap_or_else(|| Script::Answers(spec.name.clone()));
        Ok(Arc::new(ScriptedWorker { script, placement: *placement }))
    }
}

struct ScriptedWorker {
    script: Script,
    placement: Placement,
}

impl Worker for ScriptedWorker {
    fn generate(&self, request: &Request, sink: &mut dyn Sink) -> Result<Completion, Failure> {
        let (text, end) = match &self.script {
            Script::Answers(text) => (text.as_str(), None),
            Script::BreaksOff(text, kind) => (text.as_str(), Some(*kind)),
            Script::FailsToLoad(kind) => ("", Some(*kind)),
            Script::Embeds => ("", Some(FailureKind::CannotDo)),
        };
        let most = request.max_tokens.map_or(usize::MAX, |tokens| tokens as usize);
        let mut said = match &request.resume {
            Some(Resume::Tokens { token_ids, .. }) => token_ids.len() as u32,
            Some(Resume::Text { tokens, .. }) => *tokens,
            None => 0,
        };
        for word in words(text).take(most).skip(said as usize) {
            said += 1;
            let delta = Delta { text: word.to_owned(), token_ids: vec![said], ..Delta::default() };
            if sink.send(delta).is_break() {
                return Err(Failure::new(FailureKind::Cancelled, Stage::Decode, "the client has left"));
            }
        }
        if let Some(kind) = end {
            return Err(Failure::new(kind, if said == 0 { Stage::Prefill } else { Stage::Decode }, "as scripted"));
        }
        let finish_reason = if words(text).count() > most { FinishReason::Length } else { FinishReason::Stop };
        let usage = Usage { prompt_tokens: 1, completion_tokens: said };
        Ok(Completion { finish_reason, usage, timings: Timings::default(), stop_index: None })
    }

    fn embed(&self, inputs: &[Prompt]) -> Result<Embedded, Failure> {
        if let Script::Embeds = self.script {
            let length = |input: &Prompt| match input {
                Prompt::Text(text) => text.len(),
                Prompt::Tokens(token_ids) => token_ids.len(),
            };
            let vectors = inputs.iter().map(|input| vec![length(input) as f32, 1.0]).collect();
            return Ok(Embedded { vectors, prompt_tokens: inputs.iter().map(length).sum::<usize>() as u32 });
        }
        Err(Failure::new(FailureKind::CannotDo, Stage::Admission, "this model makes text and no vectors"))
    }

    fn tokenize(&self, text: &str, _special: bool) -> Result<Vec<u32>, Failure> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String, Failure> {
        let bytes: Vec<u8> = ids.iter().map(|id| *id as u8).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn apply_template(&self, input: &Input) -> Result<String, Failure> {
        Ok(format!("{input:?}"))
    }

    fn cancel(&self, _id: RequestId) {}

    fn set_threads(&self, _threads: usize) {}

    fn stats(&self) -> Stats {
        Stats { device: self.placement.device, context: self.placement.context, active_requests: 0, used_positions: 0, steps: 0 }
    }
}

/// Words with the spaces that follow them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

/// Waits for a future on this thread: a runtime for programs and tests that have none.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
