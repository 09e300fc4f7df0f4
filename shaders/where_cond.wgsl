// out[i] = cond[i] ? on_true[i] : on_false[i], bit for bit, with broadcasting (a stride of 0 repeats), for elements of 1, 2 or 4 bytes.
// Vector: one invocation makes 8 neighbours. Scalar: one invocation owns one 32-bit word of `out` and makes every element in it; where
// a word holds several, `out` is dense, at any offset. Traffic an element: a bool and two elements read, one written.

const WORKGROUP: u32 = 256u;
const OUT_DTYPE: u32 = 0u; // says the width, nothing else

struct Params {
    dims: array<vec4<u32>, 2>,
    cond_strides: array<vec4<u32>, 2>,
    true_strides: array<vec4<u32>, 2>,
    false_strides: array<vec4<u32>, 2>,
    out_strides: array<vec4<u32>, 2>,
    cond_offset: u32,
    true_offset: u32,
    false_offset: u32,
    out_offset: u32,
    len: u32,
    units: u32, // of work: eights, or words of out
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read> cond: array<u32>;
@group(0) @binding(2) var<storage, read> on_true: array<Word>;
@group(0) @binding(3) var<storage, read> on_false: array<Word>;
@group(0) @binding(4) var<uniform> params: Params;

// Elements by their bits, which need no conversion.
fn raw() -> u32 {
    return select(select(U32, BF16, lanes(OUT_DTYPE) == 2u), U8, lanes(OUT_DTYPE) == 4u);
}

fn cond_at(element: u32) -> bool {
    let index = params.cond_offset + storage_index(element, params.dims, params.cond_strides);
    return ((cond[index / 4u] >> (index % 4u * 8u)) & 255u) != 0u;
}

fn true_at(element: u32) -> u32 {
    let index = params.true_offset + storage_index(element, params.dims, params.true_strides);
    let count = per_word(OUT_DTYPE);
    return element_of(raw(), from_word(on_true[index / count]), index % count);
}

fn false_at(element: u32) -> u32 {
    let index = params.false_offset + storage_index(element, params.dims, params.false_strides);
    let count = per_word(OUT_DTYPE);
    return element_of(raw(), from_word(on_false[index / count]), index % count);
}

fn at(element: u32) -> u32 {
    if cond_at(element) {
        return true_at(element);
    }
    return false_at(element);
}

// The eight from an element on; all the same where the last axis repeats. Whole words of 16-bit elements stay packed.
fn true_eight(element: u32) -> Eight {
    if params.true_strides[1].w == 0u {
        let value = vec4<u32>(repeated(true_at(element)));
        return Eight(value, value);
    }
    let at = (params.true_offset + storage_index(element, params.dims, params.true_strides)) / per_word(OUT_DTYPE);
    return Eight(from_word(on_true[at]), from_word(on_true[at + second(OUT_DTYPE)]));
}

fn false_eight(element: u32) -> Eight {
    if params.false_strides[1].w == 0u {
        let value = vec4<u32>(repeated(false_at(element)));
        return Eight(value, value);
    }
    let at = (params.false_offset + storage_index(element, params.dims, params.false_strides)) / per_word(OUT_DTYPE);
    return Eight(from_word(on_false[at]), from_word(on_false[at + second(OUT_DTYPE)]));
}

// An element in every lane of 32 bits; of 16 bits it comes in the upper half.
fn repeated(bits: u32) -> u32 {
    return select(bits, bits | (bits >> 16u), lanes(OUT_DTYPE) == 2u);
}

// All ones where the condition holds, for the eight from an element on.
fn cond_eight(element: u32) -> Eight {
    let index = params.cond_offset + storage_index(element, params.dims, params.cond_strides);
    if params.cond_strides[1].w == 0u {
        let value = vec4<u32>(select(0u, 0xffffffffu, cond_at(element)));
        return Eight(value, value);
    }
    return Eight(masks(cond[index / 4u]), masks(cond[index / 4u + 1u]));
}

fn masks(bools: u32) -> vec4<u32> {
    let bytes = (vec4<u32>(bools) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u);
    return select(vec4<u32>(0u), vec4<u32>(0xffffffffu), bytes != vec4<u32>(0u));
}

fn chosen(mask: vec4<u32>, a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    return (a & mask) | (b & ~mask);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let unit = (group.x + grid.x * group.y) * WORKGROUP + lane;
    if unit >= params.units {
        return;
    }
    if VECTOR {
        let mask = cond_eight(unit * 8u);
        let a = true_eight(unit * 8u);
        let b = false_eight(unit * 8u);
        let place = (params.out_offset + storage_index(unit * 8u, params.dims, params.out_strides)) / per_word(OUT_DTYPE);
        if second(OUT_DTYPE) == 1u {
            out[place] = to_word(chosen(mask.low, a.low, b.low));
            out[place + 1u] = to_word(chosen(mask.high, a.high, b.high));
        } else {
            // A mask's lower half for the first of two elements, the upper for the next.
            let first = vec4<u32>(mask.low.xz, mask.high.xz) & vec4<u32>(0xffffu);
            let next = vec4<u32>(mask.low.yw, mask.high.yw) & vec4<u32>(0xffff0000u);
            out[place] = to_word(chosen(first | next, a.low, b.low));
        }
        return;
    }
    let count = lanes(OUT_DTYPE);
    if count == 1u {
        out[params.out_offset + storage_index(unit, params.dims, params.out_strides)] = to_word(vec4<u32>(at(unit)));
        return;
    }
    let word = params.out_offset / count + unit;
    // The first and the last word may hold a neighbour's elements: they stay. One before `out` wraps to a number past its end.
    var bits = from_word(out[word]).x;
    for (var slot = 0u; slot < count; slot++) {
        let element = word * count + slot - params.out_offset;
        if element < params.len {
            bits = insert_raw(bits, slot, at(element));
        }
    }
    out[word] = to_word(vec4<u32>(bits));
}

// insert() rounds to 16 bits; these are exact.
fn insert_raw(word: u32, slot: u32, bits: u32) -> u32 {
    let width = 32u / lanes(OUT_DTYPE);
    let mask = (0xffffffffu >> (32u - width)) << (slot * width);
    let low = select(bits, bits >> 16u, lanes(OUT_DTYPE) == 2u);
    return (word & ~mask) | (low << (slot * width));
}
