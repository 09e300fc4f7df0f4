//! Attention on a GPU: [`ATTENTION`], FlashAttention-2 as two register-tiled products.

use super::Problem;
use crate::error::{Error, Result};
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, check_binding, check_kernel, fold,
    runs, word,
};
use crate::ops::{cut, through_scratch};
use crate::{DType, Layout};
use DType::{BF16, Bool, F16, F32};

/// Queries a workgroup, as in the shader.
const BLOCK: usize = 32;

/// 32 queries a workgroup, 32 keys a step. A tune for each size of the output registers: the smallest that holds `v_dim` is taken.
/// Results that it does not write go through an f32 scratch.
pub static ATTENTION: Kernel = Kernel {
    name: "attention",
    source: include_str!("../../../shaders/attention.wgsl"),
    libs: &[
        include_str!("../../../shaders/lib/element.wgsl"),
        include_str!("../../../shaders/lib/float.wgsl"),
        include_str!("../../../shaders/lib/softmax.wgsl"),
    ],
    bindings: &[
        Binding::typed("out", Access::Write, "OUT_DTYPE"),
        Binding::typed("q", Access::Read, "Q_DTYPE"),
        Binding::typed("k", Access::Read, "K_DTYPE"),
        Binding::typed("v", Access::Read, "V_DTYPE"),
        Binding::new("mask", Access::Read),
        Binding::typed("bias", Access::Read, "BIAS_DTYPE"),
    ],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: &[
        Constants { name: "v64", values: &[("V_MAX", 64)] },
        Constants { name: "v128", values: &[("V_MAX", 128)] },
        Constants { name: "v256", values: &[("V_MAX", 256)] },
    ],
    dtypes: &[
        &[F32, F32, F32, F32, Bool, F32],
        &[F16, F16, F16, F16, Bool, F16],
        &[BF16, BF16, BF16, BF16, Bool, BF16],
        &[F16, F16, F16, F16, Bool, F32],
        &[BF16, BF16, BF16, BF16, Bool, F32],
        &[F32, F16, F16, F16, Bool, F16],
        &[F32, BF16, BF16, BF16, Bool, BF16],
        &[F32, F16, F16, F16, Bool, F32],
        &[F32, BF16, BF16, BF16, Bool, F32],
        &[F32, F32, F16, F16, Bool, F32],
        &[F32, F32, BF16, BF16, Bool, F32],
    ],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of `attention.wgsl`. Strides are of batch, head, row and column; of batch, head, query and key in masks.
    pub struct Params {
        /// Strides.
        q_strides: [u32; 4],
        /// Strides.
        k_strides: [u32; 4],
        /// Strides.
        v_strides: [u32; 4],
        /// Strides.
        mask_strides: [u32; 4],
        /// Strides.
        bias_strides: [u32; 4],
        /// Strides.
        out_strides: [u32; 4],
        /// First element.
        q_offset: u32,
        /// First element.
        k_offset: u32,
        /// First element.
        v_offset: u32,
        /// First element.
        mask_offset: u32,
        /// First element.
        bias_offset: u32,
        /// First element.
        out_offset: u32,
        /// Query heads.
        heads: u32,
        /// Query heads that share a key head.
        heads_per_kv: u32,
        /// Queries.
        seq_q: u32,
        /// Keys.
        seq_k: u32,
        /// Columns of q and k.
        head_dim: u32,
        /// Columns of v.
        v_dim: u32,
        /// Workgroups a head.
        blocks_q: u32,
        /// Workgroups that have work.
        groups: u32,
        /// Query i sees keys below i + causal_limit.
        causal_limit: i32,
        /// Factor of the scores.
        scale: f32,
        /// Whether there is a boolean mask.
        has_mask: u32,
        /// Whether there is an additive mask.
        has_bias: u32,
        /// Nothing.
        pad0: u32,
        /// Nothing.
        pad1: u32,
    }
}

/// The smallest registers that hold a row: fewer idle lanes and spills, by arithmetic, on any device.
fn select(_caps: &Caps, problem: &Problem) -> &'static Constants {
    let holds = |tune: &&Constants| tune.get("V_MAX").unwrap_or(0) as usize >= problem.v_dim();
    ATTENTION.tunes.iter().find(holds).unwrap_or(&ATTENTION.tunes[2])
}

fn four(layout: &Layout) -> Result<[u32; 4]> {
    Ok(crate::gpu::axes(super::OP, layout.strides(), 0)?[1])
}

/// The dispatches of an attention.
///
/// # Errors
/// [`Error::TooLarge`] where the device's limits forbid it, [`Error::Argument`] if the pinned tune does not hold `v_dim`.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    cut(caps, problem, &|problem| uncut(caps, pin, problem))
}

fn uncut(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let op = super::OP;
    check_kernel(op, caps, &ATTENTION)?;
    // Masks that are not there: their bindings hold q, unread.
    let mask = problem.mask.unwrap_or(problem.q);
    let bias = problem.bias.unwrap_or(problem.q);
    let [out_dtype, q_dtype, k_dtype, v_dtype, bias_dtype] = problem.dtypes;
    let bias_dtype = if problem.bias.is_some() { bias_dtype } else { q_dtype };
    let proven = [&problem.out, &problem.q, &problem.k, &problem.v].iter().all(|layout| runs(layout, 3, 8, false));
    let writes = out_dtype == F32 || proven || runs(&problem.out, 3, 2, false);
    let wanted = [out_dtype, q_dtype, k_dtype, v_dtype, Bool, bias_dtype];
    let Some(dtypes) = ATTENTION.types(&wanted).filter(|_| writes) else {
        return through_scratch(op, caps, (&problem.out, out_dtype), F32, |out| {
            plan(caps, pin, &Problem { dtypes: [F32, q_dtype, k_dtype, v_dtype, problem.dtypes[4]], out, ..problem.clone() })
        });
    };
    let all = [
        ("out", &problem.out, out_dtype),
        ("q", &problem.q, q_dtype),
        ("k", &problem.k, k_dtype),
        ("v", &problem.v, v_dtype),
        ("mask", &mask, if problem.mask.is_some() { Bool } else { q_dtype }),
        ("bias", &bias, bias_dtype),
    ];
    for (name, layout, dtype) in all {
        check_binding(op, caps, name, layout, dtype)?;
    }
    let tune = Pin::tune_of(op, pin, &ATTENTION)?.unwrap_or_else(|| select(caps, problem));
    if problem.v_dim() > tune.get("V_MAX").unwrap_or(0) as usize {
        return Err(Error::Argument {
            op,
            argument: "the device's pin",
            problem: format!("is attention.{}, which is too small for v_dim = {}", tune.name, problem.v_dim()),
            help: "pin a larger tune, or the kernel alone",
        });
    }
    let [batch, heads, seq_q, seq_k] = [problem.q.dims()[0], problem.heads(), problem.seq_q(), problem.seq_k()];
    let blocks_q = seq_q.div_ceil(BLOCK);
    let groups = [batch, heads, blocks_q].into_iter().try_fold(1usize, usize::checked_mul).unwrap_or(usize::MAX);
    let params = Params {
        q_strides: four(&problem.q)?,
        k_strides: four(&problem.k)?,
        v_strides: four(&problem.v)?,
        mask_strides: four(&mask)?,
        bias_strides: four(&bias)?,
        out_strides: four(&problem.out)?,
        q_offset: word(op, "q", problem.q.offset())?,
        k_offset: word(op, "k", problem.k.offset())?,
        v_offset: word(op, "v", problem.v.offset())?,
        mask_offset: word(op, "mask", mask.offset())?,
        bias_offset: word(op, "bias", bias.offset())?,
        out_offset: word(op, "out", problem.out.offset())?,
        heads: word(op, "heads", heads)?,
        heads_per_kv: word(op, "heads", problem.heads_per_kv())?,
        seq_q: word(op, "seq_q", seq_q)?,
        seq_k: word(op, "seq_k", seq_k)?,
        head_dim: word(op, "head_dim", problem.head_dim())?,
        v_dim: word(op, "v_dim", problem.v_dim())?,
        blocks_q: word(op, "seq_q", blocks_q)?,
        groups: word(op, "the grid", groups)?,
        // Sequences are below 2^30, so this fits.
        causal_limit: problem.causal_limit as i32,
        scale: problem.scale,
        has_mask: problem.mask.is_some().into(),
        has_bias: problem.bias.is_some().into(),
        pad0: 0,
        pad1: 0,
    };
    let mut args: Vec<Arg> = (0..4).map(Arg::Tensor).collect();
    let mut next = 4;
    for present in [problem.mask.is_some(), problem.bias.is_some()] {
        args.push(Arg::Tensor(if present { next } else { 1 }));
        next += usize::from(present);
    }
    let columns = (problem.head_dim() + problem.v_dim()) as u64;
    let scores = [batch, heads, seq_q, seq_k].into_iter().fold(1u64, |product, side| product.saturating_mul(side as u64));
    let moved = [(&problem.out, out_dtype), (&problem.q, q_dtype), (&problem.k, k_dtype), (&problem.v, v_dtype)];
    Ok(Plan::from(Dispatch {
        kernel: &ATTENTION,
        spec: Spec { dtypes, variant: &Constants::NONE, tune, width: Width::of(proven) },
        args,
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, groups as u64)?,
        bytes: moved.iter().map(|(layout, dtype)| layout.len() as u64 * dtype.block_bytes() as u64).sum(),
        flops: scores.saturating_mul(2).saturating_mul(columns),
    }))
}
