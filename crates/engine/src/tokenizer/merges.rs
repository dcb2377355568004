//! The merges of a BPE vocabulary: which two neighbours become what, and in which order.
//! Reading them is most of the time a tokenizer takes to load, so look-ups go side by side, on
//! several threads.

use std::collections::HashMap;
use std::num::NonZero;

use foldhash::fast::RandomState;

use super::TokenizerError;
use super::index::Query;
use super::merge::{Merged, NO_ID};
use super::vocab::{Vocab, shown};
use crate::weights::gguf::StringArray;

/// Merges by pairs of symbols. A symbol is a token or, from the number of tokens on, a spelling
/// that merges go through but that is no token.
#[derive(Default)]
pub(super) struct Merges {
    /// By `left << 32 | right`.
    by_pair: HashMap<u64, Merged, RandomState>,
    extra: HashMap<Vec<u8>, u32, RandomState>,
}

/// The tokens that a merge names, or [`NO_ID`] where a spelling is no token.
#[derive(Clone, Copy)]
struct Resolved {
    left: u32,
    right: u32,
    joined: u32,
}

const BATCH: usize = 256;
const MERGES_PER_THREAD: usize = 16 * 1024;

impl Merges {
    /// Reads the merges, the first of them ranked lowest. One that would make a control token
    /// out of text is left out.
    pub(super) fn read(merges: &StringArray, vocab: &Vocab) -> Result<Self, TokenizerError> {
        let spelled: Vec<&[u8]> = merges.iter().collect();
        let resolved = resolve(&spelled, vocab)?;
        let mut merges = Self::default();
        merges.by_pair.reserve(resolved.len());
        for (rank, (merge, spelled)) in (0..).zip(resolved.iter().zip(&spelled)) {
            let Resolved { mut left, mut right, mut joined } = *merge;
            if left == NO_ID || right == NO_ID || joined == NO_ID {
                let Some((first, second)) = halves(spelled) else { continue };
                left = merges.intern(vocab, left, first);
                right = merges.intern(vocab, right, second);
                joined = merges.intern(vocab, joined, &[first, second].concat());
            }
            let plain = |id: u32| id as usize >= vocab.len() || vocab.is_plain(id);
            if plain(left) && plain(right) && plain(joined) {
                let merged = Merged { rank, id: joined };
                merges.by_pair.entry(key(left, right)).or_insert(merged);
            }
        }
        Ok(merges)
    }

    fn intern(&mut self, vocab: &Vocab, id: u32, spelling: &[u8]) -> u32 {
        if id != NO_ID {
            return id;
        }
        if let Some(&known) = self.extra.get(spelling) {
            return known;
        }
        let new = (vocab.len() + self.extra.len()) as u32;
        self.extra.insert(spelling.to_vec(), new);
        new
    }

    /// What two neighbours become.
    #[inline]
    pub(super) fn get(&self, left: u32, right: u32) -> Option<Merged> {
        self.by_pair.get(&key(left, right)).copied()
    }

    /// The symbol that is spelled `spelling`.
    pub(super) fn symbol(&self, vocab: &Vocab, spelling: &[u8]) -> Option<u32> {
        vocab.find_text(spelling).or_else(|| self.extra.get(spelling).copied())
    }
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// The two pieces of a merge. A piece may itself begin with a space.
fn halves(merge: &[u8]) -> Option<(&[u8], &[u8])> {
    let gap = 1 + memchr::memchr(b' ', merge.get(1..)?)?;
    let (left, right) = (&merge[..gap], &merge[gap + 1..]);
    (!right.is_empty()).then_some((left, right))
}

fn resolve(merges: &[&[u8]], vocab: &Vocab) -> Result<Vec<Resolved>, TokenizerError> {
    let n_cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let n_threads = n_cores.min(4).min(merges.len() / MERGES_PER_THREAD).max(1);
    let per_thread = merges.len().div_ceil(n_threads).max(1);
    let mut resolved = vec![Resolved { left: NO_ID, right: NO_ID, joined: NO_ID }; merges.len()];
    std::thread::scope(|scope| {
        let parts = merges.chunks(per_thread).zip(resolved.chunks_mut(per_thread));
        let mut parts = parts.zip((0..).step_by(per_thread));
        let own = parts.next();
        let others: Vec<_> = parts.map(|((merges, out), index)| scope.spawn(move || resolve_part(merges, index, vocab, out))).collect();
        let mut result = own.map_or(Ok(()), |((merges, out), index)| resolve_part(merges, index, vocab, out));
        for other in others {
            let theirs = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(theirs);
        }
        result
    })?;
    Ok(resolved)
}

/// Resolves `merges`, the first of which is number `first_index`.
fn resolve_part(merges: &[&[u8]], first_index: usize, vocab: &Vocab, resolved: &mut [Resolved]) -> Result<(), TokenizerError> {
    let mut queries: Vec<Query> = Vec::with_capacity(2 * BATCH);
    let mut ids = Vec::with_capacity(2 * BATCH);
    let mut joined = Vec::new();
    let mut last = 0;
    let batches = merges.chunks(BATCH).zip(resolved.chunks_mut(BATCH));
    for ((batch, resolved), index) in batches.zip((first_index..).step_by(BATCH)) {
        queries.clear();
        ids.clear();
        for (i, merge) in batch.iter().enumerate() {
            let (left, right) = halves(merge).ok_or_else(|| TokenizerError::BrokenMerge { index: index + i, merge: shown(merge) })?;
            queries.extend([vocab.query(left), vocab.query(right)]);
        }
        vocab.find_all(&queries, &mut ids);
        for ((merge, resolved), ids) in batch.iter().zip(resolved).zip(ids.chunks_exact(2)) {
            let Some((left, right)) = halves(merge) else { continue };
            // Most vocabularies list merges in the order of the tokens that they make.
            let makes = |id: u32| {
                let piece = vocab.piece(id);
                piece.len() + 1 == merge.len() && piece.starts_with(left) && piece.ends_with(right)
            };
            let next = (last..vocab.len() as u32).take(2).find(|&id| makes(id));
            let made = next.or_else(|| {
                joined.clear();
                joined.extend_from_slice(left);
                joined.extend_from_slice(right);
                vocab.find(&joined)
            });
            last = made.unwrap_or(last);
            *resolved = Resolved { left: ids[0].unwrap_or(NO_ID), right: ids[1].unwrap_or(NO_ID), joined: made.unwrap_or(NO_ID) };
        }
    }
    Ok(())
}
