//! Softmax and its logarithm along an axis.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(feature = "gpu")]
mod select;

use crate::error::{Error, Result};
use crate::ops::attention::Align;
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
    /// Where the queries stand among the keys, if keys after a query's place are to be masked: `x`'s last axes are then queries and keys, and the last
    /// is the axis.
    pub causal: Option<Align>,
    /// One more logit a row, of any float type, neither scaled nor masked: it counts in the maximum and the sum, and has no result, so that
    /// the others sum to less than 1. Broadcasts to `x`'s shape with the axis of size 1. One of -inf is none.
    ///
    /// Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023.
    pub sinks: Option<&'a Tensor>,
}

impl Default for Softmax<'_> {
    fn default() -> Self {
        Softmax { scale: 1.0, mask: None, causal: None, sinks: None }
    }
}

/// A checked call. All layouts have `x`'s dims.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The element types of `out`, `x`, the mask and the sinks; f32 for one that is not there.
    pub dtypes: [DType; 4],
    /// Whether the logarithm is asked for.
    pub log: bool,
    /// Whether `out` is `x`, which the call is not given then.
    pub in_place: bool,
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
    /// Query `i`, along the axis before the last, sees elements below `i + causal_limit`; the axis' size or more hides nothing.
    pub causal_limit: i64,
    /// Where the sinks lie, broadcast: along the axis all are one.
    pub sinks: Option<Layout>,
}

impl Problem {
    const fn op(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    /// Whether some row may not see all of its elements. If so, `axis` is the last of two or more.
    pub(crate) fn is_causal(&self) -> bool {
        self.causal_limit < self.x.dims()[self.axis] as i64
    }
}

/// `out = exp(l - max l) / Σ exp(l - max l)` along `axis`, with `l = scale · x + mask`, in f32.
///
/// Types: f32, f16 or bf16; the result has `x`'s, [`softmax_into`] writes any of them, rounded once to nearest even. Shapes: any `x`, any axis (negative from the end); the mask broadcasts to `x`, [sinks](Softmax::sinks) to its rows; `out` has `x`'s shape.
///
/// Only -inf masks (in the mask or in `x`), and `causal`: such elements get exactly 0, and a row with no other gives zeros, with a sink too. A
/// finite mask, however low, masks nothing. NaN gives unspecified values in its own row.
///
/// Numerics: the relative error of an element is at most `2^-23 · ((3 + 2t) + max(3 + 2t) + n + 2.5)` with `t` its distance from the row's
/// maximum and n the axis' size, with a sink 4 more, first order, plus what rounding `l` costs: `2^-22 · (|l| + |max l|)` where there is
/// a scale or a mask (with `|scale · x| + |mask|` for `|l|` on a GPU whose compiler parts the product from the sum); results below 2^-126 may be 0. The maximum is subtracted first (Blanchard, Higham and Higham, "Accurately computing the
/// log-sum-exp and softmax functions", IMA J. Numer. Anal. 2021), so nothing overflows.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&device, &[0.0f32, 0.0, 7.0], &[3])?;
/// let mask = Tensor::from_slice(&device, &[0.0, 0.0, f32::NEG_INFINITY], &[3])?;
/// let options = ops::Softmax { mask: Some(&mask), ..Default::default() };
/// assert_eq!(ops::softmax(&x, -1, &options)?.to_vec::<f32>()?, [0.5, 0.5, 0.0]);
///
/// let sink = Tensor::from_slice(&device, &[0.0f32], &[1])?;
/// let x = Tensor::zeros(&device, gristmill::DType::F32, &[2, 3])?;
/// let options = ops::Softmax { causal: Some(ops::Align::TopLeft), sinks: Some(&sink), ..Default::default() };
/// let third = 1.0 / 3.0;
/// assert_eq!(ops::softmax(&x, -1, &options)?.to_vec::<f32>()?, [0.5, 0.0, 0.0, third, third, 0.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] if there is no such axis, the scale is not finite, or `causal` is asked for along another axis
/// than the last of two; [`Error::Shape`] if the mask or the sinks do not broadcast,
/// [`Error::DType`] unless `x` and the sinks are floats and the mask f32 or of `x`'s type, [`Error::Device`].
pub fn softmax(x: &Tensor, axis: isize, options: &Softmax) -> Result<Tensor> {
    call(false, x, axis, options)
}

/// [`softmax`] into a tensor or view of `x`'s shape and any float type.
///
/// # Errors
/// As `softmax`, and [`Error::Overlap`].
pub fn softmax_into(out: &mut Tensor, x: &Tensor, axis: isize, options: &Softmax) -> Result<()> {
    call_into(false, out, x, axis, options)
}

/// [`softmax`] of a tensor or view, which becomes the result.
///
/// # Errors
/// As `softmax`, and [`Error::Overlap`].
pub fn softmax_in_place(x: &mut Tensor, axis: isize, options: &Softmax) -> Result<()> {
    call_in_place(false, x, axis, options)
}

/// `out = l - max l - ln Σ exp(l - max l)` along `axis`, with `l = scale · x + mask`, in f32: the logarithm of [`softmax`], without
/// its underflow.
///
/// Shapes, masks and sinks as there; masked elements get -inf, the logarithm of 0, and so does all of a row with no other.
///
/// Numerics: the absolute error is at most `2^-23 · (4t + max(3 + 2t) + n + 8)` with `t` the distance from the row's maximum and n the
/// axis' size, with a sink 4 more, plus what rounding `l` costs: `2^-22 · (|l| + |max l|)` where there is a scale or a mask. Results below
/// the range of f32 saturate at its lowest finite value, which is -inf in 16 bits, as is all past their range.
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
/// As `log_softmax`, and [`Error::Overlap`].
pub fn log_softmax_into(out: &mut Tensor, x: &Tensor, axis: isize, options: &Softmax) -> Result<()> {
    call_into(true, out, x, axis, options)
}

/// [`log_softmax`] of a tensor or view, which becomes the result.
///
/// # Errors
/// As `log_softmax`, and [`Error::Overlap`].
pub fn log_softmax_in_place(x: &mut Tensor, axis: isize, options: &Softmax) -> Result<()> {
    call_in_place(true, x, axis, options)
}

fn call(log: bool, x: &Tensor, axis: isize, options: &Softmax) -> Result<Tensor> {
    let problem = check(log, x, axis, options)?;
    let mut out = ops::fresh(problem.op(), x.device(), x.dtype(), x.shape())?;
    call_into(log, &mut out, x, axis, options)?;
    Ok(out)
}

/// `x` and what the options bring, or that alone.
fn named<'a>(x: Option<&'a Tensor>, options: &Softmax<'a>) -> Vec<ops::Named<'a>> {
    let all = [("x", x), ("mask", options.mask), ("sinks", options.sinks)];
    all.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect()
}

/// The facts of a valid call, `out` still standing where `x` does.
fn check(log: bool, x: &Tensor, axis: isize, options: &Softmax) -> Result<Problem> {
    let op = if log { "log_softmax" } else { "softmax" };
    ops::check_devices(op, &named(Some(x), options))?;
    ops::promote_floats(op, &[("x", x)])?;
    if let Some(mask) = options.mask
        && mask.dtype() != DType::F32
    {
        ops::check_dtype(op, &[("mask", mask)], x.dtype(), "f32 or x's type for mask")?;
    }
    if let Some(sinks) = options.sinks {
        ops::promote_floats(op, &[("sinks", sinks)])?;
    }
    ops::check_scale(op, options.scale)?;
    let mask = options.mask.map(|mask| ops::broadcast(op, ("mask", mask), x.shape())).transpose()?;
    let axis = axis_of(op, axis, x.rank())?;
    let dims = x.shape();
    if options.causal.is_some() && (dims.len() < 2 || axis + 1 != dims.len()) {
        let problem = format!("is asked for along axis {axis} of {dims:?}");
        let help = "put queries and keys last, in that order, and take the last axis";
        return Err(Error::Argument { op, argument: "causal", problem, help });
    }
    let mut rows = dims.to_vec();
    rows[axis] = 1;
    let over_rows = |sinks| ops::broadcast(op, ("sinks", sinks), &rows);
    let sinks = options.sinks.map(over_rows).transpose()?.and_then(|sinks| sinks.broadcast_to(dims));
    Ok(Problem {
        dtypes: [x.dtype(), x.dtype(), options.mask.map_or(DType::F32, Tensor::dtype), options.sinks.map_or(DType::F32, Tensor::dtype)],
        log,
        in_place: false,
        axis,
        scale: options.scale,
        out: *x.layout(),
        x: *x.layout(),
        mask,
        causal_limit: match options.causal {
            None => dims[axis] as i64,
            Some(Align::TopLeft) => 1,
            Some(Align::BottomRight) => 1 + dims[axis] as i64 - dims[axis - 1] as i64,
            Some(Align::Offset(offset)) => offset.saturating_add(1),
        },
        sinks,
    })
}

fn call_into(log: bool, out: &mut Tensor, x: &Tensor, axis: isize, options: &Softmax) -> Result<()> {
    let mut problem = check(log, x, axis, options)?;
    let inputs = named(Some(x), options);
    ops::check_out_like(problem.op(), out, x.shape(), x.dtype(), &inputs)?;
    problem.out = *out.layout();
    problem.dtypes[0] = out.dtype();
    if out.is_empty() {
        return Ok(());
    }
    let tensors: Vec<&Tensor> = inputs.iter().map(|(_, t)| *t).collect();
    ops::run(&problem, out, &tensors)
}

fn call_in_place(log: bool, x: &mut Tensor, axis: isize, options: &Softmax) -> Result<()> {
    let problem = Problem { in_place: true, ..check(log, x, axis, options)? };
    let inputs = named(None, options);
    let shape = x.shape().to_vec();
    ops::check_out(problem.op(), x, &shape, x.dtype(), &inputs)?;
    if x.is_empty() {
        return Ok(());
    }
    let tensors: Vec<&Tensor> = inputs.iter().map(|(_, t)| *t).collect();
    ops::run(&problem, x, &tensors)
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        self.op()
    }

    fn in_place(&self) -> bool {
        self.in_place
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        // The first is `x`, in place too.
        let mut rest = inputs[1..].iter().copied();
        let mut next = |layout: Option<Layout>| layout.and_then(|layout| Some((rest.next()?, layout)));
        let mask = next(self.mask);
        cpu::softmax(self, out, inputs[0], mask, next(self.sinks));
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
        let cut = |layout: Option<Layout>| match layout {
            Some(layout) => layout.narrow(axis, start, len).map(Some),
            None => Some(None),
        };
        // The first query of the part is a later one.
        let later = if self.is_causal() && axis + 1 == self.axis { start as i64 } else { 0 };
        Some(Problem {
            out: self.out.narrow(axis, start, len)?,
            x: self.x.narrow(axis, start, len)?,
            mask: cut(self.mask)?,
            causal_limit: self.causal_limit.saturating_add(later),
            sinks: cut(self.sinks)?,
            ..self.clone()
        })
    }
}
