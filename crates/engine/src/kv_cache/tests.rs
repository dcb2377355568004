use super::*;

impl BlockPool {
    /// Panics where a block is lost or in two states; `held` are the blocks of all sequences.
    pub fn check(&self, held: &[&[u32]]) {
        let mut references = vec![0; self.n_blocks()];
        held.iter().copied().flatten().for_each(|&block| references[block as usize] += 1);
        assert_eq!(self.references, references, "holders are counted");
        let mut n_free = vec![0; self.n_blocks()];
        self.free.iter().for_each(|&block| n_free[block as usize] += 1);
        let mut n_kept = 0;
        for block in 0..self.n_blocks() {
            let recorded = self.prefixes.contains(block as u32);
            n_kept += usize::from(recorded && references[block] == 0);
            let is_free = references[block] == 0 && !recorded;
            assert_eq!(n_free[block], usize::from(is_free), "block {block} is free, kept or held, and only one of them");
        }
        assert_eq!(self.n_kept, n_kept);
    }
}

fn ids(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

/// A sequence that computed `token_ids` and ended.
fn ended(pool: &mut BlockPool, token_ids: &[u32]) {
    let mut blocks = Vec::new();
    assert!(pool.grow(&mut blocks, token_ids.len()));
    let mut parent = None;
    for (idx, part) in token_ids.chunks(BLOCK).enumerate() {
        blocks[idx] = pool.record(parent, blocks[idx], part);
        parent = Some(blocks[idx]);
    }
    pool.release(&mut blocks);
}

/// How many tokens of a new sequence the pool still has.
fn known(pool: &BlockPool, token_ids: &[u32]) -> usize {
    let (mut parent, mut n) = (None, 0);
    while let Some((block, common)) = pool.longest_match(parent, &token_ids[n..]) {
        n += common;
        if common < BLOCK {
            break;
        }
        parent = Some(block);
    }
    n
}

#[test]
fn a_dry_pool_changes_nothing_and_released_blocks_serve_again() {
    let mut pool = BlockPool::new(3 * BLOCK);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    assert!(pool.grow(&mut first, BLOCK + 1));
    assert_eq!(first, [0, 1]);
    assert!(!pool.grow(&mut second, 2 * BLOCK));
    assert!(second.is_empty());
    assert_eq!(pool.n_available(), 1);
    pool.release(&mut first);
    assert!(pool.grow(&mut second, 3 * BLOCK));
    let mut all = second.clone();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2]);
    assert!(pool.grow(&mut second, 2 * BLOCK), "a sequence that is long enough needs nothing");
    pool.check(&[&second]);
}

#[test]
fn an_ended_sequence_is_found_to_its_last_token_and_not_beyond() {
    let mut pool = BlockPool::new(8 * BLOCK);
    ended(&mut pool, &ids(0..150));
    assert_eq!(pool.n_available(), 8, "what is kept is available");
    for (token_ids, expected) in [
        (ids(0..150), 150),
        (ids(0..400), 150),
        (ids(0..100), 100),
        ([ids(0..70), ids(0..70)].concat(), 70),
        ([ids(0..149), vec![7]].concat(), 149),
        (ids(64..150), 0),
        (vec![], 0),
    ] {
        assert_eq!(known(&pool, &token_ids), expected, "of {} tokens", token_ids.len());
    }
    pool.check(&[]);
}

#[test]
fn room_is_taken_from_the_least_recently_used_and_from_its_end() {
    let mut pool = BlockPool::new(4 * BLOCK);
    let (old, new) = (ids(0..128), ids(1000..1128));
    ended(&mut pool, &old);
    ended(&mut pool, &new);
    let mut blocks = Vec::new();
    for (n_blocks, of_old, of_new) in [(1, 64, 128), (2, 0, 128), (3, 0, 64), (4, 0, 0)] {
        assert!(pool.grow(&mut blocks, n_blocks * BLOCK));
        assert_eq!((known(&pool, &old), known(&pool, &new)), (of_old, of_new), "beside {n_blocks} blocks in use");
        pool.check(&[&blocks]);
    }
}

#[test]
fn two_sequences_that_compute_the_same_end_up_with_one_copy() {
    let mut pool = BlockPool::new(4 * BLOCK);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    assert!(pool.grow(&mut first, 2 * BLOCK) && pool.grow(&mut second, 2 * BLOCK));
    for blocks in [&mut first, &mut second] {
        blocks[0] = pool.record(None, blocks[0], &ids(0..64));
    }
    assert_eq!(first[0], second[0]);
    assert_eq!(pool.n_available(), 1);
    pool.check(&[&first, &second]);
    pool.release(&mut first);
    pool.check(&[&second]);
    assert_eq!(pool.n_available(), 2, "the common block is still held");
}

#[test]
fn a_longer_last_block_replaces_the_one_it_continues() {
    let mut pool = BlockPool::new(4 * BLOCK);
    ended(&mut pool, &ids(0..10));
    ended(&mut pool, &ids(0..30));
    ended(&mut pool, &ids(0..20));
    pool.check(&[]);
    assert_eq!((pool.n_kept, known(&pool, &ids(0..64))), (1, 30));
    ended(&mut pool, &ids(0..70));
    assert_eq!((pool.n_kept, known(&pool, &ids(0..128))), (2, 70));
}

#[test]
fn what_is_not_to_be_trusted_is_found_by_nobody() {
    let mut pool = BlockPool::new(8 * BLOCK);
    ended(&mut pool, &ids(0..64));
    let mut blocks = Vec::new();
    let (root, _) = pool.longest_match(None, &ids(0..64)).expect("the first block");
    pool.hold(root);
    blocks.push(root);
    let mut other = vec![root];
    pool.hold(root);
    assert!(pool.grow(&mut blocks, 192));
    blocks[1] = pool.record(Some(root), blocks[1], &ids(64..128));
    let mut branch = vec![root, blocks[1]];
    branch.iter().for_each(|&block| pool.hold(block));
    assert!(pool.grow(&mut branch, 192));
    branch[2] = pool.record(Some(branch[1]), branch[2], &ids(500..564));
    pool.release(&mut branch);
    pool.check(&[&blocks, &other]);
    pool.discard(&mut blocks);
    pool.check(&[&other]);
    assert_eq!(known(&pool, &ids(0..192)), 64, "the block that another one holds stays");
    pool.discard(&mut other);
    pool.check(&[]);
    assert_eq!((known(&pool, &ids(0..192)), pool.n_available(), pool.n_kept), (0, 8, 0));
}
