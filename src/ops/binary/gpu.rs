//! The binary family on a GPU: [`BINARY`] and [`BINARY_IN_PLACE`].

use super::Problem;
use crate::error::Result;
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, axes, check_binding, fold, runs,
    word,
};
use crate::ops::{cut, through_scratch, units};
use crate::{DType, Layout};
use DType::{BF16, F16, F32, I32, U8, U32};

const LIBS: &[&str] = &[
    include_str!("../../../shaders/lib/binary.wgsl"),
    include_str!("../../../shaders/lib/element.wgsl"),
    include_str!("../../../shaders/lib/float.wgsl"),
    include_str!("../../../shaders/lib/index.wgsl"),
    include_str!("../../../shaders/lib/order.wgsl"),
];

/// Memory-bound: unmeasured on hardware.
const TUNES: &[Constants] = &[Constants { name: "group64", values: &[("WORKGROUP", 64)] }];

/// Out of place. What it does not list (16-bit results of mixed operands) goes through an f32 scratch.
pub static BINARY: Kernel = Kernel {
    name: "binary",
    source: include_str!("../../../shaders/binary.wgsl"),
    libs: LIBS,
    bindings: &[
        Binding::typed("out", Access::Write, "OUT_DTYPE"),
        Binding::typed("lhs", Access::Read, "LHS_DTYPE"),
        Binding::typed("rhs", Access::Read, "RHS_DTYPE"),
    ],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: &[
        &[F32, F32, F32],
        &[F16, F16, F16],
        &[BF16, BF16, BF16],
        &[F32, F16, F16],
        &[F32, BF16, BF16],
        &[F32, F32, F16],
        &[F32, F32, BF16],
        &[F32, F16, F32],
        &[F32, BF16, F32],
        &[I32, I32, I32],
        &[U32, U32, U32],
        &[U8, U8, U8],
    ],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

/// In place, with one binding less.
pub static BINARY_IN_PLACE: Kernel = Kernel {
    name: "binary_in_place",
    source: include_str!("../../../shaders/binary_in_place.wgsl"),
    libs: LIBS,
    bindings: &[Binding::typed("out", Access::Write, "OUT_DTYPE"), Binding::typed("rhs", Access::Read, "RHS_DTYPE")],
    params: InPlaceParams::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: &[&[F32, F32], &[F16, F16], &[BF16, BF16], &[F32, F16], &[F32, BF16], &[I32, I32], &[U32, U32], &[U8, U8]],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of `binary.wgsl`.
    pub struct Params {
        /// Sizes of the merged axes.
        dims: [[u32; 4]; 2],
        /// Strides of `lhs`.
        lhs_strides: [[u32; 4]; 2],
        /// Strides of `rhs`.
        rhs_strides: [[u32; 4]; 2],
        /// Strides of `out`.
        out_strides: [[u32; 4]; 2],
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

crate::params! {
    /// `Params` of `binary_in_place.wgsl`.
    pub struct InPlaceParams {
        /// Sizes of the merged axes.
        dims: [[u32; 4]; 2],
        /// Strides of `rhs`.
        rhs_strides: [[u32; 4]; 2],
        /// Strides of `out`.
        out_strides: [[u32; 4]; 2],
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
        /// Nothing.
        pad2: u32,
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
    let op = problem.function.name();
    let [out_dtype, lhs_dtype, rhs_dtype] = problem.dtypes;
    let kernel = if problem.in_place { &BINARY_IN_PLACE } else { &BINARY };
    let listed = if problem.in_place { kernel.types(&[out_dtype, rhs_dtype]) } else { kernel.types(&problem.dtypes) };
    let Some(dtypes) = listed.filter(|_| out_dtype.block_bytes() == 4 || problem.out.is_contiguous()) else {
        // Several elements of a strided `out` share a word, or there is no kernel for the types: neither in scratch.
        // Else a result would be rounded twice.
        let between = if lhs_dtype == rhs_dtype && lhs_dtype == out_dtype { lhs_dtype } else { F32 };
        return through_scratch(op, caps, (&problem.out, out_dtype), between, |out| {
            let mut plan = plan(caps, pin, &Problem { in_place: false, dtypes: [between, lhs_dtype, rhs_dtype], out, ..problem.clone() })?;
            if problem.in_place {
                // The call's arguments are `out` and `rhs` alone.
                plan.dispatches.iter_mut().for_each(|d| d.args = vec![Arg::Tensor(0), Arg::Tensor(0), Arg::Tensor(1)]);
            }
            Ok(plan)
        });
    };
    let all = [("out", &problem.out), ("lhs", &problem.lhs), ("rhs", &problem.rhs)];
    for ((name, layout), dtype) in all.into_iter().zip(problem.dtypes) {
        check_binding(op, caps, name, layout, dtype)?;
    }
    let merged = Layout::merge(&all.map(|(_, layout)| *layout));
    let last = merged[0].rank().saturating_sub(1);
    let proven = runs(&merged[0], last, 8, false) && merged[1..].iter().all(|layout| runs(layout, last, 8, true));
    let width = Width::of(proven && kernel.offers(dtypes, Width::Vector));
    let spec = Spec { dtypes, variant: &Constants::NONE, tune: Pin::tune_of(op, pin, kernel)?.unwrap_or(&TUNES[0]), width };
    let len = problem.out.len();
    let units = units(&problem.out, out_dtype, width);
    let [dims, out_strides] = [axes(op, merged[0].dims(), 1)?, axes(op, merged[0].strides(), 0)?];
    let rhs_strides = axes(op, merged[2].strides(), 0)?;
    let rhs_offset = word(op, "rhs", problem.rhs.offset())?;
    let out_offset = word(op, "out", problem.out.offset())?;
    let params = if problem.in_place {
        let params = InPlaceParams {
            dims,
            rhs_strides,
            out_strides,
            rhs_offset,
            out_offset,
            len: word(op, "out", len)?,
            units: word(op, "out", units)?,
            op: problem.function as u32,
            pad0: 0,
            pad1: 0,
            pad2: 0,
        };
        bytemuck::bytes_of(&params).to_vec()
    } else {
        let params = Params {
            dims,
            lhs_strides: axes(op, merged[1].strides(), 0)?,
            rhs_strides,
            out_strides,
            lhs_offset: word(op, "lhs", problem.lhs.offset())?,
            rhs_offset,
            out_offset,
            len: word(op, "out", len)?,
            units: word(op, "out", units)?,
            op: problem.function as u32,
            pad0: 0,
            pad1: 0,
        };
        bytemuck::bytes_of(&params).to_vec()
    };
    Ok(Plan::from(Dispatch {
        kernel,
        spec,
        args: (0..kernel.bindings.len()).map(Arg::Tensor).collect(),
        params,
        grid: fold(op, caps, (units as u64).div_ceil(spec.get("WORKGROUP").into()))?,
        bytes: problem.dtypes.iter().map(|dtype| (dtype.block_bytes() * len) as u64).sum(),
        flops: len as u64,
    }))
}
