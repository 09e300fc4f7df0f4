//! Softmax on a GPU: [`SOFTMAX`] and [`SOFTMAX_COLUMNS`], and the same in place.

use std::fmt;

use super::Problem;
pub use super::select::Choice;
use super::select::select;
use crate::error::Result;
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, axes, check_binding, fold,
    loop_end, runs, word,
};
use crate::ops::{cut, through_scratch};
use crate::{DType, Layout};
use DType::{BF16, F16, F32};

macro_rules! libs {
    ($own:literal) => {
        &[
            include_str!(concat!("../../../shaders/lib/", $own, ".wgsl")),
            include_str!("../../../shaders/lib/softmax_row.wgsl"),
            include_str!("../../../shaders/lib/softmax.wgsl"),
            include_str!("../../../shaders/lib/element.wgsl"),
            include_str!("../../../shaders/lib/float.wgsl"),
            include_str!("../../../shaders/lib/index.wgsl"),
        ]
    };
}

/// The mask and the sinks are of any float type, as `Params` says: not specs, of which there would be four times as many.
const APART: &[Binding] = &[
    Binding::typed("out", Access::Write, "OUT_DTYPE"),
    Binding::typed("x", Access::Read, "X_DTYPE"),
    Binding::new("mask", Access::Read),
    Binding::new("sinks", Access::Read),
];

const IN_PLACE: &[Binding] =
    &[Binding::typed("out", Access::Write, "OUT_DTYPE"), Binding::new("mask", Access::Read), Binding::new("sinks", Access::Read)];

/// `out` and `x`; what is not listed (from one 16-bit type into the other) goes through an f32 scratch.
const TYPES_APART: &[&[DType]] =
    &[&[F32; 4], &[F16, F16, F32, F32], &[BF16, BF16, F32, F32], &[F32, F16, F32, F32], &[F32, BF16, F32, F32]];

const TYPES_IN_PLACE: &[&[DType]] = &[&[F32; 3], &[F16, F32, F32], &[BF16, F32, F32]];

/// Lanes to a row, and the eights that each holds: rows of up to `8 · GROUP · HELD` elements, or with no `HELD` of any length.
const ROW_TUNES: &[Constants] = &[
    Constants { name: "online8", values: &[("WORKGROUP", 8), ("GROUP", 8), ("HELD", 0)] },
    Constants { name: "row8", values: &[("WORKGROUP", 64), ("GROUP", 8), ("HELD", 4)] },
    Constants { name: "row64", values: &[("WORKGROUP", 64), ("GROUP", 64), ("HELD", 4)] },
    Constants { name: "row256", values: &[("WORKGROUP", 256), ("GROUP", 256), ("HELD", 8)] },
    Constants { name: "online256", values: &[("WORKGROUP", 256), ("GROUP", 256), ("HELD", 0)] },
];

const COLUMN_TUNES: &[Constants] = &[
    Constants { name: "slices1", values: &[("COLUMNS", 8), ("SLICES", 1)] },
    Constants { name: "slices8", values: &[("COLUMNS", 32), ("SLICES", 8)] },
];

/// Rows that are dense in memory, or alone.
pub static SOFTMAX: Kernel = Kernel {
    name: "softmax",
    source: include_str!("../../../shaders/softmax.wgsl"),
    libs: libs!("softmax_rows"),
    bindings: APART,
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: ROW_TUNES,
    dtypes: TYPES_APART,
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

/// The same in place.
pub static SOFTMAX_IN_PLACE: Kernel = Kernel {
    name: "softmax_in_place",
    source: include_str!("../../../shaders/softmax_in_place.wgsl"),
    bindings: IN_PLACE,
    dtypes: TYPES_IN_PLACE,
    ..SOFTMAX
};

/// Rows whose neighbours lie side by side.
pub static SOFTMAX_COLUMNS: Kernel = Kernel {
    name: "softmax_columns",
    source: include_str!("../../../shaders/softmax_columns.wgsl"),
    libs: libs!("softmax_columns"),
    tunes: COLUMN_TUNES,
    widths: &[Width::Scalar],
    ..SOFTMAX
};

/// The same in place.
pub static SOFTMAX_COLUMNS_IN_PLACE: Kernel = Kernel {
    name: "softmax_columns_in_place",
    source: include_str!("../../../shaders/softmax_columns_in_place.wgsl"),
    bindings: IN_PLACE,
    dtypes: TYPES_IN_PLACE,
    ..SOFTMAX_COLUMNS
};

crate::params! {
    /// `Params` of the four kernels.
    pub struct Params {
        /// Sizes of the axes that count rows, merged.
        dims: [[u32; 4]; 2],
        /// Strides of `x` over the rows.
        x_strides: [[u32; 4]; 2],
        /// Strides of the mask over the rows.
        mask_strides: [[u32; 4]; 2],
        /// Strides of the sinks over the rows.
        sinks_strides: [[u32; 4]; 2],
        /// Strides of `out` over the rows.
        out_strides: [[u32; 4]; 2],
        /// First element.
        x_offset: u32,
        /// Stride along the row.
        x_step: u32,
        /// First element.
        mask_offset: u32,
        /// Stride along the row.
        mask_step: u32,
        /// The mask's type.
        mask_dtype: u32,
        /// First element.
        sinks_offset: u32,
        /// The sinks' type.
        sinks_dtype: u32,
        /// First element.
        out_offset: u32,
        /// Stride along the row.
        out_step: u32,
        /// Elements a row.
        len: u32,
        /// Rows.
        rows: u32,
        /// Lanes that a row's eights are dealt to.
        lanes: u32,
        /// Queries: row `r` is of query `r / query_step % queries`.
        queries: u32,
        /// Rows to a query.
        query_step: u32,
        /// Query `i` sees `i + ahead - behind` elements.
        ahead: u32,
        /// See there.
        behind: u32,
        /// Factor of `x`.
        scale: f32,
        /// Bit 0: a mask. Bit 1: sinks. Bit 2: words of `x` hold an element of two neighbouring rows each.
        has: u32,
        /// Whether the logarithm is asked for.
        log: u32,
        /// Nothing.
        pad: u32,
    }
}

/// The dispatches of a softmax.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) where the device's limits forbid it.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    cut(caps, problem, &|problem| uncut(caps, pin, problem))
}

fn uncut(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let op = problem.op();
    let [out_dtype, x_dtype, mask_dtype, sinks_dtype] = problem.dtypes;
    let axis = problem.axis;
    let Choice { kernel, tune, lanes, columns, .. } = choose(caps, pin, problem)?;
    // What is not there lies where `x` does, unread.
    let [mask, sinks] = [problem.mask, problem.sinks].map(|layout| layout.unwrap_or(problem.x));
    let all = [problem.out, problem.x, mask, sinks];
    // An axis of a mask that repeats is read once an eight.
    let whole = problem.mask.is_none_or(|mask| runs(&mask, axis, 8, true));
    let proven = !columns && whole && [problem.out, problem.x].iter().all(|layout| runs(layout, axis, 8, false));
    // Elements that share a word are a row's, or of two neighbouring rows.
    let shared = if columns { beside(problem) } else { Some(axis) };
    let pairs = |layout: &Layout| shared.is_some_and(|axis| runs(layout, axis, 2, false));
    let writes = out_dtype == F32 || proven || pairs(&problem.out);
    let listed = kernel.dtypes.iter().copied().find(|types| types[0] == out_dtype && (problem.in_place || types[1] == x_dtype));
    let Some(dtypes) = listed.filter(|_| writes) else {
        return through_scratch(op, caps, (&problem.out, out_dtype), F32, |out| {
            let dtypes = [F32, x_dtype, mask_dtype, sinks_dtype];
            let mut plan = plan(caps, pin, &Problem { in_place: false, dtypes, out, ..problem.clone() })?;
            if problem.in_place {
                // The call has no `x`: it is `out`.
                let args = plan.dispatches.iter_mut().flat_map(|dispatch| &mut dispatch.args[1..]);
                args.for_each(|arg| *arg = if let Arg::Tensor(n) = *arg { Arg::Tensor(n - 1) } else { *arg });
            }
            Ok(plan)
        });
    };
    let named = [
        ("out", Some(problem.out), out_dtype),
        ("x", Some(problem.x), x_dtype),
        ("mask", problem.mask, mask_dtype),
        ("sinks", problem.sinks, sinks_dtype),
    ];
    for (name, layout, dtype) in named {
        layout.map_or(Ok(()), |layout| check_binding(op, caps, name, &layout, dtype))?;
    }
    // The rows in an order that puts those last that lie beside each other.
    let order = row_order(problem, columns);
    let rows = Layout::merge(&all.map(|layout| layout.narrow(axis, 0, 1).and_then(|rows| rows.permute(&order)).unwrap_or(layout)));
    let dims = problem.x.dims();
    let (queries, query_step) = match order.iter().position(|&other| other + 1 == axis) {
        Some(at) if problem.is_causal() => {
            (dims[axis - 1], order[at + 1..].iter().filter(|&&other| other != axis).map(|&a| dims[a]).product())
        }
        _ => (1, 1),
    };
    let limit = problem.causal_limit.clamp(-(queries as i64), dims[axis] as i64);
    let step = |layout: &Layout| word(op, "a stride", layout.strides()[axis]);
    let len = dims[axis];
    let count = rows[0].len();
    let strides = |i: usize| axes(op, rows[i].strides(), 0);
    let params = Params {
        dims: axes(op, rows[0].dims(), 1)?,
        x_strides: strides(1)?,
        mask_strides: strides(2)?,
        sinks_strides: strides(3)?,
        out_strides: strides(0)?,
        x_offset: word(op, "x", problem.x.offset())?,
        x_step: step(&problem.x)?,
        mask_offset: word(op, "mask", mask.offset())?,
        mask_step: step(&mask)?,
        mask_dtype: mask_dtype.code(),
        sinks_offset: word(op, "sinks", sinks.offset())?,
        sinks_dtype: sinks_dtype.code(),
        out_offset: word(op, "out", problem.out.offset())?,
        out_step: step(&problem.out)?,
        len: loop_end(op, "the axis", len)?,
        rows: word(op, "x", count)?,
        lanes,
        queries: word(op, "the queries", queries)?,
        query_step: word(op, "the queries", query_step)?,
        ahead: word(op, "the axis", limit.max(0) as usize)?,
        behind: word(op, "the queries", (-limit).max(0) as usize)?,
        scale: problem.scale,
        has: u32::from(problem.mask.is_some())
            | u32::from(problem.sinks.is_some()) << 1
            | u32::from(columns && x_dtype != F32 && pairs(&problem.x)) << 2,
        log: problem.log.into(),
        pad: 0,
    };
    let spec = Spec { dtypes, variant: &Constants::NONE, tune, width: Width::of(proven) };
    let mut plan = Plan::default();
    let mut args = vec![Arg::Tensor(0)];
    let mut tensors = (1..).map(Arg::Tensor);
    if !problem.in_place {
        args.extend(tensors.next());
    }
    // What is not there has to be bound all the same, and not what is written.
    let nothing = if problem.in_place { Arg::Scratch(0) } else { Arg::Tensor(1) };
    for there in [problem.mask.is_some(), problem.sinks.is_some()] {
        args.extend(if there { tensors.next() } else { Some(nothing) });
    }
    if args.contains(&Arg::Scratch(0)) {
        plan.scratch.push(16);
    }
    let elements = problem.x.len() as u64;
    let per_group = match columns {
        true => spec.get("COLUMNS") * if out_dtype == F32 { 1 } else { 2 },
        false => spec.get("WORKGROUP") / spec.get("GROUP"),
    };
    plan.dispatches.push(Dispatch {
        kernel,
        spec,
        args,
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, (count as u64).div_ceil(per_group.into()))?,
        bytes: elements * (out_dtype.block_bytes() + x_dtype.block_bytes()) as u64,
        flops: 5 * elements,
    });
    Ok(plan)
}

/// What `select` says, or the pin where it can make the row.
fn choose(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Choice> {
    let choice = select(caps, problem);
    let op = problem.op();
    let [rows, columns] = if problem.in_place { [&SOFTMAX_IN_PLACE, &SOFTMAX_COLUMNS_IN_PLACE] } else { [&SOFTMAX, &SOFTMAX_COLUMNS] };
    let of = |tune: &Constants, name| tune.get(name).unwrap_or(1);
    if let Some(tune) = Pin::tune_of(op, pin, rows)? {
        let held = 8 * of(tune, "GROUP") as usize * of(tune, "HELD") as usize;
        if held == 0 || problem.x.dims()[problem.axis] <= held {
            return Ok(Choice { kernel: rows, tune, lanes: of(tune, "GROUP"), columns: false, reason: "pinned" });
        }
    }
    if let Some(tune) = Pin::tune_of(op, pin, columns)? {
        return Ok(Choice { kernel: columns, tune, columns: true, reason: "pinned", ..choice });
    }
    Ok(choice)
}

/// The axis along which neighbouring rows of `x` lie side by side.
pub(super) fn beside(problem: &Problem) -> Option<usize> {
    let (dims, strides) = (problem.x.dims(), problem.x.strides());
    (0..dims.len()).rev().find(|&axis| axis != problem.axis && dims[axis] > 1 && strides[axis] == 1)
}

/// The axes in the order in which they count rows.
fn row_order(problem: &Problem, columns: bool) -> Vec<usize> {
    let last = beside(problem).filter(|_| columns);
    let others = (0..problem.x.rank()).filter(|&axis| Some(axis) != last);
    others.chain(last).collect()
}

/// What a call comes to on a device, and why. Prints as text.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The kernel, and the reason.
    pub choice: Choice,
    /// What it runs.
    pub plan: Plan,
}

/// What a device of these `caps` would run for a softmax, and why.
///
/// ```
/// use gristmill::gpu::Caps;
/// use gristmill::ops::softmax::{Problem, gpu::explain};
/// use gristmill::{DType, Layout};
///
/// let rows = Layout::contiguous(&[1000, 4096]).expect("a small shape");
/// let (dtypes, log, in_place, axis, scale) = ([DType::F32; 4], false, false, 1, 1.0);
/// let problem = Problem { dtypes, log, in_place, axis, scale, out: rows, x: rows, mask: None, causal_limit: 4096, sinks: None };
/// let text = explain(&problem, &Caps::webgpu_defaults())?.to_string();
/// assert!(text.starts_with("softmax.row256: one read and one write"));
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// Those of the call: [`Error::TooLarge`](crate::Error::TooLarge).
pub fn explain(problem: &Problem, caps: &Caps) -> Result<Explanation> {
    Ok(Explanation { choice: select(caps, problem), plan: plan(caps, None, problem)? })
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Choice { kernel, tune, reason, .. } = self.choice;
        write!(f, "{}.{}: {reason}\n{tune}{}", kernel.name, tune.name, self.plan)
    }
}
