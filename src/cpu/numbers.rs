//! Elements of storage as the numbers that ops compute in, run by run: f32 for floats, i64 for whole numbers.

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::indices_from;
use crate::{DType, Layout};

/// What ops compute in. Whole numbers wrap when they are stored.
pub(crate) trait Number: Copy + Default + Send + Sync {
    /// `len` elements from storage element `first`, neighbours.
    fn load_run(dtype: DType, storage: &[u8], first: usize, out: &mut [Self]);
    /// The element at a storage index.
    fn load_at(dtype: DType, storage: &[u8], indices: impl Iterator<Item = usize>, out: &mut [Self]);
    /// Rounds (to nearest even) or wraps into dense storage.
    fn store(dtype: DType, storage: &mut [u8], values: &[Self]);
}

/// Elements `start..start + out.len()` of a layout, row-major.
pub(crate) fn load<N: Number>(dtype: DType, storage: &[u8], layout: &Layout, start: usize, out: &mut [N]) {
    let count = out.len();
    if count == 0 {
        return;
    }
    if layout.is_contiguous() {
        N::load_run(dtype, storage, layout.offset() + start, out);
        return;
    }
    let (dims, strides) = (layout.dims(), layout.strides());
    // Not contiguous, so it has an axis.
    let row = dims[layout.rank() - 1];
    if strides[layout.rank() - 1] != 1 || row < 8 {
        N::load_at(dtype, storage, indices_from(layout, start, count), out);
        return;
    }
    // Runs along the last axis, the first one from its middle.
    let mut done = 0;
    while done < count {
        let element = start + done;
        let len = (row - element % row).min(count - done);
        N::load_run(dtype, storage, layout.index_of(element), &mut out[done..done + len]);
        done += len;
    }
}

fn run<T: Pod>(storage: &[u8], first: usize, len: usize) -> &[T] {
    &bytemuck::cast_slice(storage)[first..first + len]
}

fn each<T, N>(values: impl Iterator<Item = T>, out: &mut [N], to: impl Fn(T) -> N) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = to(value);
    }
}

fn at<T: Pod, N>(storage: &[u8], indices: impl Iterator<Item = usize>, out: &mut [N], to: impl Fn(T) -> N) {
    let storage: &[T] = bytemuck::cast_slice(storage);
    each(indices.map(|i| storage[i]), out, to);
}

impl Number for f32 {
    fn load_run(dtype: DType, storage: &[u8], first: usize, out: &mut [f32]) {
        let len = out.len();
        match dtype {
            DType::F16 => run::<f16>(storage, first, len).convert_to_f32_slice(out),
            DType::BF16 => each(run::<u16>(storage, first, len).iter().copied(), out, |bits| f32::from_bits(u32::from(bits) << 16)),
            _ => out.copy_from_slice(run(storage, first, len)),
        }
    }

    fn load_at(dtype: DType, storage: &[u8], indices: impl Iterator<Item = usize>, out: &mut [f32]) {
        match dtype {
            DType::F16 => at(storage, indices, out, f16::to_f32),
            DType::BF16 => at(storage, indices, out, bf16::to_f32),
            _ => at(storage, indices, out, |value: f32| value),
        }
    }

    fn store(dtype: DType, storage: &mut [u8], values: &[f32]) {
        match dtype {
            DType::F16 => bytemuck::cast_slice_mut::<_, f16>(storage).convert_from_f32_slice(values),
            DType::BF16 => each(values.iter().copied(), bytemuck::cast_slice_mut::<_, bf16>(storage), bf16::from_f32),
            _ => storage.copy_from_slice(bytemuck::cast_slice(values)),
        }
    }
}

impl Number for i64 {
    fn load_run(dtype: DType, storage: &[u8], first: usize, out: &mut [i64]) {
        let end = first + out.len();
        Self::load_at(dtype, storage, first..end, out);
    }

    fn load_at(dtype: DType, storage: &[u8], indices: impl Iterator<Item = usize>, out: &mut [i64]) {
        match dtype {
            DType::I32 => at(storage, indices, out, |value: i32| value.into()),
            DType::U32 => at(storage, indices, out, |value: u32| value.into()),
            DType::Bool => at(storage, indices, out, |value: u8| i64::from(value != 0)),
            _ => at(storage, indices, out, |value: u8| value.into()),
        }
    }

    fn store(dtype: DType, storage: &mut [u8], values: &[i64]) {
        let values = values.iter().copied();
        match dtype {
            DType::I32 => each(values, bytemuck::cast_slice_mut::<_, i32>(storage), |value| value as i32),
            DType::U32 => each(values, bytemuck::cast_slice_mut::<_, u32>(storage), |value| value as u32),
            DType::Bool => each(values, storage, |value| u8::from(value != 0)),
            _ => each(values, storage, |value| value as u8),
        }
    }
}
