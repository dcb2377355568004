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

pub(crate) use tiles::Configured;

use super::avx512_vnni;
use crate::aligned::Aligned;
use crate::blocks::DType;
use crate::quantize::{Activations, BF16_SLICE, Form};
use crate::table::{Batch, KernelTable, Kernels, Sums};
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::ops::Range;

/// All kernels of this instruction set.
pub(crate) static TABLE: KernelTable = KernelTable { kernels, quantize, ..avx512_vnni::TABLE };

fn kernels(dtype: DType) -> Kernels {
    let batch = Batch { min_rows: MIN_ROWS, min_decode_rows: MIN_DECODE_ROWS, form: form(dtype), run, sums: Sums::Tiles(pack::unpack) };
    Kernels { batch: Some(batch), ..(avx512_vnni::TABLE.kernels)(dtype) }
}

fn form(dtype: DType) -> Form {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => Form::Bf16Pair,
        _ => Form::Bf16,
    }
}

/// From here on expanding a weight once costs less than unpacking it for each four rows.
const MIN_DECODE_ROWS: usize = 13;

/// Fewer rows of a prompt take up to twice as long as with the other kernels, and are a fifth as wrong.
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

/// Weights of a row that are expanded at a time, so that a panel of 32 rows fits in the first level cache and a slice of the
/// activations in the second. A whole number of blocks of every format.
const SLICE: usize = BF16_SLICE;

/// As [`Batch::run`].
unsafe fn run(dtype: DType, w: &[u8], k: usize, acts: &Activations, m: usize, panels: &mut Aligned<u16>, sums: &mut Aligned<f32>) {
    let row_bytes = dtype.row_bytes(k).unwrap_or(0);
    let n = w.len().checked_div(row_bytes).unwrap_or(0);
    assert!(k == acts.cols() && m <= acts.rows());
    let (n_panels, n_columns) = (n.div_ceil(tiles::ROWS), m.div_ceil(tiles::COLUMNS));
    let slice_bytes = SLICE / dtype.block_len() * dtype.block_bytes();
    let parts = if matches!(dtype, DType::F32 | DType::F16) { 2 } else { 1 };
    let products: &[(usize, usize)] = match dtype {
        DType::F32 | DType::F16 => &[(0, 0), (0, 1), (1, 0)],
        DType::BF16 => &[(0, 0), (0, 1)],
        _ => &[(0, 0)],
    };
    let panel_len = tiles::ROWS * SLICE * parts;
    let panels = panels.at_least(n_panels * panel_len);
    let sums = sums.at_least(n_columns * n_panels * tiles::SUMS);
    let _configured = tiles::Configured::new();
    for slice in 0..k.div_ceil(SLICE) {
        let steps = SLICE.min(k - slice * SLICE).div_ceil(tiles::DEPTH);
        let bytes = slice * slice_bytes..row_bytes.min((slice + 1) * slice_bytes);
        for (r, row) in w.chunks_exact(row_bytes.max(1)).enumerate() {
            let panel = &mut panels[r / tiles::ROWS * panel_len..][..panel_len];
            // SAFETY: the features of this module.
            unsafe { expand::row(dtype, &row[bytes.clone()], panel, r % tiles::ROWS) };
        }
        for column in 0..n_columns {
            let both = m - column * tiles::COLUMNS > tiles::COLUMNS / 2;
            let b = [0, 1].map(|part| [0, 1].map(|half| acts.bf16_tiles(part, 2 * column + half, slice)));
            for p in 0..n_panels {
                let sums = &mut sums[(column * n_panels + p) * tiles::SUMS..][..tiles::SUMS];
                for (i, (part, column_part)) in products.iter().enumerate() {
                    let a = &panels[p * panel_len + part * tiles::ROWS * SLICE..][..tiles::ROWS * SLICE];
                    // SAFETY: the features of this module, and this thread's tiles are configured.
                    unsafe { tiles::multiply(a, b[*column_part], steps, sums, slice == 0 && i == 0, both) };
                }
            }
        }
    }
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
