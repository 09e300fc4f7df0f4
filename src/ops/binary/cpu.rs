//! The binary family on the CPU.

use rayon::prelude::*;

use super::{Function, Problem};
use crate::Layout;
use crate::cpu::{CHUNK, indices_from};

pub(super) fn binary(problem: &Problem, out: &mut [f32], lhs: &[f32], rhs: &[f32]) {
    match problem.function {
        Function::Add => map(problem, out, lhs, rhs, |a, b| a + b),
        Function::Mul => map(problem, out, lhs, rhs, |a, b| a * b),
    }
}

fn map(problem: &Problem, out: &mut [f32], lhs: &[f32], rhs: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let merged = Layout::merge(&[problem.lhs, problem.rhs]);
    let dense = merged.iter().all(Layout::is_contiguous);
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let (start, count) = (chunk * CHUNK, values.len());
        if dense {
            let left = &lhs[merged[0].offset() + start..][..count];
            let right = &rhs[merged[1].offset() + start..][..count];
            for ((value, &a), &b) in values.iter_mut().zip(left).zip(right) {
                *value = f(a, b);
            }
        } else {
            let pairs = indices_from(&merged[0], start, count).zip(indices_from(&merged[1], start, count));
            for (value, (a, b)) in values.iter_mut().zip(pairs) {
                *value = f(lhs[a], rhs[b]);
            }
        }
    });
}
