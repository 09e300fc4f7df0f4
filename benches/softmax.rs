//! `cargo bench --bench softmax`: softmax and log_softmax along the last axis, apart and in place, and along the first, every tune that can
//! make the rows; beside them the copy that memory-bound kernels are measured by. Bytes are one read and one write.

mod support;

use gristmill::{DType, Tensor, ops};
use support::{Group, Place, Ready, U, Variant, Work, check, normals_in, numbers, storing, variants, zeros};

/// Rows that a few lanes make, that a group holds, and longer ones.
const SHAPES: [[usize; 2]; 5] = [[8192, 64], [64, 512], [512, 4096], [128, 16_384], [16, 131_072]];

/// The shape that meets every type, both functions, and every way to lie.
const ALL: [usize; 2] = [512, 4096];

fn main() {
    support::bench("softmax", |place, group| {
        for shape in SHAPES {
            let dtypes: &[DType] = if shape == ALL { &[DType::F32, DType::F16, DType::BF16] } else { &[DType::F32] };
            for &dtype in dtypes {
                rows(place, group, "softmax", dtype, shape, false);
                rows(place, group, "softmax_in_place", dtype, shape, false);
            }
        }
        for dtype in [DType::F32, DType::F16] {
            columns(place, group, dtype, ALL);
        }
        #[cfg(feature = "gpu")]
        if !place.device.is_cpu() {
            let len = ALL.iter().product();
            group.row("yardstick.copy", "f32", &format!("{}x{}", ALL[0], ALL[1]), Work::Bytes(8 * len), || {
                support::yardstick::copy(place, len).expect("the adapter that the place was made of")
            });
        }
    });
    support::bench("log_softmax", |place, group| rows(place, group, "softmax", DType::F32, ALL, true));
    support::finish();
}

/// Those that make such rows themselves.
fn able(place: &Place, kernel: &str, len: usize) -> Vec<Variant> {
    let all = if place.device.is_cpu() { variants(place, "") } else { variants(place, kernel) };
    let holds = |variant: &Variant| {
        #[cfg(feature = "gpu")]
        if let Some(held) = variant.tune.and_then(|tune| Some(8 * tune.get("GROUP")? * tune.get("HELD")?)) {
            return held == 0 || len <= held as usize;
        }
        let _ = (variant, len);
        true
    };
    all.into_iter().filter(holds).collect()
}

fn rows(place: &Place, group: &mut Group, kernel: &str, dtype: DType, [count, len]: [usize; 2], log: bool) {
    let in_place = kernel == "softmax_in_place";
    for variant in able(place, kernel, len) {
        let name = if place.device.is_cpu() && in_place { "cpu.in_place" } else { &variant.name };
        let work = Work::Bytes(2 * dtype.block_bytes() * count * len);
        group.row(name, dtype.name(), &format!("{count}x{len}"), work, || {
            let (x, host) = normals_in(&variant.device, dtype, &[count, len], 1);
            let verify = move |out: &Tensor| check_rows(dtype, &numbers(out), &host, len, log);
            if in_place {
                return Ready::new(&x, move |x| ops::softmax_in_place(x, -1, &Default::default()), verify);
            }
            let out = zeros(&variant.device, dtype, &[count, len]);
            let call = if log { ops::log_softmax_into } else { ops::softmax_into };
            Ready::new(&out, move |out| call(out, &x, -1, &ops::Softmax::default()), verify)
        });
    }
}

/// Along the first of two axes: the rows lie across memory.
fn columns(place: &Place, group: &mut Group, dtype: DType, [count, len]: [usize; 2]) {
    for variant in able(place, "softmax_columns", len) {
        let work = Work::Bytes(2 * dtype.block_bytes() * count * len);
        group.row(&variant.name, dtype.name(), &format!("{len}x{count}.axis0"), work, || {
            let (rows, host) = normals_in(&variant.device, dtype, &[count, len], 1);
            let turned = |t: &Tensor| t.transpose(0, 1).expect("two axes");
            let x = ops::copy(&turned(&rows)).unwrap_or_else(|error| panic!("{error}"));
            let out = zeros(&variant.device, dtype, &[len, count]);
            Ready::new(
                &out,
                move |out| ops::softmax_into(out, &x, 0, &Default::default()),
                move |out| check_rows(dtype, &numbers(&turned(out)), &host, len, false),
            )
        });
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
