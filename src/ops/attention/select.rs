//! Which kernel attends: a pure function of [`Caps`] and [`Problem`], row by row, each with its reason.

use super::Problem;
use super::gpu::{ATTENTION, ATTENTION_DECODE, ATTENTION_DIRECT, ATTENTION_SUBGROUPS, fits};
use crate::gpu::{AdapterKind, Caps, Constants, Kernel, Needs};

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
            false if self.get("BLOCK_Q") > 0 => 64,
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
    let [block_q, v_max, v_keys, d_max, rows] = ["BLOCK_Q", "V_MAX", "V_KEYS", "D_MAX", "ROWS"].map(|name| tune.get(name).unwrap_or(0));
    let vecs = match (block_q, d_max) {
        (0, _) if rows == 0 => 0,
        (0, d_max) => {
            let lanes = d_max / 8;
            // With options one more a slot and row, for dropout.
            64 * rows.max(2 * rows.min(4)) + 64 / lanes * rows * ((lanes / rows).max(1) + 1)
        }
        _ => (block_q * 5 + 64 * 5).max(block_q * 17) + (v_keys * v_max / 4).max(block_q),
    };
    16 * vecs
}

/// Parts of the keys: enough to keep the device busy, each worth the second pass.
pub(super) fn splits(caps: &Caps, problem: &Problem, choice: &Choice) -> usize {
    if !choice.decodes() || problem.batch_invariant {
        return 1;
    }
    let [_, groups] = Choice { splits: 1, ..*choice }.groups(problem);
    let seen = problem.window.iter().fold(problem.seq_q() as i64, |sum, side| sum + side);
    let keys = usize::try_from(seen).map_or(problem.seq_k(), |seen| seen.min(problem.seq_k()));
    // Workgroups of 64: twice as many as others would be.
    let splits = (2 * caps.busy_groups() / groups.max(1)).min(keys / 256).clamp(1, 64);
    // Parts begin where steps do: no more than have keys.
    problem.seq_k().div_ceil(Choice { splits, ..*choice }.chunk(problem).max(1)).max(1)
}

/// A row of the table: a choice, or why not.
type Row = fn(&Caps, &Problem) -> Result<Choice, String>;

/// In order of preference: the first that does not refuse.
const ROWS: [(&str, Row); 6] = [
    ("attention_direct", direct),
    ("attention_decode", decode),
    ("attention_subgroups with 64 queries", |caps, problem| large(caps, problem, &ATTENTION_SUBGROUPS)),
    ("attention with 64 queries", |caps, problem| large(caps, problem, &ATTENTION)),
    ("attention_subgroups", |caps, problem| tiled(caps, problem, &ATTENTION_SUBGROUPS)),
    ("attention", |caps, problem| tiled(caps, problem, &ATTENTION)),
];

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

/// `cargo bench --bench attention -- '(yardstick.matmul|direct[^/]*|decode[^/]*|attention.q32v64)/f32/'` on lavapipe.
fn direct(caps: &Caps, problem: &Problem) -> Result<Choice, String> {
    if caps.kind != AdapterKind::Software {
        return Err("is for adapters that run on the CPU".into());
    }
    if problem.seq_q() <= 4 && !problem.batch_invariant {
        return Err("has lanes for 16 queries: one is 2.6 times as slow as by attention_decode".into());
    }
    // What is written out for four queries takes Mesa 25 8 s to compile, for two 3.
    let four = if caps.mesa().is_some_and(|version| version < 26) { None } else { named(&ATTENTION_DIRECT, "q4", problem) };
    let (tune, reason) = match four {
        Some(tune) => (
            tune,
            "measured: a query a lane, keys and values by scalar loads; 0.77 of the matmul's rate on Mesa 26, which compiles it in 1 s",
        ),
        None => (
            named(&ATTENTION_DIRECT, "q2", problem).ok_or("holds heads of up to 128 columns")?,
            "measured: a query a lane, keys and values by scalar loads; 0.59 of the matmul's rate on Mesa 25, which compiles it in 3 s",
        ),
    };
    Ok(Choice { kernel: &ATTENTION_DIRECT, tune, splits: 1, reason })
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
    let choice = Choice {
        kernel: &ATTENTION_DECODE,
        tune,
        splits: 1,
        reason: "few queries are bound by reading k and v, once for up to eight rows of the heads that share them",
    };
    Ok(Choice { splits: splits(caps, problem, &choice), ..choice })
}

fn large(caps: &Caps, problem: &Problem, kernel: &'static Kernel) -> Result<Choice, String> {
    let tune = named(kernel, "q64", problem).ok_or("holds values of up to 128 columns")?;
    fits(caps, kernel, tune)?;
    if problem.seq_q() <= 32 && !problem.batch_invariant {
        return Err("would be more than half outside of the queries".into());
    }
    let reason = match kernel.needs {
        Needs::Subgroups => {
            "k and v are read half as often as by 32 queries, three barriers less a step; *unmeasured* on cards, 1.11 times attention on lavapipe"
        }
        _ => "k and v are read half as often as by 32 queries; *unmeasured*",
    };
    Ok(Choice { kernel, tune, splits: 1, reason })
}

fn tiled(caps: &Caps, problem: &Problem, kernel: &'static Kernel) -> Result<Choice, String> {
    let tune = ["q32", "q16"].iter().find_map(|part| named(kernel, part, problem)).ok_or("has no tune that holds the head")?;
    let reason = match kernel.needs {
        Needs::Subgroups => {
            fits(caps, kernel, tune)?;
            "the smallest registers that hold a row, in 16 KiB of workgroup memory; three barriers less a step: *unmeasured* on cards, 1.05 times attention on lavapipe"
        }
        // Never refused: what it takes every device has.
        _ => "the smallest registers that hold a row, in 16 KiB of workgroup memory",
    };
    Ok(Choice { kernel, tune, splits: 1, reason })
}

#[cfg(test)]
mod tests {
    use super::super::gpu::{blocks, explain};
    use super::*;
    use crate::{DType, Layout};

    fn problem([heads, kv_heads, seq_q, seq_k, dim]: [usize; 5]) -> Problem {
        let layout = |heads, seq| Layout::contiguous(&[1, heads, seq, dim]).expect("a small shape");
        Problem::new([DType::F32; 4], layout(heads, seq_q), layout(heads, seq_q), layout(kv_heads, seq_k), layout(kv_heads, seq_k))
    }

    fn caps(kind: AdapterKind, workgroup_bytes: u32, driver: &str) -> Caps {
        Caps { kind, workgroup_bytes, driver: driver.into(), ..Caps::webgpu_defaults() }
    }

    fn name(choice: &Choice) -> String {
        format!("{}.{}x{}", choice.kernel.name, choice.tune.name, choice.splits)
    }

    #[test]
    fn each_has_its_kernel() {
        let (card, small) = (caps(AdapterKind::Discrete, 32 << 10, ""), caps(AdapterKind::Integrated, 16 << 10, ""));
        let (new, old) = (caps(AdapterKind::Software, 32 << 10, "Mesa 26.1"), caps(AdapterKind::Software, 32 << 10, "Mesa 25.0"));
        let shuffling = Caps { subgroups: Some((32, 32)), ..card.clone() };
        // One of 64 and 128 lanes: workgroups of 64 are not whole subgroups.
        let wide = Caps { subgroups: Some((64, 128)), ..card.clone() };
        for (caps, shape, wanted) in [
            (&shuffling, [8, 8, 1024, 1024, 64], "attention_subgroups.q64v64x1"),
            (&shuffling, [8, 8, 20, 1024, 128], "attention_subgroups.q32v128x1"),
            (&shuffling, [8, 8, 1024, 1024, 200], "attention.q32v256x1"),
            (&shuffling, [8, 8, 1, 300, 64], "attention_decode.rows4d64x1"),
            (&wide, [8, 8, 1024, 1024, 64], "attention_subgroups.q64v64x1"),
            (&wide, [8, 8, 20, 1024, 64], "attention.q32v64x1"),
            (&card, [8, 8, 1024, 1024, 64], "attention.q64v64x1"),
            (&card, [8, 2, 1024, 1024, 128], "attention.q64v128x1"),
            (&card, [8, 2, 20, 1024, 128], "attention.q32v128x1"),
            (&small, [8, 2, 1024, 1024, 80], "attention.q32v128x1"),
            (&card, [8, 8, 1024, 1024, 256], "attention.q32v256x1"),
            (&card, [8, 8, 1024, 1024, 512], "attention.q16v512x1"),
            (&card, [32, 8, 1, 8192, 128], "attention_decode.rows4d128x32"),
            (&card, [28, 4, 1, 8192, 128], "attention_decode.rows8d128x32"),
            (&card, [28, 4, 1, 300, 128], "attention_decode.rows8d128x1"),
            (&card, [8, 8, 9, 300, 128], "attention.q32v128x1"),
            (&small, [32, 8, 1, 8192, 64], "attention_decode.rows4d64x6"),
            (&new, [8, 8, 256, 256, 64], "attention_direct.q4d64x1"),
            (&old, [8, 8, 256, 256, 64], "attention_direct.q2d64x1"),
            (&new, [8, 8, 256, 256, 128], "attention_direct.q2d128x1"),
            (&new, [8, 8, 1, 256, 128], "attention_decode.rows4d128x1"),
            (&new, [8, 8, 256, 256, 256], "attention.q32v256x1"),
        ] {
            let problem = problem(shape);
            let (choice, _) = select(caps, &problem);
            assert_eq!(name(&choice), wanted, "{shape:?}");
            assert!(holds(choice.tune, &problem) && fits(caps, choice.kernel, choice.tune).is_ok());
        }
    }

    /// All that can be asked for has a kernel in WebGPU's default limits, and parts cover the keys.
    #[test]
    fn always_some() {
        for kind in [AdapterKind::Discrete, AdapterKind::Software] {
            let caps = caps(kind, 16 << 10, "");
            for dim in 1..=super::super::MAX_HEAD_DIM {
                for (seq_q, seq_k) in [(1, 5), (1, 70_001), (8, 4096), (100, 100)] {
                    for batch_invariant in [false, true] {
                        let problem = Problem { batch_invariant, ..problem([4, 2, seq_q, seq_k, dim]) };
                        let (choice, _) = select(&caps, &problem);
                        assert!(
                            holds(choice.tune, &problem) && fits(&caps, choice.kernel, choice.tune).is_ok(),
                            "{dim}: {}",
                            name(&choice)
                        );
                        assert!(choice.splits * choice.chunk(&problem) >= seq_k && (choice.splits - 1) * choice.chunk(&problem) < seq_k);
                    }
                }
            }
        }
    }

    /// With batch invariance the choice does not depend on the queries.
    #[test]
    fn one_for_every_number_of_queries() {
        for kind in [AdapterKind::Discrete, AdapterKind::Software] {
            let names: Vec<String> = (1..300)
                .map(|seq_q| {
                    let problem = Problem { batch_invariant: true, ..problem([4, 2, seq_q, 4096, 64]) };
                    name(&select(&caps(kind, 32 << 10, ""), &problem).0)
                })
                .collect();
            assert!(names.windows(2).all(|pair| pair[0] == pair[1]), "{names:?}");
        }
    }

    /// What is masked by its place is skipped by blocks.
    #[test]
    fn masked_blocks_are_skipped() {
        let card = caps(AdapterKind::Discrete, 32 << 10, "");
        let full = problem([2, 2, 1024, 1024, 64]);
        let (choice, _) = select(&card, &full);
        assert_eq!((choice.block_q(), choice.block_k()), (64, 64));
        assert_eq!(blocks(&full, &choice), (512, 512));
        let causal = Problem { window: [super::super::ALL, 0], ..full.clone() };
        // 1 + 2 + .. + 16 of 16 x 16, twice.
        assert_eq!(blocks(&causal, &choice), (2 * 136, 512));
        let window = Problem { window: [63, 0], ..full.clone() };
        assert_eq!(blocks(&window, &choice), (2 * 31, 512));
        let text = explain(&causal, &card).expect("a plan").to_string();
        for part in ["attention.q64v64", "272 of 512 blocks of 64 queries by 64 keys", "not attention_decode", "unmeasured"] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        let decode = problem([28, 4, 1, 8192, 128]);
        let text = explain(&decode, &card).expect("a plan").to_string();
        assert!(text.contains("32 parts of the keys") && text.contains("attention_reduce.f32"), "{text}");
    }
}
