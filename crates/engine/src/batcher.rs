//! Which sequences step together: continuous batching over one session.
//!
//! Owns the requests of one worker from admission to their end; every step runs all of them in one forward pass, new ones join
//! between steps in the order they came, and long prompts enter in chunks so that others keep streaming. What the pool still
//! holds of a prompt is not computed again. Does not know text: tokens in, tokens out.

mod pace;
mod request;
#[cfg(test)]
mod scoring_tests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use downshift_worker::{FinishReason, RequestId};

use crate::error::Error;
use crate::session::Session;

use pace::Pace;
use request::{Ask, Progress, Running, Said};

pub(crate) use request::{Event, Job};

/// What a step with prompt tokens may take while other sequences decode: they wait for it.
const STEP_SHARED: Duration = Duration::from_millis(150);

/// What a step may take else: what arrives or is cancelled waits for it.
const STEP_ALONE: Duration = Duration::from_millis(500);

/// The requests of one session.
pub(crate) struct Batcher {
    session: Session,
    /// In the order they came; one that had to make room comes first.
    waiting: VecDeque<Running>,
    /// Oldest first.
    running: Vec<Running>,
    max_running: usize,
    pace: Pace,
}

impl Batcher {
    pub fn new(session: Session, max_running: usize) -> Self {
        let max_running = max_running.clamp(1, session.max_rows());
        Self { session, waiting: VecDeque::new(), running: Vec::new(), max_running, pace: Pace::new() }
    }

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Requests that wait or run.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn submit(&mut self, job: Job) {
        self.waiting.push_back(Running::new(job));
    }

    /// Drops a request without another word to it.
    pub fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|request| request.job.id != id);
        if let Some(at) = self.running.iter().position(|request| request.job.id == id) {
            let mut request = self.running.remove(at);
            self.session.retire(&mut request.sequence, &request.job.token_ids);
        }
    }

    /// Ends every request with `error`.
    pub fn fail_all(&mut self, error: Error) {
        let error = Arc::new(error);
        for mut request in self.running.drain(..).chain(self.waiting.drain(..)) {
            self.session.release(&mut request.sequence);
            request.tell(Event::End(Err(Arc::clone(&error))));
        }
    }

    /// One forward pass over everything that runs. A device error ends all requests; what concerns one ends that one.
    pub fn step(&mut self) {
        if let Err(error) = self.try_step() {
            self.fail_all(error);
        }
    }

    fn try_step(&mut self) -> Result<(), Error> {
        self.admit()?;
        let shares = self.shares()?;
        let mut asking: Vec<Ask<'_>> = Vec::with_capacity(self.running.len());
        let mut n_asked = Vec::with_capacity(self.running.len());
        let mut feeds = Vec::with_capacity(self.running.len());
        for (request, &share) in self.running.iter_mut().zip(&shares) {
            let (feed, asks) = request.feed(share);
            feeds.push(feed);
            n_asked.push(asks.len());
            asking.extend(asks);
        }
        let mut said: Vec<Said> = Vec::with_capacity(asking.len());
        let start = Instant::now();
        self.session.step(&mut feeds, &mut |idx, logits| said.push(asking[idx].of(logits)))?;
        self.pace.record(shares.iter().sum(), start.elapsed());
        let mut said = said.into_iter();
        let mut at = 0;
        for (share, n_asked) in shares.into_iter().zip(n_asked) {
            let request = &mut self.running[at];
            match request.take(said.by_ref().take(n_asked).collect(), share, self.session.positions()) {
                Progress::GoesOn => {
                    self.session.record(&mut request.sequence, &request.job.token_ids);
                    at += 1;
                    continue;
                }
                Progress::Over => self.session.retire(&mut request.sequence, &request.job.token_ids),
                Progress::Spoiled => self.session.discard(&mut request.sequence),
            }
            self.running.remove(at);
        }
        Ok(())
    }

    /// Lets waiting requests in, oldest first, while there are slots and room for their prompts.
    fn admit(&mut self) -> Result<(), Error> {
        while self.running.len() < self.max_running
            && let Some(next) = self.waiting.front()
            && (self.running.is_empty() || self.has_room(next))
            && let Some(mut next) = self.waiting.pop_front()
        {
            next.n_cached = 0;
            self.running.push(next);
            let at = self.running.len() - 1;
            self.reuse(at)?;
            let Running { job, sequence, .. } = &mut self.running[at];
            // Without room for all of it, a lone request runs until the pool is full and then ends for length.
            let _ = self.session.reserve(sequence, job.token_ids.len() + 1 - sequence.len());
        }
        Ok(())
    }

    fn has_room(&self, next: &Running) -> bool {
        let token_ids = &next.job.token_ids;
        if next.scores() { self.session.has_own_room(token_ids.len()) } else { self.session.has_room(token_ids) }
    }

    /// Takes over what the pool holds of the rest of a prompt. It holds no logits.
    fn reuse(&mut self, at: usize) -> Result<(), Error> {
        if self.running[at].scores() {
            return Ok(());
        }
        let Running { job, sequence, n_cached, .. } = &mut self.running[at];
        *n_cached += self.session.reuse(sequence, &job.token_ids)?;
        Ok(())
    }

    /// How many tokens each running request feeds to the next step. Where the pool is dry the youngest request goes back to the
    /// queue, to be replayed when there is room.
    fn shares(&mut self) -> Result<Vec<usize>, Error> {
        // What another request has computed since the last step may be what this one would compute next.
        for at in 0..self.running.len() {
            if self.running[at].pending() > 1 {
                self.reuse(at)?;
            }
        }
        let deciding = self.running.iter().filter(|request| request.pending() == 1).count();
        let time = if deciding > 0 { STEP_SHARED } else { STEP_ALONE };
        let mut budget = self.pace.rows(time).min(self.session.max_rows() - deciding);
        let mut wanted: Vec<usize> = (0..self.running.len()).map(|at| self.wanted(at)).collect();
        let all = wanted.iter().sum::<usize>();
        if deciding == 0 && all <= (budget + budget / 2).min(self.session.max_rows()) {
            // A last step of a few rows would take longer than these do here.
            budget = all;
        }
        let mut shares = Vec::with_capacity(self.running.len());
        let mut at = 0;
        while at < self.running.len() {
            let share = if self.running[at].pending() == 1 {
                1
            } else {
                // Half is for those who came later: a short prompt does not wait for a long one.
                let later: usize = wanted[at + 1..].iter().sum();
                let most = budget - later.min(budget / 2);
                self.running[at].chunk(wanted[at].min(most))
            };
            if self.session.reserve(&mut self.running[at].sequence, share) {
                budget -= if self.running[at].pending() == 1 { 0 } else { share };
                shares.push(share);
                at += 1;
                continue;
            }
            // Never the oldest: it alone always fits, or ends for length.
            let Some(mut youngest) = self.running.pop() else { break };
            self.session.retire(&mut youngest.sequence, &youngest.job.token_ids);
            shares.truncate(self.running.len());
            wanted.truncate(self.running.len());
            if self.running.is_empty() {
                youngest.tell(Event::End(Ok(FinishReason::Length)));
            } else {
                self.waiting.push_front(youngest);
            }
        }
        Ok(shares)
    }

    /// Prompt tokens that a request would feed now; none while an older one computes the same.
    fn wanted(&self, at: usize) -> usize {
        let request = &self.running[at];
        match request.pending() {
            1 => 0,
            pending if request.scores() => pending,
            _ if self.running[..at].iter().any(|older| older.leads(request)) => 0,
            pending => pending,
        }
    }
}
