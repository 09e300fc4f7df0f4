//! The oracle's binary, built with the hook in `Kernel::compose`, and one run of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub struct Oracle {
    /// Where it was built; mutants and logs lie here too.
    pub folder: PathBuf,
    /// Of the binary.
    pub hash: u64,
    /// What cargo would run it with (the software driver's own loader), then the binary.
    command: Vec<String>,
    /// How long the unchanged shaders take, by op.
    times: BTreeMap<String, Duration>,
    /// No line for so long is a hang.
    patience: Duration,
    /// What an edit's run may take, if that is bounded.
    within: Option<Duration>,
}

/// Files of the oracle, and variables that narrow them.
pub type Trials<'a> = (&'a str, &'a [(&'a str, &'a str)]);

pub enum Verdict {
    Passed,
    /// What failed, or the crash.
    Failed(String),
    /// The last line.
    Hung(String),
    /// It took longer than was allowed, without a failure so far.
    Unfinished,
}

/// Bits of the driver's vectors for a shader, one after the other. Four lanes a vector instead of eight: fewer run in step, so more barriers matter. Only in eight
/// are there cooperative matrices; and what joins subgroups of 4 is not what joins those of 8 or 16.
pub fn widths(shader: &str) -> &'static [&'static str] {
    match shader {
        _ if shader.contains("subgroupShuffle") => &["128", "256", "512"],
        _ if shader.contains("coop") => &["256"],
        _ => &["128"],
    }
}

impl Oracle {
    pub fn build(within: Option<Duration>) -> Result<Oracle, String> {
        let folder = crate::root().join("target/mutation");
        let cargo = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()))
            .args(["test", "--all-features", "--no-run", "--test", "ops", "--message-format=json-render-diagnostics"])
            .current_dir(crate::root())
            .env("CARGO_TARGET_DIR", &folder)
            .env("RUSTFLAGS", "--cfg gristmill_mutation")
            // It runs a thousand times.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "2")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        let binary = String::from_utf8_lossy(&cargo.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "ops")
            .find_map(|message| message["executable"].as_str().map(String::from))
            .filter(|_| cargo.status.success())
            .ok_or("the oracle does not build")?;
        let runner = std::env::vars().find(|(name, _)| name.starts_with("CARGO_TARGET_") && name.ends_with("_RUNNER"));
        let mut command: Vec<String> = runner.map_or(Vec::new(), |(_, value)| value.split_whitespace().map(String::from).collect());
        let hash = crate::hash(&std::fs::read(&binary).map_err(|error| error.to_string())?);
        command.push(binary);
        Ok(Oracle { folder, hash, command, times: BTreeMap::new(), patience: Duration::from_secs(120), within })
    }

    /// The unchanged shaders must pass, and a text that is no shader must not. Times them; what an earlier run of this binary took is kept.
    pub fn rehearse<'a>(&mut self, ops: impl Iterator<Item = &'a String>, shaders: u64) -> Result<(), String> {
        let path = self.folder.join(format!("rehearsal-{:016x}-{shaders:016x}", self.hash));
        let mut known = BTreeMap::new();
        for line in std::fs::read_to_string(&path).unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let op = words.next().unwrap_or_default().to_string();
            let mut seconds = || words.next()?.parse().ok().map(Duration::from_secs_f64);
            if let (Some(time), Some(silence)) = (seconds(), seconds()) {
                known.insert(op, (time, silence));
            }
        }
        let mut longest = Duration::ZERO;
        for op in ops {
            if self.times.contains_key(op) {
                continue;
            }
            if let Some(&(time, silence)) = known.get(op) {
                longest = longest.max(silence);
                self.times.insert(op.clone(), time);
                continue;
            }
            let clock = Instant::now();
            let run = self.start(0, None, (op, &[]), "128")?;
            if !matches!(run.verdict, Verdict::Passed) || run.lines < 10 {
                return Err(format!("the oracle must pass on {op} as it is; its output ends\n{}", run.end()));
            }
            println!("{op}: {:.1} s for {} comparisons of the unchanged shaders", clock.elapsed().as_secs_f64(), run.lines);
            longest = longest.max(run.silence);
            self.times.insert(op.clone(), clock.elapsed());
            known.insert(op.clone(), (clock.elapsed(), run.silence));
            let line = |(op, (time, silence)): (&String, &(Duration, Duration))| {
                format!("{op} {:.3} {:.3}\n", time.as_secs_f64(), silence.as_secs_f64())
            };
            std::fs::write(&path, known.iter().map(line).collect::<String>()).map_err(|error| error.to_string())?;
        }
        self.patience = (8 * longest).max(Duration::from_secs(10));
        println!("the longest silence was {:.1} s: {:.0} s is a hang", longest.as_secs_f64(), self.patience.as_secs_f64());
        let copy = crate::read(&crate::root().join("shaders/copy.wgsl"))?;
        match self.ask(0, &copy, "nothing", ("copy", &[]))? {
            Verdict::Failed(_) => Ok(()),
            _ => Err("the oracle takes no mutants: it was built without `--cfg gristmill_mutation`".into()),
        }
    }

    /// The same of trials that are some shader's own, at all widths that its edits are asked at.
    pub fn rehearse_narrowed(&self, original: &str, trials: Trials) -> Result<(), String> {
        for bits in widths(original) {
            let run = self.start(0, None, trials, bits)?;
            if !matches!(run.verdict, Verdict::Passed) || run.lines < 10 {
                return Err(format!("the oracle must pass on {trials:?} as it is, at {bits} bits; its output ends\n{}", run.end()));
            }
        }
        Ok(())
    }

    /// The quickest first.
    pub fn order(&self, ops: &[String]) -> String {
        let mut ops: Vec<&str> = ops.iter().map(String::as_str).collect();
        ops.sort_by_key(|op| self.times.get(*op));
        ops.join(",")
    }

    /// Runs those ops' trials, as far as they are wanted, with one shader's text replaced. What hangs must do so twice: the machine may have been busy with others.
    pub fn ask(&self, worker: usize, original: &str, mutant: &str, ops: Trials) -> Result<Verdict, String> {
        let run = || {
            let files = [("original.wgsl", original), ("mutant.wgsl", mutant)];
            let mut verdict = Verdict::Passed;
            for bits in widths(original) {
                if matches!(verdict, Verdict::Passed) {
                    verdict = self.start(worker, Some(files), ops, bits)?.verdict;
                }
            }
            Ok(verdict)
        };
        match run()? {
            Verdict::Hung(_) => run(),
            verdict => Ok(verdict),
        }
    }

    /// On vectors of so many bits.
    fn start(&self, worker: usize, mutation: Option<[(&str, &str); 2]>, (ops, narrowed): Trials, bits: &str) -> Result<Run, String> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).arg("--test-threads=1").current_dir(crate::root());
        command.envs([
            ("GRISTMILL_TEST_ONLY", "vulkan:"),
            ("GRISTMILL_TEST_OPS", ops),
            ("GRISTMILL_TEST_FAIL_FAST", "1"),
            ("GRISTMILL_TEST_MATRIX", "quick"),
            ("GRISTMILL_TEST_SEED", "0"),
            // Mutants would fill the cache, and several run at once.
            ("MESA_SHADER_CACHE_DISABLE", "true"),
            ("LP_NUM_THREADS", "1"),
            ("LP_NATIVE_VECTOR_WIDTH", bits),
            ("RUST_BACKTRACE", "0"),
        ]);
        command.env_remove("GRISTMILL_MUTATION");
        for name in ["GRISTMILL_TEST_CALLS", "GRISTMILL_TEST_KERNEL", "GRISTMILL_TEST_SUITES"] {
            command.env_remove(name);
        }
        command.envs(narrowed.iter().copied());
        if let Some(files) = mutation {
            let folder = self.folder.join(format!("mutant-{worker}"));
            std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
            for (name, text) in files {
                std::fs::write(folder.join(name), text).map_err(|error| error.to_string())?;
            }
            command.env("GRISTMILL_MUTATION", folder);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", self.command[0]))?;
        let (stdout, mut stderr) = (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut run = Run { verdict: Verdict::Passed, lines: 0, silence: Duration::ZERO, output: String::new() };
        let mut last = String::new();
        let end = self.within.filter(|_| mutation.is_some()).map(|within| Instant::now() + within);
        loop {
            let clock = Instant::now();
            let left = end.map_or(self.patience, |end| end.saturating_duration_since(clock).min(self.patience));
            match lines.recv_timeout(left) {
                Ok(line) => {
                    run.silence = run.silence.max(clock.elapsed());
                    run.lines += 1;
                    run.output += &format!("{line}\n");
                    last = line;
                }
                Err(RecvTimeoutError::Timeout) => {
                    // One process, no children.
                    let _ = child.kill();
                    let _ = child.wait();
                    run.verdict = if left < self.patience { Verdict::Unfinished } else { Verdict::Hung(last) };
                    return Ok(run);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        run.output += &errors.join().unwrap_or_default();
        let failed = run.output.lines().find(|line| line.starts_with("failed: ")).map(String::from);
        run.verdict = match (failed, status.code()) {
            (Some(text), _) => Verdict::Failed(text),
            (None, Some(0)) => Verdict::Passed,
            (None, None) => Verdict::Failed(format!("{status} at {last}")),
            (None, Some(_)) => return Err(format!("the oracle ended with {status} but without a failure; its output ends\n{}", run.end())),
        };
        Ok(run)
    }
}

struct Run {
    verdict: Verdict,
    lines: usize,
    /// The longest between two lines.
    silence: Duration,
    output: String,
}

impl Run {
    fn end(&self) -> String {
        let lines: Vec<&str> = self.output.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
