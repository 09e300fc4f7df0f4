//! Matmul on the CPU: blocks of the output over rayon, each by the `gemm` crate on one thread; or row by row, where a row must not depend
//! on the others.

use rayon::prelude::*;

use super::Problem;
use crate::cpu::CHUNK;
use crate::cpu::gemm::{Block, Matrix, Store, gemm};
use crate::cpu::numbers::{Number, load, widen};
use crate::{DType, Layout};

/// Blocks of the output, from the shape alone: the bits do not depend on the number of threads.
const BLOCK_M: usize = 128;
const BLOCK_N: usize = 512;
/// Of the axis that is summed over, widened to f32 at a time: a block of it stays in the cache.
const BLOCK_K: usize = 256;

/// `out` is dense: [batch, m, n].
pub(super) fn matmul(problem: &Problem, out: &mut [u8], lhs: &[u8], rhs: &[u8]) {
    if problem.dtypes[0] == DType::F32 {
        return sums(problem, bytemuck::cast_slice_mut(out), lhs, rhs);
    }
    let mut wide = vec![0.0; problem.out.len()];
    sums(problem, &mut wide, lhs, rhs);
    let size = problem.dtypes[0].block_bytes();
    out.par_chunks_mut(CHUNK * size).zip(wide.par_chunks(CHUNK)).for_each(|(bytes, values)| f32::store(problem.dtypes[0], bytes, values));
}

fn sums(problem: &Problem, out: &mut [f32], lhs: &[u8], rhs: &[u8]) {
    let (m, n, k) = (problem.m(), problem.n(), problem.k());
    let [_, lhs_dtype, rhs_dtype] = problem.dtypes;
    let batches = problem.batches();
    let bases: Vec<(usize, usize)> = batches[1].indices().zip(batches[2].indices()).collect();
    let matrix = |layout: &Layout, base| {
        let strides = layout.strides();
        Matrix { base, row: strides[strides.len() - 2], col: strides[strides.len() - 1] }
    };
    // The crate takes f32 as it lies; other types pass through a buffer, a part of k at a time.
    let step = if lhs_dtype == DType::F32 && rhs_dtype == DType::F32 { k } else { BLOCK_K };
    out.par_chunks_mut(m * n).zip(bases).for_each(|(out, (lhs_base, rhs_base))| {
        let (left, right) = (matrix(&problem.lhs, lhs_base), matrix(&problem.rhs, rhs_base));
        Block::new(out, n).split(BLOCK_M, BLOCK_N).into_par_iter().for_each(|(row, col, mut block)| {
            if problem.batch_invariant {
                return rows(&mut block, k, (lhs_dtype, lhs, left.at(row, 0)), (rhs_dtype, rhs, right.at(0, col)));
            }
            let (mut left_buffer, mut right_buffer) = (Vec::new(), Vec::new());
            let mut first = 0;
            // Once for k = 0 too: it writes zeros.
            loop {
                let count = step.min(k - first);
                let (lhs, left) = widen(lhs_dtype, lhs, left.at(row, first), [block.rows(), count], &mut left_buffer);
                let (rhs, right) = widen(rhs_dtype, rhs, right.at(first, col), [count, block.cols()], &mut right_buffer);
                gemm(&mut block, count, lhs, left, rhs, right, if first == 0 { Store::Replace } else { Store::Add });
                first += count;
                if first == k {
                    break;
                }
            }
        });
    });
}

/// Each element by itself, in the order of k: no blocking that another number of rows could change. In f32 without fused operations.
fn rows(block: &mut Block, k: usize, (lhs_dtype, lhs, left): (DType, &[u8], Matrix), (rhs_dtype, rhs, right): (DType, &[u8], Matrix)) {
    let cols = block.cols();
    let (mut left_buffer, mut right_buffer) = (vec![0.0; BLOCK_K], vec![0.0; BLOCK_K * cols]);
    for row in 0..block.rows() {
        block.row_mut(row).fill(0.0);
    }
    for first in (0..k).step_by(BLOCK_K) {
        let count = BLOCK_K.min(k - first);
        let part = right.at(first, 0);
        let right = &mut right_buffer[..count * cols];
        load(rhs_dtype, rhs, &Layout::matrix(part.base, [count, cols], [part.row, part.col]), 0, right);
        for row in 0..block.rows() {
            let part = left.at(row, first);
            let left = &mut left_buffer[..count];
            load(lhs_dtype, lhs, &Layout::matrix(part.base, [1, count], [part.row, part.col]), 0, left);
            let sums = block.row_mut(row);
            for (&factor, line) in left.iter().zip(right.chunks_exact(cols)) {
                for (sum, &value) in sums.iter_mut().zip(line) {
                    *sum += factor * value;
                }
            }
        }
    }
}
