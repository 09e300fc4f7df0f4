//! `cargo bench --bench rope`: queries of 32 heads, both styles, out of place and in it, in f32 and bf16, beside the copy of as many elements.
//! Bytes are one read and one write of `x`.

mod support;

use gristmill::ops::{self, Rope, RopeFrequencies, RopeStyle, RopeTable};
use gristmill::{DType, Tensor};
use support::{Group, Place, Ready, TINY, U, Work, check, normals_in, numbers, storing, variants, zeros};

const HEADS: usize = 32;
const SEQ: usize = 256;
const DIM: usize = 128;

fn main() {
    support::bench("rope", rows);
    support::finish();
}

fn rows(place: &Place, group: &mut Group) {
    for (style, name) in [(RopeStyle::Half, "half"), (RopeStyle::Interleaved, "interleaved")] {
        for dtype in [DType::F32, DType::BF16] {
            for kernel in ["rope", "rope_in_place"] {
                for variant in variants(place, kernel) {
                    let work = Work::Bytes(2 * dtype.block_bytes() * HEADS * SEQ * DIM);
                    // On the CPU both have one name.
                    let shape = format!("{HEADS}x{SEQ}x{DIM}.{name}{}", if kernel == "rope" { "" } else { ".in_place" });
                    group.row(&variant.name, dtype.name(), &shape, work, || {
                        let frequencies = RopeFrequencies::new(10_000.0, DIM);
                        let table = RopeTable::new(&variant.device, &frequencies, 0..SEQ as u32).expect("a table");
                        let (x, host) = normals_in(&variant.device, dtype, &[1, HEADS, SEQ, DIM], 1);
                        let options = Rope { style, ..Rope::default() };
                        let right = right(&table, host, style, dtype);
                        if kernel == "rope" {
                            let out = zeros(&variant.device, dtype, x.shape());
                            return Ready::new(&out, move |out| ops::rope_into(out, &x, &table, &options), right);
                        }
                        Ready::new(&x, move |x| ops::rope_in_place(x, &table, &options), right)
                    });
                }
            }
        }
    }
    #[cfg(feature = "gpu")]
    if !place.device.is_cpu() {
        let work = Work::Bytes(8 * HEADS * SEQ * DIM);
        group.row("yardstick.copy", "f32", &format!("{HEADS}x{SEQ}x{DIM}"), work, || {
            support::yardstick::copy(place, HEADS * SEQ * DIM).expect("the adapter that the place was made of")
        });
    }
}

/// Checks the result against pairs turned in f64, by the op's bound.
fn right(table: &RopeTable, host: Vec<f32>, style: RopeStyle, dtype: DType) -> impl FnOnce(&Tensor) + 'static {
    let (cos, sin) = (numbers(table.cos()), numbers(table.sin()));
    move |out| {
        check("rope", &numbers(out), |index| {
            let (row, element) = (index - index % DIM, index % DIM);
            let (first, pair) = match style {
                RopeStyle::Half => (element < DIM / 2, element % (DIM / 2)),
                RopeStyle::Interleaved => (element % 2 == 0, element / 2),
            };
            let other = if style == RopeStyle::Half { (element + DIM / 2) % DIM } else { element ^ 1 };
            let at = index / DIM % SEQ * (DIM / 2) + pair;
            let (own, across) = (f64::from(host[index]) * f64::from(cos[at]), f64::from(host[row + other]) * f64::from(sin[at]));
            let want = if first { own - across } else { own + across };
            (want, 2.0 * U * (own.abs() + across.abs()) + storing(dtype, want) + TINY)
        });
    }
}
