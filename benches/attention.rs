//! `cargo bench --bench attention`: prefill, full and causal, and one step of decoding, with every tune that holds the head.
//! Floating point operations are those of the scores that are seen; decoding is bound by memory and counted in bytes.

mod support;

use gristmill::{DType, Device, Tensor, ops};
use ops::{Attention, AttentionRope, Rope, RopeFrequencies, RopeTable};
use support::{Group, Place, Ready, U, Variant, Work, check_product, download, normals_in, numbers, variants, zeros};

const HEADS: usize = 8;
const DIM: usize = 64;

/// A shape: its part of the id, queries, keys, whether causal.
const SHAPES: [(&str, usize, usize, bool); 3] =
    [("1x8x256x64", 256, 256, false), ("1x8x256x64.causal", 256, 256, true), ("1x8x1x64.keys1024", 1, 1024, false)];

fn main() {
    support::bench("attention", rows);
    support::finish();
}

/// What the device chooses, and the same with `q` and `k` turned by the call.
fn turned(place: &Place, group: &mut Group) {
    const SEQ: usize = 512;
    for turns in [false, true] {
        let name = if turns { "rope" } else { "chosen" };
        group.row(name, "f32", "1x8x512x64.causal", Work::Flops(2 * HEADS * SEQ * (SEQ + 1) * DIM), || {
            let [q, k, v] = [1, 2, 3].map(|seed| normals_in(&place.device, DType::F32, &[1, HEADS, SEQ, DIM], seed).0);
            let table = RopeTable::new(&place.device, &RopeFrequencies::new(10_000.0, DIM), 0..SEQ as u32).expect("a small table");
            let causal = Attention { causal: true, ..Default::default() };
            let all = Rope::default();
            let before = |x: &Tensor| if turns { ops::rope(x, &table, &all).expect("heads that the table turns") } else { x.clone() };
            let wanted = ops::attention(&before(&q), &before(&k), &v, &causal).expect("a small call");
            let out = zeros(&place.device, DType::F32, &[1, HEADS, SEQ, DIM]);
            let call = move |out: &mut Tensor| {
                let rope = turns.then_some(AttentionRope { table: &table, q: Some(all), k: Some(all) });
                ops::attention_into(out, &q, &k, &v, &Attention { rope, ..causal })
            };
            Ready::new(&out, call, move |out| {
                assert_eq!(download::<f32>(out), download::<f32>(&wanted), "turned before is not turned within")
            })
        });
    }
}

/// What prefill is measured against on software adapters: the device's matmul, in the same run.
fn product(place: &Place, group: &mut Group) {
    const SIDE: usize = 512;
    group.row("yardstick.matmul", "f32", "512x512x512", Work::Flops(2 * SIDE * SIDE * SIDE), || {
        let [(lhs, left), (rhs, right)] = [1, 2].map(|seed| normals_in(&place.device, DType::F32, &[SIDE, SIDE], seed));
        let out = zeros(&place.device, DType::F32, &[SIDE, SIDE]);
        Ready::new(
            &out,
            move |out| ops::matmul_into(out, &lhs, &rhs, &Default::default()),
            move |out| check_product(DType::F32, &numbers(out), &left, &right, [SIDE; 3]),
        )
    });
}

fn rows(place: &Place, group: &mut Group) {
    product(place, group);
    turned(place, group);
    for (shape, queries, keys, causal) in SHAPES {
        let seen: usize = (0..queries).map(|query| if causal { query + 1 } else { keys }).sum();
        let work = if queries == 1 { Work::Bytes(8 * HEADS * DIM * (queries + keys)) } else { Work::Flops(4 * HEADS * seen * DIM) };
        for variant in kernels(place, queries) {
            // Results in f32, whose error is the computation's.
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let types = if dtype == DType::F32 { "f32".into() } else { format!("f32-{dtype}") };
                group.row(&variant.name, &types, shape, work, || {
                    let case = Case::new(&variant.device, dtype, queries, keys, causal);
                    let out = zeros(&variant.device, DType::F32, &[1, HEADS, queries, DIM]);
                    let [q, k, v] = case.operands.clone();
                    let options = Attention { causal, ..Default::default() };
                    Ready::new(&out, move |out| ops::attention_into(out, &q, &k, &v, &options), move |out| case.check(out))
                });
            }
        }
    }
}

/// Every tune that holds the head, of the kernels that are for so many queries.
fn kernels(place: &Place, queries: usize) -> Vec<Variant> {
    if place.device.is_cpu() {
        return variants(place, "attention");
    }
    let mut names = vec!["attention", "attention_subgroups", "attention_direct"];
    names.extend((queries == 1).then_some("attention_decode"));
    let all = names.into_iter().flat_map(|name| variants(place, name));
    #[cfg(feature = "gpu")]
    let all = all.filter(|variant| {
        let most = variant.tune.and_then(|tune| tune.get("V_MAX").or(tune.get("D_MAX")));
        most.is_none_or(|most| most as usize >= DIM)
    });
    all.collect()
}

struct Case {
    operands: [Tensor; 3],
    host: [Vec<f32>; 3],
    queries: usize,
    keys: usize,
    causal: bool,
}

/// The exact result of one row, and how far plain attention in f32 may be from it.
struct Exact {
    value: [f64; DIM],
    bound: [f64; DIM],
}

impl Case {
    fn new(device: &Device, dtype: DType, queries: usize, keys: usize, causal: bool) -> Self {
        let [q, k, v] = [(queries, 1), (keys, 2), (keys, 3)].map(|(len, seed)| normals_in(device, dtype, &[1, HEADS, len, DIM], seed));
        Case { operands: [q.0, k.0, v.0], host: [q.1, k.1, v.1], queries, keys, causal }
    }

    fn exact(&self, head: usize, query: usize) -> Exact {
        let row = |x: usize, len: usize, at: usize| &self.host[x][(head * len + at) * DIM..][..DIM];
        let q = row(0, self.queries, query);
        let keys = if self.causal { query + 1 } else { self.keys };
        let scale = 1.0 / (DIM as f64).sqrt();
        let dots = (0..keys).map(|key| {
            let products = q.iter().zip(row(1, self.keys, key)).map(|(&a, &b)| f64::from(a) * f64::from(b) * scale);
            products.fold((0.0, 0.0), |(sum, size): (f64, f64), p| (sum + p, size + p.abs()))
        });
        let dots: Vec<(f64, f64)> = dots.collect();
        let top = dots.iter().fold(f64::MIN, |top, dot| top.max(dot.0));
        let low = dots.iter().fold(f64::MAX, |low, dot| low.min(dot.0));
        let total: f64 = dots.iter().map(|dot| (dot.0 - top).exp()).sum();
        // Absolute error of a score, matmul's bound and the rounding of the scaled one; it is p's relative error, twice for the sum.
        let score = dots.iter().fold(0.0, |most: f64, dot| most.max(16.0 * U * dot.1 + 2.0 * U * (dot.0.abs() + top.abs())));
        let softmax = U * (2.0 * (3.0 + 2.0 * (top - low)) + keys as f64 + 2.5);
        let product = U * 4.0 * (self.keys as f64).sqrt().max(4.0);
        let mut exact = Exact { value: [0.0; DIM], bound: [0.0; DIM] };
        for (key, dot) in dots.iter().enumerate() {
            let p = (dot.0 - top).exp() / total;
            for (column, &v) in row(2, self.keys, key).iter().enumerate() {
                exact.value[column] += p * f64::from(v);
                exact.bound[column] += p * f64::from(v).abs() * (2.0 * score + softmax + product);
            }
        }
        exact
    }

    /// Every element within the bound of plain attention.
    fn check(&self, out: &Tensor) {
        let got: Vec<f32> = download(out);
        assert_eq!(got.len(), HEADS * self.queries * DIM);
        for head in 0..HEADS {
            for query in 0..self.queries {
                let exact = self.exact(head, query);
                for (column, (want, bound)) in exact.value.into_iter().zip(exact.bound).enumerate() {
                    let index = (head * self.queries + query) * DIM + column;
                    // A NaN is not within it either.
                    let within = (f64::from(got[index]) - want).abs() <= bound;
                    assert!(within, "attention: wrong answer: element {index} is {}, exact {want}, allowed {bound:e}", got[index]);
                }
            }
        }
    }
}
