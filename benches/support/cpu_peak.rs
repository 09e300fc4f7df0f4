//! What the CPU can do at most: fused multiply-adds out of registers, against what SIMD width and clock allow, and `memcpy`.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

use super::clock::Clock;

/// Starting points of the chains, and their ends: as many as any of the loops takes.
type Chains = [f32; 24 * 16];

/// A loop of `steps` fused multiply-adds on each of its chains.
#[derive(Clone, Copy)]
struct Isa {
    name: &'static str,
    /// f32 in a register.
    lanes: usize,
    /// Registers: enough for units x latency.
    chains: usize,
    /// Units that a core has: the first at least as many as seen counts.
    units: &'static [usize],
    run: fn(steps: u64, chains: &mut Chains),
}

/// Of one core, in thousand millions a CPU-second.
#[derive(Debug, Clone)]
pub struct Peak {
    /// How it was done.
    pub isa: String,
    /// What width and clock allow; `None` where no clock can be told.
    pub allowed: Option<f64>,
    /// Multiply-adds by one thread alone, as two operations.
    pub one: f64,
    /// The same by all threads together.
    pub all: f64,
    pub threads: usize,
    /// Bytes read and written by one thread alone.
    pub copy_one: f64,
    /// The same by all threads together.
    pub copy_all: f64,
}

/// Quick: as short as it can be.
pub fn measure(quick: bool) -> Peak {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let isas = detect();
    for isa in &isas {
        check(isa);
    }
    let measured = isas.iter().map(|isa| (*isa, fma(isa, quick)));
    let (isa, (one, clock)) = measured.max_by(|a, b| a.1.0.total_cmp(&b.1.0)).expect("there is always the portable one");
    let all = together(threads, || fma(&isa, quick).0);
    let unit = 2.0 * isa.lanes as f64;
    let (units, allowed) = match clock {
        None => (0, None),
        Some(clock) => {
            // Within 20 %, or else the next.
            let units = isa.units.iter().find(|&&units| one < 1.2 * units as f64 * unit * clock).or(isa.units.last());
            let units = units.copied().unwrap_or(1);
            (units, Some(units as f64 * unit * clock))
        }
    };
    let isa = match clock {
        Some(clock) => format!("{}, {} lanes x {units} units x 2 x {clock:.2} GHz", isa.name, isa.lanes),
        None => format!("{}, {} lanes", isa.name, isa.lanes),
    };
    let copy_one = memcpy(1, quick);
    let copy_all = together(threads, || memcpy(threads, quick));
    Peak { isa, allowed, one, all, threads, copy_one, copy_all }
}

/// The sum over threads that all work at once.
fn together(threads: usize, work: impl Fn() -> f64 + Sync) -> f64 {
    let start = Barrier::new(threads);
    let one = || {
        start.wait();
        work()
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        handles.into_iter().map(|handle| handle.join().expect("the thread only computes")).sum()
    })
}

/// x = 0.5 x + 1 goes to 2; from 2 + d it is exactly 2 + d / 2^n after n steps.
fn check(isa: &Isa) {
    let mut chains = start();
    (isa.run)(10, &mut chains);
    for (i, got) in chains.into_iter().take(isa.chains * isa.lanes).enumerate() {
        let want = 2.0 + (1 + i) as f32 / 1024.0;
        assert!(got == want, "fma peak, {}: wrong answer: chain {i} is {got}, not {want}", isa.name);
    }
}

fn start() -> Chains {
    std::array::from_fn(|i| 3.0 + i as f32)
}

/// The best rate seen, and the highest clock in GHz: turns of both, so that they see the same core.
fn fma(isa: &Isa, quick: bool) -> (f64, Option<f64>) {
    let (steps, rounds) = if quick { (1 << 12, 1) } else { (1 << 20, 40) };
    let (mut best, mut clock) = (0.0f64, None);
    for _ in 0..rounds {
        let mut chains = start();
        let time = Clock::Thread.time(|| (isa.run)(black_box(steps), black_box(&mut chains)));
        assert!(chains[0] == 2.0, "fma peak, {}: ends at {}", isa.name, chains[0]);
        best = best.max((2 * isa.lanes * isa.chains) as f64 * steps as f64 / time.as_nanos().max(1) as f64);
        let ticks = ghz(steps);
        clock = ticks.map(|ticks| clock.map_or(ticks, |clock: f64| clock.max(ticks)));
    }
    (best, clock)
}

/// A chain of additions, each waiting for the one before it: a cycle each. Both operands are registers: adding a constant can be free.
fn ghz(cycles: u64) -> Option<f64> {
    const A_TRIP: u64 = 64;
    let trips = cycles / A_TRIP;
    #[cfg(target_arch = "x86_64")]
    let time = Clock::Thread.time(|| {
        // SAFETY: arithmetic on registers that the compiler gives it.
        unsafe {
            std::arch::asm!(
                "2:", ".rept 64", "add {x}, {y}", ".endr", "sub {n}, 1", "jnz 2b",
                x = inout(reg) 1u64 => _, y = in(reg) 3u64, n = inout(reg) trips => _, options(nomem, nostack),
            );
        }
    });
    #[cfg(target_arch = "aarch64")]
    let time = Clock::Thread.time(|| {
        // SAFETY: arithmetic on registers that the compiler gives it.
        unsafe {
            std::arch::asm!(
                "2:", ".rept 64", "add {x}, {x}, {y}", ".endr", "subs {n}, {n}, #1", "b.ne 2b",
                x = inout(reg) 1u64 => _, y = in(reg) 3u64, n = inout(reg) trips => _, options(nomem, nostack),
            );
        }
    });
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let time = Duration::ZERO;
    (time > Duration::ZERO).then(|| (trips * A_TRIP) as f64 / time.as_nanos() as f64)
}

/// Copies out of any cache, as one of `threads` that share 256 MiB, in thousand million bytes read and written a CPU-second.
fn memcpy(threads: usize, quick: bool) -> f64 {
    let bytes = if quick { 1 << 20 } else { (256 << 20) / threads.clamp(1, 32) };
    let source: Vec<u8> = (0..bytes).map(|i| (i * 31 + (i >> 12)) as u8).collect();
    let mut copy = vec![1u8; bytes];
    copy.copy_from_slice(black_box(&source));
    assert!(copy == source, "memcpy: wrong answer");
    let rounds = (0..if quick { 1 } else { 9 }).map(|_| Clock::Thread.time(|| black_box(&mut copy).copy_from_slice(black_box(&source))));
    let best = rounds.min().unwrap_or_default();
    2.0 * bytes as f64 / best.as_nanos().max(1) as f64
}

/// What this CPU has, narrowest first.
fn detect() -> Vec<Isa> {
    #[allow(unused_mut, reason = "other architectures add nothing")]
    let mut found = vec![Isa { name: "portable", lanes: 1, chains: 12, units: &[1, 2, 4], run: portable }];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just detected.
            let run = |steps, chains: &mut Chains| unsafe { x86::avx2(steps, chains) };
            found.push(Isa { name: "AVX2", lanes: 8, chains: 12, units: &[2], run });
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just detected.
            let run = |steps, chains: &mut Chains| unsafe { x86::avx512(steps, chains) };
            found.push(Isa { name: "AVX-512", lanes: 16, chains: 24, units: if x86::halves_512() { &[1] } else { &[1, 2] }, run });
        }
    }
    #[cfg(target_arch = "aarch64")]
    found.push(Isa { name: "NEON", lanes: 4, chains: 24, units: &[1, 2, 4], run: neon });
    found
}

/// Whatever the compiler makes of it; `mul_add` without the instruction would be a call.
fn portable(steps: u64, chains: &mut Chains) {
    let [factor, add] = black_box([0.5f32, 1.0]);
    let (mut x, _) = chains.split_first_chunk::<12>().map(|(x, rest)| (*x, rest)).expect("there are more");
    for _ in 0..steps {
        for x in &mut x {
            *x = *x * factor + add;
        }
    }
    chains[..12].copy_from_slice(&x);
}

/// The loop: chains live in registers, and the inner loops unroll.
macro_rules! fma_loop {
    ($steps:ident, $chains:ident, $count:literal, $lanes:literal, $load:ident, $store:ident, $set:ident, |$x:ident, $factor:ident, $add:ident| $fma:expr) => {{
        let [factor, add] = black_box([0.5f32, 1.0]);
        let ($factor, $add) = ($set(factor), $set(add));
        let mut x = [$set(0.0); $count];
        for (x, from) in x.iter_mut().zip($chains.chunks_exact($lanes)) {
            // SAFETY: the chunk has the register's lanes.
            *x = unsafe { $load(from.as_ptr()) };
        }
        for _ in 0..$steps {
            for x in &mut x {
                let $x = *x;
                *x = $fma;
            }
        }
        for (x, to) in x.iter().zip($chains.chunks_exact_mut($lanes)) {
            // SAFETY: the chunk has the register's lanes.
            unsafe { $store(to.as_mut_ptr(), *x) };
        }
    }};
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Chains, black_box};

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(steps: u64, chains: &mut Chains) {
        fma_loop!(steps, chains, 12, 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, |x, a, b| _mm256_fmadd_ps(x, a, b));
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512(steps: u64, chains: &mut Chains) {
        fma_loop!(steps, chains, 24, 16, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, |x, a, b| _mm512_fmadd_ps(x, a, b));
    }

    /// AMD's Zen 4 runs 512 bits on its two 256-bit units.
    pub fn halves_512() -> bool {
        let (vendor, signature) = (__cpuid(0), __cpuid(1).eax);
        let family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff);
        vendor.ebx == u32::from_le_bytes(*b"Auth") && family == 0x19
    }
}

#[cfg(target_arch = "aarch64")]
fn neon(steps: u64, chains: &mut Chains) {
    use std::arch::aarch64::*;

    #[target_feature(enable = "neon")]
    fn run(steps: u64, chains: &mut Chains) {
        fma_loop!(steps, chains, 24, 4, vld1q_f32, vst1q_f32, vdupq_n_f32, |x, a, b| vfmaq_f32(b, x, a));
    }
    // SAFETY: every 64-bit ARM that Rust's standard library runs on has NEON.
    unsafe { run(steps, chains) }
}
