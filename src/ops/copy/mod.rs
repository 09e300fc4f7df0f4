//! `out = x`, element by element: the op behind [`Tensor::contiguous`] and behind writing into views.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::error::Result;
use crate::ops::{self, Op};
use crate::{DType, Layout, Tensor};

const OP: &str = "copy";

/// A checked copy.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The element type of both.
    pub dtype: DType,
    /// Where `out` lies.
    pub out: Layout,
    /// Where `x` lies, with `out`'s dims.
    pub x: Layout,
}

/// A dense copy of `x`, of any dtype: [`copy_into`] a fresh tensor.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let x = Tensor::from_slice(&Device::cpu(), &[1u8, 2, 3, 4], &[2, 2])?;
/// let y = ops::copy(&x.transpose(0, 1)?)?;
/// assert!(y.layout().is_contiguous());
/// assert_eq!(y.to_vec::<u8>()?, [1, 3, 2, 4]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge), or the GPU failed.
pub fn copy(x: &Tensor) -> Result<Tensor> {
    let mut out = ops::fresh(OP, x.device(), x.dtype(), x.shape())?;
    copy_into(&mut out, x)?;
    Ok(out)
}

/// Writes `x`, broadcast to `out`'s shape, into `out`: a whole tensor or a view of one, of the same dtype. Bits are kept, NaN payloads
/// too.
///
/// Writing into a narrowed view appends to a cache or concatenates:
///
/// ```
/// use gristmill::{DType, Device, Tensor, ops};
///
/// let cache = Tensor::zeros(&Device::cpu(), DType::F32, &[4])?;
/// let new = Tensor::from_slice(&Device::cpu(), &[5.0f32, 6.0], &[2])?;
/// ops::copy_into(&mut cache.narrow(0, 1..3)?, &new)?;
/// assert_eq!(cache.to_vec::<f32>()?, [0.0, 5.0, 6.0, 0.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if `x` does not broadcast, [`Error::DType`](crate::Error::DType) if the types differ (use
/// [`cast_into`](ops::cast_into())), [`Error::Overlap`](crate::Error::Overlap), [`Error::Device`](crate::Error::Device).
pub fn copy_into(out: &mut Tensor, x: &Tensor) -> Result<()> {
    let layout = ops::broadcast(OP, ("x", x), out.shape())?;
    ops::check_out(OP, out, out.shape(), x.dtype(), &[("x", x)])?;
    let problem = Problem { dtype: x.dtype(), out: *out.layout(), x: layout };
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
        cpu::gather(out, inputs[0], &self.x, self.dtype.block_bytes());
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

impl Tensor {
    /// This tensor if it is dense already (a view of it, at no cost), else a dense copy.
    ///
    /// # Errors
    /// As [`ops::copy`](ops::copy()).
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.layout().is_contiguous() { Ok(self.clone()) } else { copy(self) }
    }
}
