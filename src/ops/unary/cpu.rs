//! The unary family on the CPU: in f64, rounded to f32.

use rayon::prelude::*;

use super::{Function, Problem};
use crate::Layout;
use crate::cpu::CHUNK;
use crate::cpu::activation::{gated, gelu, gelu_tanh, relu, sigmoid, silu};
use crate::cpu::numbers::{Number, load};

/// Elements that are in f32 (or i64) at a time.
const BLOCK: usize = 1024;

/// `out` is dense.
pub(super) fn unary(problem: &Problem, out: &mut [u8], x: &[u8]) {
    if !problem.dtypes[1].is_float() {
        return match problem.function {
            Function::Neg => map(problem, out, x, |x: i64| -x),
            Function::Abs => map(problem, out, x, i64::abs),
            _ => map(problem, out, x, |x: i64| x.max(0)),
        };
    }
    let [low, high] = problem.bounds;
    match problem.function {
        Function::Neg => map(problem, out, x, |x: f32| -x),
        Function::Abs => map(problem, out, x, f32::abs),
        Function::Exp => wide(problem, out, x, f64::exp),
        Function::Log => wide(problem, out, x, f64::ln),
        Function::Sqrt => map(problem, out, x, f32::sqrt),
        Function::Rsqrt => wide(problem, out, x, |x| 1.0 / x.sqrt()),
        Function::Relu => wide(problem, out, x, relu),
        Function::Gelu => wide(problem, out, x, gelu),
        Function::GeluTanh => wide(problem, out, x, gelu_tanh),
        Function::Silu => wide(problem, out, x, silu),
        Function::Sigmoid => wide(problem, out, x, sigmoid),
        Function::Tanh => wide(problem, out, x, f64::tanh),
        Function::Erf => wide(problem, out, x, libm::erf),
        Function::Softplus => wide(problem, out, x, |x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
        Function::HardSwish => wide(problem, out, x, |x| gated(x, (x + 3.0).clamp(0.0, 6.0) / 6.0)),
        Function::Clamp => map(problem, out, x, |x: f32| {
            let raised = if x.total_cmp(&low).is_lt() { low } else { x };
            if x.is_nan() {
                x
            } else if raised.total_cmp(&high).is_gt() {
                high
            } else {
                raised
            }
        }),
    }
}

fn wide(problem: &Problem, out: &mut [u8], x: &[u8], f: impl Fn(f64) -> f64 + Sync) {
    map(problem, out, x, |x: f32| f(x.into()) as f32);
}

fn map<N: Number>(problem: &Problem, out: &mut [u8], x: &[u8], f: impl Fn(N) -> N + Sync) {
    let [out_dtype, x_dtype] = problem.dtypes;
    let merged = Layout::merge(&[problem.x]);
    let size = out_dtype.block_bytes();
    out.par_chunks_mut(CHUNK * size).enumerate().for_each(|(chunk, bytes)| {
        let mut values = [N::default(); BLOCK];
        for (block, bytes) in bytes.chunks_mut(BLOCK * size).enumerate() {
            let values = &mut values[..bytes.len() / size];
            load(x_dtype, x, &merged[0], chunk * CHUNK + block * BLOCK, values);
            for value in values.iter_mut() {
                *value = f(*value);
            }
            N::store(out_dtype, bytes, values);
        }
    });
}
