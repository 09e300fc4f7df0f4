//! Rotary position embeddings: pairs of a head's elements turned by angles that grow with the position.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
mod table;

pub use table::{RopeFrequencies, RopeScaling, RopeTable, RopeYarn};

use crate::error::{Error, Result};
use crate::ops::{self, Named, Op, gather};
use crate::{DType, Layout, Tensor};

const OP: &str = "rope";

/// Which elements of a head are pairs. The shader knows it by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RopeStyle {
    /// `i` and `i + rotary_dim / 2`: GPT-NeoX, and what Hugging Face calls `rotate_half`.
    #[default]
    Half,
    /// `2i` and `2i + 1`: RoFormer, GPT-J, and Meta's own Llama code.
    Interleaved,
}

/// M-RoPE: which of three positions (time, height, width) turns a pair, by how many pairs each has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopeSections {
    /// One after the other (Wang et al. 2024, "Qwen2-VL", arXiv 2409.12191).
    Chunked([usize; 3]),
    /// In turn, time height width time …, while height and width have pairs left; the rest is time's (Qwen3-VL, arXiv 2511.21631).
    Interleaved([usize; 3]),
}

impl RopeSections {
    /// How many pairs each has.
    pub const fn lengths(self) -> [usize; 3] {
        match self {
            RopeSections::Chunked(lengths) | RopeSections::Interleaved(lengths) => lengths,
        }
    }

    /// The position that turns a pair: 0, 1 or 2.
    pub const fn stream_of(self, pair: usize) -> usize {
        match self {
            RopeSections::Chunked([time, height, _]) => (pair >= time) as usize + (pair >= time.saturating_add(height)) as usize,
            RopeSections::Interleaved(lengths) => {
                let turn = pair % 3;
                if pair < lengths[turn].saturating_mul(3) { turn } else { 0 }
            }
        }
    }
}

/// Options of [`rope`].
///
/// ```
/// use gristmill::{Device, Tensor, ops};
/// use gristmill::ops::{Rope, RopeFrequencies, RopeSections, RopeTable};
///
/// // Qwen2-VL's kind: of 8 pairs, 2 turn by the time, 3 by the height and 3 by the width of each row.
/// let device = Device::cpu();
/// let table = RopeTable::new(&device, &RopeFrequencies::new(1_000_000.0, 16), 0..64)?;
/// let positions = Tensor::from_slice(&device, &[0u32, 1, 1, 2, 0, 1, 1, 3, 0, 1, 2, 3], &[3, 4])?;
/// let options = Rope { positions: Some(&positions), sections: Some(RopeSections::Chunked([2, 3, 3])), ..Default::default() };
/// let mut q = Tensor::full(&device, 1.0f32, &[1, 2, 4, 16])?;
/// ops::rope_in_place(&mut q, &table, &options)?;
/// # Ok::<(), gristmill::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Rope<'a> {
    /// Which elements are pairs. [`RopeStyle::Half`] by default.
    pub style: RopeStyle,
    /// The position of the first row, where `positions` says nothing: row i has `offset + i`.
    pub offset: usize,
    /// u32 or i32, the position of each row: rows of the table. Broadcasts to [batch, seq], with `sections` what broadcasts to
    /// [3, seq] or to [3, batch, seq].
    pub positions: Option<&'a Tensor>,
    /// M-RoPE's, which needs `positions`; together they are all pairs.
    pub sections: Option<RopeSections>,
    /// Turns back: the inverse and the gradient of the same call without it, where the table is multiplied by nothing.
    pub inverse: bool,
}

/// A checked call.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Whether `out` is `x`.
    pub in_place: bool,
    /// The element types of `out` and `x`.
    pub dtypes: [DType; 2],
    /// Which elements are pairs.
    pub style: RopeStyle,
    /// Whether it turns back.
    pub inverse: bool,
    /// The position of the first row, without `positions`.
    pub offset: usize,
    /// Which position turns a pair, where there are three.
    pub sections: Option<RopeSections>,
    /// Where `out` lies: [batch, heads, seq, head_dim].
    pub out: Layout,
    /// Where `x` lies, with `out`'s dims.
    pub x: Layout,
    /// Where the cosines lie: [positions, rotary_dim / 2].
    pub cos: Layout,
    /// Where the sines lie.
    pub sin: Layout,
    /// Where the positions lie, broadcast: [1 or 3, batch, seq].
    pub positions: Option<Layout>,
}

impl Problem {
    /// Pairs.
    fn half(&self) -> usize {
        self.cos.dims()[1]
    }
}

/// Turns the first `rotary_dim` elements of each head in pairs, by the angles of its position: `(a, b)` becomes
/// `(a cos - b sin, b cos + a sin)`. The elements behind them stay as they are (Su et al. 2021, "RoFormer", arXiv 2104.09864).
///
/// Shapes: `x` [batch, heads, seq, head_dim], a view of any strides ([batch, seq, heads, head_dim] in memory is a
/// [`permute`](Tensor::permute) away), with a head_dim of the table's [`rotary_dim`](RopeTable::rotary_dim) or more; the result has its
/// shape. Types: `x` f32, f16 or bf16, computed in f32; the result has `x`'s, [`rope_into`] writes any of them.
///
/// `offset + seq` may not pass the table's end. Nor may positions of a tensor: on the CPU that is an error, before anything is written. A GPU
/// is not waited for: there what is finite and such a position turns becomes zeros (a negative one is past the end too), and
/// [`check_indices`](ops::check_indices) finds the first that is too high (of u32, as it takes negative ones for places from the end).
///
/// Numerics: an error of at most `2 · 2^-23 · (|a cos| + |b sin|)`, and so for the other of a pair, by the table's cosines and sines, which
/// are rounded once from f64. What does not turn is exact. A result of 16 bits is rounded once more, to nearest even; results below 2^-126
/// may be 0.
///
/// ```
/// use gristmill::{Device, Tensor, ops};
/// use gristmill::ops::{Rope, RopeFrequencies, RopeTable};
///
/// let device = Device::cpu();
/// let table = RopeTable::new(&device, &RopeFrequencies::new(10_000.0, 4), 0..128)?;
/// // A head of six elements, of which four turn, at positions 0 and 1.
/// let q = Tensor::from_slice(&device, &[1.0f32, 2.0, 0.0, 0.0, 5.0, 6.0, 1.0, 2.0, 0.0, 0.0, 5.0, 6.0], &[1, 1, 2, 6])?;
/// let y = ops::rope(&q, &table, &Rope::default())?.to_vec::<f32>()?;
/// assert_eq!(y[..6], [1.0, 2.0, 0.0, 0.0, 5.0, 6.0]);
/// assert_eq!(y[6..], [1f32.cos(), 2.0 * 0.01f32.cos(), 1f32.sin(), 2.0 * 0.01f32.sin(), 5.0, 6.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] if `x` has not 4 axes, a head is smaller than `rotary_dim` or the positions do not broadcast; [`Error::Argument`] if a
/// position is past the table (of a tensor, on the CPU), if there are both positions and an offset, or sections that are not all pairs;
/// [`Error::DType`] unless `x` is a float and the positions u32 or i32; [`Error::TooLarge`], [`Error::Device`].
pub fn rope(x: &Tensor, table: &RopeTable, options: &Rope) -> Result<Tensor> {
    check(x, table, options)?;
    let mut out = ops::fresh(OP, x.device(), x.dtype(), x.shape())?;
    rope_into(&mut out, x, table, options)?;
    Ok(out)
}

/// [`rope`] into a tensor or view of `x`'s shape and any float type.
///
/// # Errors
/// As `rope`, and [`Error::Overlap`] if `out` shares storage with an input.
pub fn rope_into(out: &mut Tensor, x: &Tensor, table: &RopeTable, options: &Rope) -> Result<()> {
    let problem = check(x, table, options)?;
    let mut inputs = vec![("x", x)];
    inputs.extend(others(table, options));
    ops::check_out_like(OP, out, x.shape(), x.dtype(), &inputs)?;
    let problem = Problem { dtypes: [out.dtype(), x.dtype()], out: *out.layout(), ..problem };
    if out.is_empty() {
        return Ok(());
    }
    in_range(table, options)?;
    let inputs: Vec<&Tensor> = inputs.into_iter().map(|(_, tensor)| tensor).collect();
    ops::run(&problem, out, &inputs)
}

/// [`rope`] of `x`, in its place. What does not turn stays.
///
/// # Errors
/// As `rope`, and [`Error::Overlap`] if `x` shares storage with the table or the positions, or elements of it share a place.
pub fn rope_in_place(x: &mut Tensor, table: &RopeTable, options: &Rope) -> Result<()> {
    let problem = Problem { in_place: true, ..check(x, table, options)? };
    let inputs = others(table, options);
    let shape = x.shape().to_vec();
    ops::check_out(OP, x, &shape, x.dtype(), &inputs)?;
    if x.is_empty() {
        return Ok(());
    }
    in_range(table, options)?;
    let inputs: Vec<&Tensor> = inputs.into_iter().map(|(_, tensor)| tensor).collect();
    ops::run(&problem, x, &inputs)
}

/// The checks of [`rope`], for ops that turn an operand of theirs.
pub(crate) fn check_call(x: &Tensor, table: &RopeTable, options: &Rope) -> Result<()> {
    check(x, table, options)?;
    if x.is_empty() { Ok(()) } else { in_range(table, options) }
}

/// What is read beside `x`.
fn others<'a>(table: &'a RopeTable, options: &Rope<'a>) -> Vec<Named<'a>> {
    [("cos", table.cos()), ("sin", table.sin())].into_iter().chain(options.positions.map(|positions| ("positions", positions))).collect()
}

/// Positions that can be read without a wait are in the table.
fn in_range(table: &RopeTable, options: &Rope) -> Result<()> {
    let Some((positions, buffer)) = options.positions.and_then(|t| Some((t, t.cpu_buffer()?))) else { return Ok(()) };
    let Some((value, place)) = gather::first_outside(&buffer.snapshot(), positions, 0, table.positions()) else { return Ok(()) };
    Err(past(table, "positions", format!("hold {value} at {place:?}")))
}

fn past(table: &RopeTable, argument: &'static str, what: String) -> Error {
    let problem = format!("{what}, and the table has {}", table.positions());
    Error::Argument { op: OP, argument, problem, help: "make a table of more positions; they are its rows, counted from 0" }
}

/// The call as if `out` were `x`.
fn check(x: &Tensor, table: &RopeTable, options: &Rope) -> Result<Problem> {
    let mut all = vec![("x", x)];
    all.extend(others(table, options));
    ops::check_devices(OP, &all)?;
    if !x.dtype().is_float() {
        return Err(Error::DType { op: OP, operands: vec![x.operand("x")], supported: "f32, f16 or bf16; `cast` others" });
    }
    let &[batch, _, seq, head_dim] = x.shape() else {
        let help = "give [batch, heads, seq, head_dim]; `unsqueeze` what has fewer axes";
        return Err(ops::misfit(OP, &[("x", x)], "`x` must have 4 axes", help));
    };
    if head_dim < table.rotary_dim() {
        let problem = format!("the table turns {} elements of heads that have {head_dim}", table.rotary_dim());
        return Err(ops::misfit(OP, &[("x", x), ("cos", table.cos())], problem, "give a table of half as many columns as elements turn"));
    }
    let refused = |argument, problem: String, help| Err(Error::Argument { op: OP, argument, problem, help });
    if let Some(sections) = options.sections {
        let (lengths, half) = (sections.lengths(), table.rotary_dim() / 2);
        let sum = lengths.iter().try_fold(0usize, |sum, &length| sum.checked_add(length));
        // What each has in the end: the last of them may lie past the pairs.
        let fits =
            sum == Some(half) && (0..3).all(|stream| (0..half).filter(|&i| sections.stream_of(i) == stream).count() == lengths[stream]);
        if !fits {
            let problem = format!("are {lengths:?}, of {half} pairs that turn");
            return refused("sections", problem, "give three that add up to the table's columns, those in turn of about one size");
        }
        if options.positions.is_none() {
            return refused("sections", "need positions".into(), "give positions [3, seq] or [3, batch, seq]");
        }
    }
    let positions = match options.positions {
        None => {
            if options.offset.checked_add(seq).is_none_or(|end| end > table.positions()) && !x.is_empty() {
                return Err(past(table, "offset", format!("is {}, of {seq} rows", options.offset)));
            }
            None
        }
        Some(positions) => {
            if options.offset != 0 {
                let problem = format!("is {}, and there are positions", options.offset);
                return refused("offset", problem, "add it to the positions, or leave them out");
            }
            if table.positions() == 0 && !x.is_empty() {
                return Err(past(table, "positions", "are given".into()));
            }
            Some(positions_of(positions, [batch, seq], options.sections.is_some())?)
        }
    };
    let (out, cos, sin) = (*x.layout(), *table.cos().layout(), *table.sin().layout());
    let Rope { style, inverse, offset, sections, .. } = *options;
    Ok(Problem { in_place: false, dtypes: [x.dtype(); 2], style, inverse, offset, sections, out, x: out, cos, sin, positions })
}

/// As [1, batch, seq], or of three streams as [3, batch, seq].
fn positions_of(positions: &Tensor, [batch, seq]: [usize; 2], three: bool) -> Result<Layout> {
    if ![DType::U32, DType::I32].contains(&positions.dtype()) {
        return Err(Error::DType { op: OP, operands: vec![positions.operand("positions")], supported: "u32 or i32 for positions" });
    }
    let layout = *positions.layout();
    if three {
        // [3, seq] says nothing of batches: its axes are not the last ones of [3, batch, seq].
        let streams = if layout.rank() == 2 { layout.unsqueeze(1) } else { Some(layout) };
        let whole = streams.filter(|l| l.rank() == 3).and_then(|l| l.broadcast_to(&[3, batch, seq]));
        return whole.ok_or_else(|| {
            let problem = format!("`positions` must broadcast to [3, {seq}] or to [3, {batch}, {seq}], for three sections");
            ops::misfit(OP, &[("positions", positions)], problem, "give the three positions of a row along the first axis")
        });
    }
    ops::broadcast(OP, ("positions", positions), &[batch, seq])?.unsqueeze(0).ok_or_else(|| {
        ops::misfit(OP, &[("positions", positions)], "`positions` has too many axes", "give [batch, seq], or what broadcasts to it")
    })
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        OP
    }

    fn in_place(&self) -> bool {
        self.in_place
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::rope(self, out, inputs);
    }

    #[cfg(feature = "gpu")]
    fn plan(&self, caps: &crate::gpu::Caps, pin: Option<crate::gpu::Pin>) -> Result<crate::gpu::Plan> {
        gpu::plan(caps, pin, self)
    }

    #[cfg(feature = "gpu")]
    fn out(&self) -> &Layout {
        &self.out
    }

    #[cfg(feature = "gpu")]
    fn part(&self, axis: usize, start: usize, len: usize) -> Option<Self> {
        let (out, x) = (self.out.narrow(axis, start, len)?, self.x.narrow(axis, start, len)?);
        // Of the positions' axes, batch and seq.
        let of_positions = |axis| self.positions.map_or(Some(None), |layout| layout.narrow(axis, start, len).map(Some));
        let (positions, offset) = match axis {
            0 => (of_positions(1)?, self.offset),
            1 => (self.positions, self.offset),
            2 => (of_positions(2)?, self.offset + start),
            // A pair's elements may lie anywhere along the last.
            _ => return None,
        };
        Some(Problem { out, x, positions, offset, ..self.clone() })
    }
}
