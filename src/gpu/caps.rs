//! [`Caps`]: what a device can do, as plain data, so that planning can be tested for GPUs that nobody here owns.

use std::fmt;

/// The API behind a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Vulkan: Linux, Windows, Android.
    Vulkan,
    /// Metal: Apple.
    Metal,
    /// Direct3D 12: Windows.
    Dx12,
    /// OpenGL and OpenGL ES. Its context serves one thread at a time: use such a device from one thread, and drop its tensors there; wgpu
    /// panics in a thread that waits for the context for 6 s.
    Gl,
    /// A browser's WebGPU.
    WebGpu,
}

impl Backend {
    /// Lower case, as the environment variable takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Vulkan => "vulkan",
            Backend::Metal => "metal",
            Backend::Dx12 => "dx12",
            Backend::Gl => "gl",
            Backend::WebGpu => "webgpu",
        }
    }

    /// All of them.
    pub const ALL: [Backend; 5] = [Backend::Vulkan, Backend::Metal, Backend::Dx12, Backend::Gl, Backend::WebGpu];
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What stands behind an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU lent by a hypervisor.
    Virtual,
    /// A driver that runs on the CPU (lavapipe, llvmpipe, SwiftShader, WARP): slower than [`Device::cpu`](crate::Device::cpu).
    Software,
    /// The driver does not say.
    Unknown,
}

impl AdapterKind {
    /// Work a second that gristmill's kernels are sure to do on such an adapter. Of software measured with lavapipe on two cores (`cargo bench`:
    /// attention 2.5 to 3 GFLOP/s, matmul 10 and more, softmax 0.5 GB/s); of the others *unmeasured*, a tenth of what small ones of their kind are
    /// sold as.
    pub const fn throughput(self) -> Throughput {
        let (flops, bytes) = match self {
            AdapterKind::Discrete => (300_000, 15_000),
            AdapterKind::Integrated | AdapterKind::Virtual | AdapterKind::Unknown => (30_000, 1500),
            AdapterKind::Software => (2500, 500),
        };
        Throughput { flops: flops * 1_000_000, bytes: bytes * 1_000_000 }
    }
}

/// Work a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throughput {
    /// Floating point operations, a fused multiply-add counted as two.
    pub flops: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

impl Throughput {
    /// No less than any device does: less would cut calls to dust.
    pub(crate) fn sensible(self) -> Self {
        Throughput { flops: self.flops.max(1_000_000), bytes: self.bytes.max(100_000) }
    }
}

/// What a device can do. Plain data: kernels are chosen from this and the problem alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caps {
    /// The adapter's name as its driver gives it.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// The API.
    pub backend: Backend,
    /// What it is.
    pub kind: AdapterKind,
    /// Bytes of workgroup memory a workgroup.
    pub workgroup_bytes: u32,
    /// Invocations a workgroup.
    pub workgroup_invocations: u32,
    /// Workgroups a dimension of a dispatch.
    pub grid_dimension: u32,
    /// Storage buffers a kernel.
    pub storage_buffers: u32,
    /// Bytes a storage binding.
    pub binding_bytes: u64,
    /// Bytes a buffer.
    pub buffer_bytes: u64,
    /// f16 arithmetic in WGSL (`enable f16`).
    pub f16: bool,
    /// Subgroup sizes, smallest and largest, where subgroup operations may be used.
    pub subgroups: Option<(u32, u32)>,
    /// The side of the cooperative matrices, 8 or 16, where there are such of f16 into f32. Never of a device that the caller made: wgpu tells
    /// of them by the adapter.
    pub cooperative: Option<u32>,
    /// What it is sure to do: no dispatch is planned that would take longer than 250 ms by it and can be cut.
    pub throughput: Throughput,
}

impl Caps {
    /// The major version of Mesa, where the driver says so.
    pub(crate) fn mesa(&self) -> Option<u32> {
        let (_, rest) = self.driver.split_once("Mesa ")?;
        rest.split('.').next()?.parse().ok()
    }

    /// Workgroups that keep an adapter busy: of a large GPU 96 compute units or more, two each, of a small one an eighth. *Unmeasured*: WebGPU does not
    /// say.
    pub(crate) fn busy_groups(&self) -> usize {
        match self.kind {
            AdapterKind::Discrete => 192,
            AdapterKind::Software => 1,
            _ => 24,
        }
    }

    /// WebGPU's default limits and no features: what every conforming device has.
    pub fn webgpu_defaults() -> Self {
        Caps {
            name: "WebGPU defaults".into(),
            driver: String::new(),
            backend: Backend::WebGpu,
            kind: AdapterKind::Unknown,
            workgroup_bytes: 16 << 10,
            workgroup_invocations: 256,
            grid_dimension: 65_535,
            storage_buffers: 8,
            binding_bytes: 128 << 20,
            buffer_bytes: 256 << 20,
            f16: false,
            subgroups: None,
            cooperative: None,
            throughput: AdapterKind::Unknown.throughput(),
        }
    }
}
