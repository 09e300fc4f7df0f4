//! `cargo bench --bench matmul`: every tune and type at square, flat and vector shapes, and simpler kernels as yardsticks.

mod support;

use gristmill::{DType, ops};
use support::{Group, Place, Ready, Work, check_product, normals_in, numbers, variants, zeros};

/// m, k, n.
const SHAPES: [[usize; 3]; 6] = [[128, 128, 128], [512, 512, 512], [1, 2048, 2048], [128, 2048, 2048], [1, 8192, 8192], [4096, 4096, 4096]];

/// The types of `out`, `lhs` and `rhs`, and their part of the id.
const DTYPES: [(&str, [DType; 3]); 4] = [
    ("f32", [DType::F32; 3]),
    ("f16", [DType::F16; 3]),
    ("bf16", [DType::BF16; 3]),
    ("f32-f32-bf16", [DType::F32, DType::F32, DType::BF16]),
];

const KERNELS: [&str; 5] = ["matmul", "matmul_direct", "matmul_skinny", "matmul_splitk", "matmul_coop"];

/// The ladder's first rungs: workgroups of 16 x 16 invocations, an element each.
#[cfg(feature = "gpu")]
const RUNGS: [(&str, &str); 2] = [
    ("yardstick.naive_matmul", include_str!("yardstick/naive_matmul.wgsl")),
    ("yardstick.shared_matmul", include_str!("yardstick/shared_matmul.wgsl")),
];

fn main() {
    support::bench("matmul", rows);
    support::finish();
}

fn rows(place: &Place, group: &mut Group) {
    for [m, k, n] in SHAPES {
        let most = if place.is_software() { 512 * 512 * 512 } else { 1 << 30 };
        // The largest are for cards.
        if (place.is_software() || place.device.is_cpu()) && m * k * n > most {
            continue;
        }
        let shape = format!("{m}x{k}x{n}");
        for (types, dtypes) in DTYPES {
            let [out_bytes, lhs_bytes, rhs_bytes] = dtypes.map(DType::block_bytes);
            // One row is bound by memory.
            let bytes = out_bytes * m * n + lhs_bytes * m * k + rhs_bytes * k * n;
            let work = if m == 1 { Work::Bytes(bytes) } else { Work::Flops(2 * m * k * n) };
            let kernels = if place.device.is_cpu() { &KERNELS[..1] } else { &KERNELS[..] };
            // What a pin to either does not serve would be measured under its name.
            let served = |kernel: &&&str| match **kernel {
                "matmul_coop" => dtypes == [DType::F16; 3] && m > 1,
                "matmul_skinny" => m == 1,
                _ => true,
            };
            for variant in kernels.iter().filter(served).flat_map(|kernel| variants(place, kernel)) {
                group.row(&variant.name, types, &shape, work, || {
                    let (lhs, left) = normals_in(&variant.device, dtypes[1], &[m, k], 1);
                    let (rhs, right) = normals_in(&variant.device, dtypes[2], &[k, n], 2);
                    let out = zeros(&variant.device, dtypes[0], &[m, n]);
                    Ready::new(
                        &out,
                        move |out| ops::matmul_into(out, &lhs, &rhs, &Default::default()),
                        move |out| check_product(out.dtype(), &numbers(out), &left, &right, [m, k, n]),
                    )
                });
            }
        }
        #[cfg(feature = "gpu")]
        if !place.device.is_cpu() {
            for (name, source) in RUNGS {
                group.row(name, "f32", &shape, Work::Flops(2 * m * k * n), || rung(place, source, [m, k, n]));
            }
        }
    }
}

#[cfg(feature = "gpu")]
fn rung(place: &Place, source: &str, [m, k, n]: [usize; 3]) -> Ready {
    use support::normals;
    use support::yardstick::Bare;

    let bare = Bare::open(place).expect("the adapter that the place was made of");
    let ((_, left), (_, right)) = (normals(&gristmill::Device::cpu(), &[m, k], 1), normals(&gristmill::Device::cpu(), &[k, n], 2));
    let (lhs, rhs, out) = (bare.upload(&left), bare.upload(&right), bare.zeros(m * n));
    let params = bare.params(&[m as u32, n as u32, k as u32, 0]);
    let program = bare.program(source, &[&lhs, &rhs, &out, &params]);
    let grid = [n.div_ceil(16) as u32, m.div_ceil(16) as u32, 1];
    let [recording, waiting] = [bare.clone(), bare.clone()];
    Ready {
        call: Box::new(move || recording.record(&program, grid)),
        sync: Box::new(move || waiting.sync()),
        check: Box::new(move || check_product(DType::F32, &bare.download(&out), &left, &right, [m, k, n])),
    }
}
