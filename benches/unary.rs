//! `cargo bench --bench unary`: the cheapest op and dear ones, in f32 and bf16. Bytes are what `x` and the result hold.

mod support;

use gristmill::ops;
use gristmill::{DType, Result, Tensor};
use support::{Group, Place, Ready, TINY, U, Work, check, download, normals, variants, zeros};

const ROWS: usize = 1024;
const COLUMNS: usize = 1024;

type Call = fn(&mut Tensor, &Tensor) -> Result<()>;

/// An op's exact value, and its bound in units of 2^-23 of that.
#[derive(Clone, Copy)]
struct Exact {
    value: fn(f64) -> f64,
    units: f64,
}

fn main() {
    support::bench("neg", |place, group| rows(place, group, ops::neg_into, Exact { value: |x| -x, units: 0.0 }));
    support::bench("exp", |place, group| rows(place, group, ops::exp_into, Exact { value: f64::exp, units: 4.0 }));
    support::bench("silu", |place, group| rows(place, group, ops::silu_into, Exact { value: |x| x / (1.0 + (-x).exp()), units: 10.0 }));
    support::bench("gelu", |place, group| {
        // 20 + x² below 0, and normals stay within 6.
        let exact = Exact { value: |x| 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2), units: 56.0 };
        rows(place, group, ops::gelu_into, exact);
    });
    support::finish();
}

fn rows(place: &Place, group: &mut Group, call: Call, exact: Exact) {
    for dtype in [DType::F32, DType::BF16] {
        for variant in variants(place, "unary") {
            let bytes = 2 * dtype.block_bytes() * ROWS * COLUMNS;
            group.row(&variant.name, dtype.name(), "1024x1024", Work::Bytes(bytes), || {
                let (wide, _) = normals(&variant.device, &[ROWS, COLUMNS], 1);
                let x = ops::cast(&wide, dtype).expect("a cast");
                let values: Vec<f32> = download(&ops::cast(&x, DType::F32).expect("a cast"));
                let out = zeros(&variant.device, dtype, &[ROWS, COLUMNS]);
                Ready::new(
                    &out,
                    move |out| call(out, &x),
                    move |out| {
                        let got: Vec<f32> = download(&ops::cast(out, DType::F32).expect("a cast"));
                        let rounding = if dtype == DType::F32 { 0.0 } else { 1.0 / 256.0 };
                        check("unary", &got, |index| {
                            let want = (exact.value)(values[index].into());
                            (want, want.abs() * (exact.units * U + rounding) + TINY)
                        })
                    },
                )
            });
        }
    }
}
