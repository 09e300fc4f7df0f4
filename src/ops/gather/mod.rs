//! Rows by index: embeddings, permutations, reversals.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use crate::cpu::indices_from;
use crate::error::{Error, Result};
use crate::ops::{self, Op};
use crate::tensor::{axis_of, dense};
use crate::{DType, Layout, MAX_RANK, Tensor};

const OP: &str = "gather";

/// A checked call.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The element type of `out` and `x`.
    pub dtype: DType,
    /// The type of the indices: u32 or i32.
    pub indices_dtype: DType,
    /// Which axis of `x` is indexed.
    pub axis: usize,
    /// [x before the axis…, indices…, x after the axis…]
    pub out: Layout,
    /// Where `x` lies.
    pub x: Layout,
    /// Where the indices lie.
    pub indices: Layout,
}

impl Problem {
    /// `x` at row 0: its axes before and after the one that is indexed.
    fn around(&self) -> (Layout, Layout) {
        let first = |layout: Layout, axis: usize| layout.narrow(axis, 0, 1);
        let over = |range: std::ops::Range<usize>| range.into_iter().try_fold(self.x, first).unwrap_or(self.x);
        (over(self.axis..self.x.rank()), over(0..self.axis + 1))
    }
}

/// `out[…, i…, …] = x[…, indices[i…], …]`: for each index the part of `x` that lies there along `axis`, bit for bit. With `axis` 0 of a
/// table [rows, width] this is an embedding lookup.
///
/// Shapes: `indices` of any shape take the place of `axis` in the result (NumPy's `take`), which may have 6 axes. Types: `x` of any, the
/// indices u32, or i32 with negative ones counting from the end.
///
/// An index out of range is an error on the CPU, before anything is written. A GPU is not waited for: there its part of the result is zeros,
/// nothing else is touched, and [`check_indices`] finds it for those who want to wait.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let table = Tensor::arange::<f32>(&Device::cpu(), 0.0, 1.0, 8)?.reshape(&[4, 2])?;
/// let tokens = Tensor::from_slice(&Device::cpu(), &[3u32, 0, 3], &[3])?;
/// let y = ops::gather(&table, &tokens, 0)?;
/// assert_eq!(y.shape(), [3, 2]);
/// assert_eq!(y.to_vec::<f32>()?, [6.0, 7.0, 0.0, 1.0, 6.0, 7.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] if there is no such axis, or on the CPU for an index out of range; [`Error::DType`] unless the indices are u32 or
/// i32; [`Error::TooLarge`] for a result of more than 6 axes; [`Error::Device`].
pub fn gather(x: &Tensor, indices: &Tensor, axis: isize) -> Result<Tensor> {
    let (_, dims) = check(x, indices, axis)?;
    let mut out = ops::fresh(OP, x.device(), x.dtype(), &dims)?;
    gather_into(&mut out, x, indices, axis)?;
    Ok(out)
}

/// [`gather`] into a tensor or view of the result's shape and `x`'s type.
///
/// # Errors
/// As `gather`, and [`Error::Overlap`].
pub fn gather_into(out: &mut Tensor, x: &Tensor, indices: &Tensor, axis: isize) -> Result<()> {
    let (axis, dims) = check(x, indices, axis)?;
    ops::check_out(OP, out, &dims, x.dtype(), &[("x", x), ("indices", indices)])?;
    if let Some(buffer) = indices.cpu_buffer() {
        in_range(&buffer.snapshot(), indices, x.shape()[axis])?;
    }
    let problem =
        Problem { dtype: x.dtype(), indices_dtype: indices.dtype(), axis, out: *out.layout(), x: *x.layout(), indices: *indices.layout() };
    if out.is_empty() {
        return Ok(());
    }
    if x.is_empty() {
        // An axis of no rows: every index is out of range. Only a GPU comes here.
        let zeros = Tensor::zeros_for(OP, x.device(), x.dtype(), &dims)?;
        return ops::copy_into(out, &zeros);
    }
    ops::run(&problem, out, &[x, indices])
}

/// Checks that indices are in range for an axis of `len`: below it, and as i32 not below its negative. Waits for a GPU and reads them.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let tokens = Tensor::from_slice(&Device::cpu(), &[3u32, 7, 3], &[3])?;
/// assert!(ops::check_indices(&tokens, 8).is_ok());
/// let error = ops::check_indices(&tokens, 7).unwrap_err();
/// assert!(error.to_string().contains("7 at [1]"));
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] with the first that is out of range and its place; [`Error::DType`] unless they are u32 or i32; and what the work
/// that it waits for failed with.
#[cfg(not(target_arch = "wasm32"))]
pub fn check_indices(indices: &Tensor, len: usize) -> Result<()> {
    check_type(indices)?;
    let host = indices.to_device(&crate::Device::cpu())?;
    on_host(&host, len)
}

/// The async twin of `check_indices`.
///
/// # Errors
/// As `check_indices`.
pub async fn check_indices_async(indices: &Tensor, len: usize) -> Result<()> {
    check_type(indices)?;
    let host = indices.to_device_async(&crate::Device::cpu()).await?;
    on_host(&host, len)
}

fn on_host(indices: &Tensor, len: usize) -> Result<()> {
    indices.cpu_buffer().map_or(Ok(()), |buffer| in_range(&buffer.snapshot(), indices, len))
}

/// The first index that is out of range is an error.
fn in_range(storage: &[u8], indices: &Tensor, len: usize) -> Result<()> {
    let signed = indices.dtype() == DType::I32;
    let least = if signed { i64::try_from(len).map_or(i64::MIN, |len| -len) } else { 0 };
    let Some((value, place)) = first_outside(storage, indices, least, len) else { return Ok(()) };
    let problem = format!("hold {value} at {place:?}, and the axis has {len}");
    Err(Error::Argument {
        op: OP,
        argument: "indices",
        problem,
        help: "give indices below the axis' size; as i32 they may count from its end",
    })
}

/// The first of u32 or i32 indices that is below `least` or not below `len`, and its place.
pub(crate) fn first_outside(storage: &[u8], indices: &Tensor, least: i64, len: usize) -> Option<(i64, Vec<usize>)> {
    if indices.is_empty() {
        return None;
    }
    let words: &[i32] = bytemuck::cast_slice(storage);
    let signed = indices.dtype() == DType::I32;
    let value = |at: usize| if signed { i64::from(words[at]) } else { i64::from(words[at] as u32) };
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let (mut at, value) =
        indices_from(indices.layout(), 0, indices.len()).map(value).enumerate().find(|(_, v)| !(least..len).contains(v))?;
    let mut place: Vec<usize> = Vec::new();
    for &dim in indices.shape().iter().rev() {
        place.insert(0, at % dim);
        at /= dim;
    }
    Some((value, place))
}

fn check_type(indices: &Tensor) -> Result<()> {
    if [DType::U32, DType::I32].contains(&indices.dtype()) {
        return Ok(());
    }
    Err(Error::DType { op: OP, operands: vec![indices.operand("indices")], supported: "u32 or i32 for indices" })
}

/// The axis, and the result's shape.
fn check(x: &Tensor, indices: &Tensor, axis: isize) -> Result<(usize, Vec<usize>)> {
    ops::check_devices(OP, &[("x", x), ("indices", indices)])?;
    check_type(indices)?;
    let axis = axis_of(OP, axis, x.rank())?;
    let dims = [&x.shape()[..axis], indices.shape(), &x.shape()[axis + 1..]].concat();
    if dims.len() > MAX_RANK {
        return Err(Error::TooLarge {
            op: OP,
            what: format!("shape {dims:?}"),
            requested: dims.len() as u128,
            limit: MAX_RANK as u128,
            limit_name: "axes",
        });
    }
    dense(OP, &dims)?;
    Ok((axis, dims))
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::gather(self, out, inputs[0], inputs[1]);
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
        let out = self.out.narrow(axis, start, len)?;
        let indexed = self.axis..self.axis + self.indices.rank();
        if indexed.contains(&axis) {
            return Some(Problem { out, indices: self.indices.narrow(axis - self.axis, start, len)?, ..self.clone() });
        }
        let of_x = if axis < self.axis { axis } else { axis + 1 - self.indices.rank() };
        Some(Problem { out, x: self.x.narrow(of_x, start, len)?, ..self.clone() })
    }
}
