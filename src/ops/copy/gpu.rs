//! Copies on a GPU: [`COPY`] into dense outputs, [`COPY_SCATTER`] into strided ones.

use super::Problem;
use crate::error::Result;
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Plan, Spec, Width, axes, check_binding, fold, word,
};
use crate::ops::cut;
use crate::{DType, Layout};

const BINDINGS: &[Binding] = &[Binding::new("out", Access::Write), Binding::typed("x", Access::Read, "X_DTYPE")];

/// One dtype for each width: only the width matters.
const WIDTHS: &[&[DType]] = &[&[DType::F32, DType::F32], &[DType::F16, DType::F16], &[DType::U8, DType::U8]];

const TUNES: &[Constants] = &[Constants { name: "group256", values: &[("WORKGROUP", 256)] }];

const LIBS: &[&str] = &[include_str!("../../../shaders/lib/index.wgsl"), include_str!("../../../shaders/lib/float.wgsl")];

/// Into a dense output, by words.
pub static COPY: Kernel = Kernel {
    name: "copy",
    source: include_str!("../../../shaders/copy.wgsl"),
    libs: LIBS,
    bindings: BINDINGS,
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: WIDTHS,
    widths: &[Width::Fixed],
    needs: Needs::Nothing,
};

/// Into a strided output, by elements.
pub static COPY_SCATTER: Kernel = Kernel {
    name: "copy_scatter",
    source: include_str!("../../../shaders/copy_scatter.wgsl"),
    libs: LIBS,
    bindings: BINDINGS,
    params: ScatterParams::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: WIDTHS,
    widths: &[Width::Fixed],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of `copy.wgsl`.
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

crate::params! {
    /// `Params` of `copy_scatter.wgsl`.
    pub struct ScatterParams {
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
        /// Nothing.
        pad: u32,
    }
}

/// The words of a dense run of elements, the partial ones at its ends included.
pub(crate) fn words_of(offset: usize, len: usize, dtype: DType) -> usize {
    let lanes = 4 / dtype.block_bytes();
    (offset + len).div_ceil(lanes) - offset / lanes
}

/// The dispatches of a copy.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) where the device's limits forbid it.
pub fn plan(caps: &Caps, problem: &Problem) -> Result<Plan> {
    cut(caps, problem, &|problem| plan_between(super::OP, caps, problem, Arg::Tensor(0), Arg::Tensor(1)))
}

/// The same on behalf of another op, between any buffers of its plan.
pub(crate) fn plan_between(op: &'static str, caps: &Caps, problem: &Problem, out_arg: Arg, x_arg: Arg) -> Result<Plan> {
    let Problem { dtype, out, x } = problem;
    check_binding(op, caps, "out", out, *dtype)?;
    check_binding(op, caps, "x", x, *dtype)?;
    let group = TUNES[0].values[0].1 as usize;
    let width = WIDTHS.iter().find(|w| w[0].block_bytes() == dtype.block_bytes());
    let spec = Spec { dtypes: width.unwrap_or(&WIDTHS[0]), variant: &Constants::NONE, tune: &TUNES[0], width: Width::Fixed };
    let len = out.len();
    let bytes = 2 * (len * dtype.block_bytes()) as u64;
    let (kernel, params, units) = if out.is_contiguous() {
        let merged = Layout::merge(&[*x])[0];
        let words = words_of(out.offset(), len, *dtype);
        let params = Params {
            dims: axes(op, merged.dims(), 1)?,
            x_strides: axes(op, merged.strides(), 0)?,
            x_offset: word(op, "x", x.offset())?,
            out_offset: word(op, "out", out.offset())?,
            len: word(op, "out", len)?,
            words: word(op, "out", words)?,
        };
        (&COPY, bytemuck::bytes_of(&params).to_vec(), words)
    } else {
        let merged = Layout::merge(&[*x, *out]);
        let params = ScatterParams {
            dims: axes(op, merged[0].dims(), 1)?,
            x_strides: axes(op, merged[0].strides(), 0)?,
            out_strides: axes(op, merged[1].strides(), 0)?,
            x_offset: word(op, "x", x.offset())?,
            out_offset: word(op, "out", out.offset())?,
            len: word(op, "out", len)?,
            pad: 0,
        };
        (&COPY_SCATTER, bytemuck::bytes_of(&params).to_vec(), len)
    };
    Ok(Plan::from(Dispatch {
        kernel,
        spec,
        args: vec![out_arg, x_arg],
        params,
        grid: fold(op, caps, units.div_ceil(group) as u64)?,
        bytes,
        flops: 0,
    }))
}
