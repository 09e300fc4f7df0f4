//! The mutation run (contract N10): makes every single edit of the kinds in `edits.rs` in each shader and asks the oracle whether it
//! notices. `tests/mutation.sh [SHADER…]` runs it; without `--mutate`, as under `cargo test`, this is the scanner's own tests.
//!
//! An edit that naga refuses (for a spec before the first that it makes another program) is `invalid`, and one that gives the same SPIR-V for every spec is the `same` program: neither is
//! a mutant. Every other must be `caught`: by a failed comparison, by a crash, or by a hang (no line for a long time: `hung`). One that
//! survives all of the oracle's quick matrix on one Vulkan adapter must have its reason in `survivors.txt`.

mod edits;
mod oracle;
mod survivors;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edits::{Edit, edits};
use gristmill::ops;
use naga::Module;
use naga::compact::{KeepUnused, compact};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use oracle::{Oracle, Verdict};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_none_or(|first| first != "--mutate") {
        return libtest_mimic::run(&libtest_mimic::Arguments::from_args(), edits::tests::all()).exit_code();
    }
    match mutate(&arguments[1..]) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("mutation: {message}");
            ExitCode::from(2)
        }
    }
}

/// What alone runs a shader, where its op's trials are of much else: tests/ops/main.rs says what the variables do.
const NARROWED: &[(&str, &[(&str, &str)])] = &[
    ("reduce", &[("GRISTMILL_TEST_CALLS", "sum,mean,amax,amin")]),
    ("reduce_arg", &[("GRISTMILL_TEST_CALLS", "argmax,argmin")]),
    ("attention", &[("GRISTMILL_TEST_KERNEL", "attention"), ALL]),
    ("attention_decode", &[("GRISTMILL_TEST_KERNEL", "attention_decode"), ALL]),
    // Suites whose heads it holds.
    (
        "attention_direct",
        &[("GRISTMILL_TEST_KERNEL", "attention_direct"), ("GRISTMILL_TEST_SUITES", "exact,pairs,lse,masks,edges,blocks,types,large_grid")],
    ),
    ("attention_mask", &[("GRISTMILL_TEST_SUITES", "masks,layouts,types,large_grid,pairs,random")]),
    ("attention_reduce", &[("GRISTMILL_TEST_SUITES", "merges,choices")]),
    (
        "attention_subgroups",
        &[("GRISTMILL_TEST_KERNEL", "attention_subgroups"), ("GRISTMILL_TEST_SUITES", "exact,blocks,types,large_grid")],
    ),
    ("lib/attention", &[ALL]),
    ("lib/attention_tiles", &[("GRISTMILL_TEST_KERNEL", "attention"), ALL]),
    ("lib/philox", &[("GRISTMILL_TEST_SUITES", "pairs,choices,random")]),
    ("softmax", &[("GRISTMILL_TEST_KERNEL", "softmax"), ROWS]),
    ("softmax_in_place", &[("GRISTMILL_TEST_KERNEL", "softmax_in_place"), ROWS]),
    ("softmax_columns", &[("GRISTMILL_TEST_KERNEL", "softmax_columns"), ROWS]),
    ("softmax_columns_in_place", &[("GRISTMILL_TEST_KERNEL", "softmax_columns_in_place"), ROWS]),
    ("lib/softmax", &[("GRISTMILL_TEST_KERNEL", "softmax"), ROWS]),
    ("lib/softmax_columns", &[("GRISTMILL_TEST_KERNEL", "softmax_columns"), ROWS]),
    ("lib/softmax_row", &[ROWS]),
    ("lib/softmax_rows", &[("GRISTMILL_TEST_KERNEL", "softmax"), ROWS]),
];

fn narrowed(shader: &Shader) -> &'static [(&'static str, &'static str)] {
    NARROWED.iter().find(|(name, _)| *name == shader.name).map_or(&[], |(_, narrowed)| narrowed)
}

/// A shader's trials, or of its suites those alone that are asked for.
fn some_of<'a>(narrowed: &[(&'a str, &'a str)], suites: Option<&'a str>) -> Result<Vec<(&'a str, &'a str)>, String> {
    let Some(suites) = suites else { return Ok(narrowed.to_vec()) };
    let all = narrowed.iter().find(|(name, _)| *name == "GRISTMILL_TEST_SUITES").map_or("", |(_, all)| all);
    match suites.split(',').find(|suite| !all.split(',').any(|own| own == *suite)) {
        Some(other) => Err(format!("{other} is no suite of its own, only: {all}")),
        None => Ok(narrowed.iter().map(|&(name, value)| (name, if value == all { suites } else { value })).collect()),
    }
}

/// Attention's, what sees most in a second first.
const ALL: (&str, &str) = (
    "GRISTMILL_TEST_SUITES",
    "exact,pairs,lse,masks,edges,corners,extremes,batch_invariant,layouts,blocks,choices,random,twice_plain,types,merges,large_grid",
);

/// Softmax's.
const ROWS: (&str, &str) = ("GRISTMILL_TEST_SUITES", "options,extremes,types,rows,maximum,rows_alone,random,large_grid,choices");

/// A file of `shaders/`, with all that is built from it.
struct Shader {
    /// `matmul`, `lib/index`.
    name: String,
    text: String,
    edits: Vec<Edit>,
    composed: Vec<Composed>,
    /// Folders of `src/ops` whose kernels are built from it.
    ops: Vec<String>,
}

/// One kernel and spec's final text.
struct Composed {
    text: String,
    /// Its line where the shader begins.
    start: usize,
    /// The constants that the host wrote.
    written: Vec<&'static str>,
}

/// What became of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Invalid,
    Same,
    Caught,
    Hung,
    Survived,
}

impl Fate {
    const NAMES: [(Fate, &str); 5] =
        [(Fate::Invalid, "invalid"), (Fate::Same, "same"), (Fate::Caught, "caught"), (Fate::Hung, "hung"), (Fate::Survived, "survived")];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(fate, _)| *fate == self).expect("it is listed").1
    }

    fn named(name: &str) -> Option<Fate> {
        Self::NAMES.iter().find(|(_, other)| *other == name).map(|(fate, _)| *fate)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Every file of `shaders/` and `shaders/lib/`, in order.
fn shaders() -> Result<Vec<Shader>, String> {
    let mut all = Vec::new();
    let mut composed = Vec::new();
    for kernel in ops::kernels() {
        for spec in kernel.specs() {
            let dtypes = kernel.bindings.iter().filter_map(|binding| binding.dtype_const);
            let written: Vec<&str> =
                dtypes.chain([spec.variant, spec.tune].iter().flat_map(|c| c.values.iter().map(|(name, _)| *name))).collect();
            composed.push((kernel.name, kernel.compose(&spec).map_err(|error| error.to_string())?, written));
        }
    }
    for (folder, prefix) in [("shaders", ""), ("shaders/lib", "lib/")] {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(root().join(folder)).map_err(|e| e.to_string())?.flatten().map(|e| e.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "wgsl"));
        paths.sort();
        for path in paths {
            let text = read(&path)?;
            let name = format!("{prefix}{}", path.file_stem().expect("a name").to_string_lossy());
            let built: Vec<(&str, Composed)> = composed
                .iter()
                .filter_map(|(kernel, whole, written)| {
                    Some((*kernel, Composed { text: whole.clone(), start: find(whole, &text)?, written: written.clone() }))
                })
                .collect();
            let mut ops = Vec::new();
            for (kernel, _) in &built {
                ops.push(op_of(kernel)?);
            }
            ops.sort();
            ops.dedup();
            all.push(Shader { edits: edits(&text), composed: built.into_iter().map(|(_, composed)| composed).collect(), name, text, ops });
        }
    }
    Ok(all)
}

/// The folder of `src/ops` whose `gpu.rs` includes the kernel's file.
fn op_of(kernel: &str) -> Result<String, String> {
    for entry in std::fs::read_dir(root().join("src/ops")).map_err(|e| e.to_string())?.flatten() {
        let source = std::fs::read_to_string(entry.path().join("gpu.rs")).unwrap_or_default();
        if source.contains(&format!("shaders/{kernel}.wgsl\"")) {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Err(format!("no src/ops/*/gpu.rs includes {kernel}.wgsl"))
}

/// A constant that the host writes reads differently in the composed text.
fn constant(line: &str) -> Option<&str> {
    line.strip_prefix("const ")?.split_once(": u32 = ").map(|(name, _)| name)
}

/// The line of `whole` where a file's text begins.
fn find(whole: &str, file: &str) -> Option<usize> {
    let (whole, file): (Vec<&str>, Vec<&str>) = (whole.lines().collect(), file.lines().collect());
    let same = |(a, b): (&&str, &&str)| a == b || constant(a).is_some() && constant(a) == constant(b);
    whole.windows(file.len()).position(|window| window.iter().zip(&file).all(same))
}

/// The composed text with the mutant in place of the original: what the host then rewrote stays as it wrote it.
fn patch(composed: &Composed, original: &str, mutant: &str) -> String {
    let mut lines: Vec<&str> = composed.text.lines().collect();
    for (line, (before, after)) in lines[composed.start..].iter_mut().zip(original.lines().zip(mutant.lines())) {
        if constant(before).is_none_or(|name| !composed.written.contains(&name)) {
            *line = after;
        }
    }
    lines.join("\n") + "\n"
}

/// Whether naga refuses a mutant, or takes it for the same program, for every spec up to the first for which it is another.
fn judge(shader: &Shader, mutant: &str, original: &[Vec<u32>]) -> Option<Fate> {
    for (composed, original) in shader.composed.iter().zip(original) {
        let text = patch(composed, &shader.text, mutant);
        if text == composed.text {
            continue;
        }
        let Some(module) = validate(&text) else { return Some(Fate::Invalid) };
        if spirv(module) != *original {
            return None;
        }
    }
    Some(Fate::Same)
}

fn validate(text: &str) -> Option<Module> {
    let module = naga::front::wgsl::parse_str(text).ok()?;
    analyse(&module).map(|_| module)
}

fn analyse(module: &Module) -> Option<ModuleInfo> {
    Validator::new(ValidationFlags::all(), Capabilities::all()).validate(module).ok()
}

/// The code of what is used.
fn spirv(mut module: Module) -> Vec<u32> {
    compact(&mut module, KeepUnused::No);
    let info = analyse(&module).expect("less of a valid module is valid");
    naga::back::spv::write_vec(&module, &info, &naga::back::spv::Options::default(), None).expect("a valid module can be written")
}

/// FNV-1a: results are kept for as long as the shader and the oracle are what they were.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What is known from earlier runs, one file a shader: `FATE, ID, HOW` between tabs, below a line that says what they hold for.
struct Log {
    file: std::fs::File,
    known: HashMap<String, (Fate, String)>,
}

impl Log {
    fn open(shader: &Shader, oracle: &Oracle, survivors_only: bool) -> Result<Log, String> {
        let path = oracle.folder.join(format!("{}.log", shader.name.replace('/', "-")));
        let texts: Vec<u8> = shader.composed.iter().flat_map(|composed| composed.text.bytes()).collect();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut known: HashMap<String, (Fate, String)> = text
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once('\t'))
            .filter_map(|(fate, rest)| rest.split_once('\t').and_then(|(id, how)| Some((id.into(), (Fate::named(fate)?, how.into())))))
            .collect();
        let first = text.lines().next().unwrap_or_default();
        let narrowed = narrowed(shader).iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()].concat());
        let widths = oracle::widths(&shader.text).iter().skip(1).flat_map(|bits| bits.bytes());
        let asked: Vec<u8> = texts.into_iter().chain(narrowed).chain(widths).collect();
        let mut stamp = format!("{:016x} {:016x}", hash(&asked), oracle.hash);
        if survivors_only && first.split(' ').next() == stamp.split(' ').next() {
            known.retain(|_, (fate, _)| *fate != Fate::Survived);
            // The rest was found with another oracle: a whole run begins anew.
            stamp = first.into();
        } else if first != stamp {
            known.clear();
        }
        let lines: Vec<String> = known.iter().map(|(id, (fate, how))| format!("{}\t{id}\t{how}\n", fate.name())).collect();
        let write = || {
            let mut file = std::fs::File::create(&path)?;
            file.write_all(format!("{stamp}\n{}", lines.concat()).as_bytes()).map(|()| file)
        };
        write().map(|file| Log { file, known }).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn add(&mut self, id: &str, fate: Fate, how: String) -> Result<(), String> {
        if matches!(fate, Fate::Survived | Fate::Hung) {
            println!("{:>8}  {id}  {how}", fate.name());
        }
        let line = format!("{}\t{id}\t{}\n", fate.name(), how.replace('\n', " "));
        self.file.write_all(line.as_bytes()).map_err(|error| error.to_string())?;
        self.known.insert(id.into(), (fate, how));
        if self.known.len().is_multiple_of(50) {
            println!("{:>8}", self.known.len());
        }
        Ok(())
    }
}

/// Options, then the shaders' names; all of them if there are none. True if every survivor has its reason.
fn mutate(arguments: &[String]) -> Result<bool, String> {
    let mut jobs = std::thread::available_parallelism().map_or(1, |n| n.get());
    let (mut list, mut again, mut trust, mut stale_only) = (false, false, false, false);
    let (mut within, mut suites, mut wanted) = (None, None, Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--list" => list = true,
            "--again" => again = true,
            "--trust" => trust = true,
            "--stale" => stale_only = true,
            "--within" => {
                let seconds: u64 = rest.next().and_then(|n| n.parse().ok()).ok_or("--within wants a number of seconds")?;
                within = Some(Duration::from_secs(seconds));
            }
            "--suites" => suites = Some(rest.next().ok_or("--suites wants names, such as pairs,edges")?.as_str()),
            "--jobs" => jobs = rest.next().and_then(|n| n.parse().ok()).ok_or("--jobs wants a number")?,
            name => wanted.push(name.trim_start_matches("shaders/").trim_end_matches(".wgsl").to_string()),
        }
    }
    let mut shaders = shaders()?;
    if let Some(unknown) = wanted.iter().find(|name| shaders.iter().all(|shader| shader.name != **name)) {
        let names: Vec<&str> = shaders.iter().map(|shader| shader.name.as_str()).collect();
        return Err(format!("no shader `{unknown}`, only: {}", names.join(" ")));
    }
    let texts = hash(shaders.iter().map(|shader| shader.text.as_str()).collect::<String>().as_bytes());
    shaders.retain(|shader| wanted.is_empty() || wanted.contains(&shader.name));
    let mut ledger = Ledger::read()?;
    shaders.retain(|shader| !stale_only || !ledger.holds(shader));
    if list {
        for (shader, edit) in shaders.iter().flat_map(|shader| shader.edits.iter().map(move |edit| (shader, edit))) {
            println!("{:<50} {}", id(shader, edit), edit.text);
        }
        return Ok(true);
    }
    let reasons = survivors::read(&root().join("tests/mutation/survivors.txt"))?;
    let clock = Instant::now();
    let mut oracle = Oracle::build(within)?;
    oracle.rehearse(shaders.iter().flat_map(|shader| &shader.ops), texts)?;
    let mut table = Vec::new();
    let (mut open, mut stale, mut sums) = (Vec::new(), Vec::new(), BTreeMap::new());
    for shader in &shaders {
        let clock = Instant::now();
        let listed = |edit: &Edit| reasons.contains_key(&survivors::key(&shader.name, edit));
        let fates = run(shader, &oracle, (jobs, again, suites), &|edit| trust && listed(edit))?;
        let count = |fate: Fate| fates.values().filter(|other| **other == fate).count();
        for (fate, _) in Fate::NAMES {
            *sums.entry(fate.name()).or_insert(0) += count(fate);
        }
        let (mut listed, unexplained) = (0, open.len());
        for edit in &shader.edits {
            let key = survivors::key(&shader.name, edit);
            match (fates[&id(shader, edit)], reasons.get(&key)) {
                (Fate::Survived, Some(_)) => listed += 1,
                (Fate::Survived, None) => open.push(format!("{} | {key}", id(shader, edit))),
                (fate, Some(_)) => stale.push(format!("{}: {key}", fate.name())),
                (_, None) => {}
            }
        }
        let ours = |key: &&String| key.starts_with(&format!("{} :: ", shader.name));
        let known: Vec<String> = shader.edits.iter().map(|edit| survivors::key(&shader.name, edit)).collect();
        stale.extend(reasons.keys().filter(ours).filter(|key| !known.contains(key)).map(|key| format!("no such edit: {key}")));
        let counts = [count(Fate::Caught), count(Fate::Hung), count(Fate::Survived), listed];
        table.push(line(&shader.name, counts, [count(Fate::Invalid), count(Fate::Same)], clock.elapsed()));
        if open.len() == unexplained {
            ledger.note(shader, counts, trust)?;
        }
    }
    println!(
        "\n{:<14} {:>15}  {:>5} {:>9} {:>9} {:>8} {:>5} {:>7}",
        "shader", "caught / total", "hung", "survived", "explained", "invalid", "same", "seconds"
    );
    table.iter().for_each(|line| println!("{line}"));
    let sum = |fate: Fate| sums.get(fate.name()).copied().unwrap_or(0);
    let listed = sum(Fate::Survived) - open.len();
    println!(
        "{}",
        line(
            "all",
            [sum(Fate::Caught), sum(Fate::Hung), sum(Fate::Survived), listed],
            [sum(Fate::Invalid), sum(Fate::Same)],
            clock.elapsed()
        )
    );
    for (title, lines) in [("survivors without a reason", &open), ("stale in survivors.txt", &stale)] {
        if !lines.is_empty() {
            println!("\n{title}:\n{}", lines.join("\n"));
        }
    }
    Ok(open.is_empty())
}

/// `last.txt`: what the last whole run of each shader came to, and the text that it held for.
struct Ledger(BTreeMap<String, (u64, String)>);

impl Ledger {
    const HEAD: &str = "# What the last run of tests/mutation.sh that left no survivor without a reason came to, a line a shader, and the hash of the\n\
                        # text that it holds for. Written by that program; `tests/mutation.sh --stale` runs what has changed since.\n";

    fn path() -> PathBuf {
        root().join("tests/mutation/last.txt")
    }

    fn read() -> Result<Ledger, String> {
        let entry = |line: &str| {
            let (name, rest) = line.split_once(' ')?;
            let (hash, counts) = rest.trim_start().split_once(' ')?;
            Some((name.to_string(), (u64::from_str_radix(hash, 16).ok()?, counts.trim_start().to_string())))
        };
        let text = if Self::path().exists() { read(&Self::path())? } else { String::new() };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| entry(line).ok_or(format!("last.txt: {line}"))).collect::<Result<_, _>>().map(Ledger)
    }

    /// Whether the shader's text is what its line was written for.
    fn holds(&self, shader: &Shader) -> bool {
        self.0.get(&shader.name).is_some_and(|(text, _)| *text == hash(shader.text.as_bytes()))
    }

    fn note(&mut self, shader: &Shader, [caught, hung, survived, _]: [usize; 4], trust: bool) -> Result<(), String> {
        let how = if trust && survived > 0 { " (not all run to the end: --trust)" } else { "" };
        let counts = format!("caught {:>3} of {:>3}, the other {survived} explained{how}", caught + hung, caught + hung + survived);
        self.0.insert(shader.name.clone(), (hash(shader.text.as_bytes()), counts));
        let lines: String = self.0.iter().map(|(name, (hash, counts))| format!("{name:<16} {hash:016x}  {counts}\n")).collect();
        std::fs::write(Self::path(), format!("{}{lines}", Self::HEAD)).map_err(|error| error.to_string())
    }
}

fn line(name: &str, [caught, hung, survived, listed]: [usize; 4], [invalid, same]: [usize; 2], time: Duration) -> String {
    let ratio = format!("{} / {}", caught + hung, caught + hung + survived);
    format!("{name:<14} {ratio:>15}  {hung:>5} {survived:>9} {listed:>9} {invalid:>8} {same:>5} {:>7.0}", time.as_secs_f64())
}

/// `matmul:87:<→<=#2`.
fn id(shader: &Shader, edit: &Edit) -> String {
    format!("{}:{}:{}", shader.name, edit.line, edit.what)
}

/// Every edit of a shader, several at a time; those that are trusted to survive are not run. Of some suites what passes is a survivor for now.
fn run(
    shader: &Shader,
    oracle: &Oracle,
    (jobs, again, suites): (usize, bool, Option<&str>),
    trusted: &dyn Fn(&Edit) -> bool,
) -> Result<HashMap<String, Fate>, String> {
    let validated = shader.composed.iter().map(|composed| validate(&composed.text).ok_or("naga refuses the shader as it is"));
    let original: Vec<Vec<u32>> = validated.map(|valid| valid.map(spirv)).collect::<Result<_, _>>()?;
    let log = Mutex::new(Log::open(shader, oracle, again)?);
    let known = log.lock().expect("no worker panics").known.clone();
    let (trusted, rest): (Vec<&Edit>, Vec<&Edit>) = shader.edits.iter().partition(|edit| trusted(edit));
    let todo: Vec<&Edit> = rest.into_iter().filter(|edit| !known.contains_key(&id(shader, edit))).collect();
    let ops = oracle.order(&shader.ops);
    let narrowed = some_of(narrowed(shader), suites).map_err(|text| format!("{}: {text}", shader.name))?;
    let narrowed = &narrowed[..];
    if !narrowed.is_empty() {
        oracle.rehearse_narrowed(&shader.text, (&ops, narrowed))?;
    }
    println!("== {}: {} edits, {} of them known; trials of {ops}", shader.name, shader.edits.len(), shader.edits.len() - todo.len());
    let next = AtomicUsize::new(0);
    let work = |worker: usize| -> Result<(), String> {
        while let Some(edit) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (id, mutant) = (id(shader, edit), edit.apply(&shader.text));
            let (fate, how) = match judge(shader, &mutant, &original) {
                Some(fate) => (fate, String::new()),
                None => match oracle.ask(worker, &shader.text, &mutant, (&ops, narrowed))? {
                    Verdict::Passed if suites.is_none() => (Fate::Survived, edit.text.clone()),
                    Verdict::Passed => (Fate::Survived, format!("so far: {}", edit.text)),
                    Verdict::Unfinished => (Fate::Survived, format!("so far: {}", edit.text)),
                    Verdict::Failed(how) => (Fate::Caught, how),
                    Verdict::Hung(how) => (Fate::Hung, how),
                },
            };
            log.lock().expect("no worker panics").add(&id, fate, how)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })?;
    let log = log.into_inner().map_err(|_| "a worker panicked")?;
    let fates = log.known.into_iter().map(|(id, (fate, _))| (id, fate));
    Ok(fates.chain(trusted.iter().map(|edit| (id(shader, edit), Fate::Survived))).collect())
}
