//! Attention of every instruction set against the definition in f64.

use super::*;
use crate::kv::{KvLayerMut, KvType};
use crate::ops::scalar;
use crate::ops::test_data::random;

/// A batch over one pool: per sequence (rows in the batch, position of the first).
#[derive(Debug)]
struct Case<'a> {
    kind: KvType,
    heads: (usize, usize),
    k_dim: usize,
    v_dim: usize,
    seqs: &'a [(usize, usize)],
    window: Option<usize>,
    softcap: Option<f32>,
    sinks: bool,
}

const PLAIN: Case<'_> =
    Case { kind: KvType::F16, heads: (4, 2), k_dim: 16, v_dim: 16, seqs: &[(1, 70)], window: None, softcap: None, sinks: false };

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

/// What results are off by where the largest value is 1.
fn precision(ops: &Ops) -> f64 {
    match ops.name() {
        // Two bfloat16 hold 16 bits of a number; an integer holds 15 of its vector's length, and the scores of these tests are as
        // large as 30 times the product of two elements.
        "amx" => 1e-5,
        "avx512vnni" => 4e-4,
        _ => 1e-6,
    }
}

/// Fills a pool, works the result out in f64 from what was stored, and compares it with that of every instruction set and
/// number of threads.
fn check(case: &Case<'_>) {
    let &Case { kind, heads: (n_heads, n_kv_heads), k_dim, v_dim, .. } = case;
    let scalar = Ops::available()[0];
    let layout = KvLayout { kind, n_kv_heads, k_dim, v_dim };
    let (tables, n_blocks) = block_tables(case.seqs);
    // What is not written is NaN, so that reading it shows.
    let mut k = vec![0xff; n_blocks * layout.k_block_bytes()];
    let mut v = vec![0xff; n_blocks * layout.v_block_bytes()];
    let mut seqs = Vec::new();
    for (i, (table, &(rows, first_pos))) in tables.iter().zip(case.seqs).enumerate() {
        let start = seqs.last().map_or(0, |seq: &AttnSeq<'_>| seq.q_rows.end);
        seqs.push(AttnSeq { blocks: table, q_rows: start..start + rows, first_pos });
        let n = rows + first_pos;
        let (keys, values) = (random(n * n_kv_heads * k_dim, i as u64, 2.0), random(n * n_kv_heads * v_dim, i as u64 + 99, 2.0));
        for (pos, (key, value)) in keys.chunks(n_kv_heads * k_dim).zip(values.chunks(n_kv_heads * v_dim)).enumerate() {
            let mut layer = KvLayerMut { layout, k: &mut k, v: &mut v };
            scalar.kv_append(&mut layer, table[pos / KV_BLOCK], pos % KV_BLOCK, key, value);
        }
    }
    let kv = KvLayer { layout, k: &k, v: &v };
    let m = seqs.last().map_or(0, |seq| seq.q_rows.end);
    let q = random(m * n_heads * k_dim, 21, 1.0);
    let sinks = random(n_heads, 77, 2.0);
    let params = AttnParams {
        n_heads,
        scale: 4.0 / (k_dim as f32).sqrt(),
        softcap: case.softcap,
        window: case.window,
        sinks: case.sinks.then_some(&sinks),
    };
    let expected = by_definition(&params, &kv, &seqs, &q, m);
    for threads in [1, 3] {
        let pool = Pool::new(threads);
        for ops in Ops::available() {
            let bound = 4.0 * precision(&ops);
            let mut out = vec![f32::NAN; m * n_heads * v_dim];
            let mut scratch = AttnScratch::new(layout, n_heads, threads, seqs.len());
            ops.attention(&pool, &params, &kv, &seqs, &q, &mut out, &mut scratch);
            for (i, (got, expected)) in out.iter().zip(&expected).enumerate() {
                let (row, head, d) = (i / v_dim / n_heads, i / v_dim % n_heads, i % v_dim);
                assert!(
                    (f64::from(*got) - expected).abs() < bound,
                    "{}, {threads} threads, {case:?}: row {row} head {head} element {d} is {got} instead of {expected}",
                    ops.name(),
                );
            }
        }
    }
}

fn by_definition(params: &AttnParams<'_>, kv: &KvLayer<'_>, seqs: &[AttnSeq<'_>], q: &[f32], m: usize) -> Vec<f64> {
    let (KvLayout { kind, n_kv_heads, k_dim, v_dim }, n_heads) = (kv.layout, params.n_heads);
    let widened = |stored: &[u8], dim: usize| {
        let mut wide = vec![0.0; kind.padded(dim)];
        scalar::widen(kind, stored, &mut wide);
        wide
    };
    let mut out = vec![0.0; m * n_heads * v_dim];
    for seq in seqs {
        for kv_head in 0..n_kv_heads {
            let rows = (0..seq.first_pos + seq.q_rows.len()).map(|pos| {
                let (block, slot) = (seq.blocks[pos / KV_BLOCK], pos % KV_BLOCK);
                let (k, v) = (kv.k_rows(block, kv_head, slot..slot + 1), kv.v_rows(block, kv_head, slot..slot + 1));
                (widened(k, k_dim), widened(v, v_dim))
            });
            let rows: Vec<_> = rows.collect();
            for (i, row) in seq.q_rows.clone().enumerate() {
                let pos = seq.first_pos + i;
                let seen = &rows[params.window.map_or(0, |window| (pos + 1).saturating_sub(window))..=pos];
                for head in kv_head * n_heads / n_kv_heads..(kv_head + 1) * n_heads / n_kv_heads {
                    let q = &q[(row * n_heads + head) * k_dim..][..k_dim];
                    let weight = |(k, _): &(Vec<f32>, Vec<f32>)| {
                        let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                        let score = dot * f64::from(params.scale);
                        params.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh()).exp()
                    };
                    let weights: Vec<f64> = seen.iter().map(weight).collect();
                    let sink = params.sinks.map_or(0.0, |sinks| f64::from(sinks[head]).exp());
                    let sum = weights.iter().sum::<f64>() + sink;
                    for (d, out) in out[(row * n_heads + head) * v_dim..][..v_dim].iter_mut().enumerate() {
                        *out = weights.iter().zip(seen).map(|(w, (_, v))| w * f64::from(v[d])).sum::<f64>() / sum;
                    }
                }
            }
        }
    }
    out
}

#[test]
fn decode_matches_the_definition_at_every_length() {
    for n in [0, 1, 2, 7, 15, 16, 31, 62, 63, 64, 65, 127, 128, 129, 200] {
        let seqs = &[(1, n)];
        check(&Case { seqs, ..PLAIN });
        check(&Case { seqs, kind: KvType::Q8_0, ..PLAIN });
    }
}

#[test]
fn prefill_matches_the_definition_at_every_length() {
    for n in [2, 9, 16, 17, 40, 63, 64, 65, 100, 130, 201] {
        let seqs = &[(n, n % 5)];
        check(&Case { seqs, heads: (2, 1), ..PLAIN });
        check(&Case { seqs, heads: (1, 1), kind: KvType::Q8_0, ..PLAIN });
    }
}

#[test]
fn head_dimensions_match_the_definition() {
    let dims = [8, 20, 32, 64, 72, 80, 96, 112, 128, 256].map(|dim| (dim, dim));
    for (k_dim, v_dim) in dims.into_iter().chain([(192, 128), (64, 96)]) {
        for kind in [KvType::F16, KvType::Q8_0] {
            check(&Case { kind, k_dim, v_dim, seqs: &[(1, 80), (18, 3)], heads: (2, 2), ..PLAIN });
        }
    }
}

#[test]
fn head_groups_match_the_definition() {
    for heads in [(1, 1), (3, 3), (3, 1), (5, 1), (6, 2), (14, 2), (8, 1), (9, 3), (16, 1), (20, 1), (71, 1)] {
        check(&Case { heads, seqs: &[(1, 130), (3, 66), (7, 0)], ..PLAIN });
    }
}

#[test]
fn windows_caps_and_sinks_match_the_definition() {
    let seqs = &[(1, 199), (70, 60), (1, 5), (3, 129)];
    for (window, softcap, sinks) in [
        (None, Some(3.0), false),
        (None, Some(50.0), true),
        (None, None, true),
        (Some(1), None, true),
        (Some(5), None, false),
        (Some(64), Some(3.0), false),
        (Some(65), None, false),
        (Some(100), Some(50.0), true),
        (Some(1000), None, false),
    ] {
        for kind in [KvType::F16, KvType::Q8_0] {
            check(&Case { kind, seqs, heads: (2, 1), window, softcap, sinks, ..PLAIN });
        }
    }
}

#[test]
fn mixed_batches_match_the_definition() {
    for seqs in [
        &[(1, 100), (1, 0), (1, 64), (1, 300)][..],
        &[(33, 0), (1, 129), (0, 10), (4, 60), (90, 200)],
        &[(8, 600)],
        &[(9, 500)],
        &[(0, 0)],
        &[],
    ] {
        check(&Case { seqs, ..PLAIN });
        check(&Case { seqs, heads: (2, 1), ..PLAIN });
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
                let expected = (20 - rows + row) as f64;
                for out in out {
                    let error = (f64::from(*out) - expected).abs();
                    assert!(error <= 20.0 * precision(&ops), "{} row {row} of {rows}: {out}", ops.name());
                }
            }
        }
    }
}

#[test]
fn what_is_no_number_shows_in_the_result() {
    let pool = Pool::new(1);
    let layout = KvLayout { kind: KvType::F16, n_kv_heads: 1, k_dim: 32, v_dim: 32 };
    let params = AttnParams { n_heads: 1, scale: 1.0, softcap: None, window: None, sinks: None };
    for (ops, rows) in Ops::available().into_iter().flat_map(|ops| [(ops, 1), (ops, 20)]) {
        for (spoiled, bad) in (0..3).flat_map(|spoiled| [(spoiled, f32::NAN), (spoiled, f32::INFINITY)]) {
            let mut k = vec![0; layout.k_block_bytes()];
            let mut v = vec![0; layout.v_block_bytes()];
            let mut q = vec![0.5; rows * 32];
            for slot in 0..20 {
                let (mut key, mut value) = ([0.25; 32], [0.75; 32]);
                match (slot, spoiled) {
                    (0, 0) => key[7] = bad,
                    (0, 1) => value[7] = bad,
                    (0, 2) => q[7] = bad,
                    _ => {}
                }
                let mut layer = KvLayerMut { layout, k: &mut k, v: &mut v };
                ops.kv_append(&mut layer, 0, slot, &key, &value);
            }
            let seqs = [AttnSeq { blocks: &[0], q_rows: 0..rows, first_pos: 20 - rows }];
            let mut out = vec![0.0; rows * 32];
            let mut scratch = AttnScratch::new(layout, 1, 1, 1);
            ops.attention(&pool, &params, &KvLayer { layout, k: &k, v: &v }, &seqs, &q, &mut out, &mut scratch);
            // A query spoils its own row, a key or value those of all that see it.
            let spoiled_rows = if spoiled == 2 { 1 } else { rows };
            for (row, out) in out.chunks(32).enumerate().take(spoiled_rows) {
                let (name, got) = (ops.name(), out[7]);
                assert!(!got.is_finite(), "{name}, {bad} in operand {spoiled}, row {row} of {rows}: {got}");
            }
        }
    }
}
