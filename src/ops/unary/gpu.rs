//! The unary family on a GPU: [`UNARY`] and [`UNARY_IN_PLACE`].

use super::Problem;
use crate::error::Result;
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, axes, check_binding, fold, runs,
    word,
};
use crate::ops::{cut, through_scratch, units};
use crate::{DType, Layout};
use DType::{BF16, F16, F32, I32};

const LIBS: &[&str] = &[
    include_str!("../../../shaders/lib/unary.wgsl"),
    include_str!("../../../shaders/lib/element.wgsl"),
    include_str!("../../../shaders/lib/float.wgsl"),
    include_str!("../../../shaders/lib/index.wgsl"),
    include_str!("../../../shaders/lib/order.wgsl"),
];

/// Memory-bound: unmeasured on hardware.
const TUNES: &[Constants] = &[Constants { name: "group64", values: &[("WORKGROUP", 64)] }];

/// Out of place. What it does not list (16-bit results of another type) goes through an f32 scratch.
pub static UNARY: Kernel = Kernel {
    name: "unary",
    source: include_str!("../../../shaders/unary.wgsl"),
    libs: LIBS,
    bindings: &[Binding::typed("out", Access::Write, "OUT_DTYPE"), Binding::typed("x", Access::Read, "X_DTYPE")],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: &[&[F32, F32], &[F16, F16], &[BF16, BF16], &[F32, F16], &[F32, BF16], &[I32, I32]],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

/// In place, with one binding less.
pub static UNARY_IN_PLACE: Kernel = Kernel {
    name: "unary_in_place",
    source: include_str!("../../../shaders/unary_in_place.wgsl"),
    libs: LIBS,
    bindings: &[Binding::typed("out", Access::Write, "OUT_DTYPE")],
    params: InPlaceParams::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: &[&[F32], &[F16], &[BF16], &[I32]],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of `unary.wgsl`.
    pub struct Params {
        /// Sizes of the merged axes.
        dims: [[u32; 4]; 2],
        /// Strides of `x`.
        x_strides: [[u32; 4]; 2],
        /// Strides of `out`.
        out_strides: [[u32; 4]; 2],
        /// First element of `x`.
        x_offset: u32,
        /// First element of `out`.
        out_offset: u32,
        /// Elements.
        len: u32,
        /// Of work: eights, or words of `out`.
        units: u32,
        /// [`Function`](super::Function), as it is numbered.
        op: u32,
        /// Clamp's.
        low: f32,
        /// Clamp's.
        high: f32,
        /// Nothing.
        pad: u32,
    }
}

crate::params! {
    /// `Params` of `unary_in_place.wgsl`.
    pub struct InPlaceParams {
        /// Sizes of the merged axes.
        dims: [[u32; 4]; 2],
        /// Strides of `out`.
        out_strides: [[u32; 4]; 2],
        /// First element of `out`.
        out_offset: u32,
        /// Elements.
        len: u32,
        /// Of work: eights, or words of `out`.
        units: u32,
        /// [`Function`](super::Function), as it is numbered.
        op: u32,
        /// Clamp's.
        low: f32,
        /// Clamp's.
        high: f32,
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
    let op = problem.function.name();
    let [out_dtype, x_dtype] = problem.dtypes;
    let kernel = if problem.in_place { &UNARY_IN_PLACE } else { &UNARY };
    let listed = if problem.in_place { kernel.types(&[out_dtype]) } else { kernel.types(&problem.dtypes) };
    let Some(dtypes) = listed.filter(|_| out_dtype.block_bytes() == 4 || problem.out.is_contiguous()) else {
        // Several elements of a strided `out` share a word, or there is no kernel for the types: neither in scratch.
        // Else a result would be rounded twice.
        let between = if x_dtype == out_dtype { x_dtype } else { F32 };
        return through_scratch(op, caps, (&problem.out, out_dtype), between, |out| {
            let mut plan = plan(caps, pin, &Problem { in_place: false, dtypes: [between, x_dtype], out, ..problem.clone() })?;
            if problem.in_place {
                // The call's only argument is `out`.
                plan.dispatches.iter_mut().for_each(|d| d.args = vec![Arg::Tensor(0), Arg::Tensor(0)]);
            }
            Ok(plan)
        });
    };
    let all = [("out", &problem.out), ("x", &problem.x)];
    for ((name, layout), dtype) in all.into_iter().zip(problem.dtypes) {
        check_binding(op, caps, name, layout, dtype)?;
    }
    let merged = Layout::merge(&all.map(|(_, layout)| *layout));
    let last = merged[0].rank().saturating_sub(1);
    let proven = runs(&merged[0], last, 8, false) && runs(&merged[1], last, 8, true);
    let width = Width::of(proven && kernel.offers(dtypes, Width::Vector));
    let spec = Spec { dtypes, variant: &Constants::NONE, tune: Pin::tune_of(op, pin, kernel)?.unwrap_or(&TUNES[0]), width };
    let units = units(&problem.out, out_dtype, width);
    let [dims, out_strides] = [axes(op, merged[0].dims(), 1)?, axes(op, merged[0].strides(), 0)?];
    let out_offset = word(op, "out", problem.out.offset())?;
    let [len, words] = [word(op, "out", problem.out.len())?, word(op, "out", units)?];
    let [low, high] = problem.bounds;
    let function = problem.function as u32;
    let params = if problem.in_place {
        let params = InPlaceParams { dims, out_strides, out_offset, len, units: words, op: function, low, high, pad0: 0, pad1: 0 };
        bytemuck::bytes_of(&params).to_vec()
    } else {
        let x_strides = axes(op, merged[1].strides(), 0)?;
        let x_offset = word(op, "x", problem.x.offset())?;
        let params = Params { dims, x_strides, out_strides, x_offset, out_offset, len, units: words, op: function, low, high, pad: 0 };
        bytemuck::bytes_of(&params).to_vec()
    };
    Ok(Plan::from(Dispatch {
        kernel,
        spec,
        args: (0..kernel.bindings.len()).map(Arg::Tensor).collect(),
        params,
        grid: fold(op, caps, (units as u64).div_ceil(spec.get("WORKGROUP").into()))?,
        bytes: problem.dtypes.iter().map(|dtype| (dtype.block_bytes() * problem.out.len()) as u64).sum(),
        flops: problem.out.len() as u64,
    }))
}
