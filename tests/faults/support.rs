//! The layer from the tests' side, a device to break, and what must hold of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gristmill::gpu::{AdapterInfo, Backend, GpuOptions, wgpu};
use gristmill::{Device, Tensor, ops};

const LAYER: &str = "VK_LAYER_GRISTMILL_faults";

pub use crate::calls::{Call, How};

/// The library, which cargo leaves beside the tests' own folder.
fn library() -> PathBuf {
    // Not `current_exe`: that is the loader where the driver brings its own.
    let binary = PathBuf::from(std::env::args_os().next().expect("a program has a name"));
    let profile = binary.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let library = profile.join("examples/libfault_layer.so");
    assert!(library.exists(), "{} is missing: cargo build --example fault_layer", library.display());
    library.canonicalize().expect("it exists")
}

/// Tells the Vulkan loader of the layer.
pub fn enable_layer() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("faults");
    let manifest = serde_json::json!({
        "file_format_version": "1.2.0",
        "layer": {
            "name": LAYER,
            "type": "GLOBAL",
            "library_path": library(),
            "api_version": "1.4.0",
            "implementation_version": "1",
            "description": "Makes a driver fail on demand",
        },
    });
    std::fs::create_dir_all(&folder).expect("target/tmp can be written");
    std::fs::write(folder.join("layer.json"), manifest.to_string()).expect("target/tmp can be written");
    // SAFETY: `main` calls this first, and there is no other thread yet.
    unsafe {
        std::env::set_var("VK_LAYER_PATH", &folder);
        std::env::set_var("VK_INSTANCE_LAYERS", LAYER);
    }
}

/// The layer's functions.
struct Layer {
    arm: extern "C" fn(u32, u32, u32),
    fired: extern "C" fn() -> u32,
    _library: libloading::Library,
}

fn layer() -> &'static Layer {
    static LAYER: OnceLock<Layer> = OnceLock::new();
    LAYER.get_or_init(|| {
        // SAFETY: it has no initialisers, and these are its functions' types (`layer.rs`).
        unsafe {
            let library = libloading::Library::new(library()).expect("a library");
            let arm = *library.get(b"gristmill_arm").expect("its function");
            let fired = *library.get(b"gristmill_fired").expect("its function");
            Layer { arm, fired, _library: library }
        }
    })
}

/// Panics inside wgpu are what the crate is to contain, and there are hundreds: only others are told of.
pub fn quiet_wgpu() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|place| place.file().contains("wgpu")) {
            tell(info);
        }
    }));
}

/// The `nth` call of a kind from now on (from 0) is to fail.
pub fn arm(call: Call, nth: u32, how: How) {
    (layer().arm)(call as u32, nth, how as u32);
}

/// No call is to fail.
pub fn disarm() {
    (layer().arm)(u32::MAX, 0, 0);
}

static DESTROYED: AtomicU32 = AtomicU32::new(0);

/// Faults so far: the layer's, and devices that were destroyed under way.
pub fn fired() -> u32 {
    (layer().fired)() + DESTROYED.load(Ordering::SeqCst)
}

/// Destroys the wgpu device under a device.
pub fn destroy(device: &Device) {
    DESTROYED.fetch_add(1, Ordering::SeqCst);
    device.wgpu().expect("a GPU").0.destroy();
}

/// The Vulkan adapter to break. None if there is none, and none was promised.
pub fn adapter() -> Option<&'static AdapterInfo> {
    static ADAPTER: OnceLock<Option<AdapterInfo>> = OnceLock::new();
    let adapter = ADAPTER.get_or_init(|| Device::adapters().into_iter().find(|adapter| adapter.backend == Backend::Vulkan));
    let promised = std::env::var("GRISTMILL_REQUIRE_GPU").is_ok_and(|list| list.contains('1') || list.to_lowercase().contains("vulkan"));
    assert!(adapter.is_some() || !promised, "no Vulkan adapter on this machine; `bash tests/run.sh` brings one");
    adapter.as_ref()
}

pub fn has_adapter() -> bool {
    adapter().is_some()
}

pub fn options(deadline: Option<Duration>) -> GpuOptions {
    GpuOptions { adapter: adapter().cloned(), backend: Some(Backend::Vulkan), software: true, deadline, ..GpuOptions::default() }
}

pub fn open(deadline: Option<Duration>) -> Result<Device, String> {
    Device::gpu(&options(deadline)).map_err(|error| format!("a new device: {error}"))
}

/// What a caller's own handlers have seen.
#[derive(Default)]
pub struct Seen {
    pub errors: AtomicU32,
    pub losses: AtomicU32,
}

/// A device that the caller made, with handlers of the caller's.
pub fn adopted() -> Result<(Device, Arc<Seen>), String> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN;
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let adapter = adapters.first().ok_or("no adapter")?;
    let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
    let (raw, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| error.to_string())?;
    let seen = Arc::new(Seen::default());
    let (for_errors, for_losses) = (seen.clone(), seen.clone());
    raw.on_uncaptured_error(Arc::new(move |error| {
        eprintln!("uncaptured: {error}");
        for_errors.errors.fetch_add(1, Ordering::SeqCst);
    }));
    raw.set_device_lost_callback(move |_, _| {
        for_losses.losses.fetch_add(1, Ordering::SeqCst);
    });
    Device::from_wgpu(raw, queue, &GpuOptions::default()).map(|device| (device, seen)).map_err(|error| error.to_string())
}

/// An op with right results: after a fault, on a new device. The programs go on from there.
pub fn healthy(device: &Device) -> Result<(), String> {
    let run = || {
        let x = Tensor::arange::<f32>(device, 0.0, 1.0, 5)?;
        ops::add(&x, &x)?.to_vec::<f32>()
    };
    match run() {
        Ok(values) if values == [0.0, 2.0, 4.0, 6.0, 8.0] => Ok(()),
        other => Err(format!("a new device gives {other:?}")),
    }
}

/// Runs a job that may neither hang nor panic.
pub fn bounded<T: Send + 'static>(what: &str, limit: Duration, job: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || sender.send(job()));
    match receiver.recv_timeout(limit) {
        Ok(value) => Ok(value),
        Err(RecvTimeoutError::Timeout) => Err(format!("{what} hangs: not done after {limit:?}")),
        Err(RecvTimeoutError::Disconnected) => {
            let panic = thread.join().err();
            let text = panic.as_ref().and_then(|p| p.downcast_ref::<String>().cloned().or(p.downcast_ref::<&str>().map(|s| s.to_string())));
            Err(format!("{what} panicked: {}", text.unwrap_or_default()))
        }
    }
}
