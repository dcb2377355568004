//! A worker in a child process: every method is a call over the pipe.

use std::borrow::Cow;
use std::sync::Arc;

use super::connection::{Connection, Stop};
use super::unexpected;
use crate::wire::{self, FromWorker, ToWorker, WINDOW};
use crate::{
    Completion, Embedded, Failure, FailureKind, Input, LoadProgress, ModelSpec, Placement, Prompt, Request, RequestId, ResidentMemory,
    Sink, Stage, Stats, Worker,
};

pub(crate) struct RemoteWorker {
    connection: Arc<Connection>,
}

impl RemoteWorker {
    /// Loads the model in the child.
    pub fn load(
        connection: &Arc<Connection>,
        spec: Cow<'_, ModelSpec>,
        placement: Placement,
        progress: LoadProgress<'_>,
    ) -> Result<Self, Failure> {
        let mut call = connection.call(&ToWorker::Launch { spec, placement }, Stage::Load)?;
        loop {
            match call.next()? {
                FromWorker::Progress { done_bytes, total_bytes } => progress(done_bytes, total_bytes),
                FromWorker::Loaded(stats) => {
                    connection.note(stats);
                    return Ok(Self { connection: Arc::clone(connection) });
                }
                other => return Err(unexpected(&other, Stage::Load)),
            }
        }
    }

    fn ask(&self, message: &ToWorker<'_>, stage: Stage) -> Result<FromWorker, Failure> {
        self.connection.call(message, stage)?.only_answer(None)
    }
}

impl Worker for RemoteWorker {
    fn generate(&self, request: &Request, sink: &mut dyn Sink) -> Result<Completion, Failure> {
        let message = ToWorker::Generate { request: wire::portable_request(request)? };
        let mut call = self.connection.call(&message, Stage::Prefill)?;
        call.is_for(request.id);
        let mut client_left = false;
        let mut taken = 0;
        loop {
            match call.next()? {
                FromWorker::Delta(delta) => {
                    call.stage = Stage::Decode;
                    if !client_left && sink.send(delta).is_break() {
                        client_left = true;
                        self.cancel(request.id);
                    }
                    taken += 1;
                    if taken == WINDOW / 4 {
                        call.tell(&ToWorker::Taken { deltas: taken });
                        taken = 0;
                    }
                }
                FromWorker::Completion(_) if client_left => {
                    return Err(Failure::new(FailureKind::Cancelled, call.stage, "the client has left"));
                }
                FromWorker::Completion(completion) => return Ok(completion),
                other => return Err(unexpected(&other, call.stage)),
            }
        }
    }

    fn embed(&self, inputs: &[Prompt]) -> Result<Embedded, Failure> {
        match self.ask(&ToWorker::Embed { inputs: inputs.into() }, Stage::Prefill)? {
            FromWorker::Vectors { bits, prompt_tokens } => {
                let vectors = bits.into_iter().map(|vector| vector.into_iter().map(f32::from_bits).collect()).collect();
                Ok(Embedded { vectors, prompt_tokens })
            }
            other => Err(unexpected(&other, Stage::Prefill)),
        }
    }

    fn tokenize(&self, text: &str, special: bool) -> Result<Vec<u32>, Failure> {
        match self.ask(&ToWorker::Tokenize { text: text.into(), special }, Stage::Admission)? {
            FromWorker::Tokens(ids) => Ok(ids),
            other => Err(unexpected(&other, Stage::Admission)),
        }
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String, Failure> {
        match self.ask(&ToWorker::Detokenize { ids: ids.into() }, Stage::Admission)? {
            FromWorker::Text(text) => Ok(text),
            other => Err(unexpected(&other, Stage::Admission)),
        }
    }

    fn apply_template(&self, input: &Input) -> Result<String, Failure> {
        wire::shallow(input)?;
        match self.ask(&ToWorker::ApplyTemplate { input: Cow::Borrowed(input) }, Stage::Admission)? {
            FromWorker::Text(text) => Ok(text),
            other => Err(unexpected(&other, Stage::Admission)),
        }
    }

    fn cancel(&self, id: RequestId) {
        self.connection.tell(0, &ToWorker::Cancel { id });
    }

    fn kill(&self) {
        self.connection.stop(Stop::new(FailureKind::Crashed, "it was stopped because it hung or was no longer trusted"));
    }

    fn set_threads(&self, threads: usize) {
        self.connection.tell(0, &ToWorker::SetThreads { threads });
    }

    fn stats(&self) -> Stats {
        self.connection.stats()
    }

    fn resident(&self) -> Option<ResidentMemory> {
        self.connection.resident()
    }
}
