//! Sequences over one loaded model: what chat, bench and eval all step through.
//!
//! Owns the decoder, the block pool and the batch under construction. Does not sample and does not know requests.
//!
//! A sequence whose owner tells its tokens ([`Session::record`], [`Session::retire`]) leaves them in the pool for others that
//! begin alike ([`Session::reuse`]); one that is only stepped and released shares nothing.

use downshift_kernels::kv::KV_BLOCK;

use crate::error::Error;
use crate::kv_cache::BlockPool;
use crate::models::{Batch, Forward, Times};

/// Fewest tokens of a prompt that are computed, and what a reused prefix is a multiple of. Fewer rows than a prefill has, or as
/// many with another remainder, go through kernels that round differently, and the same prompt, asked again, could get another
/// answer.
pub(crate) const MIN_COMPUTED: usize = 16;

/// The tokens of one sequence that the model has seen, as blocks of the pool.
#[derive(Debug, Default)]
pub struct Sequence {
    blocks: Vec<u32>,
    len: usize,
    /// Leading blocks whose tokens the pool knows: never written again, perhaps shared.
    n_recorded: usize,
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

    /// The last recorded block.
    fn parent(&self) -> Option<u32> {
        self.n_recorded.checked_sub(1).map(|idx| self.blocks[idx])
    }

    fn reset(&mut self) {
        *self = Self { blocks: std::mem::take(&mut self.blocks), ..Self::default() };
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

    /// Positions that are held by sequences, whole blocks counted; not what ended ones left.
    pub fn used_positions(&self) -> usize {
        (self.pool.n_blocks() - self.pool.n_available()) * KV_BLOCK
    }

    /// How many cores the next step may use.
    pub fn set_threads(&mut self, threads: usize) {
        self.decoder.set_threads(threads);
    }

    /// Where the time of the steps went since this was last asked.
    pub fn take_times(&mut self) -> Times {
        self.decoder.take_times()
    }

    /// Lets go of what a sequence holds; its blocks serve others.
    pub fn release(&mut self, sequence: &mut Sequence) {
        self.pool.release(&mut sequence.blocks);
        sequence.reset();
    }

    /// Lets go of a sequence whose rows are not to be trusted: nobody will reuse what only it holds.
    pub fn discard(&mut self, sequence: &mut Sequence) {
        self.pool.discard(&mut sequence.blocks);
        sequence.reset();
    }

    /// Ends a sequence and keeps its rows, until their room is needed, for others that begin with the same tokens.
    /// `token_ids` are all of the sequence, or more.
    pub fn retire(&mut self, sequence: &mut Sequence, token_ids: &[u32]) {
        self.record(sequence, token_ids);
        let last = &token_ids[sequence.n_recorded * KV_BLOCK..sequence.len];
        if !last.is_empty() {
            let idx = sequence.n_recorded;
            sequence.blocks[idx] = self.pool.record(sequence.parent(), sequence.blocks[idx], last);
        }
        self.release(sequence);
    }

    /// Tells the pool the tokens of a sequence's full blocks, so that others share them from now on. `token_ids` are all of the
    /// sequence, or more; what was recorded before is not looked at again.
    pub fn record(&mut self, sequence: &mut Sequence, token_ids: &[u32]) {
        while (sequence.n_recorded + 1) * KV_BLOCK <= sequence.len {
            let idx = sequence.n_recorded;
            let held = &token_ids[idx * KV_BLOCK..(idx + 1) * KV_BLOCK];
            sequence.blocks[idx] = self.pool.record(sequence.parent(), sequence.blocks[idx], held);
            sequence.n_recorded += 1;
        }
    }

    /// Whether an empty sequence could get all of `token_ids` and one more, what the pool holds of them counted.
    pub fn has_room(&self, token_ids: &[u32]) -> bool {
        let usable = &token_ids[..token_ids.len().saturating_sub(MIN_COMPUTED)];
        let (mut parent, mut shared, mut kept) = (None, 0, 0);
        for wanted in usable.chunks_exact(KV_BLOCK) {
            let Some((block, KV_BLOCK)) = self.pool.longest_match(parent, wanted) else { break };
            parent = Some(block);
            shared += 1;
            kept += usize::from(self.pool.n_holders(block) == 0);
        }
        BlockPool::blocks_for(token_ids.len() + 1) - shared <= self.pool.n_available() - kept
    }

    /// As [`Session::has_room`] for `n` tokens of which nothing is reused.
    pub fn has_own_room(&self, n: usize) -> bool {
        BlockPool::blocks_for(n + 1) <= self.pool.n_available()
    }

    /// Lengthens a sequence by the positions of `token_ids` that the pool still holds, and says by how many: whole blocks are
    /// shared, what is left of one is copied. The last 16 of `token_ids` are never among them, and the sum is a multiple of 16:
    /// then what is left to compute is a prefill like any other, whose logits do not tell that the rest was found.
    /// Nothing where the sequence is not at the start of a block.
    ///
    /// # Errors
    /// A device error.
    pub fn reuse(&mut self, sequence: &mut Sequence, token_ids: &[u32]) -> Result<usize, Error> {
        let start = sequence.len;
        let usable = token_ids.len().saturating_sub(MIN_COMPUTED);
        while sequence.len == sequence.n_recorded * KV_BLOCK && sequence.len < usable {
            let wanted = &token_ids[sequence.len..usable];
            let Some((block, common)) = self.pool.longest_match(sequence.parent(), wanted) else { break };
            let common = common / MIN_COMPUTED * MIN_COMPUTED;
            if common == 0 {
                break;
            }
            self.pool.hold(block);
            if common == KV_BLOCK {
                match sequence.blocks.get_mut(sequence.n_recorded) {
                    // Room that was reserved and not yet written.
                    Some(reserved) => self.pool.release_one(std::mem::replace(reserved, block)),
                    None => sequence.blocks.push(block),
                }
                sequence.n_recorded += 1;
                sequence.len += KV_BLOCK;
                continue;
            }
            // Held meanwhile, so that making room cannot take it.
            let has_room = self.pool.grow(&mut sequence.blocks, sequence.len + common);
            let copied = if has_room { self.decoder.copy_kv(block, sequence.blocks[sequence.n_recorded], common) } else { Ok(()) };
            self.pool.release_one(block);
            copied?;
            sequence.len += if has_room { common } else { 0 };
            break;
        }
        Ok(sequence.len - start)
    }

    /// Makes room for `additional` more positions of a sequence; false, and nothing changed, where the pool is dry.
    #[must_use]
    pub fn reserve(&mut self, sequence: &mut Sequence, additional: usize) -> bool {
        self.pool.grow(&mut sequence.blocks, sequence.len + additional)
    }

    /// Panics where blocks were lost, are in two states, or may be written while others hold them; `sequences` are all that live.
    #[cfg(test)]
    pub(crate) fn check(&self, sequences: &[&Sequence]) {
        self.pool.check(&sequences.iter().map(|sequence| &sequence.blocks[..]).collect::<Vec<_>>());
        for sequence in sequences {
            assert_eq!(sequence.n_recorded, sequence.len / KV_BLOCK, "what is full is shared");
            assert!(sequence.blocks[sequence.n_recorded..].iter().all(|&block| self.pool.n_holders(block) == 1));
        }
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
