//! Products of matrices of any float types: by the `gemm` crate, or element by element where a row must not depend on the others.

use super::gemm::{Block, Matrix, Store, gemm};
use super::numbers::load;
use crate::{DType, Layout};

/// Of the axis that is summed over, widened to f32 at a time: a block of it stays in the cache.
const BLOCK_K: usize = 256;

/// A matrix in storage of any float type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) dtype: DType,
    pub(crate) storage: &'a [u8],
    pub(crate) matrix: Matrix,
}

impl<'a> Operand<'a> {
    /// The matrix from row `row`, column `col` on.
    pub(crate) fn at(self, row: usize, col: usize) -> Self {
        Operand { matrix: self.matrix.at(row, col), ..self }
    }

    /// Rows for columns.
    pub(crate) fn transposed(self) -> Self {
        Operand { matrix: self.matrix.transposed(), ..self }
    }

    /// Its first rows and columns, dense in `buffer`.
    fn dense(&self, [rows, cols]: [usize; 2], buffer: &mut [f32]) {
        let Matrix { base, row, col } = self.matrix;
        load(self.dtype, self.storage, &Layout::matrix(base, [rows, cols], [row, col]), 0, &mut buffer[..rows * cols]);
    }

    /// As f32: where it lies if it is, else in `buffer`, along whichever of its axes is dense.
    fn wide(self, [rows, cols]: [usize; 2], buffer: &'a mut Vec<f32>) -> (&'a [f32], Matrix) {
        if self.dtype == DType::F32 {
            return (bytemuck::cast_slice(self.storage), self.matrix);
        }
        buffer.resize(rows * cols, 0.0);
        if self.matrix.row == 1 && self.matrix.col != 1 {
            self.transposed().dense([cols, rows], buffer);
            return (buffer, Matrix { base: 0, row: 1, col: rows });
        }
        self.dense([rows, cols], buffer);
        (buffer, Matrix { base: 0, row: cols, col: 1 })
    }
}

/// `out = lhs * rhs` or `out += lhs * rhs`, with `k` the axis that is summed over. `invariant`: no element depends on how many rows there are.
pub(crate) fn product(out: &mut Block, k: usize, lhs: Operand, rhs: Operand, store: Store, invariant: bool) {
    if invariant {
        return rows(out, k, lhs, rhs, store);
    }
    // The crate takes f32 as it lies.
    let step = if lhs.dtype == DType::F32 && rhs.dtype == DType::F32 { k } else { BLOCK_K };
    let (mut left_buffer, mut right_buffer) = (Vec::new(), Vec::new());
    let mut first = 0;
    // Once for k = 0 too: it may write zeros.
    loop {
        let count = step.min(k - first);
        let (left, left_matrix) = lhs.at(0, first).wide([out.rows(), count], &mut left_buffer);
        let (right, right_matrix) = rhs.at(first, 0).wide([count, out.cols()], &mut right_buffer);
        gemm(out, count, left, left_matrix, right, right_matrix, if first == 0 { store } else { Store::Add });
        first += count;
        if first == k {
            return;
        }
    }
}

/// Each element by itself, in the order of k: no blocking that another number of rows could change.
fn rows(out: &mut Block, k: usize, lhs: Operand, rhs: Operand, store: Store) {
    let cols = out.cols();
    let (mut left, mut right) = (vec![0.0; BLOCK_K], vec![0.0; BLOCK_K.min(k) * cols]);
    for row in (0..out.rows()).filter(|_| store == Store::Replace) {
        out.row_mut(row).fill(0.0);
    }
    for first in (0..k).step_by(BLOCK_K) {
        let count = BLOCK_K.min(k - first);
        rhs.at(first, 0).dense([count, cols], &mut right);
        for row in 0..out.rows() {
            lhs.at(row, first).dense([1, count], &mut left);
            let sums = out.row_mut(row);
            for (&factor, line) in left[..count].iter().zip(right.chunks_exact(cols)) {
                for (sum, &value) in sums.iter_mut().zip(line) {
                    *sum += factor * value;
                }
            }
        }
    }
}
