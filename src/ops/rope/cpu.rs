//! RoPE on the CPU: rows of a head over rayon, in f64, rounded to f32.

use rayon::prelude::*;

use super::{Problem, RopeStyle};
use crate::Layout;
use crate::cpu::CHUNK;
use crate::cpu::numbers::{Number, load};

/// One of the tables, whole.
struct Table<'a> {
    values: &'a [f32],
    layout: &'a Layout,
}

impl Table<'_> {
    fn at(&self, position: usize, frequency: usize) -> f64 {
        let strides = self.layout.strides();
        self.values[self.layout.offset() + position * strides[0] + frequency * strides[1]].into()
    }
}

/// `out` is dense; `inputs` are x, the cosines, the sines and the positions, if there are any.
pub(super) fn rope(problem: &Problem, out: &mut [u8], inputs: &[&[u8]]) {
    let [out_dtype, x_dtype] = problem.dtypes;
    let cos = Table { values: bytemuck::cast_slice(inputs[1]), layout: &problem.cos };
    let sin = Table { values: bytemuck::cast_slice(inputs[2]), layout: &problem.sin };
    let positions: &[u32] = inputs.get(3).map_or(&[], |bytes| bytemuck::cast_slice(bytes));
    let (dims, half, last) = (problem.out.dims(), problem.half(), problem.cos.dims()[0] - 1);
    let (heads, seq, width) = (dims[1], dims[2], dims[3]);
    let sign = if problem.inverse { -1.0 } else { 1.0 };
    let size = out_dtype.block_bytes();
    let rows = (CHUNK / width).max(1);
    out.par_chunks_mut(rows * width * size).enumerate().for_each(|(chunk, bytes)| {
        let mut values = vec![0f32; width];
        for (at, bytes) in bytes.chunks_mut(width * size).enumerate() {
            let row = chunk * rows + at;
            let place = row % seq;
            load(x_dtype, inputs[0], &problem.x, row * width, &mut values);
            // In range when they were checked: an index is no worse for being kept there.
            let position_of = |stream: usize| match &problem.positions {
                None => problem.offset + place,
                Some(layout) => {
                    let strides = layout.strides();
                    let batch = row / seq / heads;
                    (positions[layout.offset() + stream * strides[0] + batch * strides[1] + place * strides[2]] as usize).min(last)
                }
            };
            let first = position_of(0);
            for frequency in 0..half {
                let position = problem.sections.map_or(first, |sections| position_of(sections.stream_of(frequency)));
                let (a, b) = match problem.style {
                    RopeStyle::Half => (frequency, frequency + half),
                    RopeStyle::Interleaved => (2 * frequency, 2 * frequency + 1),
                };
                let (cos, sin) = (cos.at(position, frequency), sign * sin.at(position, frequency));
                let (x, y) = (f64::from(values[a]), f64::from(values[b]));
                values[a] = (x * cos - y * sin) as f32;
                values[b] = (y * cos + x * sin) as f32;
            }
            f32::store(out_dtype, bytes, &values);
        }
    });
}
