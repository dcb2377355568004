//! Sequences over one loaded model: what chat, bench and eval all step through.
//!
//! Owns the decoder, the block pool and the batch under construction. Does not sample and does not know requests.

use crate::error::Error;
use crate::kv_cache::BlockPool;
use crate::models::{Batch, Forward};

/// The tokens of one sequence that the model has seen, as blocks of the pool.
#[derive(Debug, Default)]
pub struct Sequence {
    blocks: Vec<u32>,
    len: usize,
}

impl Sequence {
    /// Positions computed so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was computed yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What a step feeds to one sequence.
#[derive(Debug)]
pub struct Feed<'a> {
    /// The sequence, which grows by the tokens.
    pub sequence: &'a mut Sequence,
    /// Its next tokens.
    pub token_ids: &'a [u32],
    /// Logits are wanted from this index of `token_ids` on; `token_ids.len()` wants none.
    pub logits_from: usize,
}

/// A decoder with its KV pool.
pub struct Session {
    decoder: Box<dyn Forward>,
    pool: BlockPool,
    batch: Batch,
    positions: usize,
    n_vocab: usize,
}

impl Session {
    pub(crate) fn new(decoder: Box<dyn Forward>, positions: usize, n_vocab: usize) -> Self {
        Self { decoder, pool: BlockPool::new(positions), batch: Batch::default(), positions, n_vocab }
    }

    /// Most tokens of one step, all sequences together.
    pub fn max_rows(&self) -> usize {
        self.decoder.max_rows()
    }

    /// Positions of the pool.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Entries of the vocabulary: the length of each row of logits.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Positions that are held by sequences, whole blocks counted.
    pub fn used_positions(&self) -> usize {
        (self.pool.n_blocks() - self.pool.n_free()) * downshift_kernels::kv::KV_BLOCK
    }

    /// How many cores the next step may use.
    pub fn set_threads(&mut self, threads: usize) {
        self.decoder.set_threads(threads);
    }

    /// Forgets what a sequence holds; its blocks serve others.
    pub fn release(&mut self, sequence: &mut Sequence) {
        self.pool.release(&mut sequence.blocks);
        sequence.len = 0;
    }

    /// Makes room for `additional` more positions of a sequence; false, and nothing changed, where the pool is dry.
    #[must_use]
    pub fn reserve(&mut self, sequence: &mut Sequence, additional: usize) -> bool {
        self.pool.grow(&mut sequence.blocks, sequence.len + additional)
    }

    /// Runs all feeds in one forward pass. For each position that asks, in order, `on_logits` gets (its index among the asking
    /// ones, the logits), which it may change freely.
    ///
    /// # Errors
    /// [`Error::ContextFull`] and [`Error::TokenId`] before anything is computed; else a device error.
    ///
    /// # Panics
    /// Where the feeds have more tokens than [`Session::max_rows`].
    pub fn step(&mut self, feeds: &mut [Feed<'_>], on_logits: &mut dyn FnMut(usize, &mut [f32])) -> Result<(), Error> {
        let n_rows: usize = feeds.iter().map(|feed| feed.token_ids.len()).sum();
        assert!(n_rows <= self.max_rows(), "{n_rows} rows exceed a step of {}", self.max_rows());
        for feed in feeds.iter_mut() {
            if let Some(&id) = feed.token_ids.iter().find(|&&id| id as usize >= self.n_vocab) {
                return Err(Error::TokenId { id, n_vocab: self.n_vocab });
            }
            if !self.pool.grow(&mut feed.sequence.blocks, feed.sequence.len + feed.token_ids.len()) {
                return Err(Error::ContextFull { positions: self.positions });
            }
        }
        self.batch.clear();
        for feed in feeds.iter().filter(|feed| !feed.token_ids.is_empty()) {
            self.batch.push(feed.token_ids, feed.sequence.len, &feed.sequence.blocks, feed.logits_from);
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        self.decoder.forward(&self.batch, on_logits)?;
        for feed in feeds {
            feed.sequence.len += feed.token_ids.len();
        }
        Ok(())
    }
}
