//! SentencePiece's precompiled character map: which beginnings of a text are replaced by what.
//! An XOR-compressed double array over UTF-8 bytes (Kanda, Space- and Time-Efficient String
//! Dictionaries, 2018), then the replacements, each ended by a NUL.

use super::TokenizerError;

/// A precompiled character map. Corrupt entries match nothing.
#[derive(Default)]
pub(super) struct Charsmap {
    nodes: Vec<u32>,
    replacements: Vec<u8>,
}

/// A rule may be this long; a longer walk is one in circles.
const LONGEST_RULE_BYTES: usize = 256;

impl Charsmap {
    /// Reads the map as it lies in the file.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let corrupt = |reason| TokenizerError::BrokenCharsmap { reason };
        let Some((size, rest)) = bytes.split_first_chunk() else {
            return Err(corrupt("it is shorter than its header"));
        };
        let size = u32::from_le_bytes(*size) as usize;
        let Some((nodes, replacements)) = rest.split_at_checked(size) else {
            return Err(corrupt("its table is longer than the map"));
        };
        if replacements.last() != Some(&0) {
            return Err(corrupt("its last replacement has no end"));
        }
        let (nodes, rest) = nodes.as_chunks();
        if !rest.is_empty() {
            return Err(corrupt("the size of its table is no multiple of 4"));
        }
        let nodes = nodes.iter().map(|node| u32::from_le_bytes(*node)).collect();
        Ok(Self { nodes, replacements: replacements.to_vec() })
    }

    /// What the longest rule that matches the beginning of `text` replaces it by, and how many
    /// bytes of `text` that is.
    pub(super) fn replace(&self, text: &[u8]) -> Option<(&[u8], usize)> {
        let mut found = None;
        let mut at = self.base(0)?;
        for (&byte, len) in text.iter().zip(1..=LONGEST_RULE_BYTES) {
            at ^= u32::from(byte);
            let node = self.node(at)?;
            let is_child = node & (1 << 31 | 0xff) == u32::from(byte);
            if byte == 0 || !is_child {
                break;
            }
            at ^= base(node);
            if node >> 8 & 1 == 1 {
                let Some(value) = self.node(at) else { break };
                found = Some((value & !(1 << 31), len));
            }
        }
        let (start, len) = found?;
        let rest = self.replacements.get(start as usize..)?;
        Some((&rest[..memchr::memchr(0, rest)?], len))
    }

    fn node(&self, index: u32) -> Option<u32> {
        self.nodes.get(index as usize).copied()
    }

    fn base(&self, index: u32) -> Option<u32> {
        self.node(index).map(base)
    }
}

/// Where the children of a node are, relative to it.
fn base(node: u32) -> u32 {
    (node >> 10) << ((node & 1 << 9) >> 6)
}
