//! A row for every kernel that a place can run: what it does and moves, and a call whose answer is checked. Elementwise operands lie out of any cache.

use gristmill::{DType, Device, Result, Tensor, ops};

use crate::support::{Place, Ready, TINY, U, check, normals, normals_in, numbers, storing, upload, variants, zeros};

/// 64 MiB of f32.
const SIDE: usize = 4096;
const DIMS: [usize; 2] = [SIDE, SIDE];
const LEN: usize = SIDE * SIDE;

const HEADS: usize = 8;
const SEQ: usize = 256;
const DIM: usize = 64;

struct Row {
    kernel: &'static str,
    /// Which op, or which shape.
    case: String,
    /// Operations, a multiply-add counted as two.
    flops: usize,
    /// Operands and results, each once.
    bytes: usize,
    prepare: Box<dyn Fn(&Device) -> Ready>,
}

/// A kernel's best on a place.
pub struct Point {
    pub label: String,
    /// Operations a byte.
    pub intensity: f64,
    /// Thousand million operations a second of the place's clock.
    pub gflops: f64,
}

/// Every kernel, by the fastest of its tunes.
pub fn measure(place: &Place, quick: bool) -> Vec<Point> {
    let rows = rows().into_iter().filter(|row| !(place.device.is_cpu() && row.kernel.starts_with("matmul_")));
    let point = |row: Row| {
        let times = variants(place, row.kernel).into_iter().map(|variant| {
            let time = fastest(place, (row.prepare)(&variant.device), quick);
            (time, if place.device.is_cpu() { row.kernel.into() } else { variant.name.trim_end_matches('.').to_string() })
        });
        // None without what the kernel needs.
        let (time, name) = times.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let [flops, bytes] = [row.flops, row.bytes].map(|n| n as f64);
        Some(Point { label: format!("{name} {}", row.case).trim_end().into(), intensity: flops / bytes, gflops: flops / time / 1e9 })
    };
    rows.filter_map(point).collect()
}

/// Seconds of a call, after one whose answer is checked.
fn fastest(place: &Place, ready: Ready, quick: bool) -> f64 {
    let Ready { mut call, sync, check } = ready;
    let mut timed = |calls: u32| {
        let all = place.clock.time(|| {
            (0..calls).for_each(|_| call());
            sync();
        });
        all.as_secs_f64() / f64::from(calls)
    };
    timed(1);
    check();
    if quick {
        return timed(1);
    }
    // 20 ms a round, half a second in all, but five rounds at least.
    let calls = (0.02 / timed(1).max(1e-6)).clamp(1.0, 256.0) as u32;
    let (mut best, mut spent) = (f64::MAX, 0.0);
    for round in 0.. {
        if round >= 5 && spent > 0.5 {
            break;
        }
        let time = timed(calls);
        best = best.min(time);
        spent += time * f64::from(calls);
    }
    best
}

/// An element that is only moved, cast, compared or chosen counts as one operation, so that it has a place on the axis, and so does any
/// function of one element, as in `Dispatch::flops`.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for [m, k, n] in [[512; 3], [1, 2048, 2048]] {
        for kernel in ["matmul", "matmul_direct", "matmul_skinny", "matmul_splitk"] {
            // It does not take more than 8 rows.
            if kernel == "matmul_skinny" && m > 8 {
                continue;
            }
            let bytes = 4 * (m * k + k * n + m * n);
            let prepare = Box::new(move |device: &Device| matmul(device, DType::F32, [m, k, n]));
            rows.push(Row { kernel, case: format!("{m}x{k}x{n}"), flops: 2 * m * k * n, bytes, prepare });
        }
    }
    let side = 512usize;
    let prepare = Box::new(move |device: &Device| matmul(device, DType::F16, [side; 3]));
    let (flops, bytes) = (2 * side.pow(3), 8 * side * side);
    // f16 into f32.
    rows.push(Row { kernel: "matmul_coop", case: "512x512x512".into(), flops, bytes, prepare });
    let mut row = |kernel, case: &str, flops, bytes, prepare: fn(&Device) -> Ready| {
        rows.push(Row { kernel, case: case.into(), flops, bytes, prepare: Box::new(prepare) });
    };
    row("attention", "1x8x256x64", 4 * HEADS * SEQ * SEQ * DIM, 4 * HEADS * DIM * 4 * SEQ, attention);
    row("softmax", "", 5 * LEN, 8 * LEN, softmax);
    row("reduce", "sum", LEN, 4 * LEN, sum);
    row("reduce_arg", "argmax", LEN, 4 * LEN, argmax);
    row("cast", "f32 to bf16", LEN, 6 * LEN, |device| {
        let (x, host) = normals(device, &DIMS, 1);
        let exact = move |i: usize| (half::bf16::from_f32(host[i]).to_f64(), 0.0);
        into(device, DType::BF16, &DIMS, move |out| ops::cast_into(out, &x), exact)
    });
    row("unary", "gelu", LEN, 8 * LEN, |device| {
        let (x, host) = normals(device, &DIMS, 1);
        // The bound where x is within 6.
        let exact = move |i: usize| {
            let x = f64::from(host[i]);
            let want = 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
            (want, 56.0 * U * want.abs() + TINY)
        };
        into(device, DType::F32, &DIMS, move |out| ops::gelu_into(out, &x), exact)
    });
    row("unary_in_place", "neg", LEN, 8 * LEN, |device| {
        let (x, host) = normals(device, &DIMS, 1);
        ready(&x, ops::neg_in_place, move |i| (-f64::from(host[i]), 0.0))
    });
    row("copy", "", LEN, 8 * LEN, |device| {
        let (x, host) = normals(device, &DIMS, 1);
        into(device, DType::F32, &DIMS, move |out| ops::copy_into(out, &x), move |i| (host[i].into(), 0.0))
    });
    row("copy_scatter", "into a transpose", LEN, 8 * LEN, |device| {
        let (x, host) = normals(device, &DIMS, 1);
        let out = zeros(device, DType::F32, &DIMS).transpose(0, 1).expect("two axes");
        ready(&out, move |out| ops::copy_into(out, &x), move |i| (host[i].into(), 0.0))
    });
    row("gather", "rows", LEN, 8 * LEN, |device| {
        let (x, host) = normals(device, &DIMS, 1);
        let chosen: Vec<u32> = (0..SIDE as u32).map(|i| i.wrapping_mul(2_654_435_761) % SIDE as u32).collect();
        let indices = upload(device, &chosen, &[SIDE]);
        let exact = move |i: usize| (host[chosen[i / SIDE] as usize * SIDE + i % SIDE].into(), 0.0);
        into(device, DType::F32, &DIMS, move |out| ops::gather_into(out, &x, &indices, 0), exact)
    });
    // 32 heads of 1,024 rows.
    row("rope", "half", 3 * LEN, 8 * LEN, |device| {
        let (x, table, exact) = turning(device);
        into(device, DType::F32, &TURNED, move |out| ops::rope_into(out, &x, &table, &Default::default()), exact)
    });
    row("rope_in_place", "half", 3 * LEN, 8 * LEN, |device| {
        let (x, table, exact) = turning(device);
        ready(&x, move |x| ops::rope_in_place(x, &table, &Default::default()), exact)
    });
    row("compare", "lt", LEN, 9 * LEN, |device| {
        let [(lhs, left), (rhs, right)] = [1, 2].map(|seed| normals(device, &DIMS, seed));
        let exact = move |i: usize| (if left[i] < right[i] { 1.0 } else { 0.0 }, 0.0);
        into(device, DType::Bool, &DIMS, move |out| ops::lt_into(out, &lhs, &rhs), exact)
    });
    row("binary", "add", LEN, 12 * LEN, |device| {
        let [(lhs, left), (rhs, right)] = [1, 2].map(|seed| normals(device, &DIMS, seed));
        into(device, DType::F32, &DIMS, move |out| ops::add_into(out, &lhs, &rhs), move |i| added(left[i], right[i]))
    });
    row("binary_in_place", "add", LEN, 12 * LEN, |device| {
        let [(lhs, left), (rhs, right)] = [1, 2].map(|seed| normals(device, &DIMS, seed));
        ready(&lhs, move |lhs| ops::add_in_place(lhs, &rhs), move |i| added(left[i], right[i]))
    });
    row("where_cond", "", LEN, 13 * LEN, |device| {
        let [(on_true, left), (on_false, right)] = [1, 2].map(|seed| normals(device, &DIMS, seed));
        // Without a period that a branch could learn.
        let tests: Vec<bool> = (0..LEN).map(|i| (i * i / 7) % 3 == 0).collect();
        let cond = upload(device, &tests, &DIMS);
        let exact = move |i: usize| (if tests[i] { left[i] } else { right[i] }.into(), 0.0);
        into(device, DType::F32, &DIMS, move |out| ops::where_cond_into(out, &cond, &on_true, &on_false), exact)
    });
    rows
}

/// 64 MiB of heads.
const TURNED: [usize; 4] = [4, 32, 1024, 128];

/// Heads, the table that turns them, and what each element becomes.
fn turning(device: &Device) -> (Tensor, ops::RopeTable, impl Fn(usize) -> (f64, f64) + use<>) {
    let (x, host) = normals(device, &TURNED, 1);
    let table = ops::RopeTable::new(device, &ops::RopeFrequencies::new(10_000.0, 128), 0..1024).expect("a table");
    let (cos, sin) = (numbers(table.cos()), numbers(table.sin()));
    let exact = move |i: usize| {
        let at = i / 128 % 1024 * 64 + i % 64;
        let (own, other) = (f64::from(host[i]) * f64::from(cos[at]), f64::from(host[i ^ 64]) * f64::from(sin[at]));
        (if i & 64 == 0 { own - other } else { own + other }, 2.0 * U * (own.abs() + other.abs()) + TINY)
    };
    (x, table, exact)
}

/// A call that writes `out`, whose elements are checked: the exact value and its bound.
fn ready(out: &Tensor, call: impl FnMut(&mut Tensor) -> Result<()> + 'static, exact: impl FnMut(usize) -> (f64, f64) + 'static) -> Ready {
    Ready::new(out, call, move |out| check("roofline", &numbers(out), exact))
}

/// The same, into a new tensor.
fn into(
    device: &Device,
    dtype: DType,
    dims: &[usize],
    call: impl FnMut(&mut Tensor) -> Result<()> + 'static,
    exact: impl FnMut(usize) -> (f64, f64) + 'static,
) -> Ready {
    ready(&zeros(device, dtype, dims), call, exact)
}

fn added(left: f32, right: f32) -> (f64, f64) {
    let want = f64::from(left) + f64::from(right);
    (want, want.abs() * U + TINY)
}

/// The bounds that the ops state, here and below.
fn matmul(device: &Device, dtype: DType, [m, k, n]: [usize; 3]) -> Ready {
    let ((lhs, left), (rhs, right)) = (normals_in(device, dtype, &[m, k], 1), normals_in(device, dtype, &[k, n], 2));
    let exact = move |index: usize| {
        let products = (0..k).map(|i| f64::from(left[index / n * k + i]) * f64::from(right[i * n + index % n]));
        let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
        (sum, 4.0 * (k as f64).sqrt() * U * size + TINY)
    };
    into(device, DType::F32, &[m, n], move |out| ops::matmul_into(out, &lhs, &rhs, &Default::default()), exact)
}

fn sum(device: &Device) -> Ready {
    let (x, host) = normals(device, &DIMS, 1);
    let exact = move |index: usize| {
        let row = host[index * SIDE..][..SIDE].iter().map(|&v| f64::from(v));
        let (sum, size) = row.fold((0.0, 0.0), |(sum, size), v| (sum + v, size + v.abs()));
        (sum, 4.0 * (SIDE as f64).sqrt() * U * size + TINY)
    };
    into(device, DType::F32, &[SIDE], move |out| ops::sum_into(out, &x, &[1], false), exact)
}

fn argmax(device: &Device) -> Ready {
    let (x, host) = normals(device, &DIMS, 1);
    let exact = move |index: usize| {
        let row = &host[index * SIDE..][..SIDE];
        let first = (1..SIDE).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        (first as f64, 0.0)
    };
    into(device, DType::U32, &[SIDE], move |out| ops::argmax_into(out, &x, 1, false), exact)
}

fn softmax(device: &Device) -> Ready {
    let (x, host) = normals(device, &DIMS, 1);
    let exact = move |index: usize| {
        let row = &host[index / SIDE * SIDE..][..SIDE];
        let [top, low] = [f32::max, f32::min].map(|pick| f64::from(row.iter().copied().fold(row[0], pick)));
        let total: f64 = row.iter().map(|&l| (f64::from(l) - top).exp()).sum();
        let below = top - f64::from(host[index]);
        let p = (-below).exp() / total;
        (p, p * U * (8.5 + 2.0 * below + 2.0 * (top - low) + SIDE as f64) + storing(DType::F32, p))
    };
    into(device, DType::F32, &DIMS, move |out| ops::softmax_into(out, &x, -1, &Default::default()), exact)
}

/// Twice the bound of matmul, softmax and matmul one after the other.
fn attention(device: &Device) -> Ready {
    let dims = [1, HEADS, SEQ, DIM];
    let [(q, queries), (k, keys), (v, values)] = [1, 2, 3].map(|seed| normals(device, &dims, seed));
    let exact = move |index: usize| {
        let (row, column) = (index / DIM, index % DIM);
        let head = row / SEQ * SEQ;
        let scale = 1.0 / (DIM as f64).sqrt();
        let dot = |key: usize| {
            let products = (0..DIM).map(|i| f64::from(queries[row * DIM + i]) * f64::from(keys[(head + key) * DIM + i]) * scale);
            products.fold((0.0, 0.0), |(sum, size), p: f64| (sum + p, size + p.abs()))
        };
        let dots: Vec<(f64, f64)> = (0..SEQ).map(dot).collect();
        let [top, low] = [f64::max, f64::min].map(|pick| dots.iter().map(|dot| dot.0).fold(dots[0].0, pick));
        let total: f64 = dots.iter().map(|dot| (dot.0 - top).exp()).sum();
        // Absolute error of a score: p's relative one, and again for the sum.
        let score = dots.iter().map(|dot| 16.0 * U * dot.1 + 2.0 * U * (dot.0.abs() + top.abs())).fold(0.0, f64::max);
        let others = U * (8.5 + 4.0 * (top - low) + SEQ as f64 + 4.0 * (SEQ as f64).sqrt());
        let terms = dots.iter().enumerate().map(|(key, dot)| (dot.0 - top).exp() / total * f64::from(values[(head + key) * DIM + column]));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
        (sum, 2.0 * size * (2.0 * score + others) + TINY)
    };
    into(device, DType::F32, &dims, move |out| ops::attention_into(out, &q, &k, &v, &Default::default()), exact)
}
