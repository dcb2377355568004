//! The tile registers: 32 weight rows times 32 activation rows in four accumulators.

use std::arch::asm;
use std::marker::PhantomData;

/// Weight rows of a panel: two tiles of 16.
pub(super) const ROWS: usize = 32;
/// Activation rows that are multiplied at a time: two tiles of 16.
pub(super) const COLUMNS: usize = 32;
/// Weights of a row in a tile.
pub(super) const DEPTH: usize = 32;
/// Numbers in a tile of bfloat16, 1 KiB.
pub(super) const TILE: usize = 16 * DEPTH;
/// Numbers in the four accumulators: for each 16 weight rows, for each 16 activation rows, (weight row, activation row).
pub(super) const SUMS: usize = ROWS * COLUMNS;

#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles are 16 rows of 64 bytes.
static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// This thread's tiles are configured; dropping it gives them back, so that the system need not save them.
pub(crate) struct Configured(PhantomData<*const ()>);

impl Configured {
    pub(crate) fn new() -> Self {
        // SAFETY: CONFIG is a valid configuration of 64 bytes; this module is reached only where the processor and the system
        // have tiles.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly, preserves_flags)) };
        Self(PhantomData)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: as above; no tile is in use after the kernels that ran while this lived.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// `sums (+)= a · bᵀ` over `steps` tiles: `a` holds two tiles of weights a step, each (weight row, depth); `b` two runs of
/// tiles, of the first and of the second 16 activation rows, each (pair of depths, activation row, 2).
/// With `both` false the second 16 are left out, and so are their sums. With `fresh` the sums start at zero.
///
/// # Safety
/// The machine has AMX with bfloat16, and this thread's tiles are configured.
pub(super) unsafe fn multiply(a: &[u16], b: [&[u16]; 2], steps: usize, sums: &mut [f32], fresh: bool, both: bool) {
    assert!(steps > 0 && a.len() >= steps * 2 * TILE && sums.len() >= SUMS);
    assert!(b.iter().all(|b| b.len() >= steps * TILE));
    let [b0, b1] = b.map(<[u16]>::as_ptr);
    let (a, sums, fresh) = (a.as_ptr(), sums.as_mut_ptr(), u32::from(fresh));
    // SAFETY: the loops run `steps` > 0 times and read two tiles of `a` and one of each `b` each time; the accumulators are
    // SUMS numbers at `sums`: all within the slices, as asserted. A tile is 16 rows of 64 bytes, 64 bytes apart. Every
    // register written is declared.
    unsafe {
        if both {
            asm!(
                "test {fresh:e}, {fresh:e}",
                "jz 2f",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "jmp 3f",
                "2:",
                "tileloadd tmm0, [{sums} + {stride}]",
                "tileloadd tmm1, [{sums} + {stride} + 1024]",
                "tileloadd tmm2, [{sums} + {stride} + 2048]",
                "tileloadd tmm3, [{sums} + {stride} + 3072]",
                "3:",
                "tileloadd tmm6, [{b0} + {stride}]",
                "tileloadd tmm4, [{a} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {stride}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {stride} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b0}, 1024",
                "add {b1}, 1024",
                "dec {steps}",
                "jnz 3b",
                "tilestored [{sums} + {stride}], tmm0",
                "tilestored [{sums} + {stride} + 1024], tmm1",
                "tilestored [{sums} + {stride} + 2048], tmm2",
                "tilestored [{sums} + {stride} + 3072], tmm3",
                fresh = in(reg) fresh, sums = in(reg) sums, stride = in(reg) 64_usize,
                a = inout(reg) a => _, b0 = inout(reg) b0 => _, b1 = inout(reg) b1 => _, steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        } else {
            asm!(
                "test {fresh:e}, {fresh:e}",
                "jz 2f",
                "tilezero tmm0",
                "tilezero tmm2",
                "jmp 3f",
                "2:",
                "tileloadd tmm0, [{sums} + {stride}]",
                "tileloadd tmm2, [{sums} + {stride} + 2048]",
                "3:",
                "tileloadd tmm6, [{b0} + {stride}]",
                "tileloadd tmm4, [{a} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a} + {stride} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "add {a}, 2048",
                "add {b0}, 1024",
                "dec {steps}",
                "jnz 3b",
                "tilestored [{sums} + {stride}], tmm0",
                "tilestored [{sums} + {stride} + 2048], tmm2",
                fresh = in(reg) fresh, sums = in(reg) sums, stride = in(reg) 64_usize,
                a = inout(reg) a => _, b0 = inout(reg) b0 => _, steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm2") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                options(nostack),
            );
        }
    }
}
