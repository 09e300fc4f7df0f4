//! Kernels judged by AMD's compiler, without a card: `cargo run --release --example gpu_stats -- [FAMILY...]`.
//!
//! RADV of Mesa 25 compiles every kernel × spec, or a file of WGSL, for cards that are not there (`navi21`, `navi31`, `vega10` unless
//! families are named as `RADV_FORCE_FAMILY` names them), from the very SPIR-V that wgpu would give it. A row says what the shader needs
//! and how much of the time of the busiest unit goes into FMAs:
//!
//! ```text
//! eff = FMAs of a thread in one trip of the outer loop · cycles of one · 8 / Inverse Throughput
//! ```
//!
//! 8 is ACO's guess how often a loop runs; for a loop in it that is 4, and the FMAs in it count 4 times here too. It knows neither bank
//! conflicts nor caches: an upper bound and a guard against regressions, no "% of peak".
//!
//! Exit status: 0, 1 if a shader did not compile, 2 for a wrong call, 3 if there is no such driver.

#[path = "../tests/gpu_stats/stats/mod.rs"]
mod stats;

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use gristmill::gpu::{Kernel, Spec};
use gristmill::ops;
use lexopt::prelude::*;
use stats::isa::Widths;
use stats::{Failure, Job, Row};

const USAGE: &str = "usage: gpu_stats [--json] [--kernel NAME] [--spec SUBSTRING] [--file WGSL]... [--isa DIR] [FAMILY...]
  --json    an object a line instead of the table
  --kernel  only this kernel
  --spec    only specs whose name has this in it, such as f32.tile64.vector
  --file    this WGSL instead of the kernels: bindings in group 0, which fills its workgroup memory before it reads it
  --isa     writes DIR/<kernel>.<spec>.<family>.txt, the ISA text, too
  FAMILY    a family of cards as RADV_FORCE_FAMILY names it (navi21 navi31 vega10)";

/// What the command line asks for.
#[derive(Default)]
struct Options {
    json: bool,
    kernel: Option<String>,
    spec: Option<String>,
    files: Vec<PathBuf>,
    isa: Option<PathBuf>,
    families: Vec<String>,
}

impl Options {
    /// None where the usage is asked for.
    fn parse(mut args: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
        let mut options = Options::default();
        while let Some(arg) = args.next()? {
            match arg {
                Short('h') | Long("help") => return Ok(None),
                Long("json") => options.json = true,
                Long("kernel") => options.kernel = Some(args.value()?.string()?),
                Long("spec") => options.spec = Some(args.value()?.string()?),
                Long("file") => options.files.push(args.value()?.into()),
                Long("isa") => options.isa = Some(args.value()?.into()),
                Value(family) => options.families.push(family.string()?),
                other => return Err(other.unexpected()),
            }
        }
        if !options.files.is_empty() && (options.kernel.is_some() || options.spec.is_some()) {
            return Err("--file takes the place of --kernel and --spec".into());
        }
        if options.families.is_empty() {
            options.families = stats::FAMILIES.map(String::from).to_vec();
        }
        Ok(Some(options))
    }

    /// What to compile, and for which of the families.
    fn jobs(&self) -> Result<Vec<(Job, Vec<bool>)>, String> {
        if !self.files.is_empty() {
            return self.files.iter().map(|path| Ok((Job::file(path)?, vec![true; self.families.len()]))).collect();
        }
        let wanted = |name: &str, spec: &str| {
            self.kernel.as_ref().is_none_or(|kernel| kernel == name) && self.spec.as_ref().is_none_or(|part| spec.contains(part.as_str()))
        };
        let all = ops::kernels().iter().flat_map(|kernel| kernel.specs().map(move |spec| (kernel, spec)));
        let able =
            |kernel: &Kernel, spec: &Spec| self.families.iter().map(|family| stats::offers(family, kernel, spec)).collect::<Vec<_>>();
        let all = all.filter(|(kernel, spec)| wanted(kernel.name, &spec.to_string()));
        let all = all.map(|(kernel, spec)| (kernel, spec, able(kernel, &spec))).filter(|(.., able)| able.contains(&true));
        let jobs: Result<Vec<_>, String> = all.map(|(kernel, spec, able)| Ok((Job::of(kernel, &spec)?, able))).collect();
        let none = "no kernel and spec of that name that these families can run";
        jobs.and_then(|jobs| if jobs.is_empty() { Err(none.into()) } else { Ok(jobs) })
    }
}

fn main() -> ExitCode {
    stats::child();
    let wrong = |problem: String| {
        eprintln!("gpu_stats: {problem}\n{USAGE}");
        ExitCode::from(2)
    };
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            say(USAGE);
            return ExitCode::SUCCESS;
        }
        Err(problem) => return wrong(problem.to_string()),
    };
    let jobs = match options.jobs() {
        Ok(jobs) => jobs,
        Err(problem) => return wrong(problem),
    };
    match measure(&options.families, &jobs) {
        Ok(results) => report(&options, results),
        Err(failure @ Failure::NoFamily(_)) => wrong(failure.to_string()),
        Err(failure) => {
            eprintln!("gpu_stats: {failure}");
            ExitCode::from(if matches!(failure, Failure::NoDriver(_)) { 3 } else { 1 })
        }
    }
}

/// A family's: a row for each job that it can run.
type Rows = Vec<Option<Result<Row, String>>>;

/// All families side by side; none where a family cannot run the job.
fn measure(families: &[String], jobs: &[(Job, Vec<bool>)]) -> Result<Vec<Rows>, Failure> {
    let of_one = |at: usize, family: &str| {
        let able: Vec<Job> = jobs.iter().filter(|(_, able)| able[at]).map(|(job, _)| job.clone()).collect();
        let mut rows = stats::measure(family, &able)?.into_iter();
        Ok(jobs.iter().map(|(_, able)| if able[at] { rows.next() } else { None }).collect())
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = families.iter().enumerate().map(|(at, family)| scope.spawn(move || of_one(at, family))).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(Failure::Other("a thread panicked".into())))).collect()
    })
}

/// A line on the standard output, which may have been closed.
fn say(line: impl Display) {
    _ = writeln!(std::io::stdout(), "{line}");
}

/// A spec's families stand together.
fn report(options: &Options, results: Vec<Rows>) -> ExitCode {
    let mut problems = Vec::new();
    let mut columns: Vec<_> = results.into_iter().map(Vec::into_iter).collect();
    let mut rows = Vec::new();
    while let Some(of_one) = columns.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>() {
        for result in of_one.into_iter().flatten() {
            match result {
                Ok(row) => rows.push(row),
                Err(problem) => problems.push(problem),
            }
        }
    }
    if options.json {
        rows.iter().for_each(|row| say(row.json()));
    } else {
        table(&rows);
    }
    if let Some(directory) = &options.isa {
        problems.extend(rows.iter().find_map(|row| {
            let path = directory.join(format!("{}.{}.{}.txt", row.kernel, row.spec, row.family));
            let written = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&path, &row.isa));
            written.err().map(|error| format!("cannot write {}: {error}", path.display()))
        }));
    }
    for problem in &problems {
        eprintln!("gpu_stats: {problem}");
    }
    ExitCode::from(u8::from(!problems.is_empty()))
}

fn table(rows: &[Row]) {
    let name = |row: &Row| format!("{}.{}", row.kernel, row.spec);
    let width = rows.iter().map(|row| name(row).len()).max().unwrap_or(0).max(6);
    say(format_args!(
        "{:<width$} {:<7} {:>4} {:>4} {:>4} {:>6} {:>7} {:>6} {:>5} {:>6} {:>5} {:>5} {:>7} {:>5}  in the loop: loads / LDS loads / LDS stores; stores",
        "shader", "family", "wave", "VGPR", "SGPR", "spills", "scratch", "LDS", "waves", "code", "FMA", "depth", "inv.thr", "eff"
    ));
    for row in rows {
        let spills = format!("{}/{}", row.spilled_vgprs, row.spilled_sgprs);
        let fma = if row.facts.wmma > 0 { format!("{}w", row.facts.wmma) } else { row.facts.fma.to_string() };
        let eff = row.eff.map_or("-".into(), |eff| format!("{eff:.3}"));
        let [loads, lds_loads, lds_stores, stores] =
            [&row.facts.loads, &row.facts.lds_loads, &row.facts.lds_stores, &row.facts.stores].map(widths);
        say(format_args!(
            "{:<width$} {:<7} {:>4} {:>4} {:>4} {spills:>6} {:>7} {:>6} {:>5} {:>6} {fma:>5} {:>5} {:>7} {eff:>5}  {loads} / {lds_loads} / {lds_stores}; {stores}",
            name(row),
            row.family,
            row.wave,
            row.vgprs,
            row.sgprs,
            row.scratch_bytes,
            row.lds_bytes,
            row.waves,
            row.code_bytes,
            row.facts.depth,
            row.inverse_throughput,
        ));
    }
}

/// `16B:8 4B:2`, the widest first.
fn widths(widths: &Widths) -> String {
    let parts: Vec<_> = widths.iter().rev().map(|(bytes, count)| format!("{bytes}B:{count}")).collect();
    if parts.is_empty() { "-".into() } else { parts.join(" ") }
}
