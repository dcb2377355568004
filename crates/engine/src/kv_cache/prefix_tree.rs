//! What recorded blocks hold: a tree in which a block's parent is the block before it, so that a path from a root is a prefix.
//!
//! Rows of keys and values depend on the tokens up to theirs and on nothing else, so tokens are compared themselves: a hash
//! could confuse two prompts. Does not count who holds a block.

use std::cmp::Reverse;

use downshift_kernels::kv::KV_BLOCK as BLOCK;

/// A recorded block.
#[derive(Debug)]
struct Node {
    parent: Option<u32>,
    /// Blocks before it.
    depth: usize,
    /// Fewer than a block's positions in a sequence's last one, which has no children.
    token_ids: Vec<u32>,
    children: Vec<u32>,
    /// Never later than its parent's.
    last_used: u64,
}

/// Recorded blocks by number.
#[derive(Debug)]
pub struct PrefixTree {
    nodes: Vec<Option<Node>>,
    roots: Vec<u32>,
}

impl PrefixTree {
    /// An empty tree for blocks `0..n_blocks`.
    pub fn new(n_blocks: usize) -> Self {
        Self { nodes: (0..n_blocks).map(|_| None).collect(), roots: Vec::new() }
    }

    /// Whether `block` is recorded.
    pub fn contains(&self, block: u32) -> bool {
        self.nodes[block as usize].is_some()
    }

    /// Sets when a block was last used; nothing for one that is not recorded.
    pub fn touch(&mut self, block: u32, now: u64) {
        if let Some(node) = &mut self.nodes[block as usize] {
            node.last_used = now;
        }
    }

    /// The child of `parent` with the longest common start with `token_ids`, and its length; `None` for none in common.
    pub fn longest_match(&self, parent: Option<u32>, token_ids: &[u32]) -> Option<(u32, usize)> {
        let common = |child: &u32| {
            let held = self.nodes[*child as usize].as_ref().map_or(&[][..], |node| &node.token_ids);
            (*child, held.iter().zip(token_ids).take_while(|(a, b)| a == b).count())
        };
        self.children(parent).iter().map(common).filter(|&(_, n)| n > 0).max_by_key(|&(_, n)| n)
    }

    /// Records `block`. Its parent, if any, is recorded and whole.
    pub fn insert(&mut self, parent: Option<u32>, block: u32, token_ids: &[u32], now: u64) {
        debug_assert!(!self.contains(block) && token_ids.len() <= BLOCK);
        let depth = match parent.and_then(|parent| self.nodes[parent as usize].as_mut()) {
            Some(parent) => {
                parent.children.push(block);
                parent.depth + 1
            }
            None => {
                self.roots.push(block);
                0
            }
        };
        self.nodes[block as usize] = Some(Node { parent, depth, token_ids: token_ids.to_vec(), children: Vec::new(), last_used: now });
    }

    /// Forgets the children of `parent` that are last blocks and whose tokens begin `token_ids`; returns them.
    pub fn remove_covered(&mut self, parent: Option<u32>, token_ids: &[u32]) -> Vec<u32> {
        let is_covered = |block: &u32| {
            let node = self.nodes[*block as usize].as_ref();
            node.is_some_and(|node| node.token_ids.len() < BLOCK && token_ids.starts_with(&node.token_ids))
        };
        let covered: Vec<u32> = self.children(parent).iter().copied().filter(is_covered).collect();
        covered.iter().for_each(|&block| self.remove_leaf(block));
        covered
    }

    /// Forgets a block that has no children.
    pub fn remove_leaf(&mut self, block: u32) {
        let Some(node) = self.nodes[block as usize].take() else { return };
        debug_assert!(node.children.is_empty());
        let siblings = match node.parent.and_then(|parent| self.nodes[parent as usize].as_mut()) {
            Some(parent) => &mut parent.children,
            None => &mut self.roots,
        };
        siblings.retain(|&sibling| sibling != block);
    }

    /// Forgets a block and all that follow it; returns them, `block` last. Empty where it is not recorded.
    pub fn remove_subtree(&mut self, block: u32) -> Vec<u32> {
        if !self.contains(block) {
            return Vec::new();
        }
        let mut all = vec![block];
        let mut at = 0;
        while let Some(&block) = all.get(at) {
            all.extend(self.children(Some(block)));
            at += 1;
        }
        all.reverse();
        all.iter().for_each(|&block| self.remove_leaf(block));
        all
    }

    /// The `n` least recently used of the blocks that `is_idle`, children before their parents. All that follow an idle
    /// block are idle.
    pub fn oldest(&self, n: usize, is_idle: impl Fn(u32) -> bool) -> Vec<u32> {
        let recorded = self.nodes.iter().enumerate().filter_map(|(block, node)| Some((block as u32, node.as_ref()?)));
        let mut idle: Vec<_> =
            recorded.filter(|&(block, _)| is_idle(block)).map(|(block, node)| (node.last_used, Reverse(node.depth), block)).collect();
        idle.sort_unstable();
        idle.into_iter().take(n).map(|(_, _, block)| block).collect()
    }

    fn children(&self, parent: Option<u32>) -> &[u32] {
        match parent {
            Some(parent) => self.nodes[parent as usize].as_ref().map_or(&[], |node| &node.children),
            None => &self.roots,
        }
    }
}
