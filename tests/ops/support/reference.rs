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

/// One head of attention: q [seq_q, head_dim], k [seq_k, head_dim], v [seq_k, v_dim]; the others are over [seq_q, seq_k].
pub struct Head<'a> {
    pub qkv: (&'a [f64], &'a [f64], &'a [f64]),
    /// seq_q, seq_k, head_dim, v_dim
    pub sizes: [usize; 4],
    pub scale: f64,
    pub softcap: Option<f64>,
    pub sink: Option<f64>,
    /// What is added to the scores by place.
    pub alibi: &'a [f64],
    /// What is added beside that, -inf where masked.
    pub bias: &'a [f64],
    /// Factors of the weights.
    pub kept: &'a [f64],
}

/// The results of a head, and how far from them an element may be.
#[derive(Default)]
pub struct Attended {
    pub values: Vec<f64>,
    pub bounds: Vec<f64>,
    /// The logarithms of the sums, and their bounds.
    pub lse: Vec<f64>,
    pub lse_bounds: Vec<f64>,
}

/// Gives the values and the first-order bound of plain attention in f32, element by element. With e the largest error of a row's logits
/// (N2's for the product, a rounding each for scale and bias, two for ALiBi, and four units of a softcap), a probability is off by a relative 2e and
/// by softmax's own bound; the second product adds N2's.
pub fn attention(head: &Head) -> Attended {
    let [seq_q, seq_k, head_dim, v_dim] = head.sizes;
    let (q, k, v) = head.qkv;
    let limit = f64::from(f32::MAX);
    let mut all = Attended { values: vec![0.0; seq_q * v_dim], bounds: vec![0.0; seq_q * v_dim], ..Attended::default() };
    for row in 0..seq_q {
        let mut logits = vec![f64::NEG_INFINITY; seq_k];
        let mut logit_error = 0.0f64;
        for key in 0..seq_k {
            let products = (0..head_dim).map(|d| q[row * head_dim + d] * k[key * head_dim + d]);
            let (product, magnitude) = products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
            let (add, alibi) = (head.bias[row * seq_k + key], head.alibi[row * seq_k + key]);
            if add != f64::NEG_INFINITY {
                let scaled = product * head.scale;
                let capped = head.softcap.map_or(scaled, |cap| cap * (scaled / cap).tanh());
                logits[key] = (capped + alibi + add).clamp(-limit, limit);
                // Of zeros alone nothing is rounded, however large the bias is.
                if magnitude > 0.0 || alibi != 0.0 {
                    let rounded = scaled.abs() + 2.0 * alibi.abs() + logits[key].abs() + 4.0 * head.softcap.unwrap_or(0.0);
                    let error = U * (n2(head_dim) * head.scale.abs() * magnitude + rounded);
                    logit_error = logit_error.max(error.min(limit));
                }
            }
        }
        // A sink is one more logit, which has no value.
        logits.extend(head.sink);
        let truth = softmax(&logits);
        // Below exp(-104) everything is 0 in f32.
        let exps = |t: f64| 3.0 + 2.0 * t.min(104.0);
        let steepest = truth.distances.iter().map(|&t| exps(t)).fold(0.0, f64::max);
        for (key, p) in truth.probabilities.iter().take(seq_k).enumerate() {
            let softmax_error = U * (exps(truth.distances[key]) + steepest + seq_k as f64 + 2.5);
            let relative = 2.0 * logit_error + softmax_error + U * n2(seq_k);
            for column in 0..v_dim {
                let term = p * head.kept[row * seq_k + key] * v[key * v_dim + column];
                all.values[row * v_dim + column] += term;
                all.bounds[row * v_dim + column] += term.abs() * relative;
                // A weight below the normal numbers may count as none, whatever its value is multiplied by.
                if *p > 0.0 {
                    let factor = head.kept[row * seq_k + key] * (1.0 + v[key * v_dim + column].abs());
                    all.bounds[row * v_dim + column] += f64::from(f32::MIN_POSITIVE) * factor;
                }
            }
        }
        // Any logit less its logarithm of a probability.
        let seen = logits.iter().zip(&truth.logarithms).find(|(l, _)| **l != f64::NEG_INFINITY);
        let lse = seen.map_or(f64::NEG_INFINITY, |(l, log)| (l - log).clamp(-limit, limit));
        all.lse.push(lse);
        let size = logits.iter().filter(|l| l.is_finite()).fold(0.0f64, |size, l| size.max(l.abs()));
        all.lse_bounds.push(if lse.is_finite() { logit_error + U * (8.0 + size + lse.abs() + seq_k as f64) } else { 0.0 });
    }
    all
}

/// `1 - erf(x)` to a relative 1e-12 or so: the series of positive terms below 2 (Abramowitz and Stegun 7.1.6), the continued fraction from
/// there (7.1.14), which 200 steps more than settle.
pub fn erfc(x: f64) -> f64 {
    if x < 2.0 {
        return 1.0 - erf(x);
    }
    let fraction = (1..=200).rev().fold(x, |below, n| x + f64::from(n) / 2.0 / below);
    (-x * x).exp() / fraction / std::f64::consts::PI.sqrt()
}

/// To a relative 1e-14 or so.
pub fn erf(x: f64) -> f64 {
    if x.abs() >= 2.0 {
        return x.signum() * (1.0 - erfc(x.abs()));
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..60 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

/// Twice the argument of the tanh in `gelu_tanh`.
pub fn tanh_gate(x: f64) -> f64 {
    2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))
}

/// `1 / (1 + exp(-x))`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
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
