//! Products in eight bits of a tile: two registers of 16 weight rows, or two halves of a group of one, and six activation rows.

use std::arch::asm;
use std::arch::x86_64::*;

/// Activation rows of a tile.
pub(super) const COLS: usize = 6;

/// The twelve sums of integers of a tile.
pub(super) type Ints = [[__m512i; COLS]; 2];

/// The instructions for four columns at offset `$x` of a group, of two registers of weights at offset `$w`.
macro_rules! step {
    ($w:literal, $x:literal) => {
        concat!(
            "vmovdqa64 zmm29, [{w} + ", $w, "]\n",
            "vmovdqa64 zmm30, [{w} + ", $w, " + 64]\n",
            step!(@column "a0", "b0", "{x}", $x),
            step!(@column "a1", "b1", "{x} + {s}", $x),
            step!(@column "a2", "b2", "{x} + 2*{s}", $x),
            step!(@column "a3", "b3", "{y}", $x),
            step!(@column "a4", "b4", "{y} + {s}", $x),
            step!(@column "a5", "b5", "{y} + 2*{s}", $x),
        )
    };
    (@column $a:literal, $b:literal, $row:literal, $x:literal) => {
        concat!(
            "vpbroadcastd zmm31, dword ptr [", $row, " + ", $x, "]\n",
            "vpdpbusd {", $a, "}, zmm29, zmm31\n",
            "vpdpbusd {", $b, "}, zmm30, zmm31\n",
        )
    };
}

/// The same for one register of weights, at offset `$w` those of the first half of the group and 512 further those of the
/// second.
macro_rules! step_of_halves {
    ($w:literal, $x:literal) => {
        concat!(
            "vmovdqa64 zmm29, [{w} + ", $w, "]\n",
            "vmovdqa64 zmm30, [{w} + ", $w, " + 512]\n",
            step_of_halves!(@column "a0", "b0", "{x}", $x),
            step_of_halves!(@column "a1", "b1", "{x} + {s}", $x),
            step_of_halves!(@column "a2", "b2", "{x} + 2*{s}", $x),
            step_of_halves!(@column "a3", "b3", "{y}", $x),
            step_of_halves!(@column "a4", "b4", "{y} + {s}", $x),
            step_of_halves!(@column "a5", "b5", "{y} + 2*{s}", $x),
        )
    };
    (@column $a:literal, $b:literal, $row:literal, $x:literal) => {
        concat!(
            "vpdpbusd {", $a, "}, zmm29, dword ptr [", $row, " + ", $x, "]{{1to16}}\n",
            "vpdpbusd {", $b, "}, zmm30, dword ptr [", $row, " + ", $x, " + 64]{{1to16}}\n",
        )
    };
}

/// Runs instructions made by the macros above on twelve sums. Written out, since LLVM reorders the intrinsics until the sums
/// no longer fit in the registers.
macro_rules! multiply {
    ($w:expr, $x:expr, $stride:expr, $starts:expr, $($step:expr),+ $(,)?) => {{
        let [[mut a0, mut a1, mut a2, mut a3, mut a4, mut a5], [mut b0, mut b1, mut b2, mut b3, mut b4, mut b5]] =
            $starts;
        asm!(
            $($step),+,
            w = in(reg) $w, x = in(reg) $x, y = in(reg) $x.wrapping_add(3 * $stride), s = in(reg) $stride,
            a0 = inout(zmm_reg) a0, a1 = inout(zmm_reg) a1, a2 = inout(zmm_reg) a2,
            a3 = inout(zmm_reg) a3, a4 = inout(zmm_reg) a4, a5 = inout(zmm_reg) a5,
            b0 = inout(zmm_reg) b0, b1 = inout(zmm_reg) b1, b2 = inout(zmm_reg) b2,
            b3 = inout(zmm_reg) b3, b4 = inout(zmm_reg) b4, b5 = inout(zmm_reg) b5,
            out("zmm29") _, out("zmm30") _, out("zmm31") _,
            options(pure, readonly, nostack, preserves_flags),
        );
        [[a0, a1, a2, a3, a4, a5], [b0, b1, b2, b3, b4, b5]]
    }};
}

/// The sums of a group of 32, for each of two registers of weight rows.
///
/// # Safety
/// At `w` are eight aligned steps of 32 rows; at `x`, and at each of `COLS` strides from there, a group of activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn products(w: *const u8, x: *const u8, stride: usize, starts: Ints) -> Ints {
    // SAFETY: reads 1024 bytes at `w` and of each row the group's halves, 16 bytes each and 64 apart.
    unsafe {
        multiply!(
            w,
            x,
            stride,
            starts,
            step!("0", "0"),
            step!("128", "4"),
            step!("256", "8"),
            step!("384", "12"),
            step!("512", "64"),
            step!("640", "68"),
            step!("768", "72"),
            step!("896", "76"),
        )
    }
}

/// The sums of the two halves of a group of 32, for one register of weight rows.
///
/// # Safety
/// As for [`products`], but `w` may be 64 bytes further.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn products_of_halves(w: *const u8, x: *const u8, stride: usize, starts: Ints) -> Ints {
    // SAFETY: as in `products`.
    unsafe {
        multiply!(
            w,
            x,
            stride,
            starts,
            step_of_halves!("0", "0"),
            step_of_halves!("128", "4"),
            step_of_halves!("256", "8"),
            step_of_halves!("384", "12"),
        )
    }
}
