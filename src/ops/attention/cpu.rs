//! Attention on the CPU: blocks of queries over rayon, blocks of keys in order with an online softmax.

use rayon::prelude::*;

use super::Problem;
use crate::cpu::gemm::{Block, Matrix, Store};
use crate::cpu::numbers::{Number, load};
use crate::cpu::product::{Operand, product};
use crate::{DType, Layout};

/// Queries a task and keys a step: constants, so that the bits do not depend on the number of threads.
const BLOCK_Q: usize = 64;
const BLOCK_K: usize = 128;

/// `out` is dense: [batch, heads, seq_q, v_dim].
pub(super) fn attention(problem: &Problem, out: &mut [u8], [q, k, v]: [&[u8]; 3], mask: Option<&[u8]>, bias: Option<&[u8]>) {
    let (seq_q, v_dim) = (problem.seq_q(), problem.v_dim());
    let row_bytes = v_dim * problem.dtypes[0].block_bytes();
    out.par_chunks_mut(seq_q * row_bytes).enumerate().for_each(|(matrix, rows)| {
        let (batch, head) = (matrix / problem.heads(), matrix % problem.heads());
        rows.par_chunks_mut(BLOCK_Q * row_bytes).enumerate().for_each(|(block, bytes)| {
            let task = Task { problem, batch, head, first: block * BLOCK_Q, mask: mask.zip(problem.mask), bias: bias.zip(problem.bias) };
            let mut rows = vec![0.0; bytes.len() / row_bytes * v_dim];
            task.run(&mut rows, q, k, v);
            f32::store(problem.dtypes[0], bytes, &rows);
        });
    });
}

/// One block of queries of one head.
struct Task<'a> {
    problem: &'a Problem,
    batch: usize,
    head: usize,
    /// The first query.
    first: usize,
    mask: Option<(&'a [u8], Layout)>,
    bias: Option<(&'a [u8], Layout)>,
}

impl Task<'_> {
    fn run(&self, out: &mut [f32], q: &[u8], k: &[u8], v: &[u8]) {
        let problem = self.problem;
        let (head_dim, v_dim) = (problem.head_dim(), problem.v_dim());
        let rows = out.len() / v_dim;
        let kv_head = self.head / problem.heads_per_kv();
        let operand = |dtype, storage, layout: &Layout, head: usize| {
            let s = layout.strides();
            Operand { dtype, storage, matrix: Matrix { base: layout.offset() + self.batch * s[0] + head * s[1], row: s[2], col: s[3] } }
        };
        let [_, q_dtype, k_dtype, v_dtype, _] = problem.dtypes;
        let queries = operand(q_dtype, q, &problem.q, self.head).at(self.first, 0);
        let (keys, values) = (operand(k_dtype, k, &problem.k, kv_head), operand(v_dtype, v, &problem.v, kv_head));
        let mut tops = [f32::NEG_INFINITY; BLOCK_Q];
        // In f64, as softmax's: the fused result is to be no worse than the plain one.
        let mut sums = [0.0f64; BLOCK_Q];
        let (mut scores, mut bias) = (vec![0.0; rows * BLOCK_K], [0.0; BLOCK_K]);
        // Keys past the last row's end are masked for the whole block.
        let end = self.key_end(self.first + rows - 1);
        for first_key in (0..end).step_by(BLOCK_K) {
            let count = BLOCK_K.min(end - first_key);
            let scores = &mut scores[..rows * count];
            let transposed = keys.at(first_key, 0).transposed();
            product(&mut Block::new(scores, count), head_dim, queries, transposed, Store::Replace, problem.batch_invariant);
            for (row, line) in scores.chunks_mut(count).enumerate() {
                self.mask_line(line, self.first + row, first_key, &mut bias[..count]);
                if line.iter().all(|&score| score == f32::NEG_INFINITY) {
                    line.fill(0.0);
                    continue;
                }
                let top = line.iter().copied().fold(tops[row], f32::max);
                line.iter_mut().for_each(|score| *score = exp_below(*score, top));
                // What was summed so far was relative to the old maximum.
                let shrink = exp_below(tops[row], top);
                tops[row] = top;
                sums[row] = sums[row] * f64::from(shrink) + line.iter().map(|&p| f64::from(p)).sum::<f64>();
                out[row * v_dim..][..v_dim].iter_mut().for_each(|o| *o *= shrink);
            }
            let matrix = Matrix { base: 0, row: count, col: 1 };
            let weights = Operand { dtype: DType::F32, storage: bytemuck::cast_slice(scores), matrix };
            product(&mut Block::new(out, v_dim), count, weights, values.at(first_key, 0), Store::Add, problem.batch_invariant);
        }
        for (row, result) in out.chunks_mut(v_dim).enumerate() {
            // At least the exponential of 0 unless every key was masked.
            if sums[row] != 0.0 {
                result.iter_mut().for_each(|o| *o = (f64::from(*o) / sums[row]) as f32);
            }
        }
    }

    /// The first key that a query does not see by its place.
    fn key_end(&self, query: usize) -> usize {
        let limit = query as i64 + self.problem.causal_limit;
        limit.clamp(0, self.problem.seq_k() as i64) as usize
    }

    /// Products to logits; -inf where masked. `add` is a line's worth of room, zeros where there is no bias.
    fn mask_line(&self, line: &mut [f32], query: usize, first_key: usize, add: &mut [f32]) {
        let end = self.key_end(query);
        let row = |layout: &Layout| {
            let s = layout.strides();
            (layout.offset() + self.batch * s[0] + self.head * s[1] + query * s[2], s[3])
        };
        let mask = self.mask.map(|(mask, layout)| (mask, row(&layout)));
        if let Some((bias, layout)) = self.bias {
            let (base, step) = row(&layout);
            load(self.problem.dtypes[4], bias, &Layout::matrix(base + first_key * step, [1, add.len()], [0, step]), 0, add);
        }
        for (i, (score, &mut add)) in line.iter_mut().zip(add).enumerate() {
            let key = first_key + i;
            let shown = key < end && mask.is_none_or(|(mask, (base, step))| mask[base + key * step] != 0);
            *score = if shown && add != f32::NEG_INFINITY {
                (*score * self.problem.scale + add).clamp(f32::MIN, f32::MAX)
            } else {
                f32::NEG_INFINITY
            };
        }
    }
}

/// exp(x - top), for any x up to a finite top: in f64 the difference of two huge values does not overflow.
fn exp_below(x: f32, top: f32) -> f32 {
    ((f64::from(x) - f64::from(top)) as f32).exp()
}
