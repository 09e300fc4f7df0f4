// Elements of any type, in their 32 bits (lib/element.wgsl), as i32 that grow with the number, and back. Needs lib/float.wgsl and
// lib/order.wgsl.

fn is_float(dtype: u32) -> bool {
    return dtype == F32 || dtype == F16 || dtype == BF16;
}

fn key_of(dtype: u32, bits: vec4<u32>) -> vec4<i32> {
    switch dtype {
        case F32, F16, BF16: { return order(bits); }
        case U32: { return bitcast<vec4<i32>>(bits ^ vec4<u32>(0x80000000u)); }
        default: { return bitcast<vec4<i32>>(bits); }
    }
}

fn of_key(dtype: u32, key: vec4<i32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(key);
    switch dtype {
        // Its own inverse.
        case F32, F16, BF16: { return bitcast<vec4<u32>>(order(bits)); }
        case U32: { return bits ^ vec4<u32>(0x80000000u); }
        default: { return bits; }
    }
}
