//! ONNX node tests: each case is one operator, computed as its specification defines it with what the crate offers.

use gristmill::{DType, Device, Tensor, ops};

use crate::attention;
use crate::compare::{Report, Rule, check, numbers};
use crate::manifest::{Arg, Attributes, Case, Outcome, Stop, Stored, fail, unsupported};

/// Runs a case on a device and compares its outputs.
pub fn run(case: &Case, device: &Device) -> Outcome<Report> {
    let domain = case.text("domain")?;
    let name = case.text("op")?;
    let known = OPS.iter().find(|op| op.name == name && ["", "ai.onnx"].contains(&domain));
    let op = known.ok_or_else(|| unsupported(format!("op {name} is not offered")))?;
    let attributes = case.attributes(op.attributes)?;
    let (inputs, outputs) = (case.tensors("inputs")?, case.tensors("outputs")?);
    if inputs.len() > op.inputs {
        return Err(unsupported(format!("{name}: more than {} inputs are not offered", op.inputs)));
    }
    let opset = case.field("opset").and_then(|v| v.as_i64()).ok_or_else(|| fail("manifest: no number `opset`"))?;
    let bytes = case.read()?;
    let stored = Stored::open(&bytes)?;
    let call = Call { device, dtype: None, stored: &stored, inputs: &inputs, outputs: &outputs, attributes: &attributes, opset };
    let results = (op.compute)(&call)?;
    let report = check(&outputs, &results, &stored, |_| Rule::Onnx(None))?;
    if TYPED.contains(&name) {
        in_other_types(op, &call)?;
    }
    Ok(report)
}

/// Operators whose result in one type is the rounded result in another: their cases run in each type that the inputs are exact in.
const TYPED: &[&str] = &["Attention", "LogSoftmax", "RotaryEmbedding", "Softmax"];

fn in_other_types(op: &Op, call: &Call) -> Outcome<()> {
    let floats: Vec<&Arg> = call.inputs.iter().flatten().filter(|arg| arg.offered().is_ok_and(DType::is_float)).collect();
    let given = floats.first().map(|arg| arg.offered()).transpose()?;
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let mut exact = given != Some(dtype);
        for arg in &floats {
            exact = exact && call.stored.exact_in(arg, dtype)?;
        }
        if exact {
            let call = Call { dtype: Some(dtype), ..*call };
            let compared = (op.compute)(&call).and_then(|results| check(call.outputs, &results, call.stored, |_| Rule::Onnx(Some(dtype))));
            compared.map_err(|stop| match stop {
                Stop::Fail(problem) | Stop::Unsupported(problem) => fail(format!("in {dtype}: {problem}")),
            })?;
        }
    }
    Ok(())
}

/// An operator's outputs in the order of its specification; `None` for those that the crate does not offer.
pub type Results = Outcome<Vec<Option<Tensor>>>;

struct Op {
    name: &'static str,
    compute: fn(&Call) -> Results,
    attributes: &'static [&'static str],
    /// The most that there may be.
    inputs: usize,
}

const fn op(name: &'static str, compute: fn(&Call) -> Results, attributes: &'static [&'static str], inputs: usize) -> Op {
    Op { name, compute, attributes, inputs }
}

static OPS: &[Op] = &[
    op("Abs", |call| unary(call, ops::abs), &[], 1),
    op("Add", |call| binary(call, ops::add), &[], 2),
    op("ArgMax", |call| place(call, ops::argmax), &["axis", "keepdims", "select_last_index"], 1),
    op("ArgMin", |call| place(call, ops::argmin), &["axis", "keepdims", "select_last_index"], 1),
    op("Attention", attention::onnx, attention::ONNX_ATTRIBUTES, 7),
    op("Cast", cast, &["to", "saturate", "round_mode"], 1),
    op("CastLike", cast_like, &["saturate", "round_mode"], 2),
    op("Clip", clip, &[], 3),
    op("Concat", concat, &["axis"], usize::MAX),
    op("Div", |call| binary(call, ops::div), &[], 2),
    op("Equal", |call| binary(call, ops::eq), &[], 2),
    op("Erf", |call| unary(call, ops::erf), &[], 1),
    op("Exp", |call| unary(call, ops::exp), &[], 1),
    op("Expand", expand, &[], 2),
    op("Flatten", flatten, &["axis"], 1),
    op("Gather", gather, &["axis"], 2),
    op("Gelu", gelu, &["approximate"], 1),
    op("Gemm", gemm, &["alpha", "beta", "transA", "transB"], 3),
    op("Greater", |call| binary(call, ops::gt), &[], 2),
    op("GreaterOrEqual", |call| binary(call, ops::ge), &[], 2),
    op("HardSwish", |call| unary(call, ops::hard_swish), &[], 1),
    op("Identity", identity, &[], 1),
    op("Less", |call| binary(call, ops::lt), &[], 2),
    op("LessOrEqual", |call| binary(call, ops::le), &[], 2),
    op("Log", |call| unary(call, ops::log), &[], 1),
    op("LogSoftmax", log_softmax, &["axis"], 1),
    op("MatMul", matmul, &[], 2),
    op("Max", |call| fold(call, ops::max), &[], usize::MAX),
    op("Min", |call| fold(call, ops::min), &[], usize::MAX),
    op("Mul", |call| binary(call, ops::mul), &[], 2),
    op("Neg", |call| unary(call, ops::neg), &[], 1),
    op("Pow", pow, &[], 2),
    op("ReduceMax", |call| reduce(call, ops::amax), REDUCES, 2),
    op("ReduceMean", |call| reduce(call, ops::mean), REDUCES, 2),
    op("ReduceMin", |call| reduce(call, ops::amin), REDUCES, 2),
    op("ReduceSum", |call| reduce(call, ops::sum), REDUCES, 2),
    op("Relu", |call| unary(call, ops::relu), &[], 1),
    op("Reshape", reshape, &["allowzero"], 2),
    op("RotaryEmbedding", rotary_embedding, &["interleaved", "num_heads", "rotary_embedding_dim"], 4),
    op("Sigmoid", |call| unary(call, ops::sigmoid), &[], 1),
    op("Slice", slice, &[], 5),
    op("Softmax", softmax, &["axis"], 1),
    op("Softplus", |call| unary(call, ops::softplus), &[], 1),
    op("Split", split, &["axis", "num_outputs"], 2),
    op("Squeeze", squeeze, &["axes"], 2),
    op("Sqrt", |call| unary(call, ops::sqrt), &[], 1),
    op("Sub", |call| binary(call, ops::sub), &[], 2),
    op("Sum", |call| fold(call, ops::add), &[], usize::MAX),
    op("Swish", swish, &["alpha"], 1),
    op("Tanh", |call| unary(call, ops::tanh), &[], 1),
    op("Transpose", transpose, &["perm"], 1),
    op("Unsqueeze", unsqueeze, &["axes"], 2),
    op("Where", |call| one(ops::where_cond(&call.tensor(0)?, &call.carried(1)?, &call.carried(2)?)?), &[], 3),
];

/// One case, opened.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub device: &'a Device,
    /// What floats come in, if not in their own.
    dtype: Option<DType>,
    stored: &'a Stored<'a>,
    inputs: &'a [Option<Arg>],
    outputs: &'a [Option<Arg>],
    pub attributes: &'a Attributes<'a>,
    opset: i64,
}

impl Call<'_> {
    /// An input, if it is given.
    pub fn given(&self, i: usize) -> Option<&Arg> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    fn required(&self, i: usize) -> Outcome<&Arg> {
        self.given(i).ok_or_else(|| fail(format!("manifest: input {i} is missing")))
    }

    /// Whether an output is asked for.
    pub fn wanted(&self, i: usize) -> bool {
        self.outputs.get(i).is_some_and(Option::is_some)
    }

    /// An operand of arithmetic.
    pub fn operand(&self, i: usize) -> Outcome<Tensor> {
        let arg = self.required(i)?;
        if !["float32", "float16", "bfloat16"].contains(&arg.dtype.as_str()) {
            return Err(unsupported(format!("{}: arithmetic in {} is not offered", self.attributes.op(), arg.dtype)));
        }
        self.tensor(i)
    }

    /// An operand of what only moves elements.
    pub fn tensor(&self, i: usize) -> Outcome<Tensor> {
        let arg = self.required(i)?;
        match self.dtype {
            Some(dtype) if arg.offered()?.is_float() => self.stored.float(arg, self.device, dtype),
            _ => self.stored.tensor(arg, self.device),
        }
    }

    /// An operand of exact arithmetic and of what only moves elements: integers that the crate lacks come in wider ones.
    pub fn carried(&self, i: usize) -> Outcome<Tensor> {
        self.stored.carried(self.required(i)?, self.device)
    }

    /// Indices or sizes, if they are given.
    pub fn integers(&self, i: usize) -> Outcome<Option<Vec<i64>>> {
        self.given(i).map(|arg| self.stored.integers(arg)).transpose()
    }

    fn required_integers(&self, i: usize) -> Outcome<Vec<i64>> {
        self.stored.integers(self.required(i)?)
    }

    /// Axes as an input, or as the attribute that they were in older opsets.
    fn axes(&self) -> Outcome<Option<Vec<i64>>> {
        Ok(self.integers(1)?.or(self.attributes.ints("axes")?))
    }
}

fn one(tensor: Tensor) -> Results {
    Ok(vec![Some(tensor)])
}

/// A view's elements, moved on the device.
fn moved(view: &Tensor) -> Results {
    one(ops::copy(view)?)
}

/// An axis in `0..count`, counted from either end.
fn axis_in(axis: i64, count: usize) -> Outcome<usize> {
    let from_start = if axis < 0 { axis.checked_add_unsigned(count as u64) } else { Some(axis) };
    let inside = from_start.and_then(|a| usize::try_from(a).ok()).filter(|&a| a < count);
    inside.ok_or_else(|| fail(format!("manifest: axis {axis} of {count}")))
}

fn unary(call: &Call, compute: fn(&Tensor) -> gristmill::Result<Tensor>) -> Results {
    one(compute(&call.operand(0)?)?)
}

fn binary(call: &Call, compute: fn(&Tensor, &Tensor) -> gristmill::Result<Tensor>) -> Results {
    one(compute(&call.carried(0)?, &call.carried(1)?)?)
}

/// One operand after the other, however many.
fn fold(call: &Call, compute: fn(&Tensor, &Tensor) -> gristmill::Result<Tensor>) -> Results {
    let first = call.carried(0)?;
    one((1..call.inputs.len()).try_fold(first, |total, i| Ok::<_, crate::manifest::Stop>(compute(&total, &call.carried(i)?)?))?)
}

/// The result has the base's type, whatever the exponent's.
fn pow(call: &Call) -> Results {
    let (base, exponent) = (call.carried(0)?, call.carried(1)?);
    let joined = if base.dtype().is_float() || exponent.dtype().is_float() { DType::F32 } else { DType::I32 };
    let power = ops::pow(&ops::cast(&base, joined)?, &ops::cast(&exponent, joined)?)?;
    one(ops::cast(&power, base.dtype())?)
}

fn gelu(call: &Call) -> Results {
    match call.attributes.text("approximate")?.unwrap_or("none") {
        "none" => unary(call, ops::gelu),
        "tanh" => unary(call, ops::gelu_tanh),
        other => Err(unsupported(format!("Gelu: approximate {other} is not offered"))),
    }
}

/// `x · sigmoid(alpha · x)`.
fn swish(call: &Call) -> Results {
    let x = call.operand(0)?;
    let alpha = Tensor::full(call.device, call.attributes.number("alpha")?.unwrap_or(1.0) as f32, &[])?;
    let mut out = Tensor::zeros(call.device, x.dtype(), x.shape())?;
    // Between the steps in f32.
    ops::mul_into(&mut out, &x, &ops::sigmoid(&ops::mul(&x, &alpha)?)?)?;
    one(out)
}

/// At most the third input of at least the second of x.
fn clip(call: &Call) -> Results {
    let mut x = call.carried(0)?;
    if call.given(1).is_some() {
        x = ops::max(&x, &call.carried(1)?)?;
    }
    if call.given(2).is_some() {
        x = ops::min(&x, &call.carried(2)?)?;
    }
    moved(&x)
}

const REDUCES: &[&str] = &["axes", "keepdims", "noop_with_empty_axes"];

fn reduce(call: &Call, compute: fn(&Tensor, &[isize], bool) -> gristmill::Result<Tensor>) -> Results {
    let x = call.carried(0)?;
    let axes = call.axes()?.unwrap_or_default();
    let axes: Vec<isize> = match axes.is_empty() && !call.attributes.flag("noop_with_empty_axes")? {
        true => (0..x.rank() as isize).collect(),
        false => axes.into_iter().map(|axis| axis as isize).collect(),
    };
    let keep = call.attributes.int("keepdims")?.unwrap_or(1) != 0;
    let out = compute(&x, &axes, keep)?;
    one(if out.dtype() == x.dtype() { out } else { ops::cast(&out, x.dtype())? })
}

fn place(call: &Call, compute: fn(&Tensor, isize, bool) -> gristmill::Result<Tensor>) -> Results {
    let x = call.carried(0)?;
    let axis = axis_in(call.attributes.int("axis")?.unwrap_or(0), x.rank())?;
    let keep = call.attributes.int("keepdims")?.unwrap_or(1) != 0;
    if !call.attributes.flag("select_last_index")? {
        return one(compute(&x, axis as isize, keep)?);
    }
    // The first of the reversed axis, counted from its end.
    let last = x.shape()[axis] as u32 - 1;
    let first = compute(
        &ops::gather(&x, &Tensor::arange::<u32>(call.device, last.into(), -1.0, last as usize + 1)?, axis as isize)?,
        axis as isize,
        keep,
    )?;
    one(ops::sub(&Tensor::full(call.device, last, &[])?, &first)?)
}

fn gather(call: &Call) -> Results {
    let axis = call.attributes.int("axis")?.unwrap_or(0);
    one(ops::gather(&call.carried(0)?, &call.carried(1)?, axis as isize)?)
}

/// RotaryEmbedding, opset 23. Without position_ids the caches have a row for each row of x.
fn rotary_embedding(call: &Call) -> Results {
    let attributes = call.attributes;
    let x = attention::heads(call, 0, "num_heads")?;
    let [batch, seq, width] = [0, 2, 3].map(|axis| x.shape()[axis]);
    let half = match attributes.count("rotary_embedding_dim")?.unwrap_or(0) {
        0 => width / 2,
        turned => turned / 2,
    };
    let (cache, positions) = match call.given(3) {
        Some(_) => (None, call.carried(3)?),
        None => {
            let places = Tensor::arange::<u32>(call.device, 0.0, 1.0, batch * seq)?;
            (Some([batch * seq, half]), places.reshape(&[batch, seq])?)
        }
    };
    let cached = |i: usize| {
        let whole = ops::cast(&call.operand(i)?, DType::F32)?;
        Ok::<_, crate::manifest::Stop>(if let Some(shape) = cache { whole.reshape(&shape)? } else { whole })
    };
    let table = ops::RopeTable::from_tensors(&cached(1)?, &cached(2)?)?;
    if table.rotary_dim() != 2 * half {
        return Err(fail(format!("manifest: caches for {} elements, of {} that turn", table.rotary_dim(), 2 * half)));
    }
    let style = if attributes.flag("interleaved")? { ops::RopeStyle::Interleaved } else { ops::RopeStyle::Half };
    let y = ops::rope(&x, &table, &ops::Rope { style, positions: Some(&positions), ..Default::default() })?;
    let packed = call.given(0).is_some_and(|x| x.shape.len() == 3);
    one(if packed { attention::joined(&y)? } else { y })
}

fn matmul(call: &Call) -> Results {
    one(ops::matmul(&call.operand(0)?, &call.operand(1)?, &Default::default())?)
}

/// `alpha · A' · B' + beta · C`.
fn gemm(call: &Call) -> Results {
    let matrix = |i: usize, flag: &str| {
        let matrix = call.operand(i)?;
        if matrix.rank() != 2 {
            return Err(fail(format!("manifest: input {i} of Gemm is no matrix")));
        }
        if call.attributes.flag(flag)? { Ok(matrix.transpose(0, 1)?) } else { Ok(matrix) }
    };
    let factor = |name: &str| Ok::<_, crate::manifest::Stop>(call.attributes.number(name)?.unwrap_or(1.0) as f32);
    let c = if call.given(2).is_none() { None } else { Some(call.operand(2)?) };
    let options = ops::Matmul { alpha: factor("alpha")?, beta: factor("beta")?, c: c.as_ref(), ..Default::default() };
    one(ops::matmul(&matrix(0, "transA")?, &matrix(1, "transB")?, &options)?)
}

fn softmax(call: &Call) -> Results {
    softmax_like(call, ops::softmax)
}

fn log_softmax(call: &Call) -> Results {
    softmax_like(call, ops::log_softmax)
}

fn softmax_like(call: &Call, compute: fn(&Tensor, isize, &ops::Softmax) -> gristmill::Result<Tensor>) -> Results {
    let x = call.operand(0)?;
    let axis = call.attributes.int("axis")?;
    if call.opset >= 13 {
        return one(compute(&x, axis.unwrap_or(-1) as isize, &ops::Softmax::default())?);
    }
    // Before opset 13 all axes from this one on are one.
    let matrix = x.reshape(&flattened(x.shape(), axis.unwrap_or(1))?)?;
    one(compute(&matrix, 1, &ops::Softmax::default())?.reshape(x.shape())?)
}

/// The two sizes that are left of a shape when it is cut before an axis.
fn flattened(shape: &[usize], axis: i64) -> Outcome<[usize; 2]> {
    let at = if axis == shape.len() as i64 { shape.len() } else { axis_in(axis, shape.len())? };
    Ok([shape[..at].iter().product(), shape[at..].iter().product()])
}

fn cast(call: &Call) -> Results {
    let to = call.attributes.int("to")?.ok_or_else(|| fail("manifest: Cast without `to`"))?;
    let dtype = match to {
        1 => DType::F32,
        2 => DType::U8,
        6 => DType::I32,
        9 => DType::Bool,
        10 => DType::F16,
        12 => DType::U32,
        16 => DType::BF16,
        // The output's own name says it better.
        _ => match call.outputs.first() {
            Some(Some(output)) if output.offered().is_err() => output.offered()?,
            _ => return Err(fail(format!("manifest: Cast to {to}, which is not the output's type"))),
        },
    };
    cast_to(call, dtype)
}

fn cast_like(call: &Call) -> Results {
    cast_to(call, call.required(1)?.offered()?)
}

/// The crate truncates and saturates where ONNX wraps (integers) or leaves the result open (floats).
fn cast_to(call: &Call, dtype: DType) -> Results {
    let x = call.tensor(0)?;
    let range = match dtype {
        DType::I32 => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
        DType::U32 => Some((0.0, f64::from(u32::MAX))),
        DType::U8 => Some((0.0, f64::from(u8::MAX))),
        _ => None,
    };
    if let Some((least, most)) = range {
        let inside = numbers(&x)?.iter().all(|n| (least..=most).contains(&n.trunc()));
        if !inside {
            return Err(unsupported(format!("{}: values outside the target's range are not offered", call.attributes.op())));
        }
    }
    one(ops::cast(&x, dtype)?)
}

fn identity(call: &Call) -> Results {
    moved(&call.tensor(0)?)
}

fn transpose(call: &Call) -> Results {
    let x = call.tensor(0)?;
    let axes = match call.attributes.ints("perm")? {
        Some(perm) => perm.into_iter().map(|axis| axis_in(axis, x.rank())).collect::<Outcome<Vec<_>>>()?,
        None => (0..x.rank()).rev().collect(),
    };
    moved(&x.permute(&axes)?)
}

fn reshape(call: &Call) -> Results {
    let x = call.tensor(0)?;
    let asked = call.required_integers(1)?;
    let keep_zero = call.attributes.flag("allowzero")?;
    let mut shape = Vec::with_capacity(asked.len());
    for (i, &size) in asked.iter().enumerate() {
        shape.push(match size {
            0 if !keep_zero => *x.shape().get(i).ok_or_else(|| fail("manifest: a 0 beyond the input's axes"))?,
            // To be inferred.
            -1 => 1,
            size => usize::try_from(size).map_err(|_| fail("manifest: a negative size"))?,
        });
    }
    if let Some(open) = asked.iter().position(|&size| size == -1) {
        let others = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        shape[open] = others.and_then(|others| x.len().checked_div(others)).unwrap_or(0);
    }
    moved(&x.reshape(&shape)?)
}

fn flatten(call: &Call) -> Results {
    let x = call.tensor(0)?;
    let axis = call.attributes.int("axis")?.unwrap_or(1);
    moved(&x.reshape(&flattened(x.shape(), axis)?)?)
}

fn squeeze(call: &Call) -> Results {
    let x = call.tensor(0)?;
    let mut axes = match call.axes()? {
        Some(axes) => axes.into_iter().map(|axis| axis_in(axis, x.rank())).collect::<Outcome<Vec<_>>>()?,
        None => (0..x.rank()).filter(|&axis| x.shape()[axis] == 1).collect(),
    };
    axes.sort_unstable();
    moved(&axes.into_iter().rev().try_fold(x, |x, axis| x.squeeze(axis as isize))?)
}

fn unsqueeze(call: &Call) -> Results {
    let x = call.tensor(0)?;
    let axes = call.axes()?.ok_or_else(|| fail("manifest: Unsqueeze without axes"))?;
    let rank = x.rank() + axes.len();
    let mut axes = axes.into_iter().map(|axis| axis_in(axis, rank)).collect::<Outcome<Vec<_>>>()?;
    axes.sort_unstable();
    moved(&axes.into_iter().try_fold(x, |x, axis| x.unsqueeze(axis as isize))?)
}

fn expand(call: &Call) -> Results {
    let x = call.tensor(0)?;
    let sizes = call.required_integers(1)?.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>();
    let sizes = sizes.map_err(|_| fail("manifest: a negative size"))?;
    let shape = gristmill::Layout::broadcast_dims(&[x.shape(), &sizes]).ok_or_else(|| fail("manifest: shapes that do not broadcast"))?;
    moved(&x.broadcast_to(&shape)?)
}

fn concat(call: &Call) -> Results {
    let parts = (0..call.inputs.len()).map(|i| call.carried(i)).collect::<Outcome<Vec<_>>>()?;
    let axis = call.attributes.int("axis")?.ok_or_else(|| fail("manifest: Concat without an axis"))?;
    one(ops::concat(&parts.iter().collect::<Vec<_>>(), axis as isize)?)
}

fn split(call: &Call) -> Results {
    let x = call.tensor(0)?;
    let axis = axis_in(call.attributes.int("axis")?.unwrap_or(0), x.rank())?;
    let whole = x.shape()[axis];
    let sizes = match call.integers(1)? {
        Some(sizes) => sizes.into_iter().map(usize::try_from).collect::<Result<_, _>>().map_err(|_| fail("manifest: a negative size"))?,
        None => {
            let count = call.attributes.count("num_outputs")?.unwrap_or(call.outputs.len());
            if count != call.outputs.len() {
                return Err(fail("manifest: num_outputs is not the number of outputs"));
            }
            // The last one is smaller where the axis does not divide.
            let each = whole.div_ceil(count.max(1));
            (0..count).map(|i| whole.saturating_sub(i * each).min(each)).collect::<Vec<_>>()
        }
    };
    let mut start = 0usize;
    let mut results = Vec::new();
    for size in sizes {
        let end = start.checked_add(size).ok_or_else(|| fail("manifest: sizes beyond the axis"))?;
        results.push(Some(ops::copy(&x.narrow(axis as isize, start..end)?)?));
        start = end;
    }
    Ok(results)
}

fn slice(call: &Call) -> Results {
    let x = call.tensor(0)?;
    let (starts, ends) = (call.required_integers(1)?, call.required_integers(2)?);
    let axes = call.integers(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = call.integers(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if starts.len() != ends.len() || starts.len() != axes.len() || starts.len() != steps.len() {
        return Err(fail("manifest: starts, ends, axes and steps differ in length"));
    }
    let mut view = x;
    for (((start, end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
        let axis = axis_in(axis, view.rank())?;
        let size = view.shape()[axis] as i64;
        // Counted from the end if negative, and cut to the axis.
        let from_start = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
        if step > 0 {
            let place = |at: i64| from_start(at).clamp(0, size) as usize;
            let (start, end) = (place(start), place(end));
            view = view.narrow(axis as isize, start..end.max(start))?.step(axis as isize, step as usize)?;
            continue;
        }
        let (start, end) = (from_start(start).clamp(-1, size - 1), from_start(end).clamp(-1, size - 1));
        let backwards: Vec<i32> = (0..).map(|i| start + i * step.min(-1)).take_while(|&at| at > end).map(|at| at as i32).collect();
        view = ops::gather(&view, &Tensor::from_slice(call.device, &backwards, &[backwards.len()])?, axis as isize)?;
    }
    moved(&view)
}
