//! `cargo bench --bench copy`: dense, out of a transpose, into a transpose, and the yardstick for memory-bound kernels. Bytes are one read
//! and one write.

mod support;

use gristmill::{DType, Tensor, ops};
use support::{Group, Place, Ready, Work, download, normals, variants, zeros};

const SIDE: usize = 1024;

fn main() {
    support::bench("copy", rows);
    support::finish();
}

fn rows(place: &Place, group: &mut Group) {
    let work = Work::Bytes(8 * SIDE * SIDE);
    let transposed = |tensor: &Tensor| tensor.transpose(0, 1).expect("two axes");
    for (kernel, shape) in [("copy", "1024x1024"), ("copy", "1024x1024.from_transposed"), ("copy_scatter", "1024x1024.to_transposed")] {
        for variant in variants(place, kernel) {
            group.row(&variant.name, "f32", shape, work, || {
                let (x, host) = normals(&variant.device, &[SIDE, SIDE], 1);
                let out = zeros(&variant.device, DType::F32, &[SIDE, SIDE]);
                let dense = shape == "1024x1024";
                let (x, to) = match kernel {
                    _ if dense => (x, out.clone()),
                    "copy" => (transposed(&x), out.clone()),
                    _ => (x, transposed(&out)),
                };
                Ready::new(
                    &to,
                    move |out| ops::copy_into(out, &x),
                    move |_| {
                        let got: Vec<f32> = download(&out);
                        for (index, got) in got.into_iter().enumerate() {
                            let (row, col) = (index / SIDE, index % SIDE);
                            let want = host[if dense { index } else { col * SIDE + row }];
                            assert!(got == want, "{kernel}: wrong answer: element {index} is {got}, not {want}");
                        }
                    },
                )
            });
        }
    }
    #[cfg(feature = "gpu")]
    if !place.device.is_cpu() {
        group.row("yardstick.copy", "f32", "1024x1024", work, || {
            support::yardstick::copy(place, SIDE * SIDE).expect("the adapter that the place was made of")
        });
    }
}
