//! Softmax on a GPU: [`SOFTMAX`], a workgroup a row.

use super::Problem;
use crate::error::Result;
use crate::gpu::{
    Access, AdapterKind, Arg, Binding, Caps, Constants, Dispatch, Kernel, Params as _, Pin, Plan, Spec, Width, axes, check_binding, fold,
    loop_end, word,
};
use crate::{DType, Layout};

/// Both ops: the logarithm is a parameter.
pub static SOFTMAX: Kernel = Kernel {
    name: "softmax",
    source: include_str!("../../../shaders/softmax.wgsl"),
    libs: &[include_str!("../../../shaders/lib/index.wgsl"), include_str!("../../../shaders/lib/softmax.wgsl")],
    bindings: &[Binding::new("out", Access::Write), Binding::new("x", Access::Read), Binding::new("mask", Access::Read)],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: &[Constants { name: "group256", values: &[("WORKGROUP", 256)] }, Constants { name: "group32", values: &[("WORKGROUP", 32)] }],
    dtypes: &[&[DType::F32, DType::F32, DType::F32]],
    widths: &[Width::Fixed],
};

crate::params! {
    /// `Params` of `softmax.wgsl`.
    pub struct Params {
        /// Sizes of the axes that count rows, merged.
        dims: [[u32; 4]; 2],
        /// Strides of `x` over the rows.
        x_strides: [[u32; 4]; 2],
        /// Strides of the mask over the rows.
        mask_strides: [[u32; 4]; 2],
        /// Strides of `out` over the rows.
        out_strides: [[u32; 4]; 2],
        /// First element.
        x_offset: u32,
        /// Stride along the row.
        x_step: u32,
        /// First element.
        mask_offset: u32,
        /// Stride along the row.
        mask_step: u32,
        /// First element.
        out_offset: u32,
        /// Stride along the row.
        out_step: u32,
        /// Elements a row.
        len: u32,
        /// Rows.
        rows: u32,
        /// Factor of `x`.
        scale: f32,
        /// Whether there is a mask.
        has_mask: u32,
        /// Whether the logarithm is asked for.
        log: u32,
        /// Nothing.
        pad: u32,
    }
}

fn select(caps: &Caps, problem: &Problem) -> &'static Constants {
    let [wide, narrow] = [0, 1].map(|i| &SOFTMAX.tunes[i]);
    match caps.kind {
        // 2.2x at rows of 512 and 1.2x at 4,096 on lavapipe of Mesa 26: `cargo bench --bench softmax -- /vulkan`.
        AdapterKind::Software => narrow,
        // Lanes past the row's end idle: by arithmetic, on any device. The threshold is unmeasured.
        _ if problem.x.dims()[problem.axis] <= 128 => narrow,
        _ => wide,
    }
}

/// The dispatches of a softmax.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) where the device's limits forbid it.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let op = problem.op();
    // Without a mask its binding holds `x`, unread.
    let mask = problem.mask.unwrap_or(problem.x);
    let all = [("out", &problem.out), ("x", &problem.x), ("mask", &mask)];
    for (name, layout) in all {
        check_binding(op, caps, name, layout, DType::F32)?;
    }
    let rows = Layout::merge(&all.map(|(_, layout)| layout.narrow(problem.axis, 0, 1).unwrap_or(*layout)));
    let step = |layout: &Layout| word(op, "a stride", layout.strides()[problem.axis]);
    let len = problem.x.dims()[problem.axis];
    let count = rows[0].len();
    let params = Params {
        dims: axes(op, rows[0].dims(), 1)?,
        x_strides: axes(op, rows[1].strides(), 0)?,
        mask_strides: axes(op, rows[2].strides(), 0)?,
        out_strides: axes(op, rows[0].strides(), 0)?,
        x_offset: word(op, "x", problem.x.offset())?,
        x_step: step(&problem.x)?,
        mask_offset: word(op, "mask", mask.offset())?,
        mask_step: step(&mask)?,
        out_offset: word(op, "out", problem.out.offset())?,
        out_step: step(&problem.out)?,
        len: loop_end(op, "the axis", len)?,
        rows: word(op, "x", count)?,
        scale: problem.scale,
        has_mask: problem.mask.is_some().into(),
        log: problem.log.into(),
        pad: 0,
    };
    let elements = problem.x.len() as u64;
    Ok(Plan::from(Dispatch {
        kernel: &SOFTMAX,
        spec: Spec {
            dtypes: SOFTMAX.dtypes[0],
            variant: &Constants::NONE,
            tune: Pin::tune_of(op, pin, &SOFTMAX)?.unwrap_or_else(|| select(caps, problem)),
            width: Width::Fixed,
        },
        args: vec![Arg::Tensor(0), Arg::Tensor(1), Arg::Tensor(if problem.mask.is_some() { 2 } else { 1 })],
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, count as u64)?,
        bytes: 8 * elements,
        flops: 5 * elements,
    }))
}
