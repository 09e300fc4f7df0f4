//! Gates on what AMD's compiler makes of every kernel × spec that a card may run, without one (`stats`): no spills, no scratch, workgroup memory
//! within WebGPU's default (of matrix kernels, 32 KiB), 16 bytes an access and how much of the time goes into FMAs where they are named.
//!
//! Skips itself where there is no such driver, unless `GRISTMILL_REQUIRE_STATS` is 1; 0 skips it in any case.
//! `cargo run --release --example gpu_stats` prints the figures.

#[allow(dead_code, reason = "the example shows more of it")]
mod stats;

use gristmill::gpu::{Caps, Needs};
use gristmill::ops;
use libtest_mimic::{Arguments, Failed, Trial};
use stats::{FAMILIES, Failure, Job, Row, isa};

/// Specs of a kernel, by a part of their name, and the least eff of each on a family: just under what the worst of them has.
type Gate = (&'static str, &'static str, &'static str, f64);

const GATES: &[Gate] = &[
    ("matmul", ".f32.tile128.vector", "navi21", 0.92),
    ("matmul", ".f32.tile128.vector", "navi31", 0.88),
    ("matmul", ".f32.tile128.vector", "vega10", 0.92),
    ("matmul", ".f32.tile64.vector", "navi21", 0.83),
    ("matmul", ".f32.tile64.vector", "navi31", 0.83),
    ("matmul", ".f32.tile64.vector", "vega10", 0.83),
    ("matmul", "f16.tile128.vector", "navi21", 0.78),
    ("matmul", "f16.tile128.vector", "navi31", 0.68),
    ("matmul", "f16.tile128.vector", "vega10", 0.77),
    // Of what writes least outside the loop, which is the same in all of them.
    ("matmul_coop", "f32-f16-f16-f16-f32-f32-f32.tile128wave64.vector", "navi31", 0.84),
    ("matmul_coop", "f16.tile128wave64.vector", "navi31", 0.70),
    ("attention", ".f32.q64v64.vector", "navi21", 0.88),
    ("attention", ".f32.q64v64.vector", "navi31", 0.85),
    ("attention", ".f32.q64v64.vector", "vega10", 0.85),
    ("attention", ".f32.q64v128.vector", "navi21", 0.92),
    ("attention", ".f32.q64v128.vector", "navi31", 0.89),
    ("attention", ".f32.q64v128.vector", "vega10", 0.70),
    // Three barriers less a step, which the figure does not know; the maxima of RDNA3 that shuffle take two cycles instead of one.
    ("attention_subgroups", ".f32.q64v64.vector", "navi21", 0.88),
    ("attention_subgroups", ".f32.q64v64.vector", "navi31", 0.85),
    ("attention_subgroups", ".f32.q64v128.vector", "navi21", 0.92),
    ("attention_subgroups", ".f32.q64v128.vector", "navi31", 0.89),
    // In 16 KiB.
    ("attention", ".f32.q32v64.vector", "navi21", 0.88),
    ("attention", ".f32.q32v64.vector", "navi31", 0.84),
    ("attention", ".f32.q32v128.vector", "navi21", 0.88),
    ("attention", ".f32.q32v128.vector", "navi31", 0.84),
];

/// Kernels whose specs of the vector width reach memory by 16 bytes alone in their main loops, but for specs with that in their name, and but for as many
/// loads and stores: a row's sink, and the logarithms of eight rows' sums.
const WIDE: &[(&str, &str, usize, usize)] = &[
    ("softmax", "any", 1, 0),
    ("softmax_in_place", "any", 1, 0),
    ("attention_decode", ".options.", 0, 8),
    ("attention", ".options.", 0, 8),
    ("attention_subgroups", ".options.", 0, 8),
];

/// Kernels that are never chosen on a card: they are for adapters that run on the CPU, and keep their sums in its cache.
const ON_THE_CPU: &[&str] = &["attention_direct", "matmul_direct"];

/// Specs of a kernel, and the bytes of scratch that a wave of some of them takes.
type Scratch = (&'static str, &'static str, u64);

const SCRATCH: &[Scratch] = &[
    // The output's 32 vec4s: ACO leaves some of the loops over them rolled.
    ("attention", "v512", 32768),
];

/// Specs of a kernel that take up to 32 KiB of workgroup memory; the kernel's choice looks whether a device has it.
const LARGE: &[(&str, &str)] = &[("attention", ".q64"), ("attention_subgroups", ".q64")];

/// What is wrong with the rows of a family.
fn judge(family: &str, rows: &[Row], gates: &[Gate], scratch: &[Scratch]) -> Vec<String> {
    // A part that begins with a dot is where the spec begins.
    let is = |row: &Row, kernel: &str, part: &str| row.kernel == kernel && format!(".{}", row.spec).contains(part);
    let mut problems = Vec::new();
    for row in rows {
        let allowed = scratch.iter().filter(|(kernel, part, _)| is(row, kernel, part)).map(|(.., bytes)| *bytes).max();
        // A device with cooperative matrices has 32 KiB or more; `matmul::gpu::cooperates` looks.
        let needy = ops::kernels().iter().any(|kernel| kernel.name == row.kernel && kernel.needs == Needs::Matrices);
        let large = needy || LARGE.iter().any(|(kernel, part)| is(row, kernel, part));
        let memory = if large { 32 << 10 } else { Caps::webgpu_defaults().workgroup_bytes };
        let loop_accesses = [&row.facts.loads, &row.facts.lds_loads, &row.facts.lds_stores];
        let narrow: usize = loop_accesses.iter().flat_map(|widths| widths.range(..4)).map(|(_, count)| count).sum();
        let wide = WIDE.iter().find(|(kernel, but, ..)| row.kernel == *kernel && row.spec.ends_with(".vector") && !row.spec.contains(but));
        let below = |widths: &isa::Widths| widths.range(..16).map(|(_, count)| count).sum::<usize>();
        let loads = wide.map_or(0, |(_, _, allowed, _)| below(&row.facts.loads).saturating_sub(*allowed));
        let stores = wide.map_or(0, |(.., allowed)| below(&row.facts.stores).saturating_sub(*allowed));
        let limits = [
            ("loads under 16 bytes too many", loads as u64, 0),
            ("stores under 16 bytes", stores as u64, 0),
            ("narrow accesses beside matrix instructions", if row.facts.wmma > 0 { narrow as u64 } else { 0 }, 0),
            ("VGPR spills", row.spilled_vgprs, 0),
            ("SGPR spills", row.spilled_sgprs, 0),
            ("bytes of scratch", row.scratch_bytes, allowed.unwrap_or(0)),
            ("bytes of workgroup memory", row.lds_bytes, memory.into()),
        ];
        let over = limits.iter().filter(|(_, found, limit)| found > limit);
        problems.extend(over.map(|(what, found, limit)| format!("{}.{}: {found} {what}, of {limit} at the most", row.kernel, row.spec)));
    }
    for (kernel, part, _, least) in gates.iter().filter(|gate| gate.2 == family) {
        let held: Vec<&Row> = rows.iter().filter(|row| is(row, kernel, part)).collect();
        if held.is_empty() {
            problems.push(format!("{kernel} has no *{part}*, which a gate is for"));
        }
        let low = held.iter().map(|row| (row, row.eff.unwrap_or(0.0))).filter(|(_, eff)| eff < least);
        problems.extend(low.map(|(row, eff)| format!("{kernel}.{}: eff {eff:.3}, of {least} at the least", row.spec)));
    }
    let idle = scratch.iter().filter(|(kernel, part, bytes)| !rows.iter().any(|row| is(row, kernel, part) && row.scratch_bytes == *bytes));
    problems.extend(idle.map(|(kernel, part, bytes)| format!("no {kernel}.*{part}* takes the {bytes} bytes of scratch that are allowed")));
    problems
}

fn verdict(problems: &[String]) -> Result<(), Failed> {
    if problems.is_empty() { Ok(()) } else { Err(format!("{} problems:\n{}", problems.len(), problems.join("\n")).into()) }
}

/// Every kernel × spec on one family.
fn holds(family: &str) -> Result<(), Failed> {
    let required = std::env::var("GRISTMILL_REQUIRE_STATS").unwrap_or_default();
    if required == "0" {
        println!("skipped on {family}: GRISTMILL_REQUIRE_STATS=0");
        return Ok(());
    }
    let all = ops::kernels()
        .iter()
        .filter(|kernel| !ON_THE_CPU.contains(&kernel.name))
        .flat_map(|kernel| kernel.specs().map(move |spec| (kernel, spec)));
    let able = all.filter(|(kernel, spec)| stats::offers(family, kernel, spec));
    let jobs = able.map(|(kernel, spec)| Job::of(kernel, &spec)).collect::<Result<Vec<Job>, String>>()?;
    let results = match stats::measure(family, &jobs) {
        Err(failure @ Failure::NoDriver(_)) if required != "1" => {
            println!("skipped on {family}: {failure}");
            return Ok(());
        }
        results => results?,
    };
    let mut problems: Vec<String> = results.iter().filter_map(|result| result.as_ref().err().cloned()).collect();
    let rows: Vec<Row> = results.into_iter().flatten().collect();
    problems.extend(judge(family, &rows, GATES, SCRATCH));
    println!("{family}: {} shaders", rows.len());
    verdict(&problems)
}

/// Each limit is one that a row can break.
fn bites() -> Result<(), Failed> {
    let good = || Row { kernel: "toy".into(), spec: "f32.tile64.vector".into(), lds_bytes: 16384, eff: Some(0.9), ..Row::default() };
    let with = |change: fn(&mut Row)| {
        let mut row = good();
        change(&mut row);
        row
    };
    let gates: &[Gate] = &[("toy", "tile64.vector", "navi21", 0.9), ("toy", "tile64.vector", "navi31", 0.95)];
    let of = |row: Row| judge("navi21", &[row], gates, &[]);
    let cases = [
        (of(good()), ""),
        (of(with(|row| row.eff = Some(0.89))), "eff 0.890, of 0.9 at the least"),
        (of(with(|row| row.eff = None)), "eff 0.000, of 0.9 at the least"),
        (of(with(|row| row.spilled_vgprs = 1)), "1 VGPR spills, of 0 at the most"),
        (of(with(|row| row.spilled_sgprs = 2)), "2 SGPR spills, of 0 at the most"),
        (
            of(with(|row| {
                row.facts.wmma = 1;
                row.facts.lds_loads.insert(2, 3);
            })),
            "3 narrow accesses beside matrix instructions, of 0 at the most",
        ),
        (
            judge(
                "vega10",
                &[with(|row| {
                    row.kernel = "softmax".into();
                    row.facts.loads.insert(4, 2);
                })],
                &[],
                &[],
            ),
            "1 loads under 16 bytes too many, of 0 at the most",
        ),
        (
            judge(
                "vega10",
                &[with(|row| {
                    row.kernel = "softmax".into();
                    row.facts.stores.insert(8, 1);
                })],
                &[],
                &[],
            ),
            "1 stores under 16 bytes, of 0 at the most",
        ),
        (of(with(|row| row.scratch_bytes = 4)), "4 bytes of scratch, of 0 at the most"),
        (of(with(|row| row.lds_bytes += 1)), "16385 bytes of workgroup memory, of 16384 at the most"),
        (of(with(|row| row.spec = "f32.tile64".into())), "toy has no *tile64.vector*"),
        (judge("navi31", &[good()], gates, &[]), "eff 0.900, of 0.95 at the least"),
        (judge("vega10", &[good()], gates, &[("toy", "vector", 8)]), "no toy.*vector* takes the 8 bytes"),
        (judge("vega10", &[with(|row| row.scratch_bytes = 8)], gates, &[("toy", "vector", 8)]), ""),
        (judge("vega10", &[with(|row| row.scratch_bytes = 9)], gates, &[("toy", "tile64", 8), ("toy", "f32", 9)]), "no toy.*tile64*"),
    ];
    let wrong = cases.iter().filter(|(found, wanted)| match found.as_slice() {
        [] => !wanted.is_empty(),
        [one] => wanted.is_empty() || !one.contains(wanted),
        _ => true,
    });
    verdict(&wrong.map(|(found, wanted)| format!("`{wanted}`, not {found:?}")).collect::<Vec<_>>())
}

/// An outer loop with a nested one, a `continue`, an `if` in it and an `else`, below an early return.
const LOOPS: &str = "BB0:
\ts_cmp_ge_u32 s1, s0 ; bf090001
\ts_cbranch_scc1 BB9
BB1:
\ts_cbranch_scc1 BB8
\tbuffer_load_b128 v[24:27], v20, s[12:15], 0 offen
\tbuffer_load_dword v1, v20, s[12:15], 0 offen
\tv_fmac_f32_e32 v1, v2, v3
\tv_fma_mix_f32 v1, v2, v3, v4 op_sel_hi:[1,0,0]
BB2:
\tds_load_2addr_b64 v[1:4], v5
\tv_dual_fmac_f32 v1, v2, v3 :: v_dual_mul_f32 v4, v5, v6
\tv_dual_fmac_f32 v1, v2, v3 :: v_dual_fmac_f32 v4, v5, v6
\tv_pk_fma_f16 v1, v2, v3, v4
\ts_cbranch_scc0 BB2
\ts_cbranch_scc0 BB4
\tv_fma_f32 v1, v2, v3, v4
\tv_mad_u32_u24 v1, v2, v3, v4
\ts_branch BB5
BB4:
\ts_cbranch_execz BB5
\tv_mad_f32 v1, v2, v3, v4
BB5:
\tv_fma_mixlo_f16 v1, 1.0, v2, neg(0) op_sel_hi:[0,0,1]
\tv_fma_mix_f32 v1, v2, 1.0, neg(0) op_sel_hi:[1,0,0]
\ts_cbranch_scc1 BB1
\tds_write_b32 v1, v2
\ts_branch BB1
BB8:
\tglobal_store_dwordx4 v[0:1], v[2:5], off
\tds_write_b128 v1, v[2:5]
\tv_fma_f32 v1, v2, v3, v4
BB9:
\ts_endpgm
";

/// The loops of a text are found, and weighed as ACO does.
fn reads() -> Result<(), Failed> {
    let facts = isa::facts(LOOPS);
    let widths = |pairs: &[(u32, usize)]| pairs.iter().copied().collect::<isa::Widths>();
    let mut problems = Vec::new();
    let mut check = |holds: bool, what: &str| {
        if !holds {
            problems.push(format!("{what}: {facts:?}"))
        }
    };
    check((facts.fma, facts.wmma, facts.depth) == (5, 0, 2), "the main loop");
    // The early return halves all of it; the nested loop runs four times, the `if` half the time, what is divergent in the `else` 3/8 of it.
    check((facts.trip_fma - 0.5 * (2.0 + 4.0 * 5.0 + 0.5 + 0.375)).abs() < 1e-9, "FMAs of a trip");
    check(facts.loads == widths(&[(16, 1), (4, 1)]) && facts.stores == widths(&[(16, 1)]), "accesses");
    check(facts.lds_loads == widths(&[(16, 1)]) && facts.lds_stores == widths(&[(4, 1)]), "workgroup memory");
    let matrix =
        isa::facts("BB0:\n\tv_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]\n\tv_fma_f32 v1, v2, v3, v4\n\ts_branch BB0\n");
    check((matrix.wmma, matrix.trip_wmma, matrix.depth) == (1, 1.0, 1), "a matrix instruction");
    let straight = isa::facts("BB0:\n\tv_fma_f32 v1, v2, v3, v4\n\tglobal_load_b32 v0, v1, s[0:1]\n\ts_endpgm\n");
    check((straight.fma, straight.depth, straight.trip_fma) == (0, 0, 0.0) && straight.loads == widths(&[(4, 1)]), "no loop");
    verdict(&problems)
}

fn main() {
    stats::child();
    let families = FAMILIES.iter().map(|&family| Trial::test(format!("gates::{family}"), move || holds(family)));
    let own = [Trial::test("gates::bite", bites), Trial::test("isa::reads", reads)];
    libtest_mimic::run(&Arguments::from_args(), families.chain(own).collect()).exit();
}
