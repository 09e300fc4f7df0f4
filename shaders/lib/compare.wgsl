// lhs op rhs by the bits of both, as 1 or 0: subnormals, infinities and NaN too, which WGSL's own comparisons may take for something else.
// Needs lib/element.wgsl and lib/order.wgsl.

const EQ: u32 = 0u;
const NE: u32 = 1u;
const LT: u32 = 2u;
const LE: u32 = 3u;
const GT: u32 = 4u;
const GE: u32 = 5u;

// The type to load as: 16-bit floats by their bits in the upper half.
fn raw(dtype: u32) -> u32 {
    return select(dtype, BF16, dtype == F16);
}

// f16 that is compared with f32: as f32.
fn lifted(dtype: u32, other: u32, bits: vec4<u32>) -> vec4<u32> {
    if dtype == F16 && other == F32 {
        let half = bits >> vec4<u32>(16u);
        return vec4<u32>(f16_to_f32(half.x), f16_to_f32(half.y), f16_to_f32(half.z), f16_to_f32(half.w));
    }
    return bits;
}

fn compare(op: u32, dtype: u32, lhs: vec4<u32>, rhs: vec4<u32>) -> vec4<u32> {
    var less = lhs < rhs;
    var equal = lhs == rhs;
    var ordered = vec4<bool>(true);
    switch dtype {
        case I32: { less = bitcast<vec4<i32>>(lhs) < bitcast<vec4<i32>>(rhs); }
        case F32, F16, BF16: {
            let infinite = select(0x7f800000u, 0x7c000000u, dtype == F16);
            let both_zero = ((lhs | rhs) & vec4<u32>(0x7fffffffu)) == vec4<u32>(0u);
            ordered = ((lhs & vec4<u32>(0x7fffffffu)) <= vec4<u32>(infinite)) & ((rhs & vec4<u32>(0x7fffffffu)) <= vec4<u32>(infinite));
            equal = equal | both_zero;
            less = (order(lhs) < order(rhs)) & !both_zero;
        }
        default: {}
    }
    var holds = equal & ordered;
    switch op {
        case NE: { holds = !holds; }
        case LT: { holds = less & ordered; }
        case LE: { holds = (less | equal) & ordered; }
        case GT: { holds = !(less | equal) & ordered; }
        case GE: { holds = !less & ordered; }
        case EQ, default: {}
    }
    return select(vec4<u32>(0u), vec4<u32>(1u), holds);
}
