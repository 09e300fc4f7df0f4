//! What the benches share: the devices, the rows and their ids, the clock, the check of the answer.
//!
//! An id is `op/kernel/dtype/shape/device`, and `cargo bench -- REGEX` runs those that match. `GRISTMILL_DEVICE` leaves one device.
#![allow(dead_code, reason = "each bench uses its part")]

pub mod clock;
pub mod cpu_peak;
#[cfg(feature = "gpu")]
pub mod gpu_peak;
#[cfg(feature = "gpu")]
pub mod yardstick;

use std::collections::HashSet;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use gristmill::{DEVICE_VAR, DType, Device, Result, Tensor};

use clock::Clock;

/// 2^-23: WGSL does not fix the rounding's direction.
pub const U: f64 = 1.0 / (1 << 23) as f64;
/// Below it f32 may flush to zero.
pub const TINY: f64 = f32::MIN_POSITIVE as f64;

/// A device to bench, and how to time it.
pub struct Place {
    pub device: Device,
    pub clock: Clock,
}

impl Place {
    fn new(device: Device) -> Self {
        #[cfg(feature = "gpu")]
        let clock = match device.caps() {
            Some(caps) if caps.kind != gristmill::gpu::AdapterKind::Software => Clock::Wall,
            _ => Clock::Process,
        };
        #[cfg(not(feature = "gpu"))]
        let clock = Clock::Process;
        Place { device, clock }
    }

    /// Whether this is a driver that runs on the CPU: small shapes, please.
    pub fn is_software(&self) -> bool {
        !self.device.is_cpu() && self.clock == Clock::Process
    }

    /// The last part of an id: no slashes, no blanks, nothing special in a regex but dots.
    pub fn name(&self) -> String {
        let kept = |c: char| c.is_ascii_alphanumeric() || ":._".contains(c);
        let words = self.device.label().split(|c| !kept(c)).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("-")
    }
}

/// The CPU and every adapter, or only what the environment names.
pub fn places() -> Vec<Place> {
    if std::env::var(DEVICE_VAR).is_ok_and(|value| !value.is_empty()) {
        return vec![Place::new(Device::best().unwrap_or_else(|error| panic!("{error}")))];
    }
    #[cfg_attr(not(feature = "gpu"), expect(unused_mut))]
    let mut all = vec![Place::new(Device::cpu())];
    #[cfg(feature = "gpu")]
    for info in Device::adapters() {
        let options = gristmill::gpu::GpuOptions { adapter: Some(info.clone()), software: true, ..Default::default() };
        match Device::gpu(&options) {
            // A twin would have the same ids.
            Ok(device) if all.iter().any(|place| place.device.label() == device.label()) => {}
            Ok(device) => all.push(Place::new(device)),
            Err(error) => eprintln!("left out: {info}: {error}"),
        }
    }
    all
}

/// A way to compute an op on a place: the kernel's part of the id, and the handle that pins it.
pub struct Variant {
    pub name: String,
    pub device: Device,
    #[cfg(feature = "gpu")]
    pub tune: Option<&'static gristmill::gpu::Constants>,
}

/// `cpu` on the CPU, else every tune of the kernel of that name.
pub fn variants(place: &Place, kernel: &str) -> Vec<Variant> {
    if place.device.is_cpu() {
        return vec![Variant {
            name: "cpu".into(),
            device: place.device.clone(),
            #[cfg(feature = "gpu")]
            tune: None,
        }];
    }
    #[cfg(feature = "gpu")]
    if let Some(kernel) = gristmill::ops::kernels().iter().find(|k| k.name == kernel) {
        let variant = |tune: &'static gristmill::gpu::Constants| Variant {
            name: format!("{}.{}", kernel.name, tune.name),
            device: place.device.pinned((*kernel, tune)),
            tune: Some(tune),
        };
        // A pin to what cannot run would measure something else under its name.
        let able = |tune: &&'static gristmill::gpu::Constants| {
            let caps = place.device.caps().expect("a GPU");
            match kernel.needs {
                gristmill::gpu::Needs::Matrices => gristmill::ops::matmul::gpu::cooperates(caps, tune).is_ok(),
                _ if kernel.name.starts_with("attention") => gristmill::ops::attention::gpu::fits(caps, kernel, tune).is_ok(),
                _ => true,
            }
        };
        return kernel.tunes.iter().filter(able).map(variant).collect();
    }
    panic!("no kernel is called {kernel}");
}

/// What one iteration does, which decides the unit.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    Flops(usize),
    Bytes(usize),
}

/// A row with all that it needs in place.
pub struct Ready {
    /// One iteration; on a GPU it may only record.
    pub call: Box<dyn FnMut()>,
    /// Waits until the iterations so far are done.
    pub sync: Box<dyn Fn()>,
    /// Panics unless the answer is right.
    pub check: Box<dyn FnOnce()>,
}

impl Ready {
    /// An op into `out`, and a check of what is in there then.
    pub fn new(out: &Tensor, mut call: impl FnMut(&mut Tensor) -> Result<()> + 'static, check: impl FnOnce(&Tensor) + 'static) -> Self {
        let (mut to, from, device) = (out.clone(), out.clone(), out.device().clone());
        Ready {
            call: Box::new(move || call(&mut to).unwrap_or_else(|error| panic!("{error}"))),
            sync: Box::new(move || device.sync().unwrap_or_else(|error| panic!("{error}"))),
            check: Box::new(move || check(&from)),
        }
    }
}

/// One op on one place.
pub struct Group<'a> {
    group: BenchmarkGroup<'a, Clock>,
    clock: Clock,
    place: String,
    /// Kernels that had a row.
    compiled: HashSet<String>,
}

impl Group<'_> {
    /// One row. What `prepare` makes is made only if the row is not filtered out, and its answer is checked before the clock starts. The first
    /// row of a kernel says on stderr how long it compiled: nothing, where the driver has it in its cache.
    pub fn row(&mut self, kernel: &str, dtype: &str, shape: &str, work: Work, prepare: impl FnOnce() -> Ready) {
        let id = BenchmarkId::new(format!("{kernel}/{dtype}"), format!("{shape}/{}", self.place));
        self.group.throughput(match work {
            Work::Flops(n) => Throughput::Elements(n as u64),
            Work::Bytes(n) => Throughput::Bytes(n as u64),
        });
        let clock = self.clock;
        let compiled = &mut self.compiled;
        let (mut prepare, mut ready) = (Some(prepare), None);
        self.group.bench_function(id, |bencher| {
            let (call, sync) = ready.get_or_insert_with(|| {
                let Ready { mut call, sync, check } = prepare.take().expect("a row is prepared once")();
                let first = clock.time(|| (call(), sync()));
                check();
                // The yardsticks were compiled before.
                let compiles = kernel != "cpu" && !kernel.starts_with("yardstick") && compiled.insert(format!("{kernel}/{dtype}"));
                if compiles {
                    let mut again = || clock.time(|| (call(), sync())).as_secs_f64();
                    let second = again().min(again());
                    let unit = if clock == Clock::Wall { "s" } else { "CPU-s" };
                    eprintln!("    {kernel}: compiled in {:.2} {unit}", (first.as_secs_f64() - second).max(0.0));
                }
                (call, sync)
            });
            bencher.iter_custom(|iterations| {
                clock.time(|| {
                    for _ in 0..iterations {
                        call();
                    }
                    sync();
                })
            });
        });
    }
}

/// Runs the rows of one op on every place.
pub fn bench(op: &str, rows: impl Fn(&Place, &mut Group)) {
    for place in places() {
        let mut criterion = Criterion::default()
            .with_measurement(place.clock)
            .without_plots()
            .sample_size(10)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_millis(1000))
            .configure_from_args();
        let mut group = Group { group: criterion.benchmark_group(op), clock: place.clock, place: place.name(), compiled: HashSet::new() };
        rows(&place, &mut group);
        group.group.finish();
    }
}

/// After the last op.
pub fn finish() {
    Criterion::<WallTime>::default().configure_from_args().final_summary();
}

/// f32 normals on a device, and what they are on the host.
pub fn normals(device: &Device, shape: &[usize], seed: u64) -> (Tensor, Vec<f32>) {
    let host = Tensor::rand_normal(&Device::cpu(), shape, 0.0, 1.0, seed).and_then(|x| x.to_vec());
    let host = host.unwrap_or_else(|error| panic!("{error}"));
    (upload(device, &host, shape), host)
}

/// The same in another float type, and what they are on the host once they are rounded to it.
pub fn normals_in(device: &Device, dtype: DType, shape: &[usize], seed: u64) -> (Tensor, Vec<f32>) {
    let x = cast(&normals(&Device::cpu(), shape, seed).0, dtype);
    let host = numbers(&x);
    (x.to_device(device).unwrap_or_else(|error| panic!("{error}")), host)
}

fn cast(x: &Tensor, dtype: DType) -> Tensor {
    gristmill::ops::cast(x, dtype).unwrap_or_else(|error| panic!("{error}"))
}

/// All elements of any float type on the host, as f32.
pub fn numbers(x: &Tensor) -> Vec<f32> {
    download(&cast(x, DType::F32))
}

/// What storing a result adds to its bound: a unit in the last place of 16 bits.
pub fn storing(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F16 => value.abs() * 2f64.powi(-10) + 2f64.powi(-14),
        DType::BF16 => value.abs() * 2f64.powi(-7) + TINY,
        _ => TINY,
    }
}

/// A tensor of host data.
pub fn upload<T: gristmill::Element>(device: &Device, data: &[T], shape: &[usize]) -> Tensor {
    Tensor::from_slice(device, data, shape).unwrap_or_else(|error| panic!("{error}"))
}

/// Zeros.
pub fn zeros(device: &Device, dtype: DType, shape: &[usize]) -> Tensor {
    Tensor::zeros(device, dtype, shape).unwrap_or_else(|error| panic!("{error}"))
}

/// All elements on the host.
pub fn download<T: gristmill::Element>(tensor: &Tensor) -> Vec<T> {
    tensor.to_vec().unwrap_or_else(|error| panic!("{error}"))
}

/// Which of `len` elements to check: all if there are few, else some, spread without a period.
pub fn sample(len: usize) -> Vec<usize> {
    const MOST: usize = 1 << 14;
    if len <= MOST {
        return (0..len).collect();
    }
    let spread = (0..1024u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as usize % len);
    [0, len - 1].into_iter().chain(spread).collect()
}

/// Panics unless each element of the sample is within its bound of the exact value; `exact` gives both. NaN is never within.
pub fn check(what: &str, got: &[f32], mut exact: impl FnMut(usize) -> (f64, f64)) {
    for index in sample(got.len()) {
        let (want, bound) = exact(index);
        let error = (f64::from(got[index]) - want).abs();
        let within = error <= bound;
        assert!(within, "{what}: wrong answer: element {index} is {}, exact {want}, off by {error:e}, allowed {bound:e}", got[index]);
    }
}

/// The bound that `ops::matmul` states.
pub fn check_product(dtype: DType, got: &[f32], lhs: &[f32], rhs: &[f32], [m, k, n]: [usize; 3]) {
    assert_eq!(got.len(), m * n);
    let factor = if k <= 64 { 16.0 } else { 4.0 * (k as f64).sqrt() };
    check("matmul", got, |index| {
        let (row, col) = (index / n, index % n);
        let products = (0..k).map(|i| f64::from(lhs[row * k + i]) * f64::from(rhs[i * n + col]));
        let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
        (sum, factor * U * size + storing(dtype, sum))
    });
}
