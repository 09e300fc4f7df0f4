//! The devices under test, and what the environment asks of them.

use std::sync::{Arc, Mutex, OnceLock};

use gristmill::Device;

/// How much is run: `GRISTMILL_TEST_MATRIX=smoke|quick|full`, `quick` by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A few sizes an op, one tune: for drivers that compile for seconds.
    Smoke,
    /// Every kernel and spec, sizes round every tile.
    Quick,
    /// More of both.
    Full,
}

pub fn level() -> Level {
    match std::env::var("GRISTMILL_TEST_MATRIX").as_deref() {
        Ok("smoke") => Level::Smoke,
        Ok("full") => Level::Full,
        Ok("quick" | "") | Err(_) => Level::Quick,
        Ok(other) => panic!("GRISTMILL_TEST_MATRIX={other}: give smoke, quick or full"),
    }
}

/// `GRISTMILL_TEST_ONLY`: how the only subject's name begins.
pub fn only() -> Option<String> {
    std::env::var("GRISTMILL_TEST_ONLY").ok()
}

/// `GRISTMILL_TEST_BACKENDS`: on these alone, such as `cpu,vulkan`.
pub fn backends() -> Option<String> {
    let list = std::env::var("GRISTMILL_TEST_BACKENDS").ok().filter(|list| !list.is_empty())?;
    let known = ["cpu", "vulkan", "metal", "dx12", "gl", "webgpu"];
    assert!(list.split(',').all(|name| known.contains(&name)), "GRISTMILL_TEST_BACKENDS={list}: give some of {known:?}");
    Some(list)
}

/// `GRISTMILL_TEST_CALLS`: cases of these functions alone, such as `argmax,argmin`.
pub fn calls() -> Option<String> {
    std::env::var("GRISTMILL_TEST_CALLS").ok()
}

/// `GRISTMILL_TEST_KERNEL`: where its op has a choice, this alone is run.
#[cfg(feature = "gpu")]
pub fn kernel() -> Option<String> {
    std::env::var("GRISTMILL_TEST_KERNEL").ok()
}

/// `GRISTMILL_TEST_SUBGROUPS`: the lanes of a subgroup that the device must show.
#[cfg(feature = "gpu")]
pub fn subgroups() -> Option<u32> {
    std::env::var("GRISTMILL_TEST_SUBGROUPS").ok().map(|lanes| lanes.parse().expect("GRISTMILL_TEST_SUBGROUPS: a number"))
}

/// `GRISTMILL_TEST_FAIL_FAST`.
pub fn fail_fast() -> bool {
    std::env::var("GRISTMILL_TEST_FAIL_FAST").is_ok_and(|value| value == "1")
}

/// One device, or why it is not there.
pub struct Subject {
    /// Part of the trials' names.
    pub name: String,
    pub device: Result<Device, String>,
    /// OpenGL drivers compile for seconds: never more than the smoke subset there.
    pub level: Level,
    /// The backend's: held by the trial that runs on it, so that what one adapter has compiled is in the driver's cache for the next.
    pub turn: Arc<Mutex<()>>,
}

impl Subject {
    fn new(name: String, device: Result<Device, String>, level: Level) -> Self {
        Subject { name, device, level, turn: Arc::default() }
    }

    fn backend(&self) -> &str {
        self.name.split(':').next().unwrap_or_default()
    }
}

/// Every device under test: the CPU, each adapter with all that it offers, the first Vulkan adapter once more at WebGPU's defaults.
pub fn subjects() -> &'static [Subject] {
    static SUBJECTS: OnceLock<Vec<Subject>> = OnceLock::new();
    SUBJECTS.get_or_init(|| {
        let cpu = Subject::new("cpu".into(), Ok(Device::cpu()), level());
        let mut all: Vec<Subject> = std::iter::once(cpu).chain(gpus()).filter(|subject| is_wanted(&subject.name)).collect();
        #[cfg(feature = "gpu")]
        if let Some(name) = kernel() {
            let kernel = *gristmill::ops::kernels().iter().find(|k| k.name == name).expect("GRISTMILL_TEST_KERNEL: a kernel of that name");
            all.iter_mut().for_each(|subject| subject.device = subject.device.clone().map(|device| device.pinned(kernel)));
        }
        if only().is_some() {
            all.truncate(1);
        }
        if fail_fast() {
            let smoke = |subject: &Subject| Subject::new(format!("{}@smoke", subject.name), subject.device.clone(), Level::Smoke);
            all.splice(0..0, all.iter().map(smoke).collect::<Vec<_>>());
        }
        for i in 1..all.len() {
            if let Some(first) = all[..i].iter().find(|other| other.backend() == all[i].backend()) {
                all[i].turn = first.turn.clone();
            }
        }
        all
    })
}

fn is_wanted(name: &str) -> bool {
    let backend = name.split([':', '@']).next().unwrap_or_default();
    only().is_none_or(|only| name.starts_with(&only)) && backends().is_none_or(|list| list.split(',').any(|wanted| wanted == backend))
}

/// The backends that must be there: `GRISTMILL_REQUIRE_GPU=1` (Vulkan), or a list such as `vulkan,gl`.
#[cfg(feature = "gpu")]
fn required() -> Vec<String> {
    match std::env::var("GRISTMILL_REQUIRE_GPU").as_deref() {
        Err(_) | Ok("" | "0") => Vec::new(),
        Ok("1") => vec!["vulkan".into()],
        Ok(list) => list.split(',').map(|name| name.trim().to_lowercase()).collect(),
    }
}

#[cfg(not(feature = "gpu"))]
fn gpus() -> Vec<Subject> {
    Vec::new()
}

#[cfg(feature = "gpu")]
fn gpus() -> Vec<Subject> {
    use gristmill::gpu::{Backend, Checks, GpuOptions};

    let mut found: Vec<Subject> = Vec::new();
    let mut present = Vec::new();
    let mut open = |name: String, level: Level, options: GpuOptions| {
        // Opening takes long, also what nobody will test.
        if is_wanted(&name) && (only().is_none() || found.is_empty()) {
            let device = Device::gpu(&options).map_err(|error| error.to_string());
            found.push(Subject::new(name, device, level));
        }
    };
    for adapter in Device::adapters() {
        let options = GpuOptions { adapter: Some(adapter.clone()), software: true, ..GpuOptions::default() };
        let first = !present.contains(&adapter.backend);
        present.push(adapter.backend);
        let name = format!("{}:{}", adapter.backend, adapter.name);
        if adapter.backend == Backend::Gl {
            open(name, Level::Smoke, options);
            continue;
        }
        open(name.clone(), level(), options.clone());
        if first {
            // The checks of this one are off, as they are in release builds.
            let options = GpuOptions { webgpu_defaults: true, checks: Checks::Off, ..options };
            open(format!("{name}@webgpu-defaults"), level(), options);
        }
    }
    for backend in Backend::ALL {
        let promised = required().iter().any(|name| name == backend.name());
        let usual = matches!(backend, Backend::Vulkan | Backend::Gl);
        if !present.contains(&backend) && (promised || usual && !cfg!(any(windows, target_vendor = "apple"))) {
            let device = Err(format!("no {backend} adapter on this machine; `bash tests/run.sh` brings software drivers"));
            found.push(Subject::new(backend.to_string(), device, Level::Smoke));
        }
    }
    found
}

/// Whether this subject's absence is a failure rather than a skip.
#[cfg(feature = "gpu")]
pub fn is_required(subject: &Subject) -> bool {
    required().iter().any(|backend| subject.name.starts_with(backend.as_str()))
}

#[cfg(not(feature = "gpu"))]
pub fn is_required(_subject: &Subject) -> bool {
    false
}
