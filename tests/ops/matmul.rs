//! Matmul: every kernel and tune at sizes round every tile, batches, vectors, strides, epilogues; N1 to N6, N8, N9.

use DType::{BF16, F16, F32};
use gristmill::ops::{self, Activation, Bias, Matmul};
use gristmill::{DType, Device, Tensor};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::bounds::{self, sums};
use crate::support::devices::{Level, Subject};
use crate::support::input::{Host, Random};
use crate::support::reference::{self, broadcast};
#[cfg(feature = "gpu")]
use crate::support::runner::expect;
use crate::support::runner::{Case, Expected, check, pinned, same_on_any_threads, sample, trial, trials};

const OP: &str = "matmul";

pub fn all() -> Vec<Trial> {
    let mut all = trials(OP, "large_grid", large_grid);
    #[cfg(feature = "gpu")]
    {
        all.extend(trials(OP, "cooperative", cooperative));
        all.extend(trials(OP, "choices", choices));
    }
    all.extend(trials(OP, "tiles", tiles));
    all.extend(trials(OP, "types", types));
    all.extend(trials(OP, "transposes", transposes));
    all.extend(trials(OP, "batches", batches));
    all.extend(trials(OP, "batch_invariant", batch_invariant));
    all.extend(trials(OP, "epilogues", epilogues));
    all.extend(trials(OP, "long_k", long_k));
    all.extend(trials(OP, "extremes", extremes));
    all.extend(trials(OP, "batched_epilogues", batched_epilogues));
    all.extend(trials(OP, "random", random));
    all.push(trial("matmul::threads", || {
        same_on_any_threads(|_| {
            let mut random = Random::new(9);
            let wide = case(&mut random, &[3, 130, 70], &[70, 600], false);
            let fused =
                fused(&mut random, F32, [130, 90, 33], Options { gate: true, residual: true, accumulate: true, ..Options::of(5) }, false);
            vec![wide, typed(&mut random, [F16, BF16, F32], &[130, 300], &[300, 20], false), fused]
        })
    }));
    all
}

/// Every kernel that multiplies but `matmul_coop`, which has a suite of the problems that it serves.
const KERNELS: [&str; 4] = ["matmul", "matmul_direct", "matmul_skinny", "matmul_splitk"];

/// A handle pinned to a kernel and tune, and its tile.
struct Handle {
    name: String,
    device: Device,
    tile: usize,
    /// Whether it takes no more rows than its tile has, and leaves other calls to what is chosen.
    few: bool,
    /// Whether it is the one of its kernel that meets every type: a tune changes sizes alone, and each type is a shader to compile.
    all_types: bool,
}

impl Handle {
    /// As many rows, or as many as it takes.
    fn rows(&self, m: usize) -> usize {
        if self.few { m.min(self.tile) } else { m }
    }
}

/// A handle for each kernel and tune.
fn handles(device: &Device, level: Level) -> Vec<Handle> {
    let names = if device.is_cpu() { &KERNELS[..1] } else { &KERNELS[..] };
    let tile = |name: &str| match name {
        "matmul.tile128" => 128,
        "matmul.tile32" => 32,
        "matmul_direct.rows16" => 16,
        "matmul_direct.rows8" | "matmul_skinny.rows8" => 8,
        "matmul_skinny.rows4" => 4,
        "matmul_direct.rows2" => 2,
        "matmul_skinny.rows1" => 1,
        "cpu" => 16,
        _ => 64,
    };
    let of = |name| {
        let all = pinned(device, name, level).into_iter().enumerate();
        all.map(|(i, (name, device))| Handle {
            tile: tile(&name),
            few: name.starts_with("matmul_skinny"),
            name,
            device,
            all_types: level == Level::Full || i == 0,
        })
    };
    names.iter().flat_map(|name| of(name)).collect()
}

/// The same, but where drivers may compile a fused kernel for half a minute, what is chosen there and no other.
fn fused_handles(device: &Device, level: Level) -> Vec<Handle> {
    let chosen = || Handle { name: "chosen".into(), device: device.clone(), tile: 64, few: false, all_types: false };
    if level == Level::Smoke { vec![chosen()] } else { handles(device, level) }
}

/// A case of two operands of any rank, with random or (for N1) small whole values.
fn case(random: &mut Random, left: &[usize], right: &[usize], exact: bool) -> Case {
    let mut make = |dims: &[usize]| if exact { random.integers(dims, 8) } else { random.floats(dims) };
    let (lhs, rhs) = (make(left), make(right));
    of(F32, lhs, rhs, exact)
}

/// The same of other types, `_into` an output of any.
fn typed(random: &mut Random, [out, lhs, rhs]: [DType; 3], left: &[usize], right: &[usize], exact: bool) -> Case {
    // Sums stay below 256, which bf16 holds.
    let mut make = |dims: &[usize], dtype| if exact { random.integers(dims, 3).to(dtype) } else { random.floats(dims).to(dtype) };
    let (lhs, rhs) = (make(left, lhs), make(right, rhs));
    of(out, lhs, rhs, exact)
}

fn of(out: DType, lhs: Host, rhs: Host, exact: bool) -> Case {
    let expected = expected(out, &lhs, &rhs, exact);
    of_expected(if exact { " exact" } else { "" }, lhs, rhs, expected)
}

fn of_expected(exactly: &str, lhs: Host, rhs: Host, expected: Expected) -> Case {
    let out = expected.dtype;
    let name = format!("{out} = {}{:?}x{}{:?}{exactly}", lhs.dtype, lhs.dims, rhs.dtype, rhs.dims);
    let fresh = if lhs.dtype == rhs.dtype { lhs.dtype } else { F32 };
    let dims = expected.dims.clone();
    let call = move |t: &[Tensor]| {
        if out == fresh {
            return ops::matmul(&t[0], &t[1], &Matmul::default());
        }
        // A type that only `_into` gives.
        let mut result = Tensor::zeros(t[0].device(), out, &dims)?;
        ops::matmul_into(&mut result, &t[0], &t[1], &Matmul::default())?;
        Ok(result)
    };
    Case::new(name, vec![lhs, rhs], expected, call, |out, t| ops::matmul_into(out, &t[0], &t[1], &Matmul::default()))
}

/// NumPy's `matmul` by the reference, one matrix at a time.
fn expected(out: DType, lhs: &Host, rhs: &Host, exact: bool) -> Expected {
    let (left, right) = (&lhs.dims, &rhs.dims);
    let k = left[left.len() - 1];
    let (m, n) = (if left.len() > 1 { left[left.len() - 2] } else { 1 }, if right.len() > 1 { right[right.len() - 1] } else { 1 });
    let outer = |dims: &[usize]| dims[..dims.len().saturating_sub(2)].to_vec();
    let batch = gristmill::Layout::broadcast_dims(&[&outer(left), &outer(right)]).expect("batches that broadcast");
    let matrix = |host: &Host, rows: usize, cols: usize| {
        let from = [outer(&host.dims), vec![rows, cols]].concat();
        broadcast(&host.f64s(), &from, &[&batch[..], &[rows, cols]].concat())
    };
    let (lhs, rhs) = (matrix(lhs, m, k), matrix(rhs, k, n));
    let (mut values, mut bounds) = (Vec::new(), Vec::new());
    for b in 0..batch.iter().product() {
        let (products, magnitudes) = reference::matmul(&lhs[b * m * k..][..m * k], &rhs[b * k * n..][..k * n], [m, n, k]);
        bounds.extend(magnitudes.iter().map(|&magnitude| sums(k, magnitude)));
        values.extend(products);
    }
    let mut dims = batch;
    if left.len() > 1 {
        dims.push(m);
    }
    if right.len() > 1 {
        dims.push(n);
    }
    if k == 0 {
        return Expected::equal(&dims, out, values);
    }
    if exact { Expected { dtype: out, ..Expected::exact(&dims, values) } } else { Expected::stored(&dims, out, values, bounds) }
}

/// For each tune and each size round its tiles: m, n and k go through their lists out of step, so every size of each meets most of the
/// others'.
fn tiles(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(1);
    for Handle { name, device: handle, tile, .. } in handles(device, level) {
        // Few rows have their own sizes of m; and no kernel is short of columns.
        let sizes = [tile, 1, (tile - 1).max(2), tile + 1, 37, 0, 2 * tile + 3];
        let depths = [16, 17, 1, 15, 53, 0, 130];
        let rounds = if level == Level::Full { 7 } else { 2 };
        for round in 0..rounds {
            for (i, &m) in sizes.iter().enumerate() {
                let (n, k) = (sizes[(i + round) % 7], depths[(i + 2 * round) % 7]);
                // An exact case wants few zeros: k of 1 or 2 gives none, long sums few.
                for exact in [true, false] {
                    let case = case(&mut random, &[m, k], &[k, n], exact && m * n * k > 0);
                    check(OP, &subject.name, &handle, &case, level > Level::Smoke).map_err(|e| format!("{name} {e}"))?;
                }
            }
        }
    }
    Ok(())
}

/// Every combination of types, through every tune, in sizes for both widths, for pairs, and for neither; the last ones past a tile.
fn types(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(6);
    let pairs = [(F32, F32), (F16, F16), (BF16, BF16), (F32, F16), (F32, BF16), (F16, F32), (BF16, F32)];
    let shapes = [(24, 16, 40), (8, 8, 8), (5, 9, 7), (5, 6, 7), (7, 8, 9), (1, 16, 8), (16, 1, 8), (72, 72, 24)];
    // Some drivers compile a shader for seconds: there 16 bits meet what is chosen.
    let all = if level == Level::Smoke { fused_handles(device, level) } else { handles(device, level) };
    for own in all {
        let Handle { name, device: handle, all_types, .. } = &own;
        for (i, (lhs, rhs)) in pairs.into_iter().enumerate() {
            for out in [F32, F16, BF16] {
                if (level == Level::Smoke || !*all_types) && (lhs, rhs) != (out, out) {
                    continue;
                }
                let chosen = if level == Level::Full { 0..8 } else { i % 2..8 };
                for (m, n, k) in chosen.step_by(if level == Level::Full { 1 } else { 2 }).map(|at| shapes[at]) {
                    for exact in [k <= 24, false] {
                        let case = typed(&mut random, [out, lhs, rhs], &[own.rows(m), k], &[k, n], exact);
                        check(OP, &subject.name, handle, &case, level == Level::Full).map_err(|e| format!("{name} {e}"))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Which options a case has.
#[derive(Debug, Clone, Copy)]
struct Options {
    factors: bool,
    c: bool,
    bias: Option<bool>,
    activation: Activation,
    gate: bool,
    residual: bool,
    accumulate: bool,
}

const ACTIVATIONS: [Activation; 5] = [Activation::None, Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu];

impl Options {
    /// Every combination has a number.
    fn of(number: u64) -> Self {
        let bit = |at: u64| ((number / 5) >> at) & 1 == 1;
        let bias = if bit(2) { Some(bit(3)) } else { None };
        let activation = ACTIVATIONS[(number % 5) as usize];
        Options { factors: bit(0), c: bit(1), bias, activation, gate: bit(4), residual: bit(5), accumulate: bit(6) }
    }
}

/// A case with an epilogue: its inputs are lhs, rhs and what the options name, and last what `out` held.
fn fused(random: &mut Random, dtype: DType, [m, n, k]: [usize; 3], options: Options, exact: bool) -> Case {
    let mut make = |dims: &[usize], dtype| if exact { random.integers(dims, 2).to(dtype) } else { random.floats(dims).to(dtype) };
    // Of other types than the operands', which no spec knows.
    let [other, another] = if dtype == F16 { [F32, BF16] } else { [F16, F32] };
    let (alpha, beta) = if options.factors { (if exact { -2.0 } else { 0.7 }, if exact { 3.0 } else { -1.3 }) } else { (1.0, 1.0) };
    let mut inputs = vec![make(&[m, k], dtype), make(&[k, n], dtype)];
    let mut add = |there: bool, dims: &[usize], dtype| {
        if !there {
            return None;
        }
        inputs.push(make(dims, dtype));
        Some(inputs.len() - 1)
    };
    let gate = add(options.gate, &[k, n], dtype);
    let c = add(options.c, &[m, 1], other);
    let bias = add(options.bias.is_some(), &[if options.bias == Some(true) { m } else { n }], another);
    let residual = add(options.residual, &[m, n], dtype);
    let held = add(options.accumulate, &[m, n], dtype);

    let numbers = |at: usize| inputs[at].f64s();
    let (products, magnitudes) = reference::matmul(&numbers(0), &numbers(1), [m, n, k]);
    let gates = gate.map(|gate| reference::matmul(&numbers(0), &numbers(gate), [m, n, k]));
    let full = |at: Option<usize>, dims: &[usize]| at.map(|at| broadcast(&numbers(at), dims, &[m, n]));
    let c_values = full(c, &[m, 1]);
    let bias_dims = if options.bias == Some(true) { vec![m, 1] } else { vec![n] };
    let bias_values = full(bias, &bias_dims);
    let (residual_values, held_values) = (full(residual, &[m, n]), full(held, &[m, n]));
    // Each value with what its roundings may have cost so far, to first order.
    let evaluated = (0..m * n).map(|i| {
        let mut x = alpha * products[i];
        let mut e = alpha.abs() * sums(k, magnitudes[i]) + bounds::rounding(x);
        let mut plus = |x: &mut f64, term: f64| {
            *x += term;
            e += bounds::rounding(*x) + bounds::rounding(term);
        };
        if let Some(c) = &c_values {
            plus(&mut x, beta * c[i]);
        }
        if let Some(bias) = &bias_values {
            plus(&mut x, bias[i]);
        }
        // The largest slopes: of both gelus 1.129, of silu 1.0998.
        let (y, own, slope) = match options.activation {
            Activation::Relu => (x.max(0.0), 0.0, 1.0),
            Activation::Gelu => {
                let y = x * 0.5 * reference::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
                (y, bounds::gelu(x, y), 1.13)
            }
            Activation::GeluTanh => {
                let y = x * reference::sigmoid(reference::tanh_gate(x));
                (y, bounds::gelu_tanh(x, y), 1.13)
            }
            Activation::Silu => {
                let y = x * reference::sigmoid(x);
                (y, bounds::units(10.0, y), 1.1) // as `ops::silu` states it
            }
            _ => (x, 0.0, 1.0),
        };
        let (mut x, mut e) = (y, slope * e + own);
        if let Some((gates, sizes)) = &gates {
            let g = alpha * gates[i];
            e = e * g.abs() + x.abs() * (alpha.abs() * sums(k, sizes[i]) + bounds::rounding(g));
            x *= g;
            e += bounds::rounding(x);
        }
        for term in [&residual_values, &held_values].into_iter().flatten() {
            x += term[i];
            e += bounds::rounding(x) + bounds::rounding(term[i]);
        }
        (x, e)
    });
    let (values, errors): (Vec<f64>, Vec<f64>) = evaluated.unzip();
    let dims = [m, n];
    let exact = exact && matches!(options.activation, Activation::None | Activation::Relu);
    let expected = if exact { Expected::equal(&dims, dtype, values) } else { Expected::stored(&dims, dtype, values, errors) };
    let call = move |out: &mut Tensor, t: &[Tensor]| {
        let at = |number: Option<usize>| number.map(|number| &t[number]);
        let bias = at(bias).map(|bias| if options.bias == Some(true) { Bias::Rows(bias) } else { Bias::Columns(bias) });
        if let Some(held) = at(held) {
            ops::copy_into(out, held)?;
        }
        let (alpha, beta, activation, accumulate) = (alpha as f32, beta as f32, options.activation, options.accumulate);
        let options = Matmul { alpha, beta, c: at(c), bias, activation, gate: at(gate), residual: at(residual), accumulate, dtype: None };
        ops::matmul_into(out, &t[0], &t[1], &options)
    };
    let fresh = move |t: &[Tensor]| {
        let mut out = Tensor::zeros(t[0].device(), dtype, &dims)?;
        call(&mut out, t)?;
        Ok(out)
    };
    let exactly = if exact { " exact" } else { "" };
    Case::new(format!("{dtype} {m}x{n}x{k} {options:?}{exactly}"), inputs, expected, fresh, call)
}

/// Every option through every kernel, in sizes for both widths, for pairs, and for neither: some of the combinations in each, all in all.
fn epilogues(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(10);
    let shapes = [[24, 16, 40], [5, 9, 7], [5, 6, 7], [7, 72, 16], [70, 136, 24], [8, 8, 8], [1, 40, 33], [33, 3, 20]];
    let combinations = 5 * 128;
    for (at, own) in fused_handles(device, level).into_iter().enumerate() {
        let Handle { name, device: handle, all_types, .. } = &own;
        let count = match level {
            Level::Smoke => 8,
            Level::Quick => 32,
            Level::Full => combinations,
        };
        for i in 0..count {
            // A stride that is prime to the number of them: every kernel meets others.
            let number = (i * 77 + at as u64 * 13) % combinations;
            let ([m, n, k], dtype) = (shapes[(i % 8) as usize], if !*all_types { F32 } else { [F32, F16, BF16][(i / 8 % 3) as usize] });
            let case = fused(&mut random, dtype, [own.rows(m), n, k], Options::of(number), i % 4 == 3 && dtype == F32);
            check(OP, &subject.name, handle, &case, level == Level::Full).map_err(|e| format!("{name} {e}"))?;
        }
    }
    Ok(())
}

/// Few elements and a k that is split.
fn long_k(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(11);
    for own in fused_handles(device, level) {
        let Handle { name, device: handle, all_types, .. } = &own;
        for (m, n, k) in [(3, 5, 3000), (16, 40, 2056), (2, 8, 1031)] {
            let m = own.rows(m);
            check(OP, &subject.name, handle, &case(&mut random, &[m, k], &[k, n], false), false).map_err(|e| format!("{name} {e}"))?;
            if level == Level::Smoke {
                continue;
            }
            let options = Options { gate: true, residual: true, ..Options::of(0) };
            let case = fused(&mut random, if *all_types { F16 } else { F32 }, [m, n, k], options, false);
            check(OP, &subject.name, handle, &case, false).map_err(|e| format!("{name} {e}"))?;
        }
    }
    Ok(())
}

/// N8: NaN stays in its row of lhs and its column of rhs; sums past f16's range are infinite there; huge values that stay in f32's.
fn extremes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(14);
    for own in handles(device, level) {
        for (m, n, k) in [(9, 24, 16), (7, 9, 21)] {
            let m = own.rows(m);
            let (row, col) = (m / 2, n / 3);
            let (mut lhs, mut rhs) = (random.floats(&[m, k]), random.floats(&[k, n]));
            let clean = expected(F32, &lhs, &rhs, false);
            let poisoned = |host: &Host, at: usize| {
                let mut values: Vec<f32> = host.f64s().into_iter().map(|x| x as f32).collect();
                values[at] = f32::NAN;
                Host::new(&host.dims, &values)
            };
            (lhs, rhs) = (poisoned(&lhs, row * k + k / 2), poisoned(&rhs, k / 3 * n + col));
            let values = clean.values.iter().enumerate().map(|(i, &x)| if i / n == row || i % n == col { f64::NAN } else { x }).collect();
            let nan = of_expected(" NaN", lhs, rhs, Expected { values, ..clean });
            let full = |dims: &[usize], value: f32| Host::new(dims, &vec![value; dims.iter().product()]);
            let [up, down] = [200.0, -300.0].map(|x| full(&[m, k], x).to(F16));
            let large = [up, down].map(|lhs| of(F16, lhs, full(&[k, n], 200.0).to(F16), false));
            let huge = of(F32, full(&[m, k], 1e30), full(&[k, n], -3e6), false);
            // As in `transposes`.
            let large = large.into_iter().filter(|_| level > Level::Smoke);
            for case in large.chain([nan, huge]) {
                check(OP, &subject.name, &own.device, &case, false).map_err(|e| format!("{} {e}", own.name))?;
            }
        }
    }
    Ok(())
}

/// Batches whose gate, c, bias and residual have batches of their own or none, vectors, and a k of nothing.
fn batched_epilogues(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(15);
    for Handle { name, device: handle, .. } in fused_handles(device, level) {
        for (batch, [m, n, k]) in [(3, [5, 9, 7]), (2, [8, 16, 24]), (3, [1, 8, 8]), (2, [7, 8, 0]), (2, [3, 5, 0]), (0, [3, 5, 4])] {
            let mut make = |dims: &[usize]| random.floats(dims);
            // lhs, rhs, gate; c, bias, residual; what `out` held.
            let inputs = vec![
                make(&[batch, m, k]),
                make(&[k, n]),
                make(&[k, n]),
                make(&[batch, 1, n]),
                make(&[m]),
                make(&[m, n]),
                make(&[batch, m, n]),
            ];
            let dims = [batch, m, n];
            let all = |at: usize, from: &[usize]| broadcast(&inputs[at].f64s(), from, &dims);
            let (c, bias, residual, held) = (all(3, &[batch, 1, n]), all(4, &[1, m, 1]), all(5, &[1, m, n]), inputs[6].f64s());
            let (mut values, mut errors) = (Vec::new(), Vec::new());
            for b in 0..batch {
                let lhs = &inputs[0].f64s()[b * m * k..][..m * k];
                let [(x, x_size), (g, g_size)] = [1, 2].map(|at| reference::matmul(lhs, &inputs[at].f64s(), [m, n, k]));
                for i in 0..m * n {
                    let at = b * m * n + i;
                    let terms = [0.5 * x[i], 2.0 * c[at], bias[at]];
                    let sum: f64 = terms.iter().sum();
                    let size: f64 = terms.iter().map(|term| term.abs()).sum();
                    let (sum_error, gate) = (0.5 * sums(k, x_size[i]) + 4.0 * bounds::rounding(size), 0.5 * g[i]);
                    let gate_error = 0.5 * sums(k, g_size[i]) + bounds::rounding(gate);
                    let relu = sum.max(0.0);
                    let value = relu * gate + residual[at] + held[at];
                    let size = (relu * gate).abs() + residual[at].abs() + held[at].abs();
                    values.push(value);
                    errors.push(sum_error * (gate.abs() + gate_error) + relu * gate_error + 4.0 * bounds::rounding(size));
                }
            }
            let call = move |out: &mut Tensor, t: &[Tensor]| {
                ops::copy_into(out, &t[6])?;
                let options = Matmul {
                    alpha: 0.5,
                    beta: 2.0,
                    c: Some(&t[3]),
                    bias: Some(Bias::Rows(&t[4])),
                    activation: Activation::Relu,
                    gate: Some(&t[2]),
                    residual: Some(&t[5]),
                    accumulate: true,
                    dtype: Some(F32),
                };
                ops::matmul_into(out, &t[0], &t[1], &options)
            };
            let fresh = move |t: &[Tensor]| {
                let mut out = Tensor::zeros(t[0].device(), F32, &dims)?;
                call(&mut out, t)?;
                Ok(out)
            };
            let expected = Expected::stored(&dims, F32, values, errors);
            let case = Case::new(format!("batched {dims:?} k {k}"), inputs, expected, fresh, call);
            check(OP, &subject.name, &handle, &case, level == Level::Full).map_err(|e| format!("{name} {e}"))?;
        }
    }
    // Vectors have options too, and a result of any float type.
    let (lhs, rhs, c) = (random.floats(&[40]), random.floats(&[40, 24]), random.floats(&[24]));
    let plain = expected(F32, &lhs, &rhs, false);
    let values: Vec<f64> = plain.values.iter().zip(c.f64s()).map(|(x, c)| x - 3.0 * c).collect();
    let errors = plain.bounds.iter().zip(&values).zip(c.f64s()).map(|((e, x), c)| e + bounds::rounding(*x) + bounds::rounding(3.0 * c));
    let expected = Expected::stored(&[24], BF16, values.clone(), errors.collect());
    let call = |t: &[Tensor]| {
        let options = Matmul { beta: -3.0, c: Some(&t[2]), dtype: Some(BF16), ..Matmul::default() };
        ops::matmul(&t[0], &t[1], &options)
    };
    let into =
        |out: &mut Tensor, t: &[Tensor]| ops::matmul_into(out, &t[0], &t[1], &Matmul { beta: -3.0, c: Some(&t[2]), ..Matmul::default() });
    check(OP, &subject.name, device, &Case::new("a vector, plus c, in bf16", vec![lhs, rhs, c], expected, call, into), true)
}

/// Operands transposed in memory, each alone and both, in eights and beside them: 16-byte loads run along either axis.
fn transposes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(7);
    for own in handles(device, level) {
        let Handle { name: tune, device: handle, .. } = &own;
        for ((m, n, k), dtype) in [(8, 136, 64), (3, 40, 72), (72, 80, 48), (8, 24, 16), (40, 33, 24), (33, 40, 24), (40, 40, 23)]
            .into_iter()
            .zip([F32, F16, BF16].into_iter().cycle())
            .take(if level == Level::Smoke { 2 } else { usize::MAX })
        {
            // A type more is a shader more for each kernel, which some drivers compile for seconds.
            let dtype = if level == Level::Smoke { F32 } else { dtype };
            for (lhs_turned, rhs_turned) in [(true, false), (false, true), (true, true)] {
                let plain = typed(&mut random, [dtype; 3], &[own.rows(m), k], &[k, n], false);
                let case = turned(device, plain, [lhs_turned, rhs_turned])?;
                check(OP, &subject.name, handle, &case, level > Level::Smoke).map_err(|e| format!("{tune} {e}"))?;
            }
        }
    }
    Ok(())
}

/// A case of two matrices of one type, with those transposed in memory that are said to be.
fn turned(device: &Device, plain: Case, [lhs_turned, rhs_turned]: [bool; 2]) -> Result<Case, String> {
    let turned = |host: &Host, turned: bool| {
        if !turned {
            return host.clone();
        }
        let (rows, cols, values) = (host.dims[0], host.dims[1], host.f64s());
        let values: Vec<f32> = (0..rows * cols).map(|i| values[i % rows * cols + i / rows] as f32).collect();
        Host::new(&[cols, rows], &values).to(host.dtype)
    };
    let inputs = vec![turned(&plain.inputs[0], lhs_turned), turned(&plain.inputs[1], rhs_turned)];
    let view = |t: &Tensor, turned: bool| if turned { t.transpose(0, 1) } else { Ok(t.clone()) };
    Ok(Case::new(
        format!("{} turned {lhs_turned} {rhs_turned}", plain.name),
        inputs,
        (plain.expected)(device)?,
        move |t: &[Tensor]| ops::matmul(&view(&t[0], lhs_turned)?, &view(&t[1], rhs_turned)?, &Matmul::default()),
        move |out: &mut Tensor, t: &[Tensor]| {
            ops::matmul_into(out, &view(&t[0], lhs_turned)?, &view(&t[1], rhs_turned)?, &Matmul::default())
        },
    ))
}

/// Cooperative matrices, by every tune that the device can run: sizes round the tile, results of each type, operands that lie either way,
/// batches, epilogues, a long k; each of them a product that the kernel serves, and by its plan does.
#[cfg(feature = "gpu")]
fn cooperative(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    use gristmill::gpu::{AdapterKind, Backend, Checks, GpuOptions};
    use gristmill::ops::matmul::gpu::{MATMUL_COOP, cooperates};

    let Some(caps) = device.caps() else { return Ok(()) };
    let lavapipe = caps.kind == AdapterKind::Software && caps.driver.contains("Mesa 26") && caps.subgroups == Some((8, 8));
    if lavapipe && caps.cooperative != Some(8) {
        return Err(format!("{} has cooperative matrices of 8 in Mesa 26, and the device shows {:?}", caps.name, caps.cooperative));
    }
    if caps.cooperative.is_none() {
        return Ok(());
    }
    let able = MATMUL_COOP.tunes.iter().any(|tune| cooperates(caps, tune).is_ok());
    if !able && caps.backend != Backend::Metal {
        return Err(format!("no tune of matmul_coop is for {caps:?}"));
    }
    multiply(subject, device, level)?;
    // The subject whose checks are off is at WebGPU's defaults, and has no matrices.
    let adapter = Device::adapters().into_iter().find(|adapter| (adapter.backend, &adapter.name) == (caps.backend, &caps.name));
    let options = GpuOptions { adapter, software: true, checks: Checks::Off, ..GpuOptions::default() };
    multiply(subject, &Device::gpu(&options).map_err(|error| error.to_string())?, Level::Smoke)
}

#[cfg(feature = "gpu")]
fn multiply(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    use gristmill::ops::matmul::gpu::{MATMUL_COOP, cooperates};

    let Some(caps) = device.caps() else { return Ok(()) };
    let mut random = Random::new(12);
    for tune in MATMUL_COOP.tunes.iter().filter(|tune| cooperates(caps, tune).is_ok()) {
        let handle = device.pinned((&MATMUL_COOP, tune));
        let tile = tune.get("TILE_M").unwrap_or(64) as usize;
        let run = |case: Case, served: bool, all_forms: bool| {
            expect(served, format!("{} {}: the plan has no matmul_coop", tune.name, case.name))?;
            check(OP, &subject.name, &handle, &case, all_forms).map_err(|e| format!("{} {e}", tune.name))
        };
        let served = |dims: [usize; 3], sides| coop_serves(caps, tune, [F16; 3], &[], dims, sides);

        let sizes = [[tile, tile, 32], [1, 8, 8], [tile - 1, tile - 8, 40], [tile + 1, tile + 8, 16], [2 * tile + 3, 2 * tile, 72]];
        for (i, [m, n, k]) in sizes.into_iter().enumerate() {
            for (out, exact) in [(F32, true), (F16, true), (BF16, k < 28), (F32, false), (F16, false)] {
                let case = typed(&mut random, [out, F16, F16], &[m, k], &[k, n], exact);
                run(case, coop_serves(caps, tune, [out, F16, F16], &[], [m, n, k], [false; 2]), level == Level::Full || i == 2)?;
            }
        }
        for [m, n, k] in [[tile + 8, tile + 16, 40], [8, 24, 64], [2 * tile, 8, 24]] {
            for sides in [[true, false], [false, true], [true, true]] {
                let case = turned(device, typed(&mut random, [F16; 3], &[m, k], &[k, n], true), sides)?;
                run(case, served([m, n, k], sides), level == Level::Full)?;
            }
        }
        for (left, right) in [(vec![3], vec![3]), (vec![2, 3], vec![1]), (vec![2, 1, 2, 1], vec![3, 1, 2])] {
            let [m, n, k] = [tile + 2, 24, 24];
            let case = typed(&mut random, [F16; 3], &[&left[..], &[m, k]].concat(), &[&right[..], &[k, n]].concat(), true);
            let batch = gristmill::Layout::broadcast_dims(&[&left, &right]).expect("they broadcast");
            run(case, coop_serves(caps, tune, [F16; 3], &batch, [m, n, k], [false; 2]), false)?;
        }
        run(typed(&mut random, [F32, F16, F16], &[9, 2056], &[2056, 16], false), served([9, 16, 2056], [false; 2]), false)?;
        let [m, n, k] = [tile, 24, 40];
        run(narrow_gate(device, &mut random, [m, n, k])?, served([m, n, k], [false; 2]), false)?;
        let shapes = [[24, 16, 40], [tile + 6, 2 * tile + 8, 24], [8, 8, 8], [7, 72, 16]];
        let combinations = 5 * 128;
        let count = match level {
            Level::Smoke => 16,
            Level::Quick => 80,
            Level::Full => combinations,
        };
        for i in 0..count {
            let shape = shapes[(i % 4) as usize];
            let options = Options::of(i * 77 % combinations);
            // A gated product would pass 2048, above which f16 does not hold every whole number.
            let case = fused(&mut random, F16, shape, options, i % 3 == 2 && !options.gate);
            run(case, served(shape, [false; 2]), false)?;
        }
    }
    Ok(())
}

/// A gated product whose gate has rows of another stride than `rhs`.
#[cfg(feature = "gpu")]
fn narrow_gate(device: &Device, random: &mut Random, [m, n, k]: [usize; 3]) -> Result<Case, String> {
    let plain = fused(random, F16, [m, n, k], Options { gate: true, ..Options::of(4) }, false);
    let expected = (plain.expected)(device)?;
    let Case { mut inputs, call, call_into, .. } = plain;
    let (wide, gate) = (n + 8, inputs[2].f64s());
    let values: Vec<f32> = (0..k * wide).map(|i| if i % wide < n { gate[i / wide * n + i % wide] as f32 } else { 9.0 }).collect();
    inputs[2] = Host::new(&[k, wide], &values).to(F16);
    let narrowed = move |t: &[Tensor]| Ok::<_, gristmill::Error>([&t[..2], &[t[2].narrow(1, 0..n)?]].concat());
    Ok(Case::new(
        format!("{} gate of {wide} columns", plain.name),
        inputs,
        expected,
        move |t| call(&narrowed(t)?),
        move |out, t| call_into(out, &narrowed(t)?),
    ))
}

/// Whether the plan of a dense product, some sides of which lie transposed, has `matmul_coop` in it.
#[cfg(feature = "gpu")]
fn coop_serves(
    caps: &gristmill::gpu::Caps,
    tune: &'static gristmill::gpu::Constants,
    dtypes: [DType; 3],
    batch: &[usize],
    [m, n, k]: [usize; 3],
    [lhs_turned, rhs_turned]: [bool; 2],
) -> bool {
    use gristmill::ops::matmul::{Epilogue, Problem, gpu};
    let dense = |rows, cols, turned: bool| {
        let dims = |rows, cols| [batch, &[rows, cols]].concat();
        let layout = gristmill::Layout::contiguous(&if turned { dims(cols, rows) } else { dims(rows, cols) }).expect("a small shape");
        if turned { layout.transpose(layout.rank() - 2, layout.rank() - 1).expect("two axes") } else { layout }
    };
    let (out, lhs, rhs) = (dense(m, n, false), dense(m, k, lhs_turned), dense(k, n, rhs_turned));
    let problem = Problem { dtypes, batch_invariant: false, out, lhs, rhs, epilogue: Epilogue::NONE };
    let plan = gpu::plan(caps, Some((&gpu::MATMUL_COOP, tune).into()), &problem);
    plan.is_ok_and(|plan| plan.dispatches.iter().any(|dispatch| dispatch.kernel.name == "matmul_coop" && dispatch.spec.tune == tune))
}

/// What would be chosen on GPUs, which the adapters here are not: run all the same. Few rows and columns in every pair, a long k, a tile or two.
#[cfg(feature = "gpu")]
fn choices(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    use gristmill::gpu::{AdapterKind, Throughput};

    let (Some(caps), true) = (device.caps(), level > Level::Smoke) else { return Ok(()) };
    let mut random = Random::new(13);
    let few = [1, 2, 3, 5, 8, 9];
    let pairs = few.into_iter().flat_map(|m| few.map(|n| [m, n, 17]));
    let more =
        [[40, 1, 16], [40, 7, 24], [3, 40, 24], [70, 70, 40], [40, 16, 1100], [5, 3, 1100], [130, 20, 33], [2, 5, 9001], [11, 3, 8200]];
    for kind in [AdapterKind::Discrete, AdapterKind::Integrated] {
        // As fast as one: what is long for the adapter at hand would be cut.
        let mut caps = caps.clone();
        (caps.kind, caps.throughput) = (kind, Throughput { flops: 1 << 40, bytes: 1 << 40 });
        for [m, n, k] in pairs.clone().chain(more) {
            let plain = case(&mut random, &[m, k], &[k, n], false);
            let (bias, residual) = (random.floats(&[n]), random.floats(&[m, n]));
            let Expected { values, bounds, .. } = (plain.expected)(device)?;
            let (biases, residuals) = (bias.f64s(), residual.f64s());
            let terms = values.iter().enumerate().map(|(i, x)| [*x, biases[i % n], residuals[i]]);
            let (values, bounds) = (
                terms.clone().map(|terms| terms.iter().sum()).collect(),
                terms.zip(bounds).map(|(terms, e)| e + 3.0 * terms.map(|term| bounds::rounding(term.abs())).iter().sum::<f64>()).collect(),
            );
            let expected = Expected::stored(&[m, n], F32, values, bounds);
            let caps = caps.clone();
            let call_into = move |out: &mut Tensor, t: &[Tensor]| planned(&caps, out, t);
            let into = call_into.clone();
            let call = move |t: &[Tensor]| {
                let mut out = Tensor::zeros(t[0].device(), F32, &[m, n])?;
                into(&mut out, t)?;
                Ok(out)
            };
            let inputs = [plain.inputs, vec![bias, residual]].concat();
            let case = Case::new(format!("as for {kind:?}, {}", plain.name), inputs, expected, call, call_into);
            check(OP, &subject.name, device, &case, false)?;
        }
    }
    Ok(())
}

/// The plan that other facts give, run here: lhs, rhs, bias, residual.
#[cfg(feature = "gpu")]
fn planned(caps: &gristmill::gpu::Caps, out: &mut Tensor, t: &[Tensor]) -> gristmill::Result<()> {
    use gristmill::ops::matmul::{Epilogue, Extra, Problem, gpu};
    let extra = |t: &Tensor| t.layout().broadcast_to(out.shape()).map(|layout| Extra { dtype: t.dtype(), layout });
    let problem = Problem {
        dtypes: [out.dtype(), t[0].dtype(), t[1].dtype()],
        batch_invariant: false,
        out: *out.layout(),
        lhs: *t[0].layout(),
        rhs: *t[1].layout(),
        epilogue: Epilogue { bias: extra(&t[2]), residual: extra(&t[3]), ..Epilogue::NONE },
    };
    ops::dispatch(OP, &gpu::plan(caps, None, &problem)?, out, &[&t[0], &t[1], &t[2], &t[3]])
}

/// N5: a row alone, and inside batches of 1 to 257, gives the same bits.
fn batch_invariant(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(8);
    let sizes = [1, 2, 7, 8, 16, 17, 32, 33, 64, 65, 100, 128, 129, 200, 256, 257];
    let handle = device.batch_invariant();
    for (k, n, dtypes) in [(72, 40, (F32, F32)), (130, 33, (F32, F32)), (600, 24, (BF16, BF16)), (40, 136, (F32, F16))] {
        let (lhs, rhs) = (random.floats(&[257, k]).to(dtypes.0), random.floats(&[k, n]).to(dtypes.1));
        let run = |m: usize, first: usize| -> gristmill::Result<Vec<u32>> {
            let lhs = lhs.upload(&handle)?.narrow(0, first..first + m)?;
            // Of its own, and as the window that it is.
            let out = ops::matmul(&if m == 1 { ops::copy(&lhs)? } else { lhs }, &rhs.upload(&handle)?, &Matmul::default())?;
            Ok(ops::cast(&out, F32)?.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect())
        };
        let whole = run(257, 0).map_err(|e| e.to_string())?;
        for &m in sizes.iter().take(if level == Level::Smoke { 3 } else { 16 }) {
            let first = random.below(258 - m);
            let part = run(m, first).map_err(|e| e.to_string())?;
            if part != whole[first * n..(first + m) * n] {
                return Err(format!(
                    "rows {first}..{} of k {k} n {n} differ on {} from what they are among 257 (N5)",
                    first + m,
                    subject.name
                ));
            }
        }
    }
    Ok(())
}

/// Batches that broadcast, vectors, six axes.
fn batches(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(2);
    let shapes: &[(&[usize], &[usize])] = &[
        (&[2, 5, 7], &[7, 3]),
        (&[5, 7], &[3, 7, 4]),
        (&[2, 1, 6, 5], &[3, 5, 4]),
        (&[2, 3, 4, 1, 4, 3], &[1, 3, 1, 5, 3, 5]),
        (&[7], &[7]),
        (&[7], &[7, 5]),
        (&[5, 7], &[7]),
        (&[2, 3, 5, 7], &[7]),
        (&[7], &[2, 3, 7, 5]),
        (&[1, 300], &[300, 1]),
        // Several tiles one way, one the other, in each batch.
        (&[3, 70, 5], &[3, 5, 9]),
        (&[3, 9, 5], &[3, 5, 70]),
        // Past the CPU's blocks of 128 x 512.
        (&[129, 20], &[20, 513]),
        (&[0, 3, 4], &[4, 2]),
        (&[2, 3, 0], &[2, 0, 4]),
        (&[0], &[0]),
    ];
    for (left, right) in shapes {
        for exact in [true, false] {
            let empty = left.contains(&0) || right.contains(&0);
            check(OP, &subject.name, device, &case(&mut random, left, right, exact && !empty), level > Level::Smoke)?;
        }
    }
    Ok(())
}

/// An odd number of workgroups, more than a dimension of the grid holds, in four axes that do not merge: the numbers past the last must not wrap to any.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    check(OP, &subject.name, device, &case(&mut Random::new(3), &[9, 1, 83, 1, 2, 1], &[1, 11, 1, 9, 1, 2], true), false)
}

/// Shapes that nobody chose.
fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let batch = prop::collection::vec(1usize..3, 0..3);
    let shapes = (batch, 0usize..80, 0usize..80, 0usize..80, any::<u64>());
    sample(level, &shapes, |(batch, m, n, k, seed)| {
        let mut random = Random::new(seed);
        let right_batch: Vec<usize> = batch.iter().map(|&b| if random.below(2) == 0 { 1 } else { b }).collect();
        let (left, right) = ([&batch[..], &[m, k]].concat(), [&right_batch[..], &[k, n]].concat());
        check(OP, &subject.name, device, &case(&mut random, &left, &right, false), true)
    })
}
