//! Casts on the CPU: through f64, which holds every value of every type.

use bytemuck::Pod;
use half::{bf16, f16};
use rayon::prelude::*;

use super::Problem;
use crate::cpu::{CHUNK, indices_from};
use crate::{DType, Element};

/// A bool in storage: a byte, so that `bool`'s two valid patterns need no check.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
struct Byte(u8);

pub(super) fn cast(problem: &Problem, out: &mut [u8], x: &[u8]) {
    match problem.x_dtype {
        DType::F32 => to::<f32>(problem, out, x, f64::from),
        DType::F16 => to::<f16>(problem, out, x, f64::from),
        DType::BF16 => to::<bf16>(problem, out, x, f64::from),
        DType::I32 => to::<i32>(problem, out, x, f64::from),
        DType::U32 => to::<u32>(problem, out, x, f64::from),
        DType::U8 => to::<u8>(problem, out, x, f64::from),
        DType::Bool => to::<Byte>(problem, out, x, |b| f64::from(u8::from(b.0 != 0))),
    }
}

fn to<X: Pod + Sync>(problem: &Problem, out: &mut [u8], x: &[u8], wide: fn(X) -> f64) {
    match problem.out_dtype {
        DType::F32 => map(problem, out, x, |v| nearest::<f32>(wide(v))),
        DType::F16 => map(problem, out, x, |v| nearest::<f16>(wide(v))),
        DType::BF16 => map(problem, out, x, |v| nearest::<bf16>(wide(v))),
        DType::I32 => map(problem, out, x, |v| nearest::<i32>(wide(v))),
        DType::U32 => map(problem, out, x, |v| nearest::<u32>(wide(v))),
        DType::U8 => map(problem, out, x, |v| nearest::<u8>(wide(v))),
        DType::Bool => map(problem, out, x, |v| Byte(u8::from(nearest::<bool>(wide(v))))),
    }
}

/// `Element`'s rounding: `half` has a method of the same name that drops bits.
fn nearest<T: Element>(value: f64) -> T {
    T::from_f64(value)
}

fn map<X: Pod + Sync, Out: Pod + Send>(problem: &Problem, out: &mut [u8], x: &[u8], f: impl Fn(X) -> Out + Sync) {
    let out: &mut [Out] = bytemuck::cast_slice_mut(out);
    let x: &[X] = bytemuck::cast_slice(x);
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let count = values.len();
        for (value, index) in values.iter_mut().zip(indices_from(&problem.x, chunk * CHUNK, count)) {
            *value = f(x[index]);
        }
    });
}
