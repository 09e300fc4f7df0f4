//! The activations that more than one op has, of one f64.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// `x · share`; 0 where the share is, for infinite x too.
pub(crate) fn gated(x: f64, share: f64) -> f64 {
    if share == 0.0 { 0.0 } else { x * share }
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(crate) fn relu(x: f64) -> f64 {
    if x > 0.0 || x.is_nan() { x } else { 0.0 }
}

pub(crate) fn gelu(x: f64) -> f64 {
    gated(x, 0.5 * libm::erfc(-x * FRAC_1_SQRT_2))
}

/// In tanh's form, by way of the sigmoid of twice its argument.
pub(crate) fn gelu_tanh(x: f64) -> f64 {
    gated(x, sigmoid(2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)))
}

pub(crate) fn silu(x: f64) -> f64 {
    gated(x, sigmoid(x))
}
