//! Attention: every tune at sizes round every block, all options, GQA, masks; N1, N3, N4, N6, N8, N9.

use std::sync::Arc;

use DType::{BF16, F16, F32};
use gristmill::ops::{self, Align, Attention, AttentionRope, Axes, Dropout, Rope, RopeFrequencies, RopeStyle, RopeTable, Window};
use gristmill::{DType, Device, Tensor};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::bounds;
use crate::support::compare::compare;
use crate::support::devices::{Level, Subject, only};
use crate::support::input::{Form, Host, Random};
use crate::support::reference::{self, broadcast};
use crate::support::runner::{Case, Expected, check, same_on_any_threads, sample, trial, trials};

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
    all.extend(trials(OP, "pairs", pairs));
    all.extend(trials(OP, "edges", edges));
    all.extend(trials(OP, "lse", lse));
    all.extend(trials(OP, "merges", merges));
    #[cfg(feature = "gpu")]
    all.extend(trials(OP, "choices", choices));
    all.push(trial("attention::threads", || {
        let shape = Shape { heads: 4, kv_heads: 2, seq_q: 70, seq_k: 150, ..Shape::default() };
        let narrow = Shape { dtypes: [BF16, BF16, BF16, F32], ..shape.clone() };
        same_on_any_threads(|_| [&shape, &narrow].map(|shape| case(&mut Random::new(9), shape.clone())).into())
    }));
    all
}

/// Causal masking, in the ways that most tests ask for it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Causal {
    None,
    TopLeft,
    BottomRight,
    Offset(i64),
}

impl Causal {
    fn align(self) -> Align {
        match self {
            Causal::None | Causal::BottomRight => Align::BottomRight,
            Causal::TopLeft => Align::TopLeft,
            Causal::Offset(offset) => Align::Offset(offset),
        }
    }
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
    /// Where the queries stand, where `causal` does not say.
    align: Option<Align>,
    window: Window,
    scale: Option<f32>,
    softcap: Option<f32>,
    mask: Option<Vec<usize>>,
    bias: Option<Vec<usize>>,
    /// The numbers of slopes and of sinks: one or `heads`.
    alibi: Option<usize>,
    sinks: Option<usize>,
    lens: Option<Vec<u32>>,
    dropout: Option<Dropout>,
    axes: Axes,
    /// Whether q and k are to be turned: `turns` compares that with turning them before.
    rope: bool,
    /// Of out, q, k with v, bias (and slopes and sinks).
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
            align: None,
            window: Window::default(),
            scale: None,
            softcap: None,
            mask: None,
            bias: None,
            alibi: None,
            sinks: None,
            lens: None,
            dropout: None,
            axes: Axes::HeadsFirst,
            rope: false,
            dtypes: [F32; 4],
        }
    }
}

impl Shape {
    /// Which inputs there are beside q, k and v: mask, bias, alibi, sinks, lens.
    fn others(&self) -> [bool; 5] {
        [self.mask.is_some(), self.bias.is_some(), self.alibi.is_some(), self.sinks.is_some(), self.lens.is_some()]
    }

    /// The place of one of them among the inputs.
    fn input(&self, other: usize) -> Option<usize> {
        self.others()[other].then(|| 3 + self.others()[..other].iter().filter(|there| **there).count())
    }

    /// Keys of a batch.
    fn len(&self, batch: usize) -> usize {
        self.lens.as_ref().map_or(self.seq_k, |lens| self.seq_k.min(lens[if lens.len() == 1 { 0 } else { batch }] as usize))
    }

    /// The place of a query among the keys.
    fn place(&self, batch: usize, row: usize) -> i64 {
        row as i64
            + match self.align.unwrap_or(self.causal.align()) {
                Align::TopLeft => 0,
                Align::BottomRight => self.len(batch) as i64 - self.seq_q as i64,
                Align::Offset(offset) => offset,
            }
    }

    /// Visible by place alone.
    fn sees(&self, batch: usize, row: usize, key: usize) -> bool {
        let ahead = key as i64 - self.place(batch, row);
        key < self.len(batch)
            && (self.causal == Causal::None || ahead <= 0)
            && self.window.left.is_none_or(|left| -ahead <= left as i64)
            && self.window.right.is_none_or(|right| ahead <= right as i64)
    }

    /// A shape of [batch, heads, seq, dim] in the order that is asked for.
    fn ordered(&self, [batch, heads, seq, dim]: [usize; 4]) -> [usize; 4] {
        if self.axes == Axes::HeadsFirst { [batch, heads, seq, dim] } else { [batch, seq, heads, dim] }
    }
}

/// A call's inputs: q, k, v, then what else there is.
fn inputs(random: &mut Random, shape: &Shape) -> Vec<Host> {
    let Shape { batch, heads, kv_heads, seq_q, seq_k, head_dim, v_dim, dtypes: [_, q, kv, bias], .. } = *shape;
    let mut all = vec![
        random.floats(&shape.ordered([batch, heads, seq_q, head_dim])).to(q),
        random.floats(&shape.ordered([batch, kv_heads, seq_k, head_dim])).to(kv),
        random.floats(&shape.ordered([batch, kv_heads, seq_k, v_dim])).to(kv),
    ];
    all.extend(shape.mask.as_ref().map(|dims| random.bools(dims, 0.7)));
    all.extend(shape.bias.as_ref().map(|dims| {
        let values: Vec<f32> = random.floats(dims).f64s().iter().map(|&v| if v > 0.5 { f32::NEG_INFINITY } else { v as f32 }).collect();
        Host::new(dims, &values).to(bias)
    }));
    all.extend(shape.alibi.map(|count| Host::new(&[count], &(0..count).map(|i| 0.5f32.powi(i as i32 + 1)).collect::<Vec<_>>()).to(bias)));
    all.extend(shape.sinks.map(|count| random.floats(&[count]).to(bias)));
    all.extend(shape.lens.as_ref().map(|lens| Host::new(&[lens.len()], lens)));
    all
}

fn options<'a>(shape: &Shape, t: &'a [Tensor]) -> Attention<'a> {
    let input = |other: usize| shape.input(other).map(|input| &t[input]);
    Attention {
        causal: shape.causal != Causal::None,
        align: shape.align.unwrap_or(shape.causal.align()),
        window: shape.window,
        scale: shape.scale,
        softcap: shape.softcap,
        mask: input(0),
        bias: input(1),
        alibi: input(2),
        sinks: input(3),
        kv_lens: input(4),
        dropout: shape.dropout,
        axes: shape.axes,
        rope: None,
    }
}

/// A handle for each tune of each kernel that the device can run, and the most columns that it holds: of q and of v. On the CPU the device itself.
struct Way {
    name: String,
    device: Device,
    most: [usize; 2],
}

fn ways(device: &Device, level: Level) -> Vec<Way> {
    #[cfg(feature = "gpu")]
    if let Some(caps) = device.caps() {
        // What is for cards takes drivers of the smoke subset up to half a minute to compile: Mesa 26 has it.
        let kernels = ["attention_direct", "attention_decode", "attention", "attention_subgroups"];
        let asked = crate::support::devices::kernel();
        let kernels = match &asked {
            Some(name) => &[name.as_str()][..],
            None => &kernels[..if level == Level::Smoke { 2 } else { 4 }],
        };
        if let Some(lanes) = crate::support::devices::subgroups() {
            assert_eq!(caps.subgroups, Some((lanes, lanes)), "GRISTMILL_TEST_SUBGROUPS, and {}", caps.name);
        }
        let all = kernels.iter().filter_map(|name| gristmill::ops::kernels().iter().find(|kernel| kernel.name == *name));
        let ways: Vec<Way> = all
            .flat_map(|kernel| {
                let able = kernel.tunes.iter().filter(|tune| ops::attention::gpu::fits(caps, kernel, tune).is_ok());
                // One of each where every one compiles for long.
                able.take(if level == Level::Smoke { 1 } else { usize::MAX }).map(|tune| {
                    let size = |name: &str| tune.get(name).map(|size| size as usize);
                    let values = size("V_MAX").or(size("D_MAX")).unwrap_or(64);
                    Way {
                        name: format!("{}.{}", kernel.name, tune.name),
                        device: device.pinned((*kernel, tune)),
                        most: [size("D_MAX").unwrap_or(512), values],
                    }
                })
            })
            .collect();
        assert!(!ways.is_empty(), "no tune of {kernels:?} is for {}", caps.name);
        return ways;
    }
    let _ = level;
    vec![Way { name: "cpu".into(), device: device.clone(), most: [512, 512] }]
}

/// The first tune of each kernel.
fn one_of_each(mut ways: Vec<Way>) -> Vec<Way> {
    ways.dedup_by(|a, b| a.name.split('.').next() == b.name.split('.').next());
    ways
}

/// What the device chooses, and beyond the smoke subset each kernel.
fn chosen_and_each(device: &Device, level: Level) -> Vec<Way> {
    let chosen = Way { name: "chosen".into(), device: device.clone(), most: [512, 512] };
    #[cfg(feature = "gpu")]
    if level > Level::Smoke && device.caps().is_some() && crate::support::devices::kernel().is_none() {
        return std::iter::once(chosen).chain(one_of_each(ways(device, level))).collect();
    }
    let _ = level;
    vec![chosen]
}

/// Without outliers, which would widen the bounds: q, k and v of [`inputs`] from -1 to 1.
fn calm(random: &mut Random, shape: &Shape) -> Vec<Host> {
    let mut inputs = inputs(random, shape);
    for (host, dtype) in inputs.iter_mut().zip([shape.dtypes[1], shape.dtypes[2], shape.dtypes[2]]) {
        let values: Vec<f32> = (0..host.dims.iter().product()).map(|_| (random.unit() * 2.0 - 1.0) as f32).collect();
        *host = Host::new(&host.dims, &values).to(dtype);
    }
    inputs
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
            let dims = for_call.ordered([batch, heads, seq_q, v_dim]);
            if out == q {
                return ops::attention(&t[0], &t[1], &t[2], &options(&for_call, t));
            }
            // A type that only `_into` gives.
            let mut result = Tensor::zeros(t[0].device(), out, &dims)?;
            ops::attention_into(&mut result, &t[0], &t[1], &t[2], &options(&for_call, t))?;
            Ok(result)
        }),
        call_into: Box::new(move |out, t| ops::attention_into(out, &t[0], &t[1], &t[2], &options(&for_into, t))),
        expected: Box::new(move |device| {
            let dims = shape.ordered([shape.batch, shape.heads, shape.seq_q, shape.v_dim]);
            let (values, bounds) = (&truth.values, &truth.bounds);
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

/// A mask with what hides the keys that it is too short for.
fn padded(mask: &Host, seq_k: usize, hidden: f64) -> (Vec<f64>, Vec<usize>) {
    let (mut dims, own) = (mask.dims.clone(), mask.dims.last().copied().unwrap_or(1));
    if own == 1 || own == seq_k {
        return (mask.f64s(), dims);
    }
    dims.pop();
    dims.push(seq_k);
    let rows = mask.f64s().chunks(own).flat_map(|row| row.iter().copied().chain(vec![hidden; seq_k - own]).collect::<Vec<_>>()).collect();
    (rows, dims)
}

/// Over [batch, heads, seq_q, seq_k]: what is added to each score, -inf where masked.
fn biases(shape: &Shape, inputs: &[Host]) -> Vec<f64> {
    let scores = [shape.batch, shape.heads, shape.seq_q, shape.seq_k];
    let count: usize = scores.iter().product();
    let mut all = vec![0.0; count];
    if let Some(mask) = shape.input(0).map(|input| &inputs[input]) {
        let (values, dims) = padded(mask, shape.seq_k, 0.0);
        let mask = broadcast(&values, &dims, &scores);
        all.iter_mut().zip(mask).for_each(|(b, shown)| *b = if shown == 0.0 { f64::NEG_INFINITY } else { *b });
    }
    if let Some(bias) = shape.input(1).map(|input| &inputs[input]) {
        let (values, dims) = padded(bias, shape.seq_k, f64::NEG_INFINITY);
        let bias = broadcast(&values, &dims, &scores);
        all.iter_mut().zip(bias).for_each(|(b, add)| *b += add);
    }
    for (i, b) in all.iter_mut().enumerate() {
        let (batch, row, key) = (i / shape.seq_k / shape.seq_q / shape.heads, i / shape.seq_k % shape.seq_q, i % shape.seq_k);
        if !shape.sees(batch, row, key) {
            *b = f64::NEG_INFINITY;
        }
    }
    all
}

/// A number for each head.
fn per_head(shape: &Shape, inputs: &[Host], other: usize) -> Option<Vec<f64>> {
    let values = inputs[shape.input(other)?].f64s();
    Some((0..shape.heads).map(|head| values[if values.len() == 1 { 0 } else { head }]).collect())
}

/// Philox4x32-10 from its paper, in u64 arithmetic.
fn philox(mut counter: [u64; 4], mut key: [u64; 2]) -> [u64; 4] {
    for _ in 0..10 {
        let (first, other) = (counter[0] * 0xD251_1F53, counter[2] * 0xCD9E_8D57);
        let low = |x: u64| x & 0xffff_ffff;
        counter = [(other >> 32) ^ counter[1] ^ key[0], low(other), (first >> 32) ^ counter[3] ^ key[1], low(first)];
        key = [low(key[0] + 0x9E37_79B9), low(key[1] + 0xBB67_AE85)];
    }
    counter
}

/// What dropout multiplies the weight of a key by.
fn kept(shape: &Shape, head: usize, row: usize, key: usize) -> f64 {
    let Some(Dropout { probability, seed, offset }) = shape.dropout else { return 1.0 };
    let words = philox([key as u64 / 4, row as u64, head as u64, offset.into()], [seed & 0xffff_ffff, seed >> 32]);
    let uniform = (words[key % 4] >> 8) as f64 / f64::from(1 << 24);
    if uniform < f64::from(probability) { 0.0 } else { 1.0 / (1.0 - f64::from(probability)) }
}

fn scale_of(shape: &Shape) -> f32 {
    shape.scale.unwrap_or(1.0 / (shape.head_dim as f32).sqrt())
}

/// An input as [batch, heads, seq, dim].
fn heads_first(shape: &Shape, host: &Host) -> Vec<f64> {
    let values = host.f64s();
    if shape.axes == Axes::HeadsFirst {
        return values;
    }
    let [batch, seq, heads, dim] = [0, 1, 2, 3].map(|axis| host.dims[axis]);
    let mut all = Vec::with_capacity(values.len());
    for (b, h, s) in (0..batch).flat_map(|b| (0..heads).flat_map(move |h| (0..seq).map(move |s| (b, h, s)))) {
        all.extend_from_slice(&values[((b * seq + s) * heads + h) * dim..][..dim]);
    }
    all
}

/// Back: rows of `len` for each [batch, heads, seq] in the order that is asked for.
fn in_order(shape: &Shape, values: &[f64], len: usize) -> Vec<f64> {
    if shape.axes == Axes::HeadsFirst {
        return values.to_vec();
    }
    let (heads, seq) = (shape.heads, shape.seq_q);
    let places = (0..shape.batch).flat_map(|b| (0..seq).flat_map(move |s| (0..heads).map(move |h| (b * heads + h) * seq + s)));
    places.flat_map(|place| values[place * len..][..len].to_vec()).collect()
}

/// The f64 reference, head by head.
fn truth(shape: &Shape, inputs: &[Host]) -> reference::Attended {
    let Shape { batch, heads, kv_heads, seq_q, seq_k, head_dim, v_dim, .. } = *shape;
    let [q, k, v] = [0, 1, 2].map(|i| heads_first(shape, &inputs[i]));
    let (biases, slopes, sinks) = (biases(shape, inputs), per_head(shape, inputs, 2), per_head(shape, inputs, 3));
    let mut all = reference::Attended::default();
    for head in 0..batch * heads {
        let kv = head / heads * kv_heads + head % heads / (heads / kv_heads);
        let over = |of: &dyn Fn(usize, usize) -> f64| -> Vec<f64> { (0..seq_q * seq_k).map(|i| of(i / seq_k, i % seq_k)).collect() };
        let slope = slopes.as_ref().map_or(0.0, |slopes| slopes[head % heads]);
        let own = reference::attention(&reference::Head {
            qkv: (
                &q[head * seq_q * head_dim..][..seq_q * head_dim],
                &k[kv * seq_k * head_dim..][..seq_k * head_dim],
                &v[kv * seq_k * v_dim..][..seq_k * v_dim],
            ),
            sizes: [seq_q, seq_k, head_dim, v_dim],
            scale: f64::from(scale_of(shape)),
            softcap: shape.softcap.map(f64::from),
            sink: sinks.as_ref().map(|sinks| sinks[head % heads]),
            alibi: &over(&|row, key| -slope * (shape.place(head / heads, row) - key as i64).abs() as f64),
            bias: &biases[head * seq_q * seq_k..][..seq_q * seq_k],
            kept: &over(&|row, key| kept(shape, head, row, key)),
        });
        all.values.extend(own.values);
        all.bounds.extend(own.bounds);
        all.lse.extend(own.lse);
        all.lse_bounds.extend(own.lse_bounds);
    }
    reference::Attended {
        values: in_order(shape, &all.values, v_dim),
        bounds: in_order(shape, &all.bounds, v_dim),
        lse: in_order(shape, &all.lse, 1),
        lse_bounds: in_order(shape, &all.lse_bounds, 1),
    }
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
    // Pairs beyond one eight, by each kernel.
    for way in one_of_each(ways(device, level)) {
        let shape = Shape { dtypes: [F16; 4], v_dim: 10, ..base.clone() };
        check(OP, &subject.name, &way.device, &case(&mut random, shape), false).map_err(|e| format!("{}: {e}", way.name))?;
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
fn layouts(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let run = |device: &Device, dtype: DType, head_dim: usize| -> gristmill::Result<bool> {
        let made = |heads: usize, seq: usize, gap: usize, seed: u64| -> gristmill::Result<Tensor> {
            let all = Tensor::rand_normal(device, &[2, seq, heads + gap, head_dim], 0.0, 1.0, seed)?;
            ops::cast(&all, dtype)?.narrow(2, gap..heads + gap)?.permute(&[0, 2, 1, 3])
        };
        let (q, k, v) = (made(4, 9, 0, 1)?, made(2, 11, 1, 2)?, made(2, 11, 3, 3)?);
        let options = Attention { causal: true, ..Attention::default() };
        let dense = ops::attention(&q.contiguous()?, &k.contiguous()?, &v.contiguous()?, &options)?;
        let mut out = Tensor::zeros(device, dtype, &[2, 9, 7, head_dim])?.narrow(2, 2..6)?.permute(&[0, 2, 1, 3])?;
        ops::attention_into(&mut out, &q, &k, &v, &options)?;
        let bits = |t: &Tensor| -> gristmill::Result<Vec<f32>> { ops::cast(t, F32)?.to_vec() };
        // Its first column is the fourth of what there is.
        let wide = ops::cast(&Tensor::rand_normal(device, &[2, 2, 11, head_dim + 3], 0.0, 1.0, 4)?, dtype)?.narrow(3, 3..head_dim + 3)?;
        let same = bits(&ops::attention(&q, &k, &wide, &options)?)? == bits(&ops::attention(&q, &k, &wide.contiguous()?, &options)?)?;
        Ok(same && bits(&out)? == bits(&dense)? && bits(&ops::attention(&q, &k, &v, &options)?)? == bits(&dense)?)
    };
    for way in chosen_and_each(device, level) {
        for (dtype, head_dim) in [(F32, 16), (F32, 7), (F16, 24), (BF16, 10)].into_iter().take(if level == Level::Smoke { 2 } else { 4 }) {
            if !run(&way.device, dtype, head_dim).map_err(|e| e.to_string())? {
                return Err(format!("{dtype} heads of {head_dim} on {}, {}: strides change the result", subject.name, way.name));
            }
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
            // Alone, and joined with a bias before.
            let bias = Tensor::zeros(device, F32, &[7])?;
            let with = |mask: Tensor| -> gristmill::Result<Vec<f32>> {
                let options = Attention { mask: Some(&mask.reshape(&[5, 7])?), ..Attention::default() };
                let alone: Vec<f32> = ops::attention(&q, &k, &k, &options)?.to_vec()?;
                let joined = ops::attention(&q, &k, &k, &Attention { bias: Some(&bias), ..options })?.to_vec()?;
                Ok([alone, joined].concat())
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
    let ways = ways(device, level);
    for (turn, Way { name, device: handle, .. }) in ways.iter().enumerate() {
        for (i, &dtypes) in all.iter().enumerate() {
            // Each spec compiles for seconds where only smoke is asked.
            let skip = if level == Level::Smoke { turn > 0 || dtypes != [F16; 4] } else { (i + turn) % all.len().min(ways.len()) != 0 };
            if level < Level::Full && skip {
                continue;
            }
            for (j, &(head_dim, v_dim)) in columns.iter().enumerate() {
                if level == Level::Smoke && ![0, 2].contains(&j) {
                    continue;
                }
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
                check(OP, &subject.name, handle, &case(&mut random, shape), level == Level::Full).map_err(|e| format!("{name} {e}"))?;
            }
        }
    }
    Ok(())
}

/// N5: queries alone, and among others, in a batch and without one, give the same bits.
fn batch_invariant(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    for way in chosen_and_each(device, level) {
        same_alone(subject, &way, level).map_err(|text| format!("{}: {text}", way.name))?;
    }
    Ok(())
}

fn same_alone(subject: &Subject, way: &Way, level: Level) -> Result<(), String> {
    let mut random = Random::new(32);
    let handle = way.device.batch_invariant();
    for (dtype, head_dim, v_dim, seq_k, causal) in [(F32, 24, 40, 150, false), (F32, 7, 5, 70, false), (BF16, 16, 64, 300, true)] {
        if level == Level::Smoke && dtype != F32 {
            continue;
        }
        let mut host = |dims: &[usize]| random.floats(dims).to(dtype);
        let (q, k, v) = (host(&[3, 2, 257, head_dim]), host(&[3, 1, seq_k, head_dim]), host(&[3, 1, seq_k, v_dim]));
        let run = |batch: usize, batches: usize, first: usize, len: usize| -> gristmill::Result<Vec<u32>> {
            let part = |host: &Host| host.upload(&handle)?.narrow(0, batch..batch + batches);
            let q = ops::copy(&part(&q)?.narrow(2, first..first + len)?)?;
            let options = Attention { causal, align: Align::Offset(first as i64), ..Attention::default() };
            let out = ops::attention(&q, &part(&k)?, &part(&v)?, &options)?;
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
    for Way { name: tune, device: handle, most: [d_max, v_max] } in ways(device, level) {
        // Round the GPU's blocks of 32 and the CPU's of 64 and 128.
        let queries = [32, 1, 31, 33, 67, 64, 65];
        let keys = [33, 32, 1, 31, 97, 0, 128, 129, 300];
        let dims = [16, 15, 17, 1, 512, 33];
        // The longest heads with values of whole eights.
        let values = [v_max, v_max - 1, 1, v_max / 2 + 1, v_max, 5];
        let rounds = if level == Level::Full { 6 } else { 1 };
        for round in 0..rounds {
            for (i, &seq_k) in keys.iter().enumerate() {
                let shape = Shape {
                    batch: 1 + i % 2,
                    heads: 2,
                    kv_heads: 1 + i % 3 / 2,
                    seq_q: queries[(i + round) % 7],
                    seq_k,
                    head_dim: dims[(i + 2 * round) % 6].min(d_max),
                    v_dim: values[(i + round) % 6],
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
    for Way { name: tune, device: handle, most: [_, v_dim] } in ways(device, level) {
        let v_dim = v_dim.min(256);
        // The order of addition is the same in all of a kernel's tunes: two of each, and one where only smoke is asked.
        let some = [
            "cpu",
            "direct.q2d64",
            "direct.q4d64",
            "attention.q32v64",
            "attention.q64v128",
            "subgroups.q32v64",
            "subgroups.q64v128",
            "decode.rows4d64",
            "decode.rows8d128",
        ];
        let taken = level == Level::Full || some.iter().any(|name| tune.ends_with(name));
        if !taken || level == Level::Smoke && tune.starts_with("attention_decode") {
            continue;
        }
        for (seq_k, causal, mask, narrow) in [
            (65, Causal::None, None, F32),
            (300, Causal::BottomRight, None, F16),
            (130, Causal::TopLeft, Some(vec![67, 130]), F32),
            (130, Causal::None, None, BF16),
        ] {
            if level == Level::Smoke && narrow != F32 {
                continue;
            }
            let dtypes = [F32, narrow, narrow, F32];
            let shape =
                Shape { dtypes, batch: 2, heads: 4, kv_heads: 2, seq_q: 67, seq_k, head_dim: 64, v_dim, causal, mask, ..Shape::default() };
            let inputs = calm(&mut random, &shape);
            check(OP, &subject.name, &handle, &case_of(shape, inputs, true), level == Level::Full).map_err(|e| format!("{tune} {e}"))?;
        }
    }
    Ok(())
}

/// N1: with q of zeros every visible key weighs the same, so with 2^n visible keys and whole values both products are exact; and with one
/// key far above the rest the result is that key's value, bit for bit.
fn exact(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(7);
    for Way { name: tune, device: handle, most: [_, v_max] } in ways(device, level) {
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
    // Of as many as make a sum below 2^23 no key may be lost.
    let (seq_q, seq_k) = (2, 1 << 17);
    let shape = Shape { seq_q, seq_k, head_dim: 8, v_dim: 8, ..Shape::default() };
    let q = Host::new(&[1, 1, seq_q, 8], &vec![0.0f32; seq_q * 8]);
    let (k, v) = (random.floats(&[1, 1, seq_k, 8]), random.integers(&[1, 1, seq_k, 8], 32));
    let values = v.f64s();
    let means: Vec<f64> = (0..8).map(|column| values.iter().skip(column).step_by(8).sum::<f64>() / seq_k as f64).collect();
    for way in one_of_each(ways(device, level)).into_iter().filter(|_| level > Level::Smoke) {
        let (shape, inputs) = (shape.clone(), vec![q.clone(), k.clone(), v.clone()]);
        check_exact(subject, &way.device, shape, inputs, means.repeat(seq_q)).map_err(|e| format!("{} {e}", way.name))?;
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
    for way in chosen_and_each(device, level) {
        masked(subject, &way, level).map_err(|text| format!("{}: {text}", way.name))?;
    }
    Ok(())
}

fn masked(subject: &Subject, way: &Way, level: Level) -> Result<(), String> {
    let mut random = Random::new(8);
    // By all kernels in one type: `types` has the others.
    let one = level == Level::Smoke || way.name != "chosen";
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
                dtypes: if one { [F32; 4] } else { [[F32; 4], [F16; 4], [BF16; 4]][(i + usize::from(mask)) % 3] },
                ..Shape::default()
            };
            check(OP, &subject.name, &way.device, &case(&mut random, shape), !one)?;
        }
    }
    Ok(())
}

/// N8: rows all masked by each means, no keys, biases as low as they go, huge scores; NaN stays in its row.
fn extremes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    for way in chosen_and_each(device, level) {
        extreme(subject, &way.device, level).map_err(|text| format!("{}: {text}", way.name))?;
    }
    Ok(())
}

fn extreme(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
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
    // The lowest of 16 bits too, but where each type compiles for seconds.
    let narrow = [(F16, -65_504.0f32), (BF16, f32::from_bits(0xff7f_0000))];
    for (narrow, low) in narrow.into_iter().filter(|_| level > Level::Smoke) {
        run(Shape { bias: Some(vec![6, 4]), dtypes: [narrow; 4], ..base.clone() }, &mut |t| {
            let rows = [[f32::NEG_INFINITY; 4], [low; 4], [0.0, low, f32::NEG_INFINITY, -1e4]];
            t[3] = Host::new(&[6, 4], &[rows, rows].concat().concat()).to(narrow);
            t[0] = Host::new(&[1, 1, 6, 16], &[0.0f32; 96]).to(narrow);
        })?;
    }
    run(Shape { seq_k: 0, ..base.clone() }, &mut |_| {})?;
    // Biases near the ends of f32, further apart than it holds or not: the highest weighs all.
    let inf = f32::NEG_INFINITY;
    for bias in [[-3e38, -2e38, inf, -3.4e38], [2e38, 3e38, inf, 1.0], [inf, -3e38, inf, inf], [-3e38, 3e38, inf, f32::MIN]] {
        let shape = Shape { bias: Some(vec![4]), ..base.clone() };
        let mut random = Random::new(12);
        let mut inputs = inputs(&mut random, &shape);
        inputs[0] = Host::new(&[1, 1, 6, 16], &[0.0f32; 96]);
        inputs[2] = random.integers(&[1, 1, 4, 16], 1024);
        inputs[3] = Host::new(&[4], &bias);
        let second = inputs[2].f64s()[16..32].to_vec();
        check_exact(subject, device, shape, inputs, second.repeat(6))?;
    }
    run(Shape { scale: Some(0.0), ..base.clone() }, &mut |_| {})?;
    // Scores past 1e3, without the outliers that would widen the bounds past the values.
    let shape = Shape { scale: Some(-700.0), seq_k: 40, ..base.clone() };
    run(shape.clone(), &mut |t| *t = calm(&mut Random::new(13), &shape))?;
    let by_number = |len: usize, of: &dyn Fn(usize) -> f32| (0..len).map(|i| of(i / 16)).collect::<Vec<_>>();
    // Up to ±1e4, with a scale of the products' own and with one of the options', and ±4.8e36: the last key weighs all, or the first.
    let k = Host::new(&[1, 1, 4, 16], &by_number(64, &|key| key as f32));
    let v = Random::new(14).integers(&[1, 1, 4, 16], 1024);
    let values = v.f64s();
    let expected: Vec<f64> = (0..6).flat_map(|row| values[[48, 0][row % 2]..][..16].to_vec()).collect();
    for (size, scale) in [(832.0, 0.25), (208.0, 1.0), (1.0, 1e35)] {
        let q = Host::new(&[1, 1, 6, 16], &by_number(96, &|row| if row % 2 == 0 { size } else { -size }));
        let shape = Shape { scale: Some(scale), ..base.clone() };
        check_exact(subject, device, shape, vec![q, k.clone(), v.clone()], expected.clone())?;
    }

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
    check(OP, &subject.name, device, &case, false)?;
    for way in one_of_each(ways(device, level)) {
        check(OP, &subject.name, &way.device, &case, false).map_err(|e| format!("{}: {e}", way.name))?;
    }
    // And of the masks that are joined: one key a query is left, and the result is its value.
    let [seq_q, seq_k] = [2_100, 2_000];
    let shape =
        Shape { seq_q, seq_k, head_dim: 1, v_dim: 1, mask: Some(vec![seq_q, seq_k]), bias: Some(vec![seq_q, seq_k]), ..Shape::default() };
    let target = |row: usize| row * 7 % seq_k;
    let (mut mask, mut bias) = (vec![true; seq_q * seq_k], vec![f32::NEG_INFINITY; seq_q * seq_k]);
    for row in 0..seq_q {
        bias[row * seq_k + target(row)] = 0.0;
        // One that the mask alone hides.
        bias[row * seq_k + (target(row) + 1) % seq_k] = 1.0;
        mask[row * seq_k + (target(row) + 1) % seq_k] = false;
    }
    let v = random.integers(&[1, 1, seq_k, 1], 1 << 20);
    let values = v.f64s();
    let [q, k] = [seq_q, seq_k].map(|seq| random.floats(&[1, 1, seq, 1]));
    let inputs = vec![q, k, v, Host::new(&[seq_q, seq_k], &mask), Host::new(&[seq_q, seq_k], &bias)];
    check_exact(subject, device, shape, inputs, (0..seq_q).map(|row| values[target(row)]).collect())
}

/// What the table of `Attention`'s docs calls an option, and what it is here.
type Option_ = (&'static str, fn(&mut Shape));

const OPTIONS: &[Option_] = &[
    ("causal", |shape| shape.causal = Causal::BottomRight),
    // Of no effect without a window, a diagonal or slopes.
    ("align", |shape| {
        shape.align = Some(Align::Offset(3));
        shape.window.left.get_or_insert(20);
    }),
    ("window.left", |shape| shape.window.left = Some(5)),
    ("window.right", |shape| shape.window.right = Some(2)),
    ("scale", |shape| shape.scale = Some(0.7)),
    ("softcap", |shape| shape.softcap = Some(1.5)),
    ("mask", |shape| shape.mask = Some(vec![2, 1, 37, 45])),
    ("bias", |shape| shape.bias = Some(vec![4, 37, 45])),
    ("alibi", |shape| shape.alibi = Some(4)),
    ("sinks", |shape| shape.sinks = Some(4)),
    ("kv_lens", |shape| shape.lens = Some(vec![40, 11])),
    // One of the draws is the threshold.
    ("dropout", |shape| shape.dropout = Some(Dropout { probability: 5_147_730.0 / 16_777_216.0, seed: 0x1234_5678_9ac8, offset: 7 })),
    ("axes", |shape| shape.axes = Axes::SeqFirst),
    ("rope", |shape| shape.rope = true),
];

/// Of `turns` alone: fewer keys than `k` has, none, and no queries.
const TURNED: [fn(&mut Shape); 3] =
    [|shape| shape.mask = Some(vec![37, 30]), |shape| (shape.seq_k, shape.causal) = (0, Causal::None), |shape| shape.seq_q = 0];

/// The cells of the table in the docs: of two options, `yes` or the error.
fn table() -> Result<Vec<(String, String, String)>, String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops/attention/mod.rs");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("/// |"))
        .skip_while(|line| !line.starts_with(" with |"))
        .take(OPTIONS.len() + 2);
    let mut rows = lines
        .take_while(|line| line.ends_with('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>());
    let head = rows.next().ok_or("no table of options in the docs of Attention")?;
    let mut cells = Vec::new();
    for row in rows.skip(1) {
        for (column, cell) in row.iter().enumerate().skip(1).filter(|(_, cell)| !cell.is_empty()) {
            cells.push((row[0].clone(), head[column].clone(), cell.clone()));
        }
    }
    Ok(cells)
}

/// Every pair of options, as the table in the docs has it: computed and compared, or refused with the error that it names.
fn pairs(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(41);
    let cells = table()?;
    let count = OPTIONS.len() * (OPTIONS.len() + 1) / 2;
    if cells.len() != count {
        return Err(format!("the table in the docs has {} pairs of {count}", cells.len()));
    }
    let ways = ways(device, level);
    let base = Shape { batch: 2, heads: 4, kv_heads: 2, seq_q: 37, seq_k: 45, head_dim: 24, v_dim: 20, ..Shape::default() };
    for (i, set) in TURNED.iter().enumerate() {
        let mut shape = base.clone();
        set(&mut shape);
        turns(&mut random, device, &shape).map_err(|text| format!("rope, special case {i}: {text}"))?;
    }
    let mut next = 0;
    for (i, (one, set_one)) in OPTIONS.iter().enumerate() {
        for (other, set_other) in &OPTIONS[..=i] {
            let cell = cells.iter().find(|(row, column, _)| row == one && column == other);
            let (_, _, cell) = cell.ok_or_else(|| format!("the table in the docs has no {one} with {other}"))?;
            next += 1;
            if level == Level::Smoke && next % 7 != 0 {
                continue;
            }
            let fitting: Vec<&Way> = ways
                .iter()
                .take(if level == Level::Smoke { 1 } else { usize::MAX })
                .filter(|way| way.most.iter().all(|&most| most >= 24))
                .collect();
            let way = fitting[next % fitting.len()];
            let mut shape = base.clone();
            set_one(&mut shape);
            set_other(&mut shape);
            let fail = |text: String| format!("{one} with {other}, by {}: {text}", way.name);
            if shape.rope {
                if cell != "yes" {
                    return Err(format!("{one} with {other} is {cell} in the docs, and no test knows that"));
                }
                turns(&mut random, &way.device, &shape).map_err(fail)?;
                continue;
            }
            let case = case(&mut random, shape.clone());
            if cell == "yes" {
                check(OP, &subject.name, &way.device, &case, false).map_err(fail)?;
                if shape.dropout.is_none() {
                    unfused(&way.device, &shape, &case).map_err(|text| fail(format!("with scores: {text}")))?;
                }
                continue;
            }
            let t = case.inputs.iter().map(|host| host.place(&way.device, Form::Dense)).collect::<Result<Vec<_>, _>>()?;
            match (case.call)(&t) {
                Err(error) if format!("{error:?}").starts_with(cell.trim_start_matches("Error::")) => {}
                Err(error) => return Err(fail(format!("{error:?}, not {cell}"))),
                Ok(_) => return Err(fail(format!("is computed, not refused with {cell}"))),
            }
        }
    }
    Ok(())
}

/// The result that comes with the scores, within the same bounds.
fn unfused(device: &Device, shape: &Shape, case: &Case) -> Result<(), String> {
    let t = case.inputs.iter().map(|host| host.place(device, Form::Dense)).collect::<Result<Vec<_>, _>>()?;
    let run = || ops::attention_with_scores(&t[0], &t[1], &t[2], &options(shape, &t), ops::Scores::Weights);
    let (out, _) = run().map_err(|error| error.to_string())?;
    let expected = (case.expected)(device)?;
    compare(&Host::of(&out)?.f64s(), &expected.values, &expected.bounds, &expected.dims).map(drop)
}

/// Turned by the call, `q` and `k` give what they give when turned before it, bit for bit: both results, and the scores.
fn turns(random: &mut Random, device: &Device, shape: &Shape) -> Result<(), String> {
    let inputs = inputs(random, shape);
    let hosts = inputs.iter().map(|host| host.place(device, Form::Gaps)).collect::<Result<Vec<_>, _>>()?;
    let run = || -> gristmill::Result<Result<(), String>> {
        // Of 24 columns 16 turn, every batch of the queries at positions of its own.
        let table = RopeTable::new(device, &RopeFrequencies::new(10_000.0, 16), 0..100)?;
        let positions: Vec<u32> = (0..shape.batch * shape.seq_q).map(|i| (i * 7 % 90) as u32).collect();
        let positions = Tensor::from_slice(device, &positions, &[shape.batch, shape.seq_q])?;
        let for_q = Rope { style: RopeStyle::Interleaved, positions: Some(&positions), ..Default::default() };
        let for_k = Rope { style: RopeStyle::Interleaved, offset: 3, ..Default::default() };
        let heads_first = |t: &Tensor| if shape.axes == Axes::SeqFirst { t.transpose(1, 2) } else { Ok(t.clone()) };
        for (q, k) in [(Some(for_q), Some(for_k)), (Some(for_q), None), (None, Some(for_k)), (None, None)] {
            let turned = |t: &Tensor, by: Option<Rope>| match by {
                Some(by) => heads_first(&ops::rope(&heads_first(t)?, &table, &by)?),
                None => Ok(t.clone()),
            };
            let before = [turned(&hosts[0], q)?, turned(&hosts[1], k)?];
            let plain = options(shape, &hosts);
            let options = Attention { rope: Some(AttentionRope { table: &table, q, k }), ..plain };
            let (got, lse) = ops::attention_with_lse(&hosts[0], &hosts[1], &hosts[2], &options)?;
            let (want, want_lse) = ops::attention_with_lse(&before[0], &before[1], &hosts[2], &plain)?;
            let mut pairs = vec![("result", got, want), ("logarithms", lse, want_lse)];
            if shape.dropout.is_none() {
                let scores = ops::Scores::Masked;
                let (_, got) = ops::attention_with_scores(&hosts[0], &hosts[1], &hosts[2], &options, scores)?;
                let (_, want) = ops::attention_with_scores(&before[0], &before[1], &hosts[2], &plain, scores)?;
                pairs.push(("scores", got, want));
            }
            for (what, got, want) in pairs {
                // As numbers: an error is no bytes.
                let same = ops::cast(&got, F32)?
                    .to_vec::<f32>()?
                    .iter()
                    .map(|x| x.to_bits())
                    .eq(ops::cast(&want, F32)?.to_vec::<f32>()?.iter().map(|x| x.to_bits()));
                if !same {
                    return Ok(Err(format!("q turns {}, k {}: {what}: not what turning before gives", q.is_some(), k.is_some())));
                }
            }
        }
        Ok(Ok(()))
    };
    run().map_err(|error| error.to_string())?
}

/// By name: one key, more queries than keys, a window of none, a batch without keys, lengths past the end, short masks, many keys, offsets far off.
fn edges(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(42);
    let base = Shape { batch: 2, heads: 4, kv_heads: 2, seq_q: 9, seq_k: 21, head_dim: 16, v_dim: 8, ..Shape::default() };
    let none = Window { left: Some(0), right: Some(0) };
    let shapes = [
        ("one key", Shape { seq_k: 1, sinks: Some(1), alibi: Some(1), ..base.clone() }),
        ("one query and one key", Shape { seq_q: 1, seq_k: 1, ..base.clone() }),
        ("more queries than keys", Shape { seq_q: 70, seq_k: 5, causal: Causal::BottomRight, sinks: Some(4), ..base.clone() }),
        ("a window of none", Shape { window: none, causal: Causal::TopLeft, ..base.clone() }),
        ("a window of none, a mask", Shape { window: none, mask: Some(vec![9, 21]), ..base.clone() }),
        ("a window past the keys", Shape { window: none, align: Some(Align::Offset(18)), ..base.clone() }),
        ("no keys", Shape { lens: Some(vec![0, 13]), ..base.clone() }),
        ("no keys, sinks, causal", Shape { lens: Some(vec![13, 0]), sinks: Some(4), causal: Causal::BottomRight, ..base.clone() }),
        ("lengths past the end", Shape { lens: Some(vec![u32::MAX, 22]), causal: Causal::BottomRight, ..base.clone() }),
        ("a short mask", Shape { mask: Some(vec![9, 17]), causal: Causal::BottomRight, ..base.clone() }),
        (
            "a short bias, lengths",
            Shape { bias: Some(vec![2, 1, 1, 6]), lens: Some(vec![4, 15]), causal: Causal::BottomRight, ..base.clone() },
        ),
        ("a short mask and a shorter", Shape { mask: Some(vec![9, 17]), bias: Some(vec![4, 1, 9]), ..base.clone() }),
        ("lengths from the top left", Shape { lens: Some(vec![13, 4]), causal: Causal::TopLeft, ..base.clone() }),
        ("lengths and a past", Shape { lens: Some(vec![8, 19]), causal: Causal::Offset(6), ..base.clone() }),
        // Query 0 alone sees the last key of a step of 8, 16 or 32, and does not see that of the last.
        (
            "a window round a step",
            Shape { seq_q: 2, seq_k: 64, causal: Causal::BottomRight, window: Window { left: Some(31), right: None }, ..base.clone() },
        ),
        // And the first key of one.
        (
            "a window round a step",
            Shape { seq_q: 2, seq_k: 64, causal: Causal::BottomRight, window: Window { left: Some(30), right: None }, ..base.clone() },
        ),
        ("a past", Shape { causal: Causal::Offset(12), ..base.clone() }),
        ("before all keys", Shape { causal: Causal::Offset(-100), ..base.clone() }),
        (
            "far behind all keys",
            Shape { causal: Causal::Offset(200_000_000), window: Window { left: Some(199_999_990), right: None }, ..base.clone() },
        ),
        ("a prefix of a window", Shape { seq_q: 130, seq_k: 200, window: Window { left: Some(33), right: Some(5) }, ..base.clone() }),
    ];
    let ways = ways(device, level);
    for (i, (name, shape)) in shapes.into_iter().enumerate() {
        let case = case(&mut random, shape);
        for (turn, way) in ways.iter().take(if level == Level::Smoke { 1 } else { usize::MAX }).enumerate() {
            // Each by two of the kernels' tunes, turn by turn, but for what is about their steps.
            if ways.len() > 3 && turn % (ways.len() / 2) != i % (ways.len() / 2) && name != "a window round a step" {
                continue;
            }
            check(OP, &subject.name, &way.device, &case, level == Level::Full).map_err(|e| format!("{name}, {}: {e}", way.name))?;
        }
    }
    // A softcap of what is small beside it.
    let shape = Shape { softcap: Some(2.0), ..base.clone() };
    let inputs = calm(&mut random, &shape);
    check(OP, &subject.name, device, &case_of(shape, inputs, false), false)?;
    if level > Level::Smoke {
        let many = Shape { heads: 2, seq_q: 2, seq_k: 100_000, head_dim: 8, v_dim: 8, causal: Causal::BottomRight, ..Shape::default() };
        let case = case(&mut random, many);
        for way in one_of_each(ways) {
            check(OP, &subject.name, &way.device, &case, false).map_err(|e| format!("100,000 keys, {}: {e}", way.name))?;
        }
    }
    Ok(())
}

/// The logarithms of the sums, and that they are asked for changes nothing else; into views too.
fn lse(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(43);
    let base = Shape { batch: 2, heads: 4, kv_heads: 2, seq_q: 35, seq_k: 70, head_dim: 16, v_dim: 8, ..Shape::default() };
    let shapes = [
        base.clone(),
        Shape { causal: Causal::BottomRight, seq_k: 20, ..base.clone() },
        Shape { causal: Causal::BottomRight, sinks: Some(4), seq_k: 20, axes: Axes::SeqFirst, ..base.clone() },
        Shape { mask: Some(vec![35, 70]), bias: Some(vec![70]), softcap: Some(3.0), alibi: Some(4), ..base.clone() },
        Shape {
            lens: Some(vec![0, 50]),
            dropout: Some(Dropout { probability: 0.5, seed: 3, offset: 1 }),
            dtypes: [F16; 4],
            ..base.clone()
        },
        Shape { seq_q: 2, scale: Some(-500.0), dtypes: [F32, BF16, BF16, F32], ..base.clone() },
        // Below, some of the sinks are -inf, and q is zeros.
        Shape { causal: Causal::BottomRight, sinks: Some(4), seq_k: 20, ..base.clone() },
        base.clone(),
        Shape { causal: Causal::TopLeft, lens: Some(vec![60, 30]), ..base.clone() },
        Shape { causal: Causal::Offset(12), lens: Some(vec![20, 70]), ..base.clone() },
    ];
    for (i, shape) in shapes.into_iter().take(if level == Level::Smoke { 4 } else { usize::MAX }).enumerate() {
        let mut inputs = inputs(&mut random, &shape);
        match i {
            6 => inputs[3] = Host::new(&[4], &[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, -2.0]),
            7 => inputs[0] = Host::new(&inputs[0].dims, &vec![0.0f32; inputs[0].dims.iter().product()]),
            _ => {}
        }
        let truth = truth(&shape, &inputs);
        let ways = ways(device, level);
        for way in ways.iter().enumerate().filter(|(turn, _)| ways.len() < 4 || turn % 3 == i % 3).map(|(_, way)| way) {
            let handle = &way.device;
            let fail = |text: String| format!("{shape:?} on {}, {}: {text}", subject.name, way.name);
            let t = inputs.iter().map(|host| host.place(handle, Form::Dense)).collect::<Result<Vec<_>, _>>().map_err(fail)?;
            let run = || -> gristmill::Result<_> {
                let options = options(&shape, &t);
                let (out, lse) = ops::attention_with_lse(&t[0], &t[1], &t[2], &options)?;
                let plain = ops::attention(&t[0], &t[1], &t[2], &options)?;
                // Into every other column of the first rows of something else.
                let dims = lse.shape().to_vec();
                let all = Tensor::full(handle, 7.0f32, &[dims[0], dims[1], dims[2] + 70, 2])?;
                let mut wide = all.narrow(2, 0..dims[2])?.narrow(3, 1..2)?.squeeze(3)?;
                let mut again = Tensor::zeros(handle, out.dtype(), out.shape())?;
                ops::attention_with_lse_into(&mut again, &mut wide, &t[0], &t[1], &t[2], &options)?;
                let rest = all.narrow(2, dims[2]..dims[2] + 70)?.to_vec::<f32>()?;
                let kept = rest.into_iter().chain(all.narrow(3, 0..1)?.to_vec::<f32>()?).all(|value| value == 7.0);
                Ok((lse.to_vec::<f32>()?, dims, out, plain, wide.to_vec::<f32>()?, kept))
            };
            let (got, dims, out, plain, again, kept) = run().map_err(|e| fail(e.to_string()))?;
            if !kept {
                return Err(fail("logarithms are written beside their place".into()));
            }
            if again.iter().zip(&got).any(|(a, b)| a.to_bits() != b.to_bits()) {
                return Err(fail("a view gets other logarithms".into()));
            }
            if Host::of(&out).map_err(fail)?.bytes != Host::of(&plain).map_err(fail)?.bytes {
                return Err(fail("asking for logarithms changes the result".into()));
            }
            let got: Vec<f64> = got.into_iter().map(f64::from).collect();
            compare(&got, &truth.lse, &truth.lse_bounds, &dims).map_err(fail)?;
        }
    }
    // Of one key the logarithm is its score: a softcap of 1 to the 2^-22 that tanh is stated for, and a rounding.
    let rows = 4096;
    let x: Vec<f32> = (0..rows).map(|row| (row as f32 / 2048.0 - 1.0) * if row % 8 == 0 { 9.0 } else { 0.6 }).collect();
    let want: Vec<f64> = x.iter().map(|&x| f64::from(x).tanh()).collect();
    for way in one_of_each(ways(device, level)) {
        let run = || -> gristmill::Result<Vec<f32>> {
            let (q, k) = (Tensor::from_slice(&way.device, &x, &[1, 1, rows, 1])?, Tensor::full(&way.device, 1.0f32, &[1, 1, 1, 1])?);
            let options = Attention { scale: Some(1.0), softcap: Some(1.0), ..Attention::default() };
            ops::attention_with_lse(&q, &k, &k, &options)?.1.to_vec()
        };
        let got: Vec<f64> = run().map_err(|e| format!("{}: {e}", way.name))?.into_iter().map(f64::from).collect();
        compare(&got, &want, &vec![2.5 * reference::U; rows], &[rows]).map_err(|text| format!("a softcap, {}: {text}", way.name))?;
    }
    Ok(())
}

/// Parts over some of the keys each, joined: what one over all of them is, in every type and form; parts without keys; far apart.
fn merges(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(45);
    for (i, (dims, types)) in [
        ([2, 3, 5, 8], [F32; 3]),
        ([1, 2, 9, 7], [F32; 3]),
        ([1, 2, 70, 16], [F16, F32, F16]),
        ([2, 1, 3, 10], [BF16; 3]),
        ([2, 1, 3, 5], [F16, BF16, BF16]),
        ([1, 1, 1, 1], [F32, F16, F16]),
        // Columns beyond whole eights; the logarithms far below 0, far apart, and nothing in what weighs all.
        ([1, 2, 6, 20], [F32; 3]),
        // Logarithms near the lowest f32.
        ([1, 1, 40, 3], [F32; 3]),
    ]
    .into_iter()
    .enumerate()
    {
        if level == Level::Smoke && i % 2 == 1 {
            continue;
        }
        let mut sums = |high: f64| {
            let none = |random: &mut Random| random.below(4) == 0;
            let values =
                (0..dims[..3].iter().product()).map(|_| if none(&mut random) { f32::NEG_INFINITY } else { (random.unit() * high) as f32 });
            Host::new(&dims[..3], &values.collect::<Vec<f32>>())
        };
        let (mut one_sums, mut other_sums) = (sums(9.0), sums(if i % 3 == 0 { 300.0 } else { 9.0 }));
        let (mut one, other) = (random.floats(&dims).to(types[1]), random.floats(&dims).to(types[2]));
        let lower = |host: &Host, by: f64| Host::new(&host.dims, &host.f64s().iter().map(|sum| (sum - by) as f32).collect::<Vec<f32>>());
        if i == 6 {
            (one_sums, other_sums) = (lower(&one_sums, 200.0), lower(&other_sums, 600.0));
            one = Host::new(&dims, &vec![0.0f32; dims.iter().product()]);
        }
        if i == 7 {
            (one_sums, other_sums) = (lower(&one_sums, 3e38), lower(&other_sums, 3e38));
        }
        let inputs = vec![one, one_sums, other, other_sums];
        let f64s: Vec<Vec<f64>> = inputs.iter().map(Host::f64s).collect();
        let (mut values, mut bounds) = (Vec::new(), Vec::new());
        for (element, (one, other)) in f64s[0].iter().zip(&f64s[2]).enumerate() {
            let (a, b) = (f64s[1][element / dims[3]], f64s[3][element / dims[3]]);
            let weight = |lse: f64| if lse == f64::NEG_INFINITY { 0.0 } else { (lse - a.max(b)).exp() };
            // At least 1, but where neither has anything.
            let sum = (weight(a) + weight(b)).max(1.0);
            let (one, other) = (weight(a) / sum * one, weight(b) / sum * other);
            let apart = if (a - b).is_finite() { (a - b).abs() } else { 0.0 };
            values.push(one + other);
            bounds.push(bounds::merged(apart, one.abs() + other.abs()));
        }
        let expected = Expected::stored(&dims, types[0], values, bounds);
        let made = types[0];
        let case = Case::new(
            format!("{dims:?} {types:?}"),
            inputs,
            expected,
            move |t| {
                let mut out = Tensor::zeros(t[0].device(), made, &dims)?;
                let mut lse = Tensor::zeros(t[0].device(), F32, &dims[..3])?;
                ops::merge_attention_into(&mut out, &mut lse, &t[0], &t[1], &t[2], &t[3])?;
                Ok(out)
            },
            move |out, t| {
                let mut lse = Tensor::zeros(t[0].device(), F32, &dims[..3])?;
                ops::merge_attention_into(out, &mut lse, &t[0], &t[1], &t[2], &t[3])
            },
        );
        check("merge_attention", &subject.name, device, &case, true)?;
        // The logarithms: the second result.
        let t = case.inputs.iter().map(|host| host.place(device, Form::Gaps)).collect::<Result<Vec<_>, _>>()?;
        let got = ops::merge_attention(&t[0], &t[1], &t[2], &t[3]).and_then(|(_, lse)| lse.to_vec::<f32>()).map_err(|e| e.to_string())?;
        let again = || -> gristmill::Result<_> {
            let all = Tensor::full(device, 7.0f32, &[dims[0], dims[1], dims[2] + 3])?;
            let (mut out, mut lse) = (Tensor::zeros(device, made, &dims)?, all.narrow(2, 3..dims[2] + 3)?);
            ops::merge_attention_into(&mut out, &mut lse, &t[0], &t[1], &t[2], &t[3])?;
            Ok((lse.to_vec::<f32>()?, all.narrow(2, 0..3)?.to_vec::<f32>()?))
        };
        let (again, rest) = again().map_err(|e| e.to_string())?;
        if again.iter().zip(&got).any(|(a, b)| a.to_bits() != b.to_bits()) || rest.iter().any(|&value| value != 7.0) {
            return Err(format!("{dims:?} on {}: logarithms into a view: {again:?} beside {rest:?}, not {got:?}", subject.name));
        }
        for (row, (&a, &b)) in f64s[1].iter().zip(&f64s[3]).enumerate() {
            let top = a.max(b);
            let want = if top == f64::NEG_INFINITY { top } else { top + ((a - top).exp() + (b - top).exp()).ln() };
            // An infinite bound would take anything.
            let within = want.is_finite() && (f64::from(got[row]) - want).abs() <= reference::U * (8.0 + want.abs());
            if !within && f64::from(got[row]) != want {
                return Err(format!("row {row} of {dims:?} on {}: the logarithm is {}, not {want}", subject.name, got[row]));
            }
        }
    }
    Ok(())
}

/// What would be chosen on GPUs, which the adapters here are not: run all the same, decoding in parts too.
#[cfg(feature = "gpu")]
fn choices(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    use gristmill::gpu::{AdapterKind, Throughput};

    let (Some(own), true) = (device.caps(), level > Level::Smoke) else { return Ok(()) };
    let mut random = Random::new(44);
    let base = Shape { batch: 2, heads: 6, kv_heads: 2, head_dim: 24, v_dim: 40, ..Shape::default() };
    let dropout = Some(Dropout { probability: 0.3, seed: 5, offset: 1 });
    for (shape, parts) in [
        // In parts, of heads and of queries, on what is slow enough.
        (Shape { seq_q: 600, seq_k: 70, dropout, ..base.clone() }, false),
        (Shape { seq_q: 1, seq_k: 700, ..base.clone() }, true),
        (Shape { seq_q: 1, seq_k: 1030, heads: 14, v_dim: 7, dtypes: [F16; 4], ..base.clone() }, true),
        (Shape { seq_q: 5, seq_k: 1500, causal: Causal::BottomRight, sinks: Some(6), alibi: Some(6), ..base.clone() }, true),
        (
            Shape {
                seq_q: 3,
                seq_k: 900,
                mask: Some(vec![3, 900]),
                lens: Some(vec![0, 600]),
                dtypes: [BF16, BF16, BF16, F32],
                ..base.clone()
            },
            true,
        ),
        (
            Shape { seq_q: 2, seq_k: 1000, window: Window { left: Some(9), right: None }, causal: Causal::BottomRight, ..base.clone() },
            false,
        ),
        (Shape { seq_q: 8, seq_k: 100, ..base.clone() }, false),
        (Shape { seq_q: 9, seq_k: 100, ..base.clone() }, false),
        (Shape { seq_q: 100, seq_k: 130, causal: Causal::TopLeft, ..base.clone() }, false),
    ] {
        for kind in [AdapterKind::Discrete, AdapterKind::Integrated] {
            // As fast as one: what is long for the adapter at hand would be cut.
            let mut caps = own.clone();
            let flops = if shape.dropout.is_some() { 1 << 24 } else { 1 << 40 };
            (caps.kind, caps.throughput) = (kind, Throughput { flops, bytes: 1 << 40 });
            let inputs = inputs(&mut random, &shape);
            let Expected { values, bounds, .. } = (case_of(shape.clone(), inputs.clone(), false).expected)(device)?;
            let expected = Expected {
                values,
                bounds,
                ..Expected::stored(&[2, shape.heads, shape.seq_q, shape.v_dim], shape.dtypes[0], vec![], vec![])
            };
            let for_call = shape.clone();
            let call_into = move |out: &mut Tensor, t: &[Tensor]| planned(&caps, &for_call, parts, out, t);
            let (into, dims, dtype) = (call_into.clone(), [2, shape.heads, shape.seq_q, shape.v_dim], shape.dtypes[0]);
            let call = move |t: &[Tensor]| {
                let mut out = Tensor::zeros(t[0].device(), dtype, &dims)?;
                into(&mut out, t)?;
                Ok(out)
            };
            let case = Case::new(format!("as for {kind:?}, {shape:?}"), inputs, expected, call, call_into);
            check(OP, &subject.name, device, &case, true)?;
        }
    }
    Ok(())
}

/// The plan that other facts give, run here.
#[cfg(feature = "gpu")]
fn planned(caps: &gristmill::gpu::Caps, shape: &Shape, parts: bool, out: &mut Tensor, t: &[Tensor]) -> gristmill::Result<()> {
    use gristmill::ops::attention::{Problem, gpu};
    let input = |other: usize| shape.input(other).map(|input| &t[input]);
    let over = |other: usize, dims: &[usize]| input(other).and_then(|t| t.layout().broadcast_to(dims));
    let dtype = |other: usize| input(other).map_or(F32, Tensor::dtype);
    let (heads, scores) = ([shape.batch, shape.heads], [shape.batch, shape.heads, shape.seq_q, shape.seq_k]);
    let dtypes = [out.dtype(), t[0].dtype(), t[1].dtype(), t[2].dtype()];
    let plain = Problem::new(dtypes, *out.layout(), *t[0].layout(), *t[1].layout(), *t[2].layout());
    let problem = Problem {
        dtypes: [dtypes[0], dtypes[1], dtypes[2], dtypes[3], dtype(1), dtype(2), dtype(3)],
        mask: over(0, &scores),
        bias: over(1, &scores),
        alibi: over(2, &heads),
        sinks: over(3, &heads),
        kv_lens: over(4, &[shape.batch]),
        dropout: shape.dropout,
        place: if shape.lens.is_some() { -(shape.seq_q as i64) } else { shape.place(0, 0) },
        from_end: shape.lens.is_some(),
        window: [shape.window.left.map_or(1 << 30, |n| n as i64), if shape.causal == Causal::None { 1 << 30 } else { 0 }],
        ..plain
    };
    let plan = gpu::plan(caps, None, &problem)?;
    let reduced = plan.dispatches.iter().any(|dispatch| dispatch.kernel.name == "attention_reduce");
    assert!(shape.dropout.is_none() || plan.dispatches.len() > 4, "{} parts", plan.dispatches.len());
    assert_eq!(reduced, parts, "{shape:?}: {:?}", gpu::explain(&problem, caps).map(|e| e.to_string()));
    let inputs: Vec<&Tensor> = t.iter().collect();
    ops::dispatch(OP, &plan, out, &inputs)
}

/// Shapes and options that nobody chose.
fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let sizes = (1usize..3, 1usize..4, 1usize..3, 0usize..70, 0usize..70, 1usize..80, 1usize..80);
    sample(level, &(sizes, any::<u64>()), |((batch, kv_heads, group, seq_q, seq_k, head_dim, v_dim), seed)| {
        let mut random = Random::new(seed);
        let (head_dim, v_dim) = if level == Level::Smoke { (head_dim.min(64), v_dim.min(32)) } else { (head_dim, v_dim) };
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
        let causal = [Causal::None, Causal::TopLeft, Causal::BottomRight][random.below(3)];
        let shape = Shape {
            // The types that other trials of the smoke subset have compiled.
            dtypes: if level == Level::Smoke { [F32; 4] } else { all[random.below(5)] },
            batch,
            heads: kv_heads * group,
            kv_heads,
            seq_q,
            seq_k,
            head_dim,
            v_dim,
            causal,
            scale: [None, Some(0.5), Some(-0.01)][random.below(3)],
            mask: bool_mask,
            bias,
            align: [None, None, Some(Align::Offset(random.below(90) as i64 - 20))][random.below(3)],
            window: Window {
                left: [None, Some(random.below(70))][random.below(2)],
                right: if causal == Causal::None { [None, Some(random.below(70))][random.below(2)] } else { None },
            },
            softcap: [None, None, Some(2.5)][random.below(3)],
            alibi: [None, Some(1), Some(kv_heads * group)][random.below(3)],
            sinks: [None, Some(1), Some(kv_heads * group)][random.below(3)],
            lens: (random.below(3) == 0).then(|| (0..batch).map(|_| random.below(seq_k + 4) as u32).collect()),
            dropout: (random.below(3) == 0).then(|| Dropout { probability: 0.3, seed, offset: random.below(9) as u32 }),
            axes: [Axes::HeadsFirst, Axes::SeqFirst][random.below(2)],
            rope: false,
        };
        // As it is chosen, and by some kernel that holds the head.
        let ways = ways(device, level);
        let able: Vec<&Way> = ways.iter().filter(|way| head_dim <= way.most[0] && v_dim <= way.most[1]).collect();
        let case = case(&mut random, shape);
        check(OP, &subject.name, device, &case, true)?;
        let way = able[if level == Level::Smoke { 0 } else { random.below(able.len()) }];
        check(OP, &subject.name, &way.device, &case, false).map_err(|e| format!("{}: {e}", way.name))
    })
}
