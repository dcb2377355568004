//! Rows to columns: between query rows and strips, whose lanes are query rows.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// `OpsTable::transpose` by definition.
pub(super) fn transpose(columns: usize, from: &[f32], to: &mut [f32]) {
    let rows = from.len() / columns;
    assert_eq!(from.len(), to.len());
    for (i, row) in from.chunks_exact(columns).enumerate() {
        for (to, from) in to[i..].iter_mut().step_by(rows).zip(row) {
            *to = *from;
        }
    }
}

/// The same in blocks of 16 x 16, which rows and columns have to be multiples of.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose_blocks(columns: usize, from: &[f32], to: &mut [f32]) {
    let rows = from.len() / columns;
    assert!(from.len() == to.len() && from.len() == rows * columns);
    assert!(rows.is_multiple_of(16) && columns.is_multiple_of(16));
    for row in (0..rows).step_by(16) {
        for column in (0..columns).step_by(16) {
            let mut block = [_mm512_setzero_si512(); 16];
            for (i, block) in block.iter_mut().enumerate() {
                // SAFETY: the 16 columns from `column` on of row `row + i` are in `from`.
                *block = unsafe { _mm512_loadu_si512(from.as_ptr().add((row + i) * columns + column).cast()) };
            }
            for (i, block) in transposed(block).into_iter().enumerate() {
                // SAFETY: `to` has `columns` rows of `rows`.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().add((column + i) * rows + row).cast(), block) };
            }
        }
    }
}

/// 16 x 16 of 32 bits, rows and columns exchanged.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub(super) fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    let (mut twos, mut fours, mut out) = ([zero; 16], [zero; 16], [zero; 16]);
    for i in 0..8 {
        twos[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        twos[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for i in 0..4 {
        for j in 0..2 {
            fours[4 * i + 2 * j] = _mm512_unpacklo_epi64(twos[4 * i + j], twos[4 * i + 2 + j]);
            fours[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(twos[4 * i + j], twos[4 * i + 2 + j]);
        }
    }
    // fours[4 i + j] has column 4 l + j of rows 4 i .. 4 i + 4 in its quarter l.
    for j in 0..4 {
        let a = _mm512_shuffle_i32x4::<0x44>(fours[j], fours[4 + j]);
        let b = _mm512_shuffle_i32x4::<0xee>(fours[j], fours[4 + j]);
        let c = _mm512_shuffle_i32x4::<0x44>(fours[8 + j], fours[12 + j]);
        let d = _mm512_shuffle_i32x4::<0xee>(fours[8 + j], fours[12 + j]);
        out[j] = _mm512_shuffle_i32x4::<0x88>(a, c);
        out[4 + j] = _mm512_shuffle_i32x4::<0xdd>(a, c);
        out[8 + j] = _mm512_shuffle_i32x4::<0x88>(b, d);
        out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(b, d);
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::ops::Ops;
    use crate::ops::test_data::random;

    #[test]
    fn rows_become_columns() {
        for ops in Ops::available() {
            for (rows, columns) in [(16, 16), (16, 48), (48, 16), (16, 128)] {
                let from = random(rows * columns, 5, 1.0);
                let mut to = vec![0.0; rows * columns];
                // SAFETY: an `Ops` exists only for an instruction set this machine has.
                unsafe { (ops.table.transpose)(columns, &from, &mut to) };
                for (i, from) in from.iter().enumerate() {
                    assert_eq!(*from, to[i % columns * rows + i / columns], "{} {rows} x {columns}", ops.name());
                }
            }
        }
    }
}
