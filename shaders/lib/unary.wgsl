// Functions of one element, on 32-bit forms (lib/element.wgsl). Needs lib/order.wgsl. WGSL asks little of exp, log and tanh, so these are
// sums and products; infinities and NaN are told by their bits. The polynomials are minimax fits (Remez), rounded to f32.

const NEG: u32 = 0u;
const ABS: u32 = 1u;
const EXP: u32 = 2u;
const LOG: u32 = 3u;
const SQRT: u32 = 4u;
const RSQRT: u32 = 5u;
const RELU: u32 = 6u;
const GELU: u32 = 7u;
const GELU_TANH: u32 = 8u;
const SILU: u32 = 9u;
const SIGMOID: u32 = 10u;
const TANH: u32 = 11u;
const ERF: u32 = 12u;
const SOFTPLUS: u32 = 13u;
const HARD_SWISH: u32 = 14u;
const CLAMP: u32 = 15u;

const SIGN: u32 = 0x80000000u;
const INFINITE: u32 = 0x7f800000u;

// `low` and `high` are clamp's, and 0 for all else.
fn unary(op: u32, dtype: u32, bits: vec4<u32>, low: f32, high: f32) -> vec4<u32> {
    if dtype == I32 {
        let x = bitcast<vec4<i32>>(bits);
        switch op {
            case NEG: { return bitcast<vec4<u32>>(-x); }
            case ABS: { return bitcast<vec4<u32>>(abs(x)); }
            default: { return bitcast<vec4<u32>>(max(x, vec4<i32>(0))); }
        }
    }
    let zero = bitcast<u32>(low);
    var result = bits;
    switch op {
        case NEG: { result = bits ^ vec4<u32>(SIGN); }
        case ABS: { result = bits & vec4<u32>(~SIGN); }
        case EXP: { result = exp_of(bits, zero); }
        case LOG: { result = log_of(bits, zero); }
        case SQRT: { result = sqrt_of(bits); }
        case RSQRT: { result = rsqrt_of(bits); }
        case RELU: { result = select(bits, vec4<u32>(0u), bits >= vec4<u32>(SIGN)); }
        case GELU: { result = gelu_of(bits, zero); }
        case GELU_TANH: { result = gelu_tanh_of(bits, zero); }
        case SILU: { result = gated(bits, bitcast<vec4<f32>>(bits), zero); }
        case SIGMOID: { result = share(vec4<f32>(1.0), bitcast<vec4<f32>>(bits), zero); }
        case TANH: { result = tanh_of(bits, zero); }
        case ERF: { result = erf_of(bits, zero); }
        case SOFTPLUS: { result = softplus_of(bits, zero); }
        case HARD_SWISH: { result = hard_swish_of(bits, zero); }
        case CLAMP, default: { result = lowest_of(vec4<u32>(bitcast<u32>(high)), highest_of(vec4<u32>(bitcast<u32>(low)), bits)); }
    }
    return select(result, vec4<u32>(0x7fc00000u), (bits & vec4<u32>(~SIGN)) > vec4<u32>(INFINITE));
}

// The value as it is: behind an exclusive or with what only the host knows to be 0. Without it compilers regroup sums and products, as WGSL
// lets them: that costs digits, and range (Mesa 26 takes hard_swish's x / 6 first, which underflows where the product would not).
fn keep(value: vec4<f32>, zero: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(value) ^ vec4<u32>(zero));
}

// A float above another that is positive, infinities too.
fn above(bits: vec4<u32>, limit: f32) -> vec4<bool> {
    return bitcast<vec4<i32>>(bits) > vec4<i32>(bitcast<i32>(limit));
}

// factor * 2^exponent, for what f32 may not hold.
struct Power {
    factor: vec4<f32>,
    exponent: vec4<i32>,
}

// exp(x), the factor between 0.7 and 1.5 and within 4 units: x = n ln 2 + d, exp(d) = 1 + d + d^2 p(d).
fn power_of(x: vec4<f32>, zero: u32) -> Power {
    let kept = clamp(x, vec4<f32>(-512.0), vec4<f32>(512.0));
    let n = round(kept * 1.442695);
    // The first step is exact.
    let d = keep(keep(kept - n * 0.693359375, zero) + n * 2.1219444e-4, zero);
    let p = (((0.0013840183 * d + 0.008368171) * d + 0.041667785) * d + 0.16666527) * d + 0.49999997;
    return Power(1.0 + keep(d + keep(d * d, zero) * p, zero), vec4<i32>(n));
}

// The bits of value * 2^exponent: 0 below the normal numbers, infinite above them.
fn scaled(value: vec4<f32>, exponent: vec4<i32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(value);
    let sign = bits & vec4<u32>(SIGN);
    let sum = bitcast<vec4<i32>>((bits >> vec4<u32>(23u)) & vec4<u32>(255u)) + exponent;
    let inside = select(bits + (bitcast<vec4<u32>>(exponent) << vec4<u32>(23u)), sign, sum <= vec4<i32>(0));
    return select(inside, sign | vec4<u32>(INFINITE), sum >= vec4<i32>(255));
}

fn exp_of(bits: vec4<u32>, zero: u32) -> vec4<u32> {
    let power = power_of(bitcast<vec4<f32>>(bits), zero);
    return scaled(power.factor, power.exponent);
}

// A subnormal as a whole number of its units of 2^-149: devices may take subnormals for 0.
fn units_of(bits: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(bits & vec4<u32>(0x7fffffu));
}

// A shift that drops the sign would do too, but Mesa 26 makes a comparison of floats of it, which takes subnormals for 0.
fn is_zero(bits: vec4<u32>) -> vec4<bool> {
    return (bits & vec4<u32>(~SIGN)) == vec4<u32>(0u);
}

fn subnormal(bits: vec4<u32>) -> vec4<bool> {
    return (bits & vec4<u32>(INFINITE)) == vec4<u32>(0u);
}

// x = 2^e (1 + f) with 1 + f between sqrt(1/2) and sqrt(2); log(1 + f) = f - f^2/2 + f^3 p(f).
fn log_of(bits: vec4<u32>, zero: u32) -> vec4<u32> {
    let small = subnormal(bits);
    let number = select(bits, bitcast<vec4<u32>>(units_of(bits)), small);
    let e = bitcast<vec4<i32>>(number - vec4<u32>(0x3f3504f3u)) >> vec4<u32>(23u);
    let f = keep(bitcast<vec4<f32>>(number - (bitcast<vec4<u32>>(e) << vec4<u32>(23u))) - 1.0, zero);
    var p = (((-0.076345064 * f + 0.12761593) * f - 0.13160186) * f + 0.14201756) * f - 0.16623357;
    p = ((p * f + 0.20001227) * f - 0.2500082) * f + 0.3333333;
    let n = vec4<f32>(e - select(vec4<i32>(0), vec4<i32>(149), small));
    let part = keep(f + keep(f * f, zero) * (f * p - 0.5), zero);
    let value = bitcast<vec4<u32>>(n * 0.693359375 + keep(part - n * 2.1219444e-4, zero));
    let valid = select(value, vec4<u32>(0x7fc00000u), bits > vec4<u32>(SIGN));
    let above_zero = select(valid, vec4<u32>(SIGN | INFINITE), is_zero(bits));
    return select(above_zero, bits, bits == vec4<u32>(INFINITE));
}

fn sqrt_of(bits: vec4<u32>) -> vec4<u32> {
    let small = subnormal(bits);
    let root = sqrt(select(bitcast<vec4<f32>>(bits), units_of(bits) * 2.0, small));
    let value = bitcast<vec4<u32>>(select(root, root * 2.646978e-23, small));
    let valid = select(value, vec4<u32>(0x7fc00000u), bits > vec4<u32>(SIGN));
    return select(valid, bits, (bits == vec4<u32>(INFINITE)) | is_zero(bits));
}

fn rsqrt_of(bits: vec4<u32>) -> vec4<u32> {
    let small = subnormal(bits);
    let root = inverseSqrt(select(bitcast<vec4<f32>>(bits), units_of(bits) * 2.0, small));
    let value = bitcast<vec4<u32>>(select(root, root * 3.7778932e22, small));
    let valid = select(value, vec4<u32>(0x7fc00000u), bits > vec4<u32>(SIGN));
    let above_zero = select(valid, bits | vec4<u32>(INFINITE), is_zero(bits));
    return select(above_zero, vec4<u32>(0u), bits == vec4<u32>(INFINITE));
}

// value * sigmoid(x) by exp(-|x|), which does not overflow; normal wherever the product is.
fn share(value: vec4<f32>, x: vec4<f32>, zero: u32) -> vec4<u32> {
    let power = power_of(-abs(x), zero);
    let e = bitcast<vec4<f32>>(scaled(power.factor, power.exponent));
    let negative = x < vec4<f32>(0.0);
    let quotient = keep(value * select(vec4<f32>(1.0), power.factor, negative), zero) / (1.0 + e);
    return scaled(quotient, select(vec4<i32>(0), power.exponent, negative));
}

// x * sigmoid(gate), for gates that grow with x.
fn gated(bits: vec4<u32>, gate: vec4<f32>, zero: u32) -> vec4<u32> {
    // Kept finite: exp has made 0 of the rest long before.
    let x = max(bitcast<vec4<f32>>(bits), vec4<f32>(-1e30));
    return select(share(x, gate, zero), bits, above(bitcast<vec4<u32>>(gate), 18.0));
}

// By the tangent's form: x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).
fn gelu_tanh_of(bits: vec4<u32>, zero: u32) -> vec4<u32> {
    let x = clamp(bitcast<vec4<f32>>(bits), vec4<f32>(-30.0), vec4<f32>(30.0));
    return gated(bits, x * (keep(x * x, zero) * 0.071354814 + 1.5957692), zero);
}

// x + x^3 p(x^2), or 1 - 2 / (exp(2x) + 1).
fn tanh_of(bits: vec4<u32>, zero: u32) -> vec4<u32> {
    let x = bitcast<vec4<f32>>(bits & vec4<u32>(~SIGN));
    let s = keep(x * x, zero);
    let p = (((-0.0057049873 * s + 0.020639088) * s - 0.053739715) * s + 0.13331442) * s - 0.3333328;
    let power = power_of(min(x, vec4<f32>(10.0)) * 2.0, zero);
    let far = 1.0 - 2.0 / (bitcast<vec4<f32>>(scaled(power.factor, power.exponent)) + 1.0);
    let value = select(x + x * keep(s * p, zero), far, above(bitcast<vec4<u32>>(x), 0.625));
    return bitcast<vec4<u32>>(value) | (bits & vec4<u32>(SIGN));
}

// erf(z) / z - 1 of s = z^2, for |z| up to 1.25.
fn erf_near(s: vec4<f32>) -> vec4<f32> {
    var p = (((-7.5729668e-6 * s + 1.0393879e-4) * s - 8.3395705e-4) * s + 0.005209016) * s - 0.026860248;
    return ((p * s + 0.11283675) * s - 0.3761263) * s + 0.12837917;
}

// exp(z^2) erfc(z) for z from 0 on, by a polynomial of 1 / (z + 2).
fn erfc_scaled(z: vec4<f32>, zero: u32) -> vec4<f32> {
    let t = 1.0 / (z + 2.0);
    var p = (((-30.317034 * t + 73.03133) * t - 62.548397) * t + 17.903341) * t - 0.8889561;
    p = (((p * t + 3.2508173) * t + 1.9438393) * t + 1.1295694) * t + 0.5641709;
    return keep(p * t, zero);
}

fn erf_of(bits: vec4<u32>, zero: u32) -> vec4<u32> {
    let x = bitcast<vec4<f32>>(bits & vec4<u32>(~SIGN));
    let z = min(x, vec4<f32>(16.0));
    let power = power_of(-keep(z * z, zero), zero);
    let far = 1.0 - bitcast<vec4<f32>>(scaled(erfc_scaled(z, zero) * power.factor, power.exponent));
    let value = select(x + x * erf_near(keep(z * z, zero)), far, above(bitcast<vec4<u32>>(x), 1.25));
    return bitcast<vec4<u32>>(value) | (bits & vec4<u32>(SIGN));
}

// x times the normal distribution's share below x: erfc without cancellation below -1, where exp(-x^2/2) rules.
fn gelu_of(bits: vec4<u32>, zero: u32) -> vec4<u32> {
    let x = max(bitcast<vec4<f32>>(bits), vec4<f32>(-1e30));
    let size = bitcast<vec4<f32>>(bits & vec4<u32>(~SIGN));
    let kept = min(size, vec4<f32>(64.0));
    let half_square = keep(kept * kept * 0.5, zero);
    let power = power_of(-half_square, zero);
    let tail = keep(erfc_scaled(kept * 0.70710677, zero) * power.factor * 0.5, zero);
    let below = scaled(x * tail, power.exponent);
    let over = bitcast<vec4<u32>>(x - x * bitcast<vec4<f32>>(scaled(tail, power.exponent)));
    let z = keep(x * 0.70710677, zero);
    let near = bitcast<vec4<u32>>(x * (0.5 + 0.5 * (z + z * erf_near(half_square))));
    let far = select(over, below, bits >= vec4<u32>(SIGN));
    return select(select(near, far, above(bitcast<vec4<u32>>(size), 1.0)), bits, above(bits, 8.0));
}

// max(x, 0) + log(1 + e) with e = exp(-|x|); the logarithm is 2 atanh(s) with s = e / (2 + e).
fn softplus_of(bits: vec4<u32>, zero: u32) -> vec4<u32> {
    let x = bitcast<vec4<f32>>(bits);
    let power = power_of(-abs(x), zero);
    let e = bitcast<vec4<f32>>(scaled(power.factor, power.exponent));
    let twice = keep(2.0 * e / (2.0 + e), zero);
    let u = keep(twice * twice * 0.25, zero);
    let p = ((0.14005996 * u + 0.14000902) * u + 0.20010763) * u + 0.3333321;
    let value = max(x, vec4<f32>(0.0)) + keep(twice + twice * keep(u * p, zero), zero);
    return select(bitcast<vec4<u32>>(value), bits, above(bits, 20.0));
}

fn hard_swish_of(bits: vec4<u32>, zero: u32) -> vec4<u32> {
    let x = bitcast<vec4<f32>>(bits);
    let value = bitcast<vec4<u32>>(keep(x * clamp(x + 3.0, vec4<f32>(0.0), vec4<f32>(6.0)), zero) * 0.16666667);
    // From -3 down as an unsigned number.
    let inside = select(value, vec4<u32>(0u), bits >= vec4<u32>(0xc0400000u));
    return select(inside, bits, above(bits, 3.0));
}
