//! Comparisons, element by element, with broadcasting.

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
    /// `lhs == rhs`
    Eq,
    /// `lhs != rhs`
    Ne,
    /// `lhs < rhs`
    Lt,
    /// `lhs <= rhs`
    Le,
    /// `lhs > rhs`
    Gt,
    /// `lhs >= rhs`
    Ge,
}

impl Function {
    const fn name(self) -> &'static str {
        match self {
            Function::Eq => "eq",
            Function::Ne => "ne",
            Function::Lt => "lt",
            Function::Le => "le",
            Function::Gt => "gt",
            Function::Ge => "ge",
        }
    }

    /// The same of the operands the other way round.
    #[cfg(feature = "gpu")]
    const fn mirrored(self) -> Self {
        match self {
            Function::Lt => Function::Gt,
            Function::Le => Function::Ge,
            Function::Gt => Function::Lt,
            Function::Ge => Function::Le,
            equal => equal,
        }
    }
}

/// A checked call.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Which op.
    pub function: Function,
    /// The element types of `lhs` and `rhs`; `out` is bool.
    pub dtypes: [DType; 2],
    /// Where `out` lies.
    pub out: Layout,
    /// Where `lhs` lies, broadcast to `out`'s dims.
    pub lhs: Layout,
    /// Where `rhs` lies, broadcast to `out`'s dims.
    pub rhs: Layout,
}

impl Problem {
    /// The same with the operands the other way round.
    #[cfg(feature = "gpu")]
    fn swapped(&self) -> Self {
        let [lhs, rhs] = self.dtypes;
        Problem { function: self.function.mirrored(), dtypes: [rhs, lhs], out: self.out, lhs: self.rhs, rhs: self.lhs }
    }
}

/// Both forms of each op. A macro, because the family is a table and a caller wants functions.
macro_rules! family {
    ($($(#[doc = $doc:expr])* $function:ident: $name:ident, $into:ident, $types:literal;)*) => {$(
        $(#[doc = $doc])*
        ///
        #[doc = concat!("Types: two floats, of one type or f32 with one of 16 bits; or ", $types, " on both sides. The result is bool. Exact:")]
        /// numbers are compared as numbers, -0 equals 0, subnormals count in full, and NaN is unequal to all and in no order with anything.
        /// Shapes broadcast as NumPy's do.
        ///
        /// # Errors
        /// [`Error::Shape`](crate::Error::Shape) if the shapes do not broadcast, [`Error::DType`](crate::Error::DType) if the types do not
        /// go together, [`Error::Device`](crate::Error::Device).
        pub fn $name(lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
            call(Function::$function, lhs, rhs)
        }

        #[doc = concat!("[`", stringify!($name), "`] into a bool tensor or view of the broadcast shape.")]
        ///
        /// # Errors
        #[doc = concat!("As `", stringify!($name), "`, and [`Error::Overlap`](crate::Error::Overlap) if `out` shares storage with an operand.")]
        pub fn $into(out: &mut Tensor, lhs: &Tensor, rhs: &Tensor) -> Result<()> {
            call_into(Function::$function, out, lhs, rhs)
        }
    )*};
}

family! {
    /// `out = lhs == rhs`.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[0.0f32, 1.0, f32::NAN], &[3])?;
    /// let y = Tensor::from_slice(&Device::cpu(), &[-0.0f32, 2.0, f32::NAN], &[3])?;
    /// assert_eq!(ops::eq(&x, &y)?.to_vec::<bool>()?, [true, false, false]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Eq: eq, eq_into, "i32, u32, u8 or bool";

    /// `out = lhs != rhs`.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[0u8, 1, 2], &[3])?;
    /// let zero = Tensor::full(&Device::cpu(), 0u8, &[])?;
    /// assert_eq!(ops::ne(&x, &zero)?.to_vec::<bool>()?, [false, true, true]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Ne: ne, ne_into, "i32, u32, u8 or bool";

    /// `out = lhs < rhs`.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// // A causal mask for attention: which key each query may see.
    /// let queries = Tensor::arange::<i32>(&Device::cpu(), 1.0, 1.0, 3)?.reshape(&[3, 1])?;
    /// let keys = Tensor::arange::<i32>(&Device::cpu(), 0.0, 1.0, 3)?;
    /// let mask = ops::lt(&keys, &queries)?;
    /// assert_eq!(mask.to_vec::<bool>()?, [true, false, false, true, true, false, true, true, true]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Lt: lt, lt_into, "i32, u32 or u8";

    /// `out = lhs <= rhs`.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, 2.0, 3.0], &[3])?;
    /// let two = Tensor::full(&Device::cpu(), half::f16::from_f32(2.0), &[])?;
    /// assert_eq!(ops::le(&x, &two)?.to_vec::<bool>()?, [true, true, false]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Le: le, le_into, "i32, u32 or u8";

    /// `out = lhs > rhs`.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[-1i32, 0, 1], &[3])?;
    /// let zero = Tensor::full(&Device::cpu(), 0i32, &[])?;
    /// assert_eq!(ops::gt(&x, &zero)?.to_vec::<bool>()?, [false, false, true]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Gt: gt, gt_into, "i32, u32 or u8";

    /// `out = lhs >= rhs`.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let x = Tensor::from_slice(&Device::cpu(), &[f32::NEG_INFINITY, -0.0, f32::NAN], &[3])?;
    /// let zero = Tensor::full(&Device::cpu(), 0.0f32, &[])?;
    /// assert_eq!(ops::ge(&x, &zero)?.to_vec::<bool>()?, [false, true, false]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    Ge: ge, ge_into, "i32, u32 or u8";
}

fn call(function: Function, lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
    let dims = check(function, lhs, rhs)?;
    let mut out = ops::fresh(function.name(), lhs.device(), DType::Bool, &dims)?;
    call_into(function, &mut out, lhs, rhs)?;
    Ok(out)
}

/// The broadcast dims of a valid pair.
fn check(function: Function, lhs: &Tensor, rhs: &Tensor) -> Result<Vec<usize>> {
    let op = function.name();
    let both = [("lhs", lhs), ("rhs", rhs)];
    ops::check_devices(op, &both)?;
    let bools = both.iter().all(|(_, t)| t.dtype() == DType::Bool);
    if !(bools && matches!(function, Function::Eq | Function::Ne)) {
        ops::promote(op, &both)?;
    }
    Layout::broadcast_dims(&[lhs.shape(), rhs.shape()]).ok_or_else(|| {
        let help = "align the axes at the right; each pair must be equal or hold a 1";
        ops::misfit(op, &both, "the shapes do not broadcast", help)
    })
}

fn call_into(function: Function, out: &mut Tensor, lhs: &Tensor, rhs: &Tensor) -> Result<()> {
    let op = function.name();
    let dims = check(function, lhs, rhs)?;
    ops::check_out(op, out, &dims, DType::Bool, &[("lhs", lhs), ("rhs", rhs)])?;
    let problem = Problem {
        function,
        dtypes: [lhs.dtype(), rhs.dtype()],
        out: *out.layout(),
        lhs: ops::broadcast(op, ("lhs", lhs), &dims)?,
        rhs: ops::broadcast(op, ("rhs", rhs), &dims)?,
    };
    if out.is_empty() {
        return Ok(());
    }
    ops::run(&problem, out, &[lhs, rhs])
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        self.function.name()
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::compare(self, out, inputs[0], inputs[1]);
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
