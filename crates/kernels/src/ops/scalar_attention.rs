//! The parts of attention in plain Rust: the specification of every other table.

use std::ops::Range;

use half::f16;

use super::{MixRows, STRIP, ScoreMap, TileColumns};
use crate::kv::{KV_BLOCK, KvType};

/// Element `i` of a stored row.
fn element(kind: KvType, row: &[u8], i: usize) -> f32 {
    let half = |at: usize| f16::from_le_bytes([row[at], row[at + 1]]).to_f32();
    match kind {
        KvType::F16 => half(2 * i),
        KvType::Q8_0 => half(i / 32 * 34) * f32::from(row[i / 32 * 34 + 2 + i % 32] as i8),
    }
}

fn map_score(map: ScoreMap, score: f32) -> f32 {
    match map {
        ScoreMap::Scaled { scale } => score * scale,
        ScoreMap::Capped { inner, cap } => (score * inner).tanh() * cap,
    }
}

pub(crate) fn score_rows(kind: KvType, dim: usize, q: &[f32], k: &[u8], scores: &mut [f32], _next: &[u8]) {
    for (q, scores) in q.chunks_exact(dim).zip(scores.chunks_exact_mut(KV_BLOCK)) {
        for (score, row) in scores.iter_mut().zip(k.chunks_exact(kind.row_bytes(dim))) {
            *score = q.iter().enumerate().map(|(i, q)| q * element(kind, row, i)).sum();
        }
    }
}

pub(crate) fn online_softmax(map: ScoreMap, scores: &mut [f32], max: &mut f32, sum: &mut f32) -> f32 {
    let mut new_max = *max;
    for score in scores.iter_mut() {
        *score = map_score(map, *score);
        new_max = new_max.max(*score);
    }
    // Nothing seen yet: any finite reference does, and 2^(-infinity - it) is 0.
    let reference = if new_max == f32::NEG_INFINITY { 0.0 } else { new_max };
    let factor = (*max - reference).exp2();
    let mut added = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - reference).exp2();
        added += *score;
    }
    *max = new_max;
    *sum = *sum * factor + added;
    factor
}

pub(crate) fn mix_rows(kind: KvType, dim: usize, mix: MixRows<'_>, v: &[u8], acc: &mut [f32], _next: &[u8]) {
    for ((acc, weights), factor) in acc.chunks_exact_mut(dim).zip(mix.weights.chunks_exact(KV_BLOCK)).zip(mix.factor) {
        for (i, acc) in acc.iter_mut().enumerate() {
            let rows = v.chunks_exact(kind.row_bytes(dim));
            let added: f32 = rows.zip(&weights[mix.first..]).map(|(row, w)| w * element(kind, row, i)).sum();
            *acc = *acc * factor + added;
        }
    }
}

pub(crate) fn score_tile(dim: usize, n_keys: usize, k: &[f32], qt: &[f32], st: &mut [f32]) {
    for (qt, st) in qt.chunks_exact(dim * STRIP).zip(st.chunks_exact_mut(KV_BLOCK * STRIP)) {
        for (k, st) in k.chunks_exact(dim).take(n_keys).zip(st.chunks_exact_mut(STRIP)) {
            st.fill(0.0);
            for (k, qt) in k.iter().zip(qt.chunks_exact(STRIP)) {
                for (st, q) in st.iter_mut().zip(qt) {
                    *st += k * q;
                }
            }
        }
    }
}

pub(crate) fn softmax_tile(map: ScoreMap, n_keys: usize, st: &mut [f32], columns: TileColumns<'_>) {
    let mut column = [0f32; KV_BLOCK];
    for r in 0..columns.max.len() {
        let strip = &mut st[r / STRIP * KV_BLOCK * STRIP..][..KV_BLOCK * STRIP];
        let (low, high) = columns.visible.map_or((0.0, KV_BLOCK as f32), |(low, high)| (low[r], high[r]));
        let visible = (low as usize).min(n_keys)..(high as usize).min(n_keys);
        column.fill(0.0);
        for j in visible.clone() {
            column[j] = strip[j * STRIP + r % STRIP];
        }
        let seen = if visible.is_empty() { &mut [][..] } else { &mut column[visible] };
        columns.factor[r] = online_softmax(map, seen, &mut columns.max[r], &mut columns.sum[r]);
        for j in 0..n_keys {
            strip[j * STRIP + r % STRIP] = column[j];
        }
    }
}

pub(crate) fn mix_tile(dim: usize, keys: Range<usize>, v: &[f32], pt: &[f32], factor: &[f32], ot: &mut [f32]) {
    let strips = ot.chunks_exact_mut(dim * STRIP).zip(pt.chunks_exact(KV_BLOCK * STRIP));
    for ((ot, pt), factor) in strips.zip(factor.chunks_exact(STRIP)) {
        for row in ot.chunks_exact_mut(STRIP) {
            for (o, f) in row.iter_mut().zip(factor) {
                *o *= f;
            }
        }
        for (v, pt) in v.chunks_exact(dim).zip(pt[keys.start * STRIP..keys.end * STRIP].chunks_exact(STRIP)) {
            for (v, ot) in v.iter().zip(ot.chunks_exact_mut(STRIP)) {
                for (o, p) in ot.iter_mut().zip(pt) {
                    *o += v * p;
                }
            }
        }
    }
}
