//! Merging neighbours until none of them may merge: what all BPE vocabularies share.
//! Does not know which pairs merge; `bpe` and `spm` say so.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A piece of a word: a token or less, and where it lies in the word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// Its number, or [`NO_ID`].
    pub(super) id: u32,
    /// Its first byte in the word.
    pub(super) start: u32,
    /// The end of its bytes in the word.
    pub(super) end: u32,
}

/// No token, or no symbol.
pub(super) const NO_ID: u32 = u32::MAX;

/// What merging two neighbours gives. The lowest rank merges first, the leftmost of equals.
#[derive(Clone, Copy)]
pub(super) struct Merged {
    /// Below `NO_RANK`.
    pub(super) rank: u32,
    /// The number of the symbol they become.
    pub(super) id: u32,
}

const NO_RANK: u32 = u32::MAX;
const NEVER: Merged = Merged { rank: NO_RANK, id: NO_ID };

/// Up to this many symbols, looking for the lowest rank anew each time is faster than a heap.
const SHORT: usize = 40;

/// Memory that is kept from word to word.
#[derive(Default)]
pub(super) struct Scratch {
    merged: Vec<Merged>,
    previous: Vec<u32>,
    next: Vec<u32>,
    queue: BinaryHeap<Reverse<(u32, u32)>>,
}

/// Merges neighbours in `symbols`. `pair` says what two neighbours become, if anything.
/// O(n log n) in the number of symbols, which is below 2^32.
pub(super) fn merge(symbols: &mut Vec<Symbol>, scratch: &mut Scratch, pair: impl Fn(Symbol, Symbol) -> Option<Merged>) {
    let pair = |left: Symbol, right: Symbol| pair(left, right).unwrap_or(NEVER);
    scratch.merged.clear();
    scratch.merged.extend(symbols.windows(2).map(|two| pair(two[0], two[1])));
    if symbols.len() <= SHORT {
        merge_short(symbols, &mut scratch.merged, pair);
    } else {
        merge_long(symbols, scratch, pair);
    }
}

fn merge_short(symbols: &mut Vec<Symbol>, merged: &mut Vec<Merged>, pair: impl Fn(Symbol, Symbol) -> Merged) {
    loop {
        let (mut at, mut best) = (0, NEVER);
        for (i, &candidate) in merged.iter().enumerate() {
            if candidate.rank < best.rank {
                (at, best) = (i, candidate);
            }
        }
        if best.rank == NO_RANK {
            return;
        }
        symbols[at] = Symbol { id: best.id, end: symbols[at + 1].end, ..symbols[at] };
        symbols.remove(at + 1);
        merged.remove(at);
        if at > 0 {
            merged[at - 1] = pair(symbols[at - 1], symbols[at]);
        }
        if at < merged.len() {
            merged[at] = pair(symbols[at], symbols[at + 1]);
        }
    }
}

/// As `merge_short`, with a heap over a linked list. An entry of the heap is stale when the pair
/// at its left symbol has another rank by now.
fn merge_long(symbols: &mut Vec<Symbol>, scratch: &mut Scratch, pair: impl Fn(Symbol, Symbol) -> Merged) {
    let Scratch { merged, previous, next, queue } = scratch;
    let n = symbols.len() as u32;
    merged.push(NEVER);
    previous.clear();
    previous.extend((0..n).map(|i| i.wrapping_sub(1)));
    next.clear();
    next.extend((1..n).chain([NO_ID]));
    let ranked = merged.iter().zip(0..).filter(|(pair, _)| pair.rank != NO_RANK);
    queue.clear();
    queue.extend(ranked.map(|(pair, i)| Reverse((pair.rank, i))));

    while let Some(Reverse((rank, left))) = queue.pop() {
        let at = left as usize;
        if merged[at].rank != rank {
            continue;
        }
        let right = next[at] as usize;
        symbols[at] = Symbol { id: merged[at].id, end: symbols[right].end, ..symbols[at] };
        merged[right] = NEVER;
        next[at] = next[right];
        if next[at] != NO_ID {
            previous[next[at] as usize] = left;
        }
        for (first, second) in [(previous[at], left), (left, next[at])] {
            if first == NO_ID {
                continue;
            }
            let new = match symbols.get(second as usize) {
                Some(&symbol) => pair(symbols[first as usize], symbol),
                None => NEVER,
            };
            merged[first as usize] = new;
            if new.rank != NO_RANK {
                queue.push(Reverse((new.rank, first)));
            }
        }
    }

    let (mut kept, mut at) = (0, 0_u32);
    while at != NO_ID {
        symbols[kept] = symbols[at as usize];
        kept += 1;
        at = next[at as usize];
    }
    symbols.truncate(kept);
}
