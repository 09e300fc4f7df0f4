//! Kernels judged by AMD's compiler, without a card: RADV of Mesa 25 compiles for cards that are not there, and tells what it made.
//!
//! A family of cards is a process: the driver reads it from the environment. So whatever uses this runs itself once more for each
//! ([`child`] first thing in `main`), and reads what that writes.

mod driver;
pub mod isa;
mod spirv;

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gristmill::gpu::{Kernel, Needs, Spec};
use isa::{Facts, Widths};
use serde_json::{Map, Value, json};

/// The cards that the crate's targets name: RDNA2, RDNA3 and GCN.
pub const FAMILIES: [&str; 3] = ["navi21", "navi31", "vega10"];

/// Whether cards of a family can run a spec: of these RDNA3 has cooperative matrices, of 16.
pub fn offers(family: &str, kernel: &Kernel, spec: &Spec) -> bool {
    kernel.needs != Needs::Matrices || family.starts_with("navi3") && spec.get("COOP") == 16
}

/// Set for a process that is to answer jobs.
const CHILD: &str = "GRISTMILL_STATS_CHILD";

const HELP: &str = "it takes RADV of Mesa 24 or 25 (26 compiles for no card that is not there) with its Vulkan loader: tests/drivers.sh brings \
                    both to Debian 12, elsewhere install mesa-vulkan-drivers and libvulkan1; VK_DRIVER_FILES can name its radeon_icd.json";

/// A shader to compile.
#[derive(Clone)]
pub struct Job {
    pub kernel: String,
    pub spec: String,
    pub text: String,
    pub fills_workgroup_memory: bool,
}

impl Job {
    pub fn of(kernel: &Kernel, spec: &Spec) -> Result<Job, String> {
        let text = kernel.compose(spec).map_err(|error| error.to_string())?;
        Ok(Job { kernel: kernel.name.into(), spec: spec.to_string(), text, fills_workgroup_memory: kernel.fills_workgroup_memory })
    }

    /// A file of final WGSL, which is trusted to fill its workgroup memory.
    pub fn file(path: &Path) -> Result<Job, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Job { kernel: name, spec: "file".into(), text, fills_workgroup_memory: true })
    }
}

/// Why there are no figures.
#[derive(Debug)]
pub enum Failure {
    /// There is no such driver here: says how to get it.
    NoDriver(String),
    /// The driver knows no such cards.
    NoFamily(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoDriver(reason) => write!(f, "no AMD compiler without a card: {reason}; {HELP}"),
            Failure::NoFamily(family) => write!(f, "RADV knows no family of cards `{family}`"),
            Failure::Other(reason) => f.write_str(reason),
        }
    }
}

/// Figures of one shader on one family.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub kernel: String,
    pub spec: String,
    pub family: String,
    /// Threads a wave.
    pub wave: u64,
    pub vgprs: u64,
    pub sgprs: u64,
    pub spilled_vgprs: u64,
    pub spilled_sgprs: u64,
    pub scratch_bytes: u64,
    pub lds_bytes: u64,
    /// Waves that a SIMD holds, on RDNA in units of 32 threads.
    pub waves: u64,
    pub code_bytes: u64,
    pub latency: u64,
    /// Cycles of 64 threads at full parallelism, by ACO's weights.
    pub inverse_throughput: u64,
    pub facts: Facts,
    /// Of the time of the busiest unit, what the FMAs of the main loop need, or its matrix instructions. `None` without either in a loop.
    pub eff: Option<f64>,
    pub isa: String,
}

impl Row {
    fn of(job: &Job, family: &str, generation: &str, answer: &Value) -> Result<Row, String> {
        let named = |name: &str| {
            let value = &answer["statistics"][name];
            value.as_u64().ok_or_else(|| format!("the driver has no statistic `{name}`"))
        };
        let isa = answer["isa"].as_str().unwrap_or_default().to_string();
        if !isa.starts_with("BB0:") {
            return Err("this Mesa cannot write its ISA".into());
        }
        let facts = isa::facts(&isa);
        let wave = answer["wave"].as_u64().unwrap_or_default();
        let inverse_throughput = named("Inverse Throughput")?;
        // Cycles that 64 threads take of the unit, in ACO's own reckoning: two passes of 32 lanes on RDNA, which RDNA3 issues as one where
        // the instruction allows; four of 16 lanes on GCN. A matrix instruction takes 32 a wave, however many threads that has.
        let per_fma = match generation {
            "GCN" => 4.0,
            "RDNA3" => 1.0,
            _ => 2.0,
        };
        let per_wmma = 32.0 * 64.0 / wave.max(1) as f64;
        // Beside matrix instructions others are what they cost.
        let cycles = 8.0 * if facts.trip_wmma > 0.0 { facts.trip_wmma * per_wmma } else { facts.trip_fma * per_fma };
        let eff = (cycles > 0.0).then(|| cycles / inverse_throughput.max(1) as f64);
        Ok(Row {
            kernel: job.kernel.clone(),
            spec: job.spec.clone(),
            family: family.into(),
            wave,
            vgprs: named("VGPRs")?,
            sgprs: named("SGPRs")?,
            spilled_vgprs: named("Spilled VGPRs")?,
            spilled_sgprs: named("Spilled SGPRs")?,
            scratch_bytes: named("Scratch size")?,
            lds_bytes: named("LDS size")?,
            waves: named("Subgroups per SIMD")?,
            code_bytes: named("Code size")?,
            latency: named("Latency")?,
            inverse_throughput,
            facts,
            eff,
            isa,
        })
    }

    pub fn json(&self) -> Value {
        let widths =
            |widths: &Widths| Value::Object(widths.iter().map(|(bytes, count)| (bytes.to_string(), json!(count))).collect::<Map<_, _>>());
        json!({
            "kernel": self.kernel, "spec": self.spec, "family": self.family, "wave": self.wave, "vgprs": self.vgprs, "sgprs": self.sgprs,
            "spilled_vgprs": self.spilled_vgprs, "spilled_sgprs": self.spilled_sgprs, "scratch_bytes": self.scratch_bytes,
            "lds_bytes": self.lds_bytes, "waves": self.waves, "code_bytes": self.code_bytes, "latency": self.latency,
            "inverse_throughput": self.inverse_throughput, "fma": self.facts.fma, "wmma": self.facts.wmma, "depth": self.facts.depth,
            "trip_fma": self.facts.trip_fma, "trip_wmma": self.facts.trip_wmma, "eff": self.eff, "loads": widths(&self.facts.loads),
            "stores": widths(&self.facts.stores), "lds_loads": widths(&self.facts.lds_loads), "lds_stores": widths(&self.facts.lds_stores),
        })
    }
}

/// Answers jobs and ends the process, if that is what it was started for.
pub fn child() {
    if std::env::var_os(CHILD).is_some() {
        let result = driver::serve();
        if let Err(message) = &result {
            eprintln!("{message}");
        }
        std::process::exit(i32::from(result.is_err()));
    }
}

/// RADV's manifest: what `VK_DRIVER_FILES` names if that is one, else the system's.
fn manifest() -> Result<PathBuf, Failure> {
    let radeon = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("radeon_icd") && name.ends_with(".json") && path.exists()
    };
    let given = std::env::var_os("VK_DRIVER_FILES").unwrap_or_default();
    let folders = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
    let found = folders.iter().flat_map(std::fs::read_dir).flatten().flatten().map(|entry| entry.path());
    // A 32-bit one may lie beside it.
    let foreign = |path: &PathBuf| path.to_string_lossy().contains("i686");
    let path = std::env::split_paths(&given).chain(found.filter(|path| !foreign(path))).find(|path| radeon(path));
    path.ok_or_else(|| Failure::NoDriver("there is no radeon_icd.json".into()))
}

/// Compiles the jobs for one family, in a process of its own. A job that does not compile is an error of its own.
pub fn measure(family: &str, jobs: &[Job]) -> Result<Vec<Result<Row, String>>, Failure> {
    let other = |error: &dyn fmt::Display| Failure::Other(format!("{family}: {error}"));
    let manifest = manifest()?;
    // Not `current_exe`: where a loader was run with this program (tests/drivers.sh, tree), that is the loader.
    let program = std::env::args_os().next().map(PathBuf::from).filter(|path| path.exists());
    let program = program.map_or_else(std::env::current_exe, Ok).map_err(|error| other(&error))?;
    let mut child = Command::new(program)
        .env(CHILD, "1")
        .env("RADV_FORCE_FAMILY", family)
        .envs(["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].map(|name| (name, &manifest)))
        .env("VK_LOADER_LAYERS_DISABLE", "~implicit~")
        // What comes out of a cache has no statistics.
        .env("MESA_SHADER_CACHE_DISABLE", "true")
        .env_remove("RADV_DEBUG")
        .env_remove("RADV_PERFTEST")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| other(&error))?;
    let (Some(mut input), Some(output), Some(mut errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
        return Err(other(&"no pipes to the process"));
    };
    let (rows, said) = std::thread::scope(|scope| {
        let errors = scope.spawn(move || {
            let mut said = Vec::new();
            _ = errors.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        scope.spawn(move || {
            for job in jobs {
                // If it has ended, the answers that are missing say so.
                let line = json!({ "text": job.text, "fills_workgroup_memory": job.fills_workgroup_memory });
                if writeln!(input, "{line}").is_err() {
                    return;
                }
            }
        });
        let rows = answers(family, jobs, BufReader::new(output));
        (rows, errors.join().unwrap_or_default())
    });
    let status = child.wait().map_err(|error| other(&error))?;
    rows.map_err(|failure| match failure {
        // RADV aborts at a family that it does not know.
        Failure::Other(_) if said.contains("Unknown family") => Failure::NoFamily(family.into()),
        Failure::Other(reason) => other(&format!("{reason} ({status}): {}", said.trim())),
        failure => failure,
    })
}

fn answers(family: &str, jobs: &[Job], output: impl BufRead) -> Result<Vec<Result<Row, String>>, Failure> {
    let mut lines = output.lines();
    let mut next = || -> Option<Value> { serde_json::from_str(&lines.next()?.ok()?).ok() };
    let first = next().ok_or_else(|| Failure::Other("the driver's process told nothing".into()))?;
    if let Some(reason) = first["refused"].as_str() {
        return Err(Failure::NoDriver(reason.into()));
    }
    let generation = first["generation"].as_str().unwrap_or_default().to_string();
    jobs.iter()
        .map(|job| {
            let ended = || Failure::Other(format!("the driver's process ended at {}.{}", job.kernel, job.spec));
            let answer = next().ok_or_else(ended)?;
            Ok(match answer["error"].as_str() {
                Some(error) => Err(format!("{}.{} on {family}: {error}", job.kernel, job.spec)),
                None => {
                    Row::of(job, family, &generation, &answer).map_err(|error| format!("{}.{} on {family}: {error}", job.kernel, job.spec))
                }
            })
        })
        .collect()
}
