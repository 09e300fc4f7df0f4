//! Everything that touches wgpu, and nothing that knows an op: adapters, the device, buffers, pipelines, the stream of dispatches.

mod caps;
mod kernel;
mod pipelines;
mod pool;
mod stream;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use caps::{AdapterKind, Backend, Caps};
pub use kernel::{
    Access, Arg, Binding, Constants, Dispatch, Field, Kernel, Params, Pin, Plan, Sink, Spec, Width, axes, check_binding, check_kernel,
    fold, loop_end, runs, word,
};

pub(crate) use pool::GpuBuffer;
pub use pool::Memory;

use crate::error::{Error, Result};
use crate::platform::{self, Wait};
use pipelines::Pipelines;
use pool::{Lease, Pool, Role};
use stream::Stream;

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
    fn of(adapter: &wgpu::Adapter) -> Option<Self> {
        let info = adapter.get_info();
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

/// Every adapter, best first.
async fn enumerate() -> Vec<(AdapterInfo, wgpu::Adapter)> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY | wgpu::Backends::SECONDARY;
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    let mut found: Vec<_> = adapters
        .into_iter()
        .filter(|a| {
            let flags = a.get_downlevel_capabilities().flags;
            flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
        })
        .filter_map(|a| Some((AdapterInfo::of(&a)?, a)))
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
    enumerate().await.into_iter().map(|(info, _)| info).collect()
}

/// A wgpu device and all that we keep with it.
pub(crate) struct Gpu {
    pub(crate) caps: Caps,
    pub(crate) label: String,
    device: wgpu::Device,
    queue: wgpu::Queue,
    deadline: Duration,
    health: Arc<Health>,
    pipelines: Pipelines,
    pool: Arc<Pool>,
    stream: Mutex<Stream>,
    /// See `take_turn`.
    turn: Mutex<()>,
}

/// What went wrong outside any call: read by every later call.
#[derive(Default)]
struct Health {
    lost: Mutex<Option<String>>,
    uncaptured: Mutex<Option<String>>,
}

impl Health {
    fn lose(&self, reason: String) {
        lock(&self.lost).get_or_insert(reason);
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
        let found = enumerate().await;
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

    async fn request(info: &AdapterInfo, adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Arc<Self>, wgpu::RequestDeviceError> {
        let offered = adapter.features();
        let wanted = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
        let (features, limits) =
            if options.webgpu_defaults { (wgpu::Features::empty(), wgpu::Limits::default()) } else { (offered & wanted, adapter.limits()) };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("gristmill"),
            required_features: features,
            required_limits: limits.clone(),
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await?;
        let adapter_info = adapter.get_info();
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
            subgroups: features
                .contains(wgpu::Features::SUBGROUP)
                .then_some((adapter_info.subgroup_min_size, adapter_info.subgroup_max_size)),
        };
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
        let seconds = if info.kind == AdapterKind::Software { 600 } else { 60 };
        let stream = Stream::new(&device, &limits);
        let pool = Pool::new(options.memory_budget, caps.buffer_bytes / 16 * 16);
        Ok(Arc::new(Gpu {
            label: format!("{}:{}", info.backend, info.name),
            caps,
            deadline: options.deadline.unwrap_or(Duration::from_secs(seconds)),
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
        if let Some(reason) = lock(&self.health.lost).clone() {
            return Err(Error::Lost { op, device: self.label.clone(), reason });
        }
        match lock(&self.health.uncaptured).take() {
            None => Ok(()),
            Some(message) => Err(self.rejected(op, "an earlier command", message)),
        }
    }

    fn rejected(&self, op: &'static str, kernel: impl Into<String>, message: String) -> Error {
        Error::Rejected { op, device: self.label.clone(), kernel: kernel.into(), message }
    }

    /// Runs wgpu calls and turns whatever they raise (an error in a scope, a panic) into our error. `bytes` is what they allocate.
    fn guarded<T>(&self, op: &'static str, what: &str, bytes: u64, calls: impl FnOnce() -> T) -> Result<T> {
        self.check(op)?;
        let _turn = self.take_turn();
        let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal];
        let filters = if platform::SCOPES_ANSWER { &filters[..] } else { &[] };
        let scopes: Vec<_> = filters.iter().map(|&filter| self.device.push_error_scope(filter)).collect();
        let result = catch_unwind(AssertUnwindSafe(calls));
        let mut error = None;
        for scope in scopes.into_iter().rev() {
            error = platform::ready(scope.pop()).flatten().or(error);
        }
        match (result, error) {
            (_, Some(wgpu::Error::OutOfMemory { .. })) => Err(Error::OutOfMemory { op, bytes, device: self.label.clone() }),
            (_, Some(error)) => Err(self.rejected(op, what, error.to_string())),
            (Ok(value), None) => Ok(value),
            (Err(panic), None) => {
                self.health.lose(panic_text(&*panic));
                Err(self.check(op).err().unwrap_or_else(|| self.rejected(op, what, "panicked".into())))
            }
        }
    }

    /// A buffer for `bytes` bytes, recycled or new.
    pub(crate) fn buffer(&self, op: &'static str, bytes: u64, fill: Fill) -> Result<GpuBuffer> {
        // What is uploaded stays for long, most often; what ops make comes and goes.
        let new = self.allocate(op, Role::Storage, bytes, matches!(fill, Fill::Data(_)))?;
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
                written.map_err(|error| self.rejected(op, "an upload", error.to_string()))?;
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

    /// Submits what is recorded and lets go of every buffer that nobody uses.
    pub(crate) fn trim(&self, op: &'static str) -> Result<()> {
        self.flush(op)?;
        lock(&self.stream).forget_all();
        let freed = self.pool.drain();
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
        let recorded = self.guarded(op, what, bytes, || {
            let mut stream = lock(&self.stream);
            let before = stream.submissions();
            record(&mut stream);
            flushed = stream.submissions() != before;
        });
        recorded.inspect_err(|error| {
            // No bind group that an error left may be used again.
            lock(&self.stream).forget_all();
            // What a failed submission held is lost, other callers' work too.
            if flushed {
                self.health.lose(format!("a submission may have failed: {error}"));
            }
        })
    }

    /// Records all of a plan; `tensors` are the buffers of the call, `out` first.
    pub(crate) fn run(&self, op: &'static str, plan: &Plan, tensors: &[&GpuBuffer]) -> Result<()> {
        let scratch = plan.scratch.iter().map(|&bytes| self.buffer(op, bytes, Fill::Unwritten)).collect::<Result<Vec<_>>>()?;
        let mut sink = self;
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
        self.flush(op)?;
        let done = Signal::default();
        let notify = done.clone();
        self.guarded(op, "a wait", 0, || self.queue.on_submitted_work_done(move || notify.set(Ok(()))))?;
        self.settle(op, done, wait).await?;
        self.check(op)
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
        let (staging, mapped) = self.start_read(op, from, start, len)?;
        self.settle(op, mapped, wait).await?;
        self.finish_read(op, staging, start, len)
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

    fn start_read(&self, op: &'static str, from: &GpuBuffer, start: u64, len: u64) -> Result<(GpuBuffer, Signal)> {
        // Copies go by whole words.
        let first = start / 4 * 4;
        let size = (start + len - first).next_multiple_of(4);
        let mut staging = self.allocate(op, Role::Readback, size, false)?;
        // Not before it is unmapped.
        staging.reusable = false;
        self.guarded(op, "a readback", size, || {
            let mut stream = lock(&self.stream);
            stream.encoder(&self.device).copy_buffer_to_buffer(&from.buffer, first, &staging.buffer, 0, size);
        })?;
        self.flush(op)?;
        let mapped = Signal::default();
        let notify = mapped.clone();
        let (label, health) = (self.label.clone(), self.health.clone());
        self.guarded(op, "a readback", size, || {
            staging.buffer.slice(..size).map_async(wgpu::MapMode::Read, move |result| {
                notify.set(result.map_err(|error| match lock(&health.lost).clone() {
                    Some(reason) => Error::Lost { op, device: label.clone(), reason },
                    None => Error::Rejected { op, device: label, kernel: "a readback".into(), message: error.to_string() },
                }));
            });
        })?;
        Ok((staging, mapped))
    }

    fn finish_read(&self, op: &'static str, mut staging: GpuBuffer, start: u64, len: u64) -> Result<Vec<u8>> {
        self.check(op)?;
        let skip = (start % 4) as usize;
        let size = (skip as u64 + len).next_multiple_of(4);
        let view = staging.buffer.slice(..size).get_mapped_range().map_err(|e| self.rejected(op, "a readback", e.to_string()))?;
        let bytes = view[skip..skip + len as usize].to_vec();
        drop(view);
        staging.buffer.unmap();
        staging.reusable = true;
        Ok(bytes)
    }

    /// An OpenGL context serves one thread; wgpu panics where another waits for it for 6 s. So our calls take turns there.
    fn take_turn(&self) -> Option<std::sync::MutexGuard<'_, ()>> {
        (self.caps.backend == Backend::Gl).then(|| lock(&self.turn))
    }

    fn flush(&self, op: &'static str) -> Result<()> {
        // What a failed submission held is lost, other callers' work too: no later call may take its outputs for results.
        self.guarded(op, "a submission", 0, || lock(&self.stream).flush(&self.queue))
            .inspect_err(|error| self.health.lose(format!("a submission failed: {error}")))
    }

    /// Polls until the signal is set; past the deadline the device counts as lost.
    fn drive(&self, op: &'static str, signal: &Signal) {
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
                self.health.lose(format!("a wait passed its deadline of {seconds} s"));
                let device = self.label.clone();
                signal.set(Err(Error::TimedOut { op, device, seconds }));
            }
        }
    }
}

impl Sink for &Gpu {
    fn take(&mut self, op: &'static str, dispatch: &Dispatch, buffers: &[&wgpu::Buffer]) -> Result<()> {
        self.check(op)?;
        let pipeline = self.pipelines.get(self, op, dispatch.kernel, dispatch.spec)?;
        self.submitting(op, dispatch.kernel.name, 0, |stream| stream.record(&self.device, &self.queue, &pipeline, dispatch, buffers))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // Work that nobody waited for is still work: `_into` results may be seen through a shared buffer.
        let stream = self.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = catch_unwind(AssertUnwindSafe(|| stream.flush(&self.queue)));
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
        let waker = {
            let mut state = lock(&self.0);
            state.result.get_or_insert(result);
            state.waker.take()
        };
        // Outside the lock: a waker may poll at once.
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
