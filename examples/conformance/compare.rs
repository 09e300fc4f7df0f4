//! When a result agrees with its golden.

use gristmill::{DType, Element, Tensor};
use half::{bf16, f16};
use serde_json::Value;

use crate::manifest::{Arg, Case, Outcome, Stored, fail, number, unsupported};

/// How far an element may be from its golden.
pub enum Rule {
    /// Not at all, once it is rounded to the type.
    Exact,
    /// ONNX's own: 1e-7 + 1e-3 · |golden|, with 2^-6 for 1e-3 in bf16, and never less than 2 ULP of f16, of which 1e-3 is less than one in
    /// places; integers and booleans are equal. With a type, of floats that come in that one instead of their own: the looser bound of the two.
    Onnx(Option<DType>),
    /// 4 times what PyTorch's own kernel of the type misses the golden by, plus one ULP of the largest golden; see [`errors`]. An error
    /// below the smallest normal number always passes: GPUs may flush subnormals to zero.
    Torch(Option<Vec<f64>>),
}

/// What the comparison of a case left out.
#[derive(Default)]
pub struct Report {
    /// Outputs that the crate does not offer.
    pub left_out: Vec<String>,
    /// Elements whose golden is not finite.
    pub not_finite: usize,
    /// Outputs of a type that the crate lacks, which came in another.
    pub carried: Vec<String>,
}

/// `torch_cpu_max_abs_err` of an output: one number, or one for each of its rows where these differ wildly. None where PyTorch has no
/// kernel for the case.
pub fn errors(case: &Case, dtype: DType, output: &str) -> Option<Vec<f64>> {
    let name = match dtype {
        DType::F32 => "float32",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => return None,
    };
    let value = case.field("torch_cpu_max_abs_err")?.get(name)?.get(output)?;
    let list = match value {
        Value::Array(rows) => rows.iter().map(number).collect::<Option<Vec<f64>>>()?,
        one => vec![number(one)?],
    };
    list.iter().all(|e| e.is_finite()).then_some(list)
}

/// Compares the outputs that are offered, in the manifest's order, each with the rule for its name. The first one of the manifest is the
/// main one: without it nothing is shown.
pub fn check(outputs: &[Option<Arg>], results: &[Option<Tensor>], stored: &Stored, rule: impl Fn(&Arg) -> Rule) -> Outcome<Report> {
    let mut report = Report::default();
    let mut main = true;
    for (i, arg) in outputs.iter().enumerate() {
        let Some(arg) = arg else { continue };
        match results.get(i).and_then(Option::as_ref) {
            Some(result) => {
                report.not_finite += agree(arg, result, stored, &rule(arg), main)?;
                if matches!(rule(arg), Rule::Onnx(_)) && arg.offered().is_err() {
                    report.carried.push(format!("{} in {}", arg.dtype, result.dtype()));
                }
            }
            None if main => return Err(unsupported(format!("output {} is not offered", arg.name))),
            None => report.left_out.push(arg.label().to_string()),
        }
        main = false;
    }
    if main { Err(fail("manifest: no outputs")) } else { Ok(report) }
}

/// How many elements of an output were left out because their golden is not finite; fails unless the others agree.
fn agree(arg: &Arg, result: &Tensor, stored: &Stored, rule: &Rule, main: bool) -> Outcome<usize> {
    if result.shape() != arg.shape {
        return Err(fail(format!("{}: got shape {:?}, expected {:?}", arg.label(), result.shape(), arg.shape)));
    }
    let dtype = result.dtype();
    // Places come as u32, and integers that the crate lacks in a wider one: compared as numbers.
    let index = dtype == DType::U32 && arg.dtype == "int64";
    if let Rule::Onnx(instead) = rule {
        let own = arg.carrier()?;
        let wanted = instead.filter(|_| own.is_float()).unwrap_or(own);
        if wanted != dtype && !index {
            return Err(fail(format!("{}: got {dtype}, expected {wanted} for {}", arg.label(), arg.dtype)));
        }
    }
    let mut golden = stored.numbers(arg)?;
    if matches!(rule, Rule::Exact) {
        // Equal to what the result's type makes of it.
        golden.iter_mut().for_each(|n| *n = rounded(dtype, *n));
    }
    let got: Vec<f64> = numbers(result)?.into_iter().map(|n| arg.wrapped(n)).collect();
    // A golden beyond the type's range is an infinity to it.
    let finite: Vec<bool> = golden.iter().map(|&n| rounded(dtype, n).is_finite()).collect();
    let left_out = finite.iter().filter(|f| !**f).count();
    if main && left_out == golden.len() && left_out > 0 {
        return Err(unsupported("no element of the main output is finite, so there is nothing to compare"));
    }
    let made = arg.offered().unwrap_or(dtype);
    let bounds =
        bounds(rule, [dtype, made], &golden, &finite).ok_or_else(|| fail(format!("manifest: errors for rows that {} lacks", arg.name)))?;
    let mut worst: Option<(f64, usize)> = None;
    let mut wrong = 0;
    for i in (0..golden.len()).filter(|&i| finite[i]) {
        let error = (got[i] - golden[i]).abs();
        // NaN is an error too, and the worst.
        if error.is_nan() || error > bounds[i] {
            wrong += 1;
            let excess = if error.is_nan() { f64::INFINITY } else { error / bounds[i] };
            if worst.is_none_or(|(most, _)| excess > most) {
                worst = Some((excess, i));
            }
        }
    }
    let Some((_, i)) = worst else { return Ok(left_out) };
    let place = place(i, &arg.shape);
    Err(fail(format!(
        "{}{place:?}: got {:e}, expected {:e}, error {:.3e}, bound {:.3e} ({wrong} of {} elements)",
        arg.label(),
        got[i],
        golden[i],
        (got[i] - golden[i]).abs(),
        bounds[i],
        golden.len()
    )))
}

/// The indices of an element.
fn place(mut element: usize, shape: &[usize]) -> Vec<usize> {
    let mut place = vec![0; shape.len()];
    for (index, &size) in place.iter_mut().zip(shape).rev() {
        *index = element % size;
        element /= size;
    }
    place
}

/// The bound of each element; None if the errors do not divide into rows.
fn bounds(rule: &Rule, [dtype, made]: [DType; 2], golden: &[f64], finite: &[bool]) -> Option<Vec<f64>> {
    let float = matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
    let all = match rule {
        Rule::Exact => vec![0.0; golden.len()],
        Rule::Onnx(_) if !float => vec![0.0; golden.len()],
        Rule::Onnx(_) => golden.iter().map(|&n| onnx(dtype, n).max(onnx(made, n))).collect(),
        Rule::Torch(errors) => {
            let rows = errors.as_ref().map_or(1, Vec::len);
            if rows == 0 || !golden.len().is_multiple_of(rows) {
                return None;
            }
            let size = golden.len() / rows;
            let mut all = Vec::with_capacity(golden.len());
            for row in 0..rows {
                let range = row * size..(row + 1) * size;
                let largest = range.filter(|&i| finite[i]).fold(0.0, |m: f64, i| m.max(golden[i].abs()));
                let unit = ulp(dtype, largest);
                // Without a figure, what PyTorch's kernels of the same family miss by elsewhere: 1 to 5 units of the largest output.
                let error = errors.as_ref().map_or(4.0 * unit, |errors| errors[row]);
                all.extend(std::iter::repeat_n((4.0 * error + unit).max(smallest_normal(dtype)), size));
            }
            all
        }
    };
    Some(all)
}

fn onnx(dtype: DType, golden: f64) -> f64 {
    let relative = if dtype == DType::BF16 { 2f64.powi(-6) } else { 1e-3 };
    let ulps = if dtype == DType::F16 { 2.0 } else { 0.0 };
    f64::max(1e-7 + relative * golden.abs(), ulps * ulp(dtype, golden))
}

/// Bits of the fraction, and the exponent of the smallest normal number.
fn format(dtype: DType) -> (i32, i32) {
    match dtype {
        DType::F16 => (10, -14),
        DType::BF16 => (7, -126),
        _ => (23, -126),
    }
}

fn smallest_normal(dtype: DType) -> f64 {
    2f64.powi(format(dtype).1)
}

/// The distance between neighbours of the type at a number.
fn ulp(dtype: DType, number: f64) -> f64 {
    let (digits, least) = format(dtype);
    let exponent = ((number.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    2f64.powi(exponent.max(least) - digits)
}

/// A number as the type holds it; itself for types that are not floats.
pub fn rounded(dtype: DType, number: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(number as f32),
        DType::F16 => <f16 as Element>::from_f64(number).to_f64(),
        DType::BF16 => <bf16 as Element>::from_f64(number).to_f64(),
        _ => number,
    }
}

/// All elements of a tensor; exact. Waits for the device.
pub fn numbers(tensor: &Tensor) -> Outcome<Vec<f64>> {
    fn widened<T: Into<f64>>(values: Vec<T>) -> Vec<f64> {
        values.into_iter().map(Into::into).collect()
    }
    Ok(match tensor.dtype() {
        DType::F32 => widened(tensor.to_vec::<f32>()?),
        DType::F16 => widened(tensor.to_vec::<f16>()?),
        DType::BF16 => widened(tensor.to_vec::<bf16>()?),
        DType::I32 => widened(tensor.to_vec::<i32>()?),
        DType::U32 => widened(tensor.to_vec::<u32>()?),
        DType::U8 => widened(tensor.to_vec::<u8>()?),
        DType::Bool => tensor.to_vec::<bool>()?.into_iter().map(|b| f64::from(u8::from(b))).collect(),
        other => return Err(unsupported(format!("dtype {other} is not offered"))),
    })
}
