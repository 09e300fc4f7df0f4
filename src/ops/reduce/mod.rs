//! Reductions over any axes: sums, means, extremes; and where the extremes lie.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::error::{Error, Result};
use crate::ops::{self, Op};
use crate::tensor::axis_of;
use crate::{DType, Layout, MAX_RANK, Tensor};

/// Which op of the family. The shaders know it by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// `Σ x`
    Sum,
    /// `Σ x / n`
    Mean,
    /// The highest
    Max,
    /// The lowest
    Min,
    /// Where the highest is
    ArgMax,
    /// Where the lowest is
    ArgMin,
}

impl Function {
    const fn name(self) -> &'static str {
        match self {
            Function::Sum => "sum",
            Function::Mean => "mean",
            Function::Max => "amax",
            Function::Min => "amin",
            Function::ArgMax => "argmax",
            Function::ArgMin => "argmin",
        }
    }

    /// Whether the result is a place.
    #[cfg(feature = "gpu")]
    const fn is_arg(self) -> bool {
        matches!(self, Function::ArgMax | Function::ArgMin)
    }

    /// The type of the result for elements of a type; `None` where there is none.
    const fn result(self, dtype: DType) -> Option<DType> {
        match (self, dtype) {
            (Function::ArgMax | Function::ArgMin, _) => Some(DType::U32),
            (Function::Sum, DType::U8 | DType::Bool) => Some(DType::U32),
            (Function::Mean, _) if !dtype.is_float() => None,
            _ => Some(dtype),
        }
    }
}

/// A checked call.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Which op.
    pub function: Function,
    /// The element types of `out` and `x`.
    pub dtypes: [DType; 2],
    /// Which of `x`'s axes are reduced.
    pub reduced: [bool; MAX_RANK],
    /// Where `out` lies, with an axis of size 1 for each that is reduced.
    pub out: Layout,
    /// Where `x` lies.
    pub x: Layout,
}

impl Problem {
    /// `x` over its kept axes, those that are reduced at 0. What it says of an empty reduction is not to be read.
    fn kept(&self) -> Layout {
        let first = |layout: Layout, axis: usize| if self.reduced[axis] { layout.narrow(axis, 0, 1) } else { Some(layout) };
        (0..self.x.rank()).try_fold(self.x, first).unwrap_or(self.out)
    }

    /// `x` over its reduced axes, those that are kept at 0.
    fn over(&self) -> Layout {
        let first = |layout: Layout, axis: usize| if self.reduced[axis] { Some(layout) } else { layout.narrow(axis, 0, 1) };
        (0..self.x.rank()).try_fold(self.x, first).unwrap_or(self.x)
    }
}

/// The two forms of each op that reduces any axes.
macro_rules! family {
    ($($(#[doc = $doc:expr])* $function:ident: $name:ident, $into:ident;)*) => {$(
        $(#[doc = $doc])*
        ///
        /// Shapes: `axes` may be any set of `x`'s axes, negative ones counted from the end; they are dropped, or stay with size 1 where
        /// `keep_dims` is set. No axes at all reduce nothing, as NumPy's `axis=()`.
        ///
        /// # Errors
        /// [`Error::Argument`] if there is no such axis, if one is named twice, or if a maximum or minimum of no
        /// elements is asked for; [`Error::DType`].
        pub fn $name(x: &Tensor, axes: &[isize], keep_dims: bool) -> Result<Tensor> {
            call(Function::$function, x, axes, keep_dims)
        }

        #[doc = concat!("[`", stringify!($name), "`] into a tensor or view of the result's shape: of any float type where `x` is float, else")]
        /// of the result's type.
        ///
        /// # Errors
        #[doc = concat!("As `", stringify!($name), "`, and [`Error::Overlap`], [`Error::Device`].")]
        pub fn $into(out: &mut Tensor, x: &Tensor, axes: &[isize], keep_dims: bool) -> Result<()> {
            call_into(Function::$function, out, x, axes, keep_dims)
        }
    )*};
}

family! {
    /// `out = Σ x` over `axes`.
    ///
    /// Types: floats, added in f32 (on the CPU in f64) and rounded once into the result, which has `x`'s type; i32 and u32, wrapping; u8
    /// and bool into u32, so that a sum of bools counts. The sum of nothing is 0.
    ///
    /// Numerics: an error of at most `c · 2^-23 · Σ|x|` with c = 16 for n ≤ 64 and 4·√n beyond, n the number of elements in a sum: each
    /// lane adds into eight accumulators, and trees join these, the lanes and the parts of long axes (pairwise summation: Higham, Accuracy
    /// and Stability of Numerical Algorithms, 2nd edition, section 4.2). The order of a sum follows from the reduced axes' sizes and
    /// strides, never from how many outputs there are or where they lie: a row has the same bits alone and in a batch. Infinities, NaN
    /// and sums past the range of f32 give unspecified values in their own output.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
    /// assert_eq!(ops::sum(&x, &[-1], false)?.to_vec::<f32>()?, [6.0, 15.0]);
    /// assert_eq!(ops::sum(&x, &[0], true)?.shape(), [1, 3]);
    /// assert_eq!(ops::sum(&x, &[0, 1], false)?.to_vec::<f32>()?, [21.0]);
    ///
    /// let mask = Tensor::from_slice(&Device::cpu(), &[true, false, true], &[3])?;
    /// assert_eq!(ops::sum(&mask, &[0], false)?.to_vec::<u32>()?, [2]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Sum: sum, sum_into;

    /// `out = Σ x / n` over `axes`, n the number of elements in a sum.
    ///
    /// Types: floats, as for [`sum`]; `cast` whole numbers. The mean of nothing is NaN.
    ///
    /// Numerics: the error of the sum, divided by n, and `3 · 2^-23 · |out|` for the division. The sum must stay in the range of f32.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, 2.0, 3.0, 6.0], &[2, 2])?;
    /// assert_eq!(ops::mean(&x, &[0, 1], false)?.to_vec::<f32>()?, [3.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Mean: mean, mean_into;

    /// `out` = the highest of `x` over `axes`: one of its elements, bit for bit. (NumPy's and PyTorch's name: [`max`](ops::max) is that of
    /// two tensors.)
    ///
    /// Types: all; bool gives whether any is true. Floats are compared by their bits: infinities are exact, -0 counts as below 0. A NaN
    /// gives an unspecified value in its own output.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[1, -2, 3, -4], &[2, 2])?;
    /// assert_eq!(ops::amax(&x, &[1], false)?.to_vec::<i32>()?, [1, 3]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Max: amax, amax_into;

    /// `out` = the lowest of `x` over `axes`: one of its elements, bit for bit. (NumPy's and PyTorch's name: [`min`](ops::min) is that of
    /// two tensors.)
    ///
    /// Types: all; bool gives whether all are true. Floats are compared by their bits: infinities are exact, -0 counts as below 0. A NaN
    /// gives an unspecified value in its own output.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[1, -2, 3, -4], &[2, 2])?;
    /// assert_eq!(ops::amin(&x, &[0], true)?.to_vec::<i32>()?, [1, -4]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Min: amin, amin_into;
}

/// Where the highest of `x` along `axis` lies, the first of equals (-0 equals 0), as u32. Exact.
///
/// Types: all; in bool the first `true`. A NaN may be taken for the highest or be passed over; the result is a place on the axis all the
/// same. Over all elements: of `x.reshape(&[x.len()])`.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let logits = Tensor::from_slice(&Device::cpu(), &[0.1f32, 0.7, 0.7, 3.0, 1.0, 2.0], &[2, 3])?;
/// assert_eq!(ops::argmax(&logits, -1, false)?.to_vec::<u32>()?, [1, 0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] if there is no such axis or it is empty.
pub fn argmax(x: &Tensor, axis: isize, keep_dims: bool) -> Result<Tensor> {
    call(Function::ArgMax, x, &[axis], keep_dims)
}

/// [`argmax`] into a tensor or view of u32.
///
/// # Errors
/// As `argmax`, and [`Error::Overlap`], [`Error::Device`].
pub fn argmax_into(out: &mut Tensor, x: &Tensor, axis: isize, keep_dims: bool) -> Result<()> {
    call_into(Function::ArgMax, out, x, &[axis], keep_dims)
}

/// Where the lowest of `x` along `axis` lies, the first of equals: as [`argmax`].
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let x = Tensor::from_slice(&Device::cpu(), &[3u8, 1, 1, 2], &[4])?;
/// assert_eq!(ops::argmin(&x, 0, true)?.to_vec::<u32>()?, [1]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// As `argmax`.
pub fn argmin(x: &Tensor, axis: isize, keep_dims: bool) -> Result<Tensor> {
    call(Function::ArgMin, x, &[axis], keep_dims)
}

/// [`argmin`] into a tensor or view of u32.
///
/// # Errors
/// As [`argmax_into`].
pub fn argmin_into(out: &mut Tensor, x: &Tensor, axis: isize, keep_dims: bool) -> Result<()> {
    call_into(Function::ArgMin, out, x, &[axis], keep_dims)
}

fn call(function: Function, x: &Tensor, axes: &[isize], keep_dims: bool) -> Result<Tensor> {
    let (reduced, dtype) = check(function, x, axes)?;
    let mut out = ops::fresh(function.name(), x.device(), dtype, &dims(x, &reduced, keep_dims))?;
    call_into(function, &mut out, x, axes, keep_dims)?;
    Ok(out)
}

/// Which axes are reduced, and the result's type.
fn check(function: Function, x: &Tensor, axes: &[isize]) -> Result<([bool; MAX_RANK], DType)> {
    let op = function.name();
    let mut reduced = [false; MAX_RANK];
    for &axis in axes {
        let at = axis_of(op, axis, x.rank())?;
        if std::mem::replace(&mut reduced[at], true) {
            let problem = format!("are {axes:?}, which name axis {at} twice");
            return Err(Error::Argument { op, argument: "axes", problem, help: "name each axis once" });
        }
    }
    let dtype = function.result(x.dtype());
    let dtype = dtype.ok_or_else(|| Error::DType { op, operands: vec![x.operand("x")], supported: "f32, f16 and bf16" })?;
    Ok((reduced, dtype))
}

fn dims(x: &Tensor, reduced: &[bool], keep_dims: bool) -> Vec<usize> {
    let axes = x.shape().iter().zip(reduced);
    axes.filter(|(_, reduced)| keep_dims || !**reduced).map(|(&dim, &reduced)| if reduced { 1 } else { dim }).collect()
}

fn call_into(function: Function, out: &mut Tensor, x: &Tensor, axes: &[isize], keep_dims: bool) -> Result<()> {
    let op = function.name();
    let (reduced, dtype) = check(function, x, axes)?;
    ops::check_out_like(op, out, &dims(x, &reduced, keep_dims), dtype, &[("x", x)])?;
    if out.is_empty() {
        return Ok(());
    }
    if x.is_empty() && !matches!(function, Function::Sum | Function::Mean) {
        let problem = format!("are {axes:?}, which reduce no elements of a shape {:?}", x.shape());
        return Err(Error::Argument { op, argument: "axes", problem, help: "nothing has no extreme: give at least one element" });
    }
    let with_axis = |layout: Layout, axis: usize| if reduced[axis] && !keep_dims { layout.unsqueeze(axis) } else { Some(layout) };
    let layout = (0..x.rank()).try_fold(*out.layout(), with_axis).unwrap_or(*out.layout());
    let problem = Problem { function, dtypes: [out.dtype(), x.dtype()], reduced, out: layout, x: *x.layout() };
    ops::run(&problem, out, &[x])
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        self.function.name()
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::reduce(self, out, inputs[0]);
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
        // A reduced axis of `out` has one index.
        Some(Problem { out: self.out.narrow(axis, start, len)?, x: self.x.narrow(axis, start, len)?, ..self.clone() })
    }
}
