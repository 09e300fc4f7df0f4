//! A choice between two tensors, element by element.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::error::Result;
use crate::ops::{self, Op};
use crate::{DType, Layout, Tensor};

const OP: &str = "where_cond";

/// A checked call.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The element type of `out`, `on_true` and `on_false`; `cond` is bool.
    pub dtype: DType,
    /// Where `out` lies.
    pub out: Layout,
    /// Where `cond` lies, broadcast to `out`'s dims.
    pub cond: Layout,
    /// Where `on_true` lies, broadcast to `out`'s dims.
    pub on_true: Layout,
    /// Where `on_false` lies, broadcast to `out`'s dims.
    pub on_false: Layout,
}

/// `out = cond ? on_true : on_false`, bit for bit: NaN payloads are kept, and what is not chosen has no influence.
///
/// Types: `cond` is bool, the others share any one type, which the result has. All three broadcast as NumPy's do.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let x = Tensor::from_slice(&Device::cpu(), &[4.0f32, -1.0, 9.0], &[3])?;
/// let zero = Tensor::full(&Device::cpu(), 0.0f32, &[])?;
/// let roots = ops::where_cond(&ops::ge(&x, &zero)?, &ops::sqrt(&x)?, &zero)?;
/// assert_eq!(roots.to_vec::<f32>()?, [2.0, 0.0, 3.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes do not broadcast, [`Error::DType`](crate::Error::DType) if `cond` is not bool or
/// the others differ, [`Error::Device`](crate::Error::Device).
pub fn where_cond(cond: &Tensor, on_true: &Tensor, on_false: &Tensor) -> Result<Tensor> {
    let dims = check(cond, on_true, on_false)?;
    let mut out = ops::fresh(OP, cond.device(), on_true.dtype(), &dims)?;
    where_cond_into(&mut out, cond, on_true, on_false)?;
    Ok(out)
}

/// [`where_cond`] into a tensor or view of the broadcast shape and the operands' type.
///
/// # Errors
/// As `where_cond`, and [`Error::Overlap`](crate::Error::Overlap) if `out` shares storage with an operand.
pub fn where_cond_into(out: &mut Tensor, cond: &Tensor, on_true: &Tensor, on_false: &Tensor) -> Result<()> {
    let dims = check(cond, on_true, on_false)?;
    let [cond, on_true, on_false] = [("cond", cond), ("on_true", on_true), ("on_false", on_false)];
    ops::check_out(OP, out, &dims, on_true.1.dtype(), &[cond, on_true, on_false])?;
    let problem = Problem {
        dtype: out.dtype(),
        out: *out.layout(),
        cond: ops::broadcast(OP, cond, &dims)?,
        on_true: ops::broadcast(OP, on_true, &dims)?,
        on_false: ops::broadcast(OP, on_false, &dims)?,
    };
    if out.is_empty() {
        return Ok(());
    }
    ops::run(&problem, out, &[cond.1, on_true.1, on_false.1])
}

/// The broadcast dims of valid operands.
fn check(cond: &Tensor, on_true: &Tensor, on_false: &Tensor) -> Result<Vec<usize>> {
    let all = [("cond", cond), ("on_true", on_true), ("on_false", on_false)];
    ops::check_devices(OP, &all)?;
    ops::check_dtype(OP, &all[..1], DType::Bool, "a condition of bools, as comparisons give it")?;
    ops::check_dtype(OP, &all[1..], on_true.dtype(), "one type for both values; `cast` one of them")?;
    Layout::broadcast_dims(&[cond.shape(), on_true.shape(), on_false.shape()]).ok_or_else(|| {
        let help = "align the axes at the right; those that meet must be equal or 1";
        ops::misfit(OP, &all, "the shapes do not broadcast", help)
    })
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::where_cond(self, out, inputs);
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
        Some(Problem {
            out: self.out.narrow(axis, start, len)?,
            cond: self.cond.narrow(axis, start, len)?,
            on_true: self.on_true.narrow(axis, start, len)?,
            on_false: self.on_false.narrow(axis, start, len)?,
            ..self.clone()
        })
    }
}
