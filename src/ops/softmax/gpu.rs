//! Softmax on a GPU: [`SOFTMAX`], a workgroup a row.

use super::Problem;
use crate::error::Result;
use crate::gpu::{
    Access, AdapterKind, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, axes, check_binding,
    fold, loop_end, runs, word,
};
use crate::ops::{cut, through_scratch};
use crate::{DType, Layout};
use DType::{BF16, F16, F32};

/// Both ops: the logarithm is a parameter.
pub static SOFTMAX: Kernel = Kernel {
    name: "softmax",
    source: include_str!("../../../shaders/softmax.wgsl"),
    libs: &[
        include_str!("../../../shaders/lib/element.wgsl"),
        include_str!("../../../shaders/lib/float.wgsl"),
        include_str!("../../../shaders/lib/index.wgsl"),
        include_str!("../../../shaders/lib/softmax.wgsl"),
    ],
    bindings: &[
        Binding::typed("out", Access::Write, "OUT_DTYPE"),
        Binding::typed("x", Access::Read, "X_DTYPE"),
        Binding::typed("mask", Access::Read, "MASK_DTYPE"),
    ],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: &[Constants { name: "group256", values: &[("WORKGROUP", 256)] }, Constants { name: "group32", values: &[("WORKGROUP", 32)] }],
    dtypes: &[
        &[F32, F32, F32],
        &[F16, F16, F16],
        &[BF16, BF16, BF16],
        &[F16, F16, F32],
        &[BF16, BF16, F32],
        &[F32, F16, F16],
        &[F32, BF16, BF16],
        &[F32, F16, F32],
        &[F32, BF16, F32],
    ],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
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
        // 4.6x at rows of 512 on lavapipe of Mesa 26: `cargo bench --bench softmax -- /vulkan`.
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
    cut(caps, problem, &|problem| uncut(caps, pin, problem))
}

fn uncut(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let op = problem.op();
    // Without a mask its binding holds `x`, unread.
    let mask = problem.mask.unwrap_or(problem.x);
    let [out_dtype, x_dtype, mask_dtype] = problem.dtypes;
    let wanted = [out_dtype, x_dtype, if problem.mask.is_some() { mask_dtype } else { x_dtype }];
    let all = [("out", &problem.out), ("x", &problem.x), ("mask", &mask)];
    // An axis of a mask that repeats is read once an eight.
    let proven = all.iter().all(|&(name, layout)| runs(layout, problem.axis, 8, name == "mask"));
    let writes = out_dtype == F32 || proven || runs(&problem.out, problem.axis, 2, false);
    let Some(dtypes) = SOFTMAX.types(&wanted).filter(|_| writes) else {
        return through_scratch(op, caps, (&problem.out, out_dtype), F32, |out| {
            plan(caps, pin, &Problem { dtypes: [F32, x_dtype, mask_dtype], out, ..problem.clone() })
        });
    };
    for ((name, layout), &dtype) in all.into_iter().zip(dtypes) {
        check_binding(op, caps, name, layout, dtype)?;
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
            dtypes,
            variant: &Constants::NONE,
            tune: Pin::tune_of(op, pin, &SOFTMAX)?.unwrap_or_else(|| select(caps, problem)),
            width: Width::of(proven),
        },
        args: vec![Arg::Tensor(0), Arg::Tensor(1), Arg::Tensor(if problem.mask.is_some() { 2 } else { 1 })],
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, count as u64)?,
        bytes: elements * (out_dtype.block_bytes() + x_dtype.block_bytes()) as u64,
        flops: 5 * elements,
    }))
}
