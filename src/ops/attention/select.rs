//! Which kernel attends: a pure function of [`Caps`] and [`Problem`], row by row, each with its reason.

use super::Problem;
use super::gpu::{ATTENTION, ATTENTION_DECODE, ATTENTION_DIRECT, fits};
use crate::gpu::{AdapterKind, Caps, Constants, Kernel};

/// A kernel, how it is built, and why.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// Makes the weights.
    pub kernel: &'static Kernel,
    /// Its tunables.
    pub tune: &'static Constants,
    /// Parts of the keys that are worked on apart and joined by a second pass; 1 for none.
    pub splits: usize,
    /// Where the choice comes from.
    pub reason: &'static str,
}

impl Choice {
    fn get(&self, name: &str) -> usize {
        self.tune.get(name).unwrap_or(0) as usize
    }

    pub(super) fn decodes(&self) -> bool {
        std::ptr::eq(self.kernel, &ATTENTION_DECODE)
    }

    /// Queries a workgroup; of the decoding kernel, of all heads that share keys.
    pub fn block_q(&self) -> usize {
        match (self.get("BLOCK_Q"), self.get("QUERIES")) {
            (0, 0) => self.get("ROWS"),
            // 8 lanes, as in the direct kernel.
            (0, queries) => 8 * queries,
            (block, _) => block,
        }
    }

    /// Keys a step.
    pub fn block_k(&self) -> usize {
        match self.decodes() {
            // 64 lanes, 4 keys a slot of them, as in the shader.
            true => 4 * 64 / (self.get("D_MAX") / 8),
            false if std::ptr::eq(self.kernel, &ATTENTION) => 64,
            false => 4,
        }
    }

    /// Workgroups a head (of the decoding kernel, a key head), and in all.
    pub(super) fn groups(&self, problem: &Problem) -> [usize; 2] {
        let (rows, heads) = match self.decodes() {
            true => (problem.seq_q() * problem.heads_per_kv(), problem.heads() / problem.heads_per_kv()),
            false => (problem.seq_q(), problem.heads()),
        };
        let blocks = rows.div_ceil(self.block_q());
        let all = [problem.batch(), heads, blocks, self.splits].into_iter().try_fold(1usize, usize::checked_mul);
        [blocks, all.unwrap_or(usize::MAX)]
    }

    /// Keys of a part.
    pub(super) fn chunk(&self, problem: &Problem) -> usize {
        problem.seq_k().div_ceil(self.splits).next_multiple_of(self.block_k())
    }
}

/// Whether a tune's registers hold a head.
pub(super) fn holds(tune: &Constants, problem: &Problem) -> bool {
    let [values, all] = ["V_MAX", "D_MAX"].map(|name| tune.get(name).map(|size| size as usize));
    values.is_none_or(|size| problem.v_dim() <= size) && all.is_none_or(|size| problem.v_dim().max(problem.head_dim()) <= size)
}

/// Bytes of workgroup memory that a tune takes, as its shader adds them up.
pub(super) fn memory(tune: &Constants) -> u32 {
    let [block_q, v_max, v_keys, d_max, rows] =
        ["BLOCK_Q", "V_MAX", "V_KEYS", "D_MAX", "ROWS"].map(|name| tune.get(name).unwrap_or(0));
    let vecs = match (block_q, d_max) {
        (0, _) if rows == 0 => 0,
        (0, d_max) => {
            let lanes = d_max / 8;
            64 * rows.max(2 * rows.min(4)) + 64 / lanes * rows * (lanes / rows).max(1)
        }
        _ => (block_q * 5 + 64 * 5).max(block_q * 17) + (v_keys * v_max / 4).max(block_q),
    };
    16 * vecs
}

/// Workgroups that keep an adapter busy, *unmeasured*: of a large GPU two for each of 96 compute units or more, of a small one an eighth.
fn wanted_groups(caps: &Caps) -> usize {
    match caps.kind {
        AdapterKind::Discrete => 384,
        AdapterKind::Software => 1,
        _ => 48,
    }
}

/// Parts of the keys: enough to keep the device busy, each worth the second pass.
pub(super) fn splits(caps: &Caps, problem: &Problem, choice: &Choice) -> usize {
    if !choice.decodes() || problem.batch_invariant {
        return 1;
    }
    let [_, groups] = Choice { splits: 1, ..*choice }.groups(problem);
    let seen = problem.window.iter().fold(problem.seq_q() as i64, |sum, side| sum + side);
    let keys = usize::try_from(seen).map_or(problem.seq_k(), |seen| seen.min(problem.seq_k()));
    (wanted_groups(caps) / groups.max(1)).min(keys / 256).clamp(1, 64)
}

/// A row of the table: a choice, or why not.
type Row = fn(&Caps, &Problem) -> Result<Choice, String>;

/// In order of preference: the first that does not refuse.
const ROWS: [(&str, Row); 4] =
    [("attention_direct", direct), ("attention_decode", decode), ("attention with 64 queries", large), ("attention", tiled)];

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
    (Choice { kernel: &ATTENTION, tune: &ATTENTION.tunes[0], splits: 1, reason: "" }, refused)
}

fn named(kernel: &'static Kernel, part: &str, problem: &Problem) -> Option<&'static Constants> {
    kernel.tunes.iter().find(|tune| tune.name.starts_with(part) && holds(tune, problem))
}

fn direct(caps: &Caps, problem: &Problem) -> Result<Choice, String> {
    if caps.kind != AdapterKind::Software {
        return Err("is for adapters that run on the CPU".into());
    }
    let tune = named(&ATTENTION_DIRECT, "d", problem).ok_or("holds heads of up to 128 columns")?;
    Ok(Choice { kernel: &ATTENTION_DIRECT, tune, splits: 1, reason: "a query a lane: keys and values are scalar loads" })
}

fn decode(caps: &Caps, problem: &Problem) -> Result<Choice, String> {
    if problem.batch_invariant {
        return Err("is chosen by the number of queries, which a batch-invariant result must not be".into());
    }
    // Of more each key would be read more often than by 32 queries of each head.
    if problem.seq_q() > 8 {
        return Err(format!("is for at most 8 queries, not {}", problem.seq_q()));
    }
    let rows = if problem.seq_q() * problem.heads_per_kv() <= 4 { "rows4" } else { "rows8" };
    let tune = named(&ATTENTION_DECODE, rows, problem).ok_or("holds heads of up to 256 columns")?;
    let choice = Choice { kernel: &ATTENTION_DECODE, tune, splits: 1, reason: "few queries are bound by reading k and v, once for all heads that share them" };
    Ok(Choice { splits: splits(caps, problem, &choice), ..choice })
}

fn large(caps: &Caps, problem: &Problem) -> Result<Choice, String> {
    let tune = named(&ATTENTION, "q64", problem).ok_or("holds values of up to 128 columns")?;
    fits(caps, tune)?;
    if problem.seq_q() <= 32 && !problem.batch_invariant {
        return Err("would be more than half outside of the queries".into());
    }
    Ok(Choice { kernel: &ATTENTION, tune, splits: 1, reason: "k and v are read half as often as by 32 queries; *unmeasured*" })
}

fn tiled(_: &Caps, problem: &Problem) -> Result<Choice, String> {
    let tune = ["q32", "q16"].iter().find_map(|part| named(&ATTENTION, part, problem)).ok_or("has no tune that holds the head")?;
    Ok(Choice { kernel: &ATTENTION, tune, splits: 1, reason: "the smallest registers that hold a row, in 16 KiB of workgroup memory" })
}
