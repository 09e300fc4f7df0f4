//! The binary family on a GPU: [`BINARY`].

use super::{Function, Problem};
use crate::error::Result;
use crate::gpu::{Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Params as _, Pin, Plan, Spec, axes, check_binding, fold, word};
use crate::{DType, Layout};

/// The whole family: one spec an op.
pub static BINARY: Kernel = Kernel {
    name: "binary",
    source: include_str!("../../../shaders/binary.wgsl"),
    libs: &[include_str!("../../../shaders/lib/index.wgsl")],
    bindings: &[Binding::new("out", Access::Write), Binding::new("lhs", Access::Read), Binding::new("rhs", Access::Read)],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants { name: "add", values: &[("OP", 0)] }, Constants { name: "mul", values: &[("OP", 1)] }],
    tunes: &[Constants { name: "group256", values: &[("WORKGROUP", 256)] }, Constants { name: "group64", values: &[("WORKGROUP", 64)] }],
    dtypes: &[&[DType::F32, DType::F32, DType::F32]],
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
    }
}

/// Large groups everywhere: unmeasured, memory-bound either way.
fn select(_caps: &Caps, _problem: &Problem) -> &'static Constants {
    &BINARY.tunes[0]
}

/// The dispatches of a call.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) where the device's limits forbid it.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let op = problem.function.name();
    let all = [("out", &problem.out), ("lhs", &problem.lhs), ("rhs", &problem.rhs)];
    for (name, layout) in all {
        check_binding(op, caps, name, layout, DType::F32)?;
    }
    let merged = Layout::merge(&all.map(|(_, layout)| *layout));
    let len = problem.out.len();
    let params = Params {
        dims: axes(op, merged[0].dims(), 1)?,
        lhs_strides: axes(op, merged[1].strides(), 0)?,
        rhs_strides: axes(op, merged[2].strides(), 0)?,
        out_strides: axes(op, merged[0].strides(), 0)?,
        lhs_offset: word(op, "lhs", problem.lhs.offset())?,
        rhs_offset: word(op, "rhs", problem.rhs.offset())?,
        out_offset: word(op, "out", problem.out.offset())?,
        len: word(op, "out", len)?,
    };
    let spec = Spec {
        dtypes: BINARY.dtypes[0],
        variant: match problem.function {
            Function::Add => &BINARY.variants[0],
            Function::Mul => &BINARY.variants[1],
        },
        tune: Pin::tune_of(op, pin, &BINARY)?.unwrap_or_else(|| select(caps, problem)),
    };
    Ok(Plan::from(Dispatch {
        kernel: &BINARY,
        spec,
        args: (0..3).map(Arg::Tensor).collect(),
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, (len as u64).div_ceil(spec.get("WORKGROUP").into()))?,
        bytes: 12 * len as u64,
        flops: len as u64,
    }))
}
