//! Casts on a GPU: [`CAST`] into dense outputs; a strided one takes a dense scratch and a copy.

use super::Problem;
use crate::error::Result;
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Plan, Spec, Width, axes, check_binding, fold, word,
};
use crate::ops::{copy, cut};
use crate::tensor::dense;
use crate::{DType, Layout};

/// All pairs of types, row by row of [`DType::ALL`].
static PAIRS: [[DType; 2]; 49] = {
    let mut pairs = [[DType::F32; 2]; 49];
    let mut i = 0;
    while i < 49 {
        pairs[i] = [DType::ALL[i / 7], DType::ALL[i % 7]];
        i += 1;
    }
    pairs
};

static DTYPES: [&[DType]; 49] = {
    let mut dtypes: [&[DType]; 49] = [&[]; 49];
    let mut i = 0;
    while i < 49 {
        dtypes[i] = &PAIRS[i];
        i += 1;
    }
    dtypes
};

const TUNES: &[Constants] = &[Constants { name: "group256", values: &[("WORKGROUP", 256)] }];

/// Any type to any other, by words of the output.
pub static CAST: Kernel = Kernel {
    name: "cast",
    source: include_str!("../../../shaders/cast.wgsl"),
    libs: &[
        include_str!("../../../shaders/lib/index.wgsl"),
        include_str!("../../../shaders/lib/float.wgsl"),
        include_str!("../../../shaders/lib/number.wgsl"),
    ],
    bindings: &[Binding::typed("out", Access::Write, "OUT_DTYPE"), Binding::typed("x", Access::Read, "X_DTYPE")],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: &DTYPES,
    widths: &[Width::Fixed],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of `cast.wgsl`.
    pub struct Params {
        /// Sizes of the merged axes.
        dims: [[u32; 4]; 2],
        /// Strides of `x`.
        x_strides: [[u32; 4]; 2],
        /// First element of `x`.
        x_offset: u32,
        /// First element of `out`.
        out_offset: u32,
        /// Elements.
        len: u32,
        /// Words of `out` that hold them.
        words: u32,
    }
}

/// The dispatches of a cast.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) where the device's limits forbid it.
pub fn plan(caps: &Caps, problem: &Problem) -> Result<Plan> {
    cut(caps, problem, &|problem| {
        let mut plan = Plan::default();
        append(&mut plan, super::OP, caps, problem, Arg::Tensor(0), Arg::Tensor(1))?;
        Ok(plan)
    })
}

/// Adds a cast between any buffers of another op's plan.
pub(crate) fn append(plan: &mut Plan, op: &'static str, caps: &Caps, problem: &Problem, out: Arg, x: Arg) -> Result<()> {
    if problem.out_dtype == problem.x_dtype {
        let copy = copy::Problem { dtype: problem.out_dtype, out: problem.out, x: problem.x };
        plan.dispatches.extend(copy::gpu::plan_between(op, caps, &copy, out, x)?.dispatches);
        return Ok(());
    }
    if !problem.out.is_contiguous() {
        // By words into scratch, then by elements.
        let scratch = dense(op, problem.out.dims())?;
        let between = Arg::Scratch(plan.scratch.len());
        plan.scratch.push((scratch.len() * problem.out_dtype.block_bytes()) as u64);
        plan.dispatches.push(into_dense(op, caps, &Problem { out: scratch, ..problem.clone() }, between, x)?);
        let copy = copy::Problem { dtype: problem.out_dtype, out: problem.out, x: scratch };
        plan.dispatches.extend(copy::gpu::plan_between(op, caps, &copy, out, between)?.dispatches);
        return Ok(());
    }
    plan.dispatches.push(into_dense(op, caps, problem, out, x)?);
    Ok(())
}

fn into_dense(op: &'static str, caps: &Caps, problem: &Problem, out_arg: Arg, x_arg: Arg) -> Result<Dispatch> {
    let Problem { out_dtype, x_dtype, out, x } = problem;
    check_binding(op, caps, "out", out, *out_dtype)?;
    check_binding(op, caps, "x", x, *x_dtype)?;
    let len = out.len();
    let words = copy::gpu::words_of(out.offset(), len, *out_dtype);
    let merged = Layout::merge(&[*x])[0];
    let params = Params {
        dims: axes(op, merged.dims(), 1)?,
        x_strides: axes(op, merged.strides(), 0)?,
        x_offset: word(op, "x", x.offset())?,
        out_offset: word(op, "out", out.offset())?,
        len: word(op, "out", len)?,
        words: word(op, "out", words)?,
    };
    let dtypes = &PAIRS[out_dtype.code() as usize * 7 + x_dtype.code() as usize];
    Ok(Dispatch {
        kernel: &CAST,
        spec: Spec { dtypes, variant: &Constants::NONE, tune: &TUNES[0], width: Width::Fixed },
        args: vec![out_arg, x_arg],
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, words.div_ceil(TUNES[0].values[0].1 as usize) as u64)?,
        bytes: (len * (out_dtype.block_bytes() + x_dtype.block_bytes())) as u64,
        flops: 0,
    })
}
