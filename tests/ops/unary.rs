//! The unary family: every op, type, width and form; every 16-bit pattern; f32 of every size and round every seam of the kernels.

use gristmill::{DType, Device, Tensor, ops};
use half::{bf16, f16};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::bounds::{self, units};
use crate::support::devices::{Level, Subject};
use crate::support::input::{Form, Host, Random};
use crate::support::reference::{erf, erfc, sigmoid, tanh_gate};
use crate::support::runner::{Case, Expected, check, same_on_any_threads, sample, trial, trials};
use DType::{BF16, F16, F32, I32};

type Call = fn(&Tensor) -> gristmill::Result<Tensor>;
type CallInto = fn(&mut Tensor, &Tensor) -> gristmill::Result<()>;
type CallInPlace = fn(&mut Tensor) -> gristmill::Result<()>;

/// An op, its forms, and its exact value.
struct Function {
    name: &'static str,
    call: Call,
    into: CallInto,
    in_place: CallInPlace,
    exact: fn(f64) -> f64,
    /// Of the operand and the value; `None` asks for equality.
    bound: Option<fn(f64, f64) -> f64>,
}

/// A row of the table: the op's three forms, its exact value, its bound.
macro_rules! function {
    ($name:ident, $into:ident, $in_place:ident, $exact:expr, $bound:expr) => {
        Function { name: stringify!($name), call: ops::$name, into: ops::$into, in_place: ops::$in_place, exact: $exact, bound: $bound }
    };
}

/// Between these, which are exact in every type, the wrong way round in `clamp_crossed`.
const LOW: f32 = -0.5;
const HIGH: f32 = 1.25;

static FUNCTIONS: &[Function] = &[
    function!(neg, neg_into, neg_in_place, |x| -x, None),
    function!(abs, abs_into, abs_in_place, f64::abs, None),
    function!(exp, exp_into, exp_in_place, f64::exp, Some(|_, v| units(4.0, v))),
    function!(log, log_into, log_in_place, f64::ln, Some(|_, v| units(5.0, v))),
    function!(sqrt, sqrt_into, sqrt_in_place, f64::sqrt, Some(|_, v| units(5.0, v))),
    function!(rsqrt, rsqrt_into, rsqrt_in_place, |x| 1.0 / x.sqrt(), Some(|_, v| units(2.0, v))),
    function!(relu, relu_into, relu_in_place, |x| if x < 0.0 { 0.0 } else { x }, None),
    function!(gelu, gelu_into, gelu_in_place, |x| gated(x, erfc(-x / 2f64.sqrt()) / 2.0), Some(bounds::gelu)),
    function!(gelu_tanh, gelu_tanh_into, gelu_tanh_in_place, |x| gated(x, sigmoid(tanh_gate(x))), Some(bounds::gelu_tanh)),
    function!(silu, silu_into, silu_in_place, |x| gated(x, sigmoid(x)), Some(|_, v| units(10.0, v))),
    function!(sigmoid, sigmoid_into, sigmoid_in_place, sigmoid, Some(|_, v| units(8.0, v))),
    function!(tanh, tanh_into, tanh_in_place, f64::tanh, Some(|_, v| units(8.0, v))),
    function!(erf, erf_into, erf_in_place, erf, Some(bounds::erf)),
    function!(softplus, softplus_into, softplus_in_place, |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), Some(|_, v| units(10.0, v))),
    function!(hard_swish, hard_swish_into, hard_swish_in_place, |x| gated(x, (x + 3.0).clamp(0.0, 6.0) / 6.0), Some(|_, v| units(4.0, v))),
    Function {
        name: "clamp",
        call: |x| ops::clamp(x, LOW, HIGH),
        into: |out, x| ops::clamp_into(out, x, LOW, HIGH),
        in_place: |x| ops::clamp_in_place(x, LOW, HIGH),
        exact: |x| x.clamp(LOW.into(), HIGH.into()),
        bound: None,
    },
    Function {
        name: "clamp",
        call: |x| ops::clamp(x, HIGH, LOW),
        into: |out, x| ops::clamp_into(out, x, HIGH, LOW),
        in_place: |x| ops::clamp_in_place(x, HIGH, LOW),
        exact: |x| if x.is_nan() { x } else { LOW.into() },
        bound: None,
    },
    Function {
        name: "clamp",
        call: |x| ops::clamp(x, f32::NEG_INFINITY, HIGH),
        into: |out, x| ops::clamp_into(out, x, f32::NEG_INFINITY, HIGH),
        in_place: |x| ops::clamp_in_place(x, f32::NEG_INFINITY, HIGH),
        exact: |x| if x > HIGH.into() { HIGH.into() } else { x },
        bound: None,
    },
];

/// `x · share`, 0 of -inf.
fn gated(x: f64, share: f64) -> f64 {
    if share == 0.0 { 0.0 } else { x * share }
}

pub fn all() -> Vec<Trial> {
    let mut all = trials("unary", "large_grid", large_grid);
    all.extend(trials("unary", "from_f32", |subject, device, level| types(subject, device, level, F32)));
    all.extend(trials("unary", "from_f16", |subject, device, level| types(subject, device, level, F16)));
    all.extend(trials("unary", "from_bf16", |subject, device, level| types(subject, device, level, BF16)));
    all.extend(trials("unary", "patterns", patterns));
    all.extend(trials("unary", "sizes", sizes));
    all.extend(trials("unary", "seams", seams));
    all.extend(trials("unary", "shapes", shapes));
    all.extend(trials("unary", "widths", widths));
    all.extend(trials("unary", "whole", whole));
    all.extend(trials("unary", "signs", signs));
    all.extend(trials("unary", "random", random));
    all.push(trial("unary::threads", || {
        let x = Random::new(9).floats(&[3, 20_000]);
        same_on_any_threads(|_| FUNCTIONS.iter().map(|f| case(f, F16, x.clone())).collect())
    }));
    all
}

/// Floats, `_into` an output of any float type.
fn case(function: &'static Function, out: DType, x: Host) -> Case {
    let inputs = x.f64s();
    let values: Vec<f64> = inputs.iter().map(|&x| (function.exact)(x)).collect();
    let expected = match function.bound {
        None if out == x.dtype || out == F32 => Expected::equal(&x.dims, out, values),
        None => Expected::stored(&x.dims, out, values, vec![0.0; inputs.len()]),
        Some(bound) => {
            let bounds = inputs.iter().zip(&values).map(|(&x, &v)| bound(x, v)).collect();
            Expected::stored(&x.dims, out, values, bounds)
        }
    };
    let title = format!("{} {out} = {}{:?}", function.name, x.dtype, x.dims);
    let call = move |t: &[Tensor]| {
        if t[0].dtype() == out {
            return (function.call)(&t[0]);
        }
        let mut result = Tensor::zeros(t[0].device(), out, t[0].shape())?;
        (function.into)(&mut result, &t[0])?;
        Ok(result)
    };
    Case::new(title, vec![x], expected, call, move |out, t| (function.into)(out, &t[0])).in_place(move |out, _| (function.in_place)(out))
}

/// Every op from a float type to all of them, in sizes for both widths.
fn types(subject: &Subject, device: &Device, level: Level, from: DType) -> Result<(), String> {
    let mut random = Random::new(12);
    for function in FUNCTIONS.iter().step_by(if level == Level::Smoke { 4 } else { 1 }) {
        for out in [F32, F16, BF16] {
            for dims in [&[3, 40][..], &[5, 7]] {
                let case = case(function, out, random.floats(dims).to(from));
                check(function.name, &subject.name, device, &case, level == Level::Full)?;
            }
        }
    }
    Ok(())
}

/// All values of a 16-bit type, into it and into f32, where the bound is not covered by a rounding.
fn patterns(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let halves = Host::new(&[256, 256], &(0..=u16::MAX).map(f16::from_bits).collect::<Vec<_>>());
    let brains = Host::new(&[256, 256], &(0..=u16::MAX).map(bf16::from_bits).collect::<Vec<_>>());
    for function in FUNCTIONS.iter().step_by(if level == Level::Smoke { 5 } else { 1 }) {
        for x in [&halves, &brains] {
            for out in [F32, x.dtype] {
                check(function.name, &subject.name, device, &case(function, out, x.clone()), false)?;
            }
            nan_stays(subject, device, function, x)?;
        }
    }
    Ok(())
}

/// The comparator leaves NaN out; here each must be one, but for what `log` and the roots make of negative numbers.
fn nan_stays(subject: &Subject, device: &Device, function: &Function, x: &Host) -> Result<(), String> {
    let out = (function.call)(&x.place(device, Form::Dense)?).map_err(|e| e.to_string())?;
    let wanted = x.f64s().into_iter().map(|x| (function.exact)(x).is_nan());
    match wanted.zip(Host::of(&out)?.f64s()).position(|(wanted, got)| wanted != got.is_nan()) {
        None => Ok(()),
        Some(at) => Err(format!(
            "{} of {} on {}: NaN where there is none, or none where there is: element {at}",
            function.name, x.dtype, subject.name
        )),
    }
}

/// f32 of every exponent and sign.
fn sizes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(17);
    let count = if level == Level::Smoke { 1 << 12 } else { 1 << 15 };
    for function in FUNCTIONS {
        let values: Vec<f32> = (0..count)
            .map(|i| match i % 3 {
                0 => f32::from_bits(random.next() as u32),
                // Where most functions bend.
                1 => (random.unit() * 24.0 - 12.0) as f32,
                _ => (random.unit() * 240.0 - 120.0) as f32,
            })
            .collect();
        check(function.name, &subject.name, device, &case(function, F32, Host::new(&[count], &values)), false)?;
        nan_stays(subject, device, function, &Host::new(&[count], &values))?;
    }
    Ok(())
}

/// The neighbours of every place where a kernel changes its way, and the edges of the types.
fn seams(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let mut values = Vec::new();
    let seams = [
        0.0f32,
        0.5,
        0.625,
        std::f32::consts::FRAC_1_SQRT_2,
        1.0,
        1.25,
        std::f32::consts::SQRT_2,
        2.0,
        3.0,
        5.6,
        8.0,
        9.0,
        10.0,
        14.3,
        16.0,
        18.0,
        20.0,
        64.0,
    ];
    let edges = [87.336_54f32, 87.336_55, 88.722_83, 88.722_84, 89.0, 103.3, 104.0, 512.0, 1e10, 1e30, 65_504.0, 11.089, f32::MAX];
    let subnormals = [f32::MIN_POSITIVE, 1e-39, 1e-44, f32::INFINITY];
    for seam in seams.into_iter().chain(edges).chain(subnormals) {
        for bits in seam.to_bits().saturating_sub(4)..=seam.to_bits() + 4 {
            // Past infinity lies NaN.
            values.extend([f32::from_bits(bits), -f32::from_bits(bits)]);
        }
    }
    // A length of eights, and the same values for the other width.
    let padding = values.len().next_multiple_of(8);
    values.resize(padding, 1.5);
    for function in FUNCTIONS {
        for out in [F32, F16, BF16] {
            check(function.name, &subject.name, device, &case(function, out, Host::new(&[values.len()], &values)), true)?;
        }
        let odd = &values[..values.len() - 3];
        check(function.name, &subject.name, device, &case(function, F32, Host::new(&[odd.len()], odd)), false)?;
    }
    Ok(())
}

fn shapes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(13);
    for dims in [&[63][..], &[64], &[65], &[513], &[2, 3, 129], &[1, 2, 1, 3, 1, 4], &[2, 1, 3, 2, 5, 8], &[], &[1], &[0, 3]] {
        for (function, dtype) in FUNCTIONS.iter().zip([F32, F16, BF16].into_iter().cycle()) {
            let case = case(function, dtype, random.floats(dims).to(dtype));
            check(function.name, &subject.name, device, &case, level > Level::Smoke)?;
        }
    }
    Ok(())
}

/// Windows round what the vector width needs: that keep eights, and that break them by the offset, the length or the stride alone; and a
/// row that repeats.
fn widths(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let mut random = Random::new(14);
    let function = &FUNCTIONS[2];
    for dtype in [F32, F16, BF16] {
        for (start, len, row) in [(0, 16, 32), (8, 16, 32), (1, 16, 32), (4, 16, 32), (8, 15, 32), (8, 17, 32), (8, 16, 33), (8, 16, 36)] {
            let x = random.floats(&[5, row]).to(dtype);
            let values: Vec<f64> = x.f64s().chunks(row).flat_map(|line| line[start..start + len].to_vec()).collect();
            let window = Host::new(&[5, len], &values.iter().map(|&v| v as f32).collect::<Vec<_>>()).to(dtype);
            let view = move |t: &Tensor| t.narrow(1, start..start + len);
            let case = Case {
                name: format!("{dtype} columns {start}..{} of {row}", start + len),
                inputs: vec![x],
                call: Box::new(move |t| (function.call)(&view(&t[0])?)),
                call_into: Box::new(move |out, t| (function.into)(out, &view(&t[0])?)),
                call_in_place: None,
                expected: case(function, dtype, window).expected,
            };
            check(function.name, &subject.name, device, &case, true)?;
        }
        for len in [16usize, 15] {
            let x = random.floats(&[3, 1]).to(dtype);
            let repeated: Vec<f32> = x.f64s().iter().flat_map(|&v| vec![v as f32; len]).collect();
            let case = Case {
                name: format!("{dtype} a column repeated {len} times"),
                inputs: vec![x],
                call: Box::new(move |t| (function.call)(&t[0].broadcast_to(&[3, len])?)),
                call_into: Box::new(move |out, t| (function.into)(out, &t[0].broadcast_to(&[3, len])?)),
                call_in_place: None,
                expected: case(function, dtype, Host::new(&[3, len], &repeated).to(dtype)).expected,
            };
            check(function.name, &subject.name, device, &case, true)?;
        }
    }
    Ok(())
}

/// i32, its edges too: exact, wrapping.
fn whole(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(15);
    for dims in [&[3usize, 24][..], &[7, 5]] {
        let edges = [i32::MIN, i32::MAX, i32::MIN + 1, 0, -1, 1];
        let count = dims.iter().product::<usize>();
        let x: Vec<i32> = (0..count).map(|i| edges.get(i).copied().unwrap_or(random.next() as i32 >> random.below(31))).collect();
        for (name, exact) in [("neg", i32::wrapping_neg as fn(i32) -> i32), ("abs", i32::wrapping_abs), ("relu", |x| x.max(0))] {
            let function = FUNCTIONS.iter().find(|f| f.name == name).expect("it is listed");
            let values = x.iter().map(|&x| exact(x).into()).collect();
            let case = Case::new(
                format!("{name} i32{dims:?}"),
                vec![Host::new(dims, &x)],
                Expected::equal(dims, I32, values),
                |t: &[Tensor]| (function.call)(&t[0]),
                |out, t| (function.into)(out, &t[0]),
            )
            .in_place(|out, _| (function.in_place)(out));
            check(name, &subject.name, device, &case, level > Level::Smoke)?;
        }
    }
    Ok(())
}

/// Signs of zeros, which the comparator does not tell apart, bit for bit where they are promised.
fn signs(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let x = Tensor::from_slice(device, &[0.0f32, -0.0, 1e-45, -1e-45], &[4]).map_err(|e| e.to_string())?;
    let wanted: [(Call, [f32; 4]); 5] = [
        (ops::neg, [-0.0, 0.0, -1e-45, 1e-45]),
        (ops::abs, [0.0, 0.0, 1e-45, 1e-45]),
        (ops::relu, [0.0, 0.0, 1e-45, 0.0]),
        (|x| ops::clamp(x, 0.0, 1.0), [0.0, 0.0, 1e-45, 0.0]),
        (|x| ops::clamp(x, -1.0, -0.0), [-0.0, -0.0, -0.0, -1e-45]),
    ];
    for (at, (call, wanted)) in wanted.into_iter().enumerate() {
        let got = call(&x).and_then(|t| t.to_vec::<f32>()).map_err(|e| e.to_string())?;
        if got.iter().zip(&wanted).any(|(a, b)| a.to_bits() != b.to_bits()) {
            return Err(format!("row {at} on {}: {got:?}, not {wanted:?}", subject.name));
        }
    }
    Ok(())
}

/// More workgroups than a dimension of the grid holds.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    // An odd count: one invocation an element.
    let x = Random::new(16).floats(&[2051, 2051]);
    check("abs", &subject.name, device, &case(&FUNCTIONS[1], F32, x), false)
}

fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let shapes = (prop::collection::vec(0usize..9, 0..6), any::<u64>());
    sample(level, &shapes, |(mut dims, seed)| {
        let mut random = Random::new(seed);
        // Every other time a last axis of eights.
        if let (Some(last), 0) = (dims.last_mut(), random.below(2)) {
            *last *= 8;
        }
        let function = &FUNCTIONS[random.below(FUNCTIONS.len())];
        let mut dtype = || [F32, F16, BF16][random.below(3)];
        let (from, out) = (dtype(), dtype());
        check(function.name, &subject.name, device, &case(function, out, random.floats(&dims).to(from)), true)
    })
}
