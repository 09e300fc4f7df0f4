//! The binary family: every op, type, width and form; correctly rounded or next to it, exact on whole numbers.

use gristmill::{DType, Device, Tensor, ops};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::bounds;
use crate::support::devices::{Level, Subject};
use crate::support::input::{Host, Random};
use crate::support::reference::broadcast;
use crate::support::runner::{Case, Expected, check, same_on_any_threads, sample, trial, trials};
use DType::{BF16, F16, F32, I32, U8, U32};

type Call = fn(&Tensor, &Tensor) -> gristmill::Result<Tensor>;
type CallInto = fn(&mut Tensor, &Tensor, &Tensor) -> gristmill::Result<()>;
type CallInPlace = fn(&mut Tensor, &Tensor) -> gristmill::Result<()>;

/// An op, its forms, and its exact value.
struct Function {
    name: &'static str,
    call: Call,
    into: CallInto,
    in_place: CallInPlace,
    exact: fn(f64, f64) -> f64,
    /// Of the value and the operands.
    bound: fn(f64, f64, f64) -> f64,
}

static FUNCTIONS: &[Function] = &[
    Function {
        name: "add",
        call: ops::add,
        into: ops::add_into,
        in_place: ops::add_in_place,
        exact: |a, b| a + b,
        bound: |v, _, _| bounds::rounding(v),
    },
    Function {
        name: "sub",
        call: ops::sub,
        into: ops::sub_into,
        in_place: ops::sub_in_place,
        exact: |a, b| a - b,
        bound: |v, _, _| bounds::rounding(v),
    },
    Function {
        name: "mul",
        call: ops::mul,
        into: ops::mul_into,
        in_place: ops::mul_in_place,
        exact: |a, b| a * b,
        bound: |v, _, _| bounds::rounding(v),
    },
    Function {
        name: "div",
        call: ops::div,
        into: ops::div_into,
        in_place: ops::div_in_place,
        exact: |a, b| a / b,
        bound: |v, _, _| bounds::division(v),
    },
    Function { name: "pow", call: ops::pow, into: ops::pow_into, in_place: ops::pow_in_place, exact: f64::powf, bound: bounds::power },
    Function { name: "min", call: ops::min, into: ops::min_into, in_place: ops::min_in_place, exact: f64::min, bound: |_, _, _| 0.0 },
    Function { name: "max", call: ops::max, into: ops::max_into, in_place: ops::max_in_place, exact: f64::max, bound: |_, _, _| 0.0 },
];

pub fn all() -> Vec<Trial> {
    let mut all = trials("binary", "large_grid", large_grid);
    all.extend(trials("binary", "types", types));
    all.extend(trials("binary", "shapes", shapes));
    all.extend(trials("binary", "widths", widths));
    all.extend(trials("binary", "whole", whole));
    all.extend(trials("binary", "extremes", extremes));
    all.extend(trials("binary", "random", random));
    all.push(trial("binary::threads", || {
        let mut random = Random::new(9);
        let (lhs, rhs) = (random.floats(&[3, 20_000]).to(F16), random.floats(&[20_000]));
        same_on_any_threads(|_| FUNCTIONS.iter().map(|f| case(f, F32, lhs.clone(), rhs.clone())).collect())
    }));
    all
}

/// What `promote` makes of two float types.
fn joined(lhs: DType, rhs: DType) -> DType {
    if lhs == rhs { lhs } else { F32 }
}

/// Floats, `_into` an output of the joined type.
fn case(function: &'static Function, out: DType, lhs: Host, rhs: Host) -> Case {
    let dims = gristmill::Layout::broadcast_dims(&[&lhs.dims, &rhs.dims]).expect("shapes that broadcast");
    let (a, b) = (broadcast(&lhs.f64s(), &lhs.dims, &dims), broadcast(&rhs.f64s(), &rhs.dims, &dims));
    let values: Vec<f64> = a.iter().zip(&b).map(|(&a, &b)| (function.exact)(a, b)).collect();
    let bounds = values.iter().zip(a.iter().zip(&b)).map(|(&v, (&a, &b))| (function.bound)(v, a, b)).collect();
    let title = format!("{} {out} = {}{:?} {}{:?}", function.name, lhs.dtype, lhs.dims, rhs.dtype, rhs.dims);
    let fresh = joined(lhs.dtype, rhs.dtype);
    let call = move |t: &[Tensor]| {
        if out == fresh {
            return (function.call)(&t[0], &t[1]);
        }
        // Types that only `_into` gives.
        let shape = gristmill::Layout::broadcast_dims(&[t[0].shape(), t[1].shape()]).expect("shapes that broadcast");
        let mut result = Tensor::zeros(t[0].device(), out, &shape)?;
        (function.into)(&mut result, &t[0], &t[1])?;
        Ok(result)
    };
    let into = move |result: &mut Tensor, t: &[Tensor]| (function.into)(result, &t[0], &t[1]);
    Case::new(title, vec![lhs, rhs], Expected::stored(&dims, out, values, bounds), call, into)
        .in_place(move |out, t| (function.in_place)(out, &t[0]))
}

/// Operands on which the op is defined and its bound holds.
fn operands(function: &Function, random: &mut Random, left: &[usize], right: &[usize]) -> (Host, Host) {
    let away = |host: Host| {
        let values: Vec<f32> = host.f64s().iter().map(|&v| v as f32 + if v < 0.0 { -0.25 } else { 0.25 }).collect();
        Host::new(&host.dims, &values)
    };
    let (lhs, rhs) = (random.floats(left), random.floats(right));
    match function.name {
        "div" => (lhs, away(rhs)),
        "pow" => {
            let base: Vec<f32> = away(lhs).f64s().iter().map(|&v| (v.abs() as f32).min(8.0)).collect();
            let exponent: Vec<f32> = rhs.f64s().iter().map(|&v| (v * 3.0).clamp(-9.0, 9.0) as f32).collect();
            (Host::new(left, &base), Host::new(right, &exponent))
        }
        _ => (lhs, rhs),
    }
}

/// Every op in every combination of float types, in sizes for both widths.
fn types(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(12);
    let triples =
        [F32, F16, BF16].into_iter().flat_map(|a| [F32, F16, BF16].map(|b| (a, b))).filter(|(a, b)| *a == *b || [*a, *b].contains(&F32));
    for (lhs_dtype, rhs_dtype) in triples {
        for out in [F32, F16, BF16] {
            for function in FUNCTIONS.iter().take(if level == Level::Smoke { 1 } else { 7 }) {
                for (left, right) in [(&[3, 40][..], &[40][..]), (&[5, 7], &[5, 1])] {
                    let (lhs, rhs) = operands(function, &mut random, left, right);
                    let case = case(function, out, lhs.to(lhs_dtype), rhs.to(rhs_dtype));
                    check(function.name, &subject.name, device, &case, level == Level::Full)?;
                }
            }
        }
    }
    Ok(())
}

/// Shapes that broadcast, all forms.
fn shapes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(13);
    let pairs: &[(&[usize], &[usize])] = &[
        (&[63], &[63]),
        (&[64], &[1]),
        (&[513], &[]),
        (&[2, 3, 129], &[3, 1]),
        (&[5, 1, 7], &[1, 4, 7]),
        (&[1, 2, 1, 3, 1, 4], &[2, 1, 3, 1, 5, 1]),
        (&[], &[]),
        (&[0, 3], &[3]),
        (&[2, 0], &[2, 1]),
    ];
    for (left, right) in pairs {
        for (function, dtype) in FUNCTIONS.iter().zip([F32, F16, BF16].into_iter().cycle()) {
            let (lhs, rhs) = operands(function, &mut random, left, right);
            check(function.name, &subject.name, device, &case(function, dtype, lhs.to(dtype), rhs.to(dtype)), level > Level::Smoke)?;
        }
    }
    Ok(())
}

/// Sizes and strides round those that the vector width needs: every one of them both ways, in views that keep eights and in views that
/// break them by the offset, the stride or the length alone.
fn widths(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let mut random = Random::new(14);
    let add = &FUNCTIONS[0];
    for dtype in [F32, F16, BF16] {
        for (start, len, row) in [(0, 16, 32), (8, 16, 32), (1, 16, 32), (4, 16, 32), (8, 15, 32), (8, 17, 32), (8, 16, 33), (8, 16, 36)] {
            let (lhs, rhs) = (random.floats(&[5, row]).to(dtype), random.floats(&[5, row]).to(dtype));
            let window = |host: &Host| {
                let values: Vec<f64> = host.f64s().chunks(row).flat_map(|line| line[start..start + len].to_vec()).collect();
                Host::new(&[5, len], &values.iter().map(|&v| v as f32).collect::<Vec<_>>()).to(dtype)
            };
            let expected = case(add, dtype, window(&lhs), window(&rhs));
            let want = (expected.expected)(device)?;
            let view = move |t: &Tensor| t.narrow(1, start..start + len);
            let Expected { dims, values, bounds, .. } = want;
            let case = Case::new(
                format!("{dtype} columns {start}..{} of {row}", start + len),
                vec![lhs, rhs],
                Expected { dims, dtype, values, bounds },
                move |t: &[Tensor]| ops::add(&view(&t[0])?, &view(&t[1])?),
                move |out, t| ops::add_into(out, &view(&t[0])?, &view(&t[1])?),
            );
            check("add", &subject.name, device, &case, true)?;
        }
    }
    Ok(())
}

/// Whole numbers: exact in floats (N1), wrapping in integers.
fn whole(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(15);
    for dims in [&[3usize, 24][..], &[7, 5]] {
        for dtype in [F32, F16, BF16] {
            // Odd plus even is never 0; sums stay below 256, products too.
            let odd: Vec<f32> = random.integers(dims, 7).f64s().iter().map(|&v| v as f32 * 2.0 + 1.0).collect();
            let even: Vec<f32> = random.integers(dims, 7).f64s().iter().map(|&v| v as f32 * 2.0).collect();
            let (lhs, rhs) = (Host::new(dims, &odd).to(dtype), Host::new(dims, &even).to(dtype));
            for function in &FUNCTIONS[..3] {
                let mut case = case(function, dtype, lhs.clone(), rhs.clone());
                let values = lhs.f64s().iter().zip(rhs.f64s()).map(|(&a, b)| (function.exact)(a, b)).collect();
                let Expected { dims, values, bounds, .. } = Expected::exact(dims, values);
                case.expected =
                    Box::new(move |_| Ok(Expected { dims: dims.clone(), dtype, values: values.clone(), bounds: bounds.clone() }));
                check(function.name, &subject.name, device, &case, level > Level::Smoke)?;
            }
        }
        for dtype in [I32, U32, U8] {
            for function in FUNCTIONS.iter().take(if level == Level::Smoke { 1 } else { 7 }) {
                check(function.name, &subject.name, device, &integers(function, dtype, dims, &mut random), level > Level::Smoke)?;
            }
        }
    }
    Ok(())
}

/// Integers of every size and sign, and the edges of their range; the rules in i128.
fn integers(function: &'static Function, dtype: DType, dims: &[usize], random: &mut Random) -> Case {
    let (least, most) = match dtype {
        I32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
        U32 => (0, i128::from(u32::MAX)),
        _ => (0, 255),
    };
    let edges = [0, 1, 2, 3, -1, least, most, most - 1, 5, -7];
    let mut draw = || -> Vec<i128> {
        let count = dims.iter().product();
        let some = |random: &mut Random| {
            if random.below(2) == 0 { edges[random.below(10)] } else { i128::from(random.next() as i64 >> random.below(63)) }
        };
        (0..count).map(|_| some(random).clamp(least, most)).collect()
    };
    let (lhs, rhs) = (draw(), draw());
    let wrap = |v: i128| (v - least).rem_euclid(most - least + 1) + least;
    let exact = |a: i128, b: i128| match function.name {
        "add" => wrap(a + b),
        "sub" => wrap(a - b),
        "mul" => wrap(a * b),
        "div" if b == 0 => a,
        "div" => wrap(a / b),
        "min" => a.min(b),
        "max" => a.max(b),
        _ if b < 0 => match a {
            1 => 1,
            -1 => 1 - 2 * (b & 1),
            _ => 0,
        },
        // By squaring, wrapped at each step.
        _ => (0..32).rev().fold(1, |power, bit| wrap(wrap(power * power) * if b >> bit & 1 == 1 { a } else { 1 })),
    };
    let values = lhs.iter().zip(&rhs).map(|(&a, &b)| exact(a, b) as f64).collect();
    let host = |values: &[i128]| match dtype {
        I32 => Host::new(dims, &values.iter().map(|&v| v as i32).collect::<Vec<_>>()),
        U32 => Host::new(dims, &values.iter().map(|&v| v as u32).collect::<Vec<_>>()),
        _ => Host::new(dims, &values.iter().map(|&v| v as u8).collect::<Vec<_>>()),
    };
    Case::new(
        format!("{} {dtype}{dims:?}", function.name),
        vec![host(&lhs), host(&rhs)],
        Expected::equal(dims, dtype, values),
        |t: &[Tensor]| (function.call)(&t[0], &t[1]),
        |out, t| (function.into)(out, &t[0], &t[1]),
    )
    .in_place(|out, t| (function.in_place)(out, &t[0]))
}

/// Infinities, signed zeros, overflow into 16 bits, powers at their edges.
fn extremes(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let inf = f32::INFINITY;
    let (low, high) =
        (Host::new(&[8], &[-inf, inf, -0.0, 0.0, 1.0, -inf, 3e38, -3e38f32]), Host::new(&[8], &[1.0, 2.0, 0.0, -0.0, inf, inf, -inf, inf]));
    for name in ["min", "max"] {
        let function = FUNCTIONS.iter().find(|f| f.name == name).expect("it is listed");
        check(name, &subject.name, device, &case(function, F32, low.clone(), high.clone()), true)?;
    }
    // Past the range of f16, on either side of the tie.
    let big = Host::new(&[8], &[65_504.0f32, 65_504.0, 65_504.0, -65_504.0, 40_000.0, 65_504.0, -65_504.0, 1.0]);
    let more = Host::new(&[8], &[15.0f32, 17.0, -65_504.0, -20.0, 40_000.0, 65_504.0, 3.0, 65_503.0]);
    check("add", &subject.name, device, &case(&FUNCTIONS[0], F16, big, more), true)?;
    let base = Host::new(
        &[20],
        &[-0.0f32, -0.0, -0.0, -0.0, 0.0, 0.0, 0.0, -2.0, -2.0, -0.5, 1.0, -1.0, 2.0, 2.0, 2.0, 10.0, -10.0, 7.0, 0.5, 3.0],
    );
    let exponent = Host::new(
        &[20],
        &[-1.0f32, 3.0, -2.0, 0.5, 0.0, 2.0, -1.0, 3.0, -2.0, -3.0, 1e30, 16_777_216.0, 127.0, 200.0, -300.0, 40.0, 41.0, 0.0, 200.0, -0.0],
    );
    check("pow", &subject.name, device, &case(&FUNCTIONS[4], F32, base, exponent), true)?;

    // What IEEE 754 says exactly: anything to the power 0, the sign of large odd powers, and what has no real value.
    let powers = || -> gristmill::Result<_> {
        let floats =
            [(5.5f32, 0.0f32), (-3.0, 0.0), (0.0, -0.0), (1e-30, 0.0), (-1.0, 8_388_609.0), (-1.0, 16_777_215.0), (-1.0, 16_777_216.0)];
        let unreal = [(-2.0f32, 0.5f32), (-0.25, 1.5), (-1e20, -0.1)];
        let [x, y] = [|p: &(f32, f32)| p.0, |p: &(f32, f32)| p.1]
            .map(|part| floats.iter().chain(&unreal).map(part).collect::<Vec<f32>>())
            .map(|side| Tensor::from_slice(device, &side, &[side.len()]));
        let whole = [(2u32, 1u32 << 31), (2, (1 << 31) + 1), (6, (1 << 31) + 2), (3, 1 << 31), (1, u32::MAX), (7, u32::MAX)];
        let [a, b] = [|p: &(u32, u32)| p.0, |p: &(u32, u32)| p.1]
            .map(|part| whole.iter().map(part).collect::<Vec<u32>>())
            .map(|side| Tensor::from_slice(device, &side, &[side.len()]));
        let expected: Vec<u32> = whole.iter().map(|&(a, b)| a.wrapping_pow(b)).collect();
        Ok((ops::pow(&x?, &y?)?.to_vec::<f32>()?, ops::pow(&a?, &b?)?.to_vec::<u32>()?, expected))
    };
    let (floats, whole, expected) = powers().map_err(|e| e.to_string())?;
    if floats[..7] != [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 1.0] || !floats[7..].iter().all(|v| v.is_nan()) || whole != expected {
        return Err(format!("powers on {}: {floats:?}, {whole:?} not {expected:?}", subject.name));
    }
    Ok(())
}

/// More workgroups than a dimension of the grid holds.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    let mut random = Random::new(16);
    // An odd width: one invocation an element.
    let (lhs, rhs) = (random.floats(&[2051, 2051]), random.floats(&[2051]));
    check("add", &subject.name, device, &case(&FUNCTIONS[0], F32, lhs, rhs), false)
}

fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let shapes = (prop::collection::vec(0usize..9, 0..6), any::<u64>());
    sample(level, &shapes, |(mut dims, seed)| {
        let mut random = Random::new(seed);
        // Every other time a last axis of eights.
        if let (Some(last), 0) = (dims.last_mut(), random.below(2)) {
            *last *= 8;
        }
        let mut some = |dims: &[usize]| -> Vec<usize> { dims.iter().map(|&d| if random.below(3) == 0 { 1 } else { d }).collect() };
        let (left, right) = (some(&dims), some(&dims));
        let function = &FUNCTIONS[random.below(7)];
        let (narrow, out) = ([F16, BF16][random.below(2)], [F32, F16, BF16][random.below(3)]);
        let mut dtype = || if random.below(2) == 0 { F32 } else { narrow };
        let (a, b) = (dtype(), dtype());
        let (lhs, rhs) = operands(function, &mut random, &left, &right);
        check(function.name, &subject.name, device, &case(function, out, lhs.to(a), rhs.to(b)), true)
    })
}
