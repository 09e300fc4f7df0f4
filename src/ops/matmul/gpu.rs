//! Matmul on a GPU: [`MATMUL`], a register-tiled kernel for any strides.

use super::Problem;
use crate::error::{Error, Result};
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Params as _, Pin, Plan, Spec, Width, check_binding, fold, loop_end, runs, word,
};
use crate::ops::{cut, through_scratch};
use crate::{DType, Layout};
use DType::{BF16, F16, F32};

/// Workgroup memory tiles, 8 columns a lane in two vec4s. Results that it does not write go through an f32 scratch.
pub static MATMUL: Kernel = Kernel {
    name: "matmul",
    source: include_str!("../../../shaders/matmul.wgsl"),
    libs: &[include_str!("../../../shaders/lib/element.wgsl"), include_str!("../../../shaders/lib/float.wgsl")],
    bindings: &[
        Binding::typed("out", Access::Write, "OUT_DTYPE"),
        Binding::typed("lhs", Access::Read, "LHS_DTYPE"),
        Binding::typed("rhs", Access::Read, "RHS_DTYPE"),
    ],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: &[
        Constants { name: "tile64", values: &[("TILE_M", 64), ("TILE_N", 64), ("TILE_K", 16), ("ROWS", 4)] },
        Constants { name: "tile16", values: &[("TILE_M", 16), ("TILE_N", 16), ("TILE_K", 16), ("ROWS", 1)] },
    ],
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
    ],
    widths: &[Width::Scalar, Width::Vector],
};

crate::params! {
    /// `Params` of `matmul.wgsl`.
    pub struct Params {
        /// Sizes of the merged batch axes.
        batch_dims: [u32; 4],
        /// Batch strides of `lhs`.
        lhs_batch: [u32; 4],
        /// Batch strides of `rhs`.
        rhs_batch: [u32; 4],
        /// Batch strides of `out`.
        out_batch: [u32; 4],
        /// First element.
        lhs_offset: u32,
        /// Stride.
        lhs_row: u32,
        /// Stride.
        lhs_col: u32,
        /// First element.
        rhs_offset: u32,
        /// Stride.
        rhs_row: u32,
        /// Stride.
        rhs_col: u32,
        /// First element.
        out_offset: u32,
        /// Stride.
        out_row: u32,
        /// Stride.
        out_col: u32,
        /// Rows of `out`.
        m: u32,
        /// Columns of `out`.
        n: u32,
        /// The axis that is summed over.
        k: u32,
        /// Tiles along m.
        tiles_m: u32,
        /// Tiles along n.
        tiles_n: u32,
        /// Workgroups that have work.
        groups: u32,
        /// Bit 0: eights of `lhs` lie along k, else along m. Bit 1: those of `rhs` along n, else along k.
        along: u32,
    }
}

/// Which tune for a device and a problem.
fn select(_caps: &Caps, problem: &Problem) -> &'static Constants {
    let [tile64, tile16] = [0, 1].map(|i| &MATMUL.tunes[i]);
    match problem.m().min(problem.n()) {
        // One for every m.
        _ if problem.batch_invariant => tile64,
        // A tile that is mostly outside the matrices computes zeros: by arithmetic, on any device. The threshold is unmeasured.
        0..=32 => tile16,
        // The most reuse: `cargo bench --bench matmul -- /vulkan`. Unmeasured on hardware.
        _ => tile64,
    }
}

/// The axes along which the operands hold whole eights, as `Params::along` has them. `None` unless all three do.
fn along(problem: &Problem) -> Option<u32> {
    let last = problem.out.rank() - 1;
    let whole = |layout: &Layout, axis| runs(layout, axis, 8, false);
    let lhs = match problem.batch_invariant {
        // Not by m, nor by whether there is more than one row: a row alone is loaded as it is in any batch.
        true => (whole(&problem.lhs, last) && problem.lhs.strides()[last - 1].is_multiple_of(8)).then_some(1),
        false if whole(&problem.lhs, last) => Some(1),
        false => whole(&problem.lhs, last - 1).then_some(0),
    };
    let rhs = if whole(&problem.rhs, last) { Some(2) } else { whole(&problem.rhs, last - 1).then_some(0) };
    whole(&problem.out, last).then_some(lhs? | rhs?)
}

/// The dispatches of a matmul.
///
/// # Errors
/// [`Error::TooLarge`] where the device's limits forbid it.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    cut(caps, problem, &|problem| uncut(caps, pin, problem))
}

fn uncut(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let op = super::OP;
    let along = along(problem);
    let out_dtype = problem.dtypes[0];
    let writes = out_dtype == F32 || along.is_some() || runs(&problem.out, problem.out.rank() - 1, 2, false);
    let Some(dtypes) = MATMUL.types(&problem.dtypes).filter(|_| writes) else {
        return through_scratch(op, caps, (&problem.out, out_dtype), F32, |out| {
            let [_, lhs, rhs] = problem.dtypes;
            plan(caps, pin, &Problem { dtypes: [F32, lhs, rhs], out, ..problem.clone() })
        });
    };
    for ((name, layout), &dtype) in [("out", &problem.out), ("lhs", &problem.lhs), ("rhs", &problem.rhs)].into_iter().zip(dtypes) {
        check_binding(op, caps, name, layout, dtype)?;
    }
    let spec = Spec {
        dtypes,
        variant: &Constants::NONE,
        tune: Pin::tune_of(op, pin, &MATMUL)?.unwrap_or_else(|| select(caps, problem)),
        width: Width::of(along.is_some()),
    };
    let (m, n, k) = (problem.m(), problem.n(), problem.k());
    let tiles_m = m.div_ceil(spec.get("TILE_M") as usize);
    let tiles_n = n.div_ceil(spec.get("TILE_N") as usize);
    let groups = [tiles_m, tiles_n, problem.batch()].into_iter().try_fold(1usize, usize::checked_mul).unwrap_or(usize::MAX);
    let batches = problem.batches();
    let stride = |layout: &Layout, from_end: usize| word(op, "a stride", layout.strides()[layout.rank() - from_end]);
    // At most 4 batch axes, so they fill the second vec4 alone.
    let four = |values: &[usize], fill| Ok::<_, Error>(crate::gpu::axes(op, values, fill)?[1]);
    let params = Params {
        batch_dims: four(batches[0].dims(), 1)?,
        lhs_batch: four(batches[1].strides(), 0)?,
        rhs_batch: four(batches[2].strides(), 0)?,
        out_batch: four(batches[0].strides(), 0)?,
        lhs_offset: word(op, "lhs", problem.lhs.offset())?,
        lhs_row: stride(&problem.lhs, 2)?,
        lhs_col: stride(&problem.lhs, 1)?,
        rhs_offset: word(op, "rhs", problem.rhs.offset())?,
        rhs_row: stride(&problem.rhs, 2)?,
        rhs_col: stride(&problem.rhs, 1)?,
        out_offset: word(op, "out", problem.out.offset())?,
        out_row: stride(&problem.out, 2)?,
        out_col: stride(&problem.out, 1)?,
        m: word(op, "m", m)?,
        n: word(op, "n", n)?,
        k: loop_end(op, "k", k)?,
        tiles_m: word(op, "m", tiles_m)?,
        tiles_n: word(op, "n", tiles_n)?,
        groups: word(op, "the grid", groups)?,
        along: along.unwrap_or(0),
    };
    let size = |sides: [usize; 3]| sides.into_iter().fold(1u64, |product, side| product.saturating_mul(side as u64));
    let elements = size([problem.batch(), m, n]);
    let sizes = [elements, size([problem.batch(), k, m]), size([problem.batch(), k, n])];
    let bytes = sizes.iter().zip(dtypes).map(|(count, dtype)| count.saturating_mul(dtype.block_bytes() as u64));
    Ok(Plan::from(Dispatch {
        kernel: &MATMUL,
        spec,
        args: (0..3).map(Arg::Tensor).collect(),
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, groups as u64)?,
        bytes: bytes.fold(0, u64::saturating_add),
        flops: elements.saturating_mul(2).saturating_mul(k as u64),
    }))
}
