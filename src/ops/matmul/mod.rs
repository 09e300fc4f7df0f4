//! Matrix multiplication.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::error::Result;
use crate::ops::{self, Op};
use crate::tensor::dense;
use crate::{DType, Layout, Tensor};

const OP: &str = "matmul";

/// A checked matmul. Each layout has the batch axes (broadcast, the same in all three) and two more.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The element types of `out`, `lhs` and `rhs`.
    pub dtypes: [DType; 3],
    /// Whether a row's result must not depend on how many there are ([`Device::batch_invariant`](crate::Device::batch_invariant)).
    pub batch_invariant: bool,
    /// [batch…, m, n]
    pub out: Layout,
    /// [batch…, m, k]
    pub lhs: Layout,
    /// [batch…, k, n]
    pub rhs: Layout,
}

impl Problem {
    /// Rows of `out`.
    pub fn m(&self) -> usize {
        self.out.dims()[self.out.rank() - 2]
    }

    /// Columns of `out`.
    pub fn n(&self) -> usize {
        self.out.dims()[self.out.rank() - 1]
    }

    /// The axis that is summed over.
    pub fn k(&self) -> usize {
        self.lhs.dims()[self.lhs.rank() - 1]
    }

    /// Matrices in the batch.
    pub fn batch(&self) -> usize {
        self.out.dims()[..self.out.rank() - 2].iter().product()
    }

    /// The batch axes of one operand, merged with those of the others: layouts of the same dims, without the matrices.
    fn batches(&self) -> Vec<Layout> {
        let outer = [self.out, self.lhs, self.rhs].map(|layout| {
            let at = layout.rank() - 2;
            // Narrowed to their first row and column, the matrix axes drop out of the merge.
            let first = |l: Layout, axis| if l.dims()[axis] == 0 { None } else { l.narrow(axis, 0, 1) };
            first(layout, at).and_then(|l| first(l, at + 1)).unwrap_or(layout)
        });
        Layout::merge(&outer)
    }
}

/// `out[…, i, j] = Σ_l lhs[…, i, l] · rhs[…, l, j]`, products and sums in f32.
///
/// Types: f32, f16 and bf16. The result has the operands' type, or f32 where one is f32 and the other has 16 bits (f32 activations times 16-bit
/// weights); [`matmul_into`] writes any of the three, so 16-bit operands give f32 sums where they are wanted. f32 operands are never rounded to
/// 16 bits on the way.
///
/// Shapes, as in NumPy's `matmul`: `[…, m, k] · […, k, n] → […, m, n]`, the axes before the last two broadcast against each other. A
/// vector `[k]` stands for one row on the left or one column on the right, and its axis is left out of the result. m, n, k may be 0; with
/// k = 0 the result is zeros. Operands may be views of any strides: a transpose costs nothing.
///
/// Numerics: each element differs from the exact result by at most `c · 2^-23 · Σ|lhs||rhs|` with c = 16 for k ≤ 64 and 4·√k beyond (the
/// ratio of the BLAS testers, 16 there), and is exact where all partial sums are. The same device, driver and shapes give the same bits; on
/// the CPU whatever the number of threads. A result of 16 bits is rounded once, to nearest even; what overflows becomes ±inf. On the CPU this runs on the `gemm` crate.
///
/// Source of the blocking on the GPU: Volkov and Demmel, "Benchmarking GPUs to tune dense linear algebra" (SC 2008).
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
/// let w = Tensor::from_slice(&device, &[1.0f32, 0.0, 1.0, 1.0, 2.0, 0.0], &[3, 2])?;
/// let y = ops::matmul(&x, &w.transpose(0, 1)?)?; // a linear layer: x · wᵀ
/// assert_eq!(y.shape(), [2, 3]);
/// assert_eq!(y.to_vec::<f32>()?, [1.0, 3.0, 2.0, 3.0, 7.0, 6.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the inner sizes differ, the batch axes do not broadcast, or an operand is a scalar;
/// [`Error::DType`](crate::Error::DType) unless both are floats, not f16 with bf16; [`Error::Device`](crate::Error::Device);
/// [`Error::TooLarge`](crate::Error::TooLarge).
pub fn matmul(lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
    let (dims, dtype) = check(lhs, rhs)?;
    let mut out = ops::fresh(OP, lhs.device(), dtype, &dims)?;
    matmul_into(&mut out, lhs, rhs)?;
    Ok(out)
}

/// [`matmul`] into a tensor or view of the result's shape and any float type.
///
/// # Errors
/// As `matmul`, and [`Error::Overlap`](crate::Error::Overlap).
pub fn matmul_into(out: &mut Tensor, lhs: &Tensor, rhs: &Tensor) -> Result<()> {
    let (dims, dtype) = check(lhs, rhs)?;
    ops::check_out_like(OP, out, &dims, dtype, &[("lhs", lhs), ("rhs", rhs)])?;
    let problem = problem(out, lhs, rhs)?;
    if out.is_empty() {
        return Ok(());
    }
    ops::run(&problem, out, &[lhs, rhs])
}

/// The shape and the type of the result of a valid pair.
fn check(lhs: &Tensor, rhs: &Tensor) -> Result<(Vec<usize>, DType)> {
    let both = [("lhs", lhs), ("rhs", rhs)];
    ops::check_devices(OP, &both)?;
    let dtype = ops::promote_floats(OP, &both)?;
    let (left, right) = (lhs.shape(), rhs.shape());
    if left.is_empty() || right.is_empty() {
        return Err(ops::misfit(OP, &both, "a scalar is no matrix", "scale with `mul`"));
    }
    let k_left = left[left.len() - 1];
    let k_right = right[right.len().saturating_sub(2)];
    if k_left != k_right {
        let problem = format!("the inner sizes differ ({k_left} and {k_right})");
        return Err(ops::misfit(OP, &both, problem, "`transpose` the operand that lies the other way"));
    }
    let outer = |dims: &[usize]| dims[..dims.len().saturating_sub(2)].to_vec();
    let mut dims = Layout::broadcast_dims(&[&outer(left), &outer(right)]).ok_or_else(|| {
        let help = "the axes before the last two must align at the right, equal or 1";
        ops::misfit(OP, &both, "the batch axes do not broadcast", help)
    })?;
    if left.len() > 1 {
        dims.push(left[left.len() - 2]);
    }
    if right.len() > 1 {
        dims.push(right[right.len() - 1]);
    }
    dense(OP, &dims)?;
    Ok((dims, dtype))
}

/// The facts of a checked call: vectors become matrices, batch axes are broadcast.
fn problem(result: &Tensor, lhs: &Tensor, rhs: &Tensor) -> Result<Problem> {
    let too_many = || {
        let help = "merge some batch axes with `reshape`";
        ops::misfit(OP, &[("lhs", lhs), ("rhs", rhs)], "too many axes", help)
    };
    let (vector_left, vector_right) = (lhs.rank() == 1, rhs.rank() == 1);
    let mut out = Some(*result.layout());
    // The result of a vector lacks its axis: the column's is the last, the row's the one before.
    if vector_right {
        out = out.and_then(|o| o.unsqueeze(o.rank()));
    }
    if vector_left {
        out = out.and_then(|o| o.unsqueeze(o.rank() - 1));
    }
    let left = if vector_left { lhs.layout().unsqueeze(0) } else { Some(*lhs.layout()) };
    let right = if vector_right { rhs.layout().unsqueeze(1) } else { Some(*rhs.layout()) };
    let (Some(out), Some(left), Some(right)) = (out, left, right) else {
        return Err(too_many());
    };
    let (m, n, k) = (left.dims()[left.rank() - 2], right.dims()[right.rank() - 1], left.dims()[left.rank() - 1]);
    let batch = &out.dims()[..out.rank() - 2];
    let lhs_layout = left.broadcast_to(&[batch, &[m, k]].concat()).ok_or_else(too_many)?;
    let rhs_layout = right.broadcast_to(&[batch, &[k, n]].concat()).ok_or_else(too_many)?;
    Ok(Problem {
        dtypes: [result.dtype(), lhs.dtype(), rhs.dtype()],
        batch_invariant: lhs.device().is_batch_invariant(),
        out,
        lhs: lhs_layout,
        rhs: rhs_layout,
    })
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::matmul(self, out, inputs[0], inputs[1]);
    }

    #[cfg(feature = "gpu")]
    fn plan(&self, caps: &crate::gpu::Caps, pin: Option<crate::gpu::Pin>) -> Result<crate::gpu::Plan> {
        gpu::plan(caps, pin, self)
    }

    #[cfg(feature = "gpu")]
    fn out(&self) -> &Layout {
        &self.out
    }

    #[cfg(feature = "gpu")]
    fn part(&self, axis: usize, start: usize, len: usize) -> Option<Self> {
        let (rank, part) = (self.out.rank(), |layout: &Layout| layout.narrow(axis, start, len));
        let lhs = if axis + 1 == rank { self.lhs } else { part(&self.lhs)? };
        let rhs = if axis + 2 == rank { self.rhs } else { part(&self.rhs)? };
        Some(Problem { out: part(&self.out)?, lhs, rhs, ..self.clone() })
    }
}
