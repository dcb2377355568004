//! Vectors of texts: another model is used in place of the first only if both declare one `embedding_space`.

use std::sync::Arc;

use downshift_worker::{Embedded, Failure, FailureKind, ModelInfo, ModelKind, Prompt, RequestId, Sink, Stage, Worker};

use crate::config::OnStreamFailure;
use crate::outlet::Written;
use crate::policy::Shown;
use crate::run_loop::Shared;
use crate::running::{Ended, Taken, client_left};
use crate::work::{Attempted, Refusal, Work};

/// Texts or token ids to be embedded.
pub(crate) struct Embed(pub Arc<[Prompt]>);

impl Work for Embed {
    type Output = Embedded;

    fn refuses(&self, shared: &Shared, info: &ModelInfo, primary: usize, index: usize) -> Option<Refusal> {
        if info.kind != ModelKind::Embedding {
            return Some(Refusal { reason: "this model makes text and no vectors", is_stranger: true });
        }
        let space = |index: usize| shared.config.models()[index].embedding_space.as_deref();
        let same = index == primary || (space(primary).is_some() && space(primary) == space(index));
        if !same {
            let reason = "its vectors are of another space: it does not declare the same embedding_space";
            return Some(Refusal { reason, is_stranger: true });
        }
        let has_ids = self.0.iter().any(|input| matches!(input, Prompt::Tokens(_)));
        let reason = "the input's token ids belong to another vocabulary";
        (has_ids && index != primary).then_some(Refusal { reason, is_stranger: false })
    }

    fn positions(&self, _shared: &Shared, _index: usize, _info: &ModelInfo) -> Result<u32, Failure> {
        Ok(0)
    }

    fn shown(&self, _written: &Written, _setting: OnStreamFailure) -> Shown {
        Shown::Nothing
    }

    fn run(&self, id: RequestId, attempted: Attempted<'_, '_>) -> Result<Embedded, Failure> {
        let inputs = self.0.clone();
        let call = move |worker: &dyn Worker, _: &mut dyn Sink| worker.embed(&inputs);
        match attempted.watched().go(id, call, &mut |_| Taken::Held, attempted.release())? {
            Ended::Whole(embedded) => check(&embedded.vectors, self.0.len()).map(|()| embedded),
            Ended::Cut => Err(client_left(Stage::Prefill)),
        }
    }
}

/// One vector per text, of one dimension, finite and not zero.
fn check(vectors: &[Vec<f32>], n_inputs: usize) -> Result<(), Failure> {
    let fail = |kind, message: String| Err(Failure::new(kind, Stage::Prefill, message));
    let dimension = vectors.first().map_or(0, Vec::len);
    if vectors.len() != n_inputs || vectors.iter().any(|vector| vector.len() != dimension || vector.is_empty()) {
        return fail(FailureKind::Protocol, format!("{} vectors of {dimension} numbers for {n_inputs} texts", vectors.len()));
    }
    for (at, vector) in vectors.iter().enumerate() {
        let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
        if !norm.is_finite() || norm == 0.0 {
            return fail(FailureKind::NonFinite, format!("vector {at} is not finite, or zero"));
        }
    }
    Ok(())
}
