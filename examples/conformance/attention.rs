//! Attention as ONNX and as PyTorch ask for it.

use gristmill::{DType, Device, Tensor, ops};

use crate::manifest::{Outcome, fail, unsupported};
use crate::onnx::{Call, Results};

/// The attributes of ONNX's Attention that [`onnx`] knows; not all of their values are offered.
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

/// The most scores that a mask is made for here.
const MOST_SCORES: usize = 1 << 28;

/// Which keys a query may see by its place: those of `offset + query` and before or around it.
pub struct Places {
    /// Where the first query stands among the keys; one for each batch, or one for all.
    pub offsets: Vec<i64>,
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

    fn sees(&self, batch: usize, query: usize, key: usize) -> bool {
        let offset = if self.offsets.len() == 1 { self.offsets[0] } else { self.offsets[batch] };
        let ahead = (key as i64).saturating_sub(offset.saturating_add(query as i64));
        let shown = |keys: &Vec<i64>| (key as i64) < keys[batch];
        !(self.causal && ahead > 0)
            && self.left.is_none_or(|left| ahead >= -left)
            && self.right.is_none_or(|right| ahead <= right)
            && self.keys.as_ref().is_none_or(shown)
    }

    /// The option of the op that says the same, if there is one.
    fn option(&self, seq_q: usize, seq_k: usize) -> Option<ops::Causal> {
        if self.left.is_some() || self.right.is_some() || self.keys.is_some() {
            return None;
        }
        match self.offsets[..] {
            _ if !self.causal => Some(ops::Causal::None),
            [0] => Some(ops::Causal::TopLeft),
            [offset] if offset == seq_k as i64 - seq_q as i64 => Some(ops::Causal::BottomRight),
            _ => None,
        }
    }

    /// The same as a tensor [batch, 1, seq_q, seq_k]: a boolean mask, or 0 and -inf.
    fn mask(&self, device: &Device, [batch, seq_q, seq_k]: [usize; 3], additive: bool) -> Outcome<Tensor> {
        let count = batch.checked_mul(seq_q).and_then(|n| n.checked_mul(seq_k));
        if count.is_none_or(|n| n > MOST_SCORES) {
            return Err(unsupported("a mask of more scores than this program makes"));
        }
        let places = (0..batch).flat_map(|b| (0..seq_q).flat_map(move |q| (0..seq_k).map(move |k| (b, q, k))));
        let shown = places.map(|(b, q, k)| self.sees(b, q, k));
        let shape = [batch, 1, seq_q, seq_k];
        let mask = if additive {
            let bias: Vec<f32> = shown.map(|shown| if shown { 0.0 } else { f32::NEG_INFINITY }).collect();
            Tensor::from_slice(device, &bias, &shape)
        } else {
            Tensor::from_slice(device, &shown.collect::<Vec<bool>>(), &shape)
        };
        Ok(mask?)
    }
}

/// Attention over [batch, heads, seq, dim] with a mask of either kind and places; whichever mask of the op is free takes the places.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, scale: Option<f64>, places: &Places) -> Outcome<Tensor> {
    if [q, k, v].iter().any(|t| t.rank() != 4) {
        return Err(fail("manifest: q, k or v has not 4 axes"));
    }
    if [q, v].iter().any(|t| t.shape()[3] > ops::attention::MAX_HEAD_DIM) {
        return Err(unsupported("attention: head dimensions over 256 are not offered"));
    }
    let [batch, seq_q, seq_k] = [q.shape()[0], q.shape()[2], k.shape()[2]];
    let of_batch = |list: &Vec<i64>| list.len() == batch;
    if !(places.offsets.len() == 1 || of_batch(&places.offsets)) || !places.keys.as_ref().is_none_or(of_batch) {
        return Err(fail("manifest: key counts that are not one for each batch"));
    }
    let boolean = mask.filter(|mask| mask.dtype() == DType::Bool);
    let additive = mask.filter(|mask| mask.dtype() != DType::Bool);
    let mut options = ops::Attention { mask: boolean, bias: additive, scale: scale.map(|s| s as f32), ..Default::default() };
    let made;
    match places.option(seq_q, seq_k) {
        Some(causal) => options.causal = causal,
        None => {
            made = places.mask(q.device(), [batch, seq_q, seq_k], boolean.is_some())?;
            if boolean.is_some() {
                options.bias = Some(&made);
            } else {
                options.mask = Some(&made);
            }
        }
    }
    Ok(ops::attention(q, k, v, &options)?)
}

/// ONNX's Attention, opsets 23 to 25.
pub fn onnx(call: &Call) -> Results {
    refuse(call)?;
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
    let offsets = match &keys {
        Some(keys) if call.given(4).is_none() => keys.iter().map(|n| n.saturating_sub(q.shape()[2] as i64)).collect(),
        _ => vec![past as i64],
    };
    let places = Places {
        offsets,
        causal: attributes.flag("is_causal")?,
        left: Places::side(attributes.int("left_window_size")?),
        right: Places::side(attributes.int("right_window_size")?),
        keys,
    };
    let mask = mask(call, k.shape()[2])?;
    let mut y = attend(&q, &k, &v, mask.as_ref(), attributes.number("scale")?, &places)?;
    if call.given(0).is_some_and(|q| q.shape.len() == 3) {
        y = joined(&y)?;
    }
    let present = |i: usize, tensor: &Tensor| call.wanted(i).then(|| ops::copy(tensor)).transpose();
    Ok(vec![Some(y), present(1, &k)?, present(2, &v)?])
}

/// The values of attributes that are not offered.
fn refuse(call: &Call) -> Outcome<()> {
    if call.attributes.number("softcap")?.is_some_and(|cap| cap != 0.0) {
        return Err(unsupported("Attention: softcap is not offered"));
    }
    // 1 is float32.
    if call.attributes.int("softmax_precision")?.is_some_and(|precision| precision != 1) {
        return Err(unsupported("Attention: softmax_precision other than float32 is not offered"));
    }
    Ok(())
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

/// `attn_mask`; keys beyond its end are masked.
fn mask(call: &Call, seq_k: usize) -> Outcome<Option<Tensor>> {
    let Some(arg) = call.given(3) else { return Ok(None) };
    let mask = if arg.dtype == "bool" { call.tensor(3)? } else { call.operand(3)? };
    let Some(&given) = mask.shape().last().filter(|&&given| given < seq_k) else { return Ok(Some(mask)) };
    let mut shape = mask.shape().to_vec();
    shape[mask.rank() - 1] = seq_k - given;
    let rest = if arg.dtype == "bool" {
        Tensor::full(call.device, false, &shape)?
    } else {
        ops::cast(&Tensor::full(call.device, f32::NEG_INFINITY, &shape)?, mask.dtype())?
    };
    let last = mask.rank() - 1;
    Ok(Some(ops::concat(&[&mask, &rest], last as isize)?))
}
