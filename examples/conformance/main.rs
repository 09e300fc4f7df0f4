//! Runs third-party cases: folders of ONNX node tests or PyTorch goldens, each with a `manifest.json`.
//!
//! ```sh
//! cargo run --release --example conformance -- --device all tests/data/onnx tests/data/torch
//! ```
//!
//! A line for each case and device says `pass` (and what was left out), `fail` (and the worst element) or `unsupported` (and the reason).
//! A case passes if every output that the crate offers agrees and the main one was among them. The last lines count, one for each device:
//! `DEVICE: N passed, N failed, N unsupported`. The exit status is 1 if a case failed or something could not be run, 2 for a wrong call.
//!
//! `--reasons FILE` compares the reasons with a list, such as `examples/conformance/unsupported.txt` for the two folders above, and fails
//! if there are more than it has; `--write-reasons FILE` writes that list.

mod attention;
mod compare;
mod manifest;
mod onnx;
mod reasons;
mod torch;

use std::fmt::Display;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use gristmill::Device;
use lexopt::prelude::*;

use compare::Report;
use manifest::{Case, Outcome, Stop, fail, unsupported};
use reasons::Reasons;

const USAGE: &str = "usage: conformance [--device cpu|gpu|all] [--quiet] [--reasons FILE] [--write-reasons FILE] DIR...
  --device         where to run: gpu means every GPU adapter, software ones too; all (the default) adds the CPU
  --quiet          print only what fails, and the last lines
  --reasons        fail if more cases are unsupported than this list says
  --write-reasons  write that list
  DIR              a folder with a manifest.json";

const NO_GPU: &str = if cfg!(feature = "gpu") {
    "no GPU adapter was found: install a Vulkan driver (Debian and Ubuntu: mesa-vulkan-drivers), or use --device cpu"
} else {
    "this build is without the feature `gpu`: build with it, or use --device cpu"
};

/// What the command line asks for.
struct Options {
    cpu: bool,
    gpu: bool,
    quiet: bool,
    reasons: Option<PathBuf>,
    write_reasons: Option<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Options {
    /// None where the usage is asked for.
    fn parse(mut args: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
        let mut options = Options { cpu: true, gpu: true, quiet: false, reasons: None, write_reasons: None, folders: Vec::new() };
        while let Some(arg) = args.next()? {
            match arg {
                Short('h') | Long("help") => return Ok(None),
                Long("quiet") => options.quiet = true,
                Long("reasons") => options.reasons = Some(args.value()?.into()),
                Long("write-reasons") => options.write_reasons = Some(args.value()?.into()),
                Long("device") => {
                    (options.cpu, options.gpu) = match args.value()?.string()?.as_str() {
                        "cpu" => (true, false),
                        "gpu" => (false, true),
                        "all" => (true, true),
                        other => return Err(format!("--device {other}: not one of cpu, gpu, all").into()),
                    }
                }
                Value(folder) => options.folders.push(folder.into()),
                other => return Err(other.unexpected()),
            }
        }
        if options.folders.is_empty() { Err("no DIR".into()) } else { Ok(Some(options)) }
    }
}

fn main() -> ExitCode {
    match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => ExitCode::from(u8::from(!run(&options))),
        Ok(None) => {
            say(USAGE);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("conformance: {problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// A line on the standard output, which may have been closed.
fn say(line: impl Display) {
    _ = writeln!(std::io::stdout(), "{line}");
}

/// Whether all went well.
fn run(options: &Options) -> bool {
    let mut problems = Vec::new();
    let mut cases = Vec::new();
    for folder in &options.folders {
        match Case::all(folder) {
            Ok(all) => cases.extend(all),
            Err(problem) => problems.push(problem),
        }
    }
    let mut reasons = Reasons::default();
    let mut totals = Vec::new();
    for device in devices(options, &mut problems) {
        say(format_args!("# {device}"));
        let total = run_on(&device, &cases, options.quiet, &mut reasons);
        totals.push((device.label().to_string(), total));
    }
    problems.extend(options.reasons.as_ref().and_then(|path| reasons.exceed(path)));
    problems.extend(options.write_reasons.as_ref().and_then(|path| reasons.write(path)));
    for problem in &problems {
        eprintln!("conformance: {problem}");
    }
    for (device, Total { passed, failed, unsupported }) in &totals {
        say(format_args!("{device}: {passed} passed, {failed} failed, {unsupported} unsupported"));
    }
    problems.is_empty() && totals.iter().all(|(_, total)| total.failed == 0)
}

/// The devices to run on, each opened once.
fn devices(options: &Options, problems: &mut Vec<String>) -> Vec<Device> {
    let mut devices = Vec::new();
    if options.cpu {
        devices.push(Device::cpu());
    }
    if options.gpu {
        let opened = gpus();
        match opened.is_empty() {
            true if options.cpu => say("# no GPU adapter was found: on the CPU only"),
            true => problems.push(NO_GPU.into()),
            false => {}
        }
        for result in opened {
            match result {
                Ok(device) => devices.push(device),
                Err(problem) => problems.push(problem),
            }
        }
    }
    devices
}

/// Every GPU adapter, or why it cannot be used. Adapters that nothing tells apart are one.
#[cfg(feature = "gpu")]
fn gpus() -> Vec<Result<Device, String>> {
    let mut adapters = Device::adapters();
    adapters.dedup();
    let open = |adapter: gristmill::gpu::AdapterInfo| {
        let name = Some(format!("{} {}", adapter.name, adapter.driver));
        let options = gristmill::gpu::GpuOptions { backend: Some(adapter.backend), name, software: true, ..Default::default() };
        Device::gpu(&options).map_err(|error| format!("{adapter}: {error}"))
    };
    adapters.into_iter().map(open).collect()
}

#[cfg(not(feature = "gpu"))]
fn gpus() -> Vec<Result<Device, String>> {
    Vec::new()
}

/// How the cases went on a device.
#[derive(Default)]
struct Total {
    passed: usize,
    failed: usize,
    unsupported: usize,
}

fn run_on(device: &Device, cases: &[Case], quiet: bool, reasons: &mut Reasons) -> Total {
    let mut total = Total::default();
    for case in cases {
        let name = case.name();
        match guarded(case, device) {
            Ok(report) => {
                total.passed += 1;
                if !quiet {
                    say(format_args!("pass  {name}{}", left_out(&report)));
                }
            }
            Err(Stop::Unsupported(reason)) => {
                total.unsupported += 1;
                reasons.meet(device.label(), &reason);
                if !quiet {
                    say(format_args!("unsupported  {name}  {reason}"));
                }
            }
            Err(Stop::Fail(problem)) => {
                total.failed += 1;
                say(format_args!("fail  {name}  {problem}"));
            }
        }
    }
    total
}

/// What a case that passed did not compare.
fn left_out(report: &Report) -> String {
    let mut parts = Vec::new();
    if !report.left_out.is_empty() {
        parts.push(format!("not offered: {}", report.left_out.join(", ")));
    }
    if !report.carried.is_empty() {
        parts.push(format!("carried: {}", report.carried.join(", ")));
    }
    if report.not_finite > 0 {
        parts.push(format!("not compared: {} elements whose golden is not finite", report.not_finite));
    }
    if parts.is_empty() { String::new() } else { format!("  ({})", parts.join("; ")) }
}

/// A case's result; a panic is a failure of the case, not the end of the program.
fn guarded(case: &Case, device: &Device) -> Outcome<Report> {
    catch_unwind(AssertUnwindSafe(|| run_case(case, device))).unwrap_or_else(|_| Err(fail("panicked; the message is on the error output")))
}

fn run_case(case: &Case, device: &Device) -> Outcome<Report> {
    if case.field("family").is_some() {
        torch::run(case, device)
    } else if case.field("domain").is_some() {
        onnx::run(case, device)
    } else {
        Err(unsupported(format!("op {} is not offered", case.text("op")?)))
    }
}
