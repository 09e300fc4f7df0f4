//! `cargo bench --bench binary`: add and mul, dense and with a row that repeats. Bytes are what each operand holds, and the result.

mod support;

use gristmill::ops;
use gristmill::{DType, Result, Tensor};
use support::{Group, Place, Ready, TINY, U, Work, check, download, normals, variants, zeros};

const ROWS: usize = 1024;
const COLUMNS: usize = 1024;

type Call = fn(&mut Tensor, &Tensor, &Tensor) -> Result<()>;

fn main() {
    support::bench("add", |place, group| rows(place, group, ops::add_into, |a, b| a + b));
    support::bench("mul", |place, group| rows(place, group, ops::mul_into, |a, b| a * b));
    support::finish();
}

fn rows(place: &Place, group: &mut Group, call: Call, exact: fn(f64, f64) -> f64) {
    for (shape, rhs_dims) in [("1024x1024", &[ROWS, COLUMNS][..]), ("1024x1024+1024", &[COLUMNS])] {
        for variant in variants(place, "binary") {
            let rhs_len: usize = rhs_dims.iter().product();
            group.row(&variant.name, "f32", shape, Work::Bytes(4 * (2 * ROWS * COLUMNS + rhs_len)), || {
                let (lhs, left) = normals(&variant.device, &[ROWS, COLUMNS], 1);
                let (rhs, right) = normals(&variant.device, rhs_dims, 2);
                let out = zeros(&variant.device, DType::F32, &[ROWS, COLUMNS]);
                Ready::new(
                    &out,
                    move |out| call(out, &lhs, &rhs),
                    // Correctly rounded, the direction open: the nearest f32 on either side.
                    move |out| {
                        check("binary", &download(out), |index| {
                            let want = exact(left[index].into(), right[index % rhs_len].into());
                            (want, want.abs() * U + TINY)
                        })
                    },
                )
            });
        }
    }
}
