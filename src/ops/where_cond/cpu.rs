//! Choices on the CPU, by element size.

use rayon::prelude::*;

use super::Problem;
use crate::Layout;
use crate::cpu::{CHUNK, indices_from};

/// `out` is dense.
pub(super) fn where_cond(problem: &Problem, out: &mut [u8], inputs: &[&[u8]]) {
    match problem.dtype.block_bytes() {
        1 => choose::<u8>(problem, out, inputs),
        2 => choose::<u16>(problem, out, inputs),
        _ => choose::<u32>(problem, out, inputs),
    }
}

fn choose<T: bytemuck::Pod + Send + Sync>(problem: &Problem, out: &mut [u8], inputs: &[&[u8]]) {
    let out: &mut [T] = bytemuck::cast_slice_mut(out);
    let (cond, on_true, on_false): (&[u8], &[T], &[T]) = (inputs[0], bytemuck::cast_slice(inputs[1]), bytemuck::cast_slice(inputs[2]));
    let merged = Layout::merge(&[problem.cond, problem.on_true, problem.on_false]);
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let (start, count) = (chunk * CHUNK, values.len());
        let [tests, yes, no] = [0, 1, 2].map(|i| indices_from(&merged[i], start, count));
        let places = tests.zip(yes.zip(no));
        for (value, (test, (yes, no))) in values.iter_mut().zip(places) {
            *value = if cond[test] != 0 { on_true[yes] } else { on_false[no] };
        }
    });
}
