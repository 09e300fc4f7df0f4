//! Which kernel attends: a pure function of [`Caps`] and [`Problem`], row by row, each with its reason.

use super::Problem;
use super::gpu::{ATTENTION, ATTENTION_DIRECT};
use crate::gpu::{AdapterKind, Caps, Constants, Kernel};

/// A kernel, how it is built, and why.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// Makes the weights.
    pub kernel: &'static Kernel,
    /// Its tunables.
    pub tune: &'static Constants,
    /// Where the choice comes from.
    pub reason: &'static str,
}

impl Choice {
    /// Queries a workgroup.
    pub fn block_q(&self) -> usize {
        let [block, queries] = ["BLOCK_Q", "QUERIES"].map(|name| self.tune.get(name).unwrap_or(0) as usize);
        // 8 lanes, as in the direct kernel.
        if block > 0 { block } else { 8 * queries }
    }

    /// Keys a step.
    pub fn block_k(&self) -> usize {
        if std::ptr::eq(self.kernel, &ATTENTION) { 64 } else { 4 }
    }
}

/// Whether a tune's registers hold a head.
pub(super) fn holds(tune: &Constants, problem: &Problem) -> bool {
    let [values, all] = ["V_MAX", "D_MAX"].map(|name| tune.get(name).map(|size| size as usize));
    values.is_none_or(|size| problem.v_dim() <= size) && all.is_none_or(|size| problem.v_dim().max(problem.head_dim()) <= size)
}

/// Bytes of workgroup memory that a tune of [`ATTENTION`] takes, as its shader adds them up.
fn memory(tune: &Constants) -> u32 {
    let [block_q, v_max, v_keys] = ["BLOCK_Q", "V_MAX", "V_KEYS"].map(|name| tune.get(name).unwrap_or(0));
    ((block_q * 5 + 64 * 5).max(block_q * 17) + (v_keys * v_max / 4).max(block_q)) * 16
}

/// A row of the table: a choice, or why not.
type Row = fn(&Caps, &Problem) -> Result<Choice, String>;

/// In order of preference: the first that does not refuse.
const ROWS: [(&str, Row); 3] = [("attention_direct", direct), ("attention with 64 queries", large), ("attention", tiled)];

/// The choice, and what was refused before it.
pub(super) fn select(caps: &Caps, problem: &Problem) -> (Choice, Vec<(&'static str, String)>) {
    let mut refused = Vec::new();
    for (name, row) in ROWS {
        match row(caps, problem) {
            Ok(choice) => return (choice, refused),
            Err(why) => refused.push((name, why)),
        }
    }
    // The last row never refuses: `check` has seen to it that some tune holds the head.
    (Choice { kernel: &ATTENTION, tune: &ATTENTION.tunes[0], reason: "" }, refused)
}

fn named(kernel: &'static Kernel, part: &str, problem: &Problem) -> Option<&'static Constants> {
    kernel.tunes.iter().find(|tune| tune.name.starts_with(part) && holds(tune, problem))
}

fn direct(caps: &Caps, problem: &Problem) -> Result<Choice, String> {
    if caps.kind != AdapterKind::Software {
        return Err("is for adapters that run on the CPU".into());
    }
    let tune = named(&ATTENTION_DIRECT, "d", problem).ok_or("holds heads of up to 128 columns")?;
    Ok(Choice { kernel: &ATTENTION_DIRECT, tune, reason: "a query a lane: keys and values are scalar loads" })
}

fn large(caps: &Caps, problem: &Problem) -> Result<Choice, String> {
    let tune = named(&ATTENTION, "q64", problem).ok_or("holds values of up to 128 columns")?;
    if caps.workgroup_bytes < memory(tune) {
        return Err(format!("takes {} bytes of workgroup memory, not {}", memory(tune), caps.workgroup_bytes));
    }
    if problem.seq_q() <= 32 && !problem.batch_invariant {
        return Err("would be more than half outside of the queries".into());
    }
    Ok(Choice { kernel: &ATTENTION, tune, reason: "k and v are read half as often as by 32 queries; *unmeasured*" })
}

fn tiled(_: &Caps, problem: &Problem) -> Result<Choice, String> {
    let tune = ["q32", "q16"].iter().find_map(|part| named(&ATTENTION, part, problem)).ok_or("has no tune that holds the head")?;
    Ok(Choice { kernel: &ATTENTION, tune, reason: "the smallest registers that hold a row, in 16 KiB of workgroup memory" })
}
