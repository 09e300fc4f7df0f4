//! Elementwise ops of two operands, with broadcasting.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::error::Result;
use crate::ops::{self, Op};
use crate::{DType, Layout, Tensor};

/// Which op of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// `lhs + rhs`
    Add,
    /// `lhs * rhs`
    Mul,
}

impl Function {
    const fn name(self) -> &'static str {
        match self {
            Function::Add => "add",
            Function::Mul => "mul",
        }
    }
}

/// A checked call.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Which op.
    pub function: Function,
    /// Where `out` lies.
    pub out: Layout,
    /// Where `lhs` lies, broadcast to `out`'s dims.
    pub lhs: Layout,
    /// Where `rhs` lies, broadcast to `out`'s dims.
    pub rhs: Layout,
}

/// `out = lhs + rhs`, elementwise in f32, with NumPy's broadcasting.
///
/// Correctly rounded on the CPU; on a GPU the nearest f32 on either side (WGSL leaves the direction open), and results below
/// 2^-126 may be 0.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
/// let bias = Tensor::from_slice(&device, &[10.0f32, 20.0], &[2])?;
/// assert_eq!(ops::add(&x, &bias)?.to_vec::<f32>()?, [11.0, 22.0, 13.0, 24.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes do not broadcast, [`Error::DType`](crate::Error::DType) unless both are f32,
/// [`Error::Device`](crate::Error::Device).
pub fn add(lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
    call(Function::Add, lhs, rhs)
}

/// [`add`] into a tensor or view of the broadcast shape.
///
/// # Errors
/// As `add`, and [`Error::Overlap`](crate::Error::Overlap).
pub fn add_into(out: &mut Tensor, lhs: &Tensor, rhs: &Tensor) -> Result<()> {
    call_into(Function::Add, out, lhs, rhs)
}

/// `out = lhs * rhs`, elementwise in f32, with NumPy's broadcasting. A tensor of shape `[]` scales.
///
/// Rounded as [`add`] is.
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
///
/// # Errors
/// As [`add`].
pub fn mul(lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
    call(Function::Mul, lhs, rhs)
}

/// [`mul`] into a tensor or view of the broadcast shape.
///
/// # Errors
/// As `mul`, and [`Error::Overlap`](crate::Error::Overlap).
pub fn mul_into(out: &mut Tensor, lhs: &Tensor, rhs: &Tensor) -> Result<()> {
    call_into(Function::Mul, out, lhs, rhs)
}

fn call(function: Function, lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
    let dims = check(function, lhs, rhs)?;
    let mut out = ops::fresh(function.name(), lhs.device(), DType::F32, &dims)?;
    call_into(function, &mut out, lhs, rhs)?;
    Ok(out)
}

/// The broadcast dims of a valid pair.
fn check(function: Function, lhs: &Tensor, rhs: &Tensor) -> Result<Vec<usize>> {
    let op = function.name();
    let both = [("lhs", lhs), ("rhs", rhs)];
    ops::check_devices(op, &both)?;
    ops::check_dtype(op, &both, DType::F32, "f32")?;
    Layout::broadcast_dims(&[lhs.shape(), rhs.shape()]).ok_or_else(|| {
        let help = "align the axes at the right; each pair must be equal or hold a 1";
        ops::misfit(op, &both, "the shapes do not broadcast", help)
    })
}

fn call_into(function: Function, out: &mut Tensor, lhs: &Tensor, rhs: &Tensor) -> Result<()> {
    let op = function.name();
    let dims = check(function, lhs, rhs)?;
    ops::check_out(op, out, &dims, DType::F32, &[("lhs", lhs), ("rhs", rhs)])?;
    let problem = Problem {
        function,
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
        cpu::binary(self, bytemuck::cast_slice_mut(out), bytemuck::cast_slice(inputs[0]), bytemuck::cast_slice(inputs[1]));
    }

    #[cfg(feature = "gpu")]
    fn plan(&self, caps: &crate::gpu::Caps, pin: Option<crate::gpu::Pin>) -> Result<crate::gpu::Plan> {
        gpu::plan(caps, pin, self)
    }
}
