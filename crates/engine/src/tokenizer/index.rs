//! A hash table from spellings to tokens, made for being built and asked half a million times
//! while a model loads: most answers cost one cache line, and look-ups can be made side by side.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

/// From spellings to ids. Does not hold the spellings: whoever asks compares.
pub(super) struct Index {
    /// A power of two, at least half empty.
    slots: Vec<Slot>,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Slot {
    key: u64,
    len: u32,
    id: u32,
}

const EMPTY: Slot = Slot { key: 0, len: 0, id: u32::MAX };

/// A spelling to look for.
#[derive(Clone, Copy)]
pub(super) struct Query {
    home: usize,
    /// The spelling itself if it has up to 8 bytes, else 64 bits of its hash.
    key: u64,
    len: u32,
}

impl Index {
    /// An empty table for `n` spellings.
    pub(super) fn for_spellings(n: usize) -> Self {
        let slots = vec![EMPTY; (n.max(1) * 2).next_power_of_two()];
        Self { slots, hasher: RandomState::default() }
    }

    /// The spelling `piece`, which is shorter than 2^32 bytes.
    #[inline]
    pub(super) fn query(&self, piece: &[u8]) -> Query {
        let hash = self.hasher.hash_one(piece);
        let home = hash as usize & (self.slots.len() - 1);
        Query { home, key: packed(piece).unwrap_or(hash), len: piece.len() as u32 }
    }

    /// Adds a spelling, or gives it another id. `same` tells whether an id has this spelling.
    /// Returns whether it was there.
    pub(super) fn insert(&mut self, query: Query, id: u32, same: impl Fn(u32) -> bool) -> bool {
        let (at, found) = self.probe(query, same);
        self.slots[at] = Slot { key: query.key, len: query.len, id };
        found
    }

    /// The id of a spelling. `same` tells whether an id has this spelling.
    #[inline]
    pub(super) fn find(&self, query: Query, same: impl Fn(u32) -> bool) -> Option<u32> {
        let (at, found) = self.probe(query, same);
        found.then(|| self.slots[at].id)
    }

    /// The ids of many spellings, up to the chance that two of more than 8 bytes have the same
    /// length and the same 64 bits of a hash with a random seed. The memory of all of them is
    /// asked for before the first is compared, which makes it several times as fast.
    pub(super) fn find_all(&self, queries: &[Query], found: &mut Vec<Option<u32>>) {
        let start = found.len();
        let at_home = queries.iter().map(|query| {
            let slot = self.slots[query.home];
            (slot.key == query.key && slot.len == query.len && slot.id != EMPTY.id).then_some(slot.id)
        });
        found.extend(at_home);
        for (query, id) in queries.iter().zip(&mut found[start..]) {
            if id.is_none() {
                *id = self.find(*query, |_| true);
            }
        }
    }

    #[inline]
    fn probe(&self, query: Query, same: impl Fn(u32) -> bool) -> (usize, bool) {
        let mut at = query.home;
        loop {
            let slot = self.slots[at];
            if slot.id == EMPTY.id {
                return (at, false);
            }
            if slot.key == query.key && slot.len == query.len && (slot.len <= 8 || same(slot.id)) {
                return (at, true);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

/// Up to 8 bytes as a number that, with the length, tells them apart.
fn packed(piece: &[u8]) -> Option<u64> {
    let n = piece.len();
    if let (Some(first), Some(last)) = (piece.first_chunk(), piece.last_chunk())
        && n <= 8
    {
        return Some(u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)));
    }
    match *piece {
        [] => Some(0),
        [a] => Some(u64::from(a)),
        [a, b] => Some(u64::from(a) << 8 | u64::from(b)),
        [a, b, c] => Some(u64::from(a) << 16 | u64::from(b) << 8 | u64::from(c)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_every_length_are_found_and_no_others() {
        let text = b"the quick brown fox jumps";
        let pieces: Vec<&[u8]> = (0..text.len()).flat_map(|start| (start..=text.len()).map(move |end| &text[start..end])).collect();
        let mut index = Index::for_spellings(pieces.len());
        for (id, piece) in pieces.iter().enumerate() {
            let query = index.query(piece);
            index.insert(query, id as u32, |id| pieces[id as usize] == *piece);
        }
        let mut found = Vec::new();
        let queries: Vec<Query> = pieces.iter().map(|piece| index.query(piece)).collect();
        index.find_all(&queries, &mut found);
        for (piece, found) in pieces.iter().zip(found) {
            let last = pieces.iter().rposition(|other| other == piece);
            assert_eq!(found.map(|id| id as usize), last, "{piece:?}");
        }
        for absent in [&b"z"[..], b"quack", b"the quick brown fox jumped"] {
            assert_eq!(index.find(index.query(absent), |id| pieces[id as usize] == absent), None);
        }
    }
}
