//! What a request asks of a worker: text here, vectors in `embed`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use downshift_worker::{
    Completion, Failure, FailureKind, Input, ModelInfo, ModelKind, Prompt, Request, RequestId, Sink, Stage, ToolChoice, Worker,
};

use crate::config::OnStreamFailure;
use crate::loop_guard::LoopGuard;
use crate::outlet::{Outlet, Written};
use crate::policy::Shown;
use crate::residents::Slot;
use crate::run_loop::{Shared, Ticket};
use crate::running::{Ended, Limits, Run, client_left, panic_message};
use crate::setting::wanted_context;
use crate::submit::Listener;

/// What is asked of a worker.
pub(crate) trait Work {
    /// What it answers with.
    type Output;

    /// Why the model at `index` cannot do this for one that was asked of `primary`.
    fn refuses(&self, shared: &Shared, info: &ModelInfo, primary: usize, index: usize) -> Option<Refusal>;

    /// Positions of KV without which a model is of no use; 0 if any will do.
    fn positions(&self, shared: &Shared, index: usize, info: &ModelInfo) -> Result<u32, Failure>;

    /// What the caller has seen, and who may go on with it.
    fn shown(&self, written: &Written, setting: OnStreamFailure) -> Shown;

    /// Does it, on the slot that was won.
    fn run(&self, id: RequestId, attempted: Attempted<'_, '_>) -> Result<Self::Output, Failure>;
}

/// Why a model cannot do what is asked.
pub(crate) struct Refusal {
    pub reason: &'static str,
    /// It is no member of an implied chain: such a chain holds models of one kind and one vector space.
    pub is_stranger: bool,
}

/// One attempt: where it runs, its limits, and the way to the caller.
pub(crate) struct Attempted<'a, 'l> {
    pub shared: &'a Arc<Shared>,
    pub slot: &'a Slot,
    pub limits: Limits,
    pub ticket: &'a Ticket,
    pub stream: bool,
    pub written: &'a mut Written,
    pub reason: &'a mut Option<&'static str>,
    pub listener: &'a mut Listener<'l>,
}

impl Attempted<'_, '_> {
    /// Frees the slot; called on the worker's thread when the worker has let go of the request.
    pub fn release(&self) -> impl FnOnce() + Send + 'static {
        let (shared, slot) = (self.shared.clone(), self.slot.clone());
        move || shared.release(&slot)
    }

    /// The watch over the worker.
    pub fn watched(&self) -> Run<'_> {
        Run { worker: &self.slot.worker, limits: self.limits, clock: &self.shared.clock, ticket: self.ticket }
    }
}

/// Text for a conversation or a prompt.
pub(crate) struct Generate(pub Request);

impl Work for Generate {
    type Output = Completion;

    fn refuses(&self, _shared: &Shared, info: &ModelInfo, primary: usize, index: usize) -> Option<Refusal> {
        if info.kind != ModelKind::Chat {
            return Some(Refusal { reason: "this model makes vectors and no text", is_stranger: true });
        }
        let input = &self.0.input;
        let cannot = |reason| Some(Refusal { reason, is_stranger: false });
        if input.has_token_ids() && index != primary {
            return cannot("the prompt's token ids belong to another vocabulary");
        }
        if input.is_infill() && !info.infills {
            return cannot(Input::NO_INFILL);
        }
        None
    }

    /// Counted only where the prompt may be too long for a model that is not loaded; one that is will say so itself.
    fn positions(&self, shared: &Shared, index: usize, info: &ModelInfo) -> Result<u32, Failure> {
        let Self(request) = self;
        let spec = &shared.config.models()[index].spec;
        let limit = wanted_context(spec, info);
        let loaded = shared.look(|state| state.residents.context(index));
        if loaded.is_some_and(|context| context >= limit) || longest_prompt(&request.input) < loaded.unwrap_or(limit) as usize {
            return Ok(0);
        }
        let counted = catch_unwind(AssertUnwindSafe(|| shared.launcher.count(spec, request)))
            .unwrap_or_else(|panic| Err(Failure::new(FailureKind::Panicked, Stage::Load, panic_message(panic.as_ref()))))?;
        let needed = u32::try_from(counted).unwrap_or(u32::MAX);
        if needed >= limit {
            let message = format!("the prompt of {needed} tokens exceeds the available context size of {limit} positions");
            return Err(Failure::new(FailureKind::PromptTooLong { needed, limit }, Stage::Admission, message));
        }
        Ok(needed.saturating_add(request.max_tokens.unwrap_or(1)).min(limit))
    }

    fn shown(&self, written: &Written, setting: OnStreamFailure) -> Shown {
        let Request { sampling, logprobs, prompt_logprobs, .. } = &self.0;
        // A seed, and probabilities, are of one model.
        let is_bound = sampling.seed.is_some() || logprobs.is_some() || prompt_logprobs.is_some();
        match setting {
            _ if !written.is_shown() => Shown::Nothing,
            OnStreamFailure::Error => Shown::Sealed,
            // One that took over goes on from text, which a call is not.
            OnStreamFailure::Continue if written.taken_over && written.has_calls => Shown::Sealed,
            OnStreamFailure::Continue if written.taken_over || written.has_calls || is_bound => Shown::BySameModel,
            OnStreamFailure::Continue => Shown::Continuable,
        }
    }

    fn run(&self, id: RequestId, attempted: Attempted<'_, '_>) -> Result<Completion, Failure> {
        let Attempted { shared, slot, stream, .. } = attempted;
        let settings = &shared.config.settings;
        let spec = &shared.config.models()[slot.index].spec;
        let mut request = self.0.clone();
        request.sampling = request.sampling.or(&spec.sampling);
        request.resume = attempted.written.resume(slot.index);
        let began = shared.clock.now();
        let before = attempted.written.tokens;
        let release = attempted.release();
        let run = Run { worker: &slot.worker, limits: attempted.limits, clock: &shared.clock, ticket: attempted.ticket };
        let model = (slot.index, spec.name.as_str(), slot.placement.device);
        let mut outlet = Outlet::new(stream, attempted.written, attempted.reason, model, attempted.listener);
        // What a grammar asks for may well repeat itself.
        let is_free = self.0.format.is_text() && !forces_call(&self.0);
        outlet.guard = (settings.loop_guard && is_free).then(LoopGuard::new);
        let call = move |worker: &dyn Worker, sink: &mut dyn Sink| worker.generate(&request, sink);
        let completion = match run.go(id, call, &mut |delta| outlet.take(delta, shared.clock.now()), release)? {
            Ended::Whole(completion) => completion,
            Ended::Cut => {
                shared.abandon(slot, false);
                let prompt_tokens = shared.launcher.count(spec, &self.0).unwrap_or(0) as u32;
                let cut = outlet.cut(before, prompt_tokens, began, shared.clock.now());
                tracing::warn!(request = %id, model = %spec.name, tokens = cut.usage.completion_tokens, "ended: the answer repeats itself");
                cut
            }
        };
        // What is asked for is then not the text.
        if !stream && self.0.prompt_logprobs.is_none() {
            outlet.check(&settings.fallback_on)?;
        }
        if outlet.flush() { Ok(completion) } else { Err(client_left(Stage::Decode)) }
    }
}

/// Whether the answer must be a call of a tool.
fn forces_call(request: &Request) -> bool {
    matches!(&request.input, Input::Chat { tool_choice: ToolChoice::Required | ToolChoice::Function(_), .. })
}

/// No prompt of this input has more tokens: each is a byte at least, and templates add a little to every message.
fn longest_prompt(input: &Input) -> usize {
    match input {
        Input::Chat { messages, tools, variables, .. } => {
            let json = serde_json::to_string(&(messages, tools, variables));
            json.map_or(usize::MAX, |json| 1024 + 32 * messages.len() + json.len())
        }
        Input::Completion(prompt) => longest_text(prompt),
        // The tokens around both texts.
        Input::Infill { prefix, suffix } => longest_text(prefix) + suffix.len() + 3,
    }
}

fn longest_text(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::Text(text) => text.len() + 1,
        Prompt::Tokens(token_ids) => token_ids.len(),
    }
}
