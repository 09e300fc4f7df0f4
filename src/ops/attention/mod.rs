//! Scaled dot-product attention, fused.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
mod scores;
#[cfg(feature = "gpu")]
mod select;

pub use scores::{Scores, attention_with_scores};

use crate::error::{Error, Result};
use crate::ops::{self, Op, Rope, RopeTable, rope};
use crate::{DType, Layout, Tensor};

const OP: &str = "attention";

/// The largest `head_dim` and `v_dim`.
pub const MAX_HEAD_DIM: usize = 512;

/// The most queries or keys: places are counted in i32 on the GPU, and differences of them.
const MAX_SEQ: usize = (1 << 28) - 1;

/// Where the queries stand among the keys: query `i` at key `i + offset`. What causal masking, windows and ALiBi count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Align {
    /// Query 0 at key 0, PyTorch's `is_causal`.
    TopLeft,
    /// The last query at the last key of its batch (`kv_lens`), as with a cache: FlashAttention's. The same as `TopLeft` where `seq_q = seq_k`.
    #[default]
    BottomRight,
    /// Query 0 at this key: so many are in the past, if it is positive.
    Offset(i64),
}

/// How many keys a query sees on either side of its place, besides the one there; `None` for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Window {
    /// Keys before it.
    pub left: Option<usize>,
    /// Keys after it. None of them is seen with causal masking, which takes no other number than 0.
    pub right: Option<usize>,
}

/// Weights that are left out at random, the others multiplied by `1 / (1 - probability)`.
///
/// Which ones is a function of the batch, the head, the query, the key, `seed` and `offset`, the same on every device: uniform numbers of 24 bits by
/// Philox4x32-10 (Salmon et al., SC 2011), key `seed`, counter (key / 4, query, batch · heads + head, `offset`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Dropout {
    /// From 0 up to but not including 1.
    pub probability: f32,
    /// Of a run.
    pub seed: u64,
    /// Of a layer and step: two calls with the same give the same.
    pub offset: u32,
}

/// In which order the axes of `q`, `k`, `v` and the result come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Axes {
    /// [batch, heads, seq, dim]
    #[default]
    HeadsFirst,
    /// [batch, seq, heads, dim], as a projection gives them. The result is then dense in that order: `reshape` joins its heads.
    SeqFirst,
}

/// Rotary positions of `q` and `k` ([`rope`](crate::ops::rope())), which are turned before they meet.
///
/// Each is turned once, into memory of the call's own and the operand's type, before the kernel runs; the result has the bits that `rope` and then
/// `attention` give. A kernel that turned what it loads would turn each key once more for every 32 or 64 queries. What is refused, and what becomes of positions past
/// the table, is as with `rope`.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
/// use gristmill::ops::{Attention, AttentionRope, Rope, RopeFrequencies, RopeTable};
///
/// let device = Device::cpu();
/// let table = RopeTable::new(&device, &RopeFrequencies::new(10_000.0, 64), 0..128)?;
/// // The 40 keys of a cache have been turned; the query is at the last of them.
/// let (q, cache) = (Tensor::full(&device, 0.5f32, &[1, 8, 1, 64])?, Tensor::full(&device, 0.5f32, &[1, 2, 40, 64])?);
/// let rope = AttentionRope { table: &table, q: Some(Rope { offset: 39, ..Default::default() }), k: None };
/// let out = ops::attention(&q, &cache, &cache, &Attention { rope: Some(rope), ..Default::default() })?;
/// assert_eq!(out.shape(), [1, 8, 1, 64]);
/// # Ok::<(), gristmill::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct AttentionRope<'a> {
    /// The angles of each position.
    pub table: &'a RopeTable,
    /// Where the queries stand and which of their elements are pairs; `None` leaves them as they are.
    pub q: Option<Rope<'a>>,
    /// The same of the keys; `None` for keys that have been turned, as those of a cache. All that `k` holds are turned, also those that `kv_lens` or a
    /// short mask hides: the table has to reach so far.
    pub k: Option<Rope<'a>>,
}

/// Options of [`attention`]. All of them combine, but for a window to the right with causal masking, which hides all that is there:
///
/// | with | `causal` | `align` | `window.left` | `window.right` | `scale` | `softcap` | `mask` | `bias` | `alibi` | `sinks` | `kv_lens` | `dropout` | `axes` | `rope` |
/// |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
/// | `causal` | yes |  |  |  |  |  |  |  |  |  |  |  |  |  |
/// | `align` | yes | yes |  |  |  |  |  |  |  |  |  |  |  |  |
/// | `window.left` | yes | yes | yes |  |  |  |  |  |  |  |  |  |  |  |
/// | `window.right` | `Error::Argument` | yes | yes | yes |  |  |  |  |  |  |  |  |  |  |
/// | `scale` | yes | yes | yes | yes | yes |  |  |  |  |  |  |  |  |  |
/// | `softcap` | yes | yes | yes | yes | yes | yes |  |  |  |  |  |  |  |  |
/// | `mask` | yes | yes | yes | yes | yes | yes | yes |  |  |  |  |  |  |  |
/// | `bias` | yes | yes | yes | yes | yes | yes | yes | yes |  |  |  |  |  |  |
/// | `alibi` | yes | yes | yes | yes | yes | yes | yes | yes | yes |  |  |  |  |  |
/// | `sinks` | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes |  |  |  |  |
/// | `kv_lens` | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes |  |  |  |
/// | `dropout` | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes |  |  |
/// | `axes` | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes |  |
/// | `rope` | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes | yes |
///
/// What masks adds up: a key is seen if `causal`, `window`, `kv_lens`, `mask` and `bias` all let it be. `softcap` comes before what is added. Every pair holds
/// for the logarithms of the sums ([`attention_with_lse`]) too.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attention<'a> {
    /// Whether keys after a query's place are masked.
    pub causal: bool,
    /// Where the queries stand among the keys.
    pub align: Align,
    /// Which keys around its place a query sees.
    pub window: Window,
    /// Factor of `q · kᵀ`; `1 / √head_dim` by default.
    pub scale: Option<f32>,
    /// Scaled scores become `softcap · tanh(score / softcap)`, before masks and biases (Gemma 2).
    pub softcap: Option<f32>,
    /// bool; broadcasts to [batch, heads, seq_q, seq_k]. `false` masks the key for the query. With fewer keys than `k` (but more than one, which is
    /// repeated) it hides the others, as in ONNX.
    pub mask: Option<&'a Tensor>,
    /// f32 or `q`'s type; broadcasts to [batch, heads, seq_q, seq_k]. Added to the scaled scores; -inf masks the key for the query.
    /// May be short as `mask` may.
    pub bias: Option<&'a Tensor>,
    /// A float for each head, of shape `[heads]` or `[1]`: `slope · |place - key|` is taken from the scores (ALiBi; Press et al., ICLR 2022).
    pub alibi: Option<&'a Tensor>,
    /// A float for each head, of shape `[heads]` or `[1]`: a logit that takes part in the softmax and has no value (attention sinks as gpt-oss has them).
    /// One of -inf is none.
    pub sinks: Option<&'a Tensor>,
    /// u32, of shape `[batch]` or `[1]`: keys from there on are masked for the batch, and not read where whole blocks of them are. More than `seq_k` is `seq_k`.
    pub kv_lens: Option<&'a Tensor>,
    /// Weights left out at random.
    pub dropout: Option<Dropout>,
    /// The order of the axes.
    pub axes: Axes,
    /// Rotary positions.
    pub rope: Option<AttentionRope<'a>>,
}

/// A checked call, all of it [batch, heads, seq, dim]. `mask` and `bias` are broadcast to [batch, heads, seq_q, seq_k].
#[derive(Debug, Clone)]
pub struct Problem {
    /// The element types of `out`, `q`, `k`, `v`, the bias, the slopes and the sinks; f32 for one that is not there.
    pub dtypes: [DType; 7],
    /// Whether a query's result must not depend on the others ([`Device::batch_invariant`](crate::Device::batch_invariant)).
    pub batch_invariant: bool,
    /// [batch, heads, seq_q, v_dim]
    pub out: Layout,
    /// [batch, heads, seq_q]: where the logarithms of the sums go.
    pub lse: Option<Layout>,
    /// [batch, heads, seq_q, head_dim]
    pub q: Layout,
    /// [batch, kv_heads, seq_k, head_dim]
    pub k: Layout,
    /// [batch, kv_heads, seq_k, v_dim]
    pub v: Layout,
    /// Where the boolean mask lies.
    pub mask: Option<Layout>,
    /// Where the additive mask lies.
    pub bias: Option<Layout>,
    /// [batch, heads], the same in every batch: where the slopes lie.
    pub alibi: Option<Layout>,
    /// [batch, heads], the same in every batch: where the sinks lie.
    pub sinks: Option<Layout>,
    /// `[batch]`: where the numbers of keys lie.
    pub kv_lens: Option<Layout>,
    /// Keys that there are, also those that a short mask hides, which `k` and `v` have no more.
    pub full_k: usize,
    /// The place of query 0 among the keys; relative to the batch's number of keys if `from_end`.
    pub place: i64,
    /// See `place`.
    pub from_end: bool,
    /// Keys that a query sees before its place, and after it.
    pub window: [i64; 2],
    /// Factor of the scores.
    pub scale: f32,
    /// See [`Attention::softcap`].
    pub softcap: Option<f32>,
    /// See [`Attention::dropout`].
    pub dropout: Option<Dropout>,
    /// The batch, head and query of the whole call with which this part of it begins, and all its heads. For random numbers.
    pub origin: [usize; 4],
}

/// A window that leaves out nothing.
const ALL: i64 = 1 << 30;

impl Problem {
    /// A call without options, a scale of `1 / √head_dim`. The types are those of `out`, `q`, `k` and `v`.
    pub fn new([out_dtype, q_dtype, k_dtype, v_dtype]: [DType; 4], out: Layout, q: Layout, k: Layout, v: Layout) -> Self {
        let dim = |layout: &Layout, axis| layout.dims().get(axis).copied().unwrap_or(1);
        Problem {
            dtypes: [out_dtype, q_dtype, k_dtype, v_dtype, DType::F32, DType::F32, DType::F32],
            batch_invariant: false,
            out,
            lse: None,
            q,
            k,
            v,
            mask: None,
            bias: None,
            alibi: None,
            sinks: None,
            kv_lens: None,
            full_k: dim(&k, 2),
            place: dim(&k, 2) as i64 - dim(&q, 2) as i64,
            from_end: false,
            window: [ALL, ALL],
            scale: 1.0 / (dim(&q, 3) as f32).sqrt(),
            softcap: None,
            dropout: None,
            origin: [0, 0, 0, dim(&q, 1)],
        }
    }

    #[cfg(feature = "gpu")]
    fn batch(&self) -> usize {
        self.q.dims()[0]
    }
    fn heads(&self) -> usize {
        self.q.dims()[1]
    }
    fn heads_per_kv(&self) -> usize {
        (self.q.dims()[1] / self.k.dims()[1].max(1)).max(1)
    }
    fn seq_q(&self) -> usize {
        self.q.dims()[2]
    }
    fn seq_k(&self) -> usize {
        self.k.dims()[2]
    }
    fn head_dim(&self) -> usize {
        self.q.dims()[3]
    }
    fn v_dim(&self) -> usize {
        self.v.dims()[3]
    }

    /// The place of a query among the keys of a batch that has `len`.
    fn place_of(&self, query: usize, len: usize) -> i64 {
        self.place + query as i64 + if self.from_end { len as i64 } else { 0 }
    }

    /// The keys, from and to below, that a query sees by its place, of a batch that has `len`.
    fn keys_of(&self, query: usize, len: usize) -> [usize; 2] {
        let place = self.place_of(query, len);
        let key = |place: i64| place.clamp(0, len.min(self.seq_k()) as i64) as usize;
        [key(place - self.window[0]), key(place + self.window[1] + 1)]
    }

    /// What is beside q, k and v, in order: mask, bias, alibi, sinks, kv_lens.
    fn others(&self) -> [Option<&Layout>; 5] {
        [self.mask.as_ref(), self.bias.as_ref(), self.alibi.as_ref(), self.sinks.as_ref(), self.kv_lens.as_ref()]
    }

    /// The place of one of `others` among the inputs.
    fn input(&self, other: usize) -> Option<usize> {
        self.others()[other]?;
        Some(3 + self.others()[..other].iter().flatten().count())
    }
}

/// `out = softmax(scale · q · kᵀ + bias, masked) · v` for each batch and head, in f32.
///
/// | tensor | shape |
/// |---|---|
/// | `q` | [batch, heads, seq_q, head_dim] |
/// | `k` | [batch, kv_heads, seq_k, head_dim] |
/// | `v` | [batch, kv_heads, seq_k, v_dim] |
/// | `out` | [batch, heads, seq_q, v_dim] |
///
/// Types: `q`, `k` and `v` are all f32, all f16 or all bf16, or `q` is f32 and `k` and `v` have 16 bits, as a cache may; all is computed in f32.
/// The result has `q`'s type, and [`attention_into`] writes any of the three, rounded once.
///
/// [batch, seq, heads, dim] is [`Axes::SeqFirst`]; a packed projection is three views (`narrow`), and copied nowhere.
///
/// `kv_heads` divides `heads`: query head h uses key head `h / (heads / kv_heads)`, so 1 is multi-query and fewer than `heads` grouped-query
/// attention. `head_dim` and `v_dim` are 1 to 512 (fastest up to 128) and may differ. Operands may be views of any strides. The score matrix is never in
/// memory: what a call takes beside its operands does not grow with `seq_q · seq_k`.
///
/// A key is masked for a query by `causal`, `window` or `kv_lens`, by a `false` in `mask`, by a -inf in `bias`, and by nothing else; a bias that is finite, however
/// low, masks nothing. A query with every key masked (or with no keys) gives zeros. NaN in an operand gives unspecified values, in the
/// rows that it reaches. A masked key has weight 0, not absence: its row of `v` must be finite, for 0 · inf is NaN. Sums of weights (1 at the most)
/// by values are f32 before they are divided: values near its limits overflow where there are many, and so do products of q and k.
///
/// Numerics: the maximal error against exact arithmetic is at most twice that of matmul, softmax, matmul in f32, plus two roundings of the
/// result. Source: Dao, "FlashAttention-2" (2023), with the online softmax of Milakov and Gimelshein (2018).
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let device = Device::cpu();
/// let q = Tensor::rand_normal(&device, &[1, 8, 5, 64], 0.0, 1.0, 1)?;
/// let k = Tensor::rand_normal(&device, &[1, 2, 7, 64], 0.0, 1.0, 2)?; // 2 key heads for 8 query heads
/// let v = Tensor::rand_normal(&device, &[1, 2, 7, 32], 0.0, 1.0, 3)?;
/// let options = ops::Attention { causal: true, ..Default::default() };
/// assert_eq!(ops::attention(&q, &k, &v, &options)?.shape(), [1, 8, 5, 32]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit as above or a mask does not broadcast, [`Error::DType`] unless the types are as above,
/// `bias` f32 or of `q`'s type, `mask` bool and `kv_lens` u32, [`Error::Argument`] if a number is out of its range, [`Error::Device`], [`Error::TooLarge`].
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, options: &Attention) -> Result<Tensor> {
    let call = Call::new(q, k, v, options)?;
    let mut out = call.fresh(q.dtype())?;
    call.run(&mut out, None)?;
    Ok(out)
}

/// [`attention`] into a tensor or view of the result's shape and any float type.
///
/// # Errors
/// As `attention`, and [`Error::Overlap`].
pub fn attention_into(out: &mut Tensor, q: &Tensor, k: &Tensor, v: &Tensor, options: &Attention) -> Result<()> {
    Call::new(q, k, v, options)?.run(out, None)
}

/// [`attention`], and for each query the logarithm of its softmax' sum: `lse = ln Σ exp(logit)` over the keys that it sees and the sink, f32 of shape
/// [batch, heads, seq_q] ([batch, seq_q, heads] of [`Axes::SeqFirst`]). -inf where there is none. With it parts over other keys can be joined
/// ([`merge_attention`](crate::ops::merge_attention())), and gradients computed.
///
/// Numerics: the absolute error is at most that of the largest logit and `2^-23 · (8 + |lse| + seq_k)`.
///
/// # Errors
/// As `attention`.
pub fn attention_with_lse(q: &Tensor, k: &Tensor, v: &Tensor, options: &Attention) -> Result<(Tensor, Tensor)> {
    let call = Call::new(q, k, v, options)?;
    let mut out = call.fresh(q.dtype())?;
    let mut lse = ops::fresh(OP, q.device(), DType::F32, &call.dims[..3])?;
    call.run(&mut out, Some(&mut lse))?;
    Ok((out, lse))
}

/// [`attention_with_lse`] into tensors or views of the results' shapes: `out` of any float type, `lse` f32.
///
/// # Errors
/// As `attention`, and [`Error::Overlap`].
pub fn attention_with_lse_into(out: &mut Tensor, lse: &mut Tensor, q: &Tensor, k: &Tensor, v: &Tensor, options: &Attention) -> Result<()> {
    Call::new(q, k, v, options)?.run(out, Some(lse))
}

/// A checked call that has no place for its results yet.
struct Call<'a> {
    inputs: Vec<ops::Named<'a>>,
    /// Of the result, in the caller's order of axes.
    dims: Vec<usize>,
    axes: Axes,
    rope: Option<AttentionRope<'a>>,
    /// Without `out` and `lse`, and with `q` and `k` as they came.
    problem: Problem,
}

/// The first keys of [batch, heads, seq, dim].
fn narrowed(layout: &Layout, seq_k: usize) -> Layout {
    layout.narrow(2, 0, seq_k).unwrap_or(*layout)
}

impl Axes {
    /// The view that is [batch, heads, seq, …].
    fn heads_first(self, tensor: &Tensor) -> Result<Tensor> {
        match self {
            Axes::HeadsFirst => Ok(tensor.clone()),
            Axes::SeqFirst => tensor.transpose(1, 2),
        }
    }
}

/// `q` or `k`, and how it turns.
struct Turn<'a> {
    /// 0 for `q`, 1 for `k`.
    input: usize,
    x: ops::Named<'a>,
    axes: Axes,
    table: &'a RopeTable,
    options: Rope<'a>,
}

impl Turn<'_> {
    fn check(&self) -> Result<()> {
        rope::check_call(&self.axes.heads_first(self.x.1)?, self.table, &self.options).map_err(|error| self.explained(error))
    }

    fn run(&self) -> Result<Tensor> {
        ops::rope(&self.axes.heads_first(self.x.1)?, self.table, &self.options).map_err(|error| self.explained(error))
    }

    /// An error of `rope` as one of this call.
    fn explained(&self, mut error: Error) -> Error {
        let (name, x) = self.x;
        match &mut error {
            Error::Argument { argument, problem, .. } => {
                *problem = format!("of {name} has {argument} that {problem}");
                *argument = "rope";
            }
            Error::Shape { problem, .. } => *problem = format!("in the rope of {name}, {problem}"),
            _ => {}
        }
        match &mut error {
            Error::Shape { operands, .. } | Error::DType { operands, .. } | Error::Device { operands, .. } => {
                // As the caller has it, in the order of `axes`.
                operands.iter_mut().filter(|operand| operand.name == "x").for_each(|operand| *operand = x.operand(name));
            }
            _ => {}
        }
        match &mut error {
            Error::Shape { op, .. }
            | Error::Argument { op, .. }
            | Error::DType { op, .. }
            | Error::Device { op, .. }
            | Error::TooLarge { op, .. }
            | Error::OutOfMemory { op, .. } => *op = OP,
            // The device failed: where, it says itself.
            _ => {}
        }
        error
    }
}

impl<'a> Call<'a> {
    fn new(q: &'a Tensor, k: &'a Tensor, v: &'a Tensor, options: &Attention<'a>) -> Result<Self> {
        let qkv = [("q", q), ("k", k), ("v", v)];
        let mut inputs = qkv.to_vec();
        let others = [
            ("mask", options.mask),
            ("bias", options.bias),
            ("alibi", options.alibi),
            ("sinks", options.sinks),
            ("kv_lens", options.kv_lens),
        ];
        inputs.extend(others.iter().filter_map(|&(name, tensor)| Some((name, tensor?))));
        ops::check_devices(OP, &inputs)?;
        check_types(&qkv, options)?;
        let misfit = |problem: String, help| Err(ops::misfit(OP, &qkv, problem, help));
        if let Some((name, _)) = qkv.iter().find(|(_, t)| t.rank() != 4) {
            return misfit(format!("`{name}` must have 4 axes"), "give [batch, heads, seq, dim]; `unsqueeze` what is missing");
        }
        let [ql, kl, vl] = [q, k, v].map(|t| options.axes.heads_first(t).map(|t| *t.layout()));
        let (ql, kl, vl) = (ql?, kl?, vl?);
        let (qs, ks, vs) = (ql.dims(), kl.dims(), vl.dims());
        if qs[0] != ks[0] || ks[0] != vs[0] {
            return misfit("the batch sizes differ".into(), "give one batch size, with `broadcast_to` where it repeats");
        }
        if ks[1] != vs[1] || ks[2] != vs[2] {
            return misfit("k and v differ in kv_heads or seq_k".into(), "give v the heads and the length of k");
        }
        if qs[3] != ks[3] {
            return misfit(format!("head_dim differs (q has {}, k {})", qs[3], ks[3]), "project q and k to one head_dim");
        }
        if qs[1] != 0 && (ks[1] == 0 || qs[1] % ks[1] != 0) {
            return misfit("kv_heads does not divide heads".into(), "give a multiple of k's heads in q");
        }
        for (name, dim) in [("head_dim", qs[3]), ("v_dim", vs[3])] {
            if dim == 0 || dim > MAX_HEAD_DIM {
                return misfit(format!("{name} is {dim}, not 1 to {MAX_HEAD_DIM}"), "split the heads, or compose matmul and softmax");
            }
        }
        if let Some(seq) = [qs[2], ks[2]].into_iter().find(|&seq| seq > MAX_SEQ) {
            return Err(Error::TooLarge {
                op: OP,
                what: "the sequence".into(),
                requested: seq as u128,
                limit: MAX_SEQ as u128,
                limit_name: "queries or keys",
            });
        }
        check_numbers(options)?;
        let over = |name, tensor: Option<&Tensor>, dims: &[usize]| tensor.map(|t| ops::broadcast(OP, (name, t), dims)).transpose();
        let (batch, heads, seq_q, full_k) = (qs[0], qs[1], qs[2], ks[2]);
        // A mask that is shorter than the keys hides the others.
        let ends = [options.mask, options.bias].into_iter().flatten().filter_map(|mask| mask.shape().last().copied());
        let seq_k = ends.filter(|&end| end != 1).fold(full_k, usize::min);
        let scores = [batch, heads, seq_q, seq_k];
        let masks = |name, mask: Option<&Tensor>| match mask {
            // Of what another hides nothing is read.
            Some(long) if long.shape().last().is_some_and(|&end| end > seq_k && end <= full_k && end != 1) => {
                let layout = long.layout().narrow(long.rank() - 1, 0, seq_k).and_then(|layout| layout.broadcast_to(&scores));
                layout.map_or_else(|| over(name, mask, &[batch, heads, seq_q, full_k]), |layout| Ok(Some(layout)))
            }
            mask => over(name, mask, &scores),
        };
        // Of heads alone, the same in every batch.
        let per_head = |name, tensor| Ok::<_, Error>(over(name, tensor, &[heads])?.and_then(|layout| layout.broadcast_to(&[batch, heads])));
        let (place, from_end) = match options.align {
            Align::TopLeft => (0, false),
            Align::BottomRight if options.kv_lens.is_some() => (-(seq_q as i64), true),
            Align::BottomRight => (full_k as i64 - seq_q as i64, false),
            Align::Offset(offset) => (offset, false),
        };
        let side = |side: Option<usize>| side.and_then(|n| i64::try_from(n).ok()).filter(|&n| n < ALL).unwrap_or(ALL);
        let default = Problem::new([q.dtype(), q.dtype(), k.dtype(), v.dtype()], ql, ql, narrowed(&kl, seq_k), narrowed(&vl, seq_k));
        let dtype_of = |tensor: Option<&Tensor>| tensor.map_or(DType::F32, Tensor::dtype);
        let problem = Problem {
            dtypes: [q.dtype(), q.dtype(), k.dtype(), v.dtype(), dtype_of(options.bias), dtype_of(options.alibi), dtype_of(options.sinks)],
            batch_invariant: q.device().is_batch_invariant(),
            mask: masks("mask", options.mask)?,
            bias: masks("bias", options.bias)?,
            alibi: per_head("alibi", options.alibi)?,
            sinks: per_head("sinks", options.sinks)?,
            kv_lens: over("kv_lens", options.kv_lens, &[batch])?,
            full_k,
            place,
            from_end,
            window: [side(options.window.left), if options.causal { 0 } else { side(options.window.right) }],
            scale: options.scale.unwrap_or(default.scale),
            softcap: options.softcap,
            dropout: options.dropout.filter(|dropout| dropout.probability > 0.0),
            ..default
        };
        let dims = match options.axes {
            Axes::HeadsFirst => vec![batch, heads, seq_q, vs[3]],
            Axes::SeqFirst => vec![batch, seq_q, heads, vs[3]],
        };
        let call = Call { inputs, dims, axes: options.axes, rope: options.rope, problem };
        call.turning().try_for_each(|turn| turn.check())?;
        Ok(call)
    }

    /// Zeros of the result's shape and type.
    fn fresh_zeros(&self) -> Result<Tensor> {
        Tensor::zeros(self.inputs[0].1.device(), self.problem.dtypes[1], &self.dims)
    }

    fn fresh(&self, dtype: DType) -> Result<Tensor> {
        ops::fresh(OP, self.inputs[0].1.device(), dtype, &self.dims)
    }

    /// What is to be turned.
    fn turning(&self) -> impl Iterator<Item = Turn<'a>> {
        let (qk, axes) = ([self.inputs[0], self.inputs[1]], self.axes);
        self.rope.into_iter().flat_map(move |rope| {
            let both = [rope.q, rope.k].into_iter().enumerate();
            both.filter_map(move |(input, options)| Some(Turn { input, x: qk[input], axes, table: rope.table, options: options? }))
        })
    }

    /// [`q`, `k`], [batch, heads, seq, head_dim], turned where that was asked for.
    fn turned(&self) -> Result<[Tensor; 2]> {
        let mut both = [self.inputs[0].1, self.inputs[1].1].map(|tensor| self.axes.heads_first(tensor));
        for turn in self.turning() {
            both[turn.input] = turn.run();
        }
        let [q, k] = both;
        Ok([q?, k?])
    }

    fn run(mut self, out: &mut Tensor, lse: Option<&mut Tensor>) -> Result<()> {
        ops::check_out_like(OP, out, &self.dims, self.problem.dtypes[1], &self.inputs)?;
        if let Some(lse) = &lse {
            let mut others = self.inputs.clone();
            others.push(("out", out));
            ops::check_out(OP, lse, &self.dims[..3], DType::F32, &others)?;
        }
        if out.is_empty() {
            return Ok(());
        }
        // Views in the problem's order, since backends fill what they are given in its own.
        // No other handle of what is in that order: the CPU computes apart from storage that others hold.
        let view = |tensor: &Tensor| match self.axes {
            Axes::HeadsFirst => Ok(None),
            Axes::SeqFirst => tensor.transpose(1, 2).map(Some),
        };
        let views = (view(out)?, lse.as_deref().map(view).transpose()?.flatten());
        let (out, lse) = (views.0.as_ref().unwrap_or(out), views.1.as_ref().or(lse.as_deref()));
        self.problem.out = *out.layout();
        self.problem.dtypes[0] = out.dtype();
        self.problem.lse = lse.map(|lse| *lse.layout());
        let mut tensors: Vec<&Tensor> = self.inputs.iter().map(|(_, t)| *t).collect();
        let turned = if self.rope.is_some() { Some(self.turned()?) } else { None };
        if let Some([q, k]) = &turned {
            let seq_k = self.problem.seq_k();
            (self.problem.q, self.problem.k) = (*q.layout(), narrowed(k.layout(), seq_k));
            (tensors[0], tensors[1]) = (q, k);
        }
        ops::run_both(&self.problem, out, lse, &tensors)
    }
}

fn check_types(qkv: &[ops::Named], options: &Attention) -> Result<()> {
    let supported = "one float type for q, k and v, or f32 for q and one of 16 bits for k and v";
    ops::promote_floats(OP, &qkv[..2])?;
    let (q, k) = (qkv[0].1.dtype(), qkv[1].1.dtype());
    ops::check_dtype(OP, &qkv[2..], k, supported)?;
    if q != DType::F32 {
        ops::check_dtype(OP, qkv, q, supported)?;
    }
    if let Some(mask) = options.mask {
        ops::check_dtype(OP, &[("mask", mask)], DType::Bool, "bool for mask (additive masks go into bias)")?;
    }
    if let Some(bias) = options.bias
        && bias.dtype() != DType::F32
    {
        ops::check_dtype(OP, &[("bias", bias)], q, "f32 or q's type for bias (boolean masks go into mask)")?;
    }
    for (name, tensor) in [("alibi", options.alibi), ("sinks", options.sinks)] {
        if let Some(tensor) = tensor.filter(|t| !t.dtype().is_float()) {
            return Err(Error::DType { op: OP, operands: vec![tensor.operand(name)], supported: "a float for each head" });
        }
    }
    match options.kv_lens {
        Some(lens) => ops::check_dtype(OP, &[("kv_lens", lens)], DType::U32, "u32 for kv_lens; `cast` others"),
        None => Ok(()),
    }
}

fn check_numbers(options: &Attention) -> Result<()> {
    let refused = |argument, problem, help| Err(Error::Argument { op: OP, argument, problem, help });
    if let Some(right) = options.window.right.filter(|&right| options.causal && right > 0) {
        return refused(
            "window",
            format!("shows {right} keys to the right, all of which causal masking hides"),
            "leave `right` out, or `causal`",
        );
    }
    if let Some(scale) = options.scale {
        ops::check_scale(OP, scale)?;
    }
    if let Some(softcap) = options.softcap.filter(|softcap| !(softcap.is_finite() && *softcap >= f32::MIN_POSITIVE)) {
        return refused("softcap", format!("is {softcap}"), "give a positive number of the normal range, or None for no cap");
    }
    if let Align::Offset(offset) = options.align
        && offset.unsigned_abs() > MAX_SEQ as u64
    {
        return refused("align", format!("has an offset of {offset}"), "give one of less than 2^28 to either side");
    }
    if let Some(Dropout { probability, .. }) = options.dropout
        && !(0.0..1.0).contains(&probability)
    {
        return refused("dropout", format!("has a probability of {probability}"), "give one from 0 up to but not including 1");
    }
    Ok(())
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::attention(self, out, None, inputs);
    }

    fn cpu_both(&self, out: &mut [u8], lse: &mut [u8], inputs: &[&[u8]]) {
        cpu::attention(self, out, Some(lse), inputs);
    }

    #[cfg(feature = "gpu")]
    fn plan(&self, caps: &crate::gpu::Caps, pin: Option<crate::gpu::Pin>) -> Result<crate::gpu::Plan> {
        gpu::plan(caps, pin, self)
    }

    #[cfg(feature = "gpu")]
    fn grain(&self, axis: usize) -> usize {
        // Heads that share keys.
        if axis == 1 { self.q.dims()[1] / self.k.dims()[1] } else { 1 }
    }

    #[cfg(feature = "gpu")]
    fn out(&self) -> &Layout {
        &self.out
    }

    #[cfg(feature = "gpu")]
    fn part(&self, axis: usize, start: usize, len: usize) -> Option<Self> {
        // What has that axis; the rest stays.
        let cut = |layout: &Layout| if axis < layout.rank() { layout.narrow(axis, start, len) } else { Some(*layout) };
        let maybe = |layout: Option<Layout>| match layout {
            Some(layout) => cut(&layout).map(Some),
            None => Some(None),
        };
        let group = self.grain(1);
        let (k, v) = match axis {
            0 => (cut(&self.k)?, cut(&self.v)?),
            // Whole groups of heads.
            1 if start.is_multiple_of(group) && len.is_multiple_of(group) => {
                let keys = |layout: &Layout| layout.narrow(1, start / group, len / group);
                (keys(&self.k)?, keys(&self.v)?)
            }
            2 => (self.k, self.v),
            _ => return None,
        };
        let mut origin = self.origin;
        origin[axis] += start;
        Some(Problem {
            out: cut(&self.out)?,
            lse: maybe(self.lse)?,
            q: cut(&self.q)?,
            k,
            v,
            mask: maybe(self.mask)?,
            bias: maybe(self.bias)?,
            alibi: maybe(self.alibi)?,
            sinks: maybe(self.sinks)?,
            kv_lens: maybe(self.kv_lens)?,
            place: self.place + if axis == 2 { i64::try_from(start).ok()? } else { 0 },
            origin,
            ..self.clone()
        })
    }
}
