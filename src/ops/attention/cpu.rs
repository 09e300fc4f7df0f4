//! Attention on the CPU: blocks of queries of a head over rayon, two products and an online softmax a block of keys.

use rayon::prelude::*;

use super::Problem;
use crate::cpu::gemm::{Block, Matrix, Store};
use crate::cpu::numbers::{Number, load};
use crate::cpu::product::{Operand, product};
use crate::philox::{philox, uniform};
use crate::{DType, Layout};

/// Queries a task and keys a step: constants, so that the bits do not depend on the number of threads.
const BLOCK_Q: usize = 64;
const BLOCK_K: usize = 128;

/// `out` is dense, [batch, heads, seq_q, v_dim], and so is `lse`, [batch, heads, seq_q].
pub(super) fn attention(problem: &Problem, out: &mut [u8], lse: Option<&mut [u8]>, inputs: &[&[u8]]) {
    let (seq_q, v_dim) = (problem.seq_q(), problem.v_dim());
    let row_bytes = v_dim * problem.dtypes[0].block_bytes();
    // Of no use, but as long as there are rows, where none are asked for.
    let mut unasked = Vec::new();
    let lse: &mut [f32] = match lse {
        Some(bytes) => bytemuck::cast_slice_mut(bytes),
        None => {
            unasked.resize(out.len() / row_bytes, 0.0);
            &mut unasked
        }
    };
    let heads = out.par_chunks_mut(seq_q * row_bytes).zip(lse.par_chunks_mut(seq_q));
    heads.enumerate().for_each(|(matrix, (rows, sums))| {
        let blocks = rows.par_chunks_mut(BLOCK_Q * row_bytes).zip(sums.par_chunks_mut(BLOCK_Q));
        blocks.enumerate().for_each(|(block, (bytes, sums))| {
            let task = Task::new(problem, inputs, matrix / problem.heads(), matrix % problem.heads(), block * BLOCK_Q);
            let mut rows = vec![0.0; bytes.len() / row_bytes * v_dim];
            task.run(&mut rows, sums);
            f32::store(problem.dtypes[0], bytes, &rows);
        });
    });
}

/// One block of queries of one head.
struct Task<'a> {
    problem: &'a Problem,
    inputs: &'a [&'a [u8]],
    batch: usize,
    head: usize,
    /// The first query.
    first: usize,
    /// Keys of the batch.
    len: usize,
    slope: f32,
    sink: Option<f32>,
}

impl<'a> Task<'a> {
    fn new(problem: &'a Problem, inputs: &'a [&'a [u8]], batch: usize, head: usize, first: usize) -> Self {
        let one = |other: usize, dtype: DType| {
            let layout = problem.others()[other]?;
            let at = layout.offset() + batch * layout.strides()[0] + head * layout.strides()[1];
            let mut value = [0.0f32];
            load(dtype, inputs[problem.input(other)?], &Layout::matrix(at, [1, 1], [0, 0]), 0, &mut value);
            Some(value[0])
        };
        let len = problem.kv_lens.as_ref().zip(problem.input(4)).map_or(problem.full_k, |(layout, input)| {
            let lens: &[u32] = bytemuck::cast_slice(inputs[input]);
            problem.full_k.min(lens[layout.offset() + batch * layout.strides()[0]] as usize)
        });
        let slope = one(2, problem.dtypes[5]).unwrap_or(0.0);
        Task {
            problem,
            inputs,
            batch,
            head,
            first,
            len,
            slope,
            sink: one(3, problem.dtypes[6]).filter(|&sink| sink != f32::NEG_INFINITY).map(saturate),
        }
    }

    fn run(&self, out: &mut [f32], lse: &mut [f32]) {
        let problem = self.problem;
        let (head_dim, v_dim) = (problem.head_dim(), problem.v_dim());
        let rows = out.len() / v_dim;
        let kv_head = self.head / problem.heads_per_kv();
        let operand = |dtype, storage, layout: &Layout, head: usize| {
            let s = layout.strides();
            Operand { dtype, storage, matrix: Matrix { base: layout.offset() + self.batch * s[0] + head * s[1], row: s[2], col: s[3] } }
        };
        let [_, q_dtype, k_dtype, v_dtype, ..] = problem.dtypes;
        let queries = operand(q_dtype, self.inputs[0], &problem.q, self.head).at(self.first, 0);
        let keys = operand(k_dtype, self.inputs[1], &problem.k, kv_head);
        let values = operand(v_dtype, self.inputs[2], &problem.v, kv_head);
        let mut tops = [self.sink.unwrap_or(f32::NEG_INFINITY); BLOCK_Q];
        // In f64, as softmax's: the fused result is to be no worse than the plain one. A sink is its own maximum so far.
        let mut sums = [if self.sink.is_some() { 1.0f64 } else { 0.0 }; BLOCK_Q];
        let (mut scores, mut bias) = (vec![0.0; rows * BLOCK_K], [0.0; BLOCK_K]);
        // Blocks of keys that no query of the block sees by its place are not computed. They begin in the same places for all queries, so that
        // which others are there does not matter.
        let first = problem.keys_of(self.first, self.len)[0] / BLOCK_K * BLOCK_K;
        let end = problem.keys_of(self.first + rows - 1, self.len)[1];
        for first_key in (first..end).step_by(BLOCK_K) {
            let count = BLOCK_K.min(end - first_key);
            let scores = &mut scores[..rows * count];
            let transposed = keys.at(first_key, 0).transposed();
            product(&mut Block::new(scores, count), head_dim, queries, transposed, Store::Replace, problem.batch_invariant);
            for (row, line) in scores.chunks_mut(count).enumerate() {
                self.logits(line, self.first + row, first_key, &mut bias[..count]);
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
                self.drop(line, self.first + row, first_key);
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
            lse[row] = if sums[row] == 0.0 { f32::NEG_INFINITY } else { saturate((f64::from(tops[row]) + sums[row].ln()) as f32) };
        }
    }

    /// Products to logits; -inf where masked. `add` is a line's worth of room, zeros where there is no bias.
    fn logits(&self, line: &mut [f32], query: usize, first_key: usize, add: &mut [f32]) {
        let problem = self.problem;
        let [start, end] = problem.keys_of(query, self.len);
        let row = |layout: &Layout| {
            let s = layout.strides();
            (layout.offset() + self.batch * s[0] + self.head * s[1] + query * s[2], s[3])
        };
        let mask = problem.mask.as_ref().zip(problem.input(0)).map(|(layout, input)| (self.inputs[input], row(layout)));
        if let Some((layout, input)) = problem.bias.as_ref().zip(problem.input(1)) {
            let (base, step) = row(layout);
            load(problem.dtypes[4], self.inputs[input], &Layout::matrix(base + first_key * step, [1, add.len()], [0, step]), 0, add);
        }
        let place = problem.place_of(query, self.len);
        for (i, (score, &mut add)) in line.iter_mut().zip(add).enumerate() {
            let key = first_key + i;
            let shown = start <= key && key < end && mask.is_none_or(|(mask, (base, step))| mask[base + key * step] != 0);
            if !shown || add == f32::NEG_INFINITY {
                *score = f32::NEG_INFINITY;
                continue;
            }
            let mut logit = *score * problem.scale;
            if let Some(softcap) = problem.softcap {
                logit = softcap * (logit / softcap).tanh();
            }
            if self.slope != 0.0 {
                logit -= self.slope * (place - key as i64).unsigned_abs() as f32;
            }
            *score = saturate(logit + add);
        }
    }

    /// Zeros where dropout leaves a weight out; the others grow.
    fn drop(&self, line: &mut [f32], query: usize, first_key: usize) {
        let Some(dropout) = self.problem.dropout else { return };
        let [batch, head, row, heads] = self.problem.origin;
        let stream = (batch + self.batch) * heads + head + self.head;
        let kept = 1.0 / (1.0 - dropout.probability);
        let key = [dropout.seed as u32, (dropout.seed >> 32) as u32];
        for (i, four) in line.chunks_mut(4).enumerate() {
            let words = philox([(first_key / 4 + i) as u32, (row + query) as u32, stream as u32, dropout.offset], key);
            for (weight, word) in four.iter_mut().zip(words) {
                *weight = if uniform(word) < dropout.probability { 0.0 } else { *weight * kept };
            }
        }
    }
}

/// Finite: -inf is what masks, and nothing else is.
fn saturate(logit: f32) -> f32 {
    logit.clamp(f32::MIN, f32::MAX)
}

/// exp(x - top), for any x up to a finite top: in f64 the difference of two huge values does not overflow.
fn exp_below(x: f32, top: f32) -> f32 {
    ((f64::from(x) - f64::from(top)) as f32).exp()
}
