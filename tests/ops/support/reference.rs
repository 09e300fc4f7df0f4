//! The first level of truth: naive, sequential, f64, obvious. Each function gives the values and what its bound is made of.

/// The unit of f32 error budgets: WGSL does not fix the rounding direction, so not half of it.
pub const U: f64 = 1.0 / 8_388_608.0;

/// N2's factor for sums of `k` products.
pub fn n2(k: usize) -> f64 {
    if k <= 64 { 16.0 } else { 4.0 * (k as f64).sqrt() }
}

/// `[m, k] · [k, n]`: the sums and the sums of magnitudes.
pub fn matmul(lhs: &[f64], rhs: &[f64], [m, n, k]: [usize; 3]) -> (Vec<f64>, Vec<f64>) {
    let mut sums = vec![0.0; m * n];
    let mut magnitudes = vec![0.0; m * n];
    for row in 0..m {
        for col in 0..n {
            for i in 0..k {
                let product = lhs[row * k + i] * rhs[i * n + col];
                sums[row * n + col] += product;
                magnitudes[row * n + col] += product.abs();
            }
        }
    }
    (sums, magnitudes)
}

/// A row of logits, -inf where masked: the probabilities, their logarithms, and each logit's distance from the maximum.
pub struct Softmax {
    pub probabilities: Vec<f64>,
    pub logarithms: Vec<f64>,
    pub distances: Vec<f64>,
}

pub fn softmax(logits: &[f64]) -> Softmax {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        let len = logits.len();
        return Softmax { probabilities: vec![0.0; len], logarithms: vec![f64::NEG_INFINITY; len], distances: vec![0.0; len] };
    }
    let total: f64 = logits.iter().map(|l| (l - top).exp()).sum();
    Softmax {
        probabilities: logits.iter().map(|l| (l - top).exp() / total).collect(),
        logarithms: logits.iter().map(|l| l - top - total.ln()).collect(),
        distances: logits.iter().map(|l| if l.is_finite() { top - l } else { 0.0 }).collect(),
    }
}

/// One head of attention: q [seq_q, head_dim], k [seq_k, head_dim], v [seq_k, v_dim]; `logit(row, key, product)` is -inf where masked.
pub fn attention(
    (q, k, v): (&[f64], &[f64], &[f64]),
    [seq_q, seq_k, head_dim, v_dim]: [usize; 4],
    logit: impl Fn(usize, usize, f64) -> f64,
) -> Vec<f64> {
    let mut out = vec![0.0; seq_q * v_dim];
    for row in 0..seq_q {
        let product = |key: usize| (0..head_dim).map(|d| q[row * head_dim + d] * k[key * head_dim + d]).sum();
        let logits: Vec<f64> = (0..seq_k).map(|key| logit(row, key, product(key))).collect();
        for (key, p) in softmax(&logits).probabilities.into_iter().enumerate() {
            for column in 0..v_dim {
                out[row * v_dim + column] += p * v[key * v_dim + column];
            }
        }
    }
    out
}

/// Row-major elements of an array broadcast to `dims` (NumPy's rule).
pub fn broadcast(values: &[f64], from: &[usize], dims: &[usize]) -> Vec<f64> {
    let lead = dims.len() - from.len();
    (0..dims.iter().product())
        .map(|mut element: usize| {
            let (mut index, mut stride) = (0, 1);
            for axis in (0..dims.len()).rev() {
                let coordinate = element % dims[axis];
                element /= dims[axis];
                if axis >= lead {
                    let size = from[axis - lead];
                    index += (if size == 1 { 0 } else { coordinate }) * stride;
                    stride *= size;
                }
            }
            values[index]
        })
        .collect()
}
