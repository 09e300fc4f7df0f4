//! `cargo bench --bench softmax`: softmax and log_softmax along the last axis, every tune. Bytes are one read and one write.

mod support;

use gristmill::{DType, ops};
use support::{Group, Place, Ready, U, Work, check, normals_in, numbers, storing, variants, zeros};

const SHAPES: [[usize; 2]; 2] = [[64, 512], [512, 4096]];

fn main() {
    support::bench("softmax", |place, group| rows(place, group, false));
    support::bench("log_softmax", |place, group| rows(place, group, true));
    support::finish();
}

fn rows(place: &Place, group: &mut Group, log: bool) {
    for [count, len] in SHAPES {
        for (dtype, variant) in
            [DType::F32, DType::F16, DType::BF16].into_iter().flat_map(|d| variants(place, "softmax").into_iter().map(move |v| (d, v)))
        {
            let work = Work::Bytes(2 * dtype.block_bytes() * count * len);
            group.row(&variant.name, dtype.name(), &format!("{count}x{len}"), work, || {
                let (x, host) = normals_in(&variant.device, dtype, &[count, len], 1);
                let out = zeros(&variant.device, dtype, &[count, len]);
                let call = if log { ops::log_softmax_into } else { ops::softmax_into };
                Ready::new(
                    &out,
                    move |out| call(out, &x, -1, &ops::Softmax::default()),
                    move |out| check_rows(dtype, &numbers(out), &host, len, log),
                )
            });
        }
    }
}

/// The bounds that the ops state.
fn check_rows(dtype: DType, got: &[f32], x: &[f32], len: usize, log: bool) {
    assert_eq!(got.len(), x.len());
    check(if log { "log_softmax" } else { "softmax" }, got, |index| {
        let row = &x[index / len * len..][..len];
        let [top, low] = [f32::max, f32::min].map(|pick| f64::from(row.iter().copied().fold(row[0], pick)));
        let total: f64 = row.iter().map(|&l| (f64::from(l) - top).exp()).sum();
        let below = top - f64::from(x[index]);
        let others = 3.0 + 2.0 * (top - low) + len as f64;
        if log {
            let value = -below - total.ln();
            (value, U * (4.0 * below + others + 8.0) + storing(dtype, value))
        } else {
            let p = (-below).exp() / total;
            (p, p * U * (3.0 + 2.0 * below + others + 2.5) + storing(dtype, p))
        }
    });
}
