//! What a caller hands in and hears, and the admission of it.

use std::ops::ControlFlow;
use std::sync::Arc;

use downshift_worker::{Delta, Device, Embedded, Failure, FailureKind, Prompt, Request, RequestId, Stage};

use crate::attempt::{Answer, Attempt, Refused};
use crate::chain::{Chain, Options};
use crate::embed::Embed;
use crate::journey::Journey;
use crate::run_loop::{Shared, Ticket};
use crate::work::{Generate, Work};

/// A request, and which models may answer it.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// What is asked. Its id must be unique: see [`crate::Scheduler::next_request_id`].
    pub request: Request,
    /// Names: none for the default model, one, or the primary and its fallbacks.
    pub models: Vec<String>,
    /// Everything else.
    pub options: Options,
}

/// What a request hears while it is answered.
#[derive(Debug)]
pub enum Event<'a> {
    /// It waits for a model to load; repeated as the load comes along.
    Loading {
        /// The model.
        model: &'a str,
        /// Bytes made resident so far.
        done_bytes: u64,
        /// Bytes in all; 0 while unknown.
        total_bytes: u64,
    },
    /// An attempt failed, or a model was skipped.
    Failed(&'a Attempt),
    /// The first real text is there: from here on the answer is this model's.
    Started {
        /// The model.
        model: &'a str,
        /// Where it runs.
        device: Device,
    },
    /// A piece of the answer.
    Delta(Delta),
    /// The attempt broke off after text was shown; what follows continues that text.
    Continued {
        /// The model that broke off.
        from: &'a str,
        /// The model that goes on, which may be the same.
        to: &'a str,
        /// Why it broke off: [`FailureKind::as_str`].
        reason: &'static str,
    },
}

/// Hears of a request as it goes; `Break` means that the client has left.
pub type Listener<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'a;

/// Takes `submission` along its chain.
pub(crate) fn submit(shared: &Arc<Shared>, submission: Submission, listener: &mut Listener<'_>) -> Result<Answer, Refused> {
    let Submission { request, models, options } = submission;
    let id = request.id;
    travel(shared, id, Generate(request), models, options, listener)
}

/// Takes texts to be embedded along their chain.
pub(crate) fn embed(
    shared: &Arc<Shared>,
    id: RequestId,
    inputs: Vec<Prompt>,
    models: Vec<String>,
    options: Options,
) -> Result<Answer<Embedded>, Refused> {
    travel(shared, id, Embed(inputs.into()), models, options, &mut |_| ControlFlow::Continue(()))
}

fn travel<W: Work>(
    shared: &Arc<Shared>,
    id: RequestId,
    work: W,
    models: Vec<String>,
    options: Options,
    listener: &mut Listener<'_>,
) -> Result<Answer<W::Output>, Refused> {
    let refuse = |failure| Err(Refused::new(models.first().cloned().unwrap_or_default(), failure, Vec::new(), false, None));
    let chain = match Chain::admit(&shared.config, &models, &options) {
        Ok(chain) => chain,
        Err(failure) => return refuse(failure),
    };
    let Some(registered) = Registered::new(shared, id) else {
        return refuse(Failure::new(FailureKind::Cancelled, Stage::Admission, "shut down, or a request with this id is under way"));
    };
    Journey::new(shared, (id, registered.ticket.clone()), work, options, chain, listener).travel()
}

/// A request that can be cancelled by its id, until this is dropped.
struct Registered<'a> {
    shared: &'a Shared,
    id: RequestId,
    ticket: Arc<Ticket>,
}

impl<'a> Registered<'a> {
    /// `None` after a shutdown, or if another request has this id.
    fn new(shared: &'a Shared, id: RequestId) -> Option<Self> {
        let ticket = Arc::new(Ticket::default());
        let mut state = shared.state();
        if state.closed || state.requests.contains_key(&id) {
            return None;
        }
        state.requests.insert(id, ticket.clone());
        Some(Self { shared, id, ticket })
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.state().requests.remove(&self.id);
    }
}
