//! Gather on a GPU: [`GATHER`], by the largest units that rows are made of.

use super::Problem;
use crate::error::Result;
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, axes, check_binding, fold, word,
};
use crate::ops::copy::gpu::words_of;
use crate::ops::{cut, through_scratch};
use crate::{DType, Layout};
use DType::{F16, F32, I32, U8, U32};

/// One dtype for each width of the elements: only the width matters.
pub static GATHER: Kernel = Kernel {
    name: "gather",
    source: include_str!("../../../shaders/gather.wgsl"),
    libs: &[include_str!("../../../shaders/lib/float.wgsl"), include_str!("../../../shaders/lib/index.wgsl")],
    bindings: &[
        Binding::new("out", Access::Write),
        Binding::typed("x", Access::Read, "X_DTYPE"),
        Binding::typed("indices", Access::Read, "INDICES_DTYPE"),
    ],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    // Memory-bound: unmeasured on hardware.
    tunes: &[Constants { name: "group64", values: &[("WORKGROUP", 64)] }],
    dtypes: &[&[F32, F32, U32], &[F32, F32, I32], &[F16, F16, U32], &[F16, F16, I32], &[U8, U8, U32], &[U8, U8, I32]],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of `gather.wgsl`. Sizes, strides and offsets of `x` and `out` count units.
    pub struct Params {
        /// Sizes of `x`'s axes before the one that is indexed, merged.
        outer_dims: [[u32; 4]; 2],
        /// Their strides.
        outer_strides: [[u32; 4]; 2],
        /// Sizes of those behind it.
        inner_dims: [[u32; 4]; 2],
        /// Their strides.
        inner_strides: [[u32; 4]; 2],
        /// Sizes of the indices' axes.
        indices_dims: [[u32; 4]; 2],
        /// Their strides.
        indices_strides: [[u32; 4]; 2],
        /// First unit of `x`.
        x_offset: u32,
        /// Units from row to row.
        x_stride: u32,
        /// Rows of `x`.
        rows: u32,
        /// First index.
        indices_offset: u32,
        /// First unit of `out`.
        out_offset: u32,
        /// Indices.
        count: u32,
        /// Units of a row.
        inner: u32,
        /// Units of `out`.
        len: u32,
        /// Words of `out`.
        units: u32,
        /// Nothing.
        pad0: u32,
        /// Nothing.
        pad1: u32,
        /// Nothing.
        pad2: u32,
    }
}

/// Elements in a unit of so many bytes, if rows and all steps between them are made of whole ones.
fn whole(problem: &Problem, inner: &Layout, outer: &Layout, bytes: usize) -> Option<usize> {
    let unit = bytes / problem.dtype.block_bytes();
    let fits = |n: usize| n.is_multiple_of(unit);
    let dense = inner.strides().last() == Some(&1) && inner.dims().last().is_some_and(|&len| fits(len));
    let rest = &inner.strides()[..inner.rank().saturating_sub(1)];
    let steps = rest.iter().chain(outer.strides()).chain([&problem.x.strides()[problem.axis]]);
    let starts = fits(problem.x.offset()) && fits(problem.out.offset());
    (unit > 0 && dense && starts && steps.copied().all(fits)).then_some(unit)
}

/// The dispatches of a gather.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) where the device's limits forbid it.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    cut(caps, problem, &|problem| uncut(caps, pin, problem))
}

fn uncut(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let op = super::OP;
    if !problem.out.is_contiguous() {
        return through_scratch(op, caps, (&problem.out, problem.dtype), problem.dtype, |out| {
            plan(caps, pin, &Problem { out, ..problem.clone() })
        });
    }
    let operands = [("out", &problem.out, problem.dtype), ("x", &problem.x, problem.dtype), ("indices", &problem.indices, U32)];
    for (name, layout, dtype) in operands {
        check_binding(op, caps, name, layout, dtype)?;
    }
    let (outer, inner) = problem.around();
    let [outer, inner] = [outer, inner].map(|layout| Layout::merge(&[layout])[0]);
    let indices = Layout::merge(&[problem.indices])[0];
    // By 16 bytes, by 4, or by elements.
    let by16 = whole(problem, &inner, &outer, 16);
    let unit = by16.or_else(|| whole(problem, &inner, &outer, 4)).unwrap_or(1);
    let bytes = unit * problem.dtype.block_bytes();
    let kind = match bytes {
        1 => U8,
        2 => F16,
        _ => F32,
    };
    let spec = Spec {
        dtypes: GATHER.types(&[kind, kind, problem.indices_dtype]).unwrap_or(GATHER.dtypes[0]),
        variant: &Constants::NONE,
        tune: Pin::tune_of(op, pin, &GATHER)?.unwrap_or(&GATHER.tunes[0]),
        width: Width::of(by16.is_some()),
    };
    let in_units = |n: usize| n / unit;
    let mut inner_dims = inner.dims().to_vec();
    inner_dims.iter_mut().rev().take(1).for_each(|len| *len /= unit);
    let mut inner_strides: Vec<usize> = inner.strides().iter().copied().map(in_units).collect();
    // The last axis steps by a unit where it stepped by an element.
    inner_strides.iter_mut().rev().take(usize::from(unit > 1)).for_each(|stride| *stride = 1);
    let (len, out_offset) = (in_units(problem.out.len()), in_units(problem.out.offset()));
    let units = if bytes < 4 { words_of(out_offset, len, kind) } else { len };
    let params = Params {
        outer_dims: axes(op, outer.dims(), 1)?,
        outer_strides: axes(op, &outer.strides().iter().copied().map(in_units).collect::<Vec<_>>(), 0)?,
        inner_dims: axes(op, &inner_dims, 1)?,
        inner_strides: axes(op, &inner_strides, 0)?,
        indices_dims: axes(op, indices.dims(), 1)?,
        indices_strides: axes(op, indices.strides(), 0)?,
        x_offset: word(op, "x", in_units(problem.x.offset()))?,
        x_stride: word(op, "a stride", in_units(problem.x.strides()[problem.axis]))?,
        rows: word(op, "x", problem.x.dims()[problem.axis])?,
        indices_offset: word(op, "indices", problem.indices.offset())?,
        out_offset: word(op, "out", out_offset)?,
        count: word(op, "indices", indices.len())?,
        inner: word(op, "x", in_units(inner.len()))?,
        len: word(op, "out", len)?,
        units: word(op, "out", units)?,
        pad0: 0,
        pad1: 0,
        pad2: 0,
    };
    Ok(Plan::from(Dispatch {
        kernel: &GATHER,
        spec,
        args: (0..3).map(Arg::Tensor).collect(),
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, (units as u64).div_ceil(spec.get("WORKGROUP").into()))?,
        bytes: (2 * problem.out.len() * problem.dtype.block_bytes()) as u64,
        flops: 0,
    }))
}
