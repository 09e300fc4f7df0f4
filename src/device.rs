//! [`Device`]: where tensors live and ops run.

#[cfg(feature = "gpu")]
use std::sync::Arc;

#[cfg(feature = "gpu")]
use crate::error::Error;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::{AdapterInfo, Backend, Caps, Gpu, GpuOptions, Memory, Pin};
use crate::platform::Wait;

/// The environment variable that [`Device::best`] obeys: `cpu`, or `backend:name` such as `vulkan:radeon` or `gl:`.
pub const DEVICE_VAR: &str = "GRISTMILL_DEVICE";

/// A device: a cheap handle, to be cloned freely and shared between threads.
///
/// ```
/// use gristmill::Device;
///
/// let device = Device::best()?; // a hardware GPU if there is one, else the CPU
/// println!("running on {device}");
/// # Ok::<(), gristmill::Error>(())
/// ```
#[derive(Clone)]
pub struct Device {
    kind: Kind,
    batch_invariant: bool,
    #[cfg(feature = "gpu")]
    pin: Option<Pin>,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Cpu,
    #[cfg(feature = "gpu")]
    Gpu(Arc<Gpu>),
}

impl Device {
    /// The CPU backend: rayon, always there, and the oracle for the others.
    pub fn cpu() -> Self {
        Device {
            kind: Kind::Cpu,
            batch_invariant: false,
            #[cfg(feature = "gpu")]
            pin: None,
        }
    }

    /// Whether this is the CPU backend.
    pub fn is_cpu(&self) -> bool {
        matches!(self.kind, Kind::Cpu)
    }

    /// `cpu`, or `backend:adapter name`.
    pub fn label(&self) -> &str {
        match &self.kind {
            Kind::Cpu => "cpu",
            #[cfg(feature = "gpu")]
            Kind::Gpu(gpu) => &gpu.label,
        }
    }

    /// Whether both are handles of one device, so that tensors of one serve ops of the other. All CPU handles are.
    pub fn same_as(&self, other: &Device) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Cpu, Kind::Cpu) => true,
            #[cfg(feature = "gpu")]
            (Kind::Gpu(a), Kind::Gpu(b)) => Arc::ptr_eq(a, b),
            #[cfg(feature = "gpu")]
            _ => false,
        }
    }

    /// A handle of the same device on which a row's result does not depend on the batch that it is in: bit for bit the same alone and among
    /// any others, so that what a server answers does not depend on who else asks. One kernel and one order of summation for every number of
    /// rows (`m` of a matmul, queries and batches of an attention), so small batches run slower. The *first input's* handle decides for an
    /// op; [`Tensor::to_device`](crate::Tensor::to_device) moves a tensor to it without a copy. Softmax, and reductions of rows that lie alike, are so in any case.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, ops};
    ///
    /// let device = Device::cpu().batch_invariant();
    /// let x = Tensor::rand_normal(&device, &[7, 100], 0.0, 1.0, 1)?;
    /// let w = Tensor::rand_normal(&device, &[100, 50], 0.0, 1.0, 2)?;
    /// let options = ops::Matmul::default();
    /// let (all, one) = (ops::matmul(&x, &w, &options)?, ops::matmul(&x.narrow(0, 3..4)?, &w, &options)?);
    /// assert_eq!(all.narrow(0, 3..4)?.to_vec::<f32>()?, one.to_vec::<f32>()?);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    pub fn batch_invariant(&self) -> Self {
        Device { batch_invariant: true, ..self.clone() }
    }

    /// Whether this handle asks for [`batch_invariant`](Self::batch_invariant).
    pub fn is_batch_invariant(&self) -> bool {
        self.batch_invariant
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Waits until all work recorded so far is done: the async twin of `sync`.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost), [`Error::TimedOut`](crate::Error::TimedOut), or what an earlier command failed with.
    pub async fn sync_async(&self) -> Result<()> {
        self.finish(Wait::Apart).await
    }

    pub(crate) async fn finish(&self, wait: Wait) -> Result<()> {
        match &self.kind {
            Kind::Cpu => {
                let _ = wait;
                Ok(())
            }
            #[cfg(feature = "gpu")]
            Kind::Gpu(gpu) => gpu.sync("sync", wait).await,
        }
    }

    /// The async twin of `best`: the device that [`DEVICE_VAR`] names, without it the best hardware GPU, else the CPU.
    ///
    /// # Errors
    /// If the variable is set and cannot be obeyed.
    pub async fn best_async() -> Result<Self> {
        if let Some(value) = crate::platform::env_var(DEVICE_VAR) {
            let device = Self::named(&value).await?;
            tracing::info!(%device, "chosen by {DEVICE_VAR}={value}");
            return Ok(device);
        }
        #[cfg(feature = "gpu")]
        match Self::gpu_async(&GpuOptions::default()).await {
            Ok(device) => {
                tracing::info!(%device, "chosen as the best hardware adapter");
                return Ok(device);
            }
            Err(reason) => tracing::info!(%reason, "chose the CPU"),
        }
        Ok(Self::cpu())
    }

    /// The device that a value of the variable names.
    #[cfg(feature = "gpu")]
    async fn named(value: &str) -> Result<Self> {
        match parse(value)? {
            None => Ok(Self::cpu()),
            Some(options) => Self::gpu_async(&options).await,
        }
    }

    #[cfg(not(feature = "gpu"))]
    async fn named(value: &str) -> Result<Self> {
        if value.eq_ignore_ascii_case("cpu") {
            return Ok(Self::cpu());
        }
        Err(crate::Error::Argument {
            op: "Device::best",
            argument: DEVICE_VAR,
            problem: format!("is {value:?}, but this build has only `cpu`"),
            help: "unset it, or build with the feature `gpu`",
        })
    }
}

#[cfg(feature = "gpu")]
impl Device {
    /// The async twin of `gpu`, for the browser too.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if no adapter fits or the one that fits refuses.
    pub async fn gpu_async(options: &GpuOptions) -> Result<Self> {
        let gpu = Gpu::open(options).await?;
        Ok(Device { kind: Kind::Gpu(gpu), batch_invariant: false, pin: None })
    }

    /// A device that the caller made with wgpu, for tensors beside the caller's own work on it. Its queue is shared: what gristmill submits
    /// and what the caller submits run in the order of submission. The adapter may be gone; limits and features are the device's.
    ///
    /// The caller's error and loss handlers stay as they are. gristmill's own errors never reach them (they are caught in error scopes), and a
    /// loss is found when a call waits: from then on every call says so. wgpu runs the caller's callbacks inside whatever submits or polls, calls of
    /// gristmill's too: a callback must not call gristmill, or it waits for itself. Of `options`, `deadline`, `memory_budget`, `throughput` and
    /// `checks` count; the others choose a device, and this one is chosen. Buffers come and go by [`Tensor::from_buffer`](crate::Tensor::from_buffer) and
    /// [`Tensor::buffer`](crate::Tensor::buffer), encoders by [`record`](Self::record). See `examples/embed_in_wgpu_app.rs`.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if the device cannot run compute kernels with four storage buffers, [`Error::OutOfMemory`], [`Error::Lost`].
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue, options: &GpuOptions) -> Result<Self> {
        let gpu = Gpu::adopt(device, queue, options)?;
        Ok(Device { kind: Kind::Gpu(gpu), batch_invariant: false, pin: None })
    }

    /// Runs `work` with this thread's ops on this device recorded into the caller's encoder, between what the caller records before and
    /// after, instead of being submitted by gristmill. What gristmill recorded earlier is submitted first.
    ///
    /// Params, scratch buffers and tensors that `work` drops stay valid until the encoder is submitted or dropped; none of these buffers is
    /// used again by gristmill. Until the encoder is submitted, the tensors that `work` wrote hold anything: read them, and use them in ops
    /// outside, after that. Other threads are not concerned,
    /// but where this is a rayon worker: while CPU ops inside `work` wait for others it may run jobs of theirs, whose ops are then recorded too.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, gpu::{GpuOptions, wgpu}, ops};
    ///
    /// # let options = GpuOptions { software: true, ..GpuOptions::default() };
    /// # let Ok(device) = Device::gpu(&options) else { return Ok(()) };
    /// # let Some((wgpu_device, queue)) = device.wgpu() else { return Ok(()) };
    /// let x = Tensor::full(&device, 3.0f32, &[4])?;
    /// let mut encoder = wgpu_device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    /// let y = device.record(&mut encoder, || ops::mul(&x, &x))?;
    /// queue.submit([encoder.finish()]);
    /// assert_eq!(y.to_vec::<f32>()?, [9.0; 4]);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    ///
    /// # Errors
    /// What `work` gives; [`Error::Argument`] for calls inside it that wait for the GPU (`to_vec`, `sync`, another `record`), and on the CPU. After
    /// an error drop the encoder: it may hold a part of the work.
    pub fn record<T>(&self, encoder: &mut wgpu::CommandEncoder, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match &self.kind {
            Kind::Cpu => Err(Error::Argument {
                op: "Device::record",
                argument: "the device",
                problem: "is the CPU, which has no command encoders".into(),
                help: "call the ops themselves, or use a GPU",
            }),
            Kind::Gpu(gpu) => gpu.lend(encoder, work),
        }
    }

    /// The wgpu device and queue underneath; `None` on the CPU. Do not set their error or loss handlers unless they are the caller's
    /// ([`from_wgpu`](Self::from_wgpu)): gristmill's own would be replaced.
    pub fn wgpu(&self) -> Option<(wgpu::Device, wgpu::Queue)> {
        match &self.kind {
            Kind::Cpu => None,
            Kind::Gpu(gpu) => Some(gpu.wgpu()),
        }
    }

    /// Whether the device is known to be lost: every call on it fails with [`Error::Lost`]. Never on the CPU.
    pub fn is_lost(&self) -> bool {
        match &self.kind {
            Kind::Cpu => false,
            Kind::Gpu(gpu) => gpu.is_lost(),
        }
    }

    /// The async twin of `adapters`: every GPU adapter with compute shaders, best first, software ones included.
    pub async fn adapters_async() -> Vec<AdapterInfo> {
        crate::gpu::adapters().await
    }

    /// What the GPU can do; `None` on the CPU.
    pub fn caps(&self) -> Option<&Caps> {
        match &self.kind {
            Kind::Cpu => None,
            Kind::Gpu(gpu) => Some(&gpu.caps),
        }
    }

    /// What the GPU's buffers hold and how often something was made for it; `None` on the CPU.
    ///
    /// Buffers of dropped tensors are kept and used again: a step that repeats allocates none for its tensors. What was in one is never seen
    /// in the next tensor: ops write all of theirs, [`Tensor::zeros`](crate::Tensor::zeros) clears.
    ///
    /// ```
    /// use gristmill::{Device, Tensor, gpu::GpuOptions, ops};
    ///
    /// let options = GpuOptions { software: true, memory_budget: Some(1 << 30), ..GpuOptions::default() };
    /// let Ok(device) = Device::gpu(&options) else { return Ok(()) };
    /// let x = Tensor::full(&device, 1.0f32, &[1000])?;
    /// for _ in 0..3 {
    ///     ops::add(&x, &x)?; // the second and third get the first one's buffer
    /// }
    /// let memory = device.memory().expect("a GPU");
    /// assert_eq!(memory.buffers, 2);
    /// device.trim()?;
    /// assert_eq!(device.memory().expect("a GPU").cached, 0);
    /// # Ok::<(), gristmill::Error>(())
    /// ```
    pub fn memory(&self) -> Option<Memory> {
        match &self.kind {
            Kind::Cpu => None,
            Kind::Gpu(gpu) => Some(gpu.memory()),
        }
    }

    /// Submits what is recorded and lets go of the buffers that no tensor uses. The driver has them back once the GPU is done with what was
    /// recorded and something waits for it: after [`sync`](Self::sync) at the latest.
    ///
    /// # Errors
    /// [`Error::Lost`], or what an earlier command failed with.
    pub fn trim(&self) -> Result<()> {
        match &self.kind {
            Kind::Cpu => Ok(()),
            Kind::Gpu(gpu) => gpu.trim("Device::trim"),
        }
    }

    /// A handle of the same device that takes this kernel (or this kernel with this tune) for the op it belongs to, wherever that serves (one for
    /// few rows does not serve many, and what is chosen does): for tests, benches, and drivers that miscompile another. Other ops choose as before. The *first input's* handle decides for an op; move a
    /// tensor to a handle of its own device with [`Tensor::to_device`](crate::Tensor::to_device), which copies nothing.
    ///
    /// The kernels are listed by [`ops::kernels`](crate::ops::kernels).
    pub fn pinned(&self, kernel: impl Into<Pin>) -> Self {
        Device { pin: Some(kernel.into()), ..self.clone() }
    }

    pub(crate) fn pin(&self) -> Option<Pin> {
        self.pin
    }
}

/// `cpu` (None), or `backend:name` with either part empty.
#[cfg(feature = "gpu")]
fn parse(value: &str) -> Result<Option<GpuOptions>> {
    if value.eq_ignore_ascii_case("cpu") {
        return Ok(None);
    }
    let (backend, name) = value.split_once(':').unwrap_or((value, ""));
    let known = Backend::ALL.into_iter().find(|b| backend.eq_ignore_ascii_case(b.name()));
    if known.is_none() && (!backend.is_empty() || name.is_empty()) {
        return Err(Error::Argument {
            op: "Device::best",
            argument: DEVICE_VAR,
            problem: format!("is {value:?}, and {backend:?} is no backend"),
            help: "set it to `cpu`, or to `backend:name` with vulkan, metal, dx12, gl or webgpu, such as `vulkan:radeon`",
        });
    }
    Ok(Some(GpuOptions {
        backend: known,
        name: (!name.is_empty()).then(|| name.to_string()),
        // Named by the user: not a silent choice.
        software: true,
        ..GpuOptions::default()
    }))
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.label())
    }
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_parsed_or_refused() {
        assert!(parse("cpu").unwrap().is_none());
        let options = parse("vulkan:llvmpipe (LLVM 19: 256)").unwrap().unwrap();
        assert_eq!(options.backend, Some(Backend::Vulkan));
        assert_eq!(options.name.as_deref(), Some("llvmpipe (LLVM 19: 256)"));
        assert_eq!(parse("GL").unwrap().unwrap().backend, Some(Backend::Gl));
        assert_eq!(parse(":radeon").unwrap().unwrap().name.as_deref(), Some("radeon"));
        assert!(parse("cuda:0").is_err() && parse(":").is_err());
    }
}
