//! `cargo bench --bench softmax`: softmax and log_softmax along the last axis, every tune. Bytes are one read and one write.

mod support;

use gristmill::{DType, ops};
use support::{Group, Place, Ready, TINY, U, Work, check, download, normals, variants, zeros};

const SHAPES: [[usize; 2]; 2] = [[64, 512], [512, 4096]];

fn main() {
    support::bench("softmax", |place, group| rows(place, group, false));
    support::bench("log_softmax", |place, group| rows(place, group, true));
    support::finish();
}

fn rows(place: &Place, group: &mut Group, log: bool) {
    for [count, len] in SHAPES {
        for variant in variants(place, "softmax") {
            group.row(&variant.name, "f32", &format!("{count}x{len}"), Work::Bytes(8 * count * len), || {
                let (x, host) = normals(&variant.device, &[count, len], 1);
                let out = zeros(&variant.device, DType::F32, &[count, len]);
                let call = if log { ops::log_softmax_into } else { ops::softmax_into };
                Ready::new(
                    &out,
                    move |out| call(out, &x, -1, &ops::Softmax::default()),
                    move |out| check_rows(&download(out), &host, len, log),
                )
            });
        }
    }
}

/// The bounds that the ops state.
fn check_rows(got: &[f32], x: &[f32], len: usize, log: bool) {
    assert_eq!(got.len(), x.len());
    check(if log { "log_softmax" } else { "softmax" }, got, |index| {
        let row = &x[index / len * len..][..len];
        let [top, low] = [f32::max, f32::min].map(|pick| f64::from(row.iter().copied().fold(row[0], pick)));
        let total: f64 = row.iter().map(|&l| (f64::from(l) - top).exp()).sum();
        let below = top - f64::from(x[index]);
        let others = 3.0 + 2.0 * (top - low) + len as f64;
        if log {
            (-below - total.ln(), U * (4.0 * below + others + 8.0))
        } else {
            let p = (-below).exp() / total;
            (p, p * U * (3.0 + 2.0 * below + others + 2.5) + TINY)
        }
    });
}
