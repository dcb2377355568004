//! Spellings by their beginnings: which tokens begin at a place in a text.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// A tree of the bytes of spellings.
pub(super) struct Trie {
    /// From `node << 8 | byte` to the node after that byte.
    edges: HashMap<u64, u32, RandomState>,
    /// The token whose spelling ends at a node.
    ids: Vec<Option<u32>>,
}

/// A spelling may be this long; no published vocabulary has longer ones, and a longer one in a
/// broken file would make every place of a text as expensive as it is long.
const LONGEST_BYTES: usize = 256;

/// Bounds the memory of a trie to a few hundred MiB.
const MOST_NODES: usize = 1 << 24;

impl Trie {
    /// The trie of `pieces`, of which the last wins where two are the same. `None` where they
    /// are too many. Pieces that are too long are left out.
    pub(super) fn new<'p>(pieces: impl Iterator<Item = (u32, &'p [u8])>) -> Option<Self> {
        let mut trie = Self { edges: HashMap::default(), ids: vec![None] };
        for (id, piece) in pieces.filter(|(_, piece)| piece.len() <= LONGEST_BYTES) {
            let mut node = 0;
            for &byte in piece {
                let new = trie.ids.len() as u32;
                node = *trie.edges.entry(edge(node, byte)).or_insert(new);
                if node == new {
                    trie.ids.push(None);
                }
            }
            trie.ids[node as usize] = Some(id);
            if trie.ids.len() > MOST_NODES {
                return None;
            }
        }
        Some(trie)
    }

    /// The tokens that `text` begins with, each with its length, shortest first.
    pub(super) fn prefixes(&self, text: &[u8]) -> impl Iterator<Item = (u32, usize)> {
        let nodes = text.iter().scan(0, |node, &byte| {
            *node = *self.edges.get(&edge(*node, byte))?;
            Some(*node)
        });
        nodes.zip(1..).filter_map(|(node, len)| Some((self.ids[node as usize]?, len)))
    }
}

fn edge(node: u32, byte: u8) -> u64 {
    u64::from(node) << 8 | u64::from(byte)
}
