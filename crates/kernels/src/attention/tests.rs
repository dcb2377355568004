//! Attention of every instruction set against the definition in f64.

use super::*;
use crate::kv::{KvLayerMut, KvType};
use crate::ops::test_data::random;

/// A batch over one pool: per sequence (rows in the batch, position of the first).
struct Case {
    kind: KvType,
    heads: (usize, usize),
    k_dim: usize,
    v_dim: usize,
    seqs: &'static [(usize, usize)],
    window: Option<usize>,
    softcap: Option<f32>,
    sinks: bool,
}

const PLAIN: Case =
    Case { kind: KvType::F16, heads: (4, 2), k_dim: 32, v_dim: 32, seqs: &[(1, 70)], window: None, softcap: None, sinks: false };

/// Blocks of sequence `i`: not in order, and none shared.
fn block_tables(seqs: &[(usize, usize)]) -> (Vec<Vec<u32>>, usize) {
    let mut n_blocks = 1;
    let tables = seqs.iter().map(|&(rows, pos)| {
        let n = (rows + pos).div_ceil(KV_BLOCK);
        let table: Vec<u32> = (0..n).rev().map(|b| (n_blocks + b) as u32).collect();
        n_blocks += n;
        table
    });
    let tables = tables.collect();
    (tables, n_blocks)
}

fn check_case(ops: Ops, pool: &Pool, case: &Case) {
    let &Case { kind, heads: (n_heads, n_kv_heads), k_dim, v_dim, .. } = case;
    let layout = KvLayout { kind, n_kv_heads, k_dim, v_dim };
    let (tables, n_blocks) = block_tables(case.seqs);
    // What is not written is NaN, so that reading it shows.
    let mut k = vec![0xff; n_blocks * layout.k_block_bytes()];
    let mut v = vec![0xff; n_blocks * layout.v_block_bytes()];
    let m: usize = case.seqs.iter().map(|&(rows, _)| rows).sum();
    let q = random(m * n_heads * k_dim, 21, 1.0);
    let mut stored = Vec::new();
    for (i, &(rows, pos)) in case.seqs.iter().enumerate() {
        let mut of_seq = Vec::new();
        for at in 0..rows + pos {
            let k_row = random(n_kv_heads * k_dim, (i * 10_007 + at * 2) as u64, 2.0);
            let v_row = random(n_kv_heads * v_dim, (i * 10_007 + at * 2 + 1) as u64, 2.0);
            let mut layer = KvLayerMut { layout, k: &mut k, v: &mut v };
            ops.kv_append(&mut layer, tables[i][at / KV_BLOCK], at % KV_BLOCK, &k_row, &v_row);
            let back = |row: &[f32], dim: usize| -> Vec<f64> {
                let round = |row: &[f32]| -> Vec<f64> {
                    let (mut bytes, mut wide) = (vec![0; kind.row_bytes(dim)], vec![0.0; kind.padded(dim)]);
                    ops.narrow(kind, row, &mut bytes);
                    // SAFETY: an `Ops` exists only for an instruction set this machine has.
                    unsafe { (ops.table.widen)(kind, &bytes, &mut wide) };
                    wide[..dim].iter().map(|&v| f64::from(v)).collect()
                };
                row.chunks(dim).flat_map(round).collect()
            };
            of_seq.push((back(&k_row, k_dim), back(&v_row, v_dim)));
        }
        stored.push(of_seq);
    }
    let sinks = random(n_heads, 77, 2.0);
    let params = AttnParams {
        n_heads,
        scale: 1.0 / (k_dim as f32).sqrt() * 4.0,
        softcap: case.softcap,
        window: case.window,
        sinks: case.sinks.then_some(&sinks),
    };
    let mut seqs = Vec::new();
    for (table, &(rows, first_pos)) in tables.iter().zip(case.seqs) {
        let start = seqs.last().map_or(0, |seq: &AttnSeq<'_>| seq.q_rows.end);
        seqs.push(AttnSeq { blocks: table, q_rows: start..start + rows, first_pos });
    }
    let mut out = vec![f32::NAN; m * n_heads * v_dim];
    let mut scratch = AttnScratch::new(layout, n_heads, pool.threads(), seqs.len());
    let kv = KvLayer { layout, k: &k, v: &v };
    ops.attention(pool, &params, &kv, &seqs, &q, &mut out, &mut scratch);

    for (seq, stored) in seqs.iter().zip(&stored) {
        for row in seq.q_rows.clone() {
            let pos = seq.first_pos + row - seq.q_rows.start;
            for head in 0..n_heads {
                let kv_head = head / (n_heads / n_kv_heads);
                let q = &q[(row * n_heads + head) * k_dim..][..k_dim];
                let low = case.window.map_or(0, |w| (pos + 1).saturating_sub(w));
                let score = |(k, _): &(Vec<f64>, Vec<f64>)| {
                    let dot: f64 = q.iter().zip(&k[kv_head * k_dim..]).map(|(&q, k)| f64::from(q) * k).sum();
                    let s = dot * f64::from(params.scale);
                    case.softcap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
                };
                let weights: Vec<f64> = stored[low..=pos].iter().map(|kv| score(kv).exp()).collect();
                let sink = if case.sinks { f64::from(sinks[head]).exp() } else { 0.0 };
                let sum = weights.iter().sum::<f64>() + sink;
                for d in 0..v_dim {
                    let mixed: f64 = weights.iter().zip(&stored[low..=pos]).map(|(w, (_, v))| w * v[kv_head * v_dim + d]).sum();
                    let got = out[(row * n_heads + head) * v_dim + d];
                    assert!(
                        (f64::from(got) - mixed / sum).abs() < 4e-6,
                        "{}, {} threads, heads {:?}, dims {k_dim} {v_dim}, {kind:?}, window {:?}, cap {:?}, sinks {}, seqs {:?}: row {row} head {head} element {d} is {got} instead of {}",
                        ops.name(),
                        pool.threads(),
                        case.heads,
                        case.window,
                        case.softcap,
                        case.sinks,
                        case.seqs,
                        mixed / sum,
                    );
                }
            }
        }
    }
}

fn check_all(cases: &[Case]) {
    for threads in [1, 3] {
        let pool = Pool::new(threads);
        for ops in Ops::available() {
            for case in cases {
                check_case(ops, &pool, case);
            }
        }
    }
}

#[test]
fn decode_matches_the_definition_at_every_length() {
    for n in [0, 1, 2, 7, 15, 16, 31, 62, 63, 64, 65, 127, 128, 129, 200] {
        let seqs: &'static [(usize, usize)] = Box::leak(Box::new([(1, n)]));
        check_all(&[Case { seqs, ..PLAIN }, Case { seqs, kind: KvType::Q8_0, ..PLAIN }]);
    }
}

#[test]
fn prefill_matches_the_definition_at_every_length() {
    for n in [2, 9, 16, 17, 40, 63, 64, 65, 100, 130, 201] {
        let seqs: &'static [(usize, usize)] = Box::leak(Box::new([(n, n % 5)]));
        check_all(&[Case { seqs, ..PLAIN }, Case { seqs, kind: KvType::Q8_0, ..PLAIN }]);
    }
}

#[test]
fn head_dimensions_match_the_definition() {
    const SEQS: &[(usize, usize)] = &[(1, 80), (20, 3)];
    for kind in [KvType::F16, KvType::Q8_0] {
        for (k_dim, v_dim) in
            [(8, 8), (20, 12), (32, 32), (64, 64), (72, 72), (80, 80), (96, 96), (112, 112), (128, 128), (192, 128), (256, 256), (64, 96)]
        {
            check_all(&[Case { kind, k_dim, v_dim, seqs: SEQS, ..PLAIN }]);
        }
    }
}

#[test]
fn head_groups_match_the_definition() {
    const SEQS: &[(usize, usize)] = &[(1, 150), (3, 66), (11, 0)];
    for heads in [(1, 1), (3, 3), (3, 1), (5, 1), (6, 2), (14, 2), (8, 1), (9, 3), (16, 1), (20, 1), (71, 1)] {
        check_all(&[Case { heads, seqs: SEQS, ..PLAIN }]);
    }
}

#[test]
fn windows_caps_and_sinks_match_the_definition() {
    const SEQS: &[(usize, usize)] = &[(1, 199), (70, 60), (1, 5), (130, 0), (3, 129)];
    for kind in [KvType::F16, KvType::Q8_0] {
        for window in [None, Some(1), Some(5), Some(64), Some(65), Some(100), Some(1000)] {
            for (softcap, sinks) in [(None, false), (Some(3.0), false), (None, true), (Some(50.0), true)] {
                check_all(&[Case { kind, seqs: SEQS, window, softcap, sinks, ..PLAIN }]);
            }
        }
    }
}

#[test]
fn mixed_batches_match_the_definition() {
    const MIXED: &[&[(usize, usize)]] = &[
        &[(1, 100), (1, 0), (1, 64), (1, 300)],
        &[(33, 0), (1, 129), (0, 10), (4, 60), (90, 200)],
        &[(8, 600)],
        &[(9, 500)],
        &[(0, 0)],
        &[],
    ];
    for seqs in MIXED {
        check_all(&[Case { seqs, ..PLAIN }, Case { seqs, heads: (2, 1), ..PLAIN }]);
    }
}

#[test]
fn stale_blocks_behind_the_window_are_not_read() {
    let pool = Pool::new(1);
    let layout = KvLayout { kind: KvType::F16, n_kv_heads: 1, k_dim: 16, v_dim: 16 };
    let (k, v) = (vec![0; layout.k_block_bytes()], vec![0; layout.v_block_bytes()]);
    let params = AttnParams { n_heads: 1, scale: 1.0, softcap: None, window: Some(10), sinks: None };
    // Only block 0 exists; the first two entries of the table are of blocks that were given away.
    let seqs = [AttnSeq { blocks: &[u32::MAX, u32::MAX, 0], q_rows: 0..1, first_pos: 140 }];
    for ops in Ops::available() {
        let mut out = [f32::NAN; 16];
        let mut scratch = AttnScratch::new(layout, 1, 1, 1);
        ops.attention(&pool, &params, &KvLayer { layout, k: &k, v: &v }, &seqs, &[1.0; 16], &mut out, &mut scratch);
        assert_eq!(out, [0.0; 16]);
    }
}

#[test]
fn huge_scores_do_not_overflow() {
    let pool = Pool::new(1);
    let layout = KvLayout { kind: KvType::F16, n_kv_heads: 1, k_dim: 16, v_dim: 16 };
    for ops in Ops::available() {
        for rows in [1, 20] {
            let mut k = vec![0; layout.k_block_bytes()];
            let mut v = vec![0; layout.v_block_bytes()];
            for slot in 0..20 {
                let mut layer = KvLayerMut { layout, k: &mut k, v: &mut v };
                // Keys grow, so each row's own key takes all of the weight.
                ops.kv_append(&mut layer, 0, slot, &[slot as f32 * 1000.0; 16], &[slot as f32; 16]);
            }
            let params = AttnParams { n_heads: 1, scale: 1.0, softcap: None, window: None, sinks: None };
            let seqs = [AttnSeq { blocks: &[0], q_rows: 0..rows, first_pos: 20 - rows }];
            let mut out = vec![f32::NAN; rows * 16];
            let mut scratch = AttnScratch::new(layout, 1, 1, 1);
            let q = vec![10.0; rows * 16];
            ops.attention(&pool, &params, &KvLayer { layout, k: &k, v: &v }, &seqs, &q, &mut out, &mut scratch);
            for (row, out) in out.chunks(16).enumerate() {
                assert_eq!(out, [(20 - rows + row) as f32; 16], "{} row {row} of {rows}", ops.name());
            }
        }
    }
}
