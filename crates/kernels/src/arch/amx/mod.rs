//! Kernels for AMX (Intel since Sapphire Rapids): products of many activation rows on tiles of bfloat16, with the AVX-512
//! VNNI kernels for few.
//!
//! Weights are expanded to bfloat16, a slice of a few rows at a time, with their exact scales, so that nothing has to be
//! scaled between tiles. Rounding weights and activations to bfloat16 costs 1.5e-3 relative error together, a fifth of what
//! quantizing the activations to eight bits costs. Weights that are floats are split into a high and a low part, and so are
//! the activations, which leaves less than 1e-5.

#![allow(clippy::missing_safety_doc, reason = "the one condition of every function here: the features of this module")]

mod expand;
mod pack;
mod tiles;

use super::avx512_vnni;
use crate::blocks::DType;
use crate::matmul::Panels;
use crate::quantize::{Activations, Form};
use crate::table::{Batch, KernelTable, Kernels};
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::ops::Range;

/// All kernels of this instruction set.
pub(crate) static TABLE: KernelTable = KernelTable { kernels, quantize, ..avx512_vnni::TABLE };

fn kernels(dtype: DType) -> Kernels {
    let batch = Batch { min_rows: MIN_ROWS, form: form(dtype), run };
    Kernels { batch: Some(batch), ..(avx512_vnni::TABLE.kernels)(dtype) }
}

fn form(dtype: DType) -> Form {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => Form::Bf16Pair,
        _ => Form::Bf16,
    }
}

/// From here on expanding a weight once costs less than unpacking it for each four rows.
const MIN_ROWS: usize = 5;

unsafe fn quantize(acts: &Activations, rows: Range<usize>, form: Form) {
    // SAFETY: the features of this module include those of the other; the caller's promise about the rows.
    unsafe {
        match form {
            Form::Bf16 | Form::Bf16Pair => pack::pack(acts, rows, form),
            _ => (avx512_vnni::TABLE.quantize)(acts, rows, form),
        }
    }
}

/// Weights of a row that are expanded at a time: with the activations they are multiplied with, they fit in the first level
/// cache (32 KiB each). A whole number of blocks of every format.
const SLICE: usize = 512;

/// As [`crate::table::RunBatch`].
unsafe fn run(dtype: DType, w: &[u8], k: usize, acts: &Activations, m: usize, panels: &mut Panels, out: &mut [f32]) {
    let Some(row_bytes) = dtype.row_bytes(k).filter(|bytes| *bytes > 0) else {
        out.fill(0.0);
        return;
    };
    let n = w.len() / row_bytes;
    assert!(k == acts.cols() && m <= acts.rows() && out.len() >= m * n);
    let (n_panels, n_columns) = (n.div_ceil(tiles::ROWS), m.div_ceil(tiles::COLUMNS));
    let slice_bytes = SLICE / dtype.block_len() * dtype.block_bytes();
    let parts = if matches!(dtype, DType::F32 | DType::F16) { 2 } else { 1 };
    let (panel, sums) = panels.weights_and_sums(n_panels * tiles::ROWS * SLICE * parts, n_panels * n_columns * tiles::SUMS);
    let activation_parts = if form(dtype) == Form::Bf16Pair { 2 } else { 1 };
    let _configured = tiles::Configured::new();
    for start in (0..k).step_by(SLICE) {
        let len = SLICE.min(k - start);
        let steps = len.div_ceil(tiles::DEPTH);
        for (r, row) in w.chunks_exact(row_bytes).enumerate() {
            let blocks = &row[start / dtype.block_len() * dtype.block_bytes()..];
            let blocks = &blocks[..blocks.len().min(slice_bytes)];
            // SAFETY: the features of this module; the panel has room for SLICE weights of each row in each part.
            unsafe { expand::row(dtype, blocks, &mut panel[r / tiles::ROWS * tiles::ROWS * SLICE * parts..], r % tiles::ROWS) };
        }
        for c in 0..n_columns {
            for p in 0..n_panels {
                let sums = &mut sums[(c * n_panels + p) * tiles::SUMS..][..tiles::SUMS];
                let mut fresh = start == 0;
                for (part, column_part) in [(0, 0), (0, 1), (1, 0)] {
                    if part >= parts || column_part >= activation_parts {
                        continue;
                    }
                    let a = &panel[(p * parts + part) * tiles::ROWS * SLICE..][..tiles::ROWS * SLICE];
                    let b = [0, 1].map(|half| acts.bf16_tiles(column_part, 2 * c + half, start / tiles::DEPTH, steps));
                    // SAFETY: the features of this module, and this thread's tiles are configured.
                    unsafe { tiles::multiply(a, b, steps, sums, fresh, m - c * tiles::COLUMNS > tiles::COLUMNS / 2) };
                    fresh = false;
                }
            }
        }
    }
    // SAFETY: the features of this module.
    unsafe { pack::unpack(sums, n_panels, m, n, out) };
}

/// Whether the processor has AMX with bfloat16, the system saves its registers, and grants their use.
pub(crate) fn detected() -> bool {
    let has = |register: u32, bit: u32| register >> bit & 1 == 1;
    if __cpuid(0).eax < 7 || !has(__cpuid(1).ecx, 27) {
        return false;
    }
    let features = __cpuid_count(7, 0);
    if !has(features.edx, 22) || !has(features.edx, 24) || !is_x86_feature_detected!("avx512bf16") {
        return false;
    }
    // SAFETY: bit 27 of cpuid(1).ecx says that the system uses xsave, so the instruction exists.
    let saved = unsafe { saved_registers() };
    saved >> 17 & 3 == 3 && granted()
}

#[target_feature(enable = "xsave")]
fn saved_registers() -> u64 {
    // SAFETY: the instruction exists where `xsave` does; register 0 always does.
    unsafe { _xgetbv(0) }
}

/// Linux grants the tile registers on request only, since they make a thread's state larger by 8 KiB.
#[cfg(target_os = "linux")]
fn granted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let result: isize;
    // SAFETY: arch_prctl with this request takes two numbers, follows no pointer, and only changes what this process may use;
    // a system call clobbers rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

/// Other systems grant them on first use, or not at all; without a way to tell, they are left alone.
#[cfg(not(target_os = "linux"))]
fn granted() -> bool {
    false
}
