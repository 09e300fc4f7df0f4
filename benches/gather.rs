//! `cargo bench --bench gather`: 2,048 rows of a table. Bytes are one read and one write of them.

mod support;

use gristmill::{DType, ops};
use support::{Group, Place, Ready, Work, check, normals_in, numbers, upload, variants, zeros};

const ROWS: usize = 8192;
const COUNT: usize = 2048;

fn main() {
    support::bench("gather", rows);
    support::finish();
}

fn rows(place: &Place, group: &mut Group) {
    // Rows of whole 16-byte words, and of neither those nor 4-byte ones in 16 bits.
    for width in [512, 511] {
        for dtype in [DType::F32, DType::BF16] {
            for variant in variants(place, "gather") {
                let work = Work::Bytes(2 * dtype.block_bytes() * COUNT * width);
                group.row(&variant.name, dtype.name(), &format!("{ROWS}x{width}.{COUNT}"), work, || {
                    let (x, host) = normals_in(&variant.device, dtype, &[ROWS, width], 1);
                    let chosen: Vec<u32> = (0..COUNT as u32).map(|i| i.wrapping_mul(2_654_435_761) % ROWS as u32).collect();
                    let indices = upload(&variant.device, &chosen, &[COUNT]);
                    let out = zeros(&variant.device, dtype, &[COUNT, width]);
                    Ready::new(
                        &out,
                        move |out| ops::gather_into(out, &x, &indices, 0),
                        move |out| {
                            check("gather", &numbers(out), |index| {
                                let row = chosen[index / width] as usize;
                                (host[row * width + index % width].into(), 0.0)
                            })
                        },
                    )
                });
            }
        }
    }
}
