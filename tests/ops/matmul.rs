//! Matmul: every tune at sizes round every tile, batches, vectors, strides; N1 to N4, N6, N8, N9.

use DType::{BF16, F16, F32};
use gristmill::{DType, Device, Tensor, ops};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::bounds::sums;
use crate::support::devices::{Level, Subject};
use crate::support::input::{Host, Random};
use crate::support::reference::{self, broadcast};
use crate::support::runner::{Case, Expected, check, pinned, same_on_any_threads, sample, trial, trials};

const OP: &str = "matmul";

pub fn all() -> Vec<Trial> {
    let mut all = trials(OP, "large_grid", large_grid);
    all.extend(trials(OP, "tiles", tiles));
    all.extend(trials(OP, "types", types));
    all.extend(trials(OP, "transposes", transposes));
    all.extend(trials(OP, "batches", batches));
    all.extend(trials(OP, "batch_invariant", batch_invariant));
    all.extend(trials(OP, "random", random));
    all.push(trial("matmul::threads", || {
        same_on_any_threads(|device| {
            let mut random = Random::new(9);
            let wide = case(&mut random, device, &[3, 130, 70], &[70, 600], false);
            vec![wide, typed(&mut random, [F16, BF16, F32], &[130, 300], &[300, 20], false)]
        })
    }));
    all
}

/// A case of two operands of any rank, with random or (for N1) small whole values.
fn case(random: &mut Random, _device: &Device, left: &[usize], right: &[usize], exact: bool) -> Case {
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
    let exactly = if exact { " exact" } else { "" };
    let name = format!("{out} = {}{:?}x{}{:?}{exactly}", lhs.dtype, lhs.dims, rhs.dtype, rhs.dims);
    let fresh = if lhs.dtype == rhs.dtype { lhs.dtype } else { F32 };
    let dims = expected.dims.clone();
    let call = move |t: &[Tensor]| {
        if out == fresh {
            return ops::matmul(&t[0], &t[1]);
        }
        // A type that only `_into` gives.
        let mut result = Tensor::zeros(t[0].device(), out, &dims)?;
        ops::matmul_into(&mut result, &t[0], &t[1])?;
        Ok(result)
    };
    Case::new(name, vec![lhs, rhs], expected, call, |out, t| ops::matmul_into(out, &t[0], &t[1]))
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
    for (name, handle) in pinned(device, "matmul", level) {
        let tile = match name.as_str() {
            "matmul.tile64" => 64,
            _ => 16,
        };
        let sizes = [tile, 1, tile - 1, tile + 1, 37, 0, 2 * tile + 3];
        let depths = [16, 17, 1, 15, 53, 0, 130];
        let rounds = if level == Level::Full { 7 } else { 2 };
        for round in 0..rounds {
            for (i, &m) in sizes.iter().enumerate() {
                let (n, k) = (sizes[(i + round) % 7], depths[(i + 2 * round) % 7]);
                // An exact case wants few zeros: k of 1 or 2 gives none, long sums few.
                for exact in [true, false] {
                    let case = case(&mut random, &handle, &[m, k], &[k, n], exact && m * n * k > 0);
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
    for (name, handle) in pinned(device, OP, level) {
        for (i, (lhs, rhs)) in pairs.into_iter().enumerate() {
            for out in [F32, F16, BF16] {
                let chosen = if level == Level::Full { 0..8 } else { i % 2..8 };
                for (m, n, k) in chosen.step_by(if level == Level::Full { 1 } else { 2 }).map(|at| shapes[at]) {
                    for exact in [k <= 24, false] {
                        let case = typed(&mut random, [out, lhs, rhs], &[m, k], &[k, n], exact);
                        check(OP, &subject.name, &handle, &case, level == Level::Full).map_err(|e| format!("{name} {e}"))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Operands transposed in memory, each alone and both, in eights and beside them: 16-byte loads run along either axis.
fn transposes(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(7);
    for (tune, handle) in pinned(device, OP, level) {
        for ((m, n, k), dtype) in
            [(72, 80, 48), (8, 24, 16), (40, 33, 24), (33, 40, 24), (40, 40, 23)].into_iter().zip([F32, F16, BF16].into_iter().cycle())
        {
            for (lhs_turned, rhs_turned) in [(true, false), (false, true), (true, true)] {
                let plain = typed(&mut random, [dtype; 3], &[m, k], &[k, n], false);
                let turned = |host: &Host, turned: bool| {
                    if !turned {
                        return host.clone();
                    }
                    let (rows, cols, values) = (host.dims[0], host.dims[1], host.f64s());
                    let values: Vec<f32> = (0..rows * cols).map(|i| values[i % rows * cols + i / rows] as f32).collect();
                    Host::new(&[cols, rows], &values).to(dtype)
                };
                let inputs = vec![turned(&plain.inputs[0], lhs_turned), turned(&plain.inputs[1], rhs_turned)];
                let view = |t: &Tensor, turned: bool| if turned { t.transpose(0, 1) } else { Ok(t.clone()) };
                let case = Case::new(
                    format!("{} turned {lhs_turned} {rhs_turned}", plain.name),
                    inputs,
                    (plain.expected)(device)?,
                    move |t: &[Tensor]| ops::matmul(&view(&t[0], lhs_turned)?, &view(&t[1], rhs_turned)?),
                    move |out: &mut Tensor, t: &[Tensor]| ops::matmul_into(out, &view(&t[0], lhs_turned)?, &view(&t[1], rhs_turned)?),
                );
                check(OP, &subject.name, &handle, &case, level > Level::Smoke).map_err(|e| format!("{tune} {e}"))?;
            }
        }
    }
    Ok(())
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
            let out = ops::matmul(&if m == 1 { ops::copy(&lhs)? } else { lhs }, &rhs.upload(&handle)?)?;
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
            check(OP, &subject.name, device, &case(&mut random, device, left, right, exact && !empty), level > Level::Smoke)?;
        }
    }
    Ok(())
}

/// An odd number of workgroups, more than a dimension of the grid holds, in four axes that do not merge: the numbers past the last must not wrap to any.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    check(OP, &subject.name, device, &case(&mut Random::new(3), device, &[9, 1, 83, 1, 2, 1], &[1, 11, 1, 9, 1, 2], true), false)
}

/// Shapes that nobody chose.
fn random(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let batch = prop::collection::vec(1usize..3, 0..3);
    let shapes = (batch, 0usize..80, 0usize..80, 0usize..80, any::<u64>());
    sample(level, &shapes, |(batch, m, n, k, seed)| {
        let mut random = Random::new(seed);
        let right_batch: Vec<usize> = batch.iter().map(|&b| if random.below(2) == 0 { 1 } else { b }).collect();
        let (left, right) = ([&batch[..], &[m, k]].concat(), [&right_batch[..], &[k, n]].concat());
        check(OP, &subject.name, device, &case(&mut random, device, &left, &right, false), true)
    })
}
