//! How far from the published numbers each step may be: what the ops promise, and what the file itself has rounded.

use gristmill::Result;

use crate::{File, HEAD_DIM, HEADS, SEQ, Tensors, WIDTH, unfused_attention};

/// A rounding of f32, in whatever direction.
const U: f64 = 1.0 / (1 << 23) as f64;

/// Matmul's promise: c · U · Σ|a||b| with c = 16 up to k = 64 and 4·√k beyond, a bias being one more term. `more` roundings are allowed for
/// beside it: half of one for each published number (result or input), one for each op after the matmul.
fn matmul(k: usize, more: f64, bias: f32, term: impl Fn(usize) -> (f32, f32)) -> f64 {
    let c = if k <= 64 { 16.0 } else { 4.0 * (k as f64).sqrt() };
    let sum: f64 = (0..k).map(term).map(|(a, b)| (f64::from(a) * f64::from(b)).abs()).sum();
    (c + more) * U * (sum + f64::from(bias.abs()))
}

fn linear(file: &File, input: &str, layer: &str, more: f64, [row, column]: [usize; 2]) -> f64 {
    let (x, w, b) = (file.get(input), file.get(&format!("{layer}.weight")), file.get(&format!("{layer}.bias")));
    matmul(WIDTH, more, b[column], |l| (x[row * WIDTH + l], w[column * WIDTH + l]))
}

pub fn head(file: &File, layer: &str, i: usize) -> f64 {
    let [batch, head, row, column] = [i / HEAD_DIM / SEQ / HEADS, i / HEAD_DIM / SEQ % HEADS, i / HEAD_DIM % SEQ, i % HEAD_DIM];
    linear(file, "hidden", layer, 1.5, [batch * SEQ + row, head * HEAD_DIM + column])
}

pub fn output(file: &File, i: usize) -> f64 {
    linear(file, "out.context", "output", 2.0, [i / WIDTH, i % WIDTH])
}

pub fn scores(file: &File, i: usize) -> f64 {
    let (q, k, scale) = (file.get("out.q"), file.get("out.k"), 1.0 / (HEAD_DIM as f32).sqrt());
    let [row, key] = [i / SEQ, i / SEQ / SEQ * SEQ + i % SEQ];
    matmul(HEAD_DIM, 3.0, 0.0, |l| (scale * q[row * HEAD_DIM + l], k[key * HEAD_DIM + l]))
}

/// Softmax's promise, relative: U · ((3 + 2t) + max(3 + 2t) + n + 2.5 + 2·(|l| + |max l|)) with t the distance from the row's maximum, and half
/// a rounding of the published numbers.
pub fn softmax(file: &File, i: usize) -> f64 {
    let (row, batch) = (i / SEQ, i / SEQ / SEQ / HEADS);
    let mask = &file.get("attention_mask")[batch * SEQ..][..SEQ];
    let scores = &file.get("out.scores")[row * SEQ..][..SEQ];
    let visible = || scores.iter().zip(mask).filter(|(_, m)| **m != 0.0).map(|(l, _)| f64::from(*l));
    let (top, low, l) = (visible().fold(f64::MIN, f64::max), visible().fold(f64::MAX, f64::min), f64::from(scores[i % SEQ]));
    let promised = (3.0 + 2.0 * (top - l)) + (3.0 + 2.0 * (top - low)) + SEQ as f64 + 2.5 + 2.0 * (l.abs() + top.abs());
    let published = 0.5 + 0.5 * (l.abs() + top.abs());
    f64::from(file.get("out.probs")[i]) * U * (promised + published) + f64::from(f32::MIN_POSITIVE)
}

/// What errors of the scores and of softmax become in matmul, softmax, matmul, and the second product's own.
pub fn unfused(file: &File, i: usize) -> f64 {
    let (probs, v) = (file.get("out.probs"), file.get("out.v"));
    let [token, head, column] = [i / WIDTH, i % WIDTH / HEAD_DIM, i % HEAD_DIM];
    let matrix = token / SEQ * HEADS + head;
    let [row, keys] = [(matrix * SEQ + token % SEQ) * SEQ, matrix * SEQ];
    let term = |key: usize| (probs[row + key], v[(keys + key) * HEAD_DIM + column]);
    let score_error = (0..SEQ).map(|key| scores(file, row + key)).fold(0.0, f64::max);
    let inherited = (0..SEQ).map(|key| {
        let (p, v) = term(key);
        (softmax(file, row + key) + 2.0 * score_error * f64::from(p)) * f64::from(v.abs())
    });
    inherited.sum::<f64>() + matmul(SEQ, 1.0, 0.0, term)
}

/// Attention's promise: twice the largest error of the unfused one on the same device (as far as that one is within its own bound), and
/// two roundings of the result.
pub fn attention(file: &File, t: &Tensors) -> Result<f64> {
    let (result, golden) = (unfused_attention(t)?.to_vec::<f32>()?, file.get("out.context"));
    let error = result.iter().zip(golden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let allowed = (0..golden.len()).map(|i| unfused(file, i)).fold(0.0, f64::max);
    let rounding = golden.iter().map(|o| ((o + 0.3 - 0.3) - o).abs()).fold(0.0, f32::max);
    Ok(2.0 * (f64::from(error).min(allowed) + f64::from(rounding)))
}
