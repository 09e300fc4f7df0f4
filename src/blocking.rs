//! The calls that wait, as methods: each is its async twin, driven on this thread. Not on wasm32, where nothing may block.

use ndarray::ArrayD;

use crate::error::Result;
use crate::platform::{Wait, block_on};
use crate::{Device, Element, Tensor};

impl Device {
    /// The device that [`DEVICE_VAR`](crate::DEVICE_VAR) names; without it the best *hardware* GPU, else the CPU. Never a software adapter
    /// unless the variable names one. Logs what it chose and why.
    ///
    /// # Errors
    /// If the variable is set and cannot be obeyed. Without the variable there is always the CPU.
    pub fn best() -> Result<Self> {
        block_on(Self::best_async())
    }

    /// Waits until all work recorded so far is done. At once on the CPU.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost), [`Error::TimedOut`](crate::Error::TimedOut), or what an earlier command failed with.
    pub fn sync(&self) -> Result<()> {
        block_on(self.finish(Wait::Here))
    }
}

#[cfg(feature = "gpu")]
impl Device {
    /// A GPU. See [`GpuOptions`](crate::gpu::GpuOptions) for which; the default is the best hardware adapter.
    ///
    /// ```
    /// use gristmill::{Device, gpu::GpuOptions};
    ///
    /// let options = GpuOptions { software: true, ..GpuOptions::default() };
    /// match Device::gpu(&options) {
    ///     Ok(device) => println!("{:?}", device.caps()),
    ///     Err(error) => println!("{error}"), // says which adapters there are, and how to get one
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoGpu`](crate::Error::NoGpu) if no adapter fits or the one that fits refuses.
    pub fn gpu(options: &crate::gpu::GpuOptions) -> Result<Self> {
        block_on(Self::gpu_async(options))
    }

    /// Every GPU adapter with compute shaders, best first, software ones included.
    pub fn adapters() -> Vec<crate::gpu::AdapterInfo> {
        block_on(Self::adapters_async())
    }
}

impl Tensor {
    /// All elements, row-major. Waits for the device.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) if `T` is not the tensor's type, and what the work that it waits for failed with.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        block_on(self.elements(Wait::Here))
    }

    /// All elements as an ndarray array in row-major order. Waits for the device.
    ///
    /// # Errors
    /// As `to_vec`.
    pub fn to_ndarray<T: Element>(&self) -> Result<ArrayD<T>> {
        self.shaped(self.to_vec()?)
    }

    /// The tensor on another device: a view if it is a handle of the same device, else a dense copy (through the host; waits for the
    /// device that it is on).
    ///
    /// # Errors
    /// As `to_vec` and `from_slice`.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        block_on(self.moved(device, Wait::Here))
    }
}
