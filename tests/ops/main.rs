//! The oracle: every op, kernel and spec on every device, against a naive f64 reference.
//!
//! One binary, so that devices are opened once. `GRISTMILL_TEST_MATRIX=smoke|quick|full` says how much, `GRISTMILL_REQUIRE_GPU=1` (or a
//! list of backends) makes an absent adapter a failure. An op joins with a file like `copy.rs` and a line in `main`.

mod attention;
mod binary;
mod cast;
mod copy;
mod errors;
mod matmul;
mod softmax;
mod support;
mod tensor;

use libtest_mimic::Arguments;

/// Comparisons that each op must have had on each device that was tested, at the least.
const FLOORS: &[(&str, usize)] = &[];

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![support::runner::trial("comparator", support::compare::self_test)];
    for op in [attention::all, binary::all, cast::all, copy::all, errors::all, matmul::all, softmax::all, tensor::all] {
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
