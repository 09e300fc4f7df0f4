//! `cargo bench --bench cast`: to and from 16 bits, and to integers. Bytes are one read and one write.

mod support;

use gristmill::{Element, ops};
use half::{bf16, f16};
use support::{Group, Place, Ready, Work, download, normals, sample, upload, variants, zeros};

const LEN: usize = 1 << 20;

fn main() {
    support::bench("cast", |place, group| {
        row::<f32, f16>(place, group, |x| x, f16::from_f32);
        row::<f16, f32>(place, group, f16::from_f32, f16::to_f32);
        row::<f32, bf16>(place, group, |x| x, bf16::from_f32);
        row::<f32, u8>(place, group, |x| 100.0 * x, |x| x as u8);
    });
    support::finish();
}

/// `from` makes the input of a normal, `to` is the cast.
fn row<X: Element + Copy + 'static, Y: Element + Copy + 'static>(place: &Place, group: &mut Group, from: fn(f32) -> X, to: fn(X) -> Y) {
    let dtype = format!("{}-{}", X::DTYPE, Y::DTYPE);
    let bytes = LEN * (X::DTYPE.block_bytes() + Y::DTYPE.block_bytes());
    for variant in variants(place, "cast") {
        group.row(&variant.name, &dtype, &LEN.to_string(), Work::Bytes(bytes), || {
            let (_, normals) = normals(&gristmill::Device::cpu(), &[LEN], 1);
            let host: Vec<X> = normals.into_iter().map(from).collect();
            let x = upload(&variant.device, &host, &[LEN]);
            let out = zeros(&variant.device, Y::DTYPE, &[LEN]);
            Ready::new(
                &out,
                move |out| ops::cast_into(out, &x),
                move |out| {
                    let got: Vec<Y> = download(out);
                    for index in sample(LEN) {
                        let (x, got, want) = (host[index], got[index], to(host[index]));
                        assert!(got == want, "cast: wrong answer: element {index}, {x:?}, became {got:?}, not {want:?}");
                    }
                },
            )
        });
    }
}
