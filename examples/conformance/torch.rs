//! PyTorch goldens: computed in float64, so that one serves the kernels of every type.

use gristmill::{DType, Device, Tensor, ops};
use half::{bf16, f16};

use crate::attention::{Asked, Attended, Places, attend};
use crate::compare::{Report, Rule, check, errors};
use crate::manifest::{Arg, Attributes, Case, Outcome, Stored, fail, unsupported};

/// The outputs that are offered, by name.
type Results = Outcome<Vec<(&'static str, Tensor)>>;

struct Op {
    name: &'static str,
    compute: Compute,
    attributes: &'static [&'static str],
    /// All that there may be, those for gradients too.
    inputs: &'static [&'static str],
    /// Those of them that are read on the host, whatever type it computes in.
    host: &'static [&'static str],
    /// The types that it computes in: a case runs in each that its other inputs are exact in.
    dtypes: &'static [DType],
}

/// What arithmetic is offered in.
const FLOATS: &[DType] = &[DType::F32, DType::F16, DType::BF16];

/// An elementwise op of x, and of the gate u where there is one.
type Activation = fn(&Tensor, &Tensor) -> gristmill::Result<Tensor>;

const fn activation(name: &'static str, of: Activation) -> Op {
    let (attributes, inputs): (&[&str], &[&str]) = (&["beta", "threshold"], &["x", "u", "dy"]);
    Op { name, compute: Compute::Activation(of), attributes, inputs, host: &[], dtypes: &[DType::F32] }
}

const fn rotation(name: &'static str, compute: fn(&Call) -> Results) -> Op {
    Op {
        name,
        compute: Compute::Call(compute),
        // What theta and a scaling make of the frequencies, the case has; the error is that of other tables.
        attributes: &["style", "rotary_dim", "theta", "magnitude_scale", "f32_angle_table_max_abs_err", "backward", "sections"],
        inputs: &["x", "positions", "positions3", "inv_freq", "dy"],
        host: &["positions", "positions3", "inv_freq"],
        dtypes: FLOATS,
    }
}

enum Compute {
    Call(fn(&Call) -> Results),
    Activation(Activation),
}

static OPS: &[Op] = &[
    Op {
        name: "scaled_dot_product_attention",
        compute: Compute::Call(sdpa),
        attributes: &[
            "backward",
            "batch",
            "causal",
            "head_dim",
            "heads",
            "kv_heads",
            "kv_len",
            "mask",
            "q_len",
            "scale",
            "sinks",
            "softcap",
            "v_head_dim",
            "window_left",
            "window_right",
        ],
        inputs: &["q", "k", "v", "mask", "sink", "dout"],
        host: &[],
        dtypes: FLOATS,
    },
    Op {
        name: "softmax",
        compute: Compute::Call(softmax),
        attributes: &["dim", "row_kinds", "backward"],
        inputs: &["x", "dy"],
        host: &[],
        dtypes: FLOATS,
    },
    Op {
        name: "matmul",
        compute: Compute::Call(matmul),
        attributes: &["alpha", "backward", "k", "m", "max_abs_a_times_abs_b", "n", "trans_a", "trans_b"],
        inputs: &["a", "b", "bias", "dc"],
        host: &[],
        dtypes: FLOATS,
    },
    Op { name: "reduce", compute: Compute::Call(reduce), attributes: &["dim"], inputs: &["x"], host: &[], dtypes: &[DType::F32] },
    activation("erf", |x, _| ops::erf(x)),
    activation("exp", |x, _| ops::exp(x)),
    activation("geglu_erf", |x, u| ops::mul(&ops::gelu(x)?, u)),
    activation("geglu_tanh", |x, u| ops::mul(&ops::gelu_tanh(x)?, u)),
    activation("gelu_tanh", |x, _| ops::gelu_tanh(x)),
    activation("mish", |x, _| ops::mul(x, &ops::tanh(&ops::softplus(x)?)?)),
    activation("quick_gelu", |x, _| ops::mul(x, &ops::sigmoid(&ops::mul(x, &Tensor::full(x.device(), 1.702f32, &[])?)?)?)),
    activation("reglu", |x, u| ops::mul(&ops::relu(x)?, u)),
    activation("relu", |x, _| ops::relu(x)),
    activation("silu", |x, _| ops::silu(x)),
    activation("softplus", |x, _| ops::softplus(x)),
    activation("swiglu", |x, u| ops::mul(&ops::silu(x)?, u)),
    rotation("rope", |call| rope(call, None)),
    rotation("mrope", |call| rope(call, Some(ops::RopeSections::Chunked))),
    rotation("mrope_interleaved", |call| rope(call, Some(ops::RopeSections::Interleaved))),
    Op { name: "cast", compute: Compute::Call(cast), attributes: &["rounding"], inputs: &["x"], host: &[], dtypes: &[DType::F32] },
];

/// Runs a case on a device in each type that fits, and compares its outputs.
pub fn run(case: &Case, device: &Device) -> Outcome<Report> {
    let name = case.text("op")?;
    let op = OPS.iter().find(|op| op.name == name).ok_or_else(|| unsupported(format!("op {name} is not offered")))?;
    let attributes = case.attributes(op.attributes)?;
    let (inputs, outputs) = (case.tensors("inputs")?, case.tensors("outputs")?);
    if let Some(arg) = inputs.iter().flatten().find(|arg| !op.inputs.contains(&arg.name.as_str())) {
        return Err(unsupported(format!("{name}: input {} is not offered", arg.name)));
    }
    let bytes = case.read()?;
    let stored = Stored::open(&bytes)?;
    let mut report = None;
    for &dtype in op.dtypes {
        let typed = inputs.iter().flatten().filter(|arg| !op.host.contains(&arg.name.as_str()));
        if !fits(typed, &stored, dtype)? {
            continue;
        }
        let call = Call { device, dtype, stored: &stored, inputs: &inputs, outputs: &outputs, attributes: &attributes };
        let results = match op.compute {
            Compute::Call(compute) => compute(&call)?,
            Compute::Activation(of) => activate(&call, of)?,
        };
        let results = in_order(&outputs, results);
        let rule = |arg: &Arg| if case.exact() { Rule::Exact } else { Rule::Torch(errors(case, dtype, &arg.name)) };
        let compared = check(&outputs, &results, &stored, rule)?;
        report.get_or_insert(compared);
    }
    report.ok_or_else(|| unsupported(format!("{name}: inputs that are not exact in a type that is offered")))
}

/// Whether every input is exact in a type. Booleans are in all.
fn fits<'a>(inputs: impl Iterator<Item = &'a Arg>, stored: &Stored, dtype: DType) -> Outcome<bool> {
    for arg in inputs {
        if !stored.exact_in(arg, dtype)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The results at the places of the outputs that they answer.
fn in_order(outputs: &[Option<Arg>], results: Vec<(&str, Tensor)>) -> Vec<Option<Tensor>> {
    let named = |arg: &Arg| results.iter().find(|(name, _)| *name == arg.name).map(|(_, tensor)| tensor.clone());
    outputs.iter().map(|arg| arg.as_ref().and_then(named)).collect()
}

/// One case, opened, in one type.
struct Call<'a> {
    device: &'a Device,
    dtype: DType,
    stored: &'a Stored<'a>,
    inputs: &'a [Option<Arg>],
    outputs: &'a [Option<Arg>],
    attributes: &'a Attributes<'a>,
}

impl Call<'_> {
    /// An input if it is given: booleans as they are, numbers in the call's type.
    fn given(&self, name: &str) -> Outcome<Option<Tensor>> {
        let Some(arg) = self.inputs.iter().flatten().find(|arg| arg.name == name) else { return Ok(None) };
        let tensor = match arg.dtype.as_str() {
            "bool" => self.stored.tensor(arg, self.device),
            "float32" | "float16" | "bfloat16" => self.stored.float(arg, self.device, self.dtype),
            other => Err(unsupported(format!("{}: arithmetic in {other} is not offered", self.attributes.op()))),
        };
        tensor.map(Some)
    }

    /// The numbers of an input that is read on the host, and its shape.
    fn numbers(&self, name: &str) -> Outcome<(Vec<f64>, &[usize])> {
        let arg = self.inputs.iter().flatten().find(|arg| arg.name == name);
        let arg = arg.ok_or_else(|| fail(format!("manifest: input {name} is missing")))?;
        Ok((self.stored.numbers(arg)?, &arg.shape))
    }

    fn input(&self, name: &str) -> Outcome<Tensor> {
        self.given(name)?.ok_or_else(|| fail(format!("manifest: input {name} is missing")))
    }
}

fn sdpa(call: &Call) -> Results {
    let attributes = call.attributes;
    let (q, k, v) = (call.input("q")?, call.input("k")?, call.input("v")?);
    let [seq_q, seq_k] = [&q, &k].map(|t| t.shape().get(2).map_or(0, |&n| n as i64));
    let (left, right) = (Places::side(attributes.int("window_left")?), Places::side(attributes.int("window_right")?));
    let (causal, offset) = match attributes.text("causal")?.unwrap_or("none") {
        "none" if seq_q != seq_k && (left.is_some() || right.is_some()) => {
            return Err(unsupported("scaled_dot_product_attention: windows over other keys without a causal mask are not offered"));
        }
        "none" => (false, 0),
        "top_left" => (true, 0),
        "bottom_right" => (true, seq_k - seq_q),
        other => return Err(unsupported(format!("scaled_dot_product_attention: causal {other} is not offered"))),
    };
    let places = Places { offset: Some(offset), causal, left, right, keys: None };
    let (mask, sinks) = (call.given("mask")?, call.given("sink")?);
    if attributes.flag("sinks")? && sinks.is_none() {
        return Err(fail("manifest: input sink is missing"));
    }
    let asked = Asked {
        places,
        mask: mask.as_ref(),
        sinks: sinks.as_ref(),
        scale: attributes.number("scale")?,
        softcap: attributes.number("softcap")?,
        scores: None,
    };
    let Attended { out, lse, .. } = attend(&q, &k, &v, &asked)?;
    Ok(vec![("out", out), ("lse", lse)])
}

fn softmax(call: &Call) -> Results {
    let x = call.input("x")?;
    let dim = call.attributes.int("dim")?.ok_or_else(|| fail("manifest: no dim"))? as isize;
    let options = ops::Softmax::default();
    Ok(vec![("softmax", ops::softmax(&x, dim, &options)?), ("log_softmax", ops::log_softmax(&x, dim, &options)?)])
}

fn matmul(call: &Call) -> Results {
    let matrix = |name: &str, flag: &str| {
        let matrix = call.input(name)?;
        if call.attributes.flag(flag)? { Ok::<_, crate::manifest::Stop>(matrix.transpose(-1, -2)?) } else { Ok(matrix) }
    };
    let bias = call.given("bias")?;
    let alpha = call.attributes.number("alpha")?.unwrap_or(1.0) as f32;
    let options = ops::Matmul { alpha, c: bias.as_ref(), ..Default::default() };
    let c = ops::matmul(&matrix("a", "trans_a")?, &matrix("b", "trans_b")?, &options)?;
    Ok(vec![("c", c)])
}

/// PyTorch's softplus is exact past its threshold, to the last bit of f32: the attributes change nothing.
fn activate(call: &Call, of: Activation) -> Results {
    let attributes = call.attributes;
    if attributes.number("beta")?.is_some_and(|beta| beta != 1.0) || attributes.number("threshold")?.is_some_and(|most| most < 17.0) {
        return Err(unsupported(format!("{}: another beta or threshold is not offered", attributes.op())));
    }
    let x = call.input("x")?;
    let gate = call.given("u")?.unwrap_or_else(|| x.clone());
    Ok(vec![("y", of(&x, &gate)?)])
}

fn reduce(call: &Call) -> Results {
    let x = call.input("x")?;
    let dim = call.attributes.int("dim")?.ok_or_else(|| fail("manifest: no dim"))? as isize;
    let axes = [dim];
    Ok(vec![
        ("sum", ops::sum(&x, &axes, false)?),
        ("mean", ops::mean(&x, &axes, false)?),
        ("max", ops::amax(&x, &axes, false)?),
        ("min", ops::amin(&x, &axes, false)?),
        ("argmax", ops::argmax(&x, dim, false)?),
        ("argmin", ops::argmin(&x, dim, false)?),
    ])
}

/// By a table that has a row for each position of the case, far ones too.
fn rope(call: &Call, shared: Option<fn([usize; 3]) -> ops::RopeSections>) -> Results {
    let attributes = call.attributes;
    let (inv_freq, _) = call.numbers("inv_freq")?;
    let (positions, shape) = call.numbers(if shared.is_some() { "positions3" } else { "positions" })?;
    let factor = attributes.number("magnitude_scale")?.unwrap_or(1.0);
    let table = ops::RopeTable::from_inv_freq(call.device, &inv_freq, factor, positions.iter().map(|&p| p as u32))?;
    if attributes.count("rotary_dim")? != Some(table.rotary_dim()) {
        return Err(fail("manifest: inv_freq is not of rotary_dim"));
    }
    let places = Tensor::arange::<u32>(call.device, 0.0, 1.0, positions.len())?.reshape(shape)?;
    let style = match attributes.text("style")? {
        Some("half") => ops::RopeStyle::Half,
        Some("interleaved") => ops::RopeStyle::Interleaved,
        other => return Err(unsupported(format!("{}: style {other:?} is not offered", attributes.op()))),
    };
    let sections = match shared {
        None => None,
        Some(shared) => {
            let lengths = attributes.ints("sections")?.unwrap_or_default();
            let lengths: Option<Vec<usize>> = lengths.into_iter().map(|n| usize::try_from(n).ok()).collect();
            let lengths = lengths.and_then(|lengths| <[usize; 3]>::try_from(lengths).ok());
            Some(shared(lengths.ok_or_else(|| fail("manifest: sections are not three sizes"))?))
        }
    };
    let options = ops::Rope { style, positions: Some(&places), sections, ..Default::default() };
    let x = call.input("x")?;
    let mut results = vec![("y", ops::rope(&x, &table, &options)?)];
    if let Some(dy) = call.given("dy")? {
        results.push(("dx", ops::rope(&dy, &table, &ops::Rope { inverse: true, ..options })?));
    }
    // What turns (1, 0) shows its cosine and its sine.
    let (batch, seq, half) = (x.shape()[0], x.shape()[2], inv_freq.len());
    let ones = Tensor::full(call.device, 1.0f32, &[batch, 1, seq, half])?;
    let zeros = Tensor::zeros(call.device, DType::F32, &[batch, 1, seq, half])?;
    let turned = ops::rope(&ops::concat(&[&ones, &zeros], -1)?, &table, &ops::Rope { style: ops::RopeStyle::Half, ..options })?;
    results.push(("cos", turned.narrow(-1, 0..half)?.squeeze(1)?));
    results.push(("sin", turned.narrow(-1, half..2 * half)?.squeeze(1)?));
    Ok(results)
}

fn cast(call: &Call) -> Results {
    if call.attributes.text("rounding")?.is_some_and(|rounding| rounding != "nearest even") {
        return Err(unsupported("cast: rounding other than to nearest even is not offered"));
    }
    let x = call.input("x")?;
    let halves: Vec<u16> = ops::cast(&x, DType::F16)?.to_vec::<f16>()?.into_iter().map(f16::to_bits).collect();
    let brains: Vec<u16> = ops::cast(&x, DType::BF16)?.to_vec::<bf16>()?.into_iter().map(bf16::to_bits).collect();
    let f16_bits = bits(call, "f16_bits", &halves, |bits| f16::from_bits(bits).is_nan())?;
    let bf16_bits = bits(call, "bf16_bits", &brains, |bits| bf16::from_bits(bits).is_nan())?;
    Ok([("f16_bits", f16_bits), ("bf16_bits", bf16_bits)].into_iter().filter_map(|(name, bits)| Some((name, bits?))).collect())
}

/// Bits to compare with an output of bits, if it is asked for. A NaN where a NaN belongs takes the golden's payload, which nobody promises.
fn bits(call: &Call, output: &str, got: &[u16], is_nan: fn(u16) -> bool) -> Outcome<Option<Tensor>> {
    let Some(arg) = call.outputs.iter().flatten().find(|arg| arg.name == output) else { return Ok(None) };
    let golden = call.stored.numbers(arg)?;
    let agreed = |(&got, golden): (&u16, f64)| if is_nan(got) && is_nan(golden as u16) { golden as i32 } else { i32::from(got) };
    let bits: Vec<i32> = got.iter().zip(golden).map(agreed).collect();
    Ok(Some(Tensor::from_slice(call.device, &bits, &arg.shape)?))
}
