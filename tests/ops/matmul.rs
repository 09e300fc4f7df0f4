//! Matmul: every tune at sizes round every tile, batches, vectors, strides; N1 to N4, N6, N8, N9.

use gristmill::{Device, ops};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::bounds::sums;
use crate::support::devices::{Level, Subject};
use crate::support::input::{Host, Random};
use crate::support::reference::{self, broadcast};
use crate::support::runner::{Case, Expected, check, pinned, same_on_any_threads, sample, trial, trials};

const OP: &str = "matmul";

pub fn all() -> Vec<Trial> {
    let mut all = trials(OP, "tiles", tiles);
    all.extend(trials(OP, "batches", batches));
    all.extend(trials(OP, "large_grid", large_grid));
    all.extend(trials(OP, "random", random));
    all.push(trial("matmul::threads", || {
        same_on_any_threads(|device| vec![case(&mut Random::new(9), device, &[3, 130, 70], &[70, 600], false)])
    }));
    all
}

/// A case of two operands of any rank, with random or (for N1) small whole values.
fn case(random: &mut Random, _device: &Device, left: &[usize], right: &[usize], exact: bool) -> Case {
    let mut make = |dims: &[usize]| if exact { random.integers(dims, 8) } else { random.floats(dims) };
    let (lhs, rhs) = (make(left), make(right));
    let expected = expected(&lhs, &rhs, exact);
    let name = format!("{left:?}x{right:?}{}", if exact { " exact" } else { "" });
    let call = |t: &[gristmill::Tensor]| ops::matmul(&t[0], &t[1]);
    Case::new(name, vec![lhs, rhs], expected, call, |out, t| ops::matmul_into(out, &t[0], &t[1]))
}

/// NumPy's `matmul` by the reference, one matrix at a time.
fn expected(lhs: &Host, rhs: &Host, exact: bool) -> Expected {
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
        return Expected::equal(&dims, gristmill::DType::F32, values);
    }
    if exact { Expected::exact(&dims, values) } else { Expected::within(&dims, values, bounds) }
}

/// For each tune and each size round its tiles: m, n and k go through their lists out of step, so every size of each meets most of the
/// others'.
fn tiles(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(1);
    for (name, handle) in pinned(device, "matmul", level) {
        let tile = match name.as_str() {
            "matmul.tile64" => 64,
            "matmul.tile32" => 32,
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

/// Batches that broadcast, vectors, six axes.
fn batches(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(2);
    let shapes: &[(&[usize], &[usize])] = &[
        (&[2, 5, 7], &[7, 3]),
        (&[5, 7], &[3, 7, 4]),
        (&[2, 1, 6, 5], &[3, 5, 4]),
        (&[2, 3, 2, 1, 4, 3], &[1, 3, 1, 2, 3, 5]),
        (&[7], &[7]),
        (&[7], &[7, 5]),
        (&[5, 7], &[7]),
        (&[2, 3, 5, 7], &[7]),
        (&[7], &[2, 3, 7, 5]),
        (&[1, 300], &[300, 1]),
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

/// More workgroups than a dimension of the grid holds.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    check(OP, &subject.name, device, &case(&mut Random::new(3), device, &[66_000, 2, 1], &[1, 2], true), false)
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
