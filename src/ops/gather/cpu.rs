//! Gather on the CPU: runs of an outer place and an index over rayon.

use rayon::prelude::*;

use super::Problem;
use crate::DType;
use crate::cpu::indices_from;

/// `out` is dense; the indices are in range.
pub(super) fn gather(problem: &Problem, out: &mut [u8], x: &[u8], indices: &[u8]) {
    let size = problem.dtype.block_bytes();
    let (outer, inner) = problem.around();
    let words: &[i32] = bytemuck::cast_slice(indices);
    let (rows, stride) = (problem.x.dims()[problem.axis], problem.x.strides()[problem.axis]);
    let count = problem.indices.len();
    let dense = inner.is_contiguous();
    out.par_chunks_mut(inner.len() * size).enumerate().for_each(|(run, bytes)| {
        let word = words[problem.indices.index_of(run % count)];
        let row = if problem.indices_dtype == DType::I32 && word < 0 { rows - word.unsigned_abs() as usize } else { word as u32 as usize };
        let start = outer.index_of(run / count) + row * stride;
        if dense {
            bytes.copy_from_slice(&x[start * size..][..bytes.len()]);
            return;
        }
        for (element, at) in bytes.chunks_exact_mut(size).zip(indices_from(&inner, 0, inner.len())) {
            let from = start + at - inner.offset();
            element.copy_from_slice(&x[from * size..][..size]);
        }
    });
}
