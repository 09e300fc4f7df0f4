//! Everything that touches wgpu, and nothing that knows an op: adapters, the device, buffers, pipelines, the stream of dispatches.

mod caps;
mod kernel;
mod pipelines;
mod pool;
mod stream;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use caps::{AdapterKind, Backend, Caps, Throughput};
pub use kernel::{
    Access, Arg, Binding, Constants, Dispatch, Field, Kernel, Needs, Params, Pin, Plan, Sink, Spec, Width, axes, check_binding,
    check_kernel, fold, loop_end, runs, word,
};

pub(crate) use pool::GpuBuffer;
pub use pool::Memory;
/// wgpu itself, in the version that [`Device::from_wgpu`](crate::Device::from_wgpu) takes.
pub use wgpu;

use crate::error::{Error, Result};
use crate::platform::{self, Wait};
use pipelines::{Pipeline, Pipelines};
use pool::{Lease, Pool, Role};
use stream::{Proof, Stream};

/// What to do when there is no adapter.
const HELP: &str = "install a Vulkan driver (Debian and Ubuntu: mesa-vulkan-drivers), allow software adapters, or use Device::cpu()";

/// Which GPU, and how much of it. The default is the best hardware adapter with all that it offers.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Only this API.
    pub backend: Option<Backend>,
    /// Only adapters whose name or driver contains this, whatever the case.
    pub name: Option<String>,
    /// Only this one, as [`Device::adapters`](crate::Device::adapters) lists it.
    pub adapter: Option<AdapterInfo>,
    /// Whether a software adapter will do. They are slower than [`Device::cpu`](crate::Device::cpu) and serve tests.
    pub software: bool,
    /// Ask for exactly WebGPU's default limits and no features, so that what runs here runs on every conforming device.
    pub webgpu_defaults: bool,
    /// How long one wait may take before the device counts as lost. By default a minute, ten on software adapters (which compile
    /// at the first dispatch).
    pub deadline: Option<Duration>,
    /// Bytes that tensors may take together: past it a call fails with [`Error::OutOfMemory`] before the driver has to. What waits to be
    /// used again makes room first; uploads and readbacks under way come on top. No bound by default.
    pub memory_budget: Option<u64>,
    /// Work a second that the device is sure to do, where [`AdapterKind::throughput`] is wrong about it: too high, and the system may kill
    /// dispatches that run for seconds; too low, and calls are cut into more dispatches than need be.
    pub throughput: Option<Throughput>,
    /// Whether shaders check their own indices.
    pub checks: Checks,
}

/// Whether shaders check their own indices.
///
/// Checked, an index past a buffer or an array is held within it by code in the shader, and every loop counts. That costs: index clamps alone
/// took a third of attention on RDNA3. Unchecked, the host's proof stands for it: a checked call's layouts say which elements a kernel reaches,
/// the plan's grid and params are made from them, and `tests/bounds.rs` runs every kernel with every index watched. Divisions by zero stay
/// checked, and workgroup memory never shows what another program left there: kernels write it before they read it, or wgpu zeroes it. Kernels
/// of the caller's ([`ops::dispatch`](crate::ops::dispatch)) are always checked; in a browser everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Checks {
    /// Checked in builds with debug assertions, unchecked in others.
    #[default]
    Debug,
    /// Checked.
    On,
    /// Unchecked.
    Off,
}

impl Checks {
    fn are_on(self) -> bool {
        match self {
            Checks::Debug => cfg!(debug_assertions) || platform::EVENT_LOOP,
            Checks::On => true,
            Checks::Off => platform::EVENT_LOOP,
        }
    }
}

/// An adapter that is present.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterInfo {
    /// The name as its driver gives it.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// The API.
    pub backend: Backend,
    /// Hardware or software.
    pub kind: AdapterKind,
    /// Which of the adapters that agree in all of the above: 0, 1, …
    pub ordinal: usize,
}

impl AdapterInfo {
    fn of(info: wgpu::AdapterInfo) -> Option<Self> {
        let backend = match info.backend {
            wgpu::Backend::Vulkan => Backend::Vulkan,
            wgpu::Backend::Metal => Backend::Metal,
            wgpu::Backend::Dx12 => Backend::Dx12,
            wgpu::Backend::Gl => Backend::Gl,
            wgpu::Backend::BrowserWebGpu => Backend::WebGpu,
            // It executes nothing and says that it did.
            wgpu::Backend::Noop => return None,
        };
        // OpenGL does not tell software from hardware except by name.
        let lower = info.name.to_lowercase();
        let software = ["llvmpipe", "lavapipe", "softpipe", "swiftshader", "software", "basic render"];
        let kind = match info.device_type {
            _ if software.iter().any(|s| lower.contains(s)) => AdapterKind::Software,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Other => AdapterKind::Unknown,
        };
        Some(AdapterInfo {
            name: info.name,
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            backend,
            kind,
            ordinal: 0,
        })
    }

    fn fits(&self, options: &GpuOptions) -> bool {
        let named = options.name.as_ref().is_none_or(|name| {
            let text = format!("{} {}", self.name, self.driver).to_lowercase();
            text.contains(&name.to_lowercase())
        });
        let this = options.adapter.as_ref().is_none_or(|adapter| adapter == self);
        options.backend.is_none_or(|b| b == self.backend) && named && this && (options.software || self.kind != AdapterKind::Software)
    }

    /// Smaller is better: hardware before software, native APIs before OpenGL.
    fn rank(&self) -> (usize, bool) {
        let kind = match self.kind {
            AdapterKind::Discrete => 0,
            AdapterKind::Integrated => 1,
            AdapterKind::Virtual => 2,
            AdapterKind::Unknown => 3,
            AdapterKind::Software => 4,
        };
        (kind, self.backend == Backend::Gl)
    }
}

impl std::fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} ({}, {:?})", self.backend, self.name, self.driver, self.kind)
    }
}

/// Runs wgpu calls in error scopes, and catches their panics: gives what they gave, or what they panicked with, and their first error.
fn scoped<T>(device: &wgpu::Device, calls: impl FnOnce() -> T) -> (Result<T, String>, Option<wgpu::Error>) {
    let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal];
    let filters = if platform::SCOPES_ANSWER { &filters[..] } else { &[] };
    let scopes: Vec<_> = filters.iter().map(|&filter| device.push_error_scope(filter)).collect();
    let result = catch_unwind(AssertUnwindSafe(calls)).map_err(|panic| panic_text(&*panic));
    let mut error = None;
    for scope in scopes.into_iter().rev() {
        error = platform::ready(scope.pop()).flatten().or(error);
    }
    (result, error)
}

/// The side of an adapter's cooperative matrices of f16 into f32, if their use is sound there.
fn cooperative(info: &AdapterInfo, adapter: &wgpu::Adapter) -> Option<u32> {
    if !adapter.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return None;
    }
    let given = adapter.get_info();
    // lavapipe of Mesa 26 is right in vectors of 256 bits alone: of 512 its compiler crashes, of 128 wgpu panics at the request.
    if info.kind == AdapterKind::Software && (given.subgroup_min_size, given.subgroup_max_size) != (8, 8) {
        return None;
    }
    let all = adapter.cooperative_matrix_properties();
    let types = (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
    let has = |side| all.iter().any(|p| (p.m_size, p.n_size, p.k_size) == (side, side, side) && (p.ab_type, p.cr_type) == types);
    [16, 8].into_iter().find(|&side| has(side))
}

/// Every adapter, or those of one API, best first.
async fn enumerate(backend: Option<Backend>) -> Vec<(AdapterInfo, wgpu::Adapter)> {
    let (shared, own) = match backend {
        None => (wgpu::Backends::PRIMARY, wgpu::Backends::SECONDARY),
        Some(Backend::Vulkan) => (wgpu::Backends::VULKAN, wgpu::Backends::empty()),
        Some(Backend::Metal) => (wgpu::Backends::METAL, wgpu::Backends::empty()),
        Some(Backend::Dx12) => (wgpu::Backends::DX12, wgpu::Backends::empty()),
        Some(Backend::WebGpu) => (wgpu::Backends::BROWSER_WEBGPU, wgpu::Backends::empty()),
        Some(Backend::Gl) => (wgpu::Backends::empty(), wgpu::Backends::GL),
    };
    let mut adapters = Vec::new();
    if !shared.is_empty() {
        adapters.extend(platform::shared_instance(wgpu::Backends::PRIMARY).enumerate_adapters(shared).await);
    }
    if !own.is_empty() {
        // Devices of one instance share a GL context, and with it the lock.
        adapters.extend(platform::instance(own).enumerate_adapters(own).await);
    }
    let mut found: Vec<_> = adapters
        .into_iter()
        .filter(|a| {
            let flags = a.get_downlevel_capabilities().flags;
            flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
        })
        .filter_map(|a| Some((AdapterInfo::of(a.get_info())?, a)))
        .collect();
    found.sort_by_key(|(info, _)| info.rank());
    for at in 1..found.len() {
        let (before, rest) = found.split_at_mut(at);
        let twins = before.iter().filter(|(info, _)| AdapterInfo { ordinal: 0, ..info.clone() } == rest[0].0);
        rest[0].0.ordinal = twins.count();
    }
    found
}

/// Every adapter with compute shaders, best first, software ones included.
pub(crate) async fn adapters() -> Vec<AdapterInfo> {
    enumerate(None).await.into_iter().map(|(info, _)| info).collect()
}

/// A wgpu device and all that we keep with it.
pub(crate) struct Gpu {
    pub(crate) caps: Caps,
    pub(crate) label: String,
    device: wgpu::Device,
    deadline: Duration,
    checks: Checks,
    health: Arc<Health>,
    pipelines: Pipelines,
    pool: Arc<Pool>,
    stream: Mutex<Stream>,
    /// See `take_turn`.
    turn: Mutex<()>,
    /// The last to be dropped.
    queue: Queue,
}

/// What went wrong outside any call: read by every later call.
#[derive(Default)]
struct Health {
    lost: Mutex<Option<String>>,
    uncaptured: Mutex<Option<String>>,
    /// Whether the GPU may be at work still, for ever perhaps.
    hung: AtomicBool,
}

impl Health {
    fn lose(&self, reason: String) {
        lock(&self.lost).get_or_insert(reason);
    }
}

/// The queue. wgpu waits for all of a queue's work when its last handle goes, without a deadline, and panics on some errors.
struct Queue {
    queue: Option<wgpu::Queue>,
    health: Arc<Health>,
}

impl std::ops::Deref for Queue {
    type Target = wgpu::Queue;
    fn deref(&self) -> &wgpu::Queue {
        self.queue.as_ref().expect("it is taken by `drop` alone")
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let queue = self.queue.take();
        if self.health.hung.load(Ordering::Relaxed) {
            // On purpose: it keeps the device and what its work uses, and there is no other way not to wait.
            std::mem::forget(queue);
        } else {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(queue)));
        }
    }
}

/// Locks; a panic elsewhere does not poison our plain data.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("label", &self.label).finish_non_exhaustive()
    }
}

/// What a new tensor's buffer holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fill<'a> {
    Zeros,
    /// As many bytes as were asked for.
    Data(&'a [u8]),
    /// Anything: kernels write every element before any is read.
    Unwritten,
}

impl Gpu {
    pub(crate) async fn open(options: &GpuOptions) -> Result<Arc<Self>> {
        let wanted = options.backend.or(options.adapter.as_ref().map(|adapter| adapter.backend));
        let mut found = enumerate(wanted).await;
        if !found.iter().any(|(info, _)| info.fits(options)) {
            // The error tells of all that there are.
            found = enumerate(None).await;
        }
        let names: Vec<String> = found.iter().map(|(info, _)| info.to_string()).collect();
        let refused = |help| Error::NoGpu { wanted: format!("{options:?}"), found: names.clone(), help };
        let mut last = refused(HELP);
        for (info, adapter) in found.iter().filter(|(info, _)| info.fits(options)) {
            match Self::request(info, adapter, options).await {
                Ok(gpu) => return Ok(gpu),
                Err(error) => {
                    tracing::warn!(adapter = %info, %error, "adapter refused a device");
                    last = refused("the adapter that fits refused to open; look at the log, update its driver or choose another");
                }
            }
        }
        Err(last)
    }

    async fn request(info: &AdapterInfo, adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Arc<Self>, String> {
        let wanted = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
        let cooperative = if options.webgpu_defaults || !adapter.features().contains(wanted) { None } else { cooperative(info, adapter) };
        match Self::request_with(info, adapter, options, cooperative).await {
            // A driver that shows them and then refuses serves without.
            Err(error) if cooperative.is_some() => {
                tracing::warn!(adapter = %info, %error, "no device with cooperative matrices");
                Self::request_with(info, adapter, options, None).await
            }
            result => result,
        }
    }

    async fn request_with(
        info: &AdapterInfo,
        adapter: &wgpu::Adapter,
        options: &GpuOptions,
        cooperative: Option<u32>,
    ) -> Result<Arc<Self>, String> {
        let offered = adapter.features();
        let wanted = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
        let (mut features, limits) =
            if options.webgpu_defaults { (wgpu::Features::empty(), wgpu::Limits::default()) } else { (offered & wanted, adapter.limits()) };
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if cooperative.is_some() {
            features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            // SAFETY: the word that wgpu asks for is that its own bugs in such a feature may be undefined behaviour. It is this feature alone,
            // where `cooperative` knows no harm of it; our kernel of it runs under the oracle; and no other shader can reach it without an
            // `enable wgpu_cooperative_matrix` of its own.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("gristmill"),
            required_features: features,
            required_limits: limits,
            experimental_features,
            ..Default::default()
        };
        let request = catch_unwind(AssertUnwindSafe(|| adapter.request_device(&descriptor))).map_err(|panic| panic_text(&*panic))?;
        let (device, queue) = request.await.map_err(|error| error.to_string())?;
        let health = Arc::new(Health::default());
        let for_loss = health.clone();
        device.set_device_lost_callback(move |reason, message| for_loss.lose(format!("{reason:?}: {message}")));
        let for_errors = health.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            // Where no scope answers it can be of any call: no buffer of an unknown one may be used again.
            if !platform::SCOPES_ANSWER {
                for_errors.lose(error.to_string());
            }
            lock(&for_errors.uncaptured).get_or_insert(error.to_string());
        }));
        Self::keep(info, device, queue, health, options, cooperative).map_err(|error| error.to_string())
    }

    /// A device that the caller made, and whose handlers are the caller's.
    pub(crate) fn adopt(device: wgpu::Device, queue: wgpu::Queue, options: &GpuOptions) -> Result<Arc<Self>> {
        let refused = |found: String, help| Error::NoGpu { wanted: "the caller's wgpu device".into(), found: vec![found], help };
        let given = device.adapter_info();
        let name = format!("{:?}:{}", given.backend, given.name);
        let info = AdapterInfo::of(given).ok_or_else(|| refused(name, "wgpu's noop backend executes nothing; make a real device"))?;
        let limits = device.limits();
        let needs = [
            ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage, 4),
            ("max_uniform_buffers_per_shader_stage", limits.max_uniform_buffers_per_shader_stage, 1),
            ("max_dynamic_uniform_buffers_per_pipeline_layout", limits.max_dynamic_uniform_buffers_per_pipeline_layout, 1),
            ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup, 1),
        ];
        if let Some((name, has, needs)) = needs.into_iter().find(|(_, has, needs)| has < needs) {
            let found = format!("{info} with {name} = {has}, of {needs} at the least");
            return Err(refused(found, "request the device with the adapter's own limits, or with wgpu::Limits::default()"));
        }
        Self::keep(&info, device, queue, Arc::default(), options, None)
    }

    fn keep(
        info: &AdapterInfo,
        device: wgpu::Device,
        queue: wgpu::Queue,
        health: Arc<Health>,
        options: &GpuOptions,
        cooperative: Option<u32>,
    ) -> Result<Arc<Self>> {
        let (limits, features, given) = (device.limits(), device.features(), device.adapter_info());
        let caps = Caps {
            name: info.name.clone(),
            driver: info.driver.clone(),
            backend: info.backend,
            kind: info.kind,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_invocations: limits.max_compute_invocations_per_workgroup,
            grid_dimension: limits.max_compute_workgroups_per_dimension,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            // Bindings are whole words of 16 bytes.
            binding_bytes: limits.max_storage_buffer_binding_size / 16 * 16,
            buffer_bytes: limits.max_buffer_size,
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features.contains(wgpu::Features::SUBGROUP).then_some((given.subgroup_min_size, given.subgroup_max_size)),
            cooperative,
            throughput: options.throughput.unwrap_or(info.kind.throughput()).sensible(),
        };
        let label = format!("{}:{}", info.backend, info.name);
        let queue = Queue { queue: Some(queue), health: health.clone() };
        let stream = match scoped(&device, || Stream::new(&device, &limits, caps.throughput)) {
            (Ok(stream), None) => stream,
            (Ok(_), Some(wgpu::Error::OutOfMemory { .. })) => {
                return Err(Error::OutOfMemory { op: "Device::gpu", bytes: stream::OWN_BYTES, device: label });
            }
            (Ok(_), Some(error)) => {
                let kernel = "its first buffers".into();
                return Err(Error::Rejected { op: "Device::gpu", device: label, kernel, message: error.to_string() });
            }
            (Err(panic), _) => return Err(Error::Lost { op: "Device::gpu", device: label, reason: panic }),
        };
        let seconds = if info.kind == AdapterKind::Software { 600 } else { 60 };
        let pool = Pool::new(options.memory_budget, caps.buffer_bytes / 16 * 16);
        Ok(Arc::new(Gpu {
            label,
            caps,
            deadline: options.deadline.unwrap_or(Duration::from_secs(seconds)),
            checks: options.checks,
            health,
            pipelines: Pipelines::default(),
            pool,
            stream: Mutex::new(stream),
            turn: Mutex::new(()),
            device,
            queue,
        }))
    }

    /// Fails if the device is known to be gone, or if an error arrived that no call has reported yet.
    fn check(&self, op: &'static str) -> Result<()> {
        self.check_lost(op)?;
        match lock(&self.health.uncaptured).take() {
            None => Ok(()),
            Some(message) => Err(self.rejected(op, "an earlier command", message)),
        }
    }

    /// Fails if the device is known to be gone.
    fn check_lost(&self, op: &'static str) -> Result<()> {
        match lock(&self.health.lost).clone() {
            Some(reason) => Err(Error::Lost { op, device: self.label.clone(), reason }),
            None => Ok(()),
        }
    }

    fn rejected(&self, op: &'static str, kernel: impl Into<String>, message: String) -> Error {
        Error::Rejected { op, device: self.label.clone(), kernel: kernel.into(), message }
    }

    /// Runs wgpu calls and turns whatever they raise (an error in a scope, a panic) into our error. `bytes` is what they allocate.
    fn guarded<T>(&self, op: &'static str, what: &str, bytes: u64, calls: impl FnOnce() -> T) -> Result<T> {
        self.check(op)?;
        self.caught(op, what, bytes, calls)
    }

    /// The same whatever earlier commands came to.
    fn caught<T>(&self, op: &'static str, what: &str, bytes: u64, calls: impl FnOnce() -> T) -> Result<T> {
        let _turn = self.take_turn();
        let (result, error) = scoped(&self.device, calls);
        if let Err(panic) = &result {
            self.health.lose(error.as_ref().map_or(panic.clone(), ToString::to_string));
        }
        if matches!(error, Some(wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. })) {
            self.probe();
        }
        // A loss reaches no scope, or as what led to it; and what was made of a lost device is nothing.
        self.check_lost(op)?;
        match (result, error) {
            (Ok(value), None) => Ok(value),
            (_, Some(wgpu::Error::OutOfMemory { .. })) => Err(Error::OutOfMemory { op, bytes, device: self.label.clone() }),
            (_, Some(error)) => Err(self.rejected(op, what, error.to_string())),
            (Err(panic), None) => Err(self.rejected(op, what, panic)),
        }
    }

    /// A call of ours that cannot be wrong failed: the device is lost, or else wgpu has rejected it.
    fn refused(&self, op: &'static str, what: &str, message: String) -> Error {
        self.probe();
        self.check(op).err().unwrap_or_else(|| self.rejected(op, what, message))
    }

    /// Finds out whether the device is lost: nothing tells on a device whose handlers are the caller's, nor at once elsewhere, and what a
    /// lost device makes is invalid without a word.
    fn probe(&self) {
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let descriptor = wgpu::BufferDescriptor { label: Some("probe"), size: 16, usage, mapped_at_creation: true };
        let made = || self.device.create_buffer(&descriptor).slice(..).get_mapped_range_mut().map(drop);
        if let (Ok(Err(_)), None) = scoped(&self.device, made) {
            self.health.lose("it makes no buffers any more".into());
        }
    }

    /// A buffer for `bytes` bytes, recycled or new.
    pub(crate) fn buffer(&self, op: &'static str, bytes: u64, fill: Fill) -> Result<GpuBuffer> {
        // What is uploaded stays for long, most often; what ops make comes and goes.
        let new = self.allocate(op, Role::Storage, bytes, matches!(fill, Fill::Data(_)))?;
        if lock(&self.stream).is_lent() {
            new.retire();
        }
        match fill {
            Fill::Unwritten => {}
            // wgpu zeroes what is new.
            Fill::Zeros if !new.recycled => {}
            Fill::Zeros => self.submitting(op, "a buffer", 0, |stream| stream.clear(&self.device, &self.queue, &new.buffer))?,
            Fill::Data([]) => {}
            Fill::Data(data) if data.len() <= stream::SMALL_BYTES => {
                self.submitting(op, "an upload", data.len() as u64, |stream| stream.upload(&self.device, &self.queue, &new.buffer, data))?;
            }
            Fill::Data(data) => {
                let size = (data.len() as u64).next_multiple_of(4);
                // Mapped itself: without MAP_WRITE wgpu would map another and copy once more.
                let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
                let descriptor = wgpu::BufferDescriptor { label: Some("upload"), size, usage, mapped_at_creation: true };
                let make = || self.guarded(op, "an upload", size, || self.device.create_buffer(&descriptor));
                let staging = make().or_else(|error| self.made_room(op, error).and_then(|()| make()))?;
                let written = self.guarded(op, "an upload", size, || {
                    staging.slice(..).get_mapped_range_mut()?.slice(..data.len()).copy_from_slice(data);
                    staging.unmap();
                    Ok::<_, wgpu::MapRangeError>(())
                })?;
                written.map_err(|error| self.refused(op, "an upload", error.to_string()))?;
                self.submitting(op, "an upload", size, |stream| stream.fill(&self.device, &self.queue, &new.buffer, &staging))?;
            }
        }
        Ok(new)
    }

    /// After an error: frees what is cached or waits in a submission if memory was what lacked, so that it may be tried once more.
    fn made_room(&self, op: &'static str, error: Error) -> Result<()> {
        if !matches!(error, Error::OutOfMemory { .. }) {
            return Err(error);
        }
        self.trim(op)?;
        #[cfg(not(target_arch = "wasm32"))]
        self.finish(op)?;
        Ok(())
    }

    /// A buffer of at least that many bytes, from the pool or from the driver. `exact` where it is to last.
    fn allocate(&self, op: &'static str, role: Role, bytes: u64, exact: bool) -> Result<GpuBuffer> {
        self.check(op)?;
        let too_large = |size: u64| Error::TooLarge {
            op,
            what: "the tensor".into(),
            requested: size.into(),
            limit: self.caps.buffer_bytes.into(),
            limit_name: "bytes a buffer",
        };
        // A binding may not be empty, and kernels read whole words.
        let size = bytes.max(16).checked_next_multiple_of(16).ok_or_else(|| too_large(bytes))?;
        if size > self.caps.buffer_bytes {
            return Err(too_large(size));
        }
        self.forget_retired(op)?;
        let attempt = |exact: bool| {
            let mut room = match self.pool.lease(role, size, exact) {
                Lease::Recycled(buffer) => return Ok(buffer),
                Lease::New(room) => room,
                Lease::OverBudget(budget) => {
                    let device = format!("{} (with a budget of {budget} bytes)", self.label);
                    return Err((false, Error::OutOfMemory { op, bytes: size, device }));
                }
            };
            let evicted = std::mem::take(&mut room.evicted);
            let descriptor = room.descriptor(op);
            let made = self.guarded(op, "a buffer", descriptor.size, || {
                lock(&self.stream).forget(evicted);
                self.device.create_buffer(&descriptor)
            });
            // If it never came to that, bind groups may hold what was evicted.
            let made = made.inspect_err(|_| lock(&self.stream).forget_all());
            made.map_err(|error| (true, error)).map(|buffer| room.filled(buffer))
        };
        attempt(exact).or_else(|(retry, error)| match retry {
            true => self.made_room(op, error).and_then(|()| attempt(true).map_err(|(_, error)| error)),
            false => Err(error),
        })
    }

    /// Bind groups would keep buffers that were dropped and are not to be used again.
    fn forget_retired(&self, op: &'static str) -> Result<()> {
        let retired = self.pool.retired();
        if retired.is_empty() { Ok(()) } else { self.guarded(op, "freeing", 0, || lock(&self.stream).forget(retired)) }
    }

    /// Submits what is recorded and lets go of every buffer that nobody uses.
    pub(crate) fn trim(&self, op: &'static str) -> Result<()> {
        self.flush(op)?;
        lock(&self.stream).forget_all();
        let freed = (self.pool.drain(), self.pool.retired());
        self.guarded(op, "freeing", 0, || {
            drop(freed);
            // wgpu frees what finished work used when it is polled.
            let _ = self.device.poll(wgpu::PollType::Poll);
        })
    }

    /// What the device's buffers hold.
    pub(crate) fn memory(&self) -> Memory {
        lock(&self.stream).count(self.pool.memory())
    }

    /// Records with the stream, which may have to submit for it.
    fn submitting(&self, op: &'static str, what: &str, bytes: u64, record: impl FnOnce(&mut Stream)) -> Result<()> {
        let mut flushed = false;
        self.check(op)?;
        let recorded = self.caught(op, what, bytes, || {
            let mut stream = lock(&self.stream);
            let before = stream.submissions();
            record(&mut stream);
            flushed = stream.submissions() != before;
        });
        recorded.or_else(|error| {
            // No bind group that an error left may be used again.
            lock(&self.stream).forget_all();
            // What a failed submission held is lost, other callers' work too.
            if flushed {
                self.health.lose(format!("a submission may have failed: {error}"));
                self.check_lost(op)?;
            }
            Err(error)
        })
    }

    /// Records and submits a dispatch of a caller's kernel by itself: what is wrong with it may show no sooner than when its encoder is
    /// closed, and must not spoil others' work.
    fn apart(&self, op: &'static str, pipeline: &Arc<Pipeline>, dispatch: &Dispatch, buffers: &[&wgpu::Buffer]) -> Result<()> {
        let refused = self.submission(op, |stream| {
            stream.flush(&self.queue);
            match scoped(&self.device, || stream.closed(&self.device, pipeline, dispatch, buffers)) {
                (Ok(closed), None) => {
                    stream.send(&self.queue, closed);
                    None
                }
                (result, error) => {
                    stream.discard();
                    Some(error.map(|error| error.to_string()).or(result.err()).unwrap_or_default())
                }
            }
        })?;
        refused.map_or(Ok(()), |message| Err(self.refused(op, dispatch.kernel.name, message)))
    }

    /// Records all of a plan; `tensors` are the buffers of the call, `out` first. `own`: whether it is a plan of our kernels
    /// for a checked call, so that no index leaves them.
    pub(crate) fn run(&self, op: &'static str, plan: &Plan, tensors: &[&GpuBuffer], own: bool) -> Result<()> {
        let scratch = plan.scratch.iter().map(|&bytes| self.buffer(op, bytes, Fill::Unwritten)).collect::<Result<Vec<_>>>()?;
        if lock(&self.stream).is_lent() {
            // Nobody knows when the caller's encoder runs, if it does.
            tensors.iter().copied().for_each(GpuBuffer::retire);
        }
        let mut sink = Recorder { gpu: self, own };
        for dispatch in &plan.dispatches {
            let buffers: Vec<_> = dispatch
                .args
                .iter()
                .map(|arg| match *arg {
                    Arg::Tensor(i) => &tensors[i].buffer,
                    Arg::Scratch(i) => &scratch[i].buffer,
                })
                .collect();
            sink.take(op, dispatch, &buffers)?;
        }
        Ok(())
    }

    /// Submits what is recorded and waits until it is done.
    pub(crate) async fn sync(self: &Arc<Self>, op: &'static str, wait: Wait) -> Result<()> {
        // Nothing but the proof that all of it ran.
        self.read_from(op, None, 0, wait).await.map(drop)
    }

    /// Waits until all that is submitted is done, on this thread.
    #[cfg(not(target_arch = "wasm32"))]
    fn finish(&self, op: &'static str) -> Result<()> {
        let done = Signal::default();
        let notify = done.clone();
        self.guarded(op, "a wait", 0, || self.queue.on_submitted_work_done(move || notify.set(Ok(()))))?;
        self.drive(op, &done);
        self.check(op)
    }

    /// Bytes `start..start + len` of a buffer.
    pub(crate) async fn read(self: &Arc<Self>, op: &'static str, from: &GpuBuffer, start: u64, len: u64, wait: Wait) -> Result<Vec<u8>> {
        // Copies go by whole words.
        let first = start / 4 * 4;
        let skip = (start - first) as usize;
        let end = (start + len).next_multiple_of(4);
        // In one part, but for what is as large as a buffer may be: the proof needs room.
        let most = (self.caps.buffer_bytes / 16 * 16).saturating_sub(stream::PROOF_BYTES).max(16);
        let mut bytes = self.read_from(op, Some((&from.buffer, first)), (end - first).min(most), wait).await?;
        while first + (bytes.len() as u64) < end {
            let at = first + bytes.len() as u64;
            let more = self.read_from(op, Some((&from.buffer, at)), (end - at).min(most), wait).await?;
            let lacking = |_| Error::OutOfMemory { op, bytes: len, device: "the host".into() };
            bytes.try_reserve_exact(more.len()).map_err(lacking)?;
            bytes.extend_from_slice(&more);
        }
        bytes.truncate(skip + len as usize);
        bytes.drain(..skip);
        Ok(bytes)
    }

    /// `size` bytes of a buffer from byte `first` on, once all work recorded before is done.
    async fn read_from(self: &Arc<Self>, op: &'static str, from: Option<(&wgpu::Buffer, u64)>, size: u64, wait: Wait) -> Result<Vec<u8>> {
        let (staging, mapped, proof) = self.start_read(op, from, size)?;
        if let Err(error) = self.settle(op, mapped, wait).await {
            // A mapping fails where its buffer is dropped, and ours is here: or where the device is lost.
            if error.is_loss() {
                return Err(error);
            }
            self.health.lose(match &error {
                Error::Rejected { message, .. } => format!("a readback: {message}"),
                other => other.to_string(),
            });
            return Err(self.check_lost(op).err().unwrap_or(error));
        }
        self.finish_read(op, staging, size, proof)
    }

    /// Sees to it that the signal gets set, and waits for it.
    async fn settle(self: &Arc<Self>, op: &'static str, signal: Signal, wait: Wait) -> Result<()> {
        match wait {
            #[cfg(not(target_arch = "wasm32"))]
            Wait::Here => self.drive(op, &signal),
            Wait::Apart => {
                let (gpu, driven) = (self.clone(), signal.clone());
                platform::run_apart(move || gpu.drive(op, &driven));
            }
        }
        signal.await
    }

    fn start_read(&self, op: &'static str, from: Option<(&wgpu::Buffer, u64)>, size: u64) -> Result<(GpuBuffer, Signal, Proof)> {
        self.not_lent(op)?;
        let whole = size.saturating_add(stream::PROOF_BYTES);
        let staging = self.allocate(op, Role::Readback, whole, false)?;
        // Not before it is unmapped.
        staging.retire();
        let proof = self.submission(op, |stream| stream.read(&self.device, &self.queue, from, &staging.buffer, size))?;
        let mapped = Signal::default();
        let notify = mapped.clone();
        let label = self.label.clone();
        self.guarded(op, "a readback", size, || {
            staging.buffer.slice(..whole).map_async(wgpu::MapMode::Read, move |result| {
                notify.set(result.map_err(|error| {
                    let kernel = "a readback".into();
                    Error::Rejected { op, device: label, kernel, message: error.to_string() }
                }));
                // Else whoever drives does: this may run inside a submission, under the stream's lock.
                if platform::EVENT_LOOP {
                    notify.wake();
                }
            });
        })?;
        Ok((staging, mapped, proof))
    }

    fn finish_read(&self, op: &'static str, mut staging: GpuBuffer, size: u64, proof: Proof) -> Result<Vec<u8>> {
        self.check(op)?;
        let (whole, size) = (size + stream::PROOF_BYTES, size as usize);
        let view = staging.buffer.slice(..whole).get_mapped_range().map_err(|e| self.refused(op, "a readback", e.to_string()))?;
        let missing = view.get(size..size + stream::PROOF_BYTES as usize).is_none_or(|left| proof.missing(left).is_some());
        let mut bytes = Vec::new();
        if !missing {
            let lacking = |_| Error::OutOfMemory { op, bytes: size as u64, device: "the host".into() };
            bytes.try_reserve_exact(size).map_err(lacking)?;
            bytes.extend_from_slice(&view[..size]);
        }
        drop(view);
        // Its errors are nobody's but a lost device's.
        let _ = scoped(&self.device, || staging.buffer.unmap());
        *staging.reusable.get_mut() = true;
        if missing {
            self.health.lose("the driver reported work as done that it did not run to its end: a dispatch may have taken too long".into());
            self.check(op)?;
        }
        Ok(bytes)
    }

    /// Inside [`Gpu::lend`] there is nothing to wait for: the caller has yet to submit it.
    fn not_lent(&self, op: &'static str) -> Result<()> {
        if !lock(&self.stream).is_lent() {
            return Ok(());
        }
        Err(Error::Argument {
            op,
            argument: "the device",
            problem: "records into an encoder of the caller's, and this call would wait for what is in it".into(),
            help: "return from `Device::record`, submit the encoder, then read",
        })
    }

    /// Lets this thread's work go into a caller's encoder until `work` is done.
    pub(crate) fn lend<T>(&self, encoder: &mut wgpu::CommandEncoder, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let op = "Device::record";
        self.not_lent(op)?;
        // What was recorded before comes before.
        self.flush(op)?;
        let lent = self.guarded(op, "an encoder", stream::OWN_BYTES, || {
            let placeholder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            lock(&self.stream).lend(&self.device, std::mem::replace(encoder, placeholder));
        });
        let result = lent.map(|()| catch_unwind(AssertUnwindSafe(work)));
        // Whatever happened, the encoder is the caller's.
        let (unlent, _) = scoped(&self.device, || lock(&self.stream).unlend());
        let sent = match unlent {
            Ok(Some((own, unsent))) => {
                *encoder = own;
                self.guarded(op, "params", 0, || unsent.send(&self.queue))
            }
            Ok(None) => Ok(()),
            Err(panic) => Err(self.rejected(op, "the end of a pass", panic)),
        };
        // What other threads recorded meanwhile may use what `work` was lent from the pool, and must come before it.
        let sent = sent.and_then(|()| self.flush(op));
        match result? {
            Ok(result) => sent.and(result),
            // The caller's own.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Wraps a caller's buffer, which must be of this device.
    pub(crate) fn wrap(&self, op: &'static str, buffer: wgpu::Buffer) -> Result<GpuBuffer> {
        let entry = wgpu::BindGroupLayoutEntry {
            binding: 0,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: false },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        self.check(op)?;
        self.forget_retired(op)?;
        // wgpu tells by its own validation whose a buffer is, and panics for some of other instances.
        let what = "a buffer of another device, or one that was destroyed";
        let (result, error) = scoped(&self.device, || {
            let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(op), entries: &[entry] });
            let size = std::num::NonZeroU64::new(buffer.size().min(self.caps.binding_bytes));
            let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &buffer, offset: 0, size });
            let entries = [wgpu::BindGroupEntry { binding: 0, resource }];
            let _ = self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(op), layout: &layout, entries: &entries });
        });
        match (result, error) {
            (Ok(()), None) => Ok(self.pool.foreign(buffer)),
            (Ok(()), Some(error)) => Err(self.refused(op, what, error.to_string())),
            (Err(panic), _) => Err(self.refused(op, what, panic)),
        }
    }

    /// A buffer as the caller may use it: whatever was recorded for it is submitted.
    pub(crate) fn share(&self, op: &'static str, buffer: &GpuBuffer) -> Result<wgpu::Buffer> {
        self.not_lent(op)?;
        self.flush(op)?;
        buffer.retire();
        Ok(buffer.buffer.clone())
    }

    /// What is underneath.
    pub(crate) fn wgpu(&self) -> (wgpu::Device, wgpu::Queue) {
        (self.device.clone(), wgpu::Queue::clone(&self.queue))
    }

    /// Whether the device is known to be gone.
    pub(crate) fn is_lost(&self) -> bool {
        lock(&self.health.lost).is_some()
    }

    /// An OpenGL context serves one thread; wgpu panics where another waits for it for 6 s. So our calls take turns there.
    fn take_turn(&self) -> Option<std::sync::MutexGuard<'_, ()>> {
        (self.caps.backend == Backend::Gl).then(|| lock(&self.turn))
    }

    fn flush(&self, op: &'static str) -> Result<()> {
        self.submission(op, |stream| stream.flush(&self.queue))
    }

    fn submission<T>(&self, op: &'static str, submit: impl FnOnce(&mut Stream) -> T) -> Result<T> {
        self.check(op)?;
        // What a failed submission held is lost, other callers' work too: no later call may take its outputs for results.
        self.caught(op, "a submission", 0, || submit(&mut lock(&self.stream))).or_else(|error| {
            self.health.lose(format!("a submission failed: {error}"));
            self.check_lost(op).and(Err(error))
        })
    }

    /// Polls until the signal is set, then wakes who waits for it; past the deadline the device counts as lost.
    fn drive(&self, op: &'static str, signal: &Signal) {
        self.poll_until(op, signal);
        signal.wake();
    }

    fn poll_until(&self, op: &'static str, signal: &Signal) {
        let clock = platform::Stopwatch::start();
        while !signal.is_set() {
            let left = self.deadline.saturating_sub(clock.elapsed());
            let wait = wgpu::PollType::Wait { submission_index: None, timeout: Some(left.min(Duration::from_millis(500))) };
            // `poll` panics on a real device loss (wgpu 30.0.1).
            let polled = {
                let _turn = self.take_turn();
                catch_unwind(AssertUnwindSafe(|| self.device.poll(wait)))
            };
            if let Err(panic) = polled {
                self.health.lose(panic_text(&*panic));
            }
            // What arrived with this poll is in time.
            if signal.is_set() {
                return;
            }
            if let Some(reason) = lock(&self.health.lost).clone() {
                let device = self.label.clone();
                signal.set(Err(Error::Lost { op, device, reason }));
            } else if clock.elapsed() > self.deadline {
                let seconds = self.deadline.as_secs();
                self.health.hung.store(true, Ordering::Relaxed);
                self.health.lose(format!("a wait passed its deadline of {seconds} s"));
                let device = self.label.clone();
                signal.set(Err(Error::TimedOut { op, device, seconds }));
            }
        }
    }
}

/// The device's own sink.
struct Recorder<'a> {
    gpu: &'a Gpu,
    own: bool,
}

impl Sink for Recorder<'_> {
    fn take(&mut self, op: &'static str, dispatch: &Dispatch, buffers: &[&wgpu::Buffer]) -> Result<()> {
        let gpu = self.gpu;
        gpu.check(op)?;
        let pipeline = gpu.pipelines.get(gpu, op, dispatch.kernel, dispatch.spec, self.own)?;
        if !self.own && !lock(&gpu.stream).is_lent() {
            return gpu.apart(op, &pipeline, dispatch, buffers);
        }
        gpu.submitting(op, dispatch.kernel.name, 0, |stream| stream.record(&gpu.device, &gpu.queue, &pipeline, dispatch, buffers))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // Work that nobody waited for is still work: `_into` results may be seen through a shared buffer.
        let stream = self.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = scoped(&self.device, || stream.flush(&self.queue));
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("wgpu panicked").to_string()
}

/// A result that a callback will bring: a future, and pollable.
#[derive(Clone, Default)]
struct Signal(Arc<Mutex<SignalState>>);

#[derive(Default)]
struct SignalState {
    result: Option<Result<()>>,
    waker: Option<std::task::Waker>,
}

impl Signal {
    /// The first result counts.
    fn set(&self, result: Result<()>) {
        lock(&self.0).result.get_or_insert(result);
    }

    /// Not under any lock: a waker may poll, and call ops, at once.
    fn wake(&self) {
        let waker = lock(&self.0).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn is_set(&self) -> bool {
        lock(&self.0).result.is_some()
    }
}

impl Future for Signal {
    type Output = Result<()>;

    fn poll(self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<()>> {
        let mut state = lock(&self.0);
        match state.result.clone() {
            Some(result) => std::task::Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                std::task::Poll::Pending
            }
        }
    }
}
