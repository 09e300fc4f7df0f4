// out[i] = op(x[i]), in f32 or in whole numbers.
// Vector: one invocation makes 8 neighbours. Scalar: one invocation owns one 32-bit word of `out` and makes every element in it; where
// a word holds several, `out` is dense, at any offset. Traffic an element: one read, one write.

const WORKGROUP: u32 = 256u;
const OUT_DTYPE: u32 = 0u;
const X_DTYPE: u32 = 0u;

struct Params {
    dims: array<vec4<u32>, 2>,
    x_strides: array<vec4<u32>, 2>,
    out_strides: array<vec4<u32>, 2>,
    x_offset: u32,
    out_offset: u32,
    len: u32,
    units: u32, // of work: eights, or words of out
    op: u32, // lib/unary.wgsl
    low: f32, // clamp's
    high: f32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<uniform> params: Params;

fn x_at(element: u32) -> vec4<u32> {
    let index = params.x_offset + storage_index(element, params.dims, params.x_strides);
    let count = per_word(X_DTYPE);
    return vec4<u32>(element_of(X_DTYPE, from_word(x[index / count]), index % count));
}

// The eight from an element on; all the same where the last axis repeats.
fn x_eight(element: u32) -> Eight {
    if params.x_strides[1].w == 0u {
        let value = x_at(element);
        return Eight(value, value);
    }
    let at = (params.x_offset + storage_index(element, params.dims, params.x_strides)) / per_word(X_DTYPE);
    return unpack(X_DTYPE, from_word(x[at]), from_word(x[at + second(X_DTYPE)]));
}

fn apply(bits: vec4<u32>) -> vec4<u32> {
    return unary(params.op, X_DTYPE, bits, params.low, params.high);
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
        let from_x = x_eight(unit * 8u);
        let value = Eight(apply(from_x.low), apply(from_x.high));
        let at = (params.out_offset + storage_index(unit * 8u, params.dims, params.out_strides)) / per_word(OUT_DTYPE);
        out[at] = to_word(pack(OUT_DTYPE, value));
        if second(OUT_DTYPE) == 1u {
            out[at + 1u] = to_word(value.high);
        }
        return;
    }
    let count = lanes(OUT_DTYPE);
    if count == 1u {
        out[params.out_offset + storage_index(unit, params.dims, params.out_strides)] = to_word(apply(x_at(unit)));
        return;
    }
    let word = params.out_offset / count + unit;
    // The first and the last word may hold a neighbour's elements: they stay. One before `out` wraps to a number past its end.
    var bits = from_word(out[word]).x;
    for (var slot = 0u; slot < count; slot++) {
        let element = word * count + slot - params.out_offset;
        if element < params.len {
            bits = insert(OUT_DTYPE, bits, slot, apply(x_at(element)).x);
        }
    }
    out[word] = to_word(vec4<u32>(bits));
}
