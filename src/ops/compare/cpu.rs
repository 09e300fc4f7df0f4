//! The compare family on the CPU.

use rayon::prelude::*;

use super::{Function, Problem};
use crate::Layout;
use crate::cpu::CHUNK;
use crate::cpu::numbers::{Number, load};

/// Elements that are in f32 (or i64) at a time.
const BLOCK: usize = 1024;

/// `out` is dense.
pub(super) fn compare(problem: &Problem, out: &mut [u8], lhs: &[u8], rhs: &[u8]) {
    if problem.dtypes[0].is_float() { by::<f32>(problem, out, (lhs, rhs)) } else { by::<i64>(problem, out, (lhs, rhs)) }
}

fn by<N: Number + PartialOrd>(problem: &Problem, out: &mut [u8], operands: (&[u8], &[u8])) {
    match problem.function {
        Function::Eq => map(problem, out, operands, |a: N, b| a == b),
        Function::Ne => map(problem, out, operands, |a: N, b| a != b),
        Function::Lt => map(problem, out, operands, |a: N, b| a < b),
        Function::Le => map(problem, out, operands, |a: N, b| a <= b),
        Function::Gt => map(problem, out, operands, |a: N, b| a > b),
        Function::Ge => map(problem, out, operands, |a: N, b| a >= b),
    }
}

fn map<N: Number>(problem: &Problem, out: &mut [u8], (lhs, rhs): (&[u8], &[u8]), f: impl Fn(N, N) -> bool + Sync) {
    let [lhs_dtype, rhs_dtype] = problem.dtypes;
    let merged = Layout::merge(&[problem.lhs, problem.rhs]);
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, bools)| {
        let (mut left, mut right) = ([N::default(); BLOCK], [N::default(); BLOCK]);
        for (block, bools) in bools.chunks_mut(BLOCK).enumerate() {
            let (start, count) = (chunk * CHUNK + block * BLOCK, bools.len());
            let (left, right) = (&mut left[..count], &mut right[..count]);
            load(lhs_dtype, lhs, &merged[0], start, left);
            load(rhs_dtype, rhs, &merged[1], start, right);
            for (bool, (&a, &b)) in bools.iter_mut().zip(left.iter().zip(&*right)) {
                *bool = f(a, b).into();
            }
        }
    });
}
