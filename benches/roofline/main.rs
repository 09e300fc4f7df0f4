//! `cargo bench --bench roofline`: the most that each device can do, fused multiply-adds out of registers and copies out of any cache, so
//! that the other benches' figures can be read as a part of it. What runs on the CPU is measured in CPU time, of one core or of all.
//!
//! `-- --svg PATH` measures every kernel too, and draws them under what their device can do.

mod kernels;
mod plot;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;

use lexopt::prelude::*;
use plot::Panel;
use support::clock::Clock;
use support::{Place, cpu_peak, places};

/// Whatever else the other benches take is theirs.
#[derive(Default)]
struct Options {
    bench: bool,
    test: bool,
    list: bool,
    svg: Option<PathBuf>,
}

impl Options {
    fn parse(mut args: lexopt::Parser) -> Result<Options, lexopt::Error> {
        let mut options = Options::default();
        while let Some(arg) = args.next()? {
            match arg {
                Long("bench") => options.bench = true,
                Long("test") => options.test = true,
                Long("list") => options.list = true,
                Long("svg") => options.svg = Some(args.value()?.into()),
                _ => drop(args.optional_value()),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse(lexopt::Parser::from_env())?;
    if options.list {
        return Ok(());
    }
    // Cargo says `--bench` when it benches; all else is a trial.
    let quick = options.test || !options.bench;
    if quick {
        println!("a trial, too short to measure: `cargo bench --bench roofline` measures");
    }
    println!("{:<56} {:>16} {:>24} {:>10}", "device", "FMA", "copy (read + write)", "in");
    let row = |device: &str, gflops: f64, gbytes: f64, clock: &str| {
        println!("{device:<56} {gflops:>9.1} GFLOP/s {gbytes:>19.1} GB/s {clock:>10}");
    };
    let mut panels = Vec::new();
    let mut panel = |place: &Place, peak: f64, bandwidth: f64| {
        // OpenGL is another way to a device that has its panel.
        if options.svg.is_some() && !(panels.len() > 1 && is_opengl(place)) {
            panels.push(Panel {
                title: title(place),
                axis: if place.clock == Clock::Wall { "GFLOP/s" } else { "GFLOP per CPU-second (one core)" },
                units: place.clock.rate_units(),
                peak,
                bandwidth,
                points: kernels::measure(place, quick),
            });
        }
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
            panel(&place, peak.one, peak.copy_one);
        }
        #[cfg(feature = "gpu")]
        if !place.device.is_cpu() {
            match support::gpu_peak::measure(&place, quick) {
                None => eprintln!("left out: {}: it can't be opened again", place.device),
                // The driver's own threads share the work; a CPU-second is one core's.
                Some(peak) => {
                    if place.is_software() {
                        row(&format!("{}, one core", place.name()), peak.gflops, peak.gbytes, "CPU time");
                    } else {
                        row(&place.name(), peak.gflops, peak.gbytes, "time");
                    }
                    panel(&place, peak.gflops, peak.gbytes);
                }
            }
        }
    }
    let Some(path) = options.svg else { return Ok(()) };
    for panel in &panels {
        println!("\n{}\n{:<48} {:>10} {:>14} {:>14}", panel.title, "kernel", "FLOP/byte", panel.units[0], "of the roof");
        for point in &panel.points {
            let part = 100.0 * point.gflops / panel.roof(point.intensity);
            println!("{:<48} {:>10.3} {:>14.2} {part:>12.0} %", point.label, point.intensity, point.gflops);
        }
    }
    plot::draw(&path, &panels)
}

#[cfg(feature = "gpu")]
fn is_opengl(place: &Place) -> bool {
    place.device.caps().is_some_and(|caps| caps.backend == gristmill::gpu::Backend::Gl)
}

#[cfg(not(feature = "gpu"))]
fn is_opengl(_place: &Place) -> bool {
    false
}

fn title(place: &Place) -> String {
    #[cfg(feature = "gpu")]
    if let Some(caps) = place.device.caps() {
        return format!("{}: {}, {}", caps.backend.name(), caps.name, caps.driver);
    }
    // Linux says what it is.
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    model.map_or_else(|| place.name(), |(_, model)| format!("{}: {model}", place.name()))
}
