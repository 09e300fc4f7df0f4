//! Matmul on a GPU: [`MATMUL`], a register-tiled kernel for any strides.

use super::Problem;
use crate::DType;
use crate::error::{Error, Result};
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Params as _, Pin, Plan, Spec, Width, check_binding, fold, loop_end, word,
};

/// Workgroup memory tiles, 4 columns a lane in one vec4.
pub static MATMUL: Kernel = Kernel {
    name: "matmul",
    source: include_str!("../../../shaders/matmul.wgsl"),
    libs: &[],
    bindings: &[Binding::new("out", Access::Write), Binding::new("lhs", Access::Read), Binding::new("rhs", Access::Read)],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: &[
        Constants { name: "tile64", values: &[("TILE_M", 64), ("TILE_N", 64), ("TILE_K", 16), ("ROWS", 4)] },
        Constants { name: "tile32", values: &[("TILE_M", 32), ("TILE_N", 32), ("TILE_K", 16), ("ROWS", 4)] },
        Constants { name: "tile16", values: &[("TILE_M", 16), ("TILE_N", 16), ("TILE_K", 16), ("ROWS", 1)] },
    ],
    dtypes: &[&[DType::F32, DType::F32, DType::F32]],
    widths: &[Width::Fixed],
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
        /// Nothing.
        pad: u32,
    }
}

/// Which tune for a device and a problem.
fn select(_caps: &Caps, problem: &Problem) -> &'static Constants {
    let [tile64, tile32, tile16] = [0, 1, 2].map(|i| &MATMUL.tunes[i]);
    let small = problem.m().min(problem.n());
    match small {
        // A tile that is mostly outside the matrices computes zeros: by arithmetic, on any device.
        0..=16 => tile16,
        17..=32 => tile32,
        // The most reuse of the three, and 1.2x the next on lavapipe: `cargo bench --bench matmul -- /vulkan`. Unmeasured on hardware.
        _ => tile64,
    }
}

/// The dispatches of a matmul.
///
/// # Errors
/// [`Error::TooLarge`] where the device's limits forbid it.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let op = super::OP;
    for (name, layout) in [("out", &problem.out), ("lhs", &problem.lhs), ("rhs", &problem.rhs)] {
        check_binding(op, caps, name, layout, DType::F32)?;
    }
    let spec = Spec {
        dtypes: MATMUL.dtypes[0],
        variant: &Constants::NONE,
        tune: Pin::tune_of(op, pin, &MATMUL)?.unwrap_or_else(|| select(caps, problem)),
        width: Width::Fixed,
    };
    let (m, n, k) = (problem.m(), problem.n(), problem.k());
    let tiles_m = m.div_ceil(spec.get("TILE_M") as usize);
    let tiles_n = n.div_ceil(spec.get("TILE_N") as usize);
    let groups = [tiles_m, tiles_n, problem.batch()].into_iter().try_fold(1usize, usize::checked_mul).unwrap_or(usize::MAX);
    let batches = problem.batches();
    let stride = |layout: &crate::Layout, from_end: usize| word(op, "a stride", layout.strides()[layout.rank() - from_end]);
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
        pad: 0,
    };
    let size = |sides: [usize; 3]| sides.into_iter().fold(1u64, |product, side| product.saturating_mul(side as u64));
    let elements = size([problem.batch(), m, n]);
    let operands = size([problem.batch(), k, m]).saturating_add(size([problem.batch(), k, n]));
    Ok(Plan::from(Dispatch {
        kernel: &MATMUL,
        spec,
        args: (0..3).map(Arg::Tensor).collect(),
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, groups as u64)?,
        bytes: elements.saturating_add(operands).saturating_mul(4),
        flops: elements.saturating_mul(2).saturating_mul(k as u64),
    }))
}
