//! Which kernel multiplies: a pure function of [`Caps`] and [`Problem`], row by row, each with its reason.

use super::Problem;
use super::gpu::{MATMUL, MATMUL_COOP, MATMUL_DIRECT, MATMUL_SKINNY, coop_serves, coop_tune};
use crate::gpu::{AdapterKind, Caps, Constants, Kernel};

/// A kernel, how it is built, and why.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// Makes the sums.
    pub kernel: &'static Kernel,
    /// Its tunables.
    pub tune: &'static Constants,
    /// Parts that k is cut into, added by a second pass; 1 for none.
    pub splits: usize,
    /// Whether `outᵀ = rhsᵀ · lhsᵀ` is computed instead.
    pub swapped: bool,
    /// Where the choice comes from.
    pub reason: &'static str,
}

/// A row of the table: a choice, or why not.
type Row = fn(&Caps, &Problem) -> Result<Choice, String>;

/// In order of preference: the first that does not refuse.
const ROWS: [(&str, Row); 5] =
    [("matmul_direct", direct), ("matmul_skinny", skinny), ("matmul_coop", coop), ("matmul_splitk", splitk), ("matmul", tiled)];

/// The choice, and what was refused before it.
pub(super) fn select(caps: &Caps, problem: &Problem) -> (Choice, Vec<(&'static str, String)>) {
    let mut refused = Vec::new();
    for (name, row) in ROWS {
        match row(caps, problem) {
            Ok(choice) => return (choice, refused),
            Err(why) => refused.push((name, why)),
        }
    }
    // The last row never refuses.
    (Choice { kernel: &MATMUL, tune: &MATMUL.tunes[0], splits: 1, swapped: false, reason: "" }, refused)
}

fn tune(kernel: &'static Kernel, name: &str) -> &'static Constants {
    kernel.tune(name).unwrap_or(&kernel.tunes[0])
}

/// `cargo bench --bench matmul -- 512x512x512`, on lavapipe: ARCHITECTURE.md has the figures.
fn direct(caps: &Caps, problem: &Problem) -> Result<Choice, String> {
    if caps.kind != AdapterKind::Software {
        return Err("is for adapters that run on the CPU".into());
    }
    let old = caps.mesa().is_some_and(|version| version < 26);
    let (name, reason) = match problem.m() {
        _ if problem.batch_invariant => ("rows8", "one for every m"),
        0..=2 => ("rows2", "rows that are not there cost as much as others: by arithmetic"),
        3..=8 => ("rows8", "rows that are not there cost as much as others: by arithmetic"),
        _ if old => ("rows8", "measured: 8 times naive on Mesa 25, where rows16 is slower"),
        _ => ("rows16", "measured: 36 times naive on Mesa 26; a gathered element is used for 16 rows"),
    };
    Ok(Choice { kernel: &MATMUL_DIRECT, tune: tune(&MATMUL_DIRECT, name), splits: 1, swapped: false, reason })
}

/// Bound by reading one operand once.
fn skinny(caps: &Caps, problem: &Problem) -> Result<Choice, String> {
    let (m, n) = (problem.m(), problem.n());
    if problem.batch_invariant {
        return Err("is chosen by m, which a batch-invariant product must not be".into());
    }
    if m.min(n) > 8 {
        return Err(format!("is for 8 rows or columns at the most, not {m} x {n}"));
    }
    let swapped = m > 8;
    if swapped && problem.epilogue.gate.is_some() {
        return Err("turns the operands for few columns, which a gated pair does not let it".into());
    }
    if swapped && problem.epilogue.accumulate {
        return Err("turns the operands for few columns, which accumulating does not let it".into());
    }
    if caps.workgroup_invocations < 256 {
        return Err(format!("takes 256 invocations a workgroup, not {}", caps.workgroup_invocations));
    }
    // Of what is computed: a few rows by one column stay as they are.
    let name = match if swapped { n } else { m } {
        0..=1 => "rows1",
        2..=4 => "rows4",
        _ => "rows8",
    };
    let reason = "few rows are bound by reading the other operand, once: an H100 read 2.7 TB/s of 8192 x 8192 in f32";
    let tune = tune(&MATMUL_SKINNY, name);
    // One workgroup would take seconds for a dot product of 2^28.
    let columns = if swapped { m } else { n }.div_ceil(tune.get("TILE_N").unwrap_or(1) as usize);
    let splits = (caps.busy_groups() / columns.saturating_mul(problem.batch()).max(1)).min(problem.k() / 4096).clamp(1, 32);
    Ok(Choice { kernel: &MATMUL_SKINNY, tune, splits, swapped, reason })
}

/// Matrix units.
fn coop(caps: &Caps, problem: &Problem) -> Result<Choice, String> {
    let tune = coop_tune(caps)?;
    coop_serves(problem)?;
    let reason = "matrix units: an H100 did 103 TFLOP/s of 4096³, and 37 in f32; gpu_stats has it at 0.84 of RDNA3's rate";
    let choice = Choice { kernel: &MATMUL_COOP, tune, splits: 1, swapped: false, reason };
    let [tile_m, tile_n] = ["TILE_M", "TILE_N"].map(|side| tune.get(side).unwrap_or(1) as usize);
    let (m, n) = (problem.m(), problem.n());
    if 2 * m < tile_m || 2 * n < tile_n {
        return Err(format!("has tiles of {tile_m} x {tile_n}, more than half outside of {m} x {n}"));
    }
    let (groups, wanted) = (groups(&choice, problem), caps.busy_groups());
    if 4 * groups < wanted {
        return Err(format!("would be {groups} workgroups, fewer than {}, a quarter of what keeps the device busy", wanted.div_ceil(4)));
    }
    Ok(choice)
}

/// Too few tiles for the device, and a long k.
fn splitk(caps: &Caps, problem: &Problem) -> Result<Choice, String> {
    if problem.batch_invariant {
        return Err("is chosen by m, which a batch-invariant product must not be".into());
    }
    let choice = tiled(caps, problem)?;
    let (groups, wanted) = (groups(&choice, problem), caps.busy_groups());
    if 2 * groups > wanted {
        return Err(format!("is for at most {} tiles, half of what keeps the device busy, not {groups}", wanted / 2));
    }
    let k = problem.k();
    // Each part at least as long as the second pass is worth.
    let splits = (wanted / groups.max(1)).min(k / 512).min(32);
    if splits < 2 {
        return Err(format!("is for a k of 1,024 or more, not {k}"));
    }
    Ok(Choice {
        splits,
        reason: "fewer tiles than compute units, and a long k: the parts run side by side; from where on is unmeasured",
        ..choice
    })
}

fn groups(choice: &Choice, problem: &Problem) -> usize {
    let gated = 1 + usize::from(problem.epilogue.gate.is_some());
    let [tile_m, tile_n] = ["TILE_M", "TILE_N"].map(|side| choice.tune.get(side).unwrap_or(1) as usize);
    problem.m().div_ceil(tile_m).saturating_mul(problem.n().div_ceil(tile_n / gated)).saturating_mul(problem.batch())
}

/// The largest tile that leaves no unit idle and little of itself outside.
fn tiled(caps: &Caps, problem: &Problem) -> Result<Choice, String> {
    let of = |name, reason| Choice { kernel: &MATMUL, tune: tune(&MATMUL, name), splits: 1, swapped: false, reason };
    let large =
        of("tile128", "the most reuse: an H100 did 37 TFLOP/s of 4096³, 30 by tile64; gpu_stats has it at 0.94 of RDNA2's FMA rate");
    Ok(match (problem.m(), problem.n()) {
        _ if problem.batch_invariant => of("tile64", "one for every m"),
        (0..=32, _) => of("tile32", "a taller tile would be mostly outside: by arithmetic, on any device"),
        (0..=64, _) | (_, 0..=64) => of("tile64", "a larger tile would be half outside: by arithmetic, on any device"),
        _ if caps.workgroup_invocations < 256 || caps.workgroup_bytes < 16 << 10 => of("tile64", "the device's limits"),
        // 64 sums and more do not fit beside their operands there (Intel: 128 registers of 8 lanes each, for 16 lanes).
        _ if caps.kind == AdapterKind::Integrated => of("tile64", "integrated GPUs have few registers a lane; unmeasured"),
        _ if groups(&large, problem) < caps.busy_groups() => of("tile64", "larger tiles would be too few for the device; unmeasured"),
        _ => large,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Epilogue, gpu::explain};
    use super::*;
    use crate::gpu::Backend;
    use crate::{DType, Layout};

    fn caps(name: &str, kind: AdapterKind) -> Caps {
        let driver = if name.starts_with("lavapipe 26") { "llvmpipe Mesa 26.1.6 (LLVM 21.1.8)" } else { "Mesa 25.0.7 (LLVM 15.0.6)" };
        Caps {
            name: name.into(),
            driver: driver.into(),
            kind,
            backend: Backend::Vulkan,
            throughput: kind.throughput(),
            ..Caps::webgpu_defaults()
        }
    }

    fn devices() -> Vec<(Caps, [&'static str; 6])> {
        let small = ["matmul_skinny.rows1", "matmul_skinny.rows8", "matmul.tile32", "matmul.tile64 x 24", "matmul.tile64", "matmul.tile64"];
        let large =
            ["matmul_skinny.rows1", "matmul_skinny.rows8", "matmul.tile32 x 6", "matmul.tile64 x 32", "matmul.tile64", "matmul.tile128"];
        let software = |some, many| ["matmul_direct.rows2", "matmul_direct.rows8", some, some, many, many];
        vec![
            (caps("AMD Radeon RX 6800 (RDNA2)", AdapterKind::Discrete), large),
            (caps("AMD Radeon RX 7900 XTX (RDNA3)", AdapterKind::Discrete), large),
            (caps("NVIDIA GeForce RTX 4090", AdapterKind::Discrete), large),
            (caps("Intel Iris Xe", AdapterKind::Integrated), small),
            (caps("Apple M2", AdapterKind::Integrated), small),
            (caps("Adreno 740", AdapterKind::Integrated), small),
            (
                Caps::webgpu_defaults(),
                ["matmul_skinny.rows1", "matmul_skinny.rows8", "matmul.tile32", "matmul.tile64 x 24", "matmul.tile128", "matmul.tile128"],
            ),
            (caps("lavapipe 26", AdapterKind::Software), software("matmul_direct.rows16", "matmul_direct.rows16")),
            (caps("lavapipe 25", AdapterKind::Software), software("matmul_direct.rows8", "matmul_direct.rows8")),
        ]
    }

    fn problem([m, n, k]: [usize; 3]) -> Problem {
        let dense = |dims: &[usize]| Layout::contiguous(dims).expect("a layout");
        let epilogue = Epilogue::NONE;
        Problem { dtypes: [DType::F32; 3], batch_invariant: false, out: dense(&[m, n]), lhs: dense(&[m, k]), rhs: dense(&[k, n]), epilogue }
    }

    fn name(choice: &Choice) -> String {
        let splits = if choice.splits > 1 { format!(" x {}", choice.splits) } else { String::new() };
        format!("{}.{}{splits}", choice.kernel.name, choice.tune.name)
    }

    /// A decoded token, a few of them, a short prompt, a long k, a square, a large one.
    const SHAPES: [[usize; 3]; 6] =
        [[1, 4096, 4096], [8, 4096, 4096], [24, 2048, 4096], [64, 64, 16_384], [1024, 1024, 1024], [4096, 4096, 4096]];

    #[test]
    fn every_device_has_its_kernel() {
        for (caps, wanted) in devices() {
            for (shape, wanted) in SHAPES.into_iter().zip(wanted) {
                let (choice, _) = select(&caps, &problem(shape));
                assert_eq!(name(&choice), wanted, "{} {shape:?}", caps.name);
                assert!(!choice.reason.is_empty());
            }
        }
    }

    /// Devices with cooperative matrices: their side, subgroups and workgroup memory, and the tune they take.
    fn cooperative() -> Vec<(Caps, &'static str)> {
        let with = |caps, cooperative, subgroups, kilobytes: u32| Caps {
            f16: true,
            subgroups: Some(subgroups),
            cooperative: Some(cooperative),
            workgroup_bytes: kilobytes << 10,
            workgroup_invocations: 1024,
            ..caps
        };
        vec![
            (with(caps("AMD Radeon RX 7900 XTX (RDNA3)", AdapterKind::Discrete), 16, (32, 64), 64), "matmul_coop.tile128wave64"),
            (with(caps("NVIDIA GeForce RTX 4090", AdapterKind::Discrete), 16, (32, 32), 48), "matmul_coop.tile128wave32"),
        ]
    }

    fn halves(shape: [usize; 3]) -> Problem {
        Problem { dtypes: [DType::F16; 3], ..problem(shape) }
    }

    #[test]
    fn matrices_serve_large_products_of_f16() {
        for (caps, wanted) in cooperative() {
            for shape in [[4096, 4096, 4096], [1000, 4096, 72], [2048, 1024, 8]] {
                let (choice, _) = select(&caps, &halves(shape));
                assert_eq!(name(&choice), wanted, "{} {shape:?}", caps.name);
            }
            let refused = |problem: &Problem, why: &str| {
                let (choice, refused) = select(&caps, problem);
                let said = refused.iter().find(|(name, _)| *name == "matmul_coop").map(|(_, why)| why.as_str()).unwrap_or_default();
                assert!(choice.kernel.name != "matmul_coop" && said.contains(why), "{}: {} for {why}: {said}", caps.name, name(&choice));
            };
            let large = [4096, 4096, 4096];
            refused(&problem(large), "f16 by f16, not f32 by f32");
            refused(&Problem { dtypes: [DType::F32, DType::F16, DType::F32], ..problem(large) }, "f16 by f16, not f16 by f32");
            refused(&halves([4096, 4096, 4100]), "whole eights of n and of k");
            refused(&halves([4096, 4100, 4096]), "whole eights of n and of k");
            refused(&halves([4096, 4096, 0]), "whole eights of n and of k");
            refused(&Problem { batch_invariant: true, ..halves(large) }, "batch-invariant");
            let odd = Layout::contiguous(&[4096, 4097]).and_then(|wide| wide.narrow(1, 1, 4096)).expect("a window");
            refused(&Problem { lhs: odd, ..halves(large) }, "whole eights");
            refused(&halves([12, 4096, 4096]), "more than half outside");
            refused(&halves([64, 64, 16_384]), "fewer than");
            // Where `out` lies is not asked: the bits are the same in any place.
            let (choice, _) = select(&caps, &Problem { out: odd, ..halves(large) });
            assert_eq!(name(&choice), wanted, "{}", caps.name);
        }
    }

    #[test]
    fn matrices_want_a_subgroup_for_each_slot() {
        let (rdna, _) = cooperative().swap_remove(0);
        for (caps, why) in [
            (Caps { cooperative: None, ..rdna.clone() }, "needs cooperative matrices"),
            (Caps { workgroup_bytes: 16 << 10, ..rdna.clone() }, "bytes of workgroup memory"),
            (Caps { workgroup_invocations: 64, ..rdna.clone() }, "invocations"),
            (Caps { subgroups: Some((32, 128)), ..rdna.clone() }, "for 4 subgroups"),
            (Caps { subgroups: None, ..rdna.clone() }, "for 4 subgroups"),
            (Caps { cooperative: Some(8), subgroups: Some((64, 64)), ..rdna.clone() }, "for 4 subgroups"),
            (Caps { backend: Backend::Metal, ..rdna.clone() }, "for Metal"),
        ] {
            let (choice, refused) = select(&caps, &halves([4096, 4096, 4096]));
            let said = refused.iter().find(|(name, _)| *name == "matmul_coop").map(|(_, why)| why.as_str()).unwrap_or_default();
            assert!(choice.kernel.name == "matmul" && said.contains(why), "{} for {why}: {said}", name(&choice));
        }
        // A pin of what cannot run is an error; of a tune that cannot, no more than a wish.
        let plan = |caps: &Caps, tune: &str| {
            super::super::gpu::plan(caps, Some((&MATMUL_COOP, super::tune(&MATMUL_COOP, tune)).into()), &halves([64, 64, 64]))
        };
        assert!(plan(&Caps::webgpu_defaults(), "tile128wave64").is_err_and(|error| error.to_string().contains("no cooperative matrices")));
        let kernel = |tune| plan(&rdna, tune).expect("a plan").dispatches[0].kernel.name;
        assert_eq!([kernel("tile128wave64"), kernel("tile64wave8"), kernel("tile128wave32")], ["matmul_coop", "matmul", "matmul"]);
    }

    #[test]
    fn batch_invariant_products_do_not_look_at_m() {
        for caps in devices().into_iter().map(|(caps, _)| caps).chain(cooperative().into_iter().map(|(caps, _)| caps)) {
            let choices = [1, 2, 8, 9, 33, 64, 200, 4096].map(|m| {
                [problem, halves].map(|problem| {
                    let (choice, _) = select(&caps, &Problem { batch_invariant: true, ..problem([m, 4096, 8192]) });
                    name(&choice)
                })
            });
            assert!(choices.iter().all(|choice| *choice == choices[0]), "{}: {choices:?}", caps.name);
        }
    }

    #[test]
    fn few_columns_turn_the_operands() {
        let (choice, _) = select(&caps("a GPU", AdapterKind::Discrete), &problem([4096, 4, 4096]));
        assert!(choice.swapped && name(&choice) == "matmul_skinny.rows4");
    }

    /// The few rows of a kernel are enough for those that it is given.
    #[test]
    fn few_rows_are_all_rows() {
        for (caps, _) in devices() {
            for (m, n) in (0..20).flat_map(|m| (1..20).map(move |n| (m, n))) {
                let (choice, _) = select(&caps, &problem([m, n, 40]));
                let rows = if choice.swapped { n } else { m };
                let most = if choice.kernel.name == "matmul_skinny" { choice.tune.get("ROWS").unwrap_or(0) as usize } else { usize::MAX };
                assert!(rows <= most, "{}: {} for {m} x {n}, swapped {}", caps.name, name(&choice), choice.swapped);
            }
        }
    }

    /// What is cut for a slow device is computed as the whole is (N4): by its kernel, in its order.
    #[test]
    fn parts_are_computed_as_the_whole() {
        let all = devices().into_iter().map(|(caps, _)| caps).chain(cooperative().into_iter().map(|(caps, _)| caps));
        for caps in all {
            let slow = Caps { throughput: crate::gpu::Throughput { flops: 1 << 30, bytes: 1 << 24 }, ..caps.clone() };
            // Columns that are no whole eights, and whose first half is.
            let rhs = Layout::contiguous(&[4003, 4096]).and_then(|rows| rows.transpose(0, 1)).expect("a layout");
            let logits = Problem { rhs, ..problem([1, 4003, 4096]) };
            for problem in SHAPES.map(problem).into_iter().chain(SHAPES.map(halves)).chain([
                problem([16, 16, 400_000]),
                problem([30_001, 5, 904]),
                logits,
            ]) {
                let specs = |caps: &Caps| {
                    let plan = super::super::gpu::plan(caps, None, &problem).expect("a plan");
                    let mut specs: Vec<_> = plan.dispatches.iter().map(|d| format!("{}.{}", d.kernel.name, d.spec)).collect();
                    (specs.len(), specs.sort(), specs.dedup(), specs)
                };
                let ((few, _, _, whole), (many, _, _, parts)) = (specs(&caps), specs(&slow));
                assert!(parts == whole && many > few, "{}: {few} of {whole:?}, {many} of {parts:?}", caps.name);
            }
        }
    }

    #[test]
    fn explain_says_what_why_and_what_not() {
        let text = explain(&problem([64, 64, 16_384]), &caps("a GPU", AdapterKind::Discrete)).expect("a plan").to_string();
        for part in [
            "matmul.f32.tile64.vector",
            "matmul_splitk.f32",
            "32 parts of k",
            "unmeasured",
            "not matmul_direct, which is for",
            "not matmul_skinny, which is for",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }
}
