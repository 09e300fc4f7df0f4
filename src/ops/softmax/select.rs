//! Which kernel makes a softmax: a pure function of [`Caps`] and [`Problem`], row by row, each with its reason.

use super::Problem;
use super::gpu::{SOFTMAX, SOFTMAX_COLUMNS, SOFTMAX_COLUMNS_IN_PLACE, SOFTMAX_IN_PLACE, beside};
use crate::gpu::{AdapterKind, Caps, Constants, Kernel};

/// A kernel, how it is built, and why.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// Makes the rows.
    pub kernel: &'static Kernel,
    /// Its tunables.
    pub tune: &'static Constants,
    /// Lanes that a row's elements are dealt to: of the length alone, so that bits do not depend on where a row lies.
    pub lanes: u32,
    /// Whether the kernel is for rows that lie across memory.
    pub columns: bool,
    /// Where the choice comes from.
    pub reason: &'static str,
}

/// A row of the table: on what adapters, rows of up to how many elements, the tune of the row kernels, and why.
type Row = (fn(&Caps) -> bool, usize, &'static str, &'static str);

const ROWS: &[Row] = &[
    (software, usize::MAX, "online8", "measured"),
    (any, 256, "row8", "eight rows a workgroup of 64: by arithmetic, unmeasured on hardware"),
    (any, 2048, "row64", "a lane holds 32 elements at the most, and few lanes idle: by arithmetic, unmeasured on hardware"),
    (any, 16_384, "row256", "one read and one write; a lane holds 64 elements: unmeasured on hardware"),
    (any, usize::MAX, "online256", "more than registers hold: two reads and one write; unmeasured on hardware"),
];

const ACROSS: &str = "neighbouring lanes take neighbouring rows, which lie side by side: cited, coalescing; unmeasured on hardware";

fn any(_: &Caps) -> bool {
    true
}

fn software(caps: &Caps) -> bool {
    caps.kind == AdapterKind::Software
}

/// The first row of the table that is for the device and the length; for rows that lie across memory the kernel for those.
pub(super) fn select(caps: &Caps, problem: &Problem) -> Choice {
    let len = problem.x.dims()[problem.axis];
    let row = ROWS.iter().find(|(device, longest, ..)| device(caps) && len <= *longest);
    let (tune, reason) = row.map_or(("online256", ""), |&(_, _, tune, reason)| (tune, reason));
    let [rows, columns] = if problem.in_place { [&SOFTMAX_IN_PLACE, &SOFTMAX_COLUMNS_IN_PLACE] } else { [&SOFTMAX, &SOFTMAX_COLUMNS] };
    let tune = rows.tune(tune).unwrap_or(&rows.tunes[0]);
    let lanes = tune.get("GROUP").unwrap_or(8);
    // Where both strides are 1 the rows overlap, and any kernel will do.
    if problem.x.strides()[problem.axis] == 1 || len == 1 || beside(problem).is_none() {
        return Choice { kernel: rows, tune, lanes, columns: false, reason };
    }
    let name = if software(caps) { "slices1" } else { "slices8" };
    Choice { kernel: columns, tune: columns.tune(name).unwrap_or(&columns.tunes[0]), lanes, columns: true, reason: ACROSS }
}
