//! Choices on a GPU: [`WHERE_COND`].

use super::{OP, Problem};
use crate::error::Result;
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, axes, check_binding, fold, runs,
    word,
};
use crate::ops::{cut, through_scratch, units};
use crate::{DType, Layout};
use DType::{Bool, F16, F32, U8};

/// One dtype for each width: only the width matters.
const WIDTHS: &[&[DType]] = &[&[F32, Bool, F32, F32], &[F16, Bool, F16, F16], &[U8, Bool, U8, U8]];

/// Memory-bound: unmeasured on hardware.
const TUNES: &[Constants] = &[Constants { name: "group64", values: &[("WORKGROUP", 64)] }];

/// Moves bits.
pub static WHERE_COND: Kernel = Kernel {
    name: "where_cond",
    source: include_str!("../../../shaders/where_cond.wgsl"),
    libs: &[
        include_str!("../../../shaders/lib/element.wgsl"),
        include_str!("../../../shaders/lib/float.wgsl"),
        include_str!("../../../shaders/lib/index.wgsl"),
    ],
    bindings: &[
        Binding::typed("out", Access::Write, "OUT_DTYPE"),
        Binding::new("cond", Access::Read),
        Binding::new("on_true", Access::Read),
        Binding::new("on_false", Access::Read),
    ],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: WIDTHS,
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of `where_cond.wgsl`.
    pub struct Params {
        /// Sizes of the merged axes.
        dims: [[u32; 4]; 2],
        /// Strides of `cond`.
        cond_strides: [[u32; 4]; 2],
        /// Strides of `on_true`.
        true_strides: [[u32; 4]; 2],
        /// Strides of `on_false`.
        false_strides: [[u32; 4]; 2],
        /// Strides of `out`.
        out_strides: [[u32; 4]; 2],
        /// First element of `cond`.
        cond_offset: u32,
        /// First element of `on_true`.
        true_offset: u32,
        /// First element of `on_false`.
        false_offset: u32,
        /// First element of `out`.
        out_offset: u32,
        /// Elements.
        len: u32,
        /// Of work: eights, or words of `out`.
        units: u32,
        /// Nothing.
        pad0: u32,
        /// Nothing.
        pad1: u32,
    }
}

/// The dispatches of a call.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) where the device's limits forbid it.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    cut(caps, problem, &|problem| uncut(caps, pin, problem))
}

fn uncut(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let Problem { dtype, out, cond, on_true, on_false } = problem;
    if dtype.block_bytes() != 4 && !out.is_contiguous() {
        // Several elements of a strided `out` share a word.
        return through_scratch(OP, caps, (out, *dtype), *dtype, |out| plan(caps, pin, &Problem { out, ..problem.clone() }));
    }
    let all = [("out", out), ("cond", cond), ("on_true", on_true), ("on_false", on_false)];
    for ((name, layout), dtype) in all.into_iter().zip([*dtype, Bool, *dtype, *dtype]) {
        check_binding(OP, caps, name, layout, dtype)?;
    }
    let dtypes = WIDTHS.iter().copied().find(|types| types[0].block_bytes() == dtype.block_bytes()).unwrap_or(WIDTHS[0]);
    let merged = Layout::merge(&all.map(|(_, layout)| *layout));
    let last = merged[0].rank().saturating_sub(1);
    let proven = runs(&merged[0], last, 8, false) && merged[1..].iter().all(|layout| runs(layout, last, 8, true));
    let width = Width::of(proven && WHERE_COND.offers(dtypes, Width::Vector));
    let spec = Spec { dtypes, variant: &Constants::NONE, tune: Pin::tune_of(OP, pin, &WHERE_COND)?.unwrap_or(&TUNES[0]), width };
    let units = units(out, *dtype, width);
    let params = Params {
        dims: axes(OP, merged[0].dims(), 1)?,
        cond_strides: axes(OP, merged[1].strides(), 0)?,
        true_strides: axes(OP, merged[2].strides(), 0)?,
        false_strides: axes(OP, merged[3].strides(), 0)?,
        out_strides: axes(OP, merged[0].strides(), 0)?,
        cond_offset: word(OP, "cond", cond.offset())?,
        true_offset: word(OP, "on_true", on_true.offset())?,
        false_offset: word(OP, "on_false", on_false.offset())?,
        out_offset: word(OP, "out", out.offset())?,
        len: word(OP, "out", out.len())?,
        units: word(OP, "out", units)?,
        pad0: 0,
        pad1: 0,
    };
    Ok(Plan::from(Dispatch {
        kernel: &WHERE_COND,
        spec,
        args: (0..4).map(Arg::Tensor).collect(),
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(OP, caps, (units as u64).div_ceil(spec.get("WORKGROUP").into()))?,
        bytes: (out.len() * (1 + 3 * dtype.block_bytes())) as u64,
        flops: 0,
    }))
}
