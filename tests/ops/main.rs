//! The oracle: every op, kernel and spec on every device, against a naive f64 reference.
//!
//! One binary, so that devices are opened once. `GRISTMILL_TEST_MATRIX=smoke|quick|full` says how much, `GRISTMILL_REQUIRE_GPU=1` (or a
//! list of backends) makes an absent adapter a failure. An op joins with a file like `copy.rs` and a line in `main`.
//! `GRISTMILL_TEST_BACKENDS=gl` tests on no others: trials of one backend take turns, and threads that wait for one leave a core idle.
//!
//! For the mutation run, which starts it a thousand times:
//! - `GRISTMILL_TEST_ONLY=NAME`: on no device but the first whose name begins with that; no other is opened.
//! - `GRISTMILL_TEST_OPS=copy,cast`: no trials but those of these files, in this order.
//! - `GRISTMILL_TEST_SUITES=masks,pairs`: of those files no trials but these, in this order.
//! - `GRISTMILL_TEST_KERNEL=attention_decode`: that kernel alone, where its op has a choice.
//! - `GRISTMILL_TEST_FAIL_FAST=1`: the smoke subset first, then the matrix; the first failure prints `failed: …` and ends the process. Every
//!   comparison prints a line, so that silence is a hang. Run it with `--test-threads=1`.

mod attention;
mod binary;
#[cfg(feature = "gpu")]
mod callers;
mod cast;
mod compare;
mod copy;
mod errors;
mod gather;
mod matmul;
#[cfg(feature = "gpu")]
mod memory;
mod reduce;
mod rope;
mod softmax;
mod support;
mod tensor;
mod unary;
mod where_cond;

use libtest_mimic::{Arguments, Trial};

use support::devices::{backends, fail_fast, only, subjects};

/// Comparisons that each op must have had on each device that was tested, at the least.
/// About two thirds of what there are, in the smoke subset and else.
const FLOORS: &[(&str, usize, usize)] = &[
    ("abs", 26_000, 11_000_000),
    ("add", 18_000, 11_000_000),
    ("amax", 2_200, 5_000),
    ("amin", 2_200, 3_000),
    ("argmax", 980, 2_700),
    ("argmin", 990, 5_600),
    ("attention", 590_000, 2_700_000),
    ("cast", 1_500_000, 3_900_000),
    ("clamp", 590_000, 1_800_000),
    ("concat", 1_000, 2_600),
    ("copy", 17_000, 46_000),
    ("div", 4_900, 20_000),
    ("eq", 700_000, 710_000),
    ("erf", 28_000, 660_000),
    ("exp", 33_000, 630_000),
    ("gather", 25_000, 100_000),
    ("ge", 7_500, 710_000),
    ("gelu", 25_000, 620_000),
    ("gelu_tanh", 28_000, 620_000),
    ("gt", 700_000, 710_000),
    ("hard_swish", 25_000, 620_000),
    ("le", 13_000, 740_000),
    ("log", 12_000, 310_000),
    ("log_softmax", 260_000, 580_000),
    ("lt", 700_000, 710_000),
    ("matmul", 360_000, 2_200_000),
    ("max", 4_900, 39_000),
    ("merge_attention", 9_000, 10_000),
    ("mean", 2_100, 2_400),
    ("min", 4_900, 20_000),
    ("mul", 5_700, 23_000),
    ("ne", 8_000, 710_000),
    ("neg", 540_000, 620_000),
    ("pow", 5_000, 20_000),
    ("relu", 26_000, 620_000),
    ("rope", 730_000, 2_400_000),
    ("rsqrt", 270_000, 310_000),
    ("sigmoid", 540_000, 620_000),
    ("silu", 25_000, 620_000),
    ("softmax", 290_000, 5_200_000),
    ("softplus", 25_000, 620_000),
    ("sqrt", 14_000, 320_000),
    ("sub", 5_700, 22_000),
    ("sum", 2_400, 91_000),
    ("tanh", 25_000, 630_000),
    ("where_cond", 22_000, 100_000),
];

/// A file's name, and its trials.
type File = (&'static str, fn() -> Vec<Trial>);

const FILES: &[File] = &[
    ("attention", attention::all),
    ("binary", binary::all),
    #[cfg(feature = "gpu")]
    ("callers", callers::all),
    ("cast", cast::all),
    ("compare", compare::all),
    ("copy", copy::all),
    ("errors", errors::all),
    ("gather", gather::all),
    ("matmul", matmul::all),
    #[cfg(feature = "gpu")]
    ("memory", memory::all),
    ("reduce", reduce::all),
    ("rope", rope::all),
    ("softmax", softmax::all),
    ("tensor", tensor::all),
    ("unary", unary::all),
    ("where_cond", where_cond::all),
];

fn main() {
    let arguments = Arguments::from_args();
    let (trials, all) = trials();
    let everything = all && arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list && !arguments.ignored;
    if fail_fast() {
        support::runner::fail_at_panics();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        let floors = if everything { FLOORS } else { &[] };
        if let Err(low) = support::runner::report(floors) {
            eprintln!("\ntoo few comparisons:\n{low}");
            std::process::exit(101);
        }
    }
    conclusion.exit();
}

/// What the environment leaves of the trials, and whether that is all.
fn trials() -> (Vec<Trial>, bool) {
    let files = std::env::var("GRISTMILL_TEST_OPS").ok();
    let of = |file: &str| FILES.iter().find(|(name, _)| *name == file).unwrap_or_else(|| panic!("GRISTMILL_TEST_OPS: no file {file}")).1();
    let mut all: Vec<Trial> = match &files {
        Some(files) => files.split(',').flat_map(of).collect(),
        None => {
            let own = [
                support::runner::trial("comparator", support::compare::self_test),
                support::runner::trial("bounds::docs", support::bounds::docs_say_so),
            ];
            own.into_iter().chain(FILES.iter().flat_map(|f| f.1())).collect()
        }
    };
    if let Ok(suites) = std::env::var("GRISTMILL_TEST_SUITES") {
        let place = |trial: &Trial| suites.split(',').position(|name| trial.name().split("::").nth(1) == Some(name));
        for name in suites.split(',') {
            let known = all.iter().any(|trial| trial.name().split("::").nth(1) == Some(name));
            assert!(known, "GRISTMILL_TEST_SUITES: no suite {name} in what GRISTMILL_TEST_OPS leaves");
        }
        all.retain(|trial| place(trial).is_some());
        all.sort_by_key(place);
    }
    if backends().is_some_and(|list| !list.split(',').any(|backend| backend == "cpu")) {
        // The process that has the CPU has what names no device.
        all.retain(|trial| subjects().iter().any(|subject| trial.name().ends_with(&format!("::{}", subject.name))));
    }
    if only().is_some() {
        // Device after device, as they are listed; the trials that name none are left out.
        let place = |trial: &Trial| subjects().iter().position(|subject| trial.name().ends_with(&format!("::{}", subject.name)));
        all.retain(|trial| place(trial).is_some());
        all.sort_by_key(place);
        assert!(!all.is_empty(), "GRISTMILL_TEST_ONLY: no such device, or no trials on it");
    }
    (all, files.is_none() && only().is_none())
}
