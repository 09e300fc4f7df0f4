// What softmax and attention share: finite arithmetic on values that may be masked.

const LOWEST: f32 = -3.4028234e38;

// Only -inf masks, and WGSL may assume that it does not occur: look at the bits.
const MASKED: u32 = 0xff800000u;

fn is_masked(bits: u32) -> bool {
    return bits == MASKED;
}

// scale * x + bias, kept finite: what overflows saturates.
fn logit(x: f32, scale: f32, bias: f32) -> f32 {
    return clamp(x * scale + bias, LOWEST, -LOWEST);
}

// exp(x - top) for finite x <= top: halved, so that the difference of two huge values does not overflow.
fn exp_below(x: f32, top: f32) -> f32 {
    return exp(2.0 * max(0.5 * x - 0.5 * top, -64.0));
}
