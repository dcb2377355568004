//! Where the time of forward passes goes.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// A part of a forward pass. Norms count with the projections that they are the input of, quantization of the input too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Embeddings of the tokens.
    Embed,
    /// Norm, the projections to queries, keys and values, and their rotation.
    Qkv,
    /// Keys and values stored.
    AppendKv,
    /// Attention over them.
    Attention,
    /// The projection of its result.
    OutProjection,
    /// Norm, and the first half of the feed-forward layer.
    GateUp,
    /// Its second half.
    Down,
    /// The last norm, the head, and whatever is done with the logits.
    Head,
}

impl Part {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 8] =
        [Self::Embed, Self::Qkv, Self::AppendKv, Self::Attention, Self::OutProjection, Self::GateUp, Self::Down, Self::Head];

    /// A word for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Qkv => "qkv",
            Self::AppendKv => "append_kv",
            Self::Attention => "attention",
            Self::OutProjection => "out_projection",
            Self::GateUp => "gate_up",
            Self::Down => "down",
            Self::Head => "head",
        }
    }
}

/// Time spent in each part, all layers and passes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times([Duration; Part::ALL.len()]);

impl Times {
    /// Of one part.
    pub fn of(&self, part: Part) -> Duration {
        self.0[part as usize]
    }

    /// Of all parts.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }
}

impl AddAssign for Times {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, time)| *sum += time);
    }
}

/// Reads the clock between parts: a few hundred times a pass, some microseconds in all.
pub(super) struct Laps<'a> {
    times: &'a mut Times,
    last: Instant,
}

impl<'a> Laps<'a> {
    pub(super) fn start(times: &'a mut Times) -> Self {
        Self { times, last: Instant::now() }
    }

    /// What passed since the last call, or the start, was `part`.
    pub(super) fn end(&mut self, part: Part) {
        let now = Instant::now();
        self.times.0[part as usize] += now - self.last;
        self.last = now;
    }
}
