// Finite arithmetic on values that may be masked, four at a time.

const LOWEST: f32 = -3.4028234e38;

// Only -inf masks, and WGSL may assume that it does not occur: look at the bits.
const MASKED: u32 = 0xff800000u;

fn is_masked(bits: vec4<u32>) -> vec4<bool> {
    return bits == vec4<u32>(MASKED);
}

// exp(x - top) for finite x <= top: halved, so that the difference of two huge values does not overflow.
fn exp_below(x: vec4<f32>, top: f32) -> vec4<f32> {
    return exp(2.0 * max(0.5 * x - 0.5 * top, vec4<f32>(-64.0)));
}

fn total(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}
