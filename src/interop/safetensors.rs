//! Tensors of safetensors views, and views of tensors for `safetensors::serialize`.

use std::borrow::Cow;
use std::fmt;

use safetensors::tensor::{Dtype, TensorView, View};

use crate::error::{Error, Result};
use crate::platform::Wait;
use crate::tensor::{HostBytes, dense};
use crate::{DType, Device, Tensor};

#[cfg(target_endian = "big")]
compile_error!("the feature `safetensors` needs a little-endian target: it lends storage as the file's bytes");

/// The elements of a tensor on the host, dense and row-major, as they were when [`Tensor::to_safetensors`] was called: a
/// [`safetensors::View`], for `safetensors::serialize` and `serialize_to_file`.
///
/// Of a tensor on the CPU it borrows the storage. While it lives, the first write into that storage copies it.
pub struct HostTensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: HostBytes,
}

impl HostTensor {
    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements' bytes, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for HostTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostTensor {}{:?}", self.dtype, self.shape)
    }
}

impl View for &HostTensor {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::I32 => Dtype::I32,
            DType::U32 => Dtype::U32,
            DType::U8 => Dtype::U8,
            DType::Bool => Dtype::BOOL,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl View for HostTensor {
    fn dtype(&self) -> Dtype {
        View::dtype(&self)
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Tensor {
    /// A tensor of a safetensors view. Its bytes go straight into the tensor's memory, of whatever file or mapping they are part.
    ///
    /// F32, F16, BF16, I32, U32, U8 and BOOL have their [`DType`] here.
    ///
    /// ```
    /// use gristmill::{Device, Tensor};
    /// use safetensors::SafeTensors;
    ///
    /// let device = Device::cpu();
    /// let weight = Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0], &[3])?;
    /// let file = safetensors::serialize([("weight", weight.to_safetensors()?)], None)?; // or std::fs::read, or a mapping
    ///
    /// let tensors = SafeTensors::deserialize(&file)?;
    /// let again = Tensor::from_safetensors(&device, &tensors.tensor("weight")?)?;
    /// assert_eq!(again.to_vec::<f32>()?, [1.0, 2.0, 3.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`] for another dtype, or if the number of bytes is not the shape's; [`Error::TooLarge`] for more than 6 axes or more
    /// than the device takes; [`Error::OutOfMemory`].
    pub fn from_safetensors(device: &Device, view: &TensorView) -> Result<Self> {
        Self::from_parts(device, view.dtype(), view.shape(), view.data())
    }

    /// The parts are checked as if nobody had before: `TensorView::new` multiplies unchecked.
    fn from_parts(device: &Device, dtype: Dtype, shape: &[usize], data: &[u8]) -> Result<Self> {
        let op = "Tensor::from_safetensors";
        let dtype = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I32 => DType::I32,
            Dtype::U32 => DType::U32,
            Dtype::U8 => DType::U8,
            Dtype::BOOL => DType::Bool,
            other => {
                return Err(Error::Format {
                    op,
                    problem: format!("there is no tensor of dtype {other}"),
                    help: "convert it where the file is made, to F32, F16, BF16, I32, U32, U8 or BOOL",
                });
            }
        };
        // No overflow: a layout's elements would fit at 16 bytes each.
        let layout = dense(op, shape)?;
        let wanted = layout.len() * dtype.block_bytes();
        if data.len() != wanted {
            return Err(Error::Format {
                op,
                problem: format!("the view has {} bytes, {dtype}{shape:?} takes {wanted}", data.len()),
                help: "the file is damaged: get it anew",
            });
        }
        Self::from_bytes(op, device, data, layout, dtype)
    }

    /// The elements for `safetensors::serialize`: the async twin of `to_safetensors`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], and what the work that it waits for failed with. Every [`DType`] has its dtype there.
    pub async fn to_safetensors_async(&self) -> Result<HostTensor> {
        self.lent(Wait::Apart).await
    }

    pub(crate) async fn lent(&self, wait: Wait) -> Result<HostTensor> {
        let bytes = self.exported("Tensor::to_safetensors", wait).await?;
        Ok(HostTensor { dtype: self.dtype(), shape: self.shape().to_vec(), bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `TensorView::new` lets through where overflow wraps.
    #[test]
    fn a_lying_view_is_refused() {
        let of = |shape: &[usize], bytes: usize| Tensor::from_parts(&Device::cpu(), Dtype::F32, shape, &vec![0; bytes]);
        assert!(of(&[2, 3], 24).is_ok() && of(&[], 4).is_ok() && of(&[0, 3], 0).is_ok());
        for (shape, bytes) in [(&[2, 3][..], 23), (&[2, 3], 25), (&[2, 3], 0), (&[], 0), (&[], 5), (&[0, 3], 4)] {
            assert!(matches!(of(shape, bytes), Err(Error::Format { .. })), "{bytes} bytes as {shape:?}");
        }
        let half = 1 << (usize::BITS / 2);
        for shape in [&[half, half][..], &[half, half, 2], &[usize::MAX, usize::MAX], &[0, half, half], &[usize::MAX]] {
            assert!(matches!(of(shape, 0), Err(Error::TooLarge { .. })), "0 bytes as {shape:?}");
        }
    }
}
