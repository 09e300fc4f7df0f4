// The element types: their codes, and floats of 16 bits as the bits of an f32 and back. Integer arithmetic only: exact on subnormals and
// infinities, and rounded to nearest even, where WGSL leaves the rounding of pack2x16float open.

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

// Shifts right by 1 to 31 and rounds to nearest even; or to odd, so that a later rounding is the only one.
fn shift_round(value: u32, shift: u32, odd: bool) -> u32 {
    let kept = value >> shift;
    let rest = value & ((1u << shift) - 1u);
    let half = 1u << (shift - 1u);
    let up = rest > half || (rest == half && (kept & 1u) == 1u);
    return select(kept + select(0u, 1u, up), kept | select(0u, 1u, rest != 0u), odd);
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
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    if magnitude > 0x7f800000u {
        return sign | 0x7e00u | ((magnitude >> 13u) & 0x3ffu);
    }
    // From 65,520 up the nearest is infinity.
    if magnitude >= 0x477ff000u {
        return sign | 0x7c00u;
    }
    if magnitude >= 0x38800000u {
        return sign | shift_round(magnitude - 0x38000000u, 13u, false);
    }
    // 2^-25 is halfway to the smallest subnormal, and even is 0.
    if magnitude <= 0x33000000u {
        return sign;
    }
    let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    return sign | shift_round(mantissa, 126u - (magnitude >> 23u), false);
}

fn f32_to_bf16(bits: u32) -> u32 {
    if (bits & 0x7fffffffu) > 0x7f800000u {
        return (bits >> 16u) | 0x40u;
    }
    return shift_round(bits, 16u, false);
}
