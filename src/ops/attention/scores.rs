//! Attention in separate steps, for those who ask for the scores: made of other ops, so that each step is one that can be read.

use super::{Attention, Call, OP};
use crate::error::{Error, Result};
use crate::ops::{self, Matmul, Softmax};
use crate::{DType, Tensor};

/// Which scores [`attention_with_scores`] gives, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Scores {
    /// `scale · q · kᵀ`. ONNX's `qk_matmul_output_mode` 0.
    #[default]
    Scaled,
    /// With the softcap. Mode 1.
    Capped,
    /// With all that is added, -inf where masked. Mode 2.
    Masked,
    /// The weights: rows sum to 1 (to less with a sink), or are zeros where all is masked. Mode 3.
    Weights,
}

/// [`attention`](crate::ops::attention()) in separate steps, and the scores of one of them: f32 of shape [batch, heads, seq_q, seq_k] in either order of axes.
///
/// The score matrix is in memory, several times over: this is for looking at it, not for speed. The result is not bit for bit that of `attention`, but
/// has the bounds of [`matmul`](crate::ops::matmul()) and [`softmax`](crate::ops::softmax()). All options but `dropout` are taken.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&device, &[1.0f32, 1.0], &[1, 1, 2, 1])?;
/// let causal = ops::Attention { causal: true, ..Default::default() };
/// let (_, weights) = ops::attention_with_scores(&x, &x, &x, &causal, ops::Scores::Weights)?;
/// assert_eq!(weights.to_vec::<f32>()?, [1.0, 0.0, 0.5, 0.5]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// As `attention`, and [`Error::Argument`] if there is dropout.
pub fn attention_with_scores(q: &Tensor, k: &Tensor, v: &Tensor, options: &Attention, scores: Scores) -> Result<(Tensor, Tensor)> {
    let call = Call::new(q, k, v, options)?;
    if options.dropout.is_some() {
        let problem = "leaves weights out of the result that the scores have".into();
        return Err(Error::Argument { op: OP, argument: "dropout", problem, help: "ask for the scores without it" });
    }
    let device = q.device();
    let ([q, k], v) = (call.turned()?, options.axes.heads_first(v)?);
    let (batch, heads, seq_q, head_dim) = (q.shape()[0], q.shape()[1], q.shape()[2], q.shape()[3]);
    let (kv_heads, seq_k, v_dim) = (k.shape()[1], k.shape()[2], v.shape()[3]);
    let all = [batch, heads, seq_q, seq_k];
    if all.contains(&0) {
        let out = call.fresh_zeros()?;
        return Ok((out, Tensor::zeros(device, DType::F32, &all)?));
    }
    let group = heads / kv_heads;
    let keep = |stage: Scores, t: &Tensor| if stage == scores { ops::copy(t).map(Some) } else { Ok(None) };

    let alpha = options.scale.unwrap_or(1.0 / (head_dim as f32).sqrt());
    let product = Matmul { alpha, dtype: Some(DType::F32), ..Default::default() };
    let left = q.reshape(&[batch, kv_heads, group, seq_q, head_dim])?;
    let mut now = ops::matmul(&left, &k.unsqueeze(2)?.transpose(-1, -2)?, &product)?.reshape(&all)?;
    let mut kept = keep(Scores::Scaled, &now)?;
    if let Some(softcap) = options.softcap {
        let number = |value: f32| Tensor::full(device, value, &[1]);
        now = ops::mul(&ops::tanh(&ops::div(&now, &number(softcap)?)?)?, &number(softcap)?)?;
    }
    kept = kept.or(keep(Scores::Capped, &now)?);
    now = masked(&call, options, now, all)?;
    kept = kept.or(keep(Scores::Masked, &now)?);
    let sinks = options.sinks.map(|sinks| sinks.reshape(&[sinks.len(), 1, 1])).transpose()?;
    let weights = ops::softmax(&now, -1, &Softmax { sinks: sinks.as_ref(), ..Default::default() })?;
    let mut out = call.fresh_zeros()?;
    let grouped = |t: &Tensor, last: usize| t.reshape(&[batch, kv_heads, group, seq_q, last]);
    let value = ops::matmul(&grouped(&weights, seq_k)?, &v.unsqueeze(2)?, &Matmul { dtype: Some(out.dtype()), ..Default::default() })?;
    let value = value.reshape(&[batch, heads, seq_q, v_dim])?;
    ops::copy_into(&mut out, &options.axes.heads_first(&value)?)?;
    Ok((out, kept.unwrap_or(weights)))
}

/// Scores with what is added to them, -inf where masked.
fn masked(call: &Call, options: &Attention, scores: Tensor, [batch, _, seq_q, seq_k]: [usize; 4]) -> Result<Tensor> {
    let problem = &call.problem;
    let device = &scores.device().clone();
    let count = |n: usize, shape: &[usize]| Tensor::from_slice(device, &(0..n).map(|i| i as i32).collect::<Vec<_>>(), shape);
    let number = |value: i64| Tensor::full(device, value.clamp(-(1 << 30), 1 << 30) as i32, &[1]);
    // Keys of each batch, and each query's place among them.
    let lens = match options.kv_lens {
        Some(lens) => ops::cast(&ops::min(lens, &Tensor::full(device, seq_k as u32, &[1])?)?, DType::I32)?,
        None => number(seq_k as i64)?,
    };
    let lens = lens.broadcast_to(&[batch])?.reshape(&[batch, 1, 1, 1])?;
    let base = if problem.from_end { ops::add(&lens, &number(problem.place)?)? } else { number(problem.place)? };
    let (keys, places) = (count(seq_k, &[seq_k])?, ops::add(&count(seq_q, &[seq_q, 1])?, &base)?);
    let ahead = ops::sub(&keys, &places)?;
    let mut all = scores;
    if let Some(slopes) = options.alibi {
        let slopes = ops::cast(&slopes.reshape(&[slopes.len(), 1, 1])?, DType::F32)?;
        all = ops::sub(&all, &ops::mul(&slopes, &ops::cast(&ops::abs(&ahead)?, DType::F32)?)?)?;
    }
    let hidden = Tensor::full(device, f32::NEG_INFINITY, &[1])?;
    let full = |mask: &Tensor, rest: Tensor| -> Result<Tensor> {
        match mask.shape().last() {
            Some(&own) if own < seq_k && own != 1 => {
                let mut shape = mask.shape().to_vec();
                shape[mask.rank() - 1] = seq_k - own;
                ops::concat(&[mask, &rest.broadcast_to(&shape)?], -1)
            }
            _ => Ok(mask.clone()),
        }
    };
    if let Some(bias) = options.bias {
        all = ops::add(&all, &full(&ops::cast(bias, DType::F32)?, hidden.clone())?)?;
    }
    let mut seen = vec![ops::lt(&keys, &lens)?];
    if problem.window[1] < super::ALL {
        seen.push(ops::le(&ahead, &number(problem.window[1])?)?);
    }
    if problem.window[0] < super::ALL {
        seen.push(ops::ge(&ahead, &number(-problem.window[0])?)?);
    }
    if let Some(mask) = options.mask {
        seen.push(full(mask, Tensor::full(device, false, &[1])?)?);
    }
    seen.iter().try_fold(all, |all, seen| ops::where_cond(seen, &all, &hidden))
}
