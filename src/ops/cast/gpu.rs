//! Casts on a GPU: [`CAST`] into dense outputs; a strided one takes a dense scratch and a copy.

use super::Problem;
use crate::error::Result;
use crate::gpu::{Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Params as _, Plan, Spec, axes, check_binding, fold, word};
use crate::ops::copy;
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
    libs: &[include_str!("../../../shaders/lib/index.wgsl"), include_str!("../../../shaders/lib/number.wgsl")],
    bindings: &[Binding::typed("out", Access::Write, "OUT_DTYPE"), Binding::typed("x", Access::Read, "X_DTYPE")],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: &DTYPES,
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
    let op = super::OP;
    let out = &problem.out;
    if !out.is_contiguous() {
        let scratch = dense(op, out.dims())?;
        let to_scratch = Problem { out: scratch, ..problem.clone() };
        let mut plan = plan_dense(caps, &to_scratch, Arg::Scratch(0))?;
        let copy = copy::Problem { dtype: problem.out_dtype, out: *out, x: scratch };
        let scatter = copy::gpu::plan_between(op, caps, &copy, Arg::Tensor(0), Arg::Scratch(0))?;
        plan.dispatches.extend(scatter.dispatches);
        plan.scratch = vec![(scratch.len() * problem.out_dtype.block_bytes()) as u64];
        return Ok(plan);
    }
    plan_dense(caps, problem, Arg::Tensor(0))
}

fn plan_dense(caps: &Caps, problem: &Problem, out_arg: Arg) -> Result<Plan> {
    let op = super::OP;
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
    let spec = Spec { dtypes: &PAIRS[out_dtype.code() as usize * 7 + x_dtype.code() as usize], variant: &Constants::NONE, tune: &TUNES[0] };
    Ok(Plan::from(Dispatch {
        kernel: &CAST,
        spec,
        args: vec![out_arg, Arg::Tensor(1)],
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, words.div_ceil(TUNES[0].values[0].1 as usize) as u64)?,
        bytes: (len * (out_dtype.block_bytes() + x_dtype.block_bytes())) as u64,
        flops: 0,
    }))
}
