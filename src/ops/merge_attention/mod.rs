//! Attention over two sets of keys, joined.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::error::Result;
use crate::ops::{self, Op};
use crate::{DType, Layout, Tensor};

const OP: &str = "merge_attention";

/// A checked call.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The element types of `out` and of both parts.
    pub dtypes: [DType; 3],
    /// [batch, heads, seq_q, v_dim]
    pub out: Layout,
    /// [batch, heads, seq_q]
    pub lse: Layout,
    /// Both results, of `out`'s dims.
    pub parts: [Layout; 2],
    /// And the logarithms of their sums, of `lse`'s dims.
    pub part_lses: [Layout; 2],
}

/// Joins the results of attention over two sets of keys into what one over all of them gives:
/// `lse = ln(exp(lse1) + exp(lse2))`, `out = exp(lse1 - lse) · out1 + exp(lse2 - lse) · out2`.
///
/// `out1` and `out2` are [batch, heads, seq_q, v_dim] floats, `lse1` and `lse2` f32 [batch, heads, seq_q], as
/// [`attention_with_lse`](crate::ops::attention_with_lse) gives them (in either order of axes: all of them in one). The first result has `out1`'s type, the second
/// is f32. A part without keys (-inf) adds nothing; where neither has any the results are zeros and -inf. So long sequences are worked on in pieces, a prefix that many share once,
/// and devices each on their own keys (Liu et al., "Ring Attention", 2023). A sink belongs to one of the parts.
///
/// Numerics: an error of at most `2^-23 · (16 + 2 · |lse1 - lse2|) · (|w1 · out1| + |w2 · out2|)` in `out`, with w the weights above, and of
/// `2^-23 · (8 + |lse|)` in `lse`.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let device = Device::cpu();
/// let normal = |seq, seed| Tensor::rand_normal(&device, &[1, 2, seq, 16], 0.0, 1.0, seed);
/// let (q, k, v) = (normal(3, 1)?, normal(10, 2)?, normal(10, 3)?);
/// let part = |keys: std::ops::Range<usize>| ops::attention_with_lse(&q, &k.narrow(2, keys.clone())?, &v.narrow(2, keys)?, &Default::default());
/// let ((out1, lse1), (out2, lse2)) = (part(0..4)?, part(4..10)?);
/// let (out, lse) = ops::merge_attention(&out1, &lse1, &out2, &lse2)?;
/// let (whole, whole_lse) = ops::attention_with_lse(&q, &k, &v, &Default::default())?;
/// let near = |a: &Tensor, b: &Tensor| -> gristmill::Result<bool> {
///     Ok(a.to_vec::<f32>()?.iter().zip(b.to_vec::<f32>()?).all(|(a, b)| (a - b).abs() < 1e-5))
/// };
/// assert!(near(&out, &whole)? && near(&lse, &whole_lse)?);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes do not fit as above, [`Error::DType`](crate::Error::DType) unless the results are floats and the logarithms f32,
/// [`Error::Device`](crate::Error::Device).
pub fn merge_attention(out1: &Tensor, lse1: &Tensor, out2: &Tensor, lse2: &Tensor) -> Result<(Tensor, Tensor)> {
    check(out1, lse1, out2, lse2)?;
    let mut out = ops::fresh(OP, out1.device(), out1.dtype(), out1.shape())?;
    let mut lse = ops::fresh(OP, out1.device(), DType::F32, lse1.shape())?;
    merge_attention_into(&mut out, &mut lse, out1, lse1, out2, lse2)?;
    Ok((out, lse))
}

/// [`merge_attention`] into tensors or views of the results' shapes: `out` of any float type, `lse` f32.
///
/// # Errors
/// As `merge_attention`, and [`Error::Overlap`](crate::Error::Overlap).
pub fn merge_attention_into(out: &mut Tensor, lse: &mut Tensor, out1: &Tensor, lse1: &Tensor, out2: &Tensor, lse2: &Tensor) -> Result<()> {
    check(out1, lse1, out2, lse2)?;
    let mut inputs = vec![("out1", out1), ("lse1", lse1), ("out2", out2), ("lse2", lse2)];
    ops::check_out_like(OP, out, out1.shape(), out1.dtype(), &inputs)?;
    inputs.push(("out", out));
    ops::check_out(OP, lse, lse1.shape(), DType::F32, &inputs)?;
    if out.is_empty() && lse.is_empty() {
        return Ok(());
    }
    let problem = Problem {
        dtypes: [out.dtype(), out1.dtype(), out2.dtype()],
        out: *out.layout(),
        lse: *lse.layout(),
        parts: [*out1.layout(), *out2.layout()],
        part_lses: [*lse1.layout(), *lse2.layout()],
    };
    ops::run_both(&problem, out, Some(lse), &[out1, lse1, out2, lse2])
}

fn check(out1: &Tensor, lse1: &Tensor, out2: &Tensor, lse2: &Tensor) -> Result<()> {
    let all = [("out1", out1), ("lse1", lse1), ("out2", out2), ("lse2", lse2)];
    ops::check_devices(OP, &all)?;
    ops::promote_floats(OP, &[all[0], all[2]])?;
    ops::check_dtype(OP, &[all[1], all[3]], DType::F32, "f32 for the logarithms of the sums")?;
    let misfit = |problem: &str, help| Err(ops::misfit(OP, &all, problem, help));
    if out1.rank() != 4 || out1.shape()[3] == 0 {
        return misfit("the results must have 4 axes, and columns", "give [batch, heads, seq_q, v_dim]");
    }
    if out1.shape() != out2.shape() {
        return misfit("the results differ in shape", "give two results of the same queries");
    }
    if lse1.shape() != &out1.shape()[..3] || lse2.shape() != &out1.shape()[..3] {
        return misfit("the logarithms do not belong to the results", "give one for each query: the results' shape without its last axis");
    }
    Ok(())
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        let mut lse = vec![0; 4 * self.lse.len()];
        self.cpu_both(out, &mut lse, inputs);
    }

    fn cpu_both(&self, out: &mut [u8], lse: &mut [u8], inputs: &[&[u8]]) {
        cpu::merge_attention(self, out, lse, inputs);
    }

    #[cfg(feature = "gpu")]
    fn plan(&self, caps: &crate::gpu::Caps, _: Option<crate::gpu::Pin>) -> Result<crate::gpu::Plan> {
        gpu::plan(caps, self)
    }

    #[cfg(feature = "gpu")]
    fn out(&self) -> &Layout {
        &self.out
    }

    #[cfg(feature = "gpu")]
    fn part(&self, axis: usize, start: usize, len: usize) -> Option<Self> {
        if axis > 2 {
            return None;
        }
        let cut = |layout: &Layout| layout.narrow(axis, start, len);
        let [a, b] = &self.parts;
        let [c, d] = &self.part_lses;
        Some(Problem {
            out: cut(&self.out)?,
            lse: cut(&self.lse)?,
            parts: [cut(a)?, cut(b)?],
            part_lses: [cut(c)?, cut(d)?],
            ..self.clone()
        })
    }
}
