//! Matmul on the CPU: blocks of the output over rayon, each a product on one thread.

use rayon::prelude::*;

use super::{Activation, Epilogue, Problem};
use crate::cpu::activation::{gelu, gelu_tanh, relu, silu};
use crate::cpu::gemm::{Block, Matrix, Store};
use crate::cpu::numbers::{Number, load};
use crate::cpu::product::{Operand, product};
use crate::{DType, Layout};

/// Blocks of the output, from the shape alone: the bits do not depend on the number of threads.
const BLOCK_M: usize = 128;
const BLOCK_N: usize = 512;

/// Elements that are in f32 at a time.
const PIECE: usize = 1024;

/// `out` is dense: [batch, m, n]. What it held comes first among the inputs where that is added to.
pub(super) fn matmul(problem: &Problem, out: &mut [u8], inputs: &[&[u8]]) {
    let epilogue = &problem.epilogue;
    let (before, inputs) = if epilogue.accumulate { (Some(inputs[0]), &inputs[1..]) } else { (None, inputs) };
    let [lhs, rhs] = [inputs[0], inputs[1]];
    let dtype = problem.dtypes[0];
    if dtype == DType::F32 && epilogue.is_none() {
        return sums(problem, &problem.rhs, bytemuck::cast_slice_mut(out), lhs, rhs);
    }
    let mut wide = vec![0.0; problem.out.len()];
    sums(problem, &problem.rhs, &mut wide, lhs, rhs);
    let mut rest = inputs[2..].iter().copied();
    let gates = epilogue.gate.map(|gate| {
        let mut gates = vec![0.0; problem.out.len()];
        sums(problem, &gate, &mut gates, lhs, rest.next().unwrap_or_default());
        gates
    });
    let [c, bias, residual] = epilogue.extras().map(|extra| extra.map(|e| (e.dtype, e.layout, rest.next().unwrap_or_default())));
    let before = before.map(|storage| (dtype, problem.out, storage));
    let alpha = epilogue.alpha;
    let activation: Option<fn(f64) -> f64> = match epilogue.activation {
        Activation::None => None,
        Activation::Relu => Some(relu),
        Activation::Gelu => Some(gelu),
        Activation::GeluTanh => Some(gelu_tanh),
        Activation::Silu => Some(silu),
    };
    out.par_chunks_mut(PIECE * dtype.block_bytes()).zip(wide.par_chunks_mut(PIECE)).enumerate().for_each(|(piece, (bytes, x))| {
        let start = piece * PIECE;
        let mut values = [0.0f32; PIECE];
        let mut add = |x: &mut [f32], factor: f32, extra: &Option<(DType, Layout, &[u8])>| {
            if let Some((dtype, layout, storage)) = extra {
                load(*dtype, storage, layout, start, &mut values[..x.len()]);
                for (x, value) in x.iter_mut().zip(values) {
                    *x += factor * value;
                }
            }
        };
        for x in x.iter_mut() {
            *x *= alpha;
        }
        add(x, epilogue.beta, &c);
        add(x, 1.0, &bias);
        if let Some(activation) = activation {
            for x in x.iter_mut() {
                *x = activation((*x).into()) as f32;
            }
        }
        if let Some(gates) = &gates {
            for (x, gate) in x.iter_mut().zip(&gates[start..]) {
                *x *= alpha * gate;
            }
        }
        add(x, 1.0, &residual);
        add(x, 1.0, &before);
        f32::store(dtype, bytes, x);
    });
}

/// The product with the right-hand side that lies there.
fn sums(problem: &Problem, right: &Layout, out: &mut [f32], lhs: &[u8], rhs: &[u8]) {
    let (m, n, k) = (problem.m(), problem.n(), problem.k());
    let product_of = Problem { rhs: *right, epilogue: Epilogue::NONE, ..problem.clone() };
    let batches = product_of.batches();
    let bases: Vec<(usize, usize)> = batches[1].indices().zip(batches[2].indices()).collect();
    let operand = |dtype, storage, layout: &Layout, base| {
        let strides = layout.strides();
        Operand { dtype, storage, matrix: Matrix { base, row: strides[strides.len() - 2], col: strides[strides.len() - 1] } }
    };
    out.par_chunks_mut(m * n).zip(bases).for_each(|(out, (lhs_base, rhs_base))| {
        let left = operand(problem.dtypes[1], lhs, &problem.lhs, lhs_base);
        let right_of = operand(problem.dtypes[2], rhs, right, rhs_base);
        Block::new(out, n).split(BLOCK_M, BLOCK_N).into_par_iter().for_each(|(row, col, mut block)| {
            product(&mut block, k, left.at(row, 0), right_of.at(0, col), Store::Replace, problem.batch_invariant);
        });
    });
}
