//! `cargo bench --bench where_cond`: a choice between two tensors, and between a tensor and one number. Bytes are what each operand holds,
//! and the result.

mod support;

use gristmill::DType;
use gristmill::ops;
use support::{Group, Place, Ready, Work, download, normals, sample, upload, variants, zeros};

const ROWS: usize = 1024;
const COLUMNS: usize = 1024;

fn main() {
    support::bench("where_cond", rows);
    support::finish();
}

fn rows(place: &Place, group: &mut Group) {
    for (shape, other) in [("1024x1024", &[ROWS, COLUMNS][..]), ("1024x1024:1", &[])] {
        for variant in variants(place, "where_cond") {
            let other_len: usize = other.iter().product();
            group.row(&variant.name, "f32", shape, Work::Bytes(9 * ROWS * COLUMNS + 4 * other_len), || {
                let (on_true, left) = normals(&variant.device, &[ROWS, COLUMNS], 1);
                let (on_false, right) = normals(&variant.device, other, 2);
                // Without a period that a branch could learn.
                let tests: Vec<bool> = (0..ROWS * COLUMNS).map(|i| (i * i / 7) % 3 == 0).collect();
                let cond = upload(&variant.device, &tests, &[ROWS, COLUMNS]);
                let out = zeros(&variant.device, DType::F32, &[ROWS, COLUMNS]);
                Ready::new(
                    &out,
                    move |out| ops::where_cond_into(out, &cond, &on_true, &on_false),
                    move |out| {
                        let got: Vec<f32> = download(out);
                        for index in sample(got.len()) {
                            let want = if tests[index] { left[index] } else { right[index % other_len] };
                            assert!(got[index].to_bits() == want.to_bits(), "where_cond: wrong answer: element {index}");
                        }
                    },
                )
            });
        }
    }
}
