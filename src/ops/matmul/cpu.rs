//! Matmul on the CPU: blocks of the output over rayon, each a product on one thread.

use rayon::prelude::*;

use super::Problem;
use crate::cpu::CHUNK;
use crate::cpu::gemm::{Block, Matrix, Store};
use crate::cpu::numbers::Number;
use crate::cpu::product::{Operand, product};
use crate::{DType, Layout};

/// Blocks of the output, from the shape alone: the bits do not depend on the number of threads.
const BLOCK_M: usize = 128;
const BLOCK_N: usize = 512;

/// `out` is dense: [batch, m, n].
pub(super) fn matmul(problem: &Problem, out: &mut [u8], lhs: &[u8], rhs: &[u8]) {
    let dtype = problem.dtypes[0];
    if dtype == DType::F32 {
        return sums(problem, bytemuck::cast_slice_mut(out), lhs, rhs);
    }
    let mut wide = vec![0.0; problem.out.len()];
    sums(problem, &mut wide, lhs, rhs);
    let chunks = out.par_chunks_mut(CHUNK * dtype.block_bytes()).zip(wide.par_chunks(CHUNK));
    chunks.for_each(|(bytes, values)| f32::store(dtype, bytes, values));
}

fn sums(problem: &Problem, out: &mut [f32], lhs: &[u8], rhs: &[u8]) {
    let (m, n, k) = (problem.m(), problem.n(), problem.k());
    let batches = problem.batches();
    let bases: Vec<(usize, usize)> = batches[1].indices().zip(batches[2].indices()).collect();
    let operand = |dtype, storage, layout: &Layout, base| {
        let strides = layout.strides();
        Operand { dtype, storage, matrix: Matrix { base, row: strides[strides.len() - 2], col: strides[strides.len() - 1] } }
    };
    out.par_chunks_mut(m * n).zip(bases).for_each(|(out, (lhs_base, rhs_base))| {
        let left = operand(problem.dtypes[1], lhs, &problem.lhs, lhs_base);
        let right = operand(problem.dtypes[2], rhs, &problem.rhs, rhs_base);
        Block::new(out, n).split(BLOCK_M, BLOCK_N).into_par_iter().for_each(|(row, col, mut block)| {
            product(&mut block, k, left.at(row, 0), right.at(0, col), Store::Replace, problem.batch_invariant);
        });
    });
}
