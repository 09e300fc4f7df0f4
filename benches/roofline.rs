//! `cargo bench --bench roofline`: the most that each device can do, fused multiply-adds out of registers and copies out of any cache, so
//! that the other benches' figures can be read as a part of it. What runs on the CPU is measured in CPU time, of one core or of all.

mod support;

use support::{cpu_peak, places};

fn main() {
    // Cargo says `--bench` when it benches; all else is a trial.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|a| a == "--test") || !arguments.iter().any(|a| a == "--bench");
    if arguments.iter().any(|a| a == "--list") {
        return;
    }
    if quick {
        println!("a trial, too short to measure: `cargo bench --bench roofline` measures");
    }
    println!("{:<56} {:>16} {:>24} {:>10}", "device", "FMA", "copy (read + write)", "in");
    let row = |device: &str, gflops: f64, gbytes: f64, clock: &str| {
        println!("{device:<56} {gflops:>9.1} GFLOP/s {gbytes:>19.1} GB/s {clock:>10}");
    };
    for place in places() {
        if place.device.is_cpu() {
            let peak = cpu_peak::measure(quick);
            row("cpu, one thread", peak.one, peak.copy_one, "CPU time");
            row(&format!("cpu, {} threads", peak.threads), peak.all, peak.copy_all, "CPU time");
            match peak.allowed {
                None => println!("    {}: the clock can't be told here", peak.isa),
                Some(allowed) if quick => println!("    {} = {allowed:.1} GFLOP/s", peak.isa),
                Some(allowed) => {
                    let part = 100.0 * peak.one / allowed;
                    println!("    {} = {allowed:.1} GFLOP/s allowed by SIMD width and clock: one thread reaches {part:.0} %", peak.isa);
                    if !(80.0..=120.0).contains(&part) {
                        eprintln!("WARNING: the CPU's peak is not within 20 % of what its SIMD width and clock allow");
                    }
                }
            }
        }
        #[cfg(feature = "gpu")]
        if !place.device.is_cpu() {
            match support::gpu_peak::measure(&place, quick) {
                None => eprintln!("left out: {}: it can't be opened again", place.device),
                // The driver's own threads share the work; a CPU-second is one core's.
                Some(peak) if place.is_software() => {
                    row(&format!("{}, one core", place.name()), peak.gflops, peak.gbytes, "CPU time");
                }
                Some(peak) => row(&place.name(), peak.gflops, peak.gbytes, "time"),
            }
        }
    }
}
