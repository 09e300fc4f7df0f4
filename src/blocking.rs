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

    /// The elements for `safetensors::serialize` and `serialize_to_file`, without a second copy on the host: on the CPU a dense tensor's
    /// storage is borrowed, on a GPU the readback is all there is. A view with gaps is gathered once (on a GPU after the readback: there
    /// [`contiguous`](Tensor::contiguous) first spares that). Waits for the device.
    ///
    /// ```
    /// use gristmill::{Device, Tensor};
    ///
    /// let device = Device::cpu();
    /// let (w, b) = (Tensor::rand_normal(&device, &[4, 8], 0.0, 1.0, 1)?, Tensor::full(&device, half::f16::ONE, &[4])?);
    /// # let folder = std::env::temp_dir().join(format!("gristmill-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// # let path = folder.join("layer.safetensors");
    /// safetensors::serialize_to_file([("w", w.to_safetensors()?), ("b", b.to_safetensors()?)], None, &path)?;
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), and what the work that it waits for failed with. Every [`DType`](crate::DType) has its
    /// dtype there.
    #[cfg(feature = "safetensors")]
    pub fn to_safetensors(&self) -> Result<crate::HostTensor> {
        block_on(self.lent(Wait::Here))
    }

    /// The tensor as an `.npy` array in row-major order, into anything: a file, a vector. In two writes, so that a plain `File` needs no
    /// `BufWriter`; it is flushed. Waits for the device.
    ///
    /// ```
    /// use gristmill::{Device, Tensor};
    ///
    /// let x = Tensor::arange::<u8>(&Device::cpu(), 0.0, 1.0, 6)?.reshape(&[2, 3])?;
    /// let mut file = Vec::new(); // or std::fs::File::create("x.npy")?
    /// x.write_npy(&mut file)?;
    /// assert!(file.starts_with(b"\x93NUMPY") && file.ends_with(&[0, 1, 2, 3, 4, 5]));
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) for bf16, which NumPy does not have: `cast` to f32, which holds every bf16.
    /// [`Error::Io`](crate::Error::Io) if the writer fails; and as `to_vec`.
    #[cfg(feature = "npy")]
    pub fn write_npy(&self, writer: impl std::io::Write) -> Result<()> {
        block_on(self.saved(writer, Wait::Here))
    }

    /// Keeps a copy of the elements on the host as well, as they are now, for the case that the GPU is lost: [`to_device`](Self::to_device) and
    /// `to_vec` of this tensor, and of views of it, then take that copy instead of failing. It serves until something writes into the
    /// storage: call again after that. Costs host memory of the tensor's size until the storage goes. Waits for the device; does nothing on
    /// the CPU. See `examples/survive_loss.rs`.
    ///
    /// ```
    /// use gristmill::{Device, Tensor};
    ///
    /// let device = Device::best()?;
    /// let weights = Tensor::rand_normal(&device, &[64, 64], 0.0, 1.0, 1)?;
    /// weights.keep_host_copy()?;
    /// // … when an op has failed with an error that `is_loss()`:
    /// let device = Device::best()?;
    /// let weights = weights.to_device(&device)?;
    /// # assert_eq!(weights.shape(), [64, 64]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `to_vec`; [`Error::Argument`](crate::Error::Argument) for a tensor whose buffer the caller has too (`from_buffer`, `buffer`, `record`).
    pub fn keep_host_copy(&self) -> Result<()> {
        block_on(self.keep(Wait::Here))
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
