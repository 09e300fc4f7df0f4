//! Which kernel makes a softmax: a pure function of [`Caps`] and [`Problem`], row by row, each with its reason.

use super::Problem;
use super::gpu::{SOFTMAX, SOFTMAX_COLUMNS, SOFTMAX_COLUMNS_IN_PLACE, SOFTMAX_IN_PLACE, beside};
use crate::DType;
use crate::gpu::{AdapterKind, Caps, Constants, Kernel};

/// A kernel, how it is built, and why.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// Makes the rows.
    pub kernel: &'static Kernel,
    /// Its tunables.
    pub tune: &'static Constants,
    /// Lanes that a row's elements are dealt to. Of the device and the length alone, and all that bits depend on beside the values.
    pub lanes: u32,
    /// Whether the kernel is for rows that lie across memory.
    pub columns: bool,
    /// Where the choice comes from.
    pub reason: &'static str,
}

/// A row of the table: for what, the tune, which tells the kernel, and why.
type Row = (fn(&Caps, &Problem) -> bool, &'static str, &'static str);

/// In order of preference: the first that is for the call. Measured on lavapipe of Mesa 26, in f32: `cargo bench --bench softmax -- /vulkan`;
/// short rows by `slices1` with that kernel pinned.
const ROWS: &[Row] = &[
    (
        |caps, problem| software(caps) && (across(problem) || many_short(problem)),
        "slices1",
        "measured: a lane a row needs no barrier; 1.5 times row8 at rows of 64, 3 times at 16, 0.9 times at 256",
    ),
    (|_, problem| across(problem), "slices8", "neighbouring lanes load neighbouring elements: by arithmetic, on any card; unmeasured"),
    (|caps, problem| software(caps) && up_to(256, problem), "row8", "measured: 1.26 times online8 at rows of 64 and of 256"),
    (
        |caps, _| software(caps),
        "online8",
        "measured: the lanes of one vector meet at one barrier a row; 0.8 of the copy yardstick's rate at 512, 4,096 and 16,384",
    ),
    (|_, problem| up_to(256, problem), "row8", "eight rows a workgroup, one read and one write: by arithmetic; unmeasured"),
    (|_, problem| up_to(2048, problem), "row64", "one read and one write, 32 elements a lane at the most: by arithmetic; unmeasured"),
    (|_, problem| up_to(16_384, problem), "row256", "one read and one write, 64 elements a lane at the most: by arithmetic; unmeasured"),
    (|_, _| true, "online256", "more than registers hold: two reads and one write; unmeasured"),
];

fn software(caps: &Caps) -> bool {
    caps.kind == AdapterKind::Software
}

fn up_to(len: usize, problem: &Problem) -> bool {
    problem.x.dims()[problem.axis] <= len
}

/// Rows that lie across memory, beside each other.
fn across(problem: &Problem) -> bool {
    problem.x.strides()[problem.axis] != 1 && !up_to(1, problem) && beside(problem).is_some()
}

/// Rows of which a vector of lanes takes one each; in 16 bits two would have to share a word.
fn many_short(problem: &Problem) -> bool {
    up_to(64, problem) && problem.dtypes[0] == DType::F32 && problem.x.len() >= 8 * problem.x.dims()[problem.axis]
}

/// The kernel of a tune, apart or in place, and whether it is the one for columns.
fn kernel_of(tune: &str, in_place: bool) -> (&'static Kernel, bool) {
    match (tune.starts_with("slices"), in_place) {
        (true, false) => (&SOFTMAX_COLUMNS, true),
        (true, true) => (&SOFTMAX_COLUMNS_IN_PLACE, true),
        (false, false) => (&SOFTMAX, false),
        (false, true) => (&SOFTMAX_IN_PLACE, false),
    }
}

pub(super) fn select(caps: &Caps, problem: &Problem) -> Choice {
    let mut able = ROWS.iter().filter(|(is_for, ..)| is_for(caps, problem)).map(|&(_, name, reason)| {
        let (kernel, columns) = kernel_of(name, problem.in_place);
        let tune = kernel.tune(name).unwrap_or(&kernel.tunes[0]);
        Choice { kernel, tune, lanes: tune.get("GROUP").unwrap_or(8), columns, reason }
    });
    let mut rest = able.clone();
    // The last row is for everything.
    let (kernel, tune) = (&SOFTMAX, &SOFTMAX.tunes[0]);
    let choice = able.next().unwrap_or(Choice { kernel, tune, lanes: 8, columns: false, reason: "" });
    // Rows across memory get the bits of rows along it.
    let lanes = rest.find(|row| !row.columns).map_or(choice.lanes, |row| row.lanes);
    Choice { lanes, ..choice }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;

    fn caps(kind: AdapterKind) -> Caps {
        Caps { kind, ..Caps::webgpu_defaults() }
    }

    fn problem(dims: [usize; 2], axis: usize, dtype: DType, in_place: bool) -> Problem {
        let dense = Layout::contiguous(&dims).expect("a layout");
        let dtypes = [dtype, dtype, DType::F32, DType::F32];
        let causal_limit = dims[axis] as i64;
        Problem { dtypes, log: false, in_place, axis, scale: 1.0, out: dense, x: dense, mask: None, causal_limit, sinks: None }
    }

    #[test]
    fn every_row_has_its_kernel() {
        let [card, software] = [AdapterKind::Discrete, AdapterKind::Software];
        for (kind, dims, axis, dtype, wanted, lanes) in [
            (card, [3, 1], 1, DType::F32, "softmax.row8", 8),
            (card, [3, 256], 1, DType::F16, "softmax.row8", 8),
            (card, [3, 257], 1, DType::F32, "softmax.row64", 64),
            (card, [3, 2048], 1, DType::F32, "softmax.row64", 64),
            (card, [3, 16_384], 1, DType::F32, "softmax.row256", 256),
            (card, [3, 16_385], 1, DType::F32, "softmax.online256", 256),
            (card, [256, 40], 0, DType::F32, "softmax_columns.slices8", 8),
            (card, [4096, 40], 0, DType::BF16, "softmax_columns.slices8", 256),
            (card, [4096, 1], 0, DType::F32, "softmax.row256", 256),
            (software, [8, 64], 1, DType::F32, "softmax_columns.slices1", 8),
            (software, [7, 64], 1, DType::F32, "softmax.row8", 8),
            (software, [8, 64], 1, DType::F16, "softmax.row8", 8),
            (software, [8, 256], 1, DType::F32, "softmax.row8", 8),
            (software, [8, 100_000], 1, DType::F32, "softmax.online8", 8),
            (software, [4096, 40], 0, DType::F32, "softmax_columns.slices1", 8),
        ] {
            for in_place in [false, true] {
                let choice = select(&caps(kind), &problem(dims, axis, dtype, in_place));
                let name = format!("{}.{}", choice.kernel.name, choice.tune.name).replace("_in_place", "");
                assert_eq!((name.as_str(), choice.lanes), (wanted, lanes), "{kind:?} {dims:?} axis {axis} {dtype}");
                assert_eq!(choice.kernel.name.ends_with("_in_place"), in_place);
                assert!(!choice.reason.is_empty());
            }
        }
    }
}
