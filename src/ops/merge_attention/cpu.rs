//! Joining on the CPU: a query at a time, over rayon.

use rayon::prelude::*;

use super::Problem;
use crate::DType;
use crate::cpu::numbers::{Number, load};

/// Queries a task.
const QUERIES: usize = 64;

/// `out` and `lse` are dense; the inputs are a result and its logarithms, twice.
pub(super) fn merge_attention(problem: &Problem, out: &mut [u8], lse: &mut [u8], inputs: &[&[u8]]) {
    let v_dim = problem.out.dims()[3];
    let row_bytes = v_dim * problem.dtypes[0].block_bytes();
    let lse: &mut [f32] = bytemuck::cast_slice_mut(lse);
    let tasks = out.par_chunks_mut(QUERIES * row_bytes).zip(lse.par_chunks_mut(QUERIES));
    tasks.enumerate().for_each(|(task, (bytes, lse))| {
        let (first, count) = (task * QUERIES, lse.len());
        let part = |i: usize| {
            let (mut values, mut sums) = (vec![0.0f32; count * v_dim], vec![0.0f32; count]);
            load(problem.dtypes[1 + i], inputs[2 * i], &problem.parts[i], first * v_dim, &mut values);
            load(DType::F32, inputs[2 * i + 1], &problem.part_lses[i], first, &mut sums);
            (values, sums)
        };
        let ((mut values, sums), (others, other_sums)) = (part(0), part(1));
        let rows = values.chunks_mut(v_dim).zip(others.chunks(v_dim));
        for (row, (values, others)) in rows.enumerate() {
            let [one, other] = [sums[row], other_sums[row]].map(f64::from);
            let top = one.max(other);
            if top == f64::NEG_INFINITY {
                values.fill(0.0);
                lse[row] = f32::NEG_INFINITY;
                continue;
            }
            let weights = [(one - top).exp(), (other - top).exp()];
            let sum = weights[0] + weights[1];
            // What no key was seen of is not there, whatever its place holds.
            let weighted = |weight: f64, value: f32| if weight == 0.0 { 0.0 } else { weight / sum * f64::from(value) };
            for (value, &other) in values.iter_mut().zip(others) {
                *value = (weighted(weights[0], *value) + weighted(weights[1], other)) as f32;
            }
            lse[row] = ((top + sum.ln()) as f32).clamp(f32::MIN, f32::MAX);
        }
        f32::store(problem.dtypes[0], bytes, &values);
    });
}
