//! Softmax on the CPU: a row at a time, over rayon.

use rayon::prelude::*;

use super::Problem;
use crate::Layout;
use crate::cpu::indices_from;
use crate::cpu::numbers::{Number, load};

/// `out` is dense, in `x`'s dims; the mask and the sinks lie as the problem says.
pub(super) fn softmax(problem: &Problem, out: &mut [u8], x: &[u8], mask: Option<(&[u8], Layout)>, sinks: Option<(&[u8], Layout)>) {
    let [out_dtype, x_dtype, mask_dtype, sinks_dtype] = problem.dtypes;
    let dims = problem.x.dims();
    let (len, inner) = (dims[problem.axis], dims[problem.axis + 1..].iter().product::<usize>());
    // The rows' starts in row-major order: `outer * inner` of them.
    let starts = |layout: &Layout| layout.narrow(problem.axis, 0, 1).unwrap_or(*layout);
    let line = |layout: &Layout, start| Layout::matrix(start, [1, len], [0, layout.strides()[problem.axis]]);
    let x_rows = starts(&problem.x);
    let masked = mask.map(|(mask, layout)| (mask, layout, starts(&layout)));
    let sunk = sinks.map(|(sinks, layout)| (sinks, starts(&layout)));
    let queries = if problem.is_causal() { dims[problem.axis - 1] } else { 1 };
    let size = out_dtype.block_bytes();
    // From the row at `first` on, one after the other.
    let make = |first: usize, rows: &mut [f32]| {
        let count = rows.len() / len;
        let mut bias = vec![0.0; len];
        let mut x_starts = indices_from(&x_rows, first, count);
        let mut mask_starts = masked.as_ref().map(|(_, _, rows)| indices_from(rows, first, count));
        let mut sinks_starts = sunk.as_ref().map(|(_, rows)| indices_from(rows, first, count));
        // Where there is a diagonal, `inner` is 1.
        let limit = (first / inner % queries) as i64 + problem.causal_limit;
        let visible = usize::try_from(limit).unwrap_or(0).min(len);
        for row in rows.chunks_mut(len) {
            let x_start = x_starts.next().unwrap_or(0);
            load(x_dtype, x, &line(&problem.x, x_start), 0, row);
            if let Some((mask, layout, _)) = &masked {
                let mask_start = mask_starts.as_mut().and_then(Iterator::next).unwrap_or(0);
                load(mask_dtype, mask, &line(layout, mask_start), 0, &mut bias);
            }
            for (value, &bias) in row.iter_mut().zip(&bias) {
                *value = logit(*value, problem.scale, bias);
            }
            row[visible..].fill(f32::NEG_INFINITY);
            let sink = sunk.as_ref().map(|(sinks, _)| {
                let start = sinks_starts.as_mut().and_then(Iterator::next).unwrap_or(0);
                let mut sink = [0.0];
                load(sinks_dtype, sinks, &Layout::matrix(start, [1, 1], [0, 0]), 0, &mut sink);
                logit(sink[0], 1.0, 0.0)
            });
            normalise(row, sink, problem.log);
        }
    };
    // `out` in slabs of len x inner, whose rows interleave: several at a time, or the rows of one, where there are too few.
    let slab = len * inner;
    if inner == 1 || slab <= BLOCK || out.len() / size / slab >= rayon::current_num_threads() {
        out.par_chunks_mut(slab * size).enumerate().for_each(|(i, bytes)| {
            let mut rows = vec![0.0; slab];
            make(i * inner, &mut rows);
            if inner == 1 {
                return f32::store(out_dtype, bytes, &rows);
            }
            let blocks = bytes.chunks_mut(BLOCK * size).enumerate();
            blocks.for_each(|(block, bytes)| f32::store(out_dtype, bytes, &turned(&rows, len, block * BLOCK, bytes.len() / size)));
        });
        return;
    }
    for (i, bytes) in out.chunks_mut(slab * size).enumerate() {
        let mut rows = vec![0.0; slab];
        let count = (BLOCK / len).max(1);
        rows.par_chunks_mut(len * count).enumerate().for_each(|(block, some)| make(i * inner + block * count, some));
        let blocks = bytes.par_chunks_mut(BLOCK * size).enumerate();
        blocks.for_each(|(block, bytes)| f32::store(out_dtype, bytes, &turned(&rows, len, block * BLOCK, bytes.len() / size)));
    }
}

/// Elements a task, at the least: shorter rows are several.
const BLOCK: usize = 4096;

/// `count` elements, from the one at `first` on, of the transpose of rows of `len`.
fn turned(rows: &[f32], len: usize, first: usize, count: usize) -> Vec<f32> {
    let inner = rows.len() / len;
    let (mut i, mut column) = (first / inner, first % inner);
    let next = |_| {
        let value = rows[column * len + i];
        column += 1;
        if column == inner {
            (i, column) = (i + 1, 0);
        }
        value
    };
    (0..count).map(next).collect()
}

/// `scale * x + bias`, saturated at the ends of f32, so that -inf means masked and nothing else.
fn logit(x: f32, scale: f32, bias: f32) -> f32 {
    if x == f32::NEG_INFINITY || bias == f32::NEG_INFINITY {
        return f32::NEG_INFINITY;
    }
    // In f64: the product may cancel against the mask.
    let logit = f64::from(x) * f64::from(scale) + f64::from(bias);
    logit.clamp(f32::MIN.into(), f32::MAX.into()) as f32
}

/// Logits to probabilities, or to their logarithms, in place.
fn normalise(row: &mut [f32], sink: Option<f32>, log: bool) {
    // `max` would drop it.
    if row.iter().any(|value| value.is_nan()) || sink.is_some_and(f32::is_nan) {
        row.fill(f32::NAN);
        return;
    }
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if top == f32::NEG_INFINITY {
        // All masked: the logarithms are what they are already.
        if !log {
            row.fill(0.0);
        }
        return;
    }
    let top = top.max(sink.unwrap_or(f32::NEG_INFINITY));
    // In f64 the difference is exact enough and does not overflow.
    let below = |value: f32| f64::from(value) - f64::from(top);
    let exp = |value: f32| (below(value) as f32).exp();
    let sunk = sink.map_or(0.0, |sink| f64::from(exp(sink)));
    if log {
        let total = (row.iter().map(|&value| f64::from(exp(value))).sum::<f64>() + sunk).ln();
        for value in row {
            let kept = ((below(*value) - total) as f32).max(f32::MIN);
            *value = if *value == f32::NEG_INFINITY { *value } else { kept };
        }
        return;
    }
    let mut total = 0.0;
    for value in row.iter_mut() {
        *value = exp(*value);
        total += f64::from(*value);
    }
    total += sunk;
    for value in row {
        *value = (f64::from(*value) / total) as f32;
    }
}
