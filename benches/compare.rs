//! `cargo bench --bench compare`: a comparison, dense and with a row that repeats. Bytes are what each operand holds, and the bools.

mod support;

use gristmill::DType;
use gristmill::ops;
use support::{Group, Place, Ready, Work, download, normals, sample, variants, zeros};

const ROWS: usize = 1024;
const COLUMNS: usize = 1024;

fn main() {
    support::bench("lt", rows);
    support::finish();
}

fn rows(place: &Place, group: &mut Group) {
    for (shape, rhs_dims) in [("1024x1024", &[ROWS, COLUMNS][..]), ("1024x1024<1024", &[COLUMNS])] {
        for variant in variants(place, "compare") {
            let rhs_len: usize = rhs_dims.iter().product();
            group.row(&variant.name, "f32", shape, Work::Bytes(5 * ROWS * COLUMNS + 4 * rhs_len), || {
                let (lhs, left) = normals(&variant.device, &[ROWS, COLUMNS], 1);
                let (rhs, right) = normals(&variant.device, rhs_dims, 2);
                let out = zeros(&variant.device, DType::Bool, &[ROWS, COLUMNS]);
                Ready::new(
                    &out,
                    move |out| ops::lt_into(out, &lhs, &rhs),
                    move |out| {
                        let got: Vec<bool> = download(out);
                        for index in sample(got.len()) {
                            assert!(got[index] == (left[index] < right[index % rhs_len]), "lt: wrong answer: element {index}");
                        }
                    },
                )
            });
        }
    }
}
