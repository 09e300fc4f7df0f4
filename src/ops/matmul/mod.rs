//! Matrix multiplication.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(feature = "gpu")]
mod select;

use crate::error::{Error, Result};
use crate::ops::{self, Op};
use crate::tensor::dense;
use crate::{DType, Layout, Tensor};

const OP: &str = "matmul";

/// What becomes of an element before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Activation {
    /// Itself.
    #[default]
    None,
    /// [`ops::relu`].
    Relu,
    /// [`ops::gelu`], by erf.
    Gelu,
    /// [`ops::gelu_tanh`].
    GeluTanh,
    /// [`ops::silu`].
    Silu,
}

/// A vector that is added before the activation.
#[derive(Debug, Clone, Copy)]
pub enum Bias<'a> {
    /// `[n]`: one number a column, as a linear layer has it.
    Columns(&'a Tensor),
    /// `[m]`: one number a row.
    Rows(&'a Tensor),
}

/// Options of [`matmul`]. All of them combine:
/// `out = act(alpha · lhs·rhs + beta · c + bias) ⊙ (alpha · lhs·gate) + residual (+ out)`, in f32, rounded once. What is not given is left out.
///
/// ```
/// use gristmill::ops::{self, Activation, Matmul};
/// use gristmill::{Device, Tensor};
///
/// // A gated feed-forward layer (SwiGLU): silu(x · w₁) ⊙ (x · w₂), then back, onto the residual stream.
/// let device = Device::cpu();
/// let x = Tensor::rand_normal(&device, &[5, 16], 0.0, 1.0, 1)?;
/// let [w1, w2] = [2, 3].map(|seed| Tensor::rand_normal(&device, &[16, 32], 0.0, 0.2, seed));
/// let down = Tensor::rand_normal(&device, &[32, 16], 0.0, 0.2, 4)?;
/// let hidden = ops::matmul(&x, &w1?, &Matmul { activation: Activation::Silu, gate: Some(&w2?), ..Default::default() })?;
/// let y = ops::matmul(&hidden, &down, &Matmul { residual: Some(&x), ..Default::default() })?;
/// assert_eq!(y.shape(), [5, 16]);
/// # Ok::<(), gristmill::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Matmul<'a> {
    /// Factor of the products; 1 by default.
    pub alpha: f32,
    /// Factor of `c`; 1 by default.
    pub beta: f32,
    /// Any float type; broadcasts to the result.
    pub c: Option<&'a Tensor>,
    /// Any float type.
    pub bias: Option<Bias<'a>>,
    /// Applied to all that was added so far.
    pub activation: Activation,
    /// A second right-hand side, like `rhs` in shape and type: the activation's result is multiplied by `lhs · gate`.
    pub gate: Option<&'a Tensor>,
    /// Any float type; broadcasts to the result. Added after the activation.
    pub residual: Option<&'a Tensor>,
    /// [`matmul_into`] adds to what `out` holds.
    pub accumulate: bool,
    /// The result's type, f32, f16 or bf16; by default the operands', or that of [`matmul_into`]'s `out`.
    pub dtype: Option<DType>,
}

impl Default for Matmul<'_> {
    fn default() -> Self {
        Matmul {
            alpha: 1.0,
            beta: 1.0,
            c: None,
            bias: None,
            activation: Activation::None,
            gate: None,
            residual: None,
            accumulate: false,
            dtype: None,
        }
    }
}

impl<'a> Matmul<'a> {
    fn bias_tensor(&self) -> Option<&'a Tensor> {
        match self.bias {
            Some(Bias::Columns(bias) | Bias::Rows(bias)) => Some(bias),
            None => None,
        }
    }

    /// What is read besides `lhs` and `rhs`, in the order of a plan's arguments.
    fn extras(&self) -> [(&'static str, Option<&'a Tensor>); 4] {
        [("gate", self.gate), ("c", self.c), ("bias", self.bias_tensor()), ("residual", self.residual)]
    }
}

/// An operand of the epilogue, broadcast to `out`'s dims.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extra {
    /// Its element type.
    pub dtype: DType,
    /// Where it lies.
    pub layout: Layout,
}

/// What becomes of the sums; see [`Matmul`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epilogue {
    /// Factor of the products.
    pub alpha: f32,
    /// Factor of `c`.
    pub beta: f32,
    /// Where `gate` lies: [batch…, k, n], of `rhs`' type.
    pub gate: Option<Layout>,
    /// Added before the activation.
    pub c: Option<Extra>,
    /// Added before the activation.
    pub bias: Option<Extra>,
    /// Added after it.
    pub residual: Option<Extra>,
    /// Applied to all that was added so far.
    pub activation: Activation,
    /// Whether the result is added to `out`.
    pub accumulate: bool,
}

impl Epilogue {
    /// The product alone.
    pub const NONE: Epilogue = Epilogue {
        alpha: 1.0,
        beta: 1.0,
        gate: None,
        c: None,
        bias: None,
        residual: None,
        activation: Activation::None,
        accumulate: false,
    };

    /// Whether the result is the product itself.
    pub fn is_none(&self) -> bool {
        Epilogue { beta: 1.0, ..*self } == Epilogue::NONE
    }

    fn extras(&self) -> [Option<Extra>; 3] {
        [self.c, self.bias, self.residual]
    }
}

/// A checked matmul. Each layout has the batch axes (broadcast, the same in all) and two more. Inputs come in the order `lhs`, `rhs`, then
/// those of gate, c, bias and residual that are there.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The element types of `out`, `lhs` and `rhs`.
    pub dtypes: [DType; 3],
    /// Whether a row's result must not depend on how many there are ([`Device::batch_invariant`](crate::Device::batch_invariant)).
    pub batch_invariant: bool,
    /// [batch…, m, n]
    pub out: Layout,
    /// [batch…, m, k]
    pub lhs: Layout,
    /// [batch…, k, n]
    pub rhs: Layout,
    /// What becomes of the sums.
    pub epilogue: Epilogue,
}

impl Problem {
    /// Rows of `out`.
    pub fn m(&self) -> usize {
        self.out.dims()[self.out.rank() - 2]
    }

    /// Columns of `out`.
    pub fn n(&self) -> usize {
        self.out.dims()[self.out.rank() - 1]
    }

    /// The axis that is summed over.
    pub fn k(&self) -> usize {
        self.lhs.dims()[self.lhs.rank() - 1]
    }

    /// Matrices in the batch.
    pub fn batch(&self) -> usize {
        self.out.dims()[..self.out.rank() - 2].iter().product()
    }

    /// What may be there besides `out`, `lhs` and `rhs`: gate, c, bias and residual.
    fn others(&self) -> [Option<Layout>; 4] {
        let [c, bias, residual] = self.epilogue.extras().map(|extra| extra.map(|e| e.layout));
        [self.epilogue.gate, c, bias, residual]
    }

    /// The batch axes of `out`, `lhs`, `rhs` and of what else is there, merged: layouts of the same dims, without the matrices.
    fn batches(&self) -> Vec<Layout> {
        let all = [self.out, self.lhs, self.rhs].into_iter().chain(self.others().into_iter().flatten());
        let outer = all.map(|layout| {
            let at = layout.rank() - 2;
            // Narrowed to their first row and column, the matrix axes drop out of the merge.
            let first = |l: Layout, axis| if l.dims()[axis] == 0 { None } else { l.narrow(axis, 0, 1) };
            first(layout, at).and_then(|l| first(l, at + 1)).unwrap_or(layout)
        });
        Layout::merge(&outer.collect::<Vec<_>>())
    }
}

/// `out[…, i, j] = Σ_l lhs[…, i, l] · rhs[…, l, j]`, products and sums in f32, and what [`Matmul`] does with them before they are stored.
///
/// Types: f32, f16 and bf16. The result has the operands' type, or f32 where one is f32 and the other has 16 bits (f32 activations times 16-bit
/// weights); `Matmul::dtype` and [`matmul_into`] give any of the three, so 16-bit operands give f32 sums where they are wanted. f32 operands are never rounded to
/// 16 bits on the way.
///
/// Shapes, as in NumPy's `matmul`: `[…, m, k] · […, k, n] → […, m, n]`, the axes before the last two broadcast against each other. A
/// vector `[k]` stands for one row on the left or one column on the right, and its axis is left out of the result. m, n, k may be 0; with
/// k = 0 the sums are zeros. Operands may be views of any strides: a transpose costs nothing.
///
/// Numerics: each element differs from the exact result by at most `c · 2^-23 · Σ|lhs||rhs|` with c = 16 for k ≤ 64 and 4·√k beyond (the
/// ratio of the BLAS testers, 16 there), and is exact where all partial sums are. The same device, driver, shapes and places of the
/// operands give the same bits, wherever the result lies; on the CPU whatever the number of threads. A result of 16 bits is rounded once, to nearest even; what overflows becomes ±inf. The epilogue adds
/// a rounding for each of its sums and products, and its activation's own error ([`ops::gelu`] and the others state theirs) at a
/// sum that is off by so much. On the CPU this runs on the `gemm` crate. Which kernel a GPU runs, and why: `matmul::gpu::explain`.
///
/// Sources of the blocking on the GPU: Volkov and Demmel, "Benchmarking GPUs to tune dense linear algebra" (SC 2008); of the gated pair: Shazeer,
/// "GLU variants improve transformer" (2020).
///
/// ```
/// use gristmill::{Device, Tensor, ops, ops::Matmul};
///
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
/// let w = Tensor::from_slice(&device, &[1.0f32, 0.0, 1.0, 1.0, 2.0, 0.0], &[3, 2])?;
/// let y = ops::matmul(&x, &w.transpose(0, 1)?, &Matmul::default())?; // a linear layer: x · wᵀ
/// assert_eq!(y.shape(), [2, 3]);
/// assert_eq!(y.to_vec::<f32>()?, [1.0, 3.0, 2.0, 3.0, 7.0, 6.0]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] if the inner sizes differ, the batch axes do not broadcast, an operand is a scalar, or one of the options
/// does not fit the result, or the gate is not of `rhs`'s shape and type; [`Error::DType`] unless all are floats, f16 and bf16 not as `lhs` and
/// `rhs`; [`Error::Argument`] if a factor is not finite, `dtype` is no float or there is nothing to accumulate to; [`Error::Device`];
/// [`Error::TooLarge`].
pub fn matmul(lhs: &Tensor, rhs: &Tensor, options: &Matmul) -> Result<Tensor> {
    let (dims, dtype) = check(lhs, rhs, options)?;
    if options.accumulate {
        let problem = "needs something to add to".into();
        return Err(Error::Argument { op: OP, argument: "accumulate", problem, help: "call `matmul_into`, or give `residual`" });
    }
    let mut out = ops::fresh(OP, lhs.device(), options.dtype.unwrap_or(dtype), &dims)?;
    matmul_into(&mut out, lhs, rhs, options)?;
    Ok(out)
}

/// [`matmul`] into a tensor or view of the result's shape and any float type (`Matmul::dtype`, if that is given), or onto it
/// (`Matmul::accumulate`).
///
/// ```
/// use gristmill::{Device, Tensor, ops, ops::{Bias, Matmul}};
///
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0], &[1, 2])?;
/// let w = Tensor::from_slice(&device, &[1.0f32, 0.0, 1.0, 3.0], &[2, 2])?;
/// let bias = Tensor::from_slice(&device, &[0.5f32, -0.5], &[2])?;
/// let mut out = Tensor::full(&device, 10.0f32, &[1, 2])?;
/// let options = Matmul { bias: Some(Bias::Columns(&bias)), accumulate: true, ..Matmul::default() };
/// ops::matmul_into(&mut out, &x, &w, &options)?; // out += x · w + bias
/// assert_eq!(out.to_vec::<f32>()?, [13.5, 15.5]);
/// # Ok::<(), gristmill::Error>(())
/// ```
///
/// # Errors
/// As `matmul`, and [`Error::Overlap`].
pub fn matmul_into(out: &mut Tensor, lhs: &Tensor, rhs: &Tensor, options: &Matmul) -> Result<()> {
    let (dims, dtype) = check(lhs, rhs, options)?;
    let named: Vec<ops::Named> = [("lhs", Some(lhs)), ("rhs", Some(rhs))]
        .into_iter()
        .chain(options.extras())
        .filter_map(|(name, tensor)| Some((name, tensor?)))
        .collect();
    match options.dtype {
        Some(asked) => ops::check_out(OP, out, &dims, asked, &named)?,
        None => ops::check_out_like(OP, out, &dims, dtype, &named)?,
    }
    let problem = problem(out, lhs, rhs, options)?;
    if out.is_empty() {
        return Ok(());
    }
    ops::run(&problem, out, &named.iter().map(|(_, tensor)| *tensor).collect::<Vec<_>>())
}

/// The shape and the type of the result of a valid pair.
fn check(lhs: &Tensor, rhs: &Tensor, options: &Matmul) -> Result<(Vec<usize>, DType)> {
    let both = [("lhs", lhs), ("rhs", rhs)];
    ops::check_devices(OP, &both)?;
    let dtype = ops::promote_floats(OP, &both)?;
    let (left, right) = (lhs.shape(), rhs.shape());
    if left.is_empty() || right.is_empty() {
        return Err(ops::misfit(OP, &both, "a scalar is no matrix", "scale with `mul`"));
    }
    let k_left = left[left.len() - 1];
    let k_right = right[right.len().saturating_sub(2)];
    if k_left != k_right {
        let problem = format!("the inner sizes differ ({k_left} and {k_right})");
        return Err(ops::misfit(OP, &both, problem, "`transpose` the operand that lies the other way"));
    }
    let outer = |dims: &[usize]| dims[..dims.len().saturating_sub(2)].to_vec();
    let mut dims = Layout::broadcast_dims(&[&outer(left), &outer(right)]).ok_or_else(|| {
        let help = "the axes before the last two must align at the right, equal or 1";
        ops::misfit(OP, &both, "the batch axes do not broadcast", help)
    })?;
    if left.len() > 1 {
        dims.push(left[left.len() - 2]);
    }
    if right.len() > 1 {
        dims.push(right[right.len() - 1]);
    }
    dense(OP, &dims)?;
    check_options(lhs, rhs, options)?;
    Ok((dims, dtype))
}

/// All that can be said of the options without the result.
fn check_options(lhs: &Tensor, rhs: &Tensor, options: &Matmul) -> Result<()> {
    for (argument, factor) in [("alpha", options.alpha), ("beta", options.beta)] {
        if !factor.is_finite() {
            return Err(Error::Argument { op: OP, argument, problem: format!("is {factor}"), help: "give a finite number" });
        }
    }
    if let Some(dtype) = options.dtype.filter(|dtype| !dtype.is_float()) {
        let problem = format!("is {dtype}");
        return Err(Error::Argument { op: OP, argument: "dtype", problem, help: "give f32, f16 or bf16, and `cast` the result" });
    }
    for (name, extra) in options.extras() {
        let Some(extra) = extra else { continue };
        ops::check_devices(OP, &[("lhs", lhs), (name, extra)])?;
        if !extra.dtype().is_float() {
            return Err(Error::DType { op: OP, operands: vec![extra.operand(name)], supported: "floats" });
        }
    }
    if let Some(gate) = options.gate.filter(|gate| gate.shape() != rhs.shape() || gate.dtype() != rhs.dtype()) {
        let help = "give two right-hand sides of one shape and type";
        return Err(ops::misfit(OP, &[("rhs", rhs), ("gate", gate)], "the gate is not like `rhs`", help));
    }
    Ok(())
}

/// The facts of a checked call: vectors become matrices, batch axes are broadcast.
fn problem(result: &Tensor, lhs: &Tensor, rhs: &Tensor, options: &Matmul) -> Result<Problem> {
    let too_many = || {
        let help = "merge some batch axes with `reshape`";
        ops::misfit(OP, &[("lhs", lhs), ("rhs", rhs)], "too many axes", help)
    };
    let (vector_left, vector_right) = (lhs.rank() == 1, rhs.rank() == 1);
    // The result of a vector lacks its axis: the column's is the last, the row's the one before.
    let as_matrices = |layout: Layout| {
        let with_column = if vector_right { layout.unsqueeze(layout.rank())? } else { layout };
        if vector_left { with_column.unsqueeze(with_column.rank() - 1) } else { Some(with_column) }
    };
    let right_of = |t: &Tensor| if vector_right { t.layout().unsqueeze(1) } else { Some(*t.layout()) };
    let left = if vector_left { lhs.layout().unsqueeze(0) } else { Some(*lhs.layout()) };
    let (Some(out), Some(left), Some(right)) = (as_matrices(*result.layout()), left, right_of(rhs)) else {
        return Err(too_many());
    };
    let (m, n, k) = (left.dims()[left.rank() - 2], right.dims()[right.rank() - 1], left.dims()[left.rank() - 1]);
    let batch = &out.dims()[..out.rank() - 2];
    let over_batch = |layout: Layout, matrix: [usize; 2]| layout.broadcast_to(&[batch, &matrix].concat()).ok_or_else(too_many);
    let gate = match options.gate {
        Some(gate) => Some(over_batch(right_of(gate).ok_or_else(too_many)?, [k, n])?),
        None => None,
    };
    let extra = |name, tensor: Option<&Tensor>| -> Result<Option<Extra>> {
        let Some(tensor) = tensor else { return Ok(None) };
        let layout = as_matrices(ops::broadcast(OP, (name, tensor), result.shape())?).ok_or_else(too_many)?;
        Ok(Some(Extra { dtype: tensor.dtype(), layout }))
    };
    let bias = match options.bias {
        None => None,
        Some(Bias::Columns(bias)) => Some((bias, n, Some(*bias.layout()))),
        Some(Bias::Rows(bias)) => Some((bias, m, bias.layout().unsqueeze(bias.rank()))),
    };
    let bias = match bias {
        None => None,
        Some((bias, len, layout)) => {
            if bias.shape() != [len] {
                let help = "give a vector of n for `Columns`, of m for `Rows`; `c` takes all else that broadcasts";
                return Err(ops::misfit(OP, &[("bias", bias)], format!("the bias must have shape [{len}]"), help));
            }
            Some(Extra { dtype: bias.dtype(), layout: over_batch(layout.ok_or_else(too_many)?, [m, n])? })
        }
    };
    Ok(Problem {
        dtypes: [result.dtype(), lhs.dtype(), rhs.dtype()],
        batch_invariant: lhs.device().is_batch_invariant(),
        out,
        lhs: over_batch(left, [m, k])?,
        rhs: over_batch(right, [k, n])?,
        epilogue: Epilogue {
            alpha: options.alpha,
            beta: options.beta,
            gate,
            c: extra("c", options.c)?,
            bias,
            residual: extra("residual", options.residual)?,
            activation: options.activation,
            accumulate: options.accumulate,
        },
    })
}

impl Op for Problem {
    fn name(&self) -> &'static str {
        OP
    }

    fn in_place(&self) -> bool {
        self.epilogue.accumulate
    }

    fn cpu(&self, out: &mut [u8], inputs: &[&[u8]]) {
        cpu::matmul(self, out, inputs);
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
        let (rank, part) = (self.out.rank(), |layout: &Layout| layout.narrow(axis, start, len));
        let right = |layout: &Layout| if axis + 2 == rank { Some(*layout) } else { part(layout) };
        let lhs = if axis + 1 == rank { self.lhs } else { part(&self.lhs)? };
        let mut epilogue = self.epilogue;
        for extra in [&mut epilogue.c, &mut epilogue.bias, &mut epilogue.residual].into_iter().flatten() {
            extra.layout = part(&extra.layout)?;
        }
        if let Some(gate) = &mut epilogue.gate {
            *gate = right(gate)?;
        }
        Some(Problem { out: part(&self.out)?, lhs, rhs: right(&self.rhs)?, epilogue, ..self.clone() })
    }

    #[cfg(feature = "gpu")]
    fn grain(&self, axis: usize) -> usize {
        // Eights, along whichever axis an operand is loaded by them.
        if axis + 2 < self.out.rank() { 1 } else { 8 }
    }
}
