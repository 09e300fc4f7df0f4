// The element types: their codes, and floats of 16 bits as the bits of an f32 and back: exact on subnormals and infinities, and
// rounded to nearest even by whole numbers, where WGSL leaves the rounding of pack2x16float and of sums open.

const F32: u32 = 0u;
const F16: u32 = 1u;
const BF16: u32 = 2u;
const I32: u32 = 3u;
const U32: u32 = 4u;
const U8: u32 = 5u;
const BOOL: u32 = 6u;

// Elements in a 32-bit word.
fn lanes(dtype: u32) -> u32 {
    switch dtype {
        case F16, BF16: { return 2u; }
        case U8, BOOL: { return 4u; }
        default: { return 1u; }
    }
}

fn f16_to_f32(half: u32) -> u32 {
    let sign = (half & 0x8000u) << 16u;
    let exponent = (half >> 10u) & 31u;
    let mantissa = half & 0x3ffu;
    if exponent == 31u {
        return sign | 0x7f800000u | (mantissa << 13u) | select(0u, 0x400000u, mantissa != 0u);
    }
    if exponent == 0u {
        if mantissa == 0u {
            return sign;
        }
        // Subnormal: its leading bit becomes the implicit one.
        let lead = 31u - countLeadingZeros(mantissa);
        return sign | ((lead + 103u) << 23u) | ((mantissa << (23u - lead)) & 0x7fffffu);
    }
    return sign | ((exponent + 112u) << 23u) | (mantissa << 13u);
}

fn f32_to_f16(bits: u32) -> u32 {
    return f32s_to_f16(vec4<u32>(bits)).x;
}

fn f32_to_bf16(bits: u32) -> u32 {
    return f32s_to_bf16(vec4<u32>(bits)).x;
}

// Four at a time and without branches, which lanes would not take together.
fn f32s_to_f16(bits: vec4<u32>) -> vec4<u32> {
    let sign = (bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u);
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    // A mantissa that rounds up carries into the exponent.
    let even = (magnitude >> vec4<u32>(13u)) & vec4<u32>(1u);
    let normal = ((magnitude + vec4<u32>(0xfffu) + even) >> vec4<u32>(13u)) - vec4<u32>(0x1c000u);
    // Below 2^-14 it is a count of 2^-24, here in the low bits of a float: product and sum are exact.
    let count = round(bitcast<vec4<f32>>(magnitude) * 16777216.0) + 8388608.0;
    let small = bitcast<vec4<u32>>(count) - vec4<u32>(0x4b000000u);
    var result = select(normal, small, magnitude < vec4<u32>(0x38800000u));
    // From 65,520 up the nearest is infinity.
    result = select(result, vec4<u32>(0x7c00u), magnitude >= vec4<u32>(0x477ff000u));
    let nan = vec4<u32>(0x7e00u) | ((magnitude >> vec4<u32>(13u)) & vec4<u32>(0x3ffu));
    return sign | select(result, nan, magnitude > vec4<u32>(0x7f800000u));
}

fn f32s_to_bf16(bits: vec4<u32>) -> vec4<u32> {
    let even = (bits >> vec4<u32>(16u)) & vec4<u32>(1u);
    let rounded = (bits + vec4<u32>(0x7fffu) + even) >> vec4<u32>(16u);
    let nan = (bits >> vec4<u32>(16u)) | vec4<u32>(0x40u);
    return select(rounded, nan, (bits & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u));
}
