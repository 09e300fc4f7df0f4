//! Elementwise ops of two operands, with broadcasting.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::error::Result;
use crate::ops::{self, Op};
use crate::{DType, Layout, Tensor};

/// Which op of the family. The shader knows it by its number: a uniform branch, and one pipeline for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// `lhs + rhs`
    Add,
    /// `lhs - rhs`
    Sub,
    /// `lhs * rhs`
    Mul,
    /// `lhs / rhs`
    Div,
    /// `lhs` to the power `rhs`
    Pow,
    /// The lower of both
    Min,
    /// The higher of both
    Max,
}

impl Function {
    const fn name(self) -> &'static str {
        match self {
            Function::Add => "add",
            Function::Sub => "sub",
            Function::Mul => "mul",
            Function::Div => "div",
            Function::Pow => "pow",
            Function::Min => "min",
            Function::Max => "max",
        }
    }
}

/// A checked call.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Which op.
    pub function: Function,
    /// Whether `out` is `lhs`.
    pub in_place: bool,
    /// The element types of `out`, `lhs` and `rhs`.
    pub dtypes: [DType; 3],
    /// Where `out` lies.
    pub out: Layout,
    /// Where `lhs` lies, broadcast to `out`'s dims.
    pub lhs: Layout,
    /// Where `rhs` lies, broadcast to `out`'s dims.
    pub rhs: Layout,
}

/// The three forms of each op. A macro, because the family is a table and a caller wants functions.
macro_rules! family {
    ($($(#[doc = $doc:expr])* $function:ident: $name:ident, $into:ident, $in_place:ident;)*) => {$(
        $(#[doc = $doc])*
        ///
        /// Types: two floats, computed in f32 and rounded once into the result, which has their type, or f32 where one is f32 and the
        /// other has 16 bits; or i32, u32 or u8, the same on both sides, wrapping. Shapes broadcast as NumPy's do.
        ///
        /// # Errors
        /// [`Error::Shape`](crate::Error::Shape) if the shapes do not broadcast, [`Error::DType`](crate::Error::DType) if the types do not
        /// go together (f16 with bf16, floats with whole numbers, bool), [`Error::Device`](crate::Error::Device).
        pub fn $name(lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
            call(Function::$function, lhs, rhs)
        }

        #[doc = concat!("[`", stringify!($name), "`] into a tensor or view of the broadcast shape: of any float type, or of the operands'")]
        /// own if they are whole numbers.
        ///
        /// # Errors
        #[doc = concat!("As `", stringify!($name), "`, and [`Error::Overlap`](crate::Error::Overlap) if `out` shares storage with an operand.")]
        pub fn $into(out: &mut Tensor, lhs: &Tensor, rhs: &Tensor) -> Result<()> {
            call_into(Function::$function, out, lhs, rhs)
        }

        #[doc = concat!("[`", stringify!($name), "`] with the result in `lhs`, to whose shape `rhs` broadcasts and whose type it takes.")]
        ///
        /// # Errors
        #[doc = concat!("As `", stringify!($name), "`, and [`Error::Overlap`](crate::Error::Overlap) if `rhs` shares storage with `lhs`.")]
        pub fn $in_place(lhs: &mut Tensor, rhs: &Tensor) -> Result<()> {
            call_in_place(Function::$function, lhs, rhs)
        }
    )*};
}

family! {
    /// `out = lhs + rhs`.
    ///
    /// Numerics: the nearest f32 on the CPU, on a GPU the nearest on either side: an error of at most `2^-23 · |out|`, as WGSL leaves the
    /// direction open; results below 2^-126 may be 0. A result of 16 bits is rounded once more, to nearest even.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let device = Device::cpu();
    /// let x = Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
    /// let bias = Tensor::from_slice(&device, &[10.0f32, 20.0], &[2])?;
    /// assert_eq!(ops::add(&x, &bias)?.to_vec::<f32>()?, [11.0, 22.0, 13.0, 24.0]);
    ///
    /// // A residual stream of f32 takes an update of 16 bits without a cast.
    /// let mut residual = x;
    /// let update = Tensor::from_slice(&device, &[half::bf16::ONE; 4], &[2, 2])?;
    /// ops::add_in_place(&mut residual, &update)?;
    /// assert_eq!(residual.to_vec::<f32>()?, [2.0, 3.0, 4.0, 5.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Add: add, add_into, add_in_place;

    /// `out = lhs - rhs`.
    ///
    /// Numerics: an error of at most `2^-23 · |out|`, as [`add`].
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[5u8, 3], &[2])?;
    /// assert_eq!(ops::sub(&x, &ops::add(&x, &x)?)?.to_vec::<u8>()?, [251, 253]); // whole numbers wrap
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Sub: sub, sub_into, sub_in_place;

    /// `out = lhs * rhs`. A tensor of shape `[]` scales.
    ///
    /// Numerics: an error of at most `2^-23 · |out|`, as [`add`].
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let device = Device::cpu();
    /// let x = Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0], &[3])?;
    /// let half = Tensor::full(&device, 0.5f32, &[])?;
    /// assert_eq!(ops::mul(&x, &half)?.to_vec::<f32>()?, [0.5, 1.0, 1.5]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Mul: mul, mul_into, mul_in_place;

    /// `out = lhs / rhs`; whole numbers truncate towards zero, and `x / 0` is `x` (WGSL's rule, on the CPU too).
    ///
    /// Numerics: an error of at most `2.5 · 2^-23 · |out|` for 2^-126 ≤ |rhs| ≤ 2^126 (WGSL's allowance); beyond, unspecified on a GPU.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[7i32, -7, 7], &[3])?;
    /// let y = Tensor::from_slice(&Device::cpu(), &[2i32, 2, 0], &[3])?;
    /// assert_eq!(ops::div(&x, &y)?.to_vec::<i32>()?, [3, -3, 7]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Div: div, div_into, div_in_place;

    /// `out = lhs` to the power `rhs`: IEEE 754's pow, so a negative base needs a whole exponent (else NaN) and anything to the power 0
    /// is 1. Of whole numbers a negative power is 0, or ±1 for a base of ±1.
    ///
    /// Numerics: a relative error of at most `2^-23 · (8 + 6 · |rhs| · (1 + |log2 |lhs||))`: computed as `exp2(rhs · log2 |lhs|)`, each as
    /// exact as WGSL asks. Overflow gives ±inf; infinite and NaN operands give unspecified values, and a subnormal
    /// base may count as 0.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[2.0f32, -2.0, 0.0], &[3])?;
    /// let y = Tensor::from_slice(&Device::cpu(), &[3.0f32, 3.0, 0.0], &[3])?;
    /// assert_eq!(ops::pow(&x, &y)?.to_vec::<f32>()?, [8.0, -8.0, 1.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Pow: pow, pow_into, pow_in_place;

    /// `out` = the lower of `lhs` and `rhs`: one of them, bit for bit; -0 counts as below 0.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, -2.0], &[2])?;
    /// let zero = Tensor::full(&Device::cpu(), 0.0f32, &[])?;
    /// assert_eq!(ops::min(&x, &zero)?.to_vec::<f32>()?, [0.0, -2.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Min: min, min_into, min_in_place;

    /// `out` = the higher of `lhs` and `rhs`: one of them, bit for bit; -0 counts as below 0.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, -2.0], &[2])?;
    /// let zero = Tensor::full(&Device::cpu(), 0.0f32, &[])?;
    /// assert_eq!(ops::max(&x, &zero)?.to_vec::<f32>()?, [1.0, 0.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Max: max, max_into, max_in_place;
}

fn call(function: Function, lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
    let (dims, dtype) = check(function, lhs, rhs)?;
    let mut out = ops::fresh(function.name(), lhs.device(), dtype, &dims)?;
    call_into(function, &mut out, lhs, rhs)?;
    Ok(out)
}

/// The broadcast dims of a valid pair and the type of their result.
fn check(function: Function, lhs: &Tensor, rhs: &Tensor) -> Result<(Vec<usize>, DType)> {
    let op = function.name();
    let both = [("lhs", lhs), ("rhs", rhs)];
    ops::check_devices(op, &both)?;
    let dtype = ops::promote(op, &both)?;
    let dims = Layout::broadcast_dims(&[lhs.shape(), rhs.shape()]).ok_or_else(|| {
        let help = "align the axes at the right; each pair must be equal or hold a 1";
        ops::misfit(op, &both, "the shapes do not broadcast", help)
    })?;
    Ok((dims, dtype))
}

fn call_into(function: Function, out: &mut Tensor, lhs: &Tensor, rhs: &Tensor) -> Result<()> {
    let op = function.name();
    let (dims, dtype) = check(function, lhs, rhs)?;
    ops::check_out_like(op, out, &dims, dtype, &[("lhs", lhs), ("rhs", rhs)])?;
    let problem = Problem {
        function,
        in_place: false,
        dtypes: [out.dtype(), lhs.dtype(), rhs.dtype()],
        out: *out.layout(),
        lhs: ops::broadcast(op, ("lhs", lhs), &dims)?,
        rhs: ops::broadcast(op, ("rhs", rhs), &dims)?,
    };
    if out.is_empty() {
        return Ok(());
    }
    ops::run(&problem, out, &[lhs, rhs])
}

fn call_in_place(function: Function, lhs: &mut Tensor, rhs: &Tensor) -> Result<()> {
    let op = function.name();
    check(function, lhs, rhs)?;
    let shape = lhs.shape().to_vec();
    let over_lhs = ops::broadcast(op, ("rhs", rhs), &shape)?;
    ops::check_out(op, lhs, &shape, lhs.dtype(), &[("rhs", rhs)])?;
    let dtypes = [lhs.dtype(), lhs.dtype(), rhs.dtype()];
    let problem = Problem { function, in_place: true, dtypes, out: *lhs.layout(), lhs: *lhs.layout(), rhs: over_lhs };
    if lhs.is_empty() {
        return Ok(());
    }
    ops::run(&problem, lhs, &[rhs])
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        self.function.name()
    }

    fn in_place(&self) -> bool {
        self.in_place
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::binary(self, out, inputs[0], inputs[1]);
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
            lhs: self.lhs.narrow(axis, start, len)?,
            rhs: self.rhs.narrow(axis, start, len)?,
            ..self.clone()
        })
    }
}
