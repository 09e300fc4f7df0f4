// Pairs of elements and their rotation, on 32-bit forms (lib/element.wgsl). An Eight of pairs holds the first of each in `low` and the
// second in `high`.

// Pairs of 2i and 2i + 1; else of i and i + half.
const INTERLEAVED: u32 = 1u;

// Of three positions a frequency takes that of its section; else they take turns, while each has some left.
const CHUNKED: u32 = 1u;

// Of four frequencies.
struct Angles {
    cosine: vec4<f32>,
    sine: vec4<f32>,
}

fn turned(pairs: Eight, angles: Angles) -> Eight {
    let first = bitcast<vec4<f32>>(pairs.low);
    let second = bitcast<vec4<f32>>(pairs.high);
    return Eight(
        bitcast<vec4<u32>>(fma(first, angles.cosine, -(second * angles.sine))),
        bitcast<vec4<u32>>(fma(second, angles.cosine, first * angles.sine)),
    );
}

// Neighbours as pairs.
fn split(eight: Eight) -> Eight {
    return Eight(vec4<u32>(eight.low.xz, eight.high.xz), vec4<u32>(eight.low.yw, eight.high.yw));
}

// Pairs as neighbours.
fn join(pairs: Eight) -> Eight {
    return Eight(
        vec4<u32>(pairs.low.x, pairs.high.x, pairs.low.y, pairs.high.y),
        vec4<u32>(pairs.low.z, pairs.high.z, pairs.low.w, pairs.high.w),
    );
}

// `sections` says how many frequencies each stream has.
fn streams_of(frequency: vec4<u32>, mode: u32, sections: vec4<u32>) -> vec4<u32> {
    if mode == CHUNKED {
        let after_first = select(vec4<u32>(0u), vec4<u32>(1u), frequency >= vec4<u32>(sections.x));
        return select(after_first, vec4<u32>(2u), frequency >= vec4<u32>(sections.x + sections.y));
    }
    let turn = frequency % vec4<u32>(3u);
    let ends = select(vec4<u32>(3u * sections.y), vec4<u32>(3u * sections.z), turn == vec4<u32>(2u));
    return select(vec4<u32>(0u), turn, frequency < ends);
}
