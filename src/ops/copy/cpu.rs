//! Copies on the CPU, by element size.

use rayon::prelude::*;

use crate::Layout;
use crate::cpu::{CHUNK, indices_from};

/// Dense `out` from strided `x`.
pub(crate) fn gather(out: &mut [u8], x: &[u8], layout: &Layout, size: usize) {
    match size {
        1 => gather_as::<u8>(out, x, layout),
        2 => gather_as::<u16>(out, x, layout),
        _ => gather_as::<u32>(out, x, layout),
    }
}

fn gather_as<T: bytemuck::Pod + Send + Sync>(out: &mut [u8], x: &[u8], layout: &Layout) {
    let out: &mut [T] = bytemuck::cast_slice_mut(out);
    let x: &[T] = bytemuck::cast_slice(x);
    let layout = Layout::merge(&[*layout])[0];
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let start = chunk * CHUNK;
        if layout.is_contiguous() {
            let from = layout.offset() + start;
            values.copy_from_slice(&x[from..from + values.len()]);
        } else {
            let count = values.len();
            for (value, index) in values.iter_mut().zip(indices_from(&layout, start, count)) {
                *value = x[index];
            }
        }
    });
}

/// Any `out` from dense `x`. On one thread: it runs under a lock, and neighbours of different tasks would interleave.
pub(crate) fn scatter(out: &mut [u8], x: &[u8], layout: &Layout, size: usize) {
    if layout.is_contiguous() {
        out[layout.offset() * size..][..x.len()].copy_from_slice(x);
        return;
    }
    for (element, index) in x.chunks_exact(size).zip(layout.indices()) {
        out[index * size..(index + 1) * size].copy_from_slice(element);
    }
}
