//! Attention: every tune at sizes round every block, all options, GQA, masks; N1, N3, N4, N6, N8, N9.

use std::sync::Arc;

use DType::{BF16, F16, F32};
use gristmill::ops::{self, Attention, Causal};
use gristmill::{DType, Device, Tensor};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::compare::compare;
use crate::support::devices::{Level, Subject, only};
use crate::support::input::{Form, Host, Random};
use crate::support::reference::{self, broadcast};
use crate::support::runner::{Case, Expected, check, pinned, same_on_any_threads, sample, trial, trials};

const OP: &str = "attention";

pub fn all() -> Vec<Trial> {
    let mut all = trials(OP, "corners", corners);
    all.extend(trials(OP, "layouts", layouts));
    all.extend(trials(OP, "large_grid", large_grid));
    all.extend(trials(OP, "masks", masks));
    all.extend(trials(OP, "blocks", blocks));
    all.extend(trials(OP, "types", types));
    all.extend(trials(OP, "batch_invariant", batch_invariant));
    all.extend(trials(OP, "exact", exact));
    all.extend(trials(OP, "extremes", extremes));
    all.extend(trials(OP, "random", random));
    all.extend(trials(OP, "twice_plain", twice_plain));
    all.push(trial("attention::threads", || {
        let shape = Shape { heads: 4, kv_heads: 2, seq_q: 70, seq_k: 150, ..Shape::default() };
        let narrow = Shape { dtypes: [BF16, BF16, BF16, F32], ..shape.clone() };
        same_on_any_threads(|_| [&shape, &narrow].map(|shape| case(&mut Random::new(9), shape.clone())).into())
    }));
    all
}

/// What a call looks like.
#[derive(Debug, Clone)]
struct Shape {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    seq_q: usize,
    seq_k: usize,
    head_dim: usize,
    v_dim: usize,
    causal: Causal,
    scale: Option<f32>,
    mask: Option<Vec<usize>>,
    bias: Option<Vec<usize>>,
    /// Of out, q, k with v, bias.
    dtypes: [DType; 4],
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            batch: 1,
            heads: 1,
            kv_heads: 1,
            seq_q: 5,
            seq_k: 7,
            head_dim: 16,
            v_dim: 16,
            causal: Causal::None,
            scale: None,
            mask: None,
            bias: None,
            dtypes: [F32; 4],
        }
    }
}

/// A call's inputs: q, k, v, then the masks that there are.
fn inputs(random: &mut Random, shape: &Shape) -> Vec<Host> {
    let Shape { batch, heads, kv_heads, seq_q, seq_k, head_dim, v_dim, dtypes: [_, q, kv, bias], .. } = *shape;
    let mut all = vec![
        random.floats(&[batch, heads, seq_q, head_dim]).to(q),
        random.floats(&[batch, kv_heads, seq_k, head_dim]).to(kv),
        random.floats(&[batch, kv_heads, seq_k, v_dim]).to(kv),
    ];
    all.extend(shape.mask.as_ref().map(|dims| random.bools(dims, 0.7)));
    all.extend(shape.bias.as_ref().map(|dims| {
        let values: Vec<f32> = random.floats(dims).f64s().iter().map(|&v| if v > 0.5 { f32::NEG_INFINITY } else { v as f32 }).collect();
        Host::new(dims, &values).to(bias)
    }));
    all
}

fn options<'a>(shape: &Shape, t: &'a [Tensor]) -> Attention<'a> {
    let bias_at = 3 + usize::from(shape.mask.is_some());
    Attention {
        causal: shape.causal,
        scale: shape.scale,
        mask: shape.mask.as_ref().map(|_| &t[3]),
        bias: shape.bias.as_ref().map(|_| &t[bias_at]),
    }
}

fn case(random: &mut Random, shape: Shape) -> Case {
    let inputs = inputs(random, &shape);
    case_of(shape, inputs, false)
}

/// Every element within the first-order bound of plain attention. With `n3` also at most twice the error of plain attention on the same
/// device, which must be within that bound itself. N3 compares two maxima: it means something where many rows are equally hard, and is luck
/// where a few outliers decide both, so it has inputs and sizes of its own (`twice_plain`).
fn case_of(shape: Shape, inputs: Vec<Host>, n3: bool) -> Case {
    let truth = Arc::new(truth(&shape, &inputs));
    let hosts = Arc::new(inputs.clone());
    let (for_call, for_into) = (shape.clone(), shape.clone());
    let name = format!("{shape:?}");
    Case {
        call_in_place: None,
        name,
        inputs,
        call: Box::new(move |t| {
            let Shape { batch, heads, seq_q, v_dim, dtypes: [out, q, ..], .. } = for_call;
            if out == q {
                return ops::attention(&t[0], &t[1], &t[2], &options(&for_call, t));
            }
            // A type that only `_into` gives.
            let mut result = Tensor::zeros(t[0].device(), out, &[batch, heads, seq_q, v_dim])?;
            ops::attention_into(&mut result, &t[0], &t[1], &t[2], &options(&for_call, t))?;
            Ok(result)
        }),
        call_into: Box::new(move |out, t| ops::attention_into(out, &t[0], &t[1], &t[2], &options(&for_into, t))),
        expected: Box::new(move |device| {
            let dims = [shape.batch, shape.heads, shape.seq_q, shape.v_dim];
            let (values, bounds) = (&truth.0, &truth.1);
            let mut expected = Expected::stored(&dims, shape.dtypes[0], values.clone(), bounds.clone());
            // Where there is nothing to sum there are zeros.
            expected.bounds.iter_mut().zip(bounds).filter(|(_, own)| **own == 0.0).for_each(|(bound, _)| *bound = 0.0);
            if !n3 {
                return Ok(expected);
            }
            let plain = plain(device, &shape, &hosts)?;
            compare(&plain, values, &expected.bounds, &dims).map_err(|text| format!("plain attention: {text}"))?;
            let largest = |errors: &mut dyn Iterator<Item = f64>| errors.fold(0.0, f64::max);
            let error = largest(&mut plain.iter().zip(values).map(|(got, want)| (got - want).abs()));
            let floor = 2.0 * largest(&mut values.iter().map(|&o| f64::from(((o as f32 + 0.3) - 0.3 - o as f32).abs())));
            expected.bounds.iter_mut().for_each(|bound| *bound = bound.min(2.0 * error + floor));
            Ok(expected)
        }),
    }
}

/// Visible by place alone.
fn visible(shape: &Shape, row: usize, key: usize) -> bool {
    match shape.causal {
        Causal::None => true,
        Causal::TopLeft => key <= row,
        Causal::BottomRight => key + shape.seq_q <= row + shape.seq_k,
    }
}

/// Masks over [batch, heads, seq_q, seq_k]: what is added to each score, -inf where masked.
fn biases(shape: &Shape, inputs: &[Host]) -> Vec<f64> {
    let scores = [shape.batch, shape.heads, shape.seq_q, shape.seq_k];
    let count: usize = scores.iter().product();
    let mut all = vec![0.0; count];
    let mut next = 3;
    if shape.mask.is_some() {
        let mask = broadcast(&inputs[next].f64s(), &inputs[next].dims, &scores);
        all.iter_mut().zip(mask).for_each(|(b, shown)| *b = if shown == 0.0 { f64::NEG_INFINITY } else { *b });
        next += 1;
    }
    if shape.bias.is_some() {
        let bias = broadcast(&inputs[next].f64s(), &inputs[next].dims, &scores);
        all.iter_mut().zip(bias).for_each(|(b, add)| *b += add);
    }
    for (i, b) in all.iter_mut().enumerate() {
        let (row, key) = (i / shape.seq_k % shape.seq_q, i % shape.seq_k);
        if !visible(shape, row, key) {
            *b = f64::NEG_INFINITY;
        }
    }
    all
}

fn scale_of(shape: &Shape) -> f32 {
    shape.scale.unwrap_or(1.0 / (shape.head_dim as f32).sqrt())
}

/// The f64 reference, head by head: values and bounds.
fn truth(shape: &Shape, inputs: &[Host]) -> (Vec<f64>, Vec<f64>) {
    let Shape { batch, heads, kv_heads, seq_q, seq_k, head_dim, v_dim, .. } = *shape;
    let [q, k, v] = [0, 1, 2].map(|i| inputs[i].f64s());
    let biases = biases(shape, inputs);
    let (mut values, mut bounds) = (Vec::new(), Vec::new());
    for head in 0..batch * heads {
        let kv = head / heads * kv_heads + head % heads / (heads / kv_heads);
        let qkv = (
            &q[head * seq_q * head_dim..][..seq_q * head_dim],
            &k[kv * seq_k * head_dim..][..seq_k * head_dim],
            &v[kv * seq_k * v_dim..][..seq_k * v_dim],
        );
        let bias = &biases[head * seq_q * seq_k..][..seq_q * seq_k];
        let (head_values, head_bounds) = reference::attention(qkv, [seq_q, seq_k, head_dim, v_dim], f64::from(scale_of(shape)), bias);
        values.extend(head_values);
        bounds.extend(head_bounds);
    }
    (values, bounds)
}

/// Plain attention on a device: matmul, softmax with the masks as one bias, matmul, in f32.
fn plain(device: &Device, shape: &Shape, inputs: &[Host]) -> Result<Vec<f64>, String> {
    let run = || -> gristmill::Result<Vec<f32>> {
        let Shape { batch, heads, kv_heads, seq_q, seq_k, head_dim, v_dim, .. } = *shape;
        let upload = |i: usize| {
            let values: Vec<f32> = inputs[i].f64s().iter().map(|&x| x as f32).collect();
            Tensor::from_slice(device, &values, &inputs[i].dims)
        };
        let group = heads / kv_heads;
        let q = upload(0)?.reshape(&[batch, kv_heads, group, seq_q, head_dim])?;
        let k = upload(1)?.reshape(&[batch, kv_heads, 1, seq_k, head_dim])?;
        let v = upload(2)?.reshape(&[batch, kv_heads, 1, seq_k, v_dim])?;
        let bias: Vec<f32> = biases(shape, inputs).iter().map(|&b| b as f32).collect();
        let bias = Tensor::from_slice(device, &bias, &[batch, kv_heads, group, seq_q, seq_k])?;
        let scores = ops::matmul(&q, &k.transpose(-1, -2)?, &Default::default())?;
        let options = ops::Softmax { scale: scale_of(shape), mask: Some(&bias), ..Default::default() };
        ops::matmul(&ops::softmax(&scores, -1, &options)?, &v, &Default::default())?.to_vec::<f32>()
    };
    Ok(run().map_err(|error| format!("plain attention: {error}"))?.into_iter().map(f64::from).collect())
}

/// One small case for each part of the kernel that few shapes reach: 16-bit pairs by the scalar path, every size of the output registers in both
/// widths, more queries than keys.
fn corners(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    let mut random = Random::new(12);
    let base = Shape { batch: 2, heads: 4, kv_heads: 2, seq_q: 5, seq_k: 7, head_dim: 24, ..Shape::default() };
    for shape in [
        Shape { dtypes: [F16; 4], v_dim: 10, ..base.clone() },
        Shape { dtypes: [BF16; 4], v_dim: 44, seq_q: 33, ..base.clone() },
        Shape { v_dim: 64, head_dim: 16, seq_q: 33, seq_k: 7, ..base.clone() },
        Shape { v_dim: 120, seq_k: 40, ..base.clone() },
        Shape { v_dim: 250, seq_k: 40, ..base.clone() },
        Shape { v_dim: 256, ..base.clone() },
        Shape { dtypes: [F16; 4], v_dim: 126, ..base.clone() },
    ] {
        check(OP, &subject.name, device, &case(&mut random, shape), true)?;
    }
    // The lowest finite bias masks nothing: where it is all that a row has, v is averaged, however the rest of the scores is absorbed.
    let run = || -> gristmill::Result<Vec<f32>> {
        let (q, k) =
            (Tensor::rand_normal(device, &[1, 1, 3, 16], 0.0, 1.0, 1)?, Tensor::rand_normal(device, &[1, 1, 40, 16], 0.0, 1.0, 2)?);
        let (v, bias) = (Tensor::full(device, 1.0f32, &[1, 1, 40, 16])?, Tensor::full(device, f32::MIN, &[3, 40])?);
        ops::attention(&q, &k, &v, &Attention { bias: Some(&bias), ..Attention::default() })?.to_vec()
    };
    let ones = run().map_err(|e| e.to_string())?;
    if ones.iter().all(|v| (v - 1.0).abs() < 1e-5) { Ok(()) } else { Err(format!("averages of ones on {}: {ones:?}", subject.name)) }
}

/// Heads and rows in either order, each operand's strides its own: the same bits as from dense ones. A mask of odd bytes beside zeros too.
fn layouts(subject: &Subject, device: &Device, _: Level) -> Result<(), String> {
    let run = |dtype: DType, head_dim: usize| -> gristmill::Result<bool> {
        let made = |heads: usize, seq: usize, gap: usize, seed: u64| -> gristmill::Result<Tensor> {
            let all = Tensor::rand_normal(device, &[2, seq, heads + gap, head_dim], 0.0, 1.0, seed)?;
            ops::cast(&all, dtype)?.narrow(2, gap..heads + gap)?.permute(&[0, 2, 1, 3])
        };
        let (q, k, v) = (made(4, 9, 0, 1)?, made(2, 11, 1, 2)?, made(2, 11, 3, 3)?);
        let options = Attention { causal: Causal::BottomRight, ..Attention::default() };
        let dense = ops::attention(&q.contiguous()?, &k.contiguous()?, &v.contiguous()?, &options)?;
        let mut out = Tensor::zeros(device, dtype, &[2, 9, 7, head_dim])?.narrow(2, 2..6)?.permute(&[0, 2, 1, 3])?;
        ops::attention_into(&mut out, &q, &k, &v, &options)?;
        let bits = |t: &Tensor| -> gristmill::Result<Vec<f32>> { ops::cast(t, F32)?.to_vec() };
        Ok(bits(&out)? == bits(&dense)? && bits(&ops::attention(&q, &k, &v, &options)?)? == bits(&dense)?)
    };
    for (dtype, head_dim) in [(F32, 16), (F32, 7), (F16, 24), (BF16, 10)] {
        if !run(dtype, head_dim).map_err(|e| e.to_string())? {
            return Err(format!("{dtype} heads of {head_dim} on {}: strides change the result", subject.name));
        }
    }
    #[cfg(feature = "npy")]
    {
        let bytes: Vec<u8> = (0..35).map(|i| [0x80, 0, 0, 0x80, 0x40, 0, 1][i * 3 % 7]).collect();
        let plain: Vec<bool> = bytes.iter().map(|&byte| byte != 0).collect();
        let odd = Host::bool_bytes(device, &bytes)?;
        let run = || -> gristmill::Result<_> {
            let (q, k) =
                (Tensor::rand_normal(device, &[1, 1, 5, 8], 0.0, 1.0, 4)?, Tensor::rand_normal(device, &[1, 1, 7, 8], 0.0, 1.0, 5)?);
            let with = |mask: Tensor| -> gristmill::Result<Vec<f32>> {
                ops::attention(&q, &k, &k, &Attention { mask: Some(&mask.reshape(&[5, 7])?), ..Attention::default() })?.to_vec()
            };
            Ok((with(odd)?, with(Tensor::from_slice(device, &plain, &[35])?)?))
        };
        let (odd, plain) = run().map_err(|e| e.to_string())?;
        if odd != plain {
            return Err(format!("a mask of odd bytes on {}: {odd:?}, not {plain:?}", subject.name));
        }
    }
    Ok(())
}

/// Every combination of types, in columns for both widths, for pairs, and for neither: through one tune each, the full matrix through all
/// (they differ in the registers of the result alone, and each takes a second to compile for two widths).
fn types(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(31);
    let mut all = vec![[F32; 4], [F16; 4], [F16, F32, F32, F32]];
    for narrow in [F16, BF16] {
        all.extend([[narrow, narrow, narrow, F32], [F32, narrow, narrow, narrow], [F32, narrow, narrow, F32], [F32, F32, narrow, F32]]);
        all.extend([[narrow; 4], [narrow, F32, narrow, F32]]);
    }
    all.push([F16, BF16, BF16, BF16]);
    let columns = [(24, 40), (16, 64), (5, 9), (7, 6), (8, 7)];
    let tunes = pinned(device, OP, level);
    for (turn, (tune, handle)) in tunes.iter().enumerate() {
        for (i, &dtypes) in all.iter().enumerate() {
            let skip = if level == Level::Smoke { i % 3 != 1 } else { i % tunes.len() != turn };
            if level < Level::Full && skip {
                continue;
            }
            for (j, &(head_dim, v_dim)) in columns.iter().enumerate() {
                let mask = (i % 2 == 0).then(|| vec![35, 37]);
                let bias = (j % 2 == 0).then(|| vec![2, 1, 35, 37]);
                let shape = Shape {
                    batch: 2,
                    heads: 2,
                    seq_q: 35,
                    seq_k: 37,
                    head_dim,
                    v_dim,
                    causal: Causal::BottomRight,
                    mask,
                    bias,
                    dtypes,
                    ..Shape::default()
                };
                check(OP, &subject.name, handle, &case(&mut random, shape), level == Level::Full).map_err(|e| format!("{tune} {e}"))?;
            }
        }
    }
    Ok(())
}

/// N5: queries alone, and among others, in a batch and without one, give the same bits.
fn batch_invariant(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(32);
    let handle = device.batch_invariant();
    for (dtype, head_dim, v_dim, seq_k) in [(F32, 24, 40, 150), (F32, 7, 5, 70), (BF16, 16, 64, 300)] {
        let mut host = |dims: &[usize]| random.floats(dims).to(dtype);
        let (q, k, v) = (host(&[3, 2, 257, head_dim]), host(&[3, 1, seq_k, head_dim]), host(&[3, 1, seq_k, v_dim]));
        let run = |batch: usize, batches: usize, first: usize, len: usize| -> gristmill::Result<Vec<u32>> {
            let part = |host: &Host| host.upload(&handle)?.narrow(0, batch..batch + batches);
            let q = ops::copy(&part(&q)?.narrow(2, first..first + len)?)?;
            let out = ops::attention(&q, &part(&k)?, &part(&v)?, &Attention::default())?;
            Ok(ops::cast(&out, F32)?.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect())
        };
        let whole = run(0, 3, 0, 257).map_err(|e| e.to_string())?;
        for len in [1, 7, 32, 33, 65, 257].into_iter().take(if level == Level::Smoke { 2 } else { 6 }) {
            let (batch, first) = (random.below(3), random.below(258 - len));
            let part = run(batch, 1, first, len).map_err(|e| e.to_string())?;
            for head in 0..2 {
                let at = ((batch * 2 + head) * 257 + first) * v_dim;
                if part[head * len * v_dim..][..len * v_dim] != whole[at..][..len * v_dim] {
                    return Err(format!(
                        "{dtype} queries {first}..{} of batch {batch} differ on {} from what they are among all (N5)",
                        first + len,
                        subject.name
                    ));
                }
            }
        }
    }
    Ok(())
}

/// For each tune and each size round its blocks.
fn blocks(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(6);
    for (tune, handle) in pinned(device, "attention", level) {
        let v_max = tune.strip_prefix("attention.v").map_or(256, |n| n.parse::<usize>().unwrap_or(256));
        // Round the GPU's blocks of 32 and the CPU's of 64 and 128.
        let queries = [32, 1, 31, 33, 67, 64, 65];
        let keys = [33, 32, 1, 31, 97, 0, 128, 129, 300];
        let dims = [16, 15, 17, 1, 33, 256];
        let values = [v_max, v_max - 1, 1, v_max / 2 + 1, 5];
        let rounds = if level == Level::Full { 6 } else { 1 };
        for round in 0..rounds {
            for (i, &seq_k) in keys.iter().enumerate() {
                let shape = Shape {
                    batch: 1 + i % 2,
                    heads: 2,
                    kv_heads: 1 + i % 3 / 2,
                    seq_q: queries[(i + round) % 7],
                    seq_k,
                    head_dim: dims[(i + 2 * round) % 6],
                    v_dim: values[(i + 3 * round) % 5],
                    causal: [Causal::None, Causal::TopLeft, Causal::BottomRight][(i + round) % 3],
                    ..Shape::default()
                };
                check(OP, &subject.name, &handle, &case(&mut random, shape), level > Level::Smoke).map_err(|e| format!("{tune} {e}"))?;
            }
        }
    }
    Ok(())
}

/// N3, on inputs without outliers and at least 500 rows.
fn twice_plain(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(17);
    for (tune, handle) in pinned(device, "attention", level) {
        let v_dim = tune.strip_prefix("attention.v").map_or(64, |n| n.parse::<usize>().unwrap_or(64));
        for (seq_k, causal, mask, narrow) in [
            (65, Causal::None, None, F32),
            (300, Causal::BottomRight, None, F16),
            (130, Causal::TopLeft, Some(vec![67, 130]), F32),
            (130, Causal::None, None, BF16),
        ] {
            let dtypes = [F32, narrow, narrow, F32];
            let shape =
                Shape { dtypes, batch: 2, heads: 4, kv_heads: 2, seq_q: 67, seq_k, head_dim: 64, v_dim, causal, mask, ..Shape::default() };
            let mut inputs = inputs(&mut random, &shape);
            for host in &mut inputs[..3] {
                let values: Vec<f32> = (0..host.dims.iter().product()).map(|_| (random.unit() * 2.0 - 1.0) as f32).collect();
                *host = Host::new(&host.dims, &values).to(narrow);
            }
            check(OP, &subject.name, &handle, &case_of(shape, inputs, true), level > Level::Smoke).map_err(|e| format!("{tune} {e}"))?;
        }
    }
    Ok(())
}

/// N1: with q of zeros every visible key weighs the same, so with 2^n visible keys and whole values both products are exact; and with one
/// key far above the rest the result is that key's value, bit for bit.
fn exact(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(7);
    for (tune, handle) in pinned(device, "attention", level) {
        let v_max = tune.strip_prefix("attention.v").map_or(256, |n| n.parse::<usize>().unwrap_or(256));
        for (seq_q, seq_k, v_dim) in [(33, 64, v_max), (5, 128, v_max / 2 + 1), (40, 1, 3)] {
            let shape = Shape { heads: 2, seq_q, seq_k, v_dim, head_dim: 20, ..Shape::default() };
            let mut inputs = inputs(&mut random, &shape);
            inputs[0] = Host::new(&[1, 2, seq_q, 20], &vec![0.0f32; 2 * seq_q * 20]);
            inputs[2] = random.integers(&[1, 1, seq_k, v_dim], 1024);
            let values = inputs[2].f64s();
            let mean = |column: usize| (0..seq_k).map(|key| values[key * v_dim + column]).sum::<f64>() / seq_k as f64;
            let means: Vec<f64> = (0..v_dim).map(mean).collect();
            let expected: Vec<f64> = (0..2 * seq_q).flat_map(|_| means.clone()).collect();
            check_exact(subject, &handle, shape, inputs, expected).map_err(|e| format!("{tune} {e}"))?;
        }
        for causal in [Causal::None, Causal::TopLeft, Causal::BottomRight] {
            // Query i asks for key (7 i + 3) mod (what it sees): k is a rotated unit basis, far apart after scaling.
            let (seq_q, seq_k, v_dim) = (45, 45, v_max.min(40));
            let shape = Shape { seq_q, seq_k, head_dim: 45, v_dim, causal, scale: Some(1.0), ..Shape::default() };
            let target = |row: usize| (7 * row + 3) % (if causal == Causal::None { seq_k } else { row + 1 });
            let mut q = vec![0.0f32; seq_q * 45];
            let mut k = vec![0.0f32; seq_k * 45];
            (0..seq_q).for_each(|row| q[row * 45 + target(row)] = 512.0);
            (0..seq_k).for_each(|key| k[key * 45 + key] = 1.0);
            let v = random.integers(&[1, 1, seq_k, v_dim], 2048);
            let values = v.f64s();
            let expected = (0..seq_q).flat_map(|row| values[target(row) * v_dim..][..v_dim].to_vec()).collect();
            let inputs = vec![Host::new(&[1, 1, seq_q, 45], &q), Host::new(&[1, 1, seq_k, 45], &k), v];
            check_exact(subject, &handle, shape, inputs, expected).map_err(|e| format!("{tune} {e}"))?;
        }
    }
    Ok(())
}

fn check_exact(subject: &Subject, device: &Device, shape: Shape, inputs: Vec<Host>, values: Vec<f64>) -> Result<(), String> {
    let dims = [shape.batch, shape.heads, shape.seq_q, shape.v_dim];
    let expected = Expected::exact(&dims, values);
    let (for_call, for_into) = (shape.clone(), shape.clone());
    let case = Case::new(
        format!("exact {shape:?}"),
        inputs,
        expected,
        move |t| ops::attention(&t[0], &t[1], &t[2], &options(&for_call, t)),
        move |out, t| ops::attention_into(out, &t[0], &t[1], &t[2], &options(&for_into, t)),
    );
    check(OP, &subject.name, device, &case, true)
}

/// Both masks, alone, together and with causal, in every shape that broadcasts.
fn masks(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(8);
    let shapes: [&[usize]; 6] = [&[2, 4, 35, 50], &[35, 50], &[50], &[2, 1, 1, 50], &[1, 4, 35, 1], &[2, 1, 35, 50]];
    for (i, dims) in shapes.into_iter().enumerate() {
        for (mask, bias) in [(true, false), (false, true), (true, true)] {
            let shape = Shape {
                batch: 2,
                heads: 4,
                kv_heads: [4, 2, 1][i % 3],
                seq_q: 35,
                seq_k: 50,
                head_dim: 24,
                // The smallest tune alone where each compiles for long.
                v_dim: if level == Level::Smoke { 30 } else { 40 },
                causal: [Causal::None, Causal::TopLeft, Causal::BottomRight][i % 3],
                mask: mask.then(|| dims.to_vec()),
                bias: bias.then(|| shapes[(i + 1) % 6].to_vec()),
                ..Shape::default()
            };
            check(OP, &subject.name, device, &case(&mut random, shape), level > Level::Smoke)?;
        }
    }
    Ok(())
}

/// N8: rows all masked by each means, no keys, biases as low as they go, huge scores; NaN stays in its row.
fn extremes(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let mut random = Random::new(10);
    let mut run = |shape: Shape, set: &mut dyn FnMut(&mut Vec<Host>)| {
        let mut inputs = inputs(&mut random, &shape);
        set(&mut inputs);
        check(OP, &subject.name, device, &case_of(shape, inputs, false), true)
    };
    let base = Shape { seq_q: 6, seq_k: 4, ..Shape::default() };
    // Bottom-right with more queries than keys: the first two rows see nothing.
    run(Shape { causal: Causal::BottomRight, ..base.clone() }, &mut |_| {})?;
    run(Shape { mask: Some(vec![6, 4]), ..base.clone() }, &mut |t| t[3] = Host::new(&[6, 4], &[false; 24]))?;
    run(Shape { bias: Some(vec![6, 4]), ..base.clone() }, &mut |t| {
        // -inf masks; the lowest finite value does not.
        let rows = [[f32::NEG_INFINITY; 4], [f32::MIN; 4], [0.0, f32::MIN, f32::NEG_INFINITY, -1e30]];
        t[3] = Host::new(&[6, 4], &[rows, rows].concat().concat());
        // The reference cannot tell sums that f32 absorbs: leave only the bias.
        t[0] = Host::new(&[1, 1, 6, 16], &[0.0f32; 96]);
    })?;
    run(Shape { seq_k: 0, ..base.clone() }, &mut |_| {})?;
    run(Shape { scale: Some(0.0), ..base.clone() }, &mut |_| {})?;
    // Scores past 1e4 in either direction.
    run(Shape { scale: Some(-700.0), seq_k: 40, ..base.clone() }, &mut |_| {})?;
    run(Shape { scale: Some(1e36), ..base }, &mut |t| {
        t[0] = Host::new(&[1, 1, 6, 16], &(0..96).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>());
        t[1] = Host::new(&[1, 1, 4, 16], &(0..64).map(|i| (i % 5) as f32 - 2.0).collect::<Vec<_>>());
    })?;

    let shape = Shape { seq_q: 3, ..Shape::default() };
    let mut hosts = inputs(&mut random, &shape);
    let clean = attend(device, &shape, &hosts)?;
    let mut q: Vec<f32> = hosts[0].f64s().iter().map(|&x| x as f32).collect();
    q[16] = f32::NAN;
    hosts[0] = Host::new(&[1, 1, 3, 16], &q);
    let out = attend(device, &shape, &hosts)?;
    let same = |row: usize| out[row * 16..][..16] == clean[row * 16..][..16];
    if same(0) && same(2) { Ok(()) } else { Err("NaN left its row".into()) }
}

fn attend(device: &Device, shape: &Shape, hosts: &[Host]) -> Result<Vec<f32>, String> {
    let t = hosts.iter().map(|h| h.place(device, Form::Dense)).collect::<Result<Vec<_>, _>>()?;
    let out = ops::attention(&t[0], &t[1], &t[2], &options(shape, &t)).and_then(|t| t.to_vec::<f32>());
    out.map_err(|error| error.to_string())
}

/// More workgroups than a dimension of the grid holds: where the limit is WebGPU's own, and everywhere in the full matrix.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke
        || level == Level::Quick && subject.name.starts_with("vulkan") && !subject.name.contains('@') && only().is_none()
    {
        return Ok(());
    }
    // One key each: the result is v, exactly.
    let shape = Shape { batch: 66_001, seq_q: 1, seq_k: 1, head_dim: 1, v_dim: 1, ..Shape::default() };
    let mut random = Random::new(11);
    let mut inputs = inputs(&mut random, &shape);
    inputs[2] = random.integers(&[66_001, 1, 1, 1], 1 << 20);
    let values = inputs[2].f64s();
    let expected = Expected::exact(&[66_001, 1, 1, 1], values);
    let case = Case::new(
        "66001 heads",
        inputs,
        expected,
        |t| ops::attention(&t[0], &t[1], &t[2], &Attention::default()),
        |out, t| ops::attention_into(out, &t[0], &t[1], &t[2], &Attention::default()),
    );
    check(OP, &subject.name, device, &case, false)
}

/// Shapes and options that nobody chose.
fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let sizes = (1usize..3, 1usize..4, 1usize..3, 0usize..70, 0usize..70, 1usize..80, 1usize..80);
    sample(level, &(sizes, any::<u64>()), |((batch, kv_heads, group, seq_q, seq_k, head_dim, v_dim), seed)| {
        let mut random = Random::new(seed);
        let v_dim = if level == Level::Smoke { v_dim.min(32) } else { v_dim };
        let scores = [batch, kv_heads * group, seq_q, seq_k];
        let mut mask = |chance: usize| {
            (random.below(3) < chance).then(|| {
                let from = random.below(4);
                scores[from..].iter().map(|&d| if random.below(3) == 0 { 1 } else { d }).collect::<Vec<_>>()
            })
        };
        let (bool_mask, bias) = (mask(1), mask(1));
        let narrow = [F16, BF16][random.below(2)];
        let all = [[F32; 4], [narrow; 4], [F32, narrow, narrow, F32], [F32, F32, narrow, F32], [narrow, F32, F32, F32]];
        let shape = Shape {
            dtypes: all[random.below(5)],
            batch,
            heads: kv_heads * group,
            kv_heads,
            seq_q,
            seq_k,
            head_dim,
            v_dim,
            causal: [Causal::None, Causal::TopLeft, Causal::BottomRight][random.below(3)],
            scale: [None, Some(0.5), Some(-0.01)][random.below(3)],
            mask: bool_mask,
            bias,
        };
        check(OP, &subject.name, device, &case(&mut random, shape), true)
    })
}
