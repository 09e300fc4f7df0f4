//! Matmul on a GPU: a kernel of register tiles for most, and one each for cooperative matrices, for few rows, for few tiles with a long k, and
//! for adapters that run on the CPU. All share `shaders/lib/product.wgsl`: bindings, [`Params`], the epilogue.

use std::fmt;

use super::select::{Choice, select};
use super::{Activation, Epilogue, Extra, Problem};
use crate::error::{Error, Result};
use crate::gpu::{
    Access, Arg, Backend, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, check_binding,
    check_kernel, fold, loop_end, runs, word,
};
use crate::ops::{cast, cut};
use crate::tensor::dense;
use crate::{DType, Layout};
use DType::{BF16, F16, F32};

pub use super::select::Choice as KernelChoice;

const LIBS: &[&str] = &[
    include_str!("../../../shaders/lib/product.wgsl"),
    include_str!("../../../shaders/lib/element.wgsl"),
    include_str!("../../../shaders/lib/float.wgsl"),
    include_str!("../../../shaders/lib/unary.wgsl"),
    include_str!("../../../shaders/lib/order.wgsl"),
    include_str!("../../../shaders/lib/operand.wgsl"),
];

/// The gate has the type of rhs; those of the last three are in `Params`.
const BINDINGS: &[Binding] = &[
    Binding::typed("out", Access::Write, "OUT_DTYPE"),
    Binding::typed("lhs", Access::Read, "LHS_DTYPE"),
    Binding::typed("rhs", Access::Read, "RHS_DTYPE"),
    Binding::new("gate", Access::Read),
    Binding::new("c", Access::Read),
    Binding::new("bias", Access::Read),
    Binding::new("residual", Access::Read),
];

/// Of kernels that read one type alone.
const ONE_TYPE: &[Binding] = &[
    Binding::typed("out", Access::Write, "OUT_DTYPE"),
    Binding::new("lhs", Access::Read),
    Binding::new("rhs", Access::Read),
    Binding::new("gate", Access::Read),
    Binding::new("c", Access::Read),
    Binding::new("bias", Access::Read),
    Binding::new("residual", Access::Read),
];

const PLAIN: Constants = Constants { name: "", values: &[("EPILOGUE", 0), ("GATED", 0)] };
const FUSED: Constants = Constants { name: "fused", values: &[("EPILOGUE", 1), ("GATED", 0)] };
const GATED: Constants = Constants { name: "gated", values: &[("EPILOGUE", 1), ("GATED", 1)] };

const DTYPES: &[&[DType]] = &[
    &[F32, F32, F32, F32, F32, F32, F32],
    &[F16, F16, F16, F16, F16, F16, F16],
    &[BF16, BF16, BF16, BF16, BF16, BF16, BF16],
    &[F32, F16, F16, F16, F32, F32, F32],
    &[F32, BF16, BF16, BF16, F32, F32, F32],
    &[F32, F32, F16, F16, F32, F32, F32],
    &[F32, F32, BF16, BF16, F32, F32, F32],
    &[F32, F16, F32, F32, F32, F32, F32],
    &[F32, BF16, F32, F32, F32, F32, F32],
];

/// What the kernels have in common.
const COMMON: Kernel = Kernel {
    name: "",
    source: "",
    libs: LIBS,
    bindings: BINDINGS,
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[PLAIN, FUSED, GATED],
    tunes: &[Constants::NONE],
    dtypes: DTYPES,
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

/// Tiles in registers, brought in through workgroup memory. Results that it does not write go through an f32 scratch.
pub static MATMUL: Kernel = Kernel {
    name: "matmul",
    source: include_str!("../../../shaders/matmul.wgsl"),
    tunes: &[
        Constants { name: "tile32", values: &[("TILE_M", 32), ("TILE_N", 64), ("ROWS", 4)] },
        Constants { name: "tile64", values: &[("TILE_M", 64), ("TILE_N", 64), ("ROWS", 4)] },
        Constants { name: "tile128", values: &[("TILE_M", 128), ("TILE_N", 128), ("ROWS", 8)] },
    ],
    ..COMMON
};

/// Without workgroup memory, for adapters that run on the CPU.
pub static MATMUL_DIRECT: Kernel = Kernel {
    name: "matmul_direct",
    source: include_str!("../../../shaders/matmul_direct.wgsl"),
    tunes: &[
        Constants { name: "rows2", values: &[("ROWS", 2), ("LANES", 8)] },
        Constants { name: "rows8", values: &[("ROWS", 8), ("LANES", 8)] },
        Constants { name: "rows16", values: &[("ROWS", 16), ("LANES", 8)] },
    ],
    ..COMMON
};

/// At most `ROWS` rows: bound by reading rhs, once.
pub static MATMUL_SKINNY: Kernel = Kernel {
    name: "matmul_skinny",
    source: include_str!("../../../shaders/matmul_skinny.wgsl"),
    tunes: &[
        Constants { name: "rows1", values: &[("ROWS", 1), ("TILE_N", 32), ("THREADS", 256)] },
        Constants { name: "rows4", values: &[("ROWS", 4), ("TILE_N", 32), ("THREADS", 256)] },
        Constants { name: "rows8", values: &[("ROWS", 8), ("TILE_N", 32), ("THREADS", 256)] },
    ],
    variants: &[FUSED, GATED],
    ..COMMON
};

/// The second pass of a product whose k was split.
pub static MATMUL_SPLITK: Kernel = Kernel {
    name: "matmul_splitk",
    source: include_str!("../../../shaders/matmul_splitk.wgsl"),
    // The parts are f32.
    bindings: ONE_TYPE,
    tunes: &[Constants { name: "group64", values: &[("GROUP", 64)] }],
    variants: &[FUSED, GATED],
    dtypes: &[&[F32, F32, F32, F32, F32, F32, F32], &[F16, F32, F32, F32, F16, F16, F16], &[BF16, F32, F32, F32, BF16, BF16, BF16]],
    ..COMMON
};

/// f16 by f16, on the matrix units of a device that shows them. Each tune is for one side of the matrices, and for subgroups of up to so many
/// lanes: see [`cooperates`]. Not on Metal, for which naga 30 writes loads from vectors as if from their elements. Side 8 is executed by the oracle wherever it runs (lavapipe), side 16 where a device has it: on an H100 it was.
pub static MATMUL_COOP: Kernel = Kernel {
    name: "matmul_coop",
    source: include_str!("../../../shaders/matmul_coop.wgsl"),
    // All but the last, lib/operand.wgsl: it reads eights of f16.
    libs: LIBS.split_at(LIBS.len() - 1).0,
    bindings: ONE_TYPE,
    tunes: &[
        // The first that fits is taken: none whose subgroups would be idle. 4096³ on an H100: 103 TFLOP/s, and 62 by the next.
        Constants { name: "tile128wave32", values: &coop([16, 128, 128, 32, 128]) },
        // gpu_stats: 0.84 of RDNA3's matrix rate.
        Constants { name: "tile128wave64", values: &coop([16, 128, 128, 32, 256]) },
        // For tests on lavapipe: many tiles in a small product.
        Constants { name: "tile64wave8", values: &coop([8, 64, 64, 16, 32]) },
    ],
    dtypes: &[&[F16, F16, F16, F16, F16, F16, F16], &[F32, F16, F16, F16, F32, F32, F32]],
    widths: &[Width::Vector],
    needs: Needs::Matrices,
    ..COMMON
};

/// The constants of `matmul_coop.wgsl`.
const fn coop([side, tile_m, tile_n, tile_k, threads]: [u32; 5]) -> [(&'static str, u32); 5] {
    [("COOP", side), ("TILE_M", tile_m), ("TILE_N", tile_n), ("TILE_K", tile_k), ("THREADS", threads)]
}

/// Whether a device can run a tune of [`MATMUL_COOP`], or why not.
pub fn cooperates(caps: &Caps, tune: &Constants) -> Result<(), String> {
    let [side, tile_m, tile_n, tile_k, threads] = coop([0; 5]).map(|(name, _)| tune.get(name).unwrap_or(1));
    let Some(own) = caps.cooperative else { return Err("needs cooperative matrices, which the device does not show".into()) };
    if caps.backend == Backend::Metal {
        return Err("loads matrices from vectors, which naga does not yet write for Metal".into());
    }
    if side != own {
        return Err(format!("{} is for matrices of {side}, and the device has {own}", tune.name));
    }
    let widest = caps.subgroups.map_or(u32::MAX, |(_, most)| most);
    let slot = 4 * side;
    let slots = tile_m / slot * (tile_n / slot);
    if slots.saturating_mul(widest) > threads {
        return Err(format!("{} has {threads} invocations for {slots} subgroups, which the device may make of {widest}", tune.name));
    }
    if threads > caps.workgroup_invocations {
        return Err(format!("{} takes {threads} invocations a workgroup, not {}", tune.name, caps.workgroup_invocations));
    }
    let bytes = (tile_m + tile_n) * (tile_k + 8) * 2 + slots * side * 2 * side * 4;
    if bytes > caps.workgroup_bytes {
        return Err(format!("{} takes {bytes} bytes of workgroup memory, not {}", tune.name, caps.workgroup_bytes));
    }
    Ok(())
}

/// Whether [`MATMUL_COOP`] computes a problem, or why not. Not by where `out` lies: its order of addition is its own (N4).
pub(super) fn coop_serves(problem: &Problem) -> Result<(), String> {
    let [_, lhs, rhs] = problem.dtypes;
    if (lhs, rhs) != (F16, F16) {
        return Err(format!("multiplies f16 by f16, not {lhs} by {rhs}"));
    }
    if problem.batch_invariant {
        return Err(
            "takes operands in whole eights alone, and a batch-invariant product must not add otherwise where they lie otherwise".into()
        );
    }
    let (n, k) = (problem.n(), problem.k());
    if k == 0 || !k.is_multiple_of(8) || !n.is_multiple_of(8) {
        return Err(format!("takes whole eights of n and of k, not {n} and {k}"));
    }
    if wide(problem) { Ok(()) } else { Err("takes operands that lie in whole eights".into()) }
}

/// The first tune that a device can run, or why there is none.
pub(super) fn coop_tune(caps: &Caps) -> Result<&'static Constants, String> {
    let mut why = String::new();
    for tune in MATMUL_COOP.tunes {
        match cooperates(caps, tune) {
            Ok(()) => return Ok(tune),
            // Of those for its matrices, the last says why.
            Err(reason) if why.is_empty() || tune.get("COOP") == caps.cooperative => why = reason,
            Err(_) => {}
        }
    }
    Err(why)
}

crate::params! {
    /// `Params` of `lib/product.wgsl`.
    pub struct Params {
        /// Sizes of the merged batch axes.
        batch_dims: [u32; 4],
        /// Batch strides of `lhs`.
        lhs_batch: [u32; 4],
        /// Batch strides of `rhs`.
        rhs_batch: [u32; 4],
        /// Batch strides of `gate`.
        gate_batch: [u32; 4],
        /// Batch strides of `out`.
        out_batch: [u32; 4],
        /// Batch strides of `c`.
        c_batch: [u32; 4],
        /// Batch strides of the bias.
        bias_batch: [u32; 4],
        /// Batch strides of the residual.
        residual_batch: [u32; 4],
        /// First element.
        lhs_offset: u32,
        /// Stride.
        lhs_row: u32,
        /// Stride.
        lhs_col: u32,
        /// First element.
        rhs_offset: u32,
        /// Stride.
        rhs_row: u32,
        /// Stride.
        rhs_col: u32,
        /// First element.
        gate_offset: u32,
        /// Stride.
        gate_row: u32,
        /// Stride.
        gate_col: u32,
        /// First element.
        out_offset: u32,
        /// Stride.
        out_row: u32,
        /// Stride.
        out_col: u32,
        /// Element type.
        c_dtype: u32,
        /// First element.
        c_offset: u32,
        /// Stride.
        c_row: u32,
        /// Stride.
        c_col: u32,
        /// Element type.
        bias_dtype: u32,
        /// First element.
        bias_offset: u32,
        /// Stride.
        bias_row: u32,
        /// Stride.
        bias_col: u32,
        /// Element type.
        residual_dtype: u32,
        /// First element.
        residual_offset: u32,
        /// Stride.
        residual_row: u32,
        /// Stride.
        residual_col: u32,
        /// Rows of `out`.
        m: u32,
        /// Columns of `out`.
        n: u32,
        /// The axis that is summed over.
        k: u32,
        /// Tiles along m; of `matmul_splitk`, rows in all batches.
        tiles_m: u32,
        /// Tiles along n; of `matmul_splitk`, eights in a row.
        tiles_n: u32,
        /// Workgroups that have work.
        groups: u32,
        /// Rows of tiles that are walked together.
        band: u32,
        /// Bit 0: `lhs` is dense along k, else along m. Bit 1: `rhs` and `gate` are dense along n, else along k.
        along: u32,
        /// Parts of k.
        splits: u32,
        /// Of k, in each.
        chunk: u32,
        /// Elements of `out` (of `matmul_splitk`, of the parts) from one to the next.
        split_stride: u32,
        /// Which operands of the epilogue are there.
        has: u32,
        /// The activation, by its number in `lib/unary.wgsl`.
        activation: u32,
        /// Factor of the sums.
        alpha: f32,
        /// Factor of `c`.
        beta: f32,
        /// 0, which compilers do not know.
        zero: u32,
    }
}

/// Rows of tiles that share what they read of rhs while it is in the cache. Eight 128-row tiles are what ggml and Triton take; *unmeasured*.
const BAND: u32 = 8;

impl Activation {
    /// Its number in `lib/unary.wgsl`, whose 0 is no activation.
    const fn code(self) -> u32 {
        match self {
            Activation::None => 0,
            Activation::Relu => 6,
            Activation::Gelu => 7,
            Activation::GeluTanh => 8,
            Activation::Silu => 9,
        }
    }
}

/// The axes along which the operands hold whole eights, as `Params::along` has them. `None` unless all do.
pub(super) fn along(problem: &Problem) -> Option<u32> {
    let last = problem.out.rank() - 1;
    let whole = |layout: &Layout, axis| runs(layout, axis, 8, false);
    let lhs = match problem.batch_invariant {
        // Not by m, nor by whether there is more than one row: a row alone is loaded as it is in any batch.
        true => (whole(&problem.lhs, last) && problem.lhs.strides()[last - 1].is_multiple_of(8)).then_some(1),
        false if whole(&problem.lhs, last) => Some(1),
        false => whole(&problem.lhs, last - 1).then_some(0),
    };
    let right = |axis| whole(&problem.rhs, axis) && problem.epilogue.gate.is_none_or(|gate| whole(&gate, axis));
    let rhs = if right(last) { Some(2) } else { right(last - 1).then_some(0) };
    whole(&problem.out, last).then_some(lhs? | rhs?)
}

/// Whether eights can be loaded at once: where `out` itself does not let them be, a dense scratch does.
fn wide(problem: &Problem) -> bool {
    Layout::contiguous(problem.out.dims()).is_some_and(|out| along(&Problem { out, ..problem.clone() }).is_some())
}

/// Which way scalar loads of neighbouring lanes go.
fn denser(problem: &Problem) -> u32 {
    let last = problem.out.rank() - 1;
    let denser = |layout: &Layout| layout.strides()[last] <= layout.strides()[last - 1];
    // Of one row neither matters.
    u32::from(problem.batch_invariant || denser(&problem.lhs)) | (u32::from(denser(&problem.rhs)) << 1)
}

/// A problem, and where its operands are: out, lhs, rhs, gate, c, bias, residual.
#[derive(Clone)]
struct Call {
    problem: Problem,
    args: [Arg; 7],
    /// Whether eights may be loaded at once, where they lie so.
    wide: bool,
}

impl Call {
    fn new(problem: &Problem) -> Self {
        // What is not there is bound to lhs, unread.
        let mut args = [Arg::Tensor(1); 7];
        args[0] = Arg::Tensor(0);
        args[2] = Arg::Tensor(2);
        let there = problem.others().into_iter().enumerate().filter(|(_, layout)| layout.is_some());
        for ((place, _), number) in there.zip(3..) {
            args[3 + place] = Arg::Tensor(number);
        }
        Call { problem: problem.clone(), args, wide: true }
    }

    /// `outᵀ = rhsᵀ · lhsᵀ`. `None` for a gated pair, whose two right-hand sides have one left.
    fn swapped(&self) -> Option<Call> {
        let turn = |layout: Layout| layout.transpose(layout.rank() - 2, layout.rank() - 1);
        let extra = |extra: Option<Extra>| match extra {
            Some(e) => Some(Some(Extra { layout: turn(e.layout)?, ..e })),
            None => Some(None),
        };
        let p = &self.problem;
        if p.epilogue.gate.is_some() {
            return None;
        }
        let [out, lhs, rhs] = p.dtypes;
        let epilogue =
            Epilogue { c: extra(p.epilogue.c)?, bias: extra(p.epilogue.bias)?, residual: extra(p.epilogue.residual)?, ..p.epilogue };
        let problem = Problem { dtypes: [out, rhs, lhs], out: turn(p.out)?, lhs: turn(p.rhs)?, rhs: turn(p.lhs)?, epilogue, ..p.clone() };
        let mut args = self.args;
        args.swap(1, 2);
        Some(Call { problem, args, wide: self.wide })
    }

    /// Whether a kernel can write `out` itself: 16-bit elements come in eights or in pairs.
    fn writes(&self) -> bool {
        let out = &self.problem.out;
        self.problem.dtypes[0] == F32 || along(&self.problem).is_some() || runs(out, out.rank() - 1, 2, false)
    }

    /// One launch. `split`: parts of k and the elements from one to the next.
    fn launch(
        &self,
        caps: &Caps,
        kernel: &'static Kernel,
        tune: &'static Constants,
        width: Width,
        (splits, stride): (usize, usize),
    ) -> Result<Dispatch> {
        let (op, problem) = (super::OP, &self.problem);
        check_kernel(op, caps, kernel)?;
        let epilogue = &problem.epilogue;
        let second = std::ptr::eq(kernel, &MATMUL_SPLITK);
        let plain = epilogue.is_none() && kernel.variants.contains(&PLAIN);
        let variant = match (epilogue.gate.is_some(), plain) {
            (true, _) => &GATED,
            (false, true) => &PLAIN,
            (false, false) => &FUSED,
        };
        let wanted = if second { [problem.dtypes[0], F32, F32] } else { problem.dtypes };
        let dtypes = kernel.dtypes.iter().find(|own| own[..3] == wanted).ok_or_else(|| Error::Argument {
            op,
            argument: "the device's pin",
            problem: format!("is {}, which is not built for {wanted:?}", kernel.name),
            help: "pin another kernel",
        })?;
        let bound =
            [("out", Some((problem.out, dtypes[0]))), ("lhs", Some((problem.lhs, dtypes[1]))), ("rhs", Some((problem.rhs, dtypes[2])))]
                .into_iter()
                .chain([("gate", epilogue.gate.map(|gate| (gate, dtypes[2])))])
                .chain(["c", "bias", "residual"].into_iter().zip(epilogue.extras().map(|extra| extra.map(|e| (e.layout, e.dtype)))));
        for (name, there) in bound {
            // Of a second pass, both operands are parts, which have been checked as `out` of the first.
            if let Some((layout, dtype)) = there.filter(|_| !second || !["lhs", "rhs", "gate"].contains(&name)) {
                check_binding(op, caps, name, &layout, dtype)?;
            }
        }
        let spec = Spec { dtypes, variant, tune, width };
        let (m, n, k) = (problem.m(), problem.n(), problem.k());
        let batch = problem.batch();
        let product = |sides: &[usize]| sides.iter().try_fold(1usize, |all, &side| all.checked_mul(side)).unwrap_or(usize::MAX);
        let gated = 1 + usize::from(epilogue.gate.is_some());
        let constant = |name: &str, default: usize| tune.get(name).map_or(default, |value| value as usize);
        let (tiles_m, tiles_n, groups) = if second {
            let (lines, eights) = (product(&[batch, m]), n.div_ceil(8));
            (lines, eights, product(&[lines, eights]).div_ceil(constant("GROUP", 1)))
        } else {
            let (rows, cols) = if std::ptr::eq(kernel, &MATMUL) || std::ptr::eq(kernel, &MATMUL_COOP) {
                (constant("TILE_M", 1), constant("TILE_N", 1) / gated)
            } else if std::ptr::eq(kernel, &MATMUL_DIRECT) {
                (constant("ROWS", 1) / gated, 8 * constant("LANES", 8))
            } else {
                (constant("ROWS", 1), constant("TILE_N", 1))
            };
            let (tiles_m, tiles_n) = (m.div_ceil(rows), n.div_ceil(cols));
            (tiles_m, tiles_n, product(&[tiles_m, tiles_n, batch, splits]))
        };
        let batches = problem.batches();
        // At most 4 batch axes, so they fill the second vec4 alone.
        let four = |values: &[usize], fill| Ok::<_, Error>(crate::gpu::axes(op, values, fill)?[1]);
        let mut rest = batches[3..].iter();
        let mut batch_of = |there: bool| match rest.next().filter(|_| there) {
            Some(layout) => four(layout.strides(), 0),
            None => Ok([0; 4]),
        };
        let place = |name: &str, layout: Option<&Layout>| -> Result<[u32; 3]> {
            let Some(layout) = layout else { return Ok([0; 3]) };
            let stride = |from_end: usize| word(op, "a stride", layout.strides()[layout.rank() - from_end]);
            Ok([word(op, name, layout.offset())?, stride(2)?, stride(1)?])
        };
        let [lhs, rhs, out] = [place("lhs", Some(&problem.lhs))?, place("rhs", Some(&problem.rhs))?, place("out", Some(&problem.out))?];
        let [c, bias, residual] = epilogue.extras();
        let gate = place("gate", epilogue.gate.as_ref())?;
        let [c_at, bias_at, residual_at] = [
            place("c", c.as_ref().map(|e| &e.layout))?,
            place("bias", bias.as_ref().map(|e| &e.layout))?,
            place("residual", residual.as_ref().map(|e| &e.layout))?,
        ];
        let code = |extra: &Option<Extra>| extra.as_ref().map_or(0, |e| e.dtype.code());
        let mut others = [[0; 4]; 4];
        for (strides, there) in others.iter_mut().zip(problem.others()) {
            if there.is_some() {
                *strides = batch_of(true)?;
            }
        }
        let params = Params {
            batch_dims: four(batches[0].dims(), 1)?,
            lhs_batch: four(batches[1].strides(), 0)?,
            rhs_batch: four(batches[2].strides(), 0)?,
            gate_batch: others[0],
            out_batch: four(batches[0].strides(), 0)?,
            c_batch: others[1],
            bias_batch: others[2],
            residual_batch: others[3],
            lhs_offset: lhs[0],
            lhs_row: lhs[1],
            lhs_col: lhs[2],
            rhs_offset: rhs[0],
            rhs_row: rhs[1],
            rhs_col: rhs[2],
            gate_offset: gate[0],
            gate_row: gate[1],
            gate_col: gate[2],
            out_offset: out[0],
            out_row: out[1],
            out_col: out[2],
            c_dtype: code(&c),
            c_offset: c_at[0],
            c_row: c_at[1],
            c_col: c_at[2],
            bias_dtype: code(&bias),
            bias_offset: bias_at[0],
            bias_row: bias_at[1],
            bias_col: bias_at[2],
            residual_dtype: code(&residual),
            residual_offset: residual_at[0],
            residual_row: residual_at[1],
            residual_col: residual_at[2],
            m: word(op, "m", m)?,
            n: word(op, "n", n)?,
            k: loop_end(op, "k", k)?,
            tiles_m: word(op, "m", tiles_m)?,
            tiles_n: word(op, "n", tiles_n)?,
            groups: word(op, "the grid", groups)?,
            band: BAND,
            along: if width == Width::Vector { along(problem).unwrap_or(0) } else { denser(problem) },
            splits: word(op, "splits", splits)?,
            chunk: loop_end(op, "k", chunk(k, splits))?,
            split_stride: word(op, "the parts", stride)?,
            has: u32::from(c.is_some())
                | u32::from(bias.is_some()) << 1
                | u32::from(residual.is_some()) << 2
                | u32::from(epilogue.accumulate) << 3,
            activation: epilogue.activation.code(),
            alpha: epilogue.alpha,
            beta: epilogue.beta,
            zero: 0,
        };
        let size = |sides: [usize; 3]| sides.into_iter().fold(1u64, |all, side| all.saturating_mul(side as u64));
        let elements = size([batch, m, n]);
        let (left, right, deep) =
            if second { (elements.saturating_mul(splits as u64), 0, splits) } else { (size([batch, m, k]), size([batch, k, n]), k) };
        let extras = epilogue.extras().iter().flatten().count() as u64;
        let sizes = [elements.saturating_mul(1 + extras), left, right.saturating_mul(gated as u64)];
        let bytes = sizes.iter().zip(*dtypes).map(|(count, dtype)| count.saturating_mul(dtype.block_bytes() as u64));
        Ok(Dispatch {
            kernel,
            spec,
            args: self.args.to_vec(),
            params: bytemuck::bytes_of(&params).to_vec(),
            grid: fold(op, caps, groups as u64)?,
            bytes: bytes.fold(0, u64::saturating_add),
            flops: elements.saturating_mul(2 * gated as u64).saturating_mul(deep as u64),
        })
    }

    /// All of it by the chosen kernel, into what it can write.
    fn whole(&self, caps: &Caps, choice: &Choice, scratch: &mut Vec<u64>) -> Result<Vec<Dispatch>> {
        // The direct kernel is long enough for compilers with one way to read lhs.
        let either = !std::ptr::eq(choice.kernel, &MATMUL_DIRECT);
        let vector = |call: &Call| Width::of(call.wide && along(&call.problem).is_some_and(|along| either || along & 1 != 0));
        if choice.splits == 1 {
            return Ok(vec![self.launch(caps, choice.kernel, choice.tune, vector(self), (1, 0))?]);
        }
        let (op, problem) = (super::OP, &self.problem);
        // The parts, one product for each right-hand side, f32.
        let parts = dense(op, problem.out.dims())?;
        let splits = problem.k().div_ceil(chunk(problem.k(), choice.splits));
        let all = parts.len().checked_mul(splits).filter(|&all| all as u64 * 4 + 32 <= caps.binding_bytes);
        let Some(all) = all else { return self.whole(caps, &Choice { splits: 1, ..*choice }, scratch) };
        let mut second = self.clone();
        let mut dispatches = Vec::new();
        let sides = [Some((problem.rhs, 2)), problem.epilogue.gate.map(|gate| (gate, 3))];
        for (place, (rhs, arg)) in [1, 3].into_iter().zip(sides.into_iter().flatten()) {
            let part = Arg::Scratch(scratch.len());
            // The second pass reads eights, past the end of the last row too.
            scratch.push((all as u64 + 8) * 4);
            let [_, lhs_dtype, rhs_dtype] = problem.dtypes;
            let first = Problem { dtypes: [F32, lhs_dtype, rhs_dtype], out: parts, rhs, epilogue: Epilogue::NONE, ..problem.clone() };
            let mut call = Call { problem: first, args: [self.args[1]; 7], wide: self.wide };
            call.args[0] = part;
            call.args[2] = self.args[arg];
            dispatches.push(call.launch(caps, choice.kernel, choice.tune, vector(&call), (splits, parts.len()))?);
            second.args[place] = part;
        }
        // Unread.
        second.args[2] = second.args[1];
        let out = &problem.out;
        let width = Width::of(runs(out, out.rank() - 1, 8, false));
        dispatches.push(second.launch(caps, &MATMUL_SPLITK, &MATMUL_SPLITK.tunes[0], width, (splits, parts.len()))?);
        Ok(dispatches)
    }
}

/// Of k, in each of so many parts: whole steps of the kernel.
fn chunk(k: usize, splits: usize) -> usize {
    k.div_ceil(splits.max(1)).next_multiple_of(16)
}

/// The dispatches of a matmul.
///
/// # Errors
/// [`Error::TooLarge`] where the device's limits forbid it, [`Error::Argument`] if the device cannot run the pinned kernel.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    // The whole problem's: its parts would choose other tiles or widths, and add in another order.
    let choice = chosen(caps, pin, problem)?;
    let turned = if choice.swapped { Call::new(problem).swapped() } else { None };
    let wide = wide(turned.as_ref().map_or(problem, |call| &call.problem));
    cut(caps, problem, &|problem| uncut(caps, &choice, wide, problem))
}

/// A pin for one of matmul's kernels: that kernel where it computes such a problem, else the choice.
fn chosen(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Choice> {
    let (choice, _) = select(caps, problem);
    let own = [&MATMUL, &MATMUL_COOP, &MATMUL_DIRECT, &MATMUL_SKINNY, &MATMUL_SPLITK];
    let Some(kernel) = pin.and_then(|pin| own.into_iter().find(|kernel| std::ptr::eq(*kernel, pin.kernel))) else { return Ok(choice) };
    let tune = Pin::tune_of(super::OP, pin, kernel)?;
    if std::ptr::eq(kernel, &MATMUL_SPLITK) {
        // Its first pass is the main kernel's; as many parts as there can be, up to 4.
        let splits = problem.k().div_ceil(16).clamp(1, 4);
        return Ok(Choice { kernel: &MATMUL, tune: &MATMUL.tunes[1], splits, swapped: false, reason: "pinned" });
    }
    if std::ptr::eq(kernel, &MATMUL_COOP) {
        check_kernel(super::OP, caps, kernel)?;
        let tune = match tune {
            Some(tune) => cooperates(caps, tune).is_ok().then_some(tune),
            None => coop_tune(caps).ok(),
        };
        let Some(tune) = tune.filter(|_| coop_serves(problem).is_ok()) else { return Ok(choice) };
        return Ok(Choice { kernel, tune, splits: 1, swapped: false, reason: "pinned" });
    }
    if std::ptr::eq(kernel, &MATMUL_SKINNY) {
        let holds = |tune: &Constants| !problem.batch_invariant && problem.m() <= tune.get("ROWS").unwrap_or(0) as usize;
        let tune = tune.or_else(|| kernel.tunes.iter().find(|tune| holds(tune))).filter(|tune| holds(tune));
        // Else nothing that it could do: the choice stays.
        return Ok(tune.map_or(choice, |tune| Choice { kernel, tune, splits: 1, swapped: false, reason: "pinned" }));
    }
    let tune = tune.unwrap_or(if std::ptr::eq(kernel, choice.kernel) { choice.tune } else { &kernel.tunes[0] });
    Ok(Choice { kernel, tune, splits: 1, swapped: false, reason: "pinned" })
}

fn uncut(caps: &Caps, choice: &Choice, wide: bool, problem: &Problem) -> Result<Plan> {
    let op = super::OP;
    let call = Call { wide, ..Call::new(problem) };
    let types = DTYPES.iter().any(|own| own[..3] == problem.dtypes);
    let turned = if choice.swapped { call.swapped() } else { None };
    let mut plan = Plan::default();
    // Their order of addition is the width's, which must not depend on where `out` lies (N4).
    let same_bits =
        ![&MATMUL_SKINNY, &MATMUL_COOP].into_iter().any(|kernel| std::ptr::eq(choice.kernel, kernel)) || along(problem).is_some() || !wide;
    if turned.is_none() && types && same_bits && call.writes() {
        plan.dispatches = call.whole(caps, choice, &mut plan.scratch)?;
        return Ok(plan);
    }
    // Into a dense f32 scratch, as the kernel likes it, and from there to `out`, rounded once.
    let mut call = turned.unwrap_or(call);
    let place = dense(op, call.problem.out.dims())?;
    let (out, out_dtype) = (problem.out, problem.dtypes[0]);
    let target = |plan: &mut Plan| {
        plan.scratch.push((place.len() * 4) as u64);
        Arg::Scratch(plan.scratch.len() - 1)
    };
    call.args[0] = target(&mut plan);
    call.problem.dtypes[0] = F32;
    call.problem.out = place;
    // What `out` holds is then read like any other operand.
    let before = std::mem::take(&mut call.problem.epilogue.accumulate).then_some(Extra { dtype: out_dtype, layout: out });
    let taken = call.problem.epilogue.residual.is_some();
    if let Some(before) = before.filter(|_| !taken) {
        call.problem.epilogue.residual = Some(before);
        call.args[6] = Arg::Tensor(0);
    }
    plan.dispatches = call.whole(caps, choice, &mut plan.scratch)?;
    let mut from = call.args[0];
    if let Some(before) = before.filter(|_| taken) {
        // The residual's place is taken: a pass of its own.
        let mut last = Call { problem: call.problem.clone(), args: [from; 7], wide: true };
        last.problem.epilogue = Epilogue { residual: Some(before), ..Epilogue::NONE };
        last.args[6] = Arg::Tensor(0);
        last.args[0] = target(&mut plan);
        let width = Width::of(place.dims()[place.rank() - 1].is_multiple_of(8));
        // It reads eights, past the end of the last row too.
        if let Arg::Scratch(number) = from {
            plan.scratch[number] += 32;
        }
        plan.dispatches.push(last.launch(caps, &MATMUL_SPLITK, &MATMUL_SPLITK.tunes[0], width, (1, 0))?);
        from = last.args[0];
    }
    let x = if choice.swapped { place.transpose(place.rank() - 2, place.rank() - 1).unwrap_or(place) } else { place };
    cast::gpu::append(&mut plan, op, caps, &cast::Problem { out_dtype, x_dtype: F32, out, x }, Arg::Tensor(0), from)?;
    Ok(plan)
}

/// What a matmul would do on a device, and why; see [`explain`].
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The kernel that makes the sums.
    pub choice: Choice,
    /// What was refused before it, and why.
    pub refused: Vec<(&'static str, String)>,
    /// Every dispatch, with its bytes and FLOPs.
    pub plan: Plan,
}

/// Kernel, tunables, dispatches, bytes and FLOPs of a matmul, and why faster variants were refused: from facts alone, without a GPU.
///
/// ```
/// use gristmill::ops::matmul::{Epilogue, Problem, gpu::explain};
/// use gristmill::{DType, Layout, gpu::Caps};
///
/// let [out, lhs, rhs] = [[1, 4096], [1, 4096], [4096, 4096]].map(|dims| Layout::contiguous(&dims).expect("a small shape"));
/// let problem = Problem { dtypes: [DType::F32; 3], batch_invariant: false, out, lhs, rhs, epilogue: Epilogue::NONE };
/// println!("{}", explain(&problem, &Caps::webgpu_defaults())?);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// Those of the call: [`Error::TooLarge`].
pub fn explain(problem: &Problem, caps: &Caps) -> Result<Explanation> {
    let (choice, refused) = select(caps, problem);
    Ok(Explanation { choice, refused, plan: plan(caps, None, problem)? })
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Choice { kernel, tune, splits, swapped, reason } = self.choice;
        write!(f, "{}.{}", kernel.name, tune.name)?;
        if splits > 1 {
            write!(f, ", {splits} parts of k, added by matmul_splitk")?;
        }
        if swapped {
            write!(f, ", operands turned")?;
        }
        let width = self.plan.dispatches.first().map_or(Width::Vector, |dispatch| dispatch.spec.width);
        let bytes = if width == Width::Vector { "16 bytes an access" } else { "4 bytes an access: operands are not made of whole eights" };
        writeln!(f, ": {reason}; {bytes}")?;
        write!(f, "{tune}{}", self.plan)?;
        for (name, why) in &self.refused {
            writeln!(f, "  not {name}, which {why}")?;
        }
        Ok(())
    }
}
