//! Tensors one after the other: a copy into each one's place.

use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::{axis_of, dense};
use crate::{DType, Tensor};

const OP: &str = "concat";

/// The parts one after the other along `axis`, bit for bit.
///
/// Shapes: the parts agree in all other axes; the sizes along `axis` add up, and may be 0. Types: any, the same for all. One
/// [`copy_into`](ops::copy_into()) for each part, into its place in the result.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
///
/// let a = Tensor::from_slice(&Device::cpu(), &[1u8, 2, 3, 4], &[2, 2])?;
/// let b = Tensor::from_slice(&Device::cpu(), &[5u8, 6], &[2, 1])?;
/// assert_eq!(ops::concat(&[&a, &b], 1)?.to_vec::<u8>()?, [1, 2, 5, 3, 4, 6]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] if there are no parts or there is no such axis, [`Error::Shape`] if other axes differ, [`Error::DType`],
/// [`Error::Device`], [`Error::TooLarge`].
pub fn concat(parts: &[&Tensor], axis: isize) -> Result<Tensor> {
    let (dims, dtype) = check(parts, axis)?;
    let mut out = ops::fresh(OP, parts[0].device(), dtype, &dims)?;
    concat_into(&mut out, parts, axis)?;
    Ok(out)
}

/// [`concat`](concat()) into a tensor or view of the result's shape and type.
///
/// # Errors
/// As `concat`, and [`Error::Overlap`] if `out` shares storage with a part. Errors about arguments come before anything is written.
pub fn concat_into(out: &mut Tensor, parts: &[&Tensor], axis: isize) -> Result<()> {
    let (dims, dtype) = check(parts, axis)?;
    ops::check_out(OP, out, &dims, dtype, &named(parts))?;
    let at = axis_of(OP, axis, dims.len())?;
    let mut start = 0;
    for part in parts {
        let end = start + part.shape()[at];
        ops::copy_into(&mut out.narrow(at as isize, start..end)?, part)?;
        start = end;
    }
    Ok(())
}

fn named<'a>(parts: &[&'a Tensor]) -> Vec<ops::Named<'a>> {
    parts.iter().map(|part| ("part", *part)).collect()
}

/// The result's shape and type.
fn check(parts: &[&Tensor], axis: isize) -> Result<(Vec<usize>, DType)> {
    let Some((first, rest)) = parts.split_first() else {
        let problem = "are none".to_string();
        return Err(Error::Argument { op: OP, argument: "parts", problem, help: "give at least one" });
    };
    let all = named(parts);
    ops::check_devices(OP, &all)?;
    ops::check_dtype(OP, &all, first.dtype(), "parts of one type")?;
    let at = axis_of(OP, axis, first.rank())?;
    let mut dims = first.shape().to_vec();
    for part in rest {
        let fits = part.rank() == dims.len() && (0..dims.len()).all(|axis| axis == at || part.shape()[axis] == dims[axis]);
        if !fits {
            let problem = format!("the parts differ in another axis than {axis}");
            return Err(ops::misfit(OP, &[("part", first), ("part", part)], problem, "give parts that agree in all other axes"));
        }
        dims[at] = dims[at].saturating_add(part.shape()[at]);
    }
    dense(OP, &dims)?;
    Ok((dims, first.dtype()))
}
