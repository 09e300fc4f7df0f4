//! Elementwise ops of one operand: arithmetic and activations.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::error::{Error, Result};
use crate::ops::{self, Op};
use crate::{DType, Layout, Tensor};

/// Which op of the family. The shader knows it by its number: a uniform branch, and one pipeline for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// `-x`
    Neg,
    /// `|x|`
    Abs,
    /// `eˣ`
    Exp,
    /// The natural logarithm
    Log,
    /// `√x`
    Sqrt,
    /// `1 / √x`
    Rsqrt,
    /// The higher of `x` and 0
    Relu,
    /// `x · Φ(x)`
    Gelu,
    /// [`Gelu`](Function::Gelu) by tanh
    GeluTanh,
    /// `x · sigmoid(x)`
    Silu,
    /// `1 / (1 + e⁻ˣ)`
    Sigmoid,
    /// The hyperbolic tangent
    Tanh,
    /// The error function
    Erf,
    /// `log(1 + eˣ)`
    Softplus,
    /// `x · min(max(x + 3, 0), 6) / 6`
    HardSwish,
    /// Between [`Problem::bounds`]
    Clamp,
}

impl Function {
    const fn name(self) -> &'static str {
        match self {
            Function::Neg => "neg",
            Function::Abs => "abs",
            Function::Exp => "exp",
            Function::Log => "log",
            Function::Sqrt => "sqrt",
            Function::Rsqrt => "rsqrt",
            Function::Relu => "relu",
            Function::Gelu => "gelu",
            Function::GeluTanh => "gelu_tanh",
            Function::Silu => "silu",
            Function::Sigmoid => "sigmoid",
            Function::Tanh => "tanh",
            Function::Erf => "erf",
            Function::Softplus => "softplus",
            Function::HardSwish => "hard_swish",
            Function::Clamp => "clamp",
        }
    }

    /// Whether it takes whole numbers too.
    const fn whole(self) -> bool {
        matches!(self, Function::Neg | Function::Abs | Function::Relu)
    }
}

/// A checked call.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Which op.
    pub function: Function,
    /// What [`Function::Clamp`] keeps between: the lowest and the highest. The others do not ask.
    pub bounds: [f32; 2],
    /// Whether `out` is `x`.
    pub in_place: bool,
    /// The element types of `out` and `x`.
    pub dtypes: [DType; 2],
    /// Where `out` lies.
    pub out: Layout,
    /// Where `x` lies, with `out`'s dims.
    pub x: Layout,
}

/// The three forms of each op. A macro, because the family is a table and a caller wants functions.
macro_rules! family {
    ($($(#[doc = $doc:expr])* $function:ident: $name:ident, $into:ident, $in_place:ident, $types:literal;)*) => {$(
        $(#[doc = $doc])*
        ///
        #[doc = concat!("Types: ", $types)]
        ///
        /// # Errors
        /// [`Error::DType`] for other types, [`Error::TooLarge`], or the GPU failed.
        pub fn $name(x: &Tensor) -> Result<Tensor> {
            call(Function::$function, [0.0; 2], x)
        }

        #[doc = concat!("[`", stringify!($name), "`] into a tensor or view of `x`'s shape: of any float type, or of `x`'s own if it is i32.")]
        ///
        /// # Errors
        #[doc = concat!("As `", stringify!($name), "`; [`Error::Shape`], [`Error::Device`], [`Error::Overlap`] if `out` shares storage with `x`.")]
        pub fn $into(out: &mut Tensor, x: &Tensor) -> Result<()> {
            call_into(Function::$function, [0.0; 2], out, x)
        }

        #[doc = concat!("[`", stringify!($name), "`] of `x`, in its place.")]
        ///
        /// # Errors
        #[doc = concat!("As `", stringify!($name), "`, and [`Error::Overlap`] if elements of `x` share a place.")]
        pub fn $in_place(x: &mut Tensor) -> Result<()> {
            call_in_place(Function::$function, [0.0; 2], x)
        }
    )*};
}

family! {
    /// `out = -x`. Exact, the sign of 0 too; `-i32::MIN` is itself.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.5f32, -2.0], &[2])?;
    /// assert_eq!(ops::neg(&x)?.to_vec::<f32>()?, [-1.5, 2.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Neg: neg, neg_into, neg_in_place, "f32, f16, bf16, i32; the result has `x`'s.";

    /// `out = |x|`. Exact; of `i32::MIN` it is itself.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[1i32, -2], &[2])?;
    /// assert_eq!(ops::abs(&x)?.to_vec::<i32>()?, [1, 2]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Abs: abs, abs_into, abs_in_place, "f32, f16, bf16, i32; the result has `x`'s.";

    /// `out = eˣ`.
    ///
    /// Numerics: an error of at most `4 · 2^-23 · |out|`, whatever the size of x: by `x = n · ln 2 + d` with the two parts of ln 2 and a
    /// polynomial (Cody and Waite 1980, with a minimax fit of our own), not by WGSL's exp, whose error grows with |x|. From 88.73 on it is
    /// +inf. A result of 16 bits is rounded once more, to nearest even; results below 2^-126 may be 0; NaN stays NaN.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[0.0f32, 1.0, f32::NEG_INFINITY, 100.0], &[4])?;
    /// assert_eq!(ops::exp(&x)?.to_vec::<f32>()?, [1.0, std::f32::consts::E, 0.0, f32::INFINITY]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Exp: exp, exp_into, exp_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";

    /// `out` = the natural logarithm of `x`: -inf of 0, NaN below.
    ///
    /// Numerics: an error of at most `5 · 2^-23 · |out|`, near 1 too: by `x = 2^e · (1 + f)` and a polynomial of f (Cody and Waite 1980).
    /// Subnormal f32 count in full; else as [`exp`].
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, 0.0, 2.0], &[3])?;
    /// assert_eq!(ops::log(&x)?.to_vec::<f32>()?, [0.0, f32::NEG_INFINITY, std::f32::consts::LN_2]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Log: log, log_into, log_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";

    /// `out = √x`: NaN below 0, and -0 stays.
    ///
    /// Numerics: an error of at most `5 · 2^-23 · |out|` (WGSL's allowance; on the CPU the nearest). Subnormal f32 count in full.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[4.0f32, 2.25, 0.0], &[3])?;
    /// assert_eq!(ops::sqrt(&x)?.to_vec::<f32>()?, [2.0, 1.5, 0.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Sqrt: sqrt, sqrt_into, sqrt_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";

    /// `out = 1 / √x`: infinite of 0 (-inf of -0), NaN below, 0 of +inf.
    ///
    /// Numerics: an error of at most `2 · 2^-23 · |out|` (WGSL's allowance). Subnormal f32 count in full.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[4.0f32, 0.25, 0.0], &[3])?;
    /// assert_eq!(ops::rsqrt(&x)?.to_vec::<f32>()?, [0.5, 2.0, f32::INFINITY]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Rsqrt: rsqrt, rsqrt_into, rsqrt_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";

    /// `out` = the higher of `x` and 0. Exact; NaN stays NaN.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.5f32, -2.0], &[2])?;
    /// assert_eq!(ops::relu(&x)?.to_vec::<f32>()?, [1.5, 0.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Relu: relu, relu_into, relu_in_place, "f32, f16, bf16, i32; the result has `x`'s.";

    /// `out = x · Φ(x)` with the normal distribution function `Φ(x) = (1 + erf(x / √2)) / 2` (Hendrycks and Gimpel 2016).
    ///
    /// Numerics: an error of at most `6 · 2^-23 · |out|` from 0 up and `2^-23 · (20 + x²) · |out|` below, where it comes from erfc and
    /// nothing cancels. Of -inf it is 0; else as [`exp`].
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[0.0f32, 1.0, -1.0, 30.0], &[4])?;
    /// assert_eq!(ops::gelu(&x)?.to_vec::<f32>()?, [0.0, 0.841_344_8, -0.158_655_26, 30.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Gelu: gelu, gelu_into, gelu_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";

    /// `out = x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`: the common approximation of [`gelu`].
    ///
    /// Numerics: an error of at most `12 · 2^-23 · |out|` from 0 up and `2^-23 · (12 + 5 · |w|) · |out|` below, with twice tanh's argument
    /// for w: computed as `x · sigmoid(w)`. Of -inf it is 0; else as [`exp`].
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[0.0f32, 1.0, 30.0], &[3])?;
    /// assert_eq!(ops::gelu_tanh(&x)?.to_vec::<f32>()?, [0.0, 0.841_192, 30.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    GeluTanh: gelu_tanh, gelu_tanh_into, gelu_tanh_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";

    /// `out = x · sigmoid(x)`, also known as swish.
    ///
    /// Numerics: an error of at most `10 · 2^-23 · |out|`. Of -inf it is 0; else as [`exp`].
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// // SwiGLU of a gate and its value.
    /// let gate = Tensor::from_slice(&Device::cpu(), &[0.0f32, 1.0, -1e30], &[3])?;
    /// let value = Tensor::from_slice(&Device::cpu(), &[3.0f32, 2.0, 1.0], &[3])?;
    /// let out = ops::mul(&ops::silu(&gate)?, &value)?;
    /// assert_eq!(out.to_vec::<f32>()?, [0.0, 1.462_117_2, 0.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Silu: silu, silu_into, silu_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";

    /// `out = 1 / (1 + e⁻ˣ)`.
    ///
    /// Numerics: an error of at most `8 · 2^-23 · |out|`, also where it nears 0: by `e^-|x|`. Else as [`exp`].
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[0.0f32, 1.0, 100.0], &[3])?;
    /// assert_eq!(ops::sigmoid(&x)?.to_vec::<f32>()?, [0.5, 0.731_058_6, 1.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Sigmoid: sigmoid, sigmoid_into, sigmoid_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";

    /// `out` = the hyperbolic tangent of `x`.
    ///
    /// Numerics: an error of at most `8 · 2^-23 · |out|`, near 0 too: a polynomial up to 0.625, then `1 - 2 / (e²ˣ + 1)`. WGSL's own tanh
    /// promises no more than an absolute 1e-5. Else as [`exp`].
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[0.0f32, 1e-20, 100.0], &[3])?;
    /// assert_eq!(ops::tanh(&x)?.to_vec::<f32>()?, [0.0, 1e-20, 1.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Tanh: tanh, tanh_into, tanh_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";

    /// `out = erf(x) = 2/√π · ∫ exp(-t²) dt` from 0 to `x`.
    ///
    /// Numerics: an error of at most `2 · 2^-23 · |out|`, near 0 too, but that a subnormal `x` may count as 0: a polynomial up to 1.25,
    /// then `1 - erfc(x)` with a polynomial of `1 / (x + 2)` for `exp(x²) · erfc(x)`. Else as [`exp`].
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[0.0f32, 1.0, -30.0], &[3])?;
    /// assert_eq!(ops::erf(&x)?.to_vec::<f32>()?, [0.0, 0.842_700_8, -1.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Erf: erf, erf_into, erf_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";

    /// `out = log(1 + eˣ)`.
    ///
    /// Numerics: an error of at most `10 · 2^-23 · |out|`, also where it nears 0: `max(x, 0) + log1p(e^-|x|)`. From 20 on it is x. Else as
    /// [`exp`].
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[0.0f32, 1e4, -200.0], &[3])?;
    /// assert_eq!(ops::softplus(&x)?.to_vec::<f32>()?, [std::f32::consts::LN_2, 1e4, 0.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Softplus: softplus, softplus_into, softplus_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";

    /// `out = x · min(max(x + 3, 0), 6) / 6` (Howard et al. 2019, MobileNetV3).
    ///
    /// Numerics: an error of at most `4 · 2^-23 · |out|`; exact from 3 up and from -3 down. Of -inf it is 0.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[-4.0f32, 0.0, 1.5, 4.0], &[4])?;
    /// assert_eq!(ops::hard_swish(&x)?.to_vec::<f32>()?, [0.0, 0.0, 1.125, 4.0]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    HardSwish: hard_swish, hard_swish_into, hard_swish_in_place, "f32, f16, bf16; computed in f32, and the result has `x`'s.";
}

/// `out = min(high, max(low, x))`: `x`, or the bound that it is past; `high` if the bounds are the wrong way round, as ONNX's Clip.
///
/// Bounds may be infinite: `clamp(x, 0.0, f32::INFINITY)` is [`relu`]. Exact but for a bound that a result of 16 bits rounds; -0 counts
/// as below 0; NaN stays NaN.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let x = Tensor::from_slice(&Device::cpu(), &[-2.0f32, 0.5, 2.0], &[3])?;
/// assert_eq!(ops::clamp(&x, -1.0, 1.0)?.to_vec::<f32>()?, [-1.0, 0.5, 1.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// Types: f32, f16, bf16; the result has `x`'s.
///
/// # Errors
/// [`Error::Argument`] if a bound is NaN, [`Error::DType`] for other types, [`Error::TooLarge`], or the GPU failed.
pub fn clamp(x: &Tensor, low: f32, high: f32) -> Result<Tensor> {
    call(Function::Clamp, [low, high], x)
}

/// [`clamp`] into a tensor or view of `x`'s shape and any float type.
///
/// # Errors
/// As `clamp`; [`Error::Shape`], [`Error::Device`], [`Error::Overlap`] if `out` shares storage with `x`.
pub fn clamp_into(out: &mut Tensor, x: &Tensor, low: f32, high: f32) -> Result<()> {
    call_into(Function::Clamp, [low, high], out, x)
}

/// [`clamp`] of `x`, in its place.
///
/// # Errors
/// As `clamp`, and [`Error::Overlap`] if elements of `x` share a place.
pub fn clamp_in_place(x: &mut Tensor, low: f32, high: f32) -> Result<()> {
    call_in_place(Function::Clamp, [low, high], x)
}

fn call(function: Function, bounds: [f32; 2], x: &Tensor) -> Result<Tensor> {
    check(function, bounds, x)?;
    let mut out = ops::fresh(function.name(), x.device(), x.dtype(), x.shape())?;
    call_into(function, bounds, &mut out, x)?;
    Ok(out)
}

fn check(function: Function, bounds: [f32; 2], x: &Tensor) -> Result<()> {
    let op = function.name();
    if !(x.dtype().is_float() || function.whole() && x.dtype() == DType::I32) {
        let supported = if function.whole() { "f32, f16, bf16 or i32; `cast` others" } else { "f32, f16 or bf16; `cast` others" };
        return Err(Error::DType { op, operands: vec![x.operand("x")], supported });
    }
    if let Some((argument, _)) = ["low", "high"].into_iter().zip(bounds).find(|(_, bound)| bound.is_nan()) {
        return Err(Error::Argument { op, argument, problem: "is NaN".into(), help: "give a number; infinite ones bound nothing" });
    }
    Ok(())
}

fn call_into(function: Function, bounds: [f32; 2], out: &mut Tensor, x: &Tensor) -> Result<()> {
    check(function, bounds, x)?;
    ops::check_out_like(function.name(), out, x.shape(), x.dtype(), &[("x", x)])?;
    let dtypes = [out.dtype(), x.dtype()];
    let problem = Problem { function, bounds, in_place: false, dtypes, out: *out.layout(), x: *x.layout() };
    if out.is_empty() {
        return Ok(());
    }
    ops::run(&problem, out, &[x])
}

fn call_in_place(function: Function, bounds: [f32; 2], x: &mut Tensor) -> Result<()> {
    check(function, bounds, x)?;
    let shape = x.shape().to_vec();
    ops::check_out(function.name(), x, &shape, x.dtype(), &[])?;
    let dtypes = [x.dtype(); 2];
    let problem = Problem { function, bounds, in_place: true, dtypes, out: *x.layout(), x: *x.layout() };
    if x.is_empty() {
        return Ok(());
    }
    ops::run(&problem, x, &[])
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        self.function.name()
    }

    fn in_place(&self) -> bool {
        self.in_place
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::unary(self, out, inputs[0]);
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
        Some(Problem { out: self.out.narrow(axis, start, len)?, x: self.x.narrow(axis, start, len)?, ..self.clone() })
    }
}
