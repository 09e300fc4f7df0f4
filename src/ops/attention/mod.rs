//! Scaled dot-product attention, fused.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::error::{Error, Result};
use crate::ops::{self, Op};
use crate::{DType, Layout, Tensor};

const OP: &str = "attention";

/// The largest `head_dim` and `v_dim`.
pub const MAX_HEAD_DIM: usize = 256;

/// Which keys a query may see by its place alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Causal {
    /// All of them.
    #[default]
    None,
    /// Query `i` sees keys `0..=i`: the diagonal starts at the top left. For queries that start where the keys do.
    TopLeft,
    /// Query `i` sees keys `0..=i + seq_k - seq_q`: the diagonal ends at the bottom right. For queries that end where the keys do, as with
    /// a cache. The same as `TopLeft` where `seq_q = seq_k`.
    BottomRight,
}

/// Options of [`attention`]. All of them combine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attention<'a> {
    /// Which keys a query may see by its place.
    pub causal: Causal,
    /// Factor of `q · kᵀ`; `1 / √head_dim` by default.
    pub scale: Option<f32>,
    /// bool; broadcasts to [batch, heads, seq_q, seq_k]. `false` masks the key for the query.
    pub mask: Option<&'a Tensor>,
    /// f32 or `q`'s type; broadcasts to [batch, heads, seq_q, seq_k]. Added to the scaled scores; -inf masks the key for the query.
    pub bias: Option<&'a Tensor>,
}

/// A checked call. `mask` and `bias` are broadcast to [batch, heads, seq_q, seq_k].
#[derive(Debug, Clone)]
pub struct Problem {
    /// The element types of `out`, `q`, `k`, `v` and the bias; f32 for one that is not there.
    pub dtypes: [DType; 5],
    /// Whether a query's result must not depend on the others ([`Device::batch_invariant`](crate::Device::batch_invariant)).
    pub batch_invariant: bool,
    /// [batch, heads, seq_q, v_dim]
    pub out: Layout,
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
    /// Query `i` sees keys below `i + causal_limit`, and none at or past `seq_k`.
    pub causal_limit: i64,
    /// Factor of the scores.
    pub scale: f32,
}

impl Problem {
    fn heads(&self) -> usize {
        self.q.dims()[1]
    }
    fn heads_per_kv(&self) -> usize {
        self.q.dims()[1] / self.k.dims()[1].max(1)
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
/// `kv_heads` divides `heads`: query head h uses key head `h / (heads / kv_heads)`, so 1 is multi-query and fewer than `heads` grouped-query
/// attention. `head_dim` and `v_dim` are 1 to 256 and may differ. Operands may be views of any strides: [batch, seq, heads, dim] memory
/// is a `permute` away. The score matrix is never in memory.
///
/// A key is masked for a query by `causal`, by a `false` in `mask`, by a -inf in `bias`, and by nothing else; a bias that is finite, however
/// low, masks nothing. A query with every key masked (or with no keys) gives zeros. NaN in an operand gives unspecified values, in the
/// rows that it reaches. A masked key has weight 0, not absence: its row of `v` must be finite, for 0 · inf is NaN.
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
/// let options = ops::Attention { causal: ops::Causal::BottomRight, ..Default::default() };
/// assert_eq!(ops::attention(&q, &k, &v, &options)?.shape(), [1, 8, 5, 32]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit as above or a mask does not broadcast, [`Error::DType`] unless the types are as above,
/// `bias` f32 or of `q`'s type and `mask` bool, [`Error::Argument`] if the scale is not finite, [`Error::Device`], [`Error::TooLarge`].
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, options: &Attention) -> Result<Tensor> {
    let dims = check(q, k, v, options)?;
    let mut out = ops::fresh(OP, q.device(), q.dtype(), &dims)?;
    attention_into(&mut out, q, k, v, options)?;
    Ok(out)
}

/// [`attention`] into a tensor or view of the result's shape and any float type.
///
/// # Errors
/// As `attention`, and [`Error::Overlap`].
pub fn attention_into(out: &mut Tensor, q: &Tensor, k: &Tensor, v: &Tensor, options: &Attention) -> Result<()> {
    let dims = check(q, k, v, options)?;
    let inputs = named(q, k, v, options);
    ops::check_out_like(OP, out, &dims, q.dtype(), &inputs)?;
    let [batch, heads, seq_q, _] = [dims[0], dims[1], dims[2], dims[3]];
    let seq_k = k.shape()[2];
    let scores = [batch, heads, seq_q, seq_k];
    let over_scores = |name, tensor: Option<&Tensor>| tensor.map(|t| ops::broadcast(OP, (name, t), &scores)).transpose();
    let problem = Problem {
        dtypes: [out.dtype(), q.dtype(), k.dtype(), v.dtype(), options.bias.map_or(DType::F32, Tensor::dtype)],
        batch_invariant: q.device().is_batch_invariant(),
        out: *out.layout(),
        q: *q.layout(),
        k: *k.layout(),
        v: *v.layout(),
        mask: over_scores("mask", options.mask)?,
        bias: over_scores("bias", options.bias)?,
        causal_limit: match options.causal {
            Causal::None => seq_k as i64,
            Causal::TopLeft => 1,
            Causal::BottomRight => 1 + seq_k as i64 - seq_q as i64,
        },
        scale: options.scale.unwrap_or(1.0 / (q.shape()[3] as f32).sqrt()),
    };
    if out.is_empty() {
        return Ok(());
    }
    let tensors: Vec<&Tensor> = inputs.iter().map(|(_, t)| *t).collect();
    ops::run(&problem, out, &tensors)
}

fn named<'a>(q: &'a Tensor, k: &'a Tensor, v: &'a Tensor, options: &Attention<'a>) -> Vec<ops::Named<'a>> {
    let mut all = vec![("q", q), ("k", k), ("v", v)];
    all.extend(options.mask.map(|mask| ("mask", mask)));
    all.extend(options.bias.map(|bias| ("bias", bias)));
    all
}

/// The result's shape of a valid call.
fn check(q: &Tensor, k: &Tensor, v: &Tensor, options: &Attention) -> Result<Vec<usize>> {
    let qkv = [("q", q), ("k", k), ("v", v)];
    let misfit = |problem: String, help| Err(ops::misfit(OP, &qkv, problem, help));
    ops::check_devices(OP, &named(q, k, v, options))?;
    let supported = "one float type for q, k and v, or f32 for q and one of 16 bits for k and v";
    ops::promote_floats(OP, &[("q", q), ("k", k)])?;
    ops::check_dtype(OP, &[("v", v)], k.dtype(), supported)?;
    if q.dtype() != DType::F32 {
        ops::check_dtype(OP, &qkv, q.dtype(), supported)?;
    }
    if let Some(mask) = options.mask {
        ops::check_dtype(OP, &[("mask", mask)], DType::Bool, "bool for mask (additive masks go into bias)")?;
    }
    if let Some(bias) = options.bias
        && bias.dtype() != DType::F32
    {
        ops::check_dtype(OP, &[("bias", bias)], q.dtype(), "f32 or q's type for bias (boolean masks go into mask)")?;
    }
    if let Some((name, _)) = qkv.iter().find(|(_, t)| t.rank() != 4) {
        return misfit(format!("`{name}` must have 4 axes"), "give [batch, heads, seq, dim]; `unsqueeze` what is missing");
    }
    let (qs, ks, vs) = (q.shape(), k.shape(), v.shape());
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
    if let Some(scale) = options.scale {
        ops::check_scale(OP, scale)?;
    }
    // Places of queries and keys are counted in i32 on the GPU.
    if let Some(seq) = [qs[2], ks[2]].into_iter().find(|&seq| seq >= 1 << 30) {
        return Err(Error::TooLarge {
            op: OP,
            what: "the sequence".into(),
            requested: seq as u128,
            limit: (1 << 30) - 1,
            limit_name: "queries or keys",
        });
    }
    let scores = [qs[0], qs[1], qs[2], ks[2]];
    for (name, tensor) in [("mask", options.mask), ("bias", options.bias)] {
        if let Some(tensor) = tensor {
            ops::broadcast(OP, (name, tensor), &scores)?;
        }
    }
    Ok(vec![qs[0], qs[1], qs[2], vs[3]])
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        let mask = self.mask.as_ref().map(|_| inputs[3]);
        let bias = self.bias.as_ref().map(|_| inputs[3 + usize::from(mask.is_some())]);
        cpu::attention(self, out, [inputs[0], inputs[1], inputs[2]], mask, bias);
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
        let cut = |layout: &Layout, axis, start, len| layout.narrow(axis, start, len);
        let masks = |mask: Option<Layout>| match mask {
            Some(mask) => cut(&mask, axis, start, len).map(Some),
            None => Some(None),
        };
        let group = self.grain(1);
        let (k, v, causal_limit) = match axis {
            0 => (cut(&self.k, 0, start, len)?, cut(&self.v, 0, start, len)?, self.causal_limit),
            // Whole groups of heads.
            1 if start.is_multiple_of(group) && len.is_multiple_of(group) => {
                let (start, len) = (start / group, len / group);
                (cut(&self.k, 1, start, len)?, cut(&self.v, 1, start, len)?, self.causal_limit)
            }
            2 => (self.k, self.v, self.causal_limit.saturating_add(i64::try_from(start).ok()?)),
            _ => return None,
        };
        let (out, q) = (cut(&self.out, axis, start, len)?, cut(&self.q, axis, start, len)?);
        Some(Problem { out, q, k, v, mask: masks(self.mask)?, bias: masks(self.bias)?, causal_limit, ..self.clone() })
    }
}
