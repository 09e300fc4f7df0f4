//! `cargo bench --bench binary`: add and mul, dense and with a row that repeats. Bytes are what each operand holds, and the result.

mod support;

use gristmill::ops;
use gristmill::{DType, Result, Tensor};
use support::{Group, Place, Ready, U, Work, check, normals_in, numbers, storing, variants, zeros};

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
        for (dtype, variant) in
            [DType::F32, DType::F16, DType::BF16].into_iter().flat_map(|d| variants(place, "binary").into_iter().map(move |v| (d, v)))
        {
            let rhs_len: usize = rhs_dims.iter().product();
            let work = Work::Bytes(dtype.block_bytes() * (2 * ROWS * COLUMNS + rhs_len));
            group.row(&variant.name, dtype.name(), shape, work, || {
                let (lhs, left) = normals_in(&variant.device, dtype, &[ROWS, COLUMNS], 1);
                let (rhs, right) = normals_in(&variant.device, dtype, rhs_dims, 2);
                let out = zeros(&variant.device, dtype, &[ROWS, COLUMNS]);
                Ready::new(
                    &out,
                    move |out| call(out, &lhs, &rhs),
                    // Correctly rounded, the direction open: the nearest f32 on either side.
                    move |out| {
                        check("binary", &numbers(out), |index| {
                            let want = exact(left[index].into(), right[index % rhs_len].into());
                            (want, want.abs() * U + storing(dtype, want))
                        })
                    },
                )
            });
        }
    }
}
