//! Softmax and its logarithm along an axis.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::error::Result;
use crate::ops::{self, Op};
use crate::tensor::axis_of;
use crate::{DType, Layout, Tensor};

/// Options of [`softmax`] and [`log_softmax`].
#[derive(Debug, Clone, Copy)]
pub struct Softmax<'a> {
    /// Factor of `x`, before the mask is added. 1 by default.
    pub scale: f32,
    /// f32 or `x`'s type, added to `scale * x`; broadcasts to `x`'s shape. Elements of -inf mask.
    pub mask: Option<&'a Tensor>,
}

impl Default for Softmax<'_> {
    fn default() -> Self {
        Softmax { scale: 1.0, mask: None }
    }
}

/// A checked call. All layouts have `x`'s dims.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The element types of `out`, `x` and the mask; f32 for one that is not there.
    pub dtypes: [DType; 3],
    /// Whether the logarithm is asked for.
    pub log: bool,
    /// The axis that sums to 1.
    pub axis: usize,
    /// Factor of `x`.
    pub scale: f32,
    /// Where `out` lies.
    pub out: Layout,
    /// Where `x` lies.
    pub x: Layout,
    /// Where the mask lies, broadcast.
    pub mask: Option<Layout>,
}

impl Problem {
    const fn op(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }
}

/// `out = exp(l - max l) / Σ exp(l - max l)` along `axis`, with `l = scale · x + mask`, in f32.
///
/// Types: f32, f16 or bf16; the result has `x`'s, [`softmax_into`] writes any of them, rounded once to nearest even. Shapes: any `x`, any axis (negative from the end); the mask broadcasts to `x`; `out` has `x`'s shape.
///
/// Only -inf masks (in the mask or in `x`): such elements get exactly 0, and a row with no other gives zeros. A finite mask, however low,
/// masks nothing. NaN gives unspecified values in its own row.
///
/// Numerics: the relative error of an element is at most `2^-23 · ((3 + 2t) + max(3 + 2t) + n + 2.5)` with `t` its distance from the row's
/// maximum and n the axis' size, first order, plus what rounding `l` costs: `2^-22 · (|l| + |max l|)` where there is a scale or a mask;
/// results below 2^-126 may be 0. The maximum is subtracted first (Blanchard, Higham and Higham, "Accurately computing the log-sum-exp and
/// softmax functions", IMA J. Numer. Anal. 2021), so nothing overflows.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&device, &[0.0f32, 0.0, 7.0], &[3])?;
/// let mask = Tensor::from_slice(&device, &[0.0, 0.0, f32::NEG_INFINITY], &[3])?;
/// let options = ops::Softmax { mask: Some(&mask), ..Default::default() };
/// assert_eq!(ops::softmax(&x, -1, &options)?.to_vec::<f32>()?, [0.5, 0.5, 0.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) if there is no such axis or the scale is not finite, [`Error::Shape`](crate::Error::Shape)
/// if the mask does not broadcast, [`Error::DType`](crate::Error::DType) unless `x` is a float and the mask f32 or of its type, [`Error::Device`](crate::Error::Device).
pub fn softmax(x: &Tensor, axis: isize, options: &Softmax) -> Result<Tensor> {
    call(false, x, axis, options)
}

/// [`softmax`] into a tensor or view of `x`'s shape and any float type.
///
/// # Errors
/// As `softmax`, and [`Error::Overlap`](crate::Error::Overlap).
pub fn softmax_into(out: &mut Tensor, x: &Tensor, axis: isize, options: &Softmax) -> Result<()> {
    call_into(false, out, x, axis, options)
}

/// `out = l - max l - ln Σ exp(l - max l)` along `axis`, with `l = scale · x + mask`, in f32: the logarithm of [`softmax`], without
/// its underflow.
///
/// Shapes and masks as there; masked elements get -inf, the logarithm of 0, and so does all of a row with no other.
///
/// Numerics: the absolute error is at most `2^-23 · (4t + max(3 + 2t) + n + 8)` with `t` the distance from the row's maximum and n the
/// axis' size, plus what rounding `l` costs: `2^-22 · (|l| + |max l|)` where there is a scale or a mask. Results below the range of f32
/// saturate at its lowest finite value, which is -inf in f16.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let x = Tensor::from_slice(&Device::cpu(), &[1000.0f32, 0.0], &[2])?;
/// assert_eq!(ops::log_softmax(&x, 0, &Default::default())?.to_vec::<f32>()?, [0.0, -1000.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// As [`softmax`].
pub fn log_softmax(x: &Tensor, axis: isize, options: &Softmax) -> Result<Tensor> {
    call(true, x, axis, options)
}

/// [`log_softmax`] into a tensor or view of `x`'s shape and any float type.
///
/// # Errors
/// As `log_softmax`, and [`Error::Overlap`](crate::Error::Overlap).
pub fn log_softmax_into(out: &mut Tensor, x: &Tensor, axis: isize, options: &Softmax) -> Result<()> {
    call_into(true, out, x, axis, options)
}

fn call(log: bool, x: &Tensor, axis: isize, options: &Softmax) -> Result<Tensor> {
    let problem = check(log, x, axis, options)?;
    let mut out = ops::fresh(problem.op(), x.device(), x.dtype(), x.shape())?;
    call_into(log, &mut out, x, axis, options)?;
    Ok(out)
}

/// The facts of a valid call, `out` still standing where `x` does.
fn check(log: bool, x: &Tensor, axis: isize, options: &Softmax) -> Result<Problem> {
    let op = if log { "log_softmax" } else { "softmax" };
    let mut all = vec![("x", x)];
    all.extend(options.mask.map(|mask| ("mask", mask)));
    ops::check_devices(op, &all)?;
    ops::promote_floats(op, &[("x", x)])?;
    if let Some(mask) = options.mask
        && mask.dtype() != DType::F32
    {
        ops::check_dtype(op, &[("mask", mask)], x.dtype(), "f32 or x's type for mask")?;
    }
    ops::check_scale(op, options.scale)?;
    let mask = options.mask.map(|mask| ops::broadcast(op, ("mask", mask), x.shape())).transpose()?;
    Ok(Problem {
        dtypes: [x.dtype(), x.dtype(), options.mask.map_or(DType::F32, Tensor::dtype)],
        log,
        axis: axis_of(op, axis, x.rank())?,
        scale: options.scale,
        out: *x.layout(),
        x: *x.layout(),
        mask,
    })
}

fn call_into(log: bool, out: &mut Tensor, x: &Tensor, axis: isize, options: &Softmax) -> Result<()> {
    let mut problem = check(log, x, axis, options)?;
    let mut inputs = vec![("x", x)];
    inputs.extend(options.mask.map(|mask| ("mask", mask)));
    ops::check_out_like(problem.op(), out, x.shape(), x.dtype(), &inputs)?;
    problem.out = *out.layout();
    problem.dtypes[0] = out.dtype();
    if out.is_empty() {
        return Ok(());
    }
    let tensors: Vec<&Tensor> = inputs.iter().map(|(_, t)| *t).collect();
    ops::run(&problem, out, &tensors)
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        self.op()
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::softmax(self, out, inputs[0], inputs.get(1).copied());
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
        if axis == self.axis {
            return None;
        }
        let mask = match self.mask {
            Some(mask) => Some(mask.narrow(axis, start, len)?),
            None => None,
        };
        Some(Problem { out: self.out.narrow(axis, start, len)?, x: self.x.narrow(axis, start, len)?, mask, ..self.clone() })
    }
}
