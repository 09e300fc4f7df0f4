//! The compare family on a GPU: [`COMPARE`].

use super::Problem;
use crate::error::{Error, Result};
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, axes, check_binding, fold, runs,
    word,
};
use crate::ops::{cut, through_scratch, units};
use crate::{DType, Layout};
use DType::{BF16, Bool, F16, F32, I32, U8, U32};

/// Memory-bound: unmeasured on hardware.
const TUNES: &[Constants] = &[Constants { name: "group64", values: &[("WORKGROUP", 64)] }];

/// Into dense bools. Of f32 and a float of 16 bits, f32 comes first: the host swaps.
pub static COMPARE: Kernel = Kernel {
    name: "compare",
    source: include_str!("../../../shaders/compare.wgsl"),
    libs: &[
        include_str!("../../../shaders/lib/compare.wgsl"),
        include_str!("../../../shaders/lib/element.wgsl"),
        include_str!("../../../shaders/lib/float.wgsl"),
        include_str!("../../../shaders/lib/index.wgsl"),
        include_str!("../../../shaders/lib/order.wgsl"),
    ],
    bindings: &[
        Binding::new("out", Access::Write),
        Binding::typed("lhs", Access::Read, "LHS_DTYPE"),
        Binding::typed("rhs", Access::Read, "RHS_DTYPE"),
    ],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: &[
        &[Bool, F32, F32],
        &[Bool, F16, F16],
        &[Bool, BF16, BF16],
        &[Bool, F32, F16],
        &[Bool, F32, BF16],
        &[Bool, I32, I32],
        &[Bool, U32, U32],
        &[Bool, U8, U8],
        &[Bool, Bool, Bool],
    ],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of `compare.wgsl`.
    pub struct Params {
        /// Sizes of the merged axes.
        dims: [[u32; 4]; 2],
        /// Strides of `lhs`.
        lhs_strides: [[u32; 4]; 2],
        /// Strides of `rhs`.
        rhs_strides: [[u32; 4]; 2],
        /// First element of `lhs`.
        lhs_offset: u32,
        /// First element of `rhs`.
        rhs_offset: u32,
        /// First element of `out`.
        out_offset: u32,
        /// Elements.
        len: u32,
        /// Of work: eights, or words of `out`.
        units: u32,
        /// [`Function`](super::Function), as it is numbered.
        op: u32,
        /// Nothing.
        pad0: u32,
        /// Nothing.
        pad1: u32,
    }
}

/// The dispatches of a call.
///
/// # Errors
/// [`Error::TooLarge`] where the device's limits forbid it, [`Error::DType`] for types that [`COMPARE`] does not list.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    cut(caps, problem, &|problem| uncut(caps, pin, problem))
}

fn uncut(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let op = problem.function.name();
    if !problem.out.is_contiguous() {
        // Several bools of a strided `out` share a word.
        return through_scratch(op, caps, (&problem.out, Bool), Bool, |out| plan(caps, pin, &Problem { out, ..problem.clone() }));
    }
    let swapped = problem.dtypes[0] != F32 && problem.dtypes[1] == F32;
    let Problem { function, dtypes: [lhs_dtype, rhs_dtype], lhs, rhs, .. } = if swapped { &problem.swapped() } else { problem };
    let types = [Bool, *lhs_dtype, *rhs_dtype];
    let supported = "a pair of types that `COMPARE` lists";
    let dtypes = COMPARE.types(&types).ok_or_else(|| Error::DType { op, operands: Vec::new(), supported })?;
    let all = [("out", &problem.out), ("lhs", lhs), ("rhs", rhs)];
    for ((name, layout), dtype) in all.into_iter().zip(types) {
        check_binding(op, caps, name, layout, dtype)?;
    }
    let merged = Layout::merge(&[*lhs, *rhs]);
    let last = merged[0].rank().saturating_sub(1);
    // The length of the last axis is whole eights then, and so is all of `out`.
    let proven = problem.out.offset().is_multiple_of(8) && merged.iter().all(|layout| runs(layout, last, 8, true));
    let width = Width::of(proven && COMPARE.offers(dtypes, Width::Vector));
    let spec = Spec { dtypes, variant: &Constants::NONE, tune: Pin::tune_of(op, pin, &COMPARE)?.unwrap_or(&TUNES[0]), width };
    let len = problem.out.len();
    let units = units(&problem.out, Bool, width);
    let params = Params {
        dims: axes(op, merged[0].dims(), 1)?,
        lhs_strides: axes(op, merged[0].strides(), 0)?,
        rhs_strides: axes(op, merged[1].strides(), 0)?,
        lhs_offset: word(op, "lhs", lhs.offset())?,
        rhs_offset: word(op, "rhs", rhs.offset())?,
        out_offset: word(op, "out", problem.out.offset())?,
        len: word(op, "out", len)?,
        units: word(op, "out", units)?,
        op: *function as u32,
        pad0: 0,
        pad1: 0,
    };
    Ok(Plan::from(Dispatch {
        kernel: &COMPARE,
        spec,
        args: if swapped { vec![Arg::Tensor(0), Arg::Tensor(2), Arg::Tensor(1)] } else { (0..3).map(Arg::Tensor).collect() },
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, (units as u64).div_ceil(spec.get("WORKGROUP").into()))?,
        bytes: types.iter().map(|dtype| (dtype.block_bytes() * len) as u64).sum(),
        flops: 0,
    }))
}
