//! Rows to columns: between query rows and strips, whose lanes are query rows.

#[cfg(target_arch = "x86_64")]
use crate::arch::avx512_vnni::transpose::transposed;
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
