//! Attention on a GPU: [`ATTENTION`] and [`ATTENTION_SUBGROUPS`], FlashAttention-2 as two register-tiled products; [`ATTENTION_DECODE`] for few queries; [`ATTENTION_DIRECT`] for
//! adapters that run on the CPU. All share `shaders/lib/attention.wgsl`: bindings, [`Params`], what masks and what is added to a score.

use std::fmt;

use super::select::select;
use super::{ALL, Problem};
use crate::error::{Error, Result};
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, axes, check_binding, check_kernel,
    fold, runs, word,
};
use crate::ops::{cast, cut, through_scratch};
use crate::tensor::dense;
use crate::{DType, Layout};
use DType::{BF16, Bool, F16, F32};

pub use super::select::Choice;

const LIBS: &[&str] = &[
    include_str!("../../../shaders/lib/attention.wgsl"),
    include_str!("../../../shaders/lib/element.wgsl"),
    include_str!("../../../shaders/lib/float.wgsl"),
    include_str!("../../../shaders/lib/philox.wgsl"),
];

/// Those of the last three are in `Params`, or one.
const BINDINGS: &[Binding] = &[
    Binding::typed("out", Access::Write, "OUT_DTYPE"),
    Binding::new("lse", Access::Write),
    Binding::typed("q", Access::Read, "Q_DTYPE"),
    Binding::typed("k", Access::Read, "K_DTYPE"),
    Binding::typed("v", Access::Read, "V_DTYPE"),
    Binding::new("mask", Access::Read),
    Binding::new("per_head", Access::Read),
    Binding::new("lens", Access::Read),
];

const PLAIN: Constants = Constants { name: "", values: &[("OPTIONS", 0)] };
const OPTIONS: Constants = Constants { name: "options", values: &[("OPTIONS", 1)] };

const DTYPES: &[&[DType]] = &[
    &[F32; 8],
    &[F16; 8],
    &[BF16; 8],
    &[F32, F32, F16, F16, F16, F32, F32, F32],
    &[F32, F32, BF16, BF16, BF16, F32, F32, F32],
    &[F32, F32, F32, F16, F16, F32, F32, F32],
    &[F32, F32, F32, BF16, BF16, F32, F32, F32],
];

/// What the kernels have in common.
const COMMON: Kernel = Kernel {
    name: "",
    source: "",
    libs: LIBS,
    bindings: BINDINGS,
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[PLAIN, OPTIONS],
    tunes: &[Constants::NONE],
    dtypes: DTYPES,
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

/// The constants of `lib/attention_tiles.wgsl`.
const fn tile([block_q, rows, v_max, v_keys]: [u32; 4]) -> [(&'static str, u32); 4] {
    [("BLOCK_Q", block_q), ("ROWS", rows), ("V_MAX", v_max), ("V_KEYS", v_keys)]
}

/// Of the kernels that work by tiles.
const TILES: &[&str] = &[LIBS[0], LIBS[1], LIBS[2], LIBS[3], include_str!("../../../shaders/lib/attention_tiles.wgsl")];

/// 64 keys a step. A tune for each size of the output's registers, and for 16 and 32 KiB of workgroup memory. Results that it does not write go
/// through an f32 scratch.
pub static ATTENTION: Kernel = Kernel {
    name: "attention",
    source: include_str!("../../../shaders/attention.wgsl"),
    libs: TILES,
    tunes: &[
        Constants { name: "q32v64", values: &tile([32, 8, 64, 16]) },
        Constants { name: "q32v128", values: &tile([32, 8, 128, 8]) },
        Constants { name: "q64v64", values: &tile([64, 8, 64, 16]) },
        Constants { name: "q64v128", values: &tile([64, 8, 128, 16]) },
        Constants { name: "q32v256", values: &tile([32, 4, 256, 4]) },
        Constants { name: "q16v512", values: &tile([16, 4, 512, 4]) },
    ],
    ..COMMON
};

/// [`ATTENTION`], whose rows' lanes join by shuffles: three barriers a step less where a subgroup holds them.
pub static ATTENTION_SUBGROUPS: Kernel = Kernel {
    name: "attention_subgroups",
    source: include_str!("../../../shaders/attention_subgroups.wgsl"),
    libs: TILES,
    // Not of heads beyond 128: there little of the time goes into joining.
    tunes: ATTENTION.tunes.split_at(4).0,
    needs: Needs::Subgroups,
    ..COMMON
};

/// Without workgroup memory, for adapters that run on the CPU.
pub static ATTENTION_DIRECT: Kernel = Kernel {
    name: "attention_direct",
    source: include_str!("../../../shaders/attention_direct.wgsl"),
    tunes: &[
        Constants { name: "q2d64", values: &[("QUERIES", 2), ("D_MAX", 64)] },
        Constants { name: "q4d64", values: &[("QUERIES", 4), ("D_MAX", 64)] },
        Constants { name: "q2d128", values: &[("QUERIES", 2), ("D_MAX", 128)] },
    ],
    ..COMMON
};

/// At most 8 queries: bound by reading k and v, once. The queries of heads that share keys are rows of one workgroup.
pub static ATTENTION_DECODE: Kernel = Kernel {
    name: "attention_decode",
    source: include_str!("../../../shaders/attention_decode.wgsl"),
    tunes: &[
        Constants { name: "rows4d64", values: &[("ROWS", 4), ("D_MAX", 64)] },
        Constants { name: "rows8d64", values: &[("ROWS", 8), ("D_MAX", 64)] },
        Constants { name: "rows4d128", values: &[("ROWS", 4), ("D_MAX", 128)] },
        Constants { name: "rows8d128", values: &[("ROWS", 8), ("D_MAX", 128)] },
        Constants { name: "rows4d256", values: &[("ROWS", 4), ("D_MAX", 256)] },
        Constants { name: "rows8d256", values: &[("ROWS", 8), ("D_MAX", 256)] },
    ],
    ..COMMON
};

/// Joins what was made over parts of the keys.
pub static ATTENTION_REDUCE: Kernel = Kernel {
    name: "attention_reduce",
    source: include_str!("../../../shaders/attention_reduce.wgsl"),
    libs: &[include_str!("../../../shaders/lib/element.wgsl"), include_str!("../../../shaders/lib/float.wgsl")],
    bindings: &[
        Binding::typed("out", Access::Write, "OUT_DTYPE"),
        Binding::new("lse", Access::Write),
        Binding::new("part", Access::Read),
        Binding::new("part_lse", Access::Read),
    ],
    params: ReduceParams::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: &[Constants { name: "group64", values: &[("WORKGROUP", 64)] }],
    dtypes: &[&[F32; 4], &[F16, F32, F32, F32], &[BF16, F32, F32, F32]],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of `attention_reduce.wgsl`.
    pub struct ReduceParams {
        /// Strides of batch, head, row and column.
        out_strides: [u32; 4],
        /// Strides of batch, head and row.
        lse_strides: [u32; 4],
        /// First element.
        out_offset: u32,
        /// First element.
        lse_offset: u32,
        /// Query heads.
        heads: u32,
        /// Queries.
        seq_q: u32,
        /// Columns.
        v_dim: u32,
        /// Rows of all batches and heads.
        rows: u32,
        /// Eights in a row.
        eights: u32,
        /// Parts of the keys.
        parts: u32,
        /// Elements of a part's row.
        part_row: u32,
        /// Whether the logarithms of the sums are asked for.
        has_lse: u32,
        /// Eights in all.
        len: u32,
        /// Nothing.
        pad: u32,
    }
}

/// Both masks as one, for calls that have both.
pub static ATTENTION_MASK: Kernel = Kernel {
    name: "attention_mask",
    source: include_str!("../../../shaders/attention_mask.wgsl"),
    libs: &[
        include_str!("../../../shaders/lib/element.wgsl"),
        include_str!("../../../shaders/lib/float.wgsl"),
        include_str!("../../../shaders/lib/index.wgsl"),
    ],
    bindings: &[Binding::new("out", Access::Write), Binding::new("mask", Access::Read), Binding::new("bias", Access::Read)],
    params: MaskParams::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: &[Constants { name: "group64", values: &[("WORKGROUP", 64)] }],
    dtypes: &[&[F32, Bool, F32]],
    widths: &[Width::Scalar],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of `attention_mask.wgsl`.
    pub struct MaskParams {
        /// Sizes of the merged axes.
        dims: [[u32; 4]; 2],
        /// Strides.
        mask_strides: [[u32; 4]; 2],
        /// Strides.
        bias_strides: [[u32; 4]; 2],
        /// First element.
        mask_offset: u32,
        /// First element.
        bias_offset: u32,
        /// Element type.
        bias_dtype: u32,
        /// Elements.
        len: u32,
    }
}

crate::params! {
    /// `Params` of `lib/attention.wgsl`. Strides are of batch, head, row and column; of batch, head, query and key in masks.
    pub struct Params {
        /// Strides.
        q_strides: [u32; 4],
        /// Strides.
        k_strides: [u32; 4],
        /// Strides.
        v_strides: [u32; 4],
        /// Strides.
        out_strides: [u32; 4],
        /// Strides.
        mask_strides: [u32; 4],
        /// Strides of batch, head, query and part.
        lse_strides: [u32; 4],
        /// First element.
        q_offset: u32,
        /// First element.
        k_offset: u32,
        /// First element.
        v_offset: u32,
        /// First element.
        out_offset: u32,
        /// First element.
        mask_offset: u32,
        /// First element.
        lse_offset: u32,
        /// First element.
        sink_offset: u32,
        /// From head to head.
        sink_stride: u32,
        /// First element.
        alibi_offset: u32,
        /// From head to head.
        alibi_stride: u32,
        /// First element.
        len_offset: u32,
        /// From batch to batch.
        len_stride: u32,
        /// Query heads.
        heads: u32,
        /// Query heads that share a key head.
        heads_per_kv: u32,
        /// Queries.
        seq_q: u32,
        /// Keys.
        seq_k: u32,
        /// Columns of q and k.
        head_dim: u32,
        /// Columns of v.
        v_dim: u32,
        /// Workgroups a head.
        blocks_q: u32,
        /// Workgroups that have work.
        groups: u32,
        /// The place of query 0 among the keys.
        place: i32,
        /// Keys that a query sees before its place.
        left: i32,
        /// And after it.
        right: i32,
        /// Which options there are.
        has: u32,
        /// What the mask is made of.
        mask_kind: u32,
        /// Factor of the scores.
        scale: f32,
        /// See `Attention::softcap`.
        softcap: f32,
        /// Weights are 2 to the power of this by a difference of scores.
        rate: f32,
        /// Of the random numbers.
        seed_low: u32,
        /// Of the random numbers.
        seed_high: u32,
        /// `Dropout::offset`.
        draw: u32,
        /// 24 random bits below this leave a weight out.
        threshold: u32,
        /// Factor of the others.
        kept: f32,
        /// The query of the whole call with which this part of it begins.
        first_row: u32,
        /// The head, counted through all batches.
        first_head: u32,
        /// Heads of a batch of the whole call.
        all_heads: u32,
        /// Parts of the keys.
        splits: u32,
        /// Keys in each.
        chunk: u32,
        /// Elements of `out` from one part's to the next's.
        part_stride: u32,
        /// Keys that there are, also those that a short mask hides.
        full_k: u32,
    }
}

/// Bits of `Params::has`, as in the shader.
const HAS_LSE: u32 = 1;
const HAS_SINKS: u32 = 2;
const HAS_ALIBI: u32 = 4;
const HAS_LENS: u32 = 8;
const HAS_SOFTCAP: u32 = 16;
const HAS_DROPOUT: u32 = 32;
const TO_LEN: u32 = 64;

/// Whether the plain variant serves, whose scores are the products themselves: the scale is positive, so that they have their order, and neither so large
/// that differences of them overflow, nor so small that a masked one's would not be enough for a weight of 0.
fn is_plain(problem: &Problem) -> bool {
    let Problem { mask, bias, alibi, sinks, softcap, dropout, scale, .. } = problem;
    let none = mask.is_none() && bias.is_none() && alibi.is_none() && sinks.is_none() && softcap.is_none() && dropout.is_none();
    none && (1e-30..=0.25).contains(scale)
}

/// Whether the places of keys a step past the last do not wrap: kernels in whole Words compare them.
fn near(layout: &Layout) -> bool {
    let past = layout.strides()[2].checked_mul(64).and_then(|step| step.checked_add(layout.span().end));
    past.is_some_and(|past| u32::try_from(past).is_ok())
}

fn four(layout: &Layout) -> Result<[u32; 4]> {
    Ok(axes(super::OP, layout.strides(), 0)?[1])
}

/// Strides of what is one number a row, of batch, head, row and part.
fn of_rows(layout: Option<Layout>, part: usize) -> Result<[u32; 4]> {
    let strides = layout.iter().flat_map(|layout| layout.strides()).copied().chain([0; 3]).take(3).chain([part]);
    let mut words = [0; 4];
    for (to, stride) in words.iter_mut().zip(strides) {
        *to = word(super::OP, "lse", stride)?;
    }
    Ok(words)
}

/// Blocks of queries by keys that a choice computes, and all that there are: what no query of a block sees by its place is skipped. Numbers of keys that
/// lie on the device count as `seq_k`.
pub fn blocks(problem: &Problem, choice: &Choice) -> (u64, u64) {
    let (seq_q, block_q, block_k) = (problem.seq_q(), choice.block_q(), choice.block_k());
    if problem.out.is_empty() {
        return (0, 0);
    }
    let [blocks_q, groups] = Choice { splits: 1, ..*choice }.groups(problem);
    let times = (groups / blocks_q.max(1)) as u64;
    let seen = |first: usize, last: usize| {
        let (start, end) = (problem.keys_of(first, problem.full_k)[0], problem.keys_of(last, problem.full_k)[1]);
        end.div_ceil(block_k).saturating_sub(start / block_k) as u64
    };
    let visited: u64 = match choice.decodes() {
        // Rows of several heads, each of them of all queries.
        true => blocks_q as u64 * seen(0, seq_q - 1),
        false => (0..seq_q).step_by(block_q).map(|first| seen(first, (first + block_q).min(seq_q) - 1)).sum(),
    };
    (times * visited, times * (blocks_q * problem.seq_k().div_ceil(block_k)) as u64)
}

/// The dispatches of an attention.
///
/// # Errors
/// [`Error::TooLarge`] where the device's limits forbid it, [`Error::Argument`] if the pinned tune does not hold the head.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    if problem.out.is_empty() {
        return Ok(Plan::default());
    }
    // Parts are computed as the whole is.
    let choice = chosen(caps, pin, problem)?;
    cut(caps, problem, &|problem| uncut(caps, choice, problem))
}

/// Whether a device can run a tune of one of these kernels, or why not.
pub fn fits(caps: &Caps, kernel: &Kernel, tune: &Constants) -> Result<(), String> {
    if kernel.needs == Needs::Subgroups {
        let Some((least, most)) = caps.subgroups else { return Err("needs subgroup operations, which the device does not show".into()) };
        // Workgroups are to be whole subgroups.
        let [block_q, rows] = ["BLOCK_Q", "ROWS"].map(|name| tune.get(name).unwrap_or(1));
        let threads = block_q / rows * 16;
        if least < 4 || most > threads {
            return Err(format!("has {threads} invocations for subgroups of 4 and more, and the device makes them of {least} to {most}"));
        }
    }
    let bytes = super::select::memory(tune);
    if bytes > caps.workgroup_bytes {
        return Err(format!("takes {bytes} bytes of workgroup memory, not {}", caps.workgroup_bytes));
    }
    Ok(())
}

/// The kernel and tune, the pin's if it is for one of these kernels.
fn chosen(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Choice> {
    let op = super::OP;
    let (choice, _) = select(caps, problem);
    let ours = [&ATTENTION, &ATTENTION_SUBGROUPS, &ATTENTION_DIRECT, &ATTENTION_DECODE];
    let Some(pin) = pin.filter(|pin| ours.iter().any(|kernel| std::ptr::eq(*kernel, pin.kernel))) else {
        return Ok(choice);
    };
    let serves = |tune: &&Constants| super::select::holds(tune, problem) && fits(caps, pin.kernel, tune).is_ok();
    let tune = match Pin::tune_of(op, Some(pin), pin.kernel)? {
        Some(tune) => Some(tune),
        None if std::ptr::eq(choice.kernel, pin.kernel) => Some(choice.tune),
        None => pin.kernel.tunes.iter().find(serves),
    };
    match tune.filter(serves) {
        Some(tune) => {
            let pinned = Choice { kernel: pin.kernel, tune, splits: 1, reason: "pinned" };
            Ok(Choice { splits: super::select::splits(caps, problem, &pinned), ..pinned })
        }
        None => Err(Error::Argument {
            op,
            argument: "the device's pin",
            problem: format!(
                "is {}{}{}, which does not serve heads of {} and {} columns on this device",
                pin.kernel.name,
                if pin.tune.is_some() { "." } else { "" },
                pin.tune.map_or("", |tune| tune.name),
                problem.head_dim(),
                problem.v_dim()
            ),
            help: "pin another tune, or the kernel alone",
        }),
    }
}

fn uncut(caps: &Caps, choice: Choice, problem: &Problem) -> Result<Plan> {
    let op = super::OP;
    check_kernel(op, caps, choice.kernel)?;
    let [out_dtype, q_dtype, k_dtype, v_dtype, ..] = problem.dtypes;
    let [batch, heads, seq_q, v_dim] = [problem.batch(), problem.heads(), problem.seq_q(), problem.v_dim()];
    // Of parts: f32, each row whole eights.
    let split = choice.splits > 1;
    let v_row = v_dim.next_multiple_of(8);
    let parts = dense(op, &[batch, heads, seq_q, v_row])?;
    let whole = |layout: &Layout| runs(layout, 3, 8, false);
    let written = whole(&problem.out);
    let proven = [&problem.q, &problem.k, &problem.v].iter().all(|layout| whole(layout)) && near(&problem.k) && near(&problem.v);
    let wide = proven && (split || written);
    let writes = out_dtype == F32 || if split { written } else { wide } || runs(&problem.out, 3, 2, false);
    let made = if split { F32 } else { out_dtype };
    let typed = |types: &&&[DType]| [types[0], types[2], types[3], types[4]] == [made, q_dtype, k_dtype, v_dtype];
    let Some(dtypes) = DTYPES.iter().find(typed).filter(|_| writes) else {
        return through_scratch(op, caps, (&problem.out, out_dtype), F32, |out| {
            let mut dtypes = problem.dtypes;
            dtypes[0] = F32;
            uncut(caps, choice, &Problem { dtypes, out, ..problem.clone() })
        });
    };
    let mut plan = Plan::default();
    let named = [("out", &problem.out, out_dtype), ("q", &problem.q, q_dtype), ("k", &problem.k, k_dtype), ("v", &problem.v, v_dtype)];
    for (name, layout, dtype) in named {
        check_binding(op, caps, name, layout, dtype)?;
    }
    let input = |other: usize| Arg::Tensor(problem.input(other).map_or(0, |input| input + 1));
    // What is not there is bound to q, unread.
    let absent = Arg::Tensor(1);

    let (mask, mask_kind, mask_arg) = match (&problem.mask, &problem.bias) {
        (Some(_), Some(_)) => {
            let (layout, arg) = one_mask(caps, problem, &mut plan, input)?;
            (layout, 2, arg)
        }
        (Some(mask), None) => (*mask, 1, input(0)),
        (None, Some(bias)) => {
            let kind = match problem.dtypes[4] {
                F16 => 3,
                BF16 => 4,
                _ => 2,
            };
            (*bias, kind, input(1))
        }
        (None, None) => (problem.q, 0, absent),
    };
    if mask_kind > 0 {
        check_binding(op, caps, "mask", &mask, if mask_kind == 1 { Bool } else { problem.dtypes[4] })?;
    }
    if let Some(lens) = &problem.kv_lens {
        check_binding(op, caps, "kv_lens", lens, DType::U32)?;
    }
    let (alibi, sinks, per_head) = per_head(caps, problem, &mut plan, input, absent)?;
    let mut scratch = |bytes: usize| {
        plan.scratch.push(bytes as u64);
        Arg::Scratch(plan.scratch.len() - 1)
    };
    let lse_arg = match problem.lse {
        Some(layout) => {
            check_binding(op, caps, "lse", &layout, F32)?;
            Arg::Tensor(4 + problem.others().iter().flatten().count())
        }
        // Something to bind that nothing else is bound to.
        None => scratch(16),
    };
    let rows = batch * heads * seq_q;
    let (out_place, lse_place, out_arg, sums_arg) = if split {
        let sums = dense(op, &[batch, heads, seq_q])?;
        let all = Layout::contiguous(&[choice.splits, rows, v_row]).unwrap_or(parts);
        check_binding(op, caps, "the parts", &all, F32)?;
        (parts, Some(sums), scratch(4 * all.len()), scratch(4 * choice.splits * rows))
    } else {
        (problem.out, problem.lse, Arg::Tensor(0), lse_arg)
    };
    let plain = is_plain(problem);
    let log2_e = std::f64::consts::LOG2_E;
    let dropout = problem.dropout.unwrap_or_default();
    let flags = [
        (lse_place.is_some(), HAS_LSE),
        (problem.sinks.is_some(), HAS_SINKS),
        (problem.alibi.is_some(), HAS_ALIBI),
        (problem.kv_lens.is_some(), HAS_LENS),
        (problem.softcap.is_some(), HAS_SOFTCAP),
        (problem.dropout.is_some(), HAS_DROPOUT),
        (problem.from_end, TO_LEN),
    ];
    let [blocks_q, groups] = choice.groups(problem);
    let [first_batch, first_head, first_row, all_heads] = problem.origin;
    let lens = problem.kv_lens.map_or([0, 0], |layout| [layout.offset(), layout.strides()[0]]);
    // Sequences are below 2^28, and so are offsets; parts of a call add up to as much.
    let place = problem.place.clamp(-ALL / 2, ALL / 2) as i32;
    let params = Params {
        q_strides: four(&problem.q)?,
        k_strides: four(&problem.k)?,
        v_strides: four(&problem.v)?,
        out_strides: four(&out_place)?,
        mask_strides: four(&mask)?,
        lse_strides: of_rows(lse_place, rows)?,
        q_offset: word(op, "q", problem.q.offset())?,
        k_offset: word(op, "k", problem.k.offset())?,
        v_offset: word(op, "v", problem.v.offset())?,
        out_offset: word(op, "out", out_place.offset())?,
        mask_offset: word(op, "mask", mask.offset())?,
        lse_offset: word(op, "lse", lse_place.map_or(0, |layout| layout.offset()))?,
        sink_offset: word(op, "sinks", sinks[0])?,
        sink_stride: word(op, "sinks", sinks[1])?,
        alibi_offset: word(op, "alibi", alibi[0])?,
        alibi_stride: word(op, "alibi", alibi[1])?,
        len_offset: word(op, "kv_lens", lens[0])?,
        len_stride: word(op, "kv_lens", lens[1])?,
        heads: word(op, "heads", heads)?,
        heads_per_kv: word(op, "heads", problem.heads_per_kv())?,
        seq_q: word(op, "seq_q", seq_q)?,
        seq_k: word(op, "seq_k", problem.seq_k())?,
        head_dim: word(op, "head_dim", problem.head_dim())?,
        v_dim: word(op, "v_dim", v_dim)?,
        blocks_q: word(op, "seq_q", blocks_q)?,
        groups: word(op, "the grid", groups)?,
        place,
        left: problem.window[0].min(ALL) as i32,
        right: problem.window[1].min(ALL) as i32,
        has: flags.iter().filter(|(there, _)| *there).map(|(_, bit)| bit).sum(),
        mask_kind,
        scale: problem.scale,
        softcap: problem.softcap.unwrap_or(0.0),
        rate: if plain { (f64::from(problem.scale) * log2_e) as f32 } else { (8.0 * log2_e) as f32 },
        seed_low: dropout.seed as u32,
        seed_high: (dropout.seed >> 32) as u32,
        draw: dropout.offset,
        threshold: (f64::from(dropout.probability) * f64::from(1 << 24)).ceil() as u32,
        kept: 1.0 / (1.0 - dropout.probability),
        first_row: word(op, "seq_q", first_row)?,
        first_head: word(op, "heads", first_batch.saturating_mul(all_heads).saturating_add(first_head))?,
        all_heads: word(op, "heads", all_heads)?,
        splits: word(op, "seq_k", choice.splits)?,
        chunk: word(op, "seq_k", choice.chunk(problem))?,
        part_stride: word(op, "the parts", if split { parts.len() } else { 0 })?,
        full_k: word(op, "seq_k", problem.full_k)?,
    };
    let columns = (problem.head_dim() + v_dim) as u64;
    let scores = blocks(problem, &choice).0.saturating_mul((choice.block_q() * choice.block_k()) as u64);
    plan.dispatches.push(Dispatch {
        kernel: choice.kernel,
        spec: Spec { dtypes, variant: if plain { &PLAIN } else { &OPTIONS }, tune: choice.tune, width: Width::of(wide) },
        args: vec![out_arg, sums_arg, Arg::Tensor(1), Arg::Tensor(2), Arg::Tensor(3), mask_arg, per_head, {
            if problem.kv_lens.is_some() { input(4) } else { absent }
        }],
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, groups as u64)?,
        bytes: named.iter().map(|(_, layout, dtype)| layout.len() as u64 * dtype.block_bytes() as u64).sum(),
        flops: scores.saturating_mul(2).saturating_mul(columns),
    });
    if split {
        plan.dispatches.push(reduce(
            op,
            caps,
            (&problem.out, out_dtype),
            problem.lse,
            choice.splits,
            [Arg::Tensor(0), lse_arg, out_arg, sums_arg],
        )?);
    }
    Ok(plan)
}

/// The second pass: parts of f32, rows of whole eights, and the logarithms of their sums, joined into `out` ([batch, heads, seq_q, v_dim]), which
/// the kernel can write. The arguments are out, lse, the parts, and their logarithms.
pub(crate) fn reduce(
    op: &'static str,
    caps: &Caps,
    (out, out_dtype): (&Layout, DType),
    lse: Option<Layout>,
    parts: usize,
    args: [Arg; 4],
) -> Result<Dispatch> {
    let kernel = &ATTENTION_REDUCE;
    let [batch, heads, seq_q, v_dim] = [0, 1, 2, 3].map(|axis| out.dims()[axis]);
    let (rows, v_row) = (batch * heads * seq_q, v_dim.next_multiple_of(8));
    let len = rows * v_row / 8;
    let params = ReduceParams {
        out_strides: four(out)?,
        lse_strides: of_rows(lse, 0)?,
        out_offset: word(op, "out", out.offset())?,
        lse_offset: word(op, "lse", lse.map_or(0, |layout| layout.offset()))?,
        heads: word(op, "heads", heads)?,
        seq_q: word(op, "seq_q", seq_q)?,
        v_dim: word(op, "v_dim", v_dim)?,
        rows: word(op, "out", rows)?,
        eights: word(op, "v_dim", v_row / 8)?,
        parts: word(op, "the parts", parts)?,
        part_row: word(op, "v_dim", v_row)?,
        has_lse: lse.is_some().into(),
        len: word(op, "out", len)?,
        pad: 0,
    };
    Ok(Dispatch {
        kernel,
        spec: Spec {
            dtypes: kernel.dtypes.iter().find(|types| types[0] == out_dtype).unwrap_or(&kernel.dtypes[0]),
            variant: &Constants::NONE,
            tune: &kernel.tunes[0],
            width: Width::of(runs(out, 3, 8, false)),
        },
        args: args.to_vec(),
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, (len as u64).div_ceil(64))?,
        bytes: (4 * parts * rows * v_row) as u64,
        flops: (2 * parts * rows * v_row) as u64,
    })
}

/// Both masks as one of f32 in a scratch, over the axes that either has.
fn one_mask(caps: &Caps, problem: &Problem, plan: &mut Plan, input: impl Fn(usize) -> Arg) -> Result<(Layout, Arg)> {
    let op = super::OP;
    let (Some(mask), Some(bias)) = (problem.mask, problem.bias) else { return Ok((problem.q, Arg::Tensor(1))) };
    let mut own = [mask, bias];
    for axis in 0..4 {
        let repeats = |layout: &Layout| layout.dims()[axis] == 1 || layout.strides()[axis] == 0;
        if own.iter().all(repeats) {
            own = own.map(|layout| layout.narrow(axis, 0, 1).unwrap_or(layout));
        }
    }
    let scratch = dense(op, own[0].dims())?;
    for (name, layout, dtype) in [("mask", &own[0], Bool), ("bias", &own[1], problem.dtypes[4]), ("mask and bias", &scratch, F32)] {
        check_binding(op, caps, name, layout, dtype)?;
    }
    let merged = Layout::merge(&[scratch, own[0], own[1]]);
    let params = MaskParams {
        dims: axes(op, merged[0].dims(), 1)?,
        mask_strides: axes(op, merged[1].strides(), 0)?,
        bias_strides: axes(op, merged[2].strides(), 0)?,
        mask_offset: word(op, "mask", own[0].offset())?,
        bias_offset: word(op, "bias", own[1].offset())?,
        bias_dtype: problem.dtypes[4].code(),
        len: word(op, "mask", scratch.len())?,
    };
    let tune = &ATTENTION_MASK.tunes[0];
    let arg = Arg::Scratch(plan.scratch.len());
    plan.scratch.push(4 * scratch.len() as u64);
    plan.dispatches.push(Dispatch {
        kernel: &ATTENTION_MASK,
        spec: Spec { dtypes: ATTENTION_MASK.dtypes[0], variant: &Constants::NONE, tune, width: Width::Scalar },
        args: vec![arg, input(0), input(1)],
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, (scratch.len() as u64).div_ceil(64))?,
        bytes: scratch.len() as u64 * 9,
        flops: 0,
    });
    // Repeated where both do.
    let layout = scratch.broadcast_to(mask.dims()).ok_or(Error::Argument {
        op,
        argument: "mask",
        problem: "does not broadcast".into(),
        help: "give dims that do",
    })?;
    Ok((layout, arg))
}

/// Where ALiBi's slopes and the sinks are: offset and stride of each, and their buffer. Where there are both, or they are not f32, a scratch.
fn per_head(
    caps: &Caps,
    problem: &Problem,
    plan: &mut Plan,
    input: impl Fn(usize) -> Arg,
    absent: Arg,
) -> Result<([usize; 2], [usize; 2], Arg)> {
    let op = super::OP;
    let own = [(problem.alibi, problem.dtypes[5], 2), (problem.sinks, problem.dtypes[6], 3)];
    let there: Vec<_> = own.iter().filter(|(layout, ..)| layout.is_some()).collect();
    let place = |layout: Option<Layout>| layout.map_or([0, 0], |layout| [layout.offset(), layout.strides()[1]]);
    match there[..] {
        [] => return Ok(([0, 0], [0, 0], absent)),
        [(layout, F32, other)] => {
            if let Some(layout) = layout {
                check_binding(op, caps, "alibi or sinks", layout, F32)?;
            }
            return Ok((place(problem.alibi), place(problem.sinks), input(*other)));
        }
        _ => {}
    }
    let heads = problem.heads();
    let arg = Arg::Scratch(plan.scratch.len());
    plan.scratch.push(8 * heads as u64);
    for (i, (layout, dtype, other)) in own.into_iter().enumerate() {
        let Some(x) = layout.and_then(|layout| layout.narrow(0, 0, 1)?.squeeze(0)) else { continue };
        let out = dense(op, &[2 * heads])?.narrow(0, i * heads, heads).unwrap_or(x);
        cast::gpu::append(plan, op, caps, &cast::Problem { out_dtype: F32, x_dtype: dtype, out, x }, arg, input(other))?;
    }
    Ok(([0, 1], [heads, 1], arg))
}

/// What an attention would do on a device, and why; see [`explain`].
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The kernel that makes the weights.
    pub choice: Choice,
    /// What was refused before it, and why.
    pub refused: Vec<(&'static str, String)>,
    /// Blocks of queries by keys that are computed, and all that there are.
    pub blocks: (u64, u64),
    /// Every dispatch, with its bytes and FLOPs.
    pub plan: Plan,
}

/// Kernel, tunables, blocks, dispatches, bytes and FLOPs of an attention, and why faster variants were refused: from facts alone, without a GPU.
///
/// # Errors
/// Those of the call: [`Error::TooLarge`].
pub fn explain(problem: &Problem, caps: &Caps) -> Result<Explanation> {
    let (choice, refused) = select(caps, problem);
    let blocks = blocks(problem, &choice);
    Ok(Explanation { choice, refused, blocks, plan: plan(caps, None, problem)? })
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Choice { kernel, tune, reason, .. } = self.choice;
        let (visited, all) = self.blocks;
        let (block_q, block_k) = (self.choice.block_q(), self.choice.block_k());
        write!(f, "{}.{}", kernel.name, tune.name)?;
        if self.choice.splits > 1 {
            write!(f, ", {} parts of the keys, joined by attention_reduce", self.choice.splits)?;
        }
        writeln!(f, ": {reason}")?;
        writeln!(
            f,
            "  {visited} of {all} blocks of {block_q} queries by {block_k} keys; what no query of a block sees by its place is skipped"
        )?;
        write!(f, "{tune}{}", self.plan)?;
        for (name, why) in &self.refused {
            writeln!(f, "  not {name}, which {why}")?;
        }
        Ok(())
    }
}
