//! Reductions on a GPU: [`REDUCE`] and [`REDUCE_ARG`].

use super::{Function, Problem};
use crate::error::Result;
use crate::gpu::{
    Access, AdapterKind, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, axes, check_binding,
    fold, loop_end, runs, word,
};
use crate::ops::{copy, cut, through_scratch};
use crate::tensor::dense;
use crate::{DType, Layout};
use DType::{BF16, Bool, F16, F32, I32, U8, U32};

const LIBS: &[&str] = &[
    include_str!("../../../shaders/lib/element.wgsl"),
    include_str!("../../../shaders/lib/float.wgsl"),
    include_str!("../../../shaders/lib/index.wgsl"),
    include_str!("../../../shaders/lib/key.wgsl"),
    include_str!("../../../shaders/lib/order.wgsl"),
];

const TUNES: &[Constants] = &[
    Constants { name: "group256", values: &[("WORKGROUP", 256), ("GROUP", 256)] },
    Constants { name: "group32", values: &[("WORKGROUP", 32), ("GROUP", 32)] },
    Constants { name: "lane", values: &[("WORKGROUP", 64), ("GROUP", 1)] },
];

/// Sums and extremes. What it does not list (from one 16-bit type into the other) goes through an f32 scratch.
pub static REDUCE: Kernel = Kernel {
    name: "reduce",
    source: include_str!("../../../shaders/reduce.wgsl"),
    libs: LIBS,
    bindings: &[Binding::typed("out", Access::Write, "OUT_DTYPE"), Binding::typed("x", Access::Read, "X_DTYPE")],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: &[
        &[F32, F32],
        &[F16, F16],
        &[BF16, BF16],
        &[F32, F16],
        &[F32, BF16],
        &[F16, F32],
        &[BF16, F32],
        &[I32, I32],
        &[U32, U32],
        &[U8, U8],
        &[Bool, Bool],
        &[U32, U8],
        &[U32, Bool],
        &[U8, U32],
        &[Bool, U32],
    ],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

/// Where extremes lie.
pub static REDUCE_ARG: Kernel = Kernel {
    name: "reduce_arg",
    source: include_str!("../../../shaders/reduce_arg.wgsl"),
    libs: LIBS,
    bindings: &[Binding::new("out", Access::Write), Binding::typed("x", Access::Read, "X_DTYPE"), Binding::new("candidates", Access::Read)],
    params: ArgParams::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: &[
        &[U32, F32, U32],
        &[U32, F16, U32],
        &[U32, BF16, U32],
        &[U32, I32, U32],
        &[U32, U32, U32],
        &[U32, U8, U32],
        &[U32, Bool, U32],
    ],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of `reduce.wgsl`.
    pub struct Params {
        /// Sizes of the kept axes, merged.
        dims: [[u32; 4]; 2],
        /// Strides of `x` over them.
        x_strides: [[u32; 4]; 2],
        /// Strides of `out`.
        out_strides: [[u32; 4]; 2],
        /// Sizes of the reduced axes, merged.
        reduced_dims: [[u32; 4]; 2],
        /// Strides of `x` over them.
        reduced_strides: [[u32; 4]; 2],
        /// First element of `x`.
        x_offset: u32,
        /// First element of `out`.
        out_offset: u32,
        /// Elements to an output.
        len: u32,
        /// Of them, in a part.
        part: u32,
        /// Outputs, parts of one not counted.
        outputs: u32,
        /// Of work: outputs and parts, or words of `out`.
        units: u32,
        /// [`Function`], as it is numbered.
        op: u32,
        /// What a mean divides by.
        divisor: f32,
    }
}

crate::params! {
    /// `Params` of `reduce_arg.wgsl`.
    pub struct ArgParams {
        /// Sizes of the kept axes, merged.
        dims: [[u32; 4]; 2],
        /// Strides of `x` over them.
        x_strides: [[u32; 4]; 2],
        /// Strides of `out`.
        out_strides: [[u32; 4]; 2],
        /// Sizes of the reduced axes, merged.
        reduced_dims: [[u32; 4]; 2],
        /// Strides of `x` over them.
        reduced_strides: [[u32; 4]; 2],
        /// First element of `x`.
        x_offset: u32,
        /// First element of `out`.
        out_offset: u32,
        /// Elements to an output, or candidates.
        len: u32,
        /// Of them, in a part.
        part: u32,
        /// Outputs, parts of one not counted.
        outputs: u32,
        /// Outputs and parts.
        units: u32,
        /// Whether the lowest is looked for.
        lowest: u32,
        /// Whether there are candidates.
        listed: u32,
    }
}

/// By the reduced axes alone, so that a row gives the same bits in any batch. Thresholds by arithmetic: an eight a lane and more.
/// Unmeasured on hardware.
fn select(caps: &Caps, over: &Layout) -> &'static Constants {
    let [wide, narrow, lane] = [0, 1, 2].map(|i| &TUNES[i]);
    let side_by_side = over.strides().last().is_none_or(|&stride| stride == 1);
    match over.len() {
        // Outputs are neighbours where the elements of one are not.
        _ if !side_by_side => lane,
        ..=64 => lane,
        65..=1024 => narrow,
        _ if caps.kind == AdapterKind::Software => narrow,
        _ => wide,
    }
}

/// Elements in a part of a long axis: 32 to a lane, so that many lanes share few outputs. Twice that is not cut.
fn part_of(tune: &Constants) -> usize {
    (32 * tune.get("GROUP").unwrap_or(1) as usize).max(256)
}

/// One reduction of a plan.
#[derive(Clone, Copy)]
struct Pass {
    function: Function,
    dtypes: [DType; 2],
    /// `out` and `x` over the kept axes, merged together.
    out: Layout,
    kept: Layout,
    /// `x` over the reduced ones, merged.
    over: Layout,
    /// Elements that a mean is of.
    of: usize,
    /// Candidates to an output, and the scratch that holds them: arguments alone.
    listed: Option<(usize, Arg)>,
}

/// The dispatches of a reduction.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) where the device's limits forbid it.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    cut(caps, problem, &|problem| uncut(caps, pin, problem))
}

fn uncut(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let op = problem.function.name();
    let [out_dtype, x_dtype] = problem.dtypes;
    let listed = problem.function.is_arg() || REDUCE.types(&problem.dtypes).is_some();
    if !listed || (out_dtype.block_bytes() < 4 && !problem.out.is_contiguous()) {
        // Several elements of a strided `out` share a word, or there is no kernel for the types: neither in scratch.
        let between = if listed { out_dtype } else { F32 };
        return through_scratch(op, caps, (&problem.out, out_dtype), between, |out| {
            plan(caps, pin, &Problem { dtypes: [between, x_dtype], out, ..problem.clone() })
        });
    }
    check_binding(op, caps, "out", &problem.out, out_dtype)?;
    check_binding(op, caps, "x", &problem.x, x_dtype)?;
    let kept = Layout::merge(&[problem.out, problem.kept()]);
    // Empty ones have no strides worth merging.
    let over = if problem.x.is_empty() { Layout::contiguous(&[0]) } else { None };
    let over = over.unwrap_or_else(|| Layout::merge(&[problem.over()])[0]);
    let pass = Pass { function: problem.function, dtypes: problem.dtypes, out: kept[0], kept: kept[1], over, of: over.len(), listed: None };
    let mut plan = Plan::default();
    append(&mut plan, caps, pin, &pass, Arg::Tensor(0), Arg::Tensor(1))?;
    Ok(plan)
}

/// Adds a reduction; of a long axis part by part into a scratch, and then of that.
fn append(plan: &mut Plan, caps: &Caps, pin: Option<Pin>, pass: &Pass, out: Arg, x: Arg) -> Result<()> {
    let op = pass.function.name();
    let kernel = if pass.function.is_arg() { &REDUCE_ARG } else { &REDUCE };
    let tune = Pin::tune_of(op, pin, kernel)?.unwrap_or_else(|| select(caps, &pass.over));
    let len = pass.listed.map_or(pass.over.len(), |(count, _)| count);
    let part = part_of(tune);
    if len <= 2 * part {
        plan.dispatches.push(dispatch(caps, pass, kernel, tune, len.max(1), out, x)?);
        return Ok(());
    }
    let parts = len.div_ceil(part);
    let scratch = Arg::Scratch(plan.scratch.len());
    let mut dims = pass.kept.dims().to_vec();
    dims.push(parts);
    let whole = dense(op, &dims)?;
    let firsts = whole.narrow(dims.len() - 1, 0, 1).and_then(|firsts| firsts.squeeze(dims.len() - 1)).unwrap_or(whole);
    // In 32 bits, which have room for every sum and every element.
    let between = match pass.dtypes[1] {
        _ if pass.function.is_arg() => U32,
        dtype if dtype.is_float() => F32,
        I32 => I32,
        _ => U32,
    };
    check_binding(op, caps, "the parts' scratch", &whole, between)?;
    plan.scratch.push(4 * whole.len() as u64);
    let function = if pass.function == Function::Mean { Function::Sum } else { pass.function };
    let first = Pass { function, dtypes: [between, pass.dtypes[1]], out: firsts, ..*pass };
    plan.dispatches.push(dispatch(caps, &first, kernel, tune, part, scratch, x)?);
    if pass.function.is_arg() {
        return append(plan, caps, pin, &Pass { listed: Some((parts, scratch)), ..*pass }, out, x);
    }
    let over = dense(op, &[parts])?;
    let rest = Pass { dtypes: [pass.dtypes[0], between], kept: firsts, over, ..*pass };
    append(plan, caps, pin, &rest, out, scratch)
}

fn dispatch(
    caps: &Caps,
    pass: &Pass,
    kernel: &'static Kernel,
    tune: &'static Constants,
    part: usize,
    out: Arg,
    x: Arg,
) -> Result<Dispatch> {
    let op = pass.function.name();
    let [out_dtype, x_dtype] = pass.dtypes;
    let dtypes = match pass.function.is_arg() {
        true => kernel.dtypes.iter().copied().find(|types| types[1] == x_dtype),
        false => kernel.types(&pass.dtypes),
    };
    let dtypes = dtypes.unwrap_or(kernel.dtypes[0]);
    let len = pass.listed.map_or(pass.over.len(), |(count, _)| count);
    let outputs = pass.kept.len();
    let parts = len.div_ceil(part).max(1);
    let last = pass.over.rank().saturating_sub(1);
    let aligned = pass.kept.strides().iter().all(|stride| stride.is_multiple_of(8));
    let proven = aligned && pass.listed.is_none() && runs(&pass.over, last, 8, false);
    let spec = Spec { dtypes, variant: &Constants::NONE, tune, width: Width::of(proven && kernel.offers(dtypes, Width::Vector)) };
    let units = match out_dtype.block_bytes() {
        4 => outputs * parts,
        _ => copy::gpu::words_of(pass.out.offset(), outputs, out_dtype),
    };
    let dims = axes(op, pass.kept.dims(), 1)?;
    let [x_strides, out_strides] = [axes(op, pass.kept.strides(), 0)?, axes(op, pass.out.strides(), 0)?];
    let [reduced_dims, reduced_strides] = [axes(op, pass.over.dims(), 1)?, axes(op, pass.over.strides(), 0)?];
    let [x_offset, out_offset] = [word(op, "x", pass.over.offset())?, word(op, "out", pass.out.offset())?];
    let (len, part) = (loop_end(op, "the reduced axes", len)?, word(op, "a part", part)?);
    let (outputs, units) = (word(op, "out", outputs)?, word(op, "out", units)?);
    let params = if pass.function.is_arg() {
        let params = ArgParams {
            dims,
            x_strides,
            out_strides,
            reduced_dims,
            reduced_strides,
            x_offset,
            out_offset,
            len,
            part,
            outputs,
            units,
            lowest: (pass.function == Function::ArgMin).into(),
            listed: pass.listed.is_some().into(),
        };
        bytemuck::bytes_of(&params).to_vec()
    } else {
        let params = Params {
            dims,
            x_strides,
            out_strides,
            reduced_dims,
            reduced_strides,
            x_offset,
            out_offset,
            len,
            part,
            outputs,
            units,
            op: pass.function as u32,
            divisor: pass.of as f32,
        };
        bytemuck::bytes_of(&params).to_vec()
    };
    let mut args = vec![out, x];
    if pass.function.is_arg() {
        // Without candidates their binding holds `x`, unread.
        args.push(pass.listed.map_or(x, |(_, scratch)| scratch));
    }
    let groups = u64::from(units).div_ceil((spec.get("WORKGROUP") / spec.get("GROUP")).into());
    let elements = u64::from(outputs) * u64::from(len);
    Ok(Dispatch {
        kernel,
        spec,
        args,
        params,
        grid: fold(op, caps, groups)?,
        bytes: elements * x_dtype.block_bytes() as u64 + (outputs as u64 * parts as u64) * out_dtype.block_bytes() as u64,
        flops: elements,
    })
}
