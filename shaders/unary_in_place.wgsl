// out[i] = op(out[i]), in f32 or in whole numbers: unary.wgsl with one binding less.
// Vector: one invocation makes 8 neighbours. Scalar: one invocation owns one 32-bit word of `out` and makes every element in it; where
// a word holds several, `out` is dense, at any offset. Traffic an element: one read, one write.

const WORKGROUP: u32 = 256u;
const OUT_DTYPE: u32 = 0u;

struct Params {
    dims: array<vec4<u32>, 2>,
    out_strides: array<vec4<u32>, 2>,
    out_offset: u32,
    len: u32,
    units: u32, // of work: eights, or words of out
    op: u32, // lib/unary.wgsl
    low: f32, // clamp's
    high: f32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<uniform> params: Params;

fn apply(bits: vec4<u32>) -> vec4<u32> {
    return unary(params.op, OUT_DTYPE, bits, params.low, params.high);
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
        let at = (params.out_offset + storage_index(unit * 8u, params.dims, params.out_strides)) / per_word(OUT_DTYPE);
        let before = unpack(OUT_DTYPE, from_word(out[at]), from_word(out[at + second(OUT_DTYPE)]));
        let value = Eight(apply(before.low), apply(before.high));
        out[at] = to_word(pack(OUT_DTYPE, value));
        if second(OUT_DTYPE) == 1u {
            out[at + 1u] = to_word(value.high);
        }
        return;
    }
    let count = lanes(OUT_DTYPE);
    if count == 1u {
        let at = params.out_offset + storage_index(unit, params.dims, params.out_strides);
        out[at] = to_word(apply(from_word(out[at])));
        return;
    }
    let word = params.out_offset / count + unit;
    // The first and the last word may hold a neighbour's elements: they stay. One before `out` wraps to a number past its end.
    var bits = from_word(out[word]).x;
    for (var slot = 0u; slot < count; slot++) {
        let element = word * count + slot - params.out_offset;
        if element < params.len {
            bits = insert(OUT_DTYPE, bits, slot, apply(vec4<u32>(element_of(OUT_DTYPE, vec4<u32>(bits), slot))).x);
        }
    }
    out[word] = to_word(vec4<u32>(bits));
}
