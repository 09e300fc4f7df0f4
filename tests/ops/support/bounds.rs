//! Every op's error bound, in one table: what its docs say, and the function that the tests hold it to. No test has an epsilon of its own.
//! Bounds are absolute, of the computation in f32; storing adds a unit in the last place of a 16-bit type (`Expected::stored`).

use super::reference::U;

/// An op's page, and the formula as it stands there.
const DOCS: &[(&str, &str)] = &[
    ("binary", "an error of at most `2^-23 · |out|`"),
    ("binary", "an error of at most `2.5 · 2^-23 · |out|` for 2^-126 ≤ |rhs| ≤ 2^126"),
    ("binary", "a relative error of at most `2^-23 · (8 + 6 · |rhs| · (1 + |log2 |lhs||))`"),
    ("matmul", "at most `c · 2^-23 · Σ|lhs||rhs|` with c = 16 for k ≤ 64 and 4·√k beyond"),
    ("merge_attention", "an error of at most `2^-23 · (16 + 2 · |lse1 - lse2|) · (|w1 · out1| + |w2 · out2|)`"),
    ("reduce", "an error of at most `c · 2^-23 · Σ|x|` with c = 16 for n ≤ 64 and 4·√n beyond"),
    ("reduce", "the error of the sum, divided by n, and `3 · 2^-23 · |out|` for the division"),
    ("rope", "an error of at most `2 · 2^-23 · (|a cos| + |b sin|)`"),
    ("softmax", "at most `2^-23 · ((3 + 2t) + max(3 + 2t) + n + 2.5)`"),
    ("softmax", "what rounding `l` costs: `2^-22 · (|l| + |max l|)`"),
    ("softmax", "at most `2^-23 · (4t + max(3 + 2t) + n + 8)`"),
    ("unary", "`out = eˣ`. Numerics: an error of at most `4 · 2^-23 · |out|`"),
    ("unary", "NaN below. Numerics: an error of at most `5 · 2^-23 · |out|`"),
    ("unary", "-0 stays. Numerics: an error of at most `5 · 2^-23 · |out|`"),
    ("unary", "0 of +inf. Numerics: an error of at most `2 · 2^-23 · |out|`"),
    ("unary", "an error of at most `6 · 2^-23 · |out|` from 0 up and `2^-23 · (20 + x²) · |out|` below"),
    ("unary", "an error of at most `12 · 2^-23 · |out|` from 0 up and `2^-23 · (12 + 5 · |w|) · |out|` below"),
    ("unary", "swish. Numerics: an error of at most `10 · 2^-23 · |out|`"),
    ("unary", "`out = 1 / (1 + e⁻ˣ)`. Numerics: an error of at most `8 · 2^-23 · |out|`"),
    ("unary", "tangent of `x`. Numerics: an error of at most `8 · 2^-23 · |out|`"),
    ("unary", "from 0 to `x`. Numerics: an error of at most `2 · 2^-23 · |out|`, near 0 too, but that a subnormal `x` may count as 0"),
    ("unary", "`out = log(1 + eˣ)`. Numerics: an error of at most `10 · 2^-23 · |out|`"),
    ("unary", "MobileNetV3). Numerics: an error of at most `4 · 2^-23 · |out|`"),
];

/// `lhs + rhs`, `lhs - rhs`, `lhs * rhs`.
pub fn rounding(out: f64) -> f64 {
    U * out.abs()
}

/// `lhs / rhs`.
pub fn division(out: f64) -> f64 {
    2.5 * U * out.abs()
}

/// `lhs` to the power `rhs`.
pub fn power(out: f64, lhs: f64, rhs: f64) -> f64 {
    let logarithm = if lhs == 0.0 { 0.0 } else { lhs.abs().log2().abs() };
    U * (8.0 + 6.0 * rhs.abs() * (1.0 + logarithm)) * out.abs()
}

/// So many units of the result: most of the unary family.
pub fn units(count: f64, out: f64) -> f64 {
    if out.is_finite() { count * U * out.abs() } else { 0.0 }
}

/// `erf` of `x`.
pub fn erf(x: f64, out: f64) -> f64 {
    if x.abs() < f64::from(f32::MIN_POSITIVE) { out.abs() } else { units(2.0, out) }
}

/// `gelu` of `x`.
pub fn gelu(x: f64, out: f64) -> f64 {
    units(if x < 0.0 { 20.0 + x * x } else { 6.0 }, out)
}

/// `gelu_tanh` of `x`.
pub fn gelu_tanh(x: f64, out: f64) -> f64 {
    units(if x < 0.0 { 12.0 + 5.0 * super::reference::tanh_gate(x).abs() } else { 12.0 }, out)
}

/// Sums of `k` products (or of `k` numbers), whose magnitudes add up to `magnitude`.
pub fn sums(k: usize, magnitude: f64) -> f64 {
    super::reference::n2(k) * U * magnitude
}

/// Their mean.
pub fn mean(out: f64, n: usize, magnitude: f64) -> f64 {
    sums(n, magnitude) / n as f64 + 3.0 * U * out.abs()
}

/// Two results whose logarithms are so far apart, joined.
pub fn merged(apart: f64, magnitude: f64) -> f64 {
    // Below exp(-104) everything is 0 in f32.
    U * (16.0 + 2.0 * apart.min(104.0)) * magnitude
}

/// One of a pair that is turned; `magnitude` is the sum of its two products' magnitudes.
pub fn rotation(magnitude: f64) -> f64 {
    2.0 * U * magnitude
}

/// Softmax, relative: of an element `t` below its row's maximum, in a row of `n` whose steepest exponential is off by `steepest` units.
pub fn softmax(t: f64, steepest: f64, n: usize) -> f64 {
    // Below exp(-104) everything is 0 in f32.
    U * ((3.0 + 2.0 * t.min(104.0)) + steepest + n as f64 + 2.5)
}

/// Its logarithm, absolute.
pub fn log_softmax(t: f64, steepest: f64, n: usize) -> f64 {
    U * (4.0 * t + steepest + n as f64 + 8.0)
}

/// What rounding a logit costs where there is a scale or a mask.
pub fn logits(l: f64, top: f64) -> f64 {
    2.0 * U * (l + top)
}

/// The docs state the bounds that the tests hold.
pub fn docs_say_so() -> Result<(), String> {
    for (op, formula) in DOCS {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops").join(op).join("mod.rs");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        // Comment lines as one text, so that a formula may be broken.
        let docs: Vec<&str> =
            text.lines().filter_map(|line| line.trim_start().strip_prefix("///")).map(str::trim).filter(|l| !l.is_empty()).collect();
        if !docs.join(" ").contains(formula) {
            return Err(format!("the docs of ops::{op} do not say {formula:?}"));
        }
    }
    Ok(())
}
