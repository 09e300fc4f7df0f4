//! Softmax and log_softmax: every kernel and tune, axis, mask, diagonal and sink, in place too; N2's analogue (the documented bounds), N4, N6, N8, N9.

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
use gristmill::ops::Align;

pub fn all() -> Vec<Trial> {
    let mut all = trials("softmax", "large_grid", large_grid);
    all.extend(trials("softmax", "rows", rows));
    all.extend(trials("softmax", "options", options));
    #[cfg(feature = "gpu")]
    all.extend(trials("softmax", "choices", choices));
    all.extend(trials("softmax", "types", types));
    all.extend(trials("softmax", "maximum", maximum));
    all.extend(trials("softmax", "rows_alone", rows_alone));
    all.extend(trials("softmax", "extremes", extremes));
    all.extend(trials("softmax", "random", random));
    all.push(trial("softmax::threads", || {
        let mut random = Random::new(9);
        let (x, mask, sinks) = (random.floats(&[2, 300, 50]), random.floats(&[300, 50]), random.floats(&[2, 1, 50]));
        same_on_any_threads(|_| {
            let plain =
                [false, true].map(|log| Call::new(log, 1, 0.5, x.clone(), Some(mask.clone())).with(None, Some(sinks.clone())).case());
            let causal = Call::new(false, 2, 0.5, x.clone(), None).with(Some(Align::TopLeft), None).case();
            plain.into_iter().chain([causal]).collect()
        })
    }));
    all
}

fn name(log: bool) -> &'static str {
    if log { "log_softmax" } else { "softmax" }
}

/// A call, and what it gives.
#[derive(Clone)]
struct Call {
    log: bool,
    axis: usize,
    scale: f32,
    causal: Option<Align>,
    x: Host,
    mask: Option<Host>,
    sinks: Option<Host>,
}

impl Call {
    fn new(log: bool, axis: usize, scale: f32, x: Host, mask: Option<Host>) -> Self {
        Call { log, axis, scale, causal: None, x, mask, sinks: None }
    }

    /// The same with a sink a row and a diagonal.
    fn with(mut self, causal: Option<Align>, sinks: Option<Host>) -> Self {
        (self.causal, self.sinks) = (causal, sinks);
        self
    }

    fn name(&self) -> &'static str {
        name(self.log)
    }

    fn case(self) -> Case {
        let out = self.x.dtype;
        self.into(out)
    }

    /// The same `_into` an output of any type.
    fn into(self, out: DType) -> Case {
        let expected = expected(out, &self);
        let Call { log, axis, scale, causal, x, mask, sinks } = self;
        let fresh = x.dtype;
        let shape = |host: &Option<Host>| host.as_ref().map(|host| (host.dtype, host.dims.clone()));
        let title = format!(
            "{out} = {}{:?} axis {axis} scale {scale} mask {:?} {causal:?} sinks {:?}",
            x.dtype,
            x.dims,
            shape(&mask),
            shape(&sinks)
        );
        let there = [mask.is_some(), sinks.is_some()];
        let inputs: Vec<Host> = std::iter::once(x).chain(mask).chain(sinks).collect();
        // Of the tensors after `x`.
        let with = move |rest: &[Tensor], call: &dyn Fn(&ops::Softmax) -> gristmill::Result<()>| {
            let mut rest = rest.iter();
            let [mask, sinks] = there.map(|there| if there { rest.next() } else { None });
            call(&ops::Softmax { scale, mask, causal, sinks })
        };
        let call = move |t: &[Tensor]| {
            let result = std::cell::RefCell::new(None);
            with(&t[1..], &|options| {
                let made = if out != fresh {
                    // A type that only `_into` gives.
                    let mut made = Tensor::zeros(t[0].device(), out, t[0].shape())?;
                    let into = if log { ops::log_softmax_into } else { ops::softmax_into };
                    into(&mut made, &t[0], axis as isize, options)?;
                    made
                } else {
                    let call = if log { ops::log_softmax } else { ops::softmax };
                    call(&t[0], axis as isize, options)?
                };
                *result.borrow_mut() = Some(made);
                Ok(())
            })?;
            Ok(result.into_inner().expect("it was made"))
        };
        let call_into = move |out: &mut Tensor, t: &[Tensor]| {
            let axis = axis as isize - t[0].rank() as isize;
            let into = if log { ops::log_softmax_into } else { ops::softmax_into };
            let out = std::cell::RefCell::new(out);
            with(&t[1..], &|options| into(&mut out.borrow_mut(), &t[0], axis, options))
        };
        let case = Case::new(title, inputs, expected, call, call_into);
        case.in_place(move |x, rest| {
            let call = if log { ops::log_softmax_in_place } else { ops::softmax_in_place };
            let x = std::cell::RefCell::new(x);
            with(rest, &|options| call(&mut x.borrow_mut(), axis as isize, options))
        })
    }
}

/// The documented bounds, row by row.
fn expected(out: DType, call: &Call) -> Expected {
    let Call { log, axis, scale, causal, x, mask, sinks } = call;
    let (dims, axis) = (&x.dims, *axis);
    let bias = mask.as_ref().map_or(vec![0.0; x.f64s().len()], |mask| broadcast(&mask.f64s(), &mask.dims, dims));
    let sinks = sinks.as_ref().map(|sinks| broadcast(&sinks.f64s(), &sinks.dims, dims));
    let (len, inner) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
    // A finite product or sum saturates at the ends of f32; -inf masks, and so does the diagonal.
    let limit = f64::from(f32::MAX);
    let hidden = |at: usize| {
        let last = |back: usize| dims[dims.len() - back];
        let (key, query) = (at % len, at / len % if dims.len() > 1 { last(2) } else { 1 });
        match causal {
            None => false,
            Some(Align::TopLeft) => key > query,
            Some(Align::BottomRight) => key + last(2) > query + last(1),
            Some(Align::Offset(offset)) => key as i128 > query as i128 + i128::from(*offset),
        }
    };
    // Each logit, and its size where it is rounded: where f32 does not hold both the product and the sum.
    let (logits, rounded): (Vec<f64>, Vec<f64>) = x
        .f64s()
        .iter()
        .zip(&bias)
        .enumerate()
        .map(|(at, (&x, &bias))| {
            if x == f64::NEG_INFINITY || bias == f64::NEG_INFINITY || hidden(at) {
                return (f64::NEG_INFINITY, 0.0);
            }
            let product = x * f64::from(*scale);
            let logit = product + bias;
            let held = |v: f64| f64::from(v as f32) == v;
            let exact = held(product) && held(logit) && logit - bias == product && logit - product == bias;
            let logit = logit.clamp(-limit, limit);
            (logit, if exact { 0.0 } else { logit.abs() })
        })
        .unzip();
    let (mut values, mut errors) = (vec![0.0; logits.len()], vec![0.0; logits.len()]);
    for row in 0..logits.len() / len.max(1) {
        let at = |i: usize| row / inner * len * inner + i * inner + row % inner;
        let mut line: Vec<f64> = (0..len).map(|i| logits[at(i)]).collect();
        // A row that is all masked has no maximum, whatever its sink is.
        let all = line.iter().all(|l| *l == f64::NEG_INFINITY);
        line.extend(sinks.iter().filter(|_| !all).map(|sinks| sinks[at(0)]));
        let count = len + 4 * (line.len() - len);
        let truth = reference::softmax(&line);
        let top = (0..len).map(|i| rounded[at(i)]).fold(0.0, f64::max);
        let steepest = truth.distances.iter().map(|t| 3.0 + 2.0 * t.min(104.0)).fold(0.0, f64::max);
        for i in 0..len {
            // Below exp(-104) everything is 0 in f32.
            let t = truth.distances[i];
            let rounding = bounds::logits(rounded[at(i)], top);
            if *log {
                values[at(i)] = truth.logarithms[i].max(if line[i].is_finite() { -limit } else { f64::NEG_INFINITY });
                errors[at(i)] = bounds::log_softmax(t, steepest, count) + rounding;
            } else {
                values[at(i)] = truth.probabilities[i];
                let relative = bounds::softmax(t, steepest, count) + rounding;
                errors[at(i)] = truth.probabilities[i] * relative.min(1e3);
            }
        }
    }
    let whole = values.clone();
    let mut expected = Expected::stored(dims, out, values, errors);
    if *log && out == F32 {
        // It saturates, and what is infinite instead is wrong.
        let finite = logits.iter().enumerate().filter(|(_, logit)| logit.is_finite());
        finite.for_each(|(at, _)| expected.values[at] = whole[at]);
    }
    // What is masked is zero, and nothing near it.
    expected.bounds.iter_mut().zip(&logits).filter(|(_, logit)| **logit == f64::NEG_INFINITY).for_each(|(bound, _)| *bound = 0.0);
    expected
}

/// The kernels, here and in place.
const KERNELS: [&str; 4] = ["softmax", "softmax_in_place", "softmax_columns", "softmax_columns_in_place"];

/// A handle for each kernel and tune, and how long a row it holds in registers at the most, where it does.
fn handles(device: &Device, level: Level) -> Vec<(String, Device, Option<usize>)> {
    #[cfg(feature = "gpu")]
    let asked = crate::support::devices::kernel();
    #[cfg(not(feature = "gpu"))]
    let asked: Option<String> = None;
    let names = KERNELS.into_iter().take(if device.is_cpu() { 1 } else { 4 });
    let names: Vec<&str> = names.filter(|name| device.is_cpu() || asked.as_ref().is_none_or(|asked| asked == name)).collect();
    assert!(!names.is_empty(), "no kernel of softmax has the name {asked:?}");
    let held = |name: &str| match name.split('.').nth(1) {
        Some("row8") => Some(256),
        Some("row64") => Some(2048),
        Some("row256") => Some(16_384),
        _ => None,
    };
    let all = names.iter().flat_map(|name| pinned(device, name, level));
    all.map(|(name, device)| (name.clone(), device, held(&name))).collect()
}

/// Every size round a lane's eight, the groups and what they hold; each axis, with and without masks of several shapes.
fn rows(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(4);
    for (tune, handle, held) in handles(device, level) {
        let run = |call: Call, all_forms: bool| {
            check(call.name(), &subject.name, &handle, &call.case(), all_forms).map_err(|e| format!("{tune} {e}"))
        };
        let mut lens = vec![1, 2, 7, 8, 9, 63, 64, 65, 255, 256, 257];
        if level > Level::Smoke {
            let steps: &[usize] = match held {
                Some(2048) => &[512, 520, 1024, 1033, 1536, 2048],
                Some(16_384) => &[2048, 2056, 4104, 8192, 8209, 16_384],
                _ => &[512, 2048, 2051, 4104],
            };
            lens.extend(steps);
        }
        for (i, len) in lens.into_iter().enumerate() {
            // Both functions over the lengths, and both of each in a full run.
            for log in [false, true].into_iter().filter(|&log| level == Level::Full || log == (i % 2 == 1) || len < 10) {
                let rows = if len > 3000 { 2 } else { 5 };
                run(Call::new(log, 1, 1.0, random.floats(&[rows, len]), None), level > Level::Smoke && len < 2000)?;
            }
            // Of one number everywhere: the sum is whole, so that an element more or less is seen in any row.
            let call = Call::new(false, 1, 1.0, Host::new(&[2, len], &vec![0.5f32; 2 * len]), None);
            let (name, mut case) = (call.name(), call.case());
            let share = 1.0 / len as f64;
            case.expected = Box::new(move |_| {
                let (dims, bounds) = (vec![2, len], vec![16.0 * reference::U * share; 2 * len]);
                Ok(Expected { dims, dtype: F32, values: vec![share; 2 * len], bounds })
            });
            check(name, &subject.name, &handle, &case, false).map_err(|e| format!("{tune} {e}"))?;
        }
        for (dims, axis, mask) in [
            (vec![3, 37, 5], 1, Some(vec![37, 1])),
            (vec![37, 3, 5], 0, Some(vec![37, 3, 5])),
            (vec![2, 3, 2, 3, 2, 9], 5, Some(vec![3, 1, 9])),
            (vec![2, 3, 4, 2, 3, 2], 2, None),
            (vec![3, 70, 40], 1, Some(vec![3, 1, 40])),
            (vec![264, 34], 0, None),
            (vec![11], 0, Some(vec![1])),
            (vec![2, 0, 3], 1, None),
            (vec![0, 4], 1, None),
        ] {
            for log in [false, true] {
                let mask = mask.as_ref().map(|dims| mask_of(&mut random, dims));
                run(Call::new(log, axis, -0.75, random.floats(&dims), mask), level > Level::Smoke)?;
            }
        }
    }
    Ok(())
}

/// Diagonals and sinks, together and alone, along every axis that they may be asked for.
fn options(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(31);
    for (tune, handle, _) in handles(device, level) {
        for (i, (dims, axis, sinks)) in [
            (vec![5, 8], 1, Some(vec![5, 1])),
            (vec![3, 2, 9, 6], 3, Some(vec![2, 1, 1])),
            (vec![2, 7, 40], 2, Some(vec![1])),
            (vec![4, 70, 65], 2, Some(vec![4, 70, 1])),
            (vec![2, 3, 270], 2, None),
            (vec![1, 9], 1, None),
            (vec![6, 1], 1, None),
            (vec![9, 5], 0, Some(vec![5])),
            (vec![10, 24], 1, None),
            (vec![12], 0, Some(vec![1])),
            (vec![4, 18, 6], 1, Some(vec![4, 1, 1])),
        ]
        .into_iter()
        .enumerate()
        {
            let last = dims.len() > 1 && axis + 1 == dims.len();
            let diagonals = [None, Some(Align::TopLeft), Some(Align::BottomRight), Some(Align::Offset(3))];
            for (at, causal) in diagonals.into_iter().take(if last { 4 } else { 1 }).enumerate() {
                let mask = (i % 3 == 0 || !last).then(|| mask_of(&mut random, &dims[axis..]));
                let third = if level == Level::Smoke { F32 } else { BF16 };
                let x = random.floats(&dims).to([F32, F16, third][i % 3]);
                let sinks = sinks.as_ref().map(|dims| random.floats(dims).to([F16, F32, BF16][i % 3]));
                let log = (i + at).is_multiple_of(2);
                let call = Call::new(log, axis, 0.5, x, mask).with(causal, sinks);
                check(call.name(), &subject.name, &handle, &call.case(), level > Level::Smoke).map_err(|e| format!("{tune} {e}"))?;
            }
        }
        if level > Level::Smoke {
            neighbours(&handle, &mut random).map_err(|error| error.to_string())?.map_err(|e| format!("{tune} on {}: {e}", subject.name))?;
        }
    }
    Ok(())
}

/// Two rows across memory that share a word of `out`, of which one sees more, where they share one of `x` too and where they do not: the bits of rows along
/// memory.
fn neighbours(device: &Device, random: &mut Random) -> gristmill::Result<Result<(), String>> {
    let values = random.floats(&[24, 11]).f64s().iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let all = ops::cast(&Tensor::from_slice(device, &values, &[24 * 11])?, BF16)?;
    for odd in [0, 1] {
        let x = all.narrow(0, odd..odd + 240)?.reshape(&[24, 10])?.transpose(0, 1)?;
        for offset in [0, 3, 7] {
            let options = ops::Softmax { causal: Some(Align::Offset(offset)), scale: 0.5, ..Default::default() };
            let along = ops::cast(&ops::softmax(&x.contiguous()?, 1, &options)?, F32)?.to_vec::<f32>()?;
            let mut out = Tensor::zeros(device, BF16, &[24, 10])?.transpose(0, 1)?;
            ops::softmax_into(&mut out, &x, 1, &options)?;
            let across = ops::cast(&out, F32)?.to_vec::<f32>()?;
            if let Some(at) = along.iter().zip(&across).position(|(a, b)| a.to_bits() != b.to_bits()) {
                return Ok(Err(format!("from {odd}, diagonal {offset}: {} at {at} across memory, {} along it", across[at], along[at])));
            }
        }
    }
    Ok(Ok(()))
}

/// Every combination of types, in lengths for both widths, for pairs, and for neither; along each axis.
fn types(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(21);
    let mut all = vec![[F32; 3], [F16, F32, F32], [BF16, F32, F32]];
    for narrow in [F16, BF16] {
        all.extend([[narrow; 3], [narrow, narrow, F32], [F32, narrow, narrow], [F32, narrow, F32]]);
    }
    all.push([F16, BF16, BF16]);
    for (tune, handle, _) in handles(device, level) {
        for (i, &[out, x, mask]) in all.iter().enumerate() {
            // In place there is one type. Where a driver compiles for seconds: what differs most.
            if level == Level::Smoke && ![[F32; 3], [F16; 3], [F32, BF16, F32]].contains(&[out, x, mask]) {
                continue;
            }
            if tune.contains("in_place") && out != x {
                continue;
            }
            for (j, (dims, axis, mask_dims)) in [
                (&[3, 40][..], 1, Some(&[40][..])),
                (&[3, 264], 1, Some(&[3, 1])),
                (&[5, 2056], 1, None),
                (&[5, 6], 1, Some(&[5, 6])),
                (&[3, 37], 1, None),
                (&[3, 42], 1, None),
                (&[2, 9, 8], 1, Some(&[9, 1])),
                (&[70, 6], 0, Some(&[6])),
            ]
            .into_iter()
            .enumerate()
            {
                for log in [false, true].into_iter().filter(|&log| level == Level::Full || log == ((i + j) % 2 == 0)) {
                    let mask = mask_dims.map(|dims| mask_of(&mut random, dims).to(mask));
                    // A sixteenth is -inf.
                    let values: Vec<f32> =
                        random.floats(dims).f64s().iter().map(|&v| if v > 30.0 { f32::NEG_INFINITY } else { v as f32 }).collect();
                    let case = Call::new(log, axis, 0.75, Host::new(dims, &values).to(x), mask).into(out);
                    check(name(log), &subject.name, &handle, &case, level == Level::Full).map_err(|e| format!("{tune} {e}"))?;
                }
            }
        }
    }
    Ok(())
}

/// The maximum is found wherever it is: a row for each lane of the widest group, by turns in each of its rounds. Without it an exponential
/// overflows; a lower one alone would change nothing. And nothing else is taken for it.
fn maximum(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    for (tune, handle, held) in handles(device, level) {
        // Of the 256 lanes' rounds of an eight each, five of eight.
        let len = held.unwrap_or(2 * 256 * 8 + 3).min(10_240);
        let (lanes, rounds) = ((len / 8).min(256), (len / 8 / 256).max(1));
        let rows = 256;
        let mut values: Vec<f32> = Random::new(23).floats(&[rows, len]).f64s().iter().map(|&v| v as f32).collect();
        for row in 0..rows {
            values[row * len + (row * 37 % lanes + lanes * (row % rounds)) * 8 + row % 8] = 1e4;
        }
        // Far below 0, where one that is none would weigh all.
        let low: Vec<f32> = values.iter().take(2 * len.min(8192)).map(|v| v.min(64.0) / 32.0 - 200.0).collect();
        for x in [Host::new(&[rows, len], &values), Host::new(&[2, len.min(8192)], &low)] {
            let case = Call::new(false, 1, 1.0, x, None).case();
            check("softmax", &subject.name, &handle, &case, false).map_err(|e| format!("{tune} {e}"))?;
        }
    }
    Ok(())
}

/// A row gives the same bits alone, among others, wherever it lies, and in place.
fn rows_alone(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    row_alone(subject, device, (level, &Form::ALL), |turn| turn % 2 == 1)?;
    if level > Level::Smoke {
        for (tune, device, _) in handles(device, level) {
            // What is pinned is either.
            let in_place = tune.contains("in_place");
            row_alone(subject, &device, (level, &[Form::Dense, Form::Gaps]), |_| in_place).map_err(|text| format!("{tune}: {text}"))?;
        }
    }
    Ok(())
}

fn row_alone(subject: &Subject, device: &Device, (level, forms): (Level, &[Form]), in_place: impl Fn(usize) -> bool) -> Result<(), String> {
    for (dtype, len) in [(F32, 264), (F32, 2056), (BF16, 37), (F16, 1000)] {
        let x = Random::new(22).floats(&[257, len]).to(dtype);
        let run = |range: std::ops::Range<usize>, form: Form, in_place: bool| -> Result<Host, String> {
            let call = || {
                let mut x = x.place(device, form).expect("it was placed before").narrow(0, range.clone())?;
                if in_place {
                    ops::softmax_in_place(&mut x, 1, &Default::default())?;
                    return Ok(x);
                }
                ops::softmax(&x, 1, &Default::default())
            };
            Host::of(&call().map_err(|e: gristmill::Error| e.to_string())?)
        };
        let whole = run(0..257, Form::Dense, in_place(0))?;
        let size = len * dtype.block_bytes();
        for &form in forms {
            for (i, row) in [0, 1, 8, 256].into_iter().take(if level == Level::Smoke { 2 } else { 4 }).enumerate() {
                // Alone, or among a few so that they have neighbours.
                for end in [row + 1, (row + 9).min(257)] {
                    let got = run(row..end, form, in_place(i))?;
                    if got.bytes != whole.bytes[row * size..][..(end - row) * size] {
                        return Err(format!(
                            "{dtype} rows {row} to {end} of {len}, {form:?}, differ on {} from what they are among 257 (N5)",
                            subject.name
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

/// What is chosen for cards runs on the adapter at hand: kernels and tunes at the lengths where one takes over from another. Rows that lie
/// across memory give the bits of rows that lie along it.
#[cfg(feature = "gpu")]
fn choices(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    use gristmill::gpu::{AdapterKind, Caps, Pin, Throughput};
    use gristmill::ops::softmax::{Problem, gpu};

    use crate::support::runner::differs;

    let (Some(caps), true) = (device.caps(), level > Level::Smoke) else { return Ok(()) };
    let planned = |caps: &Caps, pin: Option<Pin>, out: &mut Tensor, x: Option<&Tensor>| {
        let layout = *out.layout();
        let problem = Problem {
            dtypes: [out.dtype(), x.map_or(out.dtype(), Tensor::dtype), F32, F32],
            log: false,
            in_place: x.is_none(),
            axis: 1,
            scale: 1.0,
            out: layout,
            x: x.map_or(layout, |x| *x.layout()),
            mask: None,
            causal_limit: out.shape()[1] as i64,
            sinks: None,
        };
        ops::dispatch("softmax", &gpu::plan(caps, pin, &problem)?, out, x.as_slice())
    };
    // As fast as one: what is long for the adapter at hand would be cut.
    let mut caps = caps.clone();
    (caps.kind, caps.throughput) = (AdapterKind::Discrete, Throughput { flops: 1 << 40, bytes: 1 << 40 });
    let mut random = Random::new(41);
    let one = gristmill::ops::kernels().iter().find(|kernel| kernel.name == "softmax_columns").expect("it is listed");
    let slices1 = Pin::from((*one, &one.tunes[0]));
    for (len, low) in [1, 9, 255, 256, 257, 2047, 2048, 2049, 16_384, 16_385].map(|len| (len, false)).into_iter().chain([(2050, true)]) {
        for dtype in [F32, F16, BF16] {
            let mut x = random.floats(&[6, len]);
            if low {
                // Far below 0, where a state of nothing that is taken for one of something would weigh all.
                x = Host::new(&x.dims, &x.f64s().iter().map(|&v| (v / 32.0 - 200.0) as f32).collect::<Vec<f32>>());
            }
            let call = Call::new(false, 1, 1.0, x.to(dtype), None);
            let [apart, within] = [caps.clone(), caps.clone()];
            let mut case = call.case();
            case.call_into = Box::new(move |out, t| planned(&apart, None, out, Some(&t[0])));
            let both = caps.clone();
            case.call = Box::new(move |t| {
                let mut out = Tensor::zeros(t[0].device(), dtype, t[0].shape())?;
                planned(&both, None, &mut out, Some(&t[0]))?;
                Ok(out)
            });
            case.call_in_place = Some(Box::new(move |x, _| planned(&within, None, x, None)));
            // The form with its axes reversed is the one that lies across memory: N4 compares it with none, so that the bits are here.
            check("softmax", &subject.name, device, &case, len < 3000)?;
            let x = &case.inputs[0];
            let [along, across, whole] =
                [(Form::Dense, None), (Form::Reversed, None), (Form::Reversed, Some(slices1))].map(|(form, pin)| {
                    let x = x.place(device, form)?;
                    let run = || -> gristmill::Result<Tensor> {
                        let mut out = Tensor::zeros(device, dtype, &[len, 6])?.transpose(0, 1)?;
                        planned(&caps, pin, &mut out, Some(&x))?;
                        Ok(out)
                    };
                    Host::of(&run().map_err(|e| e.to_string())?)
                });
            let along = along?;
            // A card's slices, and whole rows a lane.
            for across in [across?, whole?] {
                if let Some(at) = differs(&along, &across) {
                    return Err(format!("{dtype} rows of {len} across memory differ at {at} on {} from those along it", subject.name));
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

/// N8: huge logits, rows all masked, finite masks that mask nothing, -inf in x, sinks of any size; NaN stays in its row.
fn extremes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let low = f32::MIN;
    let inf = f32::NEG_INFINITY;
    let x = Host::new(&[4, 3], &[1e4f32, -1e4, 0.0, 3e38, -3e38, 3e38, low, low, low, inf, inf, inf]);
    for (tune, device, _) in handles(device, level) {
        let run = |call: Call| check(call.name(), &subject.name, &device, &call.case(), true).map_err(|e| format!("{tune} {e}"));
        // With the result of another call.
        let run_as = |call: Call, same: Call| {
            let name = call.name();
            let mut case = call.case();
            case.expected = same.case().expected;
            check(name, &subject.name, &device, &case, true).map_err(|e| format!("{tune} {e}"))
        };
        for log in [false, true] {
            run(Call::new(log, 1, 1.0, x.clone(), None))?;
            for sink in [0.0, 3e38, low, inf] {
                let sinks = Some(Host::new(&[1], &[sink]));
                run(Call::new(log, 1, 1.0, x.clone(), None).with(None, sinks.clone()))?;
                run(Call::new(log, 1, 1.0, x.clone(), None).with(Some(Align::BottomRight), sinks))?;
            }
            // What the lowest bias absorbs changes nothing, so the bounds are those of sums that are not rounded.
            let mask = || Some(Host::new(&[4, 3], &[inf, inf, inf, low, low, low, inf, 0.0, low, 0.0, -1e30, inf]));
            let zeros = || Call::new(log, 1, 1.0, Host::new(&[4, 3], &[0.0f32; 12]), mask());
            run_as(Call::new(log, 1, 1.0, Host::new(&[4, 3], &[1.0f32; 12]), mask()), zeros())?;
            run(zeros())?;
            // No row sees anything, the last two one and two elements, every row all.
            for offset in [i64::MIN, -2, i64::MAX] {
                run(Call::new(log, 1, 1.0, x.clone(), None).with(Some(Align::Offset(offset)), None))?;
            }
            // Logits that are not rounded, where a unit is 2.
            let x = Host::new(&[2, 3], &[16_777_216.0f32, 16_777_218.0, 16_777_222.0, -16_777_222.0, -16_777_216.0, -16_777_220.0]);
            run(Call::new(log, 1, 1.0, x, None))?;
            // A product that cancels against the mask: rounded before, as drivers may, it is off by half a percent.
            if device.is_cpu() {
                let x = Host::new(&[1, 2], &[10_000_001.0f32, 0.0]);
                run(Call::new(log, 1, 0.1, x, Some(Host::new(&[1, 2], &[-1e6f32, 0.0]))))?;
            }
            // Scale * x + mask past the ends of f32.
            let x = Host::new(&[2, 2], &[-3e38f32, -3e38, 3e38, 3e38]);
            let mask = Host::new(&[2, 2], &[-3e38f32, low, 3e38, 1.0]);
            let ends = Host::new(&[2, 2], &[low, low, f32::MAX, 3e38]);
            run_as(Call::new(log, 1, 1.0, x, Some(mask)), Call::new(log, 1, 1.0, ends, None))?;
        }
        let x = Tensor::from_slice(&device, &[f32::NAN, 1.0, 2.0, 0.0, 0.0, 0.0], &[2, 3]).map_err(|e| e.to_string())?;
        let across = x.transpose(0, 1).and_then(|t| ops::copy(&t)).map_err(|e| e.to_string())?;
        for (x, axis) in [(x, 1), (across, 0)] {
            let out = ops::softmax(&x, axis, &Default::default()).and_then(|t| t.narrow(1 - axis, 1..2));
            let out = out.and_then(|t| t.to_vec::<f32>()).map_err(|e| e.to_string())?;
            let third = 1.0 / 3.0;
            if !out.iter().all(|p| (p - third).abs() < 1e-6) {
                return Err(format!("{tune}: NaN left its row: {out:?}"));
            }
        }
    }
    Ok(())
}

/// More rows than a dimension of the grid holds.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    let mut random = Random::new(5);
    // As it is chosen, and a row a workgroup, apart and in place.
    let alone = handles(device, level).into_iter().filter(|(name, ..)| name.ends_with(".online8"));
    let all = alone.map(|(_, handle, _)| (handle, [66_001, 2], 1)).chain([(device.clone(), [2, 66_001 * 8], 0)]);
    for (handle, dims, axis) in all {
        let case = Call::new(false, axis, 1.0, random.floats(&dims), None).case();
        check("softmax", &subject.name, &handle, &case, false)?;
    }
    Ok(())
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
        let sinks = (random.below(3) == 0).then(|| {
            let mut dims: Vec<usize> = dims.iter().map(|&d| if random.below(2) == 0 { 1 } else { d }).collect();
            dims[axis] = 1;
            random.floats(&dims)
        });
        let causal = match random.below(4) {
            1 if dims.len() > 1 && axis + 1 == dims.len() => Some(Align::TopLeft),
            2 if dims.len() > 1 && axis + 1 == dims.len() => Some(Align::BottomRight),
            _ => None,
        };
        let call = Call::new(log, axis, scale, x, mask).with(causal, sinks);
        check(name(log), &subject.name, device, &call.case(), true)
    })
}
