//! Attention as ONNX and as PyTorch ask for it.

use gristmill::{DType, Tensor, ops};

use crate::manifest::{Outcome, fail, unsupported};
use crate::onnx::{Call, Results};

/// The attributes of ONNX's Attention that [`onnx`] knows. The softmax has f32 inputs, and sums in f64 on the CPU, whatever `softmax_precision` asks for.
pub const ONNX_ATTRIBUTES: &[&str] = &[
    "is_causal",
    "kv_num_heads",
    "left_window_size",
    "q_num_heads",
    "qk_matmul_output_mode",
    "right_window_size",
    "scale",
    "softcap",
    "softmax_precision",
];

/// Where the queries stand among the keys, and which of them they see.
pub struct Places {
    /// Where the first query stands; one for all batches. `None` where the last one stands at the batch's last key.
    pub offset: Option<i64>,
    /// Whether keys behind the query are hidden.
    pub causal: bool,
    /// How many keys before the query it sees.
    pub left: Option<i64>,
    /// How many keys behind the query it sees.
    pub right: Option<i64>,
    /// How many keys there are in each batch, if not all.
    pub keys: Option<Vec<i64>>,
}

impl Places {
    /// A window's side as the formats write it: negative where it has no end.
    pub fn side(size: Option<i64>) -> Option<i64> {
        size.filter(|&size| size >= 0)
    }
}

/// What is asked of attention beside q, k and v.
pub struct Asked<'a> {
    pub places: Places,
    /// Of either kind.
    pub mask: Option<&'a Tensor>,
    pub sinks: Option<&'a Tensor>,
    pub scale: Option<f64>,
    pub softcap: Option<f64>,
    /// Scores that are wanted too.
    pub scores: Option<ops::Scores>,
}

/// The results of attention over [batch, heads, seq, dim]: `out`, the logarithms of the sums, and scores where they are wanted.
pub struct Attended {
    pub out: Tensor,
    pub lse: Tensor,
    pub scores: Option<Tensor>,
}

pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, asked: &Asked) -> Outcome<Attended> {
    if [q, k, v].iter().any(|t| t.rank() != 4) {
        return Err(fail("manifest: q, k or v has not 4 axes"));
    }
    if [q, v].iter().any(|t| t.shape()[3] > ops::attention::MAX_HEAD_DIM) {
        return Err(unsupported(format!("attention: head dimensions over {} are not offered", ops::attention::MAX_HEAD_DIM)));
    }
    let Places { offset, causal, left, right, keys } = &asked.places;
    let side = |size: &Option<i64>| size.and_then(|size| usize::try_from(size).ok());
    let lens = match keys {
        Some(keys) => {
            let keys: Vec<u32> = keys.iter().map(|&n| u32::try_from(n.max(0)).unwrap_or(u32::MAX)).collect();
            Some(Tensor::from_slice(q.device(), &keys, &[keys.len()])?)
        }
        None => None,
    };
    // A bias of 16 bits belongs to queries of that type.
    let bias = asked.mask.filter(|mask| mask.dtype() != DType::Bool);
    let bias = bias.map(|bias| if bias.dtype() == q.dtype() { Ok(bias.clone()) } else { ops::cast(bias, DType::F32) }).transpose()?;
    let options = ops::Attention {
        causal: *causal,
        align: offset.map_or(ops::Align::BottomRight, ops::Align::Offset),
        window: ops::Window { left: side(left), right: if *causal { None } else { side(right) } },
        scale: asked.scale.map(|scale| scale as f32),
        softcap: asked.softcap.filter(|&softcap| softcap != 0.0).map(|softcap| softcap as f32),
        mask: asked.mask.filter(|mask| mask.dtype() == DType::Bool),
        bias: bias.as_ref(),
        sinks: asked.sinks,
        kv_lens: lens.as_ref(),
        ..Default::default()
    };
    let (out, lse) = ops::attention_with_lse(q, k, v, &options)?;
    let scores = asked.scores.map(|scores| ops::attention_with_scores(q, k, v, &options, scores)).transpose()?;
    Ok(Attended { out, lse, scores: scores.map(|(_, scores)| scores) })
}

/// ONNX's Attention, opsets 23 to 25.
pub fn onnx(call: &Call) -> Results {
    let q = heads(call, 0, "q_num_heads")?;
    let (new_k, new_v) = (heads(call, 1, "kv_num_heads")?, heads(call, 2, "kv_num_heads")?);
    let (k, v, past) = match (call.given(4), call.given(5)) {
        (None, None) => (new_k, new_v, 0),
        (Some(_), Some(_)) => {
            let (k, v) = (call.operand(4)?, call.operand(5)?);
            if k.rank() != 4 || v.rank() != 4 {
                return Err(fail("manifest: past_key or past_value has not 4 axes"));
            }
            let past = k.shape()[2];
            (ops::concat(&[&k, &new_k], 2)?, ops::concat(&[&v, &new_v], 2)?, past)
        }
        _ => return Err(fail("manifest: past_key without past_value, or the other way round")),
    };
    let attributes = call.attributes;
    let keys = call.integers(6)?;
    let places = Places {
        offset: if keys.is_some() && call.given(4).is_none() { None } else { Some(past as i64) },
        causal: attributes.flag("is_causal")?,
        left: Places::side(attributes.int("left_window_size")?),
        right: Places::side(attributes.int("right_window_size")?),
        keys,
    };
    let mask = match call.given(3) {
        Some(arg) if arg.dtype == "bool" => Some(call.tensor(3)?),
        Some(_) => Some(call.operand(3)?),
        None => None,
    };
    let scores = match attributes.int("qk_matmul_output_mode")?.unwrap_or(0) {
        _ if !call.wanted(3) => None,
        0 => Some(ops::Scores::Scaled),
        1 => Some(ops::Scores::Capped),
        2 => Some(ops::Scores::Masked),
        3 => Some(ops::Scores::Weights),
        other => return Err(fail(format!("manifest: qk_matmul_output_mode {other}"))),
    };
    let asked = Asked {
        places,
        mask: mask.as_ref(),
        sinks: None,
        scale: attributes.number("scale")?,
        softcap: attributes.number("softcap")?,
        scores,
    };
    let Attended { out: mut y, scores, .. } = attend(&q, &k, &v, &asked)?;
    if call.given(0).is_some_and(|q| q.shape.len() == 3) {
        y = joined(&y)?;
    }
    let scores = scores.map(|scores| ops::cast(&scores, y.dtype())).transpose()?;
    let present = |i: usize, tensor: &Tensor| call.wanted(i).then(|| ops::copy(tensor)).transpose();
    Ok(vec![Some(y), present(1, &k)?, present(2, &v)?, scores])
}

/// An input as [batch, heads, seq, dim], from that or from [batch, seq, heads * dim].
pub fn heads(call: &Call, input: usize, attribute: &str) -> Outcome<Tensor> {
    let x = call.operand(input)?;
    match x.shape()[..] {
        [_, _, _, _] => Ok(x),
        [batch, seq, width] => {
            let heads = call.attributes.count(attribute)?.ok_or_else(|| fail(format!("manifest: no {attribute}")))?;
            let dim = width.checked_div(heads).filter(|dim| dim * heads == width);
            let dim = dim.ok_or_else(|| fail(format!("manifest: {attribute} does not divide {width}")))?;
            Ok(x.reshape(&[batch, seq, heads, dim])?.permute(&[0, 2, 1, 3])?)
        }
        _ => Err(fail(format!("manifest: input {input} has neither 3 nor 4 axes"))),
    }
}

/// [batch, heads, seq, dim] as [batch, seq, heads * dim].
pub fn joined(y: &Tensor) -> Outcome<Tensor> {
    let [batch, heads, seq, dim] = [0, 1, 2, 3].map(|axis| y.shape()[axis]);
    Ok(y.permute(&[0, 2, 1, 3])?.contiguous()?.reshape(&[batch, seq, heads * dim])?)
}
