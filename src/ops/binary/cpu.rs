//! The binary family on the CPU.

use rayon::prelude::*;

use super::{Function, Problem};
use crate::Layout;
use crate::cpu::CHUNK;
use crate::cpu::numbers::{Number, load};

/// Elements that are in f32 (or i64) at a time.
const BLOCK: usize = 1024;

/// `out` is dense.
pub(super) fn binary(problem: &Problem, out: &mut [u8], lhs: &[u8], rhs: &[u8]) {
    let operands = (lhs, rhs);
    if problem.dtypes[1].is_float() {
        match problem.function {
            Function::Add => map(problem, out, operands, |a: f32, b| a + b),
            Function::Sub => map(problem, out, operands, |a: f32, b| a - b),
            Function::Mul => map(problem, out, operands, |a: f32, b| a * b),
            Function::Div => map(problem, out, operands, |a: f32, b| a / b),
            Function::Pow => map(problem, out, operands, |a: f32, b| f64::from(a).powf(b.into()) as f32),
            Function::Min => map(problem, out, operands, |a: f32, b| if a.total_cmp(&b).is_le() { a } else { b }),
            Function::Max => map(problem, out, operands, |a: f32, b| if a.total_cmp(&b).is_ge() { a } else { b }),
        }
    } else {
        match problem.function {
            Function::Add => map(problem, out, operands, |a: i64, b| a.wrapping_add(b)),
            Function::Sub => map(problem, out, operands, |a: i64, b| a.wrapping_sub(b)),
            Function::Mul => map(problem, out, operands, |a: i64, b| a.wrapping_mul(b)),
            Function::Div => map(problem, out, operands, |a: i64, b| a.checked_div(b).unwrap_or(a)),
            Function::Pow => map(problem, out, operands, power),
            Function::Min => map(problem, out, operands, i64::min),
            Function::Max => map(problem, out, operands, i64::max),
        }
    }
}

/// Modulo 2^64, of which the storage keeps the low bits.
fn power(base: i64, exponent: i64) -> i64 {
    match (base, u32::try_from(exponent)) {
        (_, Ok(exponent)) => base.wrapping_pow(exponent),
        (1, _) => 1,
        (-1, _) => 1 - 2 * (exponent & 1),
        _ => 0,
    }
}

fn map<N: Number>(problem: &Problem, out: &mut [u8], (lhs, rhs): (&[u8], &[u8]), f: impl Fn(N, N) -> N + Sync) {
    let [out_dtype, lhs_dtype, rhs_dtype] = problem.dtypes;
    let merged = Layout::merge(&[problem.lhs, problem.rhs]);
    let size = out_dtype.block_bytes();
    out.par_chunks_mut(CHUNK * size).enumerate().for_each(|(chunk, bytes)| {
        let (mut left, mut right) = ([N::default(); BLOCK], [N::default(); BLOCK]);
        for (block, bytes) in bytes.chunks_mut(BLOCK * size).enumerate() {
            let (start, count) = (chunk * CHUNK + block * BLOCK, bytes.len() / size);
            let (left, right) = (&mut left[..count], &mut right[..count]);
            load(lhs_dtype, lhs, &merged[0], start, left);
            load(rhs_dtype, rhs, &merged[1], start, right);
            for (a, &b) in left.iter_mut().zip(&*right) {
                *a = f(*a, b);
            }
            N::store(out_dtype, bytes, left);
        }
    });
}
