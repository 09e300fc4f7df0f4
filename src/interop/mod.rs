//! Tensors in and out of other people's formats, each behind its feature.

#[cfg(feature = "npy")]
pub(crate) mod npy;
#[cfg(feature = "safetensors")]
pub(crate) mod safetensors;

use crate::error::Result;
use crate::platform::Wait;
use crate::tensor::{HostBytes, reserve};
use crate::{DType, Tensor};

impl Tensor {
    /// The bytes of all elements as other programs take them.
    async fn exported(&self, op: &'static str, wait: Wait) -> Result<HostBytes> {
        let bytes = self.read(op, wait).await?;
        if self.dtype() != DType::Bool || bytes.iter().all(|&byte| byte <= 1) {
            return Ok(bytes);
        }
        // Any byte but 0 is true here; others would count with it.
        let mut own = Vec::new();
        reserve(&mut own, op, bytes.len())?;
        own.extend(bytes.iter().map(|&byte| u8::from(byte != 0)));
        Ok(HostBytes::Own(own))
    }
}
