//! [`Clock`]: CPU time for what runs on the CPU, wall time for what does not, as a criterion measurement.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};

/// What counts as time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// CPU time of the process, all threads together: what else the machine does hardly shows, and more threads count as more time.
    Process,
    /// CPU time of the calling thread.
    Thread,
    /// Real time: for hardware GPUs.
    Wall,
}

impl Clock {
    /// Time since a fixed moment. Where the system has no CPU time to give, it is real time.
    pub fn now(self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        match self {
            #[cfg(unix)]
            Clock::Process => cpu_time(libc::CLOCK_PROCESS_CPUTIME_ID),
            #[cfg(unix)]
            Clock::Thread => cpu_time(libc::CLOCK_THREAD_CPUTIME_ID),
            _ => START.elapsed(),
        }
    }

    /// Time that a call takes.
    pub fn time<T>(self, call: impl FnOnce() -> T) -> Duration {
        let start = self.now();
        call();
        self.now() - start
    }

    fn is_cpu(self) -> bool {
        cfg!(unix) && self != Clock::Wall
    }

    /// The unit of GFLOP or GB in this clock's seconds.
    pub fn rate_units(self) -> [&'static str; 2] {
        if self.is_cpu() { ["GFLOP/CPU-s", "GB/CPU-s"] } else { ["GFLOP/s", "GB/s"] }
    }
}

#[cfg(unix)]
fn cpu_time(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which is all that the call writes.
    let failed = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(failed, 0, "the system has no such clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Measurement for Clock {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        self.now()
    }

    fn end(&self, start: Duration) -> Duration {
        self.now() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

/// Elements are floating point operations here: criterion has no word for them.
impl ValueFormatter for Clock {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        let (unit, cpu, wall) = match typical {
            ns if ns < 1e3 => (1.0, "CPU-ns", "ns"),
            ns if ns < 1e6 => (1e3, "CPU-µs", "µs"),
            ns if ns < 1e9 => (1e6, "CPU-ms", "ms"),
            _ => (1e9, "CPU-s", "s"),
        };
        values.iter_mut().for_each(|value| *value /= unit);
        if self.is_cpu() { cpu } else { wall }
    }

    fn scale_throughputs(&self, _typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        let [flops, bytes] = self.rate_units();
        let (amount, unit) = match *throughput {
            Throughput::Elements(n) | Throughput::ElementsAndBytes { elements: n, .. } => (n as f64, flops),
            Throughput::Bytes(n) | Throughput::BytesDecimal(n) => (n as f64, bytes),
            Throughput::Bits(n) => (n as f64 / 8.0, bytes),
        };
        // Values are in nanoseconds, so this is in thousand millions a second.
        values.iter_mut().for_each(|value| *value = amount / *value);
        unit
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "ns"
    }
}
