//! Matmul on the CPU: blocks of the output over rayon, each by the `gemm` crate on one thread.

use rayon::prelude::*;

use super::Problem;
use crate::Layout;

/// Blocks of the output, from the shape alone: the bits do not depend on the number of threads.
const BLOCK_M: usize = 128;
const BLOCK_N: usize = 512;

/// A matrix inside a storage: where it begins and how it steps.
#[derive(Clone, Copy)]
struct Matrix {
    base: usize,
    row: usize,
    col: usize,
}

impl Matrix {
    fn of(layout: &Layout, base: usize) -> Self {
        let strides = layout.strides();
        Matrix { base, row: strides[strides.len() - 2], col: strides[strides.len() - 1] }
    }

    /// The part of storage that `rows` x `cols` elements from (`row`, `col`) reach. Panics if it is not all there.
    fn part<'a>(&self, storage: &'a [f32], row: usize, col: usize, rows: usize, cols: usize) -> &'a [f32] {
        let start = self.base + row * self.row + col * self.col;
        &storage[start..start + (rows - 1) * self.row + (cols - 1) * self.col + 1]
    }
}

/// The output, shared between tasks that write disjoint blocks.
struct Shared(*mut f32);

// SAFETY: the tasks of `matmul` write disjoint elements through it, and none reads.
unsafe impl Sync for Shared {}

impl Shared {
    fn at(&self, index: usize) -> *mut f32 {
        self.0.wrapping_add(index)
    }
}

/// `out` is dense: [batch, m, n].
pub(super) fn matmul(problem: &Problem, out: &mut [f32], lhs: &[f32], rhs: &[f32]) {
    let (m, n, k) = (problem.m(), problem.n(), problem.k());
    if k == 0 {
        out.fill(0.0);
        return;
    }
    let batches = problem.batches();
    let bases: Vec<(usize, usize)> = batches[1].indices().zip(batches[2].indices()).collect();
    let (blocks_m, blocks_n) = (m.div_ceil(BLOCK_M), n.div_ceil(BLOCK_N));
    assert_eq!(out.len(), bases.len() * m * n);
    let shared = Shared(out.as_mut_ptr());
    (0..bases.len() * blocks_m * blocks_n).into_par_iter().for_each(|task| {
        let batch = task / (blocks_m * blocks_n);
        let (row, col) = (task / blocks_n % blocks_m * BLOCK_M, task % blocks_n * BLOCK_N);
        let (rows, cols) = (BLOCK_M.min(m - row), BLOCK_N.min(n - col));
        let (lhs_base, rhs_base) = bases[batch];
        let left = Matrix::of(&problem.lhs, lhs_base);
        let right = Matrix::of(&problem.rhs, rhs_base);
        let left_part = left.part(lhs, row, 0, rows, k);
        let right_part = right.part(rhs, 0, col, k, cols);
        let to = shared.at((batch * m + row) * n + col);
        // SAFETY: `part` has checked that both operands lie within their storages. `to` begins a block of rows x cols within `out`
        // (its length is checked above) that no other task writes, and `out` is not among the inputs.
        unsafe {
            gemm::gemm(
                rows,
                cols,
                k,
                to,
                1,
                n as isize,
                false,
                left_part.as_ptr(),
                left.col as isize,
                left.row as isize,
                right_part.as_ptr(),
                right.col as isize,
                right.row as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    });
}
