//! ONNX node tests: each case is one operator, computed as its specification defines it with what the crate offers.

use gristmill::{DType, Device, Tensor, ops};

use crate::attention;
use crate::compare::{Report, Rule, check, numbers};
use crate::manifest::{Arg, Attributes, Case, Outcome, Stored, fail, unsupported};

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
    let call = Call { device, stored: &stored, inputs: &inputs, outputs: &outputs, attributes: &attributes, opset };
    let results = (op.compute)(&call)?;
    check(&outputs, &results, &stored, |_| Rule::Onnx)
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
    op("Add", add, &[], 2),
    op("Attention", attention::onnx, attention::ONNX_ATTRIBUTES, 7),
    op("Cast", cast, &["to", "saturate", "round_mode"], 1),
    op("CastLike", cast_like, &["saturate", "round_mode"], 2),
    op("Concat", concat, &["axis"], usize::MAX),
    op("Expand", expand, &[], 2),
    op("Flatten", flatten, &["axis"], 1),
    op("Gemm", gemm, &["alpha", "beta", "transA", "transB"], 3),
    op("Identity", identity, &[], 1),
    op("LogSoftmax", log_softmax, &["axis"], 1),
    op("MatMul", matmul, &[], 2),
    op("Mul", mul, &[], 2),
    op("Reshape", reshape, &["allowzero"], 2),
    op("Slice", slice, &[], 5),
    op("Softmax", softmax, &["axis"], 1),
    op("Split", split, &["axis", "num_outputs"], 2),
    op("Squeeze", squeeze, &["axes"], 2),
    op("Sum", sum, &[], usize::MAX),
    op("Transpose", transpose, &["perm"], 1),
    op("Unsqueeze", unsqueeze, &["axes"], 2),
];

/// One case, opened.
pub struct Call<'a> {
    pub device: &'a Device,
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
        self.stored.tensor(self.required(i)?, self.device)
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

    /// Operands of arithmetic, however many.
    fn operands(&self) -> Outcome<Vec<Tensor>> {
        (0..self.inputs.len()).map(|i| self.operand(i)).collect()
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

fn add(call: &Call) -> Results {
    one(ops::add(&call.operand(0)?, &call.operand(1)?)?)
}

fn mul(call: &Call) -> Results {
    one(ops::mul(&call.operand(0)?, &call.operand(1)?)?)
}

fn sum(call: &Call) -> Results {
    let all = call.operands()?;
    let (first, rest) = all.split_first().ok_or_else(|| fail("manifest: no inputs"))?;
    one(rest.iter().try_fold(first.clone(), |total, next| ops::add(&total, next))?)
}

fn matmul(call: &Call) -> Results {
    one(ops::matmul(&call.operand(0)?, &call.operand(1)?)?)
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
    let product = ops::matmul(&matrix(0, "transA")?, &matrix(1, "transB")?)?;
    let scaled = |tensor: Tensor, factor: &str| match call.attributes.number(factor)? {
        None | Some(1.0) => Ok::<_, crate::manifest::Stop>(tensor),
        Some(factor) => Ok(ops::mul(&tensor, &Tensor::full(call.device, factor as f32, &[])?)?),
    };
    let product = scaled(product, "alpha")?;
    if call.given(2).is_none() {
        return one(product);
    }
    // C broadcasts to the product, not the other way round.
    let bias = call.operand(2)?.broadcast_to(product.shape())?;
    one(ops::add(&product, &scaled(bias, "beta")?)?)
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
    let parts = (0..call.inputs.len()).map(|i| call.tensor(i)).collect::<Outcome<Vec<_>>>()?;
    let first = parts.first().ok_or_else(|| fail("manifest: no inputs"))?;
    let axis = call.attributes.int("axis")?.ok_or_else(|| fail("manifest: Concat without an axis"))?;
    one(join(&parts, axis_in(axis, first.rank())?)?)
}

/// Tensors one after the other along an axis.
pub fn join(parts: &[Tensor], axis: usize) -> Outcome<Tensor> {
    let first = parts.first().ok_or_else(|| fail("nothing to join"))?;
    let mut shape = first.shape().to_vec();
    let sizes: Option<Vec<usize>> = parts.iter().map(|part| part.shape().get(axis).copied()).collect();
    let sizes = sizes.ok_or_else(|| fail("manifest: inputs of different ranks"))?;
    shape[axis] = sizes.iter().sum();
    let whole = Tensor::zeros(first.device(), first.dtype(), &shape)?;
    let mut start = 0;
    for (part, size) in parts.iter().zip(sizes) {
        let mut place = whole.narrow(axis as isize, start..start + size)?;
        if place.shape() != part.shape() {
            return Err(fail("manifest: inputs whose other axes differ"));
        }
        ops::copy_into(&mut place, part)?;
        start += size;
    }
    Ok(whole)
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
    if call.integers(4)?.is_some_and(|steps| steps.iter().any(|&step| step != 1)) {
        return Err(unsupported("Slice: steps other than 1 are not offered"));
    }
    if starts.len() != ends.len() || starts.len() != axes.len() {
        return Err(fail("manifest: starts, ends and axes differ in length"));
    }
    let mut view = x;
    for ((start, end), axis) in starts.into_iter().zip(ends).zip(axes) {
        let axis = axis_in(axis, view.rank())?;
        let size = view.shape()[axis] as i64;
        // Counted from the end if negative, and cut to the axis.
        let place = |at: i64| if at < 0 { at.saturating_add(size).max(0) } else { at.min(size) } as usize;
        let (start, end) = (place(start), place(end));
        view = view.narrow(axis as isize, start..end.max(start))?;
    }
    moved(&view)
}
