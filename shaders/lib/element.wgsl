// Elements of any type as 32 bits each: of an f32 for floats, of the number itself for whole numbers. Needs a Word and lib/float.wgsl.

// 8 neighbours.
struct Eight {
    low: vec4<u32>,
    high: vec4<u32>,
}

// Elements in a Word.
fn per_word(dtype: u32) -> u32 {
    return lanes(dtype) * select(1u, 4u, VECTOR);
}

// How far the second half of an eight lies from the first, in Words.
fn second(dtype: u32) -> u32 {
    return select(0u, 1u, lanes(dtype) == 1u);
}

// An element in the low end of 32 bits.
fn widen(dtype: u32, bits: u32) -> u32 {
    switch dtype {
        case F16: { return bitcast<u32>(unpack2x16float(bits & 0xffffu).x); }
        case BF16: { return bits << 16u; }
        case U8: { return bits & 0xffu; }
        case BOOL: { return select(0u, 1u, (bits & 0xffu) != 0u); }
        default: { return bits; }
    }
}

// Four elements, each in the low end of its 32 bits: the opposite of widen.
fn narrow(dtype: u32, bits: vec4<u32>) -> vec4<u32> {
    switch dtype {
        case F16: { return f32s_to_f16(bits); }
        case BF16: { return f32s_to_bf16(bits); }
        case U8: { return bits & vec4<u32>(0xffu); }
        case BOOL: { return select(vec4<u32>(0u), vec4<u32>(1u), bits != vec4<u32>(0u)); }
        default: { return bits; }
    }
}

// One element of a Word.
fn element_of(dtype: u32, word: vec4<u32>, slot: u32) -> u32 {
    let count = lanes(dtype);
    var bits = word.x;
    if VECTOR {
        bits = word[slot / count];
    }
    return widen(dtype, bits >> (slot % count * (32u / count)));
}

// An element put into its place in 32 bits; its neighbours stay.
fn insert(dtype: u32, word: u32, slot: u32, bits: u32) -> u32 {
    let width = 32u / lanes(dtype);
    let mask = (0xffffffffu >> (32u - width)) << (slot * width);
    return (word & ~mask) | (narrow(dtype, vec4<u32>(bits)).x << (slot * width));
}

// The eight in a Word of 16-bit elements, or in two of 32.
fn unpack(dtype: u32, first: vec4<u32>, next: vec4<u32>) -> Eight {
    switch dtype {
        case F16: {
            let a = vec4<f32>(unpack2x16float(first.x), unpack2x16float(first.y));
            let b = vec4<f32>(unpack2x16float(first.z), unpack2x16float(first.w));
            return Eight(bitcast<vec4<u32>>(a), bitcast<vec4<u32>>(b));
        }
        case BF16: {
            let even = first << vec4<u32>(16u);
            let odd = first & vec4<u32>(0xffff0000u);
            return Eight(vec4<u32>(even.x, odd.x, even.y, odd.y), vec4<u32>(even.z, odd.z, even.w, odd.w));
        }
        default: { return Eight(first, next); }
    }
}

// The first Word of an eight; of 16-bit elements it is all of it.
fn pack(dtype: u32, eight: Eight) -> vec4<u32> {
    if lanes(dtype) == 1u {
        return eight.low;
    }
    let low = narrow(dtype, eight.low);
    let high = narrow(dtype, eight.high);
    return vec4<u32>(low.xz | (low.yw << vec2<u32>(16u)), high.xz | (high.yw << vec2<u32>(16u)));
}
