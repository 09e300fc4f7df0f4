//! Softmax and log_softmax: every tune, axis and mask; N2's analogue (the documented bounds), N4, N6, N8, N9.

use gristmill::{DType, Tensor, ops};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::bounds;
use crate::support::devices::{Level, Subject};
use crate::support::input::{Form, Host, Random};
use crate::support::reference::{self, broadcast};
use crate::support::runner::{Case, Expected, check, pinned, same_on_any_threads, sample, trial, trials};
use DType::{BF16, F16, F32};
use gristmill::Device;

pub fn all() -> Vec<Trial> {
    let mut all = trials("softmax", "large_grid", large_grid);
    all.extend(trials("softmax", "rows", rows));
    all.extend(trials("softmax", "types", types));
    all.extend(trials("softmax", "maximum", maximum));
    all.extend(trials("softmax", "rows_alone", rows_alone));
    all.extend(trials("softmax", "extremes", extremes));
    all.extend(trials("softmax", "random", random));
    all.push(trial("softmax::threads", || {
        let x = Random::new(9).floats(&[7, 300, 5]);
        same_on_any_threads(|_| [false, true].map(|log| case(log, 1, 0.5, x.clone(), None)).into())
    }));
    all
}

fn name(log: bool) -> &'static str {
    if log { "log_softmax" } else { "softmax" }
}

fn case(log: bool, axis: usize, scale: f32, x: Host, mask: Option<Host>) -> Case {
    typed(x.dtype, log, axis, scale, x, mask)
}

/// The same `_into` an output of any type.
fn typed(out: DType, log: bool, axis: usize, scale: f32, x: Host, mask: Option<Host>) -> Case {
    let expected = expected(out, log, axis, scale, &x, mask.as_ref());
    let fresh = x.dtype;
    let title =
        format!("{out} = {}{:?} axis {axis} scale {scale} mask {:?}", x.dtype, x.dims, mask.as_ref().map(|m| (m.dtype, m.dims.clone())));
    let inputs: Vec<Host> = std::iter::once(x).chain(mask).collect();
    let options = move |t: &[Tensor]| (scale, t.get(1).cloned());
    let call = move |t: &[Tensor]| {
        let (scale, mask) = options(t);
        let options = ops::Softmax { scale, mask: mask.as_ref() };
        if out != fresh {
            // A type that only `_into` gives.
            let mut result = Tensor::zeros(t[0].device(), out, t[0].shape())?;
            let into = if log { ops::log_softmax_into } else { ops::softmax_into };
            into(&mut result, &t[0], axis as isize, &options)?;
            return Ok(result);
        }
        if log { ops::log_softmax(&t[0], axis as isize, &options) } else { ops::softmax(&t[0], axis as isize, &options) }
    };
    let call_into = move |out: &mut Tensor, t: &[Tensor]| {
        let (scale, mask) = options(t);
        let options = ops::Softmax { scale, mask: mask.as_ref() };
        let axis = axis as isize - t[0].rank() as isize;
        if log { ops::log_softmax_into(out, &t[0], axis, &options) } else { ops::softmax_into(out, &t[0], axis, &options) }
    };
    Case::new(title, inputs, expected, call, call_into)
}

/// The documented bounds, row by row.
fn expected(out: DType, log: bool, axis: usize, scale: f32, x: &Host, mask: Option<&Host>) -> Expected {
    let dims = &x.dims;
    let bias = mask.map_or(vec![0.0; x.f64s().len()], |mask| broadcast(&mask.f64s(), &mask.dims, dims));
    // A finite product or sum saturates at the ends of f32; -inf masks.
    let limit = f64::from(f32::MAX);
    // Each logit, and its size where it is rounded: where f32 does not hold both the product and the sum.
    let (logits, rounded): (Vec<f64>, Vec<f64>) = x
        .f64s()
        .iter()
        .zip(&bias)
        .map(|(&x, &bias)| {
            if x == f64::NEG_INFINITY || bias == f64::NEG_INFINITY {
                return (f64::NEG_INFINITY, 0.0);
            }
            let product = x * f64::from(scale);
            let logit = product + bias;
            let held = |v: f64| f64::from(v as f32) == v;
            let exact = held(product) && held(logit) && logit - bias == product && logit - product == bias;
            let logit = logit.clamp(-limit, limit);
            (logit, if exact { 0.0 } else { logit.abs() })
        })
        .unzip();
    let (len, inner) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
    let (mut values, mut errors) = (vec![0.0; logits.len()], vec![0.0; logits.len()]);
    for row in 0..logits.len() / len.max(1) {
        let at = |i: usize| row / inner * len * inner + i * inner + row % inner;
        let line: Vec<f64> = (0..len).map(|i| logits[at(i)]).collect();
        let truth = reference::softmax(&line);
        let top = (0..len).map(|i| rounded[at(i)]).fold(0.0, f64::max);
        let steepest = truth.distances.iter().map(|t| 3.0 + 2.0 * t.min(104.0)).fold(0.0, f64::max);
        for i in 0..len {
            // Below exp(-104) everything is 0 in f32.
            let t = truth.distances[i];
            let rounding = bounds::logits(rounded[at(i)], top);
            if log {
                values[at(i)] = truth.logarithms[i].max(if line[i].is_finite() { -limit } else { f64::NEG_INFINITY });
                errors[at(i)] = bounds::log_softmax(t, steepest, len) + rounding;
            } else {
                values[at(i)] = truth.probabilities[i];
                let relative = bounds::softmax(t, steepest, len) + rounding;
                errors[at(i)] = truth.probabilities[i] * relative.min(1e3);
            }
        }
    }
    let mut expected = Expected::stored(dims, out, values, errors);
    // What is masked is zero, and nothing near it.
    expected.bounds.iter_mut().zip(&logits).filter(|(_, logit)| **logit == f64::NEG_INFINITY).for_each(|(bound, _)| *bound = 0.0);
    expected
}

/// Every size round the group sizes, each axis, with and without masks of several shapes.
fn rows(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(4);
    for (tune, handle) in pinned(device, "softmax", level) {
        for len in [1, 2, 31, 32, 33, 255, 256, 257, 1031] {
            for log in [false, true] {
                let x = random.floats(&[5, len]);
                check(name(log), &subject.name, &handle, &case(log, 1, 1.0, x, None), level > Level::Smoke)
                    .map_err(|e| format!("{tune} {e}"))?;
            }
        }
        for (dims, axis, mask) in [
            (vec![3, 37, 5], 1, Some(vec![37, 1])),
            (vec![37, 3, 5], 0, Some(vec![37, 3, 5])),
            (vec![2, 3, 2, 3, 2, 9], 5, Some(vec![3, 1, 9])),
            (vec![2, 3, 4, 2, 3, 2], 2, None),
            (vec![11], 0, Some(vec![1])),
            (vec![2, 0, 3], 1, None),
            (vec![0, 4], 1, None),
        ] {
            for log in [false, true] {
                let mask = mask.as_ref().map(|dims| mask_of(&mut random, dims));
                let x = random.floats(&dims);
                check(name(log), &subject.name, &handle, &case(log, axis, -0.75, x, mask), level > Level::Smoke)
                    .map_err(|e| format!("{tune} {e}"))?;
            }
        }
    }
    Ok(())
}

/// Every combination of types, in lengths for both widths, for pairs, and for neither; along each axis.
fn types(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(21);
    let mut all = vec![[F32; 3], [F16, F32, F32], [BF16, F32, F32]];
    for narrow in [F16, BF16] {
        all.extend([[narrow; 3], [narrow, narrow, F32], [F32, narrow, narrow], [F32, narrow, F32]]);
    }
    all.push([F16, BF16, BF16]);
    for (tune, handle) in pinned(device, "softmax", level) {
        for &[out, x, mask] in &all {
            for (dims, axis, mask_dims) in [
                (&[3, 40][..], 1, Some(&[40][..])),
                (&[3, 264], 1, Some(&[3, 1])),
                (&[5, 2056], 1, None),
                (&[5, 6], 1, Some(&[5, 6])),
                (&[3, 37], 1, None),
                (&[3, 42], 1, None),
                (&[2, 9, 8], 1, Some(&[9, 1])),
            ] {
                for log in [false, true] {
                    let mask = mask_dims.map(|dims| mask_of(&mut random, dims).to(mask));
                    // A sixteenth is -inf.
                    let values: Vec<f32> =
                        random.floats(dims).f64s().iter().map(|&v| if v > 30.0 { f32::NEG_INFINITY } else { v as f32 }).collect();
                    let case = typed(out, log, axis, 0.75, Host::new(dims, &values).to(x), mask);
                    check(name(log), &subject.name, &handle, &case, level == Level::Full).map_err(|e| format!("{tune} {e}"))?;
                }
            }
        }
    }
    Ok(())
}

/// The maximum is found wherever it is: a row for each lane of the widest group, first or second time round. Without it an exponential
/// overflows; a lower one alone would change nothing.
fn maximum(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    let len = 2 * 256 * 8 + 3;
    let mut values: Vec<f32> = Random::new(23).floats(&[256, len]).f64s().iter().map(|&v| v as f32).collect();
    for lane in 0..256 {
        values[lane * len + (lane + 256 * (lane / 3 % 2)) * 8 + lane % 8] = 1e4;
    }
    let x = Host::new(&[256, len], &values);
    for (tune, handle) in pinned(device, "softmax", level) {
        check("softmax", &subject.name, &handle, &case(false, 1, 1.0, x.clone(), None), false).map_err(|e| format!("{tune} {e}"))?;
    }
    Ok(())
}

/// A row gives the same bits alone, among others, and wherever it lies.
fn rows_alone(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    for (dtype, len) in [(F32, 264), (F32, 2056), (BF16, 37), (F16, 1000)] {
        let x = Random::new(22).floats(&[257, len]).to(dtype);
        let run = |range: std::ops::Range<usize>, form: Form| -> Result<Host, String> {
            let x = x.place(device, form)?.narrow(0, range).map_err(|e| e.to_string())?;
            Host::of(&ops::softmax(&x, 1, &Default::default()).map_err(|e| e.to_string())?)
        };
        let whole = run(0..257, Form::Dense)?;
        let size = len * dtype.block_bytes();
        for form in Form::ALL {
            for row in [0, 1, 8, 256].into_iter().take(if level == Level::Smoke { 2 } else { 4 }) {
                if run(row..row + 1, form)?.bytes != whole.bytes[row * size..][..size] {
                    return Err(format!(
                        "{dtype} row {row} of {len}, {form:?}, differs on {} from what it is among 257 (N5)",
                        subject.name
                    ));
                }
            }
        }
    }
    Ok(())
}

/// An additive mask: a third of it -inf.
fn mask_of(random: &mut Random, dims: &[usize]) -> Host {
    let mut values: Vec<f32> = random.floats(dims).f64s().iter().map(|&v| v as f32).collect();
    for value in &mut values {
        if random.below(3) == 0 {
            *value = f32::NEG_INFINITY;
        }
    }
    Host::new(dims, &values)
}

/// N8: huge logits, rows all masked, finite masks that mask nothing, -inf in x; NaN stays in its row.
fn extremes(subject: &Subject, device: &Device, _level: Level) -> Result<(), String> {
    let low = f32::MIN;
    let inf = f32::NEG_INFINITY;
    let x = Host::new(&[4, 3], &[1e4f32, -1e4, 0.0, 3e38, -3e38, 3e38, low, low, low, inf, inf, inf]);
    for log in [false, true] {
        check(name(log), &subject.name, device, &case(log, 1, 1.0, x.clone(), None), true)?;
        for all in [1.0f32, 0.0] {
            let x = Host::new(&[4, 3], &[all; 12]);
            let mask = Host::new(&[4, 3], &[inf, inf, inf, low, low, low, inf, 0.0, low, 0.0, -1e30, inf]);
            check(name(log), &subject.name, device, &case(log, 1, 1.0, x, Some(mask)), true)?;
        }
        // Logits that are not rounded, where a unit is 2.
        let x = Host::new(&[2, 3], &[16_777_216.0f32, 16_777_218.0, 16_777_222.0, -16_777_222.0, -16_777_216.0, -16_777_220.0]);
        check(name(log), &subject.name, device, &case(log, 1, 1.0, x, None), true)?;
        // Scale * x + mask past the ends of f32.
        let x = Host::new(&[2, 2], &[-3e38f32, 1.0, 3e38, 3e38]);
        let mask = Host::new(&[2, 2], &[-3e38f32, low, 3e38, 1.0]);
        check(name(log), &subject.name, device, &case(log, 1, 1.0, x, Some(mask)), true)?;
    }
    let x = Tensor::from_slice(device, &[f32::NAN, 1.0, 2.0, 0.0, 0.0, 0.0], &[2, 3]).map_err(|e| e.to_string())?;
    let out = ops::softmax(&x, 1, &Default::default()).and_then(|t| t.to_vec::<f32>()).map_err(|e| e.to_string())?;
    let third = 1.0 / 3.0;
    if out[3..].iter().all(|p| (p - third).abs() < 1e-6) { Ok(()) } else { Err(format!("NaN left its row: {out:?}")) }
}

/// More rows than a dimension of the grid holds.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    check("softmax", &subject.name, device, &case(false, 1, 1.0, Random::new(5).floats(&[66_001, 2]), None), false)
}

/// Shapes, axes and masks that nobody chose.
fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let shapes = (prop::collection::vec(0usize..12, 1..6), any::<u64>());
    sample(level, &shapes, |(dims, seed)| {
        let mut random = Random::new(seed);
        let axis = random.below(dims.len());
        let mask = (random.below(2) == 0).then(|| {
            let from = random.below(dims.len());
            let dims: Vec<usize> = dims[from..].iter().map(|&d| if random.below(3) == 0 { 1 } else { d }).collect();
            mask_of(&mut random, &dims)
        });
        let log = random.below(2) == 0;
        let scale = [1.0, 0.125, -2.0, 0.0][random.below(4)];
        let x = random.floats(&dims);
        check(name(log), &subject.name, device, &case(log, axis, scale, x, mask), true)
    })
}
