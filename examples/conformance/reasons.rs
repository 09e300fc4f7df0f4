//! The list of reasons for which cases are unsupported, and how many have each.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const HEADER: &str = "# Why cases of tests/data are unsupported, and how many for each reason. It must not grow; to shrink it, write it again:
# cargo run --release --example conformance -- --device cpu --write-reasons examples/conformance/unsupported.txt tests/data/onnx tests/data/torch
";

/// The cases for each reason and device.
#[derive(Default)]
pub struct Reasons {
    met: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Reasons {
    /// Counts a case.
    pub fn meet(&mut self, device: &str, reason: &str) {
        *self.met.entry(reason.to_string()).or_default().entry(device.to_string()).or_default() += 1;
    }

    /// What is more than a list has, if anything.
    pub fn exceed(&self, path: &Path) -> Option<String> {
        let listed = match read(path) {
            Ok(listed) => listed,
            Err(problem) => return Some(format!("{}: {problem}", path.display())),
        };
        let mut lines = String::new();
        for (reason, devices) in &self.met {
            let allowed = listed.get(reason).copied().unwrap_or(0);
            for (device, count) in devices.iter().filter(|(_, count)| **count > allowed) {
                _ = write!(lines, "\n  {reason}: {count} on {device}, {allowed} in the list");
            }
        }
        (!lines.is_empty()).then(|| format!("more cases are unsupported than {} says:{lines}", path.display()))
    }

    /// Writes the list; returns what went wrong, if anything.
    pub fn write(&self, path: &Path) -> Option<String> {
        let mut text = HEADER.to_string();
        for (reason, devices) in &self.met {
            _ = writeln!(text, "{:4}  {reason}", devices.values().max().copied().unwrap_or(0));
        }
        std::fs::write(path, text).err().map(|error| format!("{}: {error}", path.display()))
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, usize>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let entry = |line: &str| {
        let (count, reason) = line.trim_start().split_once("  ")?;
        Some((reason.to_string(), count.parse().ok()?))
    };
    lines.map(|line| entry(line).ok_or_else(|| format!("no count and reason in {line:?}"))).collect()
}
