//! Between element types, by one rule for every pair.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::error::Result;
use crate::ops::{self, Op};
use crate::{DType, Layout, Tensor};

const OP: &str = "cast";

/// A checked cast.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The element type of `out`.
    pub out_dtype: DType,
    /// The element type of `x`.
    pub x_dtype: DType,
    /// Where `out` lies.
    pub out: Layout,
    /// Where `x` lies, with `out`'s dims.
    pub x: Layout,
}

/// `x` as another element type, for all pairs of [`DType`]s.
///
/// The element is taken as a real number and rounded once:
///
/// | to | rule |
/// |---|---|
/// | f32, f16, bf16 | to nearest, ties to even; what overflows becomes ±inf; subnormals are kept; NaN stays NaN |
/// | i32, u32, u8 | truncated towards zero; what overflows saturates (so -1 becomes 0 in u32 and u8); NaN becomes 0 |
/// | bool | everything but zero is true, NaN too |
///
/// `false` and `true` count as 0 and 1. The result is the same bits on every device but for the payload of NaNs: the kernel uses integer
/// arithmetic only. Source of the float formats: IEEE 754-2019, section 3.4; bfloat16 is the upper half of a binary32.
///
/// ```
/// use gristmill::{DType, Device, Tensor, ops};
///
/// let x = Tensor::from_slice(&Device::cpu(), &[-1.5f32, 2.5, 300.0, f32::NAN], &[4])?;
/// assert_eq!(ops::cast(&x, DType::U8)?.to_vec::<u8>()?, [0, 2, 255, 0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge), or the GPU failed.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let mut out = ops::fresh(OP, x.device(), dtype, x.shape())?;
    cast_into(&mut out, x)?;
    Ok(out)
}

/// [`cast`] into a tensor or view of `x`'s shape and any dtype.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes differ, [`Error::Overlap`](crate::Error::Overlap),
/// [`Error::Device`](crate::Error::Device).
pub fn cast_into(out: &mut Tensor, x: &Tensor) -> Result<()> {
    if out.dtype() == x.dtype() && out.shape() == x.shape() {
        return ops::copy_into(out, x);
    }
    ops::check_out(OP, out, x.shape(), out.dtype(), &[("x", x)])?;
    let problem = Problem { out_dtype: out.dtype(), x_dtype: x.dtype(), out: *out.layout(), x: *x.layout() };
    if out.is_empty() {
        return Ok(());
    }
    ops::run(&problem, out, &[x])
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::cast(self, out, inputs[0]);
    }

    #[cfg(feature = "gpu")]
    fn plan(&self, caps: &crate::gpu::Caps, _pin: Option<crate::gpu::Pin>) -> Result<crate::gpu::Plan> {
        gpu::plan(caps, self)
    }

    #[cfg(feature = "gpu")]
    fn out(&self) -> &Layout {
        &self.out
    }

    #[cfg(feature = "gpu")]
    fn part(&self, axis: usize, start: usize, len: usize) -> Option<Self> {
        Some(Problem { out: self.out.narrow(axis, start, len)?, x: self.x.narrow(axis, start, len)?, ..self.clone() })
    }
}
