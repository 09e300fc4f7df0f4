// lhs op rhs on the 32-bit forms of elements (lib/element.wgsl): in f32, or in whole numbers that wrap.

const ADD: u32 = 0u;
const SUB: u32 = 1u;
const MUL: u32 = 2u;
const DIV: u32 = 3u;
const POW: u32 = 4u;
const MIN: u32 = 5u;
const MAX: u32 = 6u;

fn binary(op: u32, dtype: u32, lhs: vec4<u32>, rhs: vec4<u32>) -> vec4<u32> {
    switch dtype {
        case I32: { return bitcast<vec4<u32>>(binary_i32(op, bitcast<vec4<i32>>(lhs), bitcast<vec4<i32>>(rhs))); }
        case U32, U8: { return binary_u32(op, lhs, rhs); }
        default: { return binary_f32(op, lhs, rhs); }
    }
}

fn binary_f32(op: u32, lhs_bits: vec4<u32>, rhs_bits: vec4<u32>) -> vec4<u32> {
    let lhs = bitcast<vec4<f32>>(lhs_bits);
    let rhs = bitcast<vec4<f32>>(rhs_bits);
    switch op {
        case SUB: { return bitcast<vec4<u32>>(lhs - rhs); }
        case MUL: { return bitcast<vec4<u32>>(lhs * rhs); }
        case DIV: { return bitcast<vec4<u32>>(lhs / rhs); }
        case POW: { return power(lhs_bits, rhs); }
        case MIN: { return lowest_of(lhs_bits, rhs_bits); }
        case MAX: { return highest_of(lhs_bits, rhs_bits); }
        case ADD, default: { return bitcast<vec4<u32>>(lhs + rhs); }
    }
}

fn binary_i32(op: u32, lhs: vec4<i32>, rhs: vec4<i32>) -> vec4<i32> {
    switch op {
        case POW: { return power_i32(lhs, rhs); }
        case SUB: { return lhs - rhs; }
        case MUL: { return lhs * rhs; }
        case DIV: { return lhs / rhs; }
        case MIN: { return min(lhs, rhs); }
        case MAX: { return max(lhs, rhs); }
        case ADD, default: { return lhs + rhs; }
    }
}

fn binary_u32(op: u32, lhs: vec4<u32>, rhs: vec4<u32>) -> vec4<u32> {
    switch op {
        case POW: { return power_u32(lhs, rhs); }
        case SUB: { return lhs - rhs; }
        case MUL: { return lhs * rhs; }
        case DIV: { return lhs / rhs; }
        case MIN: { return min(lhs, rhs); }
        case MAX: { return max(lhs, rhs); }
        case ADD, default: { return lhs + rhs; }
    }
}

// By squaring, modulo 2^32.
fn power_u32(lhs: vec4<u32>, rhs: vec4<u32>) -> vec4<u32> {
    var result = vec4<u32>(1u);
    var square = lhs;
    for (var bit = 0u; bit < 32u; bit++) {
        let used = ((rhs >> vec4<u32>(bit)) & vec4<u32>(1u)) != vec4<u32>(0u);
        result = select(result, result * square, used);
        square *= square;
    }
    return result;
}

// A negative power of anything but 1 and -1 is 0.
fn power_i32(lhs: vec4<i32>, rhs: vec4<i32>) -> vec4<i32> {
    let result = bitcast<vec4<i32>>(power_u32(bitcast<vec4<u32>>(lhs), bitcast<vec4<u32>>(rhs)));
    let unit = (lhs == vec4<i32>(1)) | (lhs == vec4<i32>(-1));
    return select(result, vec4<i32>(0), (rhs < vec4<i32>(0)) & !unit);
}

// lhs to the power rhs as IEEE 754's pow, but for NaN and infinite operands; WGSL's own is not defined below 0.
fn power(lhs_bits: vec4<u32>, rhs: vec4<f32>) -> vec4<u32> {
    let lhs = bitcast<vec4<f32>>(lhs_bits);
    let whole = trunc(rhs) == rhs;
    // From 2^24 on every f32 is even.
    let odd = whole & (abs(rhs) < vec4<f32>(16777216.0)) & (trunc(rhs * 0.5) * 2.0 != rhs);
    let exponent = rhs * log2(max(abs(lhs), vec4<f32>(1.17549435e-38)));
    // Kept where exp2 is defined; the halves of the largest are doubled.
    var size = bitcast<vec4<u32>>(2.0 * exp2(clamp(exponent, vec4<f32>(-150.0), vec4<f32>(128.0)) - 1.0));
    size = select(size, vec4<u32>(0x7f800000u), exponent >= vec4<f32>(128.0));
    let zero = lhs == vec4<f32>(0.0);
    size = select(size, select(vec4<u32>(0u), vec4<u32>(0x7f800000u), rhs < vec4<f32>(0.0)), zero);
    let negative = (lhs_bits >> vec4<u32>(31u)) == vec4<u32>(1u);
    size = select(size, size | vec4<u32>(0x80000000u), negative & odd);
    size = select(size, vec4<u32>(0x7fc00000u), negative & !whole & !zero);
    return select(size, vec4<u32>(0x3f800000u), rhs == vec4<f32>(0.0));
}
