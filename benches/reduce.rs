//! `cargo bench --bench reduce`: sums along the last axis, along the first, and of everything, with every tune. Bytes are one read.

mod support;

use gristmill::{DType, ops};
use support::{Group, Place, Ready, U, Work, check, normals_in, numbers, storing, variants, zeros};

const SIDE: usize = 1024;

/// A shape's part of the id, and which axes are summed.
const CASES: [(&str, &[isize]); 3] = [("1024x1024.last", &[1]), ("1024x1024.first", &[0]), ("1024x1024.all", &[0, 1])];

fn main() {
    support::bench("sum", rows);
    support::finish();
}

fn rows(place: &Place, group: &mut Group) {
    for (shape, axes) in CASES {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for variant in variants(place, "reduce") {
                group.row(&variant.name, dtype.name(), shape, Work::Bytes(dtype.block_bytes() * SIDE * SIDE), || {
                    let (x, host) = normals_in(&variant.device, dtype, &[SIDE, SIDE], 1);
                    let kept: &[usize] = if axes.len() == 2 { &[] } else { &[SIDE] };
                    let out = zeros(&variant.device, dtype, kept);
                    Ready::new(
                        &out,
                        move |out| ops::sum_into(out, &x, axes, false),
                        move |out| check_sums(dtype, &numbers(out), &host, axes),
                    )
                });
            }
        }
    }
}

/// The bound that `ops::sum` states.
fn check_sums(dtype: DType, got: &[f32], x: &[f32], axes: &[isize]) {
    check("sum", got, |index| {
        let of = |i: usize| match axes {
            [1] => i / SIDE == index,
            [0] => i % SIDE == index,
            _ => true,
        };
        let chosen = x.iter().enumerate().filter(|(i, _)| of(*i));
        let (sum, size, count) =
            chosen.fold((0.0, 0.0, 0usize), |(sum, size, count), (_, &v)| (sum + f64::from(v), size + f64::from(v.abs()), count + 1));
        (sum, 4.0 * (count as f64).sqrt() * U * size + storing(dtype, sum))
    });
}
