//! Add and mul: every tune, broadcasting, strides; correctly rounded or next to it, exact on whole numbers.

use gristmill::{Device, Tensor, ops};
use libtest_mimic::Trial;
use proptest::prelude::*;

use crate::support::devices::{Level, Subject};
use crate::support::input::{Host, Random};
use crate::support::reference::{U, broadcast};
use crate::support::runner::{Case, Expected, check, pinned, sample, trials};

pub fn all() -> Vec<Trial> {
    let mut all = trials("add", "shapes", |s, d, l| shapes(true, s, d, l));
    all.extend(trials("mul", "shapes", |s, d, l| shapes(false, s, d, l)));
    all.extend(trials("add", "large_grid", large_grid));
    all.extend(trials("add", "random", |s, d, l| random(true, s, d, l)));
    all.extend(trials("mul", "random", |s, d, l| random(false, s, d, l)));
    all
}

fn name(add: bool) -> &'static str {
    if add { "add" } else { "mul" }
}

fn case(add: bool, lhs: Host, rhs: Host, exact: bool) -> Case {
    let dims = gristmill::Layout::broadcast_dims(&[&lhs.dims, &rhs.dims]).expect("shapes that broadcast");
    let (a, b) = (broadcast(&lhs.f64s(), &lhs.dims, &dims), broadcast(&rhs.f64s(), &rhs.dims, &dims));
    let values: Vec<f64> = a.iter().zip(&b).map(|(a, b)| if add { a + b } else { a * b }).collect();
    let bounds = values.iter().map(|v| U * v.abs()).collect();
    let title = format!("{:?} {:?}", lhs.dims, rhs.dims);
    let expected = if exact { Expected::exact(&dims, values) } else { Expected::within(&dims, values, bounds) };
    Case::new(
        title,
        vec![lhs, rhs],
        expected,
        move |t: &[Tensor]| if add { ops::add(&t[0], &t[1]) } else { ops::mul(&t[0], &t[1]) },
        move |out: &mut Tensor, t: &[Tensor]| if add { ops::add_into(out, &t[0], &t[1]) } else { ops::mul_into(out, &t[0], &t[1]) },
    )
}

fn shapes(add: bool, subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let mut random = Random::new(12);
    let pairs: &[(&[usize], &[usize])] = &[
        (&[63], &[63]),
        (&[64], &[1]),
        (&[257], &[]),
        (&[2, 3, 129], &[3, 1]),
        (&[5, 1, 7], &[1, 4, 7]),
        (&[1, 2, 1, 3, 1, 4], &[2, 1, 3, 1, 5, 1]),
        (&[], &[]),
        (&[0, 3], &[3]),
        (&[2, 0], &[2, 1]),
    ];
    for (tune, handle) in pinned(device, "binary", level) {
        for (left, right) in pairs {
            for exact in [true, false] {
                let mut make = |dims: &[usize]| if exact { random.integers(dims, 1000) } else { random.floats(dims) };
                // Odd plus even is never 0.
                let (lhs, mut rhs) = (make(left), make(right));
                if exact && add {
                    let values: Vec<f32> = rhs.f64s().iter().map(|&v| v as f32 * 2048.0).collect();
                    rhs = Host::new(right, &values);
                }
                check(name(add), &subject.name, &handle, &case(add, lhs, rhs, exact), level > Level::Smoke)
                    .map_err(|e| format!("{tune} {e}"))?;
            }
        }
    }
    Ok(())
}

/// More workgroups than a dimension of the grid holds, with the small groups.
fn large_grid(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    if level == Level::Smoke {
        return Ok(());
    }
    let handles = pinned(device, "binary", level);
    let (_, small) = handles.iter().find(|(tune, _)| tune == "binary.group64").unwrap_or(&handles[0]);
    let mut random = Random::new(13);
    let (lhs, rhs) = (random.floats(&[2050, 2050]), random.floats(&[2050]));
    check("add", &subject.name, small, &case(true, lhs, rhs, false), false)
}

fn random(add: bool, subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    let shapes = (prop::collection::vec(0usize..9, 0..6), any::<u64>());
    sample(level, &shapes, |(dims, seed)| {
        let mut random = Random::new(seed);
        let mut some = |dims: &[usize]| -> Vec<usize> { dims.iter().map(|&d| if random.below(3) == 0 { 1 } else { d }).collect() };
        let (left, right) = (some(&dims), some(&dims));
        let (lhs, rhs) = (random.floats(&left), random.floats(&right));
        check(name(add), &subject.name, device, &case(add, lhs, rhs, false), true)
    })
}
