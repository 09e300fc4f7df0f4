//! Reductions: every function, type, tune, width and set of axes; N1, N2 for sums, N4, N5, N6, N8, N9.

use gristmill::{DType, Device, Error, Tensor, ops};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::bounds;
use crate::support::devices::{Level, Subject};
use crate::support::input::{Host, Random};
use crate::support::runner::{Case, Expected, check, pinned, same_on_any_threads, sample, trial, trials};
use DType::{BF16, Bool, F16, F32, I32, U8, U32};

type Call = fn(&Tensor, &[isize], bool) -> gristmill::Result<Tensor>;
type CallInto = fn(&mut Tensor, &Tensor, &[isize], bool) -> gristmill::Result<()>;

/// An op, its forms, and its value of some elements.
struct Function {
    name: &'static str,
    call: Call,
    into: CallInto,
    exact: fn(&[f64]) -> f64,
    /// Of the value and the elements.
    bound: fn(f64, &[f64]) -> f64,
}

fn size(x: &[f64]) -> f64 {
    x.iter().map(|v| v.abs()).sum()
}

fn none(_: f64, _: &[f64]) -> f64 {
    0.0
}

/// Of one axis, in the shape of the others.
fn along(axes: &[isize]) -> isize {
    axes.first().copied().unwrap_or(0)
}

/// The place of the first that no other beats.
fn first(x: &[f64], beats: fn(f64, f64) -> bool) -> f64 {
    (0..x.len()).fold(0, |best, i| if beats(x[i], x[best]) { i } else { best }) as f64
}

static FUNCTIONS: &[Function] = &[
    Function { name: "sum", call: ops::sum, into: ops::sum_into, exact: |x| x.iter().sum(), bound: |_, x| bounds::sums(x.len(), size(x)) },
    Function {
        name: "mean",
        call: ops::mean,
        into: ops::mean_into,
        exact: |x| x.iter().sum::<f64>() / x.len() as f64,
        bound: |v, x| bounds::mean(v, x.len(), size(x)),
    },
    Function {
        name: "amax",
        call: ops::amax,
        into: ops::amax_into,
        exact: |x| x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        bound: none,
    },
    Function {
        name: "amin",
        call: ops::amin,
        into: ops::amin_into,
        exact: |x| x.iter().copied().fold(f64::INFINITY, f64::min),
        bound: none,
    },
    Function {
        name: "argmax",
        call: |x, axes, keep| ops::argmax(x, along(axes), keep),
        into: |out, x, axes, keep| ops::argmax_into(out, x, along(axes), keep),
        exact: |x| first(x, |a, b| a > b),
        bound: none,
    },
    Function {
        name: "argmin",
        call: |x, axes, keep| ops::argmin(x, along(axes), keep),
        into: |out, x, axes, keep| ops::argmin_into(out, x, along(axes), keep),
        exact: |x| first(x, |a, b| a < b),
        bound: none,
    },
];

pub fn all() -> Vec<Trial> {
    let mut all = trials("reduce", "large_grid", large_grid);
    all.extend(trials("reduce", "axes", axes));
    all.extend(trials("reduce", "lengths", lengths));
    all.extend(trials("reduce", "types", types));
    all.extend(trials("reduce", "whole", whole));
    all.extend(trials("reduce", "extremes", extremes));
    all.extend(trials("reduce", "alone", alone));
    all.extend(trials("reduce", "random", random));
    all.push(trial("reduce::threads", || {
        let mut random = Random::new(9);
        let x = random.floats(&[3, 40_000]);
        let narrow = random.floats(&[7, 300, 5]).to(F16);
        same_on_any_threads(|_| {
            let long = FUNCTIONS.iter().map(|f| case(f, None, x.clone(), &[1], false));
            long.chain(FUNCTIONS.iter().map(|f| case(f, None, narrow.clone(), &[1], true))).collect()
        })
    }));
    all
}

/// The elements of each output, in the order of outputs; and the shape with the reduced axes as 1.
fn groups(x: &Host, axes: &[usize]) -> (Vec<Vec<f64>>, Vec<usize>) {
    let kept: Vec<usize> = x.dims.iter().enumerate().map(|(axis, &dim)| if axes.contains(&axis) { 1 } else { dim }).collect();
    let mut groups = vec![Vec::new(); kept.iter().product()];
    for (element, value) in x.f64s().into_iter().enumerate() {
        let (mut rest, mut at, mut stride) = (element, 0, 1);
        for axis in (0..x.dims.len()).rev() {
            let coordinate = rest % x.dims[axis];
            rest /= x.dims[axis];
            at += if axes.contains(&axis) { 0 } else { coordinate * stride };
            stride *= kept[axis];
        }
        groups[at].push(value);
    }
    (groups, kept)
}

/// `out` is a type that only `_into` gives.
fn case(function: &'static Function, out: Option<DType>, x: Host, axes: &[usize], keep: bool) -> Case {
    let (groups, kept) = groups(&x, axes);
    let dims: Vec<usize> =
        if keep { kept } else { (0..x.dims.len()).filter(|axis| !axes.contains(axis)).map(|axis| x.dims[axis]).collect() };
    let values: Vec<f64> = groups.iter().map(|group| (function.exact)(group)).collect();
    let errors: Vec<f64> = groups.iter().zip(&values).map(|(group, &value)| (function.bound)(value, group)).collect();
    let fresh = match (function.name, x.dtype) {
        ("argmax" | "argmin", _) | ("sum", U8 | Bool) => U32,
        (_, dtype) => dtype,
    };
    let dtype = out.unwrap_or(fresh);
    let expected = if dtype.is_float() { Expected::stored(&dims, dtype, values, errors) } else { Expected::equal(&dims, dtype, values) };
    let rank = x.dims.len() as isize;
    // From the end, every other one.
    let axes: Vec<isize> = axes.iter().enumerate().map(|(i, &axis)| axis as isize - if i % 2 == 0 { 0 } else { rank }).collect();
    let title = format!("{} {dtype} = {}{:?} axes {axes:?}", function.name, x.dtype, x.dims);
    let axes_into = axes.clone();
    let call = move |t: &[Tensor]| {
        let Some(out) = out else { return (function.call)(&t[0], &axes, keep) };
        let mut result = Tensor::zeros(t[0].device(), out, &dims)?;
        (function.into)(&mut result, &t[0], &axes, keep)?;
        Ok(result)
    };
    Case::new(title, vec![x], expected, call, move |out, t| (function.into)(out, &t[0], &axes_into, keep))
}

/// Every set of the axes of a tensor with four, through every tune.
fn axes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(51);
    for (tune, handle) in pinned(device, "reduce", level) {
        for set in 0..16usize {
            let chosen: Vec<usize> = (0..4).filter(|axis| set >> axis & 1 == 1).collect();
            for (function, dims) in FUNCTIONS.iter().take(4).flat_map(|f| [(f, [3, 4, 5, 8]), (f, [2, 3, 3, 7])]) {
                let x = random.floats(&dims);
                check(function.name, &subject.name, &handle, &case(function, None, x, &chosen, set % 3 == 0), level == Level::Full)
                    .map_err(|e| format!("{tune} {e}"))?;
            }
        }
    }
    for (tune, handle) in pinned(device, "reduce_arg", level) {
        for axis in 0..4 {
            for (function, dims) in FUNCTIONS[4..].iter().flat_map(|f| [(f, [3, 4, 5, 8]), (f, [2, 3, 3, 7])]) {
                // Few values, so that there are equals.
                let x = random.integers(&dims, 3);
                check(function.name, &subject.name, &handle, &case(function, None, x, &[axis], axis % 2 == 0), level > Level::Smoke)
                    .map_err(|e| format!("{tune} {e}"))?;
            }
        }
    }
    Ok(())
}

/// Sizes round the lanes, the eights, and the parts of a long axis; along the last axis and along the first.
fn lengths(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(52);
    let lengths = [1, 7, 8, 9, 31, 32, 33, 255, 256, 257, 511, 512, 513, 520, 1024, 2047, 2048, 2049, 2056];
    // Of 256 lanes: one part, two, and parts of parts.
    let long = [8192, 16_384, 16_385, 16_392];
    for kernel in ["reduce", "reduce_arg"] {
        for (tune, handle) in pinned(device, kernel, level) {
            let long = long.iter().take(if level == Level::Smoke || tune.ends_with("lane") { 0 } else { 4 });
            for (i, &len) in lengths.iter().chain(long).enumerate() {
                let of_kernel = if kernel == "reduce" { &FUNCTIONS[..4] } else { &FUNCTIONS[4..] };
                let function = &of_kernel[i % of_kernel.len()];
                for (dims, axis) in [([2, len], 1), ([len, 3], 0)] {
                    let x = if kernel == "reduce" { random.floats(&dims) } else { random.integers(&dims, 1 << 20) };
                    check(function.name, &subject.name, &handle, &case(function, None, x, &[axis], false), false)
                        .map_err(|e| format!("{tune} {e}"))?;
                }
            }
            // Parts of parts.
            if level > Level::Smoke {
                let function = if kernel == "reduce" { &FUNCTIONS[0] } else { &FUNCTIONS[4] };
                let x = random.integers(&[2, 150_001], 1 << 20);
                check(function.name, &subject.name, &handle, &case(function, None, x, &[1], false), false)
                    .map_err(|e| format!("{tune} {e}"))?;
            }
        }
    }
    Ok(())
}

/// Every type into every type that it may go to; 16-bit outputs through every tune.
fn types(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(53);
    for (tune, handle) in pinned(device, "reduce", level) {
        for (dtype, dims, axes) in
            [(F16, &[5, 72][..], &[1][..]), (BF16, &[300], &[0]), (F16, &[3, 5, 9], &[0, 2]), (BF16, &[66, 2, 8], &[0])]
        {
            let x = random.floats(dims).to(dtype);
            check("sum", &subject.name, &handle, &case(&FUNCTIONS[0], None, x, axes, false), true).map_err(|e| format!("{tune} {e}"))?;
        }
    }
    for dtype in [F32, F16, BF16] {
        for function in &FUNCTIONS[..4] {
            for out in [F32, F16, BF16] {
                for (dims, axis) in [(&[3, 40][..], 1), (&[5, 7], 1), (&[9, 6], 0)] {
                    let x = random.floats(dims).to(dtype);
                    let case = case(function, (out != dtype).then_some(out), x, &[axis], false);
                    check(function.name, &subject.name, device, &case, level > Level::Smoke)?;
                }
            }
        }
    }
    for dtype in [F32, F16, BF16, I32, U32, U8, Bool] {
        for function in &FUNCTIONS[4..] {
            for (dims, axis) in [(&[3, 40][..], 1), (&[5, 7], 0)] {
                let values: Vec<f32> = (0..dims.iter().product()).map(|_| random.below(9) as f32).collect();
                let x = Host::new(dims, &values).to(dtype);
                check(function.name, &subject.name, device, &case(function, None, x, &[axis], false), level > Level::Smoke)?;
            }
        }
    }
    Ok(())
}

/// N1: whole numbers, whatever the order; integers wrap.
fn whole(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(54);
    for (dims, axis) in [(&[5, 64][..], 1), (&[33, 7], 0), (&[4, 600], 1)] {
        for (dtype, most) in [(F32, 1000), (F16, 3), (BF16, 1)] {
            // Odd many of one sign: sums of 16 bits stay small and are not 0.
            let x: Vec<f32> =
                random.integers(dims, most).f64s().iter().enumerate().map(|(i, &v)| if i % 3 == 0 { v as f32 } else { 0.25 }).collect();
            let x = Host::new(dims, &x).to(dtype);
            let mut case = case(&FUNCTIONS[0], (dtype != F32).then_some(F32), x, &[axis], false);
            let Expected { dims, dtype, values, .. } = (case.expected)(device)?;
            case.expected = Box::new(move |_| Ok(Expected { dtype, ..Expected::exact(&dims, values.clone()) }));
            check("sum", &subject.name, device, &case, level > Level::Smoke)?;
        }
        for dtype in [I32, U32, U8, Bool] {
            let bits: Vec<u32> = (0..dims.iter().product()).map(|_| random.next() as u32).collect();
            let x = match dtype {
                I32 => Host::new(dims, &bits.iter().map(|&b| b as i32).collect::<Vec<_>>()),
                U32 => Host::new(dims, &bits),
                U8 => Host::new(dims, &bits.iter().map(|&b| b as u8).collect::<Vec<_>>()),
                _ => random.bools(dims, 0.4),
            };
            for function in [&FUNCTIONS[0], &FUNCTIONS[2], &FUNCTIONS[3]] {
                let mut case = case(function, None, x.clone(), &[axis], true);
                let Expected { dims, dtype, values, .. } = (case.expected)(device)?;
                let wrap = move |v: f64| if dtype == I32 { f64::from(v as i128 as i32) } else { f64::from(v as i128 as u32) };
                let values: Vec<f64> = values.into_iter().map(|v| if function.name == "sum" { wrap(v) } else { v }).collect();
                case.expected = Box::new(move |_| Ok(Expected::equal(&dims, dtype, values.clone())));
                check(function.name, &subject.name, device, &case, level > Level::Smoke)?;
            }
        }
    }
    Ok(())
}

/// Infinities, zeros of both signs, the ends of the range, nothing at all; NaN stays in its output.
fn extremes(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let (inf, most) = (f32::INFINITY, f32::MAX);
    let x = Host::new(&[4, 8], &{
        let mut rows = [[-inf; 8], [inf; 8], [-most; 8], [1.0; 8]].concat();
        (rows[3], rows[12], rows[20], rows[27]) = (-most, 3.0, most, -inf);
        rows
    });
    for function in &FUNCTIONS[2..] {
        check(function.name, &subject.name, device, &case(function, None, x.clone(), &[1], false), true)?;
    }
    let zeros = Host::new(&[2, 3], &[0.0f32, -0.0, 0.0, -0.0, 0.0, -0.0]);
    for function in &FUNCTIONS[4..] {
        check(function.name, &subject.name, device, &case(function, None, zeros.clone(), &[1], false), true)?;
    }
    // Rows of nothing but one end of a whole type's range.
    for len in [8, 7] {
        let ends = |low: i64, high: i64| [vec![low; len], vec![high; len]].concat();
        let i32s: Vec<i32> = ends(i32::MIN.into(), i32::MAX.into()).into_iter().map(|v| v as i32).collect();
        let u32s: Vec<u32> = ends(0, u32::MAX.into()).into_iter().map(|v| v as u32).collect();
        let u8s: Vec<u8> = ends(0, u8::MAX.into()).into_iter().map(|v| v as u8).collect();
        for x in [Host::new(&[2, len], &i32s), Host::new(&[2, len], &u32s), Host::new(&[2, len], &u8s)] {
            for function in &FUNCTIONS[2..] {
                check(function.name, &subject.name, device, &case(function, None, x.clone(), &[1], false), true)?;
            }
        }
    }
    for dims in [&[0][..], &[3, 0], &[0, 3], &[2, 0, 2]] {
        let x = Host::new::<f32>(dims, &[]);
        for function in &FUNCTIONS[..2] {
            check(function.name, &subject.name, device, &case(function, None, x.clone(), &[dims.len() - 1], false), true)?;
        }
        let tensor = x.upload(device).map_err(|e| e.to_string())?;
        let refused = ops::amax(&tensor, &[-1], false);
        let empty = dims[..dims.len() - 1].contains(&0);
        if empty != refused.is_ok() || !empty && !matches!(refused, Err(Error::Argument { .. })) {
            return Err(format!("amax of f32{dims:?} on {}: {refused:?}", subject.name));
        }
    }
    let x = Tensor::from_slice(device, &[f32::NAN, 1.0, 2.0, 5.0, 3.0, 4.0], &[2, 3]).map_err(|e| e.to_string())?;
    for function in FUNCTIONS {
        let out = (function.call)(&x, &[1], false).map_err(|e| e.to_string())?;
        let got = Host::of(&out)?.f64s()[1];
        let want = (function.exact)(&[5.0, 3.0, 4.0]);
        if (got - want).abs() > bounds::sums(3, 12.0) {
            return Err(format!("{} on {}: NaN left its row: {got}, not {want}", function.name, subject.name));
        }
    }
    let x = x.reshape(&[6]).map_err(|e| e.to_string())?;
    let refused = [
        matches!(ops::sum(&x, &[1], false), Err(Error::Argument { .. })),
        matches!(ops::sum(&x, &[0, -1], false), Err(Error::Argument { .. })),
        matches!(ops::mean(&ops::argmax(&x, 0, true).map_err(|e| e.to_string())?, &[0], false), Err(Error::DType { .. })),
    ];
    if refused == [true; 3] { Ok(()) } else { Err(format!("{}: not refused: {refused:?}", subject.name)) }
}

/// N5: a row gives the same bits alone and among others, dense or with a gap behind it that breaks eights; a column alone and among others.
fn alone(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let sum = |x: gristmill::Result<Tensor>, axis: isize, mean: bool| -> Result<Host, String> {
        let x = x.map_err(|e| e.to_string())?;
        Host::of(&(if mean { ops::mean(&x, &[axis], false) } else { ops::sum(&x, &[axis], false) }).map_err(|e| e.to_string())?)
    };
    for (dtype, len) in [(F32, 40), (F32, 80), (F32, 1000), (F32, 1024), (BF16, 2056), (F32, 20_000)] {
        let size = dtype.block_bytes();
        for (wide, axis) in [(len, 1), (len + 4, 1), (len, 0)] {
            let dims = if axis == 1 { [37, wide] } else { [wide, 37] };
            let x = Random::new(55).floats(&dims).to(dtype).upload(device).map_err(|e| e.to_string())?;
            let x = x.narrow(axis, 0..len).map_err(|e| e.to_string())?;
            let whole = [false, true].map(|mean| sum(Ok(x.clone()), axis, mean));
            for (first, count) in [(0, 1), (3, 2), (36, 1)].into_iter().take(if level == Level::Smoke { 1 } else { 3 }) {
                for (mean, whole) in [false, true].into_iter().zip(&whole) {
                    let whole = &whole.as_ref().map_err(String::clone)?.bytes[first * size..(first + count) * size];
                    let part = || x.narrow(1 - axis, first..first + count);
                    // Columns are summed by other lanes once they are rows.
                    let copies = [None, (axis == 1).then(|| part().and_then(|part| ops::copy(&part)))];
                    for part in copies.into_iter().map(|copy| copy.unwrap_or_else(part)) {
                        if sum(part, axis, mean)?.bytes != whole {
                            let place = format!("{first}..{} along {axis} of {dims:?} ({len})", first + count);
                            return Err(format!("{dtype} {place} differ on {} from what they are among 37 (N5)", subject.name));
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// More workgroups than a dimension of the grid holds.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    for (kernel, function) in [("reduce", &FUNCTIONS[0]), ("reduce_arg", &FUNCTIONS[4])] {
        let handles = pinned(device, kernel, level);
        let (_, handle) = handles.iter().find(|(tune, _)| tune.ends_with("group32")).unwrap_or(&handles[0]);
        let x = Random::new(56).floats(&[66_001, 3]);
        check(function.name, &subject.name, handle, &case(function, None, x, &[1], false), false)?;
    }
    Ok(())
}

fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let shapes = (prop::collection::vec(1usize..9, 1..6), any::<u64>());
    sample(level, &shapes, |(mut dims, seed)| {
        let mut random = Random::new(seed);
        if let (Some(last), 0) = (dims.last_mut(), random.below(2)) {
            *last *= 8;
        }
        let function = &FUNCTIONS[random.below(6)];
        let mut axes: Vec<usize> = (0..dims.len()).filter(|_| random.below(2) == 0).collect();
        if function.name.starts_with("arg") {
            axes = vec![random.below(dims.len())];
        }
        let dtype = [F32, F16, BF16][random.below(3)];
        let out = [F32, F16, BF16][random.below(3)];
        let out = (out != dtype && !function.name.starts_with("arg")).then_some(out);
        let x = random.floats(&dims).to(dtype);
        check(function.name, &subject.name, device, &case(function, out, x, &axes, random.below(2) == 0), true)
    })
}
