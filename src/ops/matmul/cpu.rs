//! Matmul on the CPU: blocks of the output over rayon, each by the `gemm` crate on one thread.

use rayon::prelude::*;

use super::Problem;
use crate::Layout;
use crate::cpu::gemm::{Block, Matrix, Store, gemm};

/// Blocks of the output, from the shape alone: the bits do not depend on the number of threads.
const BLOCK_M: usize = 128;
const BLOCK_N: usize = 512;

/// `out` is dense: [batch, m, n].
pub(super) fn matmul(problem: &Problem, out: &mut [f32], lhs: &[f32], rhs: &[f32]) {
    let (m, n, k) = (problem.m(), problem.n(), problem.k());
    let batches = problem.batches();
    let bases: Vec<(usize, usize)> = batches[1].indices().zip(batches[2].indices()).collect();
    let matrix = |layout: &Layout, base| {
        let strides = layout.strides();
        Matrix { base, row: strides[strides.len() - 2], col: strides[strides.len() - 1] }
    };
    out.par_chunks_mut(m * n).zip(bases).for_each(|(out, (lhs_base, rhs_base))| {
        let (left, right) = (matrix(&problem.lhs, lhs_base), matrix(&problem.rhs, rhs_base));
        Block::new(out, n).split(BLOCK_M, BLOCK_N).into_par_iter().for_each(|(row, col, mut block)| {
            gemm(&mut block, k, lhs, left.at(row, 0), rhs, right.at(0, col), Store::Replace);
        });
    });
}
