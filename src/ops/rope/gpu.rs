//! RoPE on a GPU: [`ROPE`] and [`ROPE_IN_PLACE`].

use super::{Problem, RopeSections};
use crate::error::Result;
use crate::gpu::{
    Access, Arg, Binding, Caps, Constants, Dispatch, Kernel, Needs, Params as _, Pin, Plan, Spec, Width, check_binding, fold, runs, word,
};
use crate::ops::{cut, through_scratch};
use crate::{DType, Layout};
use DType::{BF16, F16, F32, U32};

const LIBS: &[&str] = &[
    include_str!("../../../shaders/lib/rope.wgsl"),
    include_str!("../../../shaders/lib/rotation.wgsl"),
    include_str!("../../../shaders/lib/element.wgsl"),
    include_str!("../../../shaders/lib/float.wgsl"),
];

/// Memory-bound: unmeasured on hardware.
const TUNES: &[Constants] = &[Constants { name: "group64", values: &[("WORKGROUP", 64)] }];

/// Out of place. What it does not list (16-bit results of another type) goes through an f32 scratch.
pub static ROPE: Kernel = Kernel {
    name: "rope",
    source: include_str!("../../../shaders/rope.wgsl"),
    libs: LIBS,
    bindings: &[
        Binding::typed("out", Access::Write, "OUT_DTYPE"),
        Binding::new("positions", Access::Read),
        Binding::new("cosines", Access::Read),
        Binding::new("sines", Access::Read),
        Binding::typed("x", Access::Read, "X_DTYPE"),
    ],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: &[
        &[F32, U32, F32, F32, F32],
        &[F16, U32, F32, F32, F16],
        &[BF16, U32, F32, F32, BF16],
        &[F32, U32, F32, F32, F16],
        &[F32, U32, F32, F32, BF16],
    ],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

/// In place, with one binding less.
pub static ROPE_IN_PLACE: Kernel = Kernel {
    name: "rope_in_place",
    source: include_str!("../../../shaders/rope_in_place.wgsl"),
    libs: LIBS,
    bindings: &[
        Binding::typed("out", Access::Write, "OUT_DTYPE"),
        Binding::new("positions", Access::Read),
        Binding::new("cosines", Access::Read),
        Binding::new("sines", Access::Read),
    ],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: TUNES,
    dtypes: &[&[F32, U32, F32, F32], &[F16, U32, F32, F32], &[BF16, U32, F32, F32]],
    widths: &[Width::Scalar, Width::Vector],
    needs: Needs::Nothing,
};

crate::params! {
    /// `Params` of both, in `lib/rope.wgsl`.
    pub struct Params {
        /// Strides of `x` over batch, heads, seq and head_dim.
        x_strides: [u32; 4],
        /// Strides of `out`.
        out_strides: [u32; 4],
        /// Strides of the positions over streams, batch and seq, and nothing.
        positions_strides: [u32; 4],
        /// Pairs of each stream, and nothing.
        sections: [u32; 4],
        /// First element of `x`.
        x_offset: u32,
        /// First element of `out`.
        out_offset: u32,
        /// Heads.
        heads: u32,
        /// Rows of a head.
        seq: u32,
        /// Pairs of a row.
        half: u32,
        /// Units of a row that turn; the others pass.
        turning: u32,
        /// Units of a row.
        row_units: u32,
        /// Units.
        units: u32,
        /// [`RopeStyle`](super::RopeStyle), as it is numbered.
        style: u32,
        /// 0, or how three positions share the pairs: 1 in sections, 2 in turn.
        streams: u32,
        /// The sign bit where it turns back.
        sign: u32,
        /// First position.
        positions_offset: u32,
        /// Whether there are any.
        has_positions: u32,
        /// The position of the first row, if not.
        offset: u32,
        /// Positions of the table.
        table_rows: u32,
        /// First of the cosines.
        cosines_offset: u32,
        /// Stride from position to position.
        cosines_row: u32,
        /// Stride from pair to pair.
        cosines_step: u32,
        /// First of the sines.
        sines_offset: u32,
        /// Stride from position to position.
        sines_row: u32,
        /// Stride from pair to pair.
        sines_step: u32,
        /// Nothing.
        pad0: u32,
        /// Nothing.
        pad1: u32,
        /// Nothing.
        pad2: u32,
    }
}

/// The dispatches of a call.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) where the device's limits forbid it.
pub fn plan(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    cut(caps, problem, &|problem| uncut(caps, pin, problem))
}

fn uncut(caps: &Caps, pin: Option<Pin>, problem: &Problem) -> Result<Plan> {
    let op = super::OP;
    let [out_dtype, x_dtype] = problem.dtypes;
    let kernel = if problem.in_place { &ROPE_IN_PLACE } else { &ROPE };
    let half = problem.half();
    // Whether rows, and the halves of them that turn, are whole units of so many elements.
    let whole = |layout: &Layout, unit: usize| runs(layout, 3, unit, false) && half.is_multiple_of(unit);
    let wanted = [out_dtype, U32, F32, F32, x_dtype];
    let listed = kernel.types(&wanted[..kernel.bindings.len()]);
    let Some(dtypes) = listed.filter(|_| out_dtype == F32 || whole(&problem.out, 2)) else {
        return through_scratch(op, caps, (&problem.out, out_dtype), F32, |out| {
            let mut plan = plan(caps, pin, &Problem { in_place: false, dtypes: [F32, x_dtype], out, ..problem.clone() })?;
            if problem.in_place {
                // `x` is `out`, and so each of the others one earlier.
                let earlier = |arg: &mut Arg| *arg = if let Arg::Tensor(n @ 1..) = *arg { Arg::Tensor(n - 1) } else { *arg };
                plan.dispatches.iter_mut().for_each(|dispatch| dispatch.args[1..].iter_mut().for_each(earlier));
            }
            Ok(plan)
        });
    };
    let positions = problem.positions.unwrap_or(problem.cos);
    let all = [
        ("out", &problem.out, out_dtype),
        ("x", &problem.x, x_dtype),
        ("cos", &problem.cos, F32),
        ("sin", &problem.sin, F32),
        ("positions", &positions, U32),
    ];
    for (name, layout, dtype) in all {
        check_binding(op, caps, name, layout, dtype)?;
    }
    // The tables by four.
    let proven = [problem.out, problem.x].iter().all(|layout| whole(layout, 8))
        && [problem.cos, problem.sin].iter().all(|layout| runs(layout, 1, 4, false));
    let spec =
        Spec { dtypes, variant: &Constants::NONE, tune: Pin::tune_of(op, pin, kernel)?.unwrap_or(&TUNES[0]), width: Width::of(proven) };
    let [batch, heads, seq, head_dim] = [0, 1, 2, 3].map(|axis| problem.out.dims()[axis]);
    let size = if proven { 8 } else { 4 / out_dtype.block_bytes() };
    // Each turns two.
    let turning = half / size;
    let passing = if problem.in_place { 0 } else { (head_dim - 2 * half) / size };
    let rows = batch * heads * seq;
    let units = rows * (turning + passing);
    let strides = |layout: &Layout| -> Result<[u32; 4]> {
        let mut words = [0; 4];
        for (to, &stride) in words.iter_mut().zip(layout.strides()) {
            *to = word(op, "a stride", stride)?;
        }
        Ok(words)
    };
    let ([cosines_row, cosines_step, ..], [sines_row, sines_step, ..]) = (strides(&problem.cos)?, strides(&problem.sin)?);
    let lengths = problem.sections.map_or([0; 3], RopeSections::lengths);
    let params = Params {
        x_strides: strides(&problem.x)?,
        out_strides: strides(&problem.out)?,
        positions_strides: strides(&positions)?,
        sections: [word(op, "sections", lengths[0])?, word(op, "sections", lengths[1])?, word(op, "sections", lengths[2])?, 0],
        x_offset: word(op, "x", problem.x.offset())?,
        out_offset: word(op, "out", problem.out.offset())?,
        heads: word(op, "x", heads)?,
        seq: word(op, "x", seq)?,
        half: word(op, "cos", half)?,
        turning: word(op, "x", turning)?,
        row_units: word(op, "x", turning + passing)?,
        units: word(op, "x", units)?,
        style: problem.style as u32,
        streams: match problem.sections {
            None => 0,
            Some(RopeSections::Chunked(_)) => 1,
            Some(RopeSections::Interleaved(_)) => 2,
        },
        sign: if problem.inverse { 1 << 31 } else { 0 },
        positions_offset: word(op, "positions", positions.offset())?,
        has_positions: problem.positions.is_some().into(),
        offset: word(op, "offset", problem.offset)?,
        table_rows: word(op, "cos", problem.cos.dims()[0])?,
        cosines_offset: word(op, "cos", problem.cos.offset())?,
        cosines_row,
        cosines_step,
        sines_offset: word(op, "sin", problem.sin.offset())?,
        sines_row,
        sines_step,
        pad0: 0,
        pad1: 0,
        pad2: 0,
    };
    // Numbered as the call has them: `out`, `x` unless it is `out`, the tables, the positions. Without positions their binding holds the
    // cosines, unread.
    let first = if problem.in_place { 1 } else { 2 };
    let [cosines, sines] = [Arg::Tensor(first), Arg::Tensor(first + 1)];
    let positions = if problem.positions.is_some() { Arg::Tensor(first + 2) } else { cosines };
    let mut args = vec![Arg::Tensor(0), positions, cosines, sines];
    args.extend((!problem.in_place).then_some(Arg::Tensor(1)));
    let touched = rows * if problem.in_place { 2 * half } else { head_dim };
    Ok(Plan::from(Dispatch {
        kernel,
        spec,
        args,
        params: bytemuck::bytes_of(&params).to_vec(),
        grid: fold(op, caps, (units as u64).div_ceil(spec.get("WORKGROUP").into()))?,
        bytes: (touched * (out_dtype.block_bytes() + x_dtype.block_bytes()) + 2 * F32.block_bytes() * seq * half) as u64,
        flops: 3 * (rows * 2 * half) as u64,
    }))
}
