//! The oracle: every op, kernel and spec on every device, against a naive f64 reference.
//!
//! One binary, so that devices are opened once. `GRISTMILL_TEST_MATRIX=smoke|quick|full` says how much, `GRISTMILL_REQUIRE_GPU=1` (or a
//! list of backends) makes an absent adapter a failure. An op joins with a file like `copy.rs` and a line in `main`.

mod attention;
mod binary;
mod cast;
mod compare;
mod copy;
mod errors;
mod matmul;
mod softmax;
mod support;
mod tensor;
mod unary;
mod where_cond;

use libtest_mimic::Arguments;

/// Comparisons that each op must have had on each device that was tested, at the least.
/// About two thirds of what there are, in the smoke subset and else.
const FLOORS: &[(&str, usize, usize)] = &[
    ("add", 5_000, 5_000_000),
    ("attention", 230_000, 1_300_000),
    ("cast", 1_500_000, 3_000_000),
    ("copy", 17_000, 36_000),
    ("eq", 700_000, 700_000),
    ("exp", 30_000, 600_000),
    ("log_softmax", 15_000, 48_000),
    ("matmul", 15_000, 480_000),
    ("mul", 5_000, 18_000),
    ("neg", 500_000, 600_000),
    ("softmax", 15_000, 230_000),
    ("where_cond", 20_000, 80_000),
];

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        support::runner::trial("comparator", support::compare::self_test),
        support::runner::trial("bounds::docs", support::bounds::docs_say_so),
    ];
    for op in [
        attention::all,
        binary::all,
        cast::all,
        compare::all,
        copy::all,
        errors::all,
        matmul::all,
        softmax::all,
        tensor::all,
        unary::all,
        where_cond::all,
    ] {
        trials.extend(op());
    }
    let everything = arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list && !arguments.ignored;
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
