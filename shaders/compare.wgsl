// out[i] = lhs[i] op rhs[i] as a bool, with broadcasting (a stride of 0 repeats), by the bits of both.
// Vector: one invocation makes 8 neighbours, two words of `out`. Scalar: one invocation owns one word of `out` and makes every bool in it;
// `out` is dense, at any offset. Traffic an element: two reads, one write.

const WORKGROUP: u32 = 256u;
const LHS_DTYPE: u32 = 0u;
const RHS_DTYPE: u32 = 0u;

struct Params {
    dims: array<vec4<u32>, 2>,
    lhs_strides: array<vec4<u32>, 2>,
    rhs_strides: array<vec4<u32>, 2>,
    lhs_offset: u32,
    rhs_offset: u32,
    out_offset: u32,
    len: u32,
    units: u32, // of work: eights, or words of out
    op: u32, // lib/compare.wgsl
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@group(0) @binding(1) var<storage, read> lhs: array<Word>;
@group(0) @binding(2) var<storage, read> rhs: array<Word>;
@group(0) @binding(3) var<uniform> params: Params;

fn lhs_at(element: u32) -> vec4<u32> {
    let index = params.lhs_offset + storage_index(element, params.dims, params.lhs_strides);
    let count = per_word(LHS_DTYPE);
    return vec4<u32>(element_of(raw(LHS_DTYPE), from_word(lhs[index / count]), index % count));
}

fn rhs_at(element: u32) -> vec4<u32> {
    let index = params.rhs_offset + storage_index(element, params.dims, params.rhs_strides);
    let count = per_word(RHS_DTYPE);
    return vec4<u32>(element_of(raw(RHS_DTYPE), from_word(rhs[index / count]), index % count));
}

// The eight from an element on; all the same where the last axis repeats.
fn lhs_eight(element: u32) -> Eight {
    if params.lhs_strides[1].w == 0u {
        let value = lhs_at(element);
        return Eight(value, value);
    }
    let at = (params.lhs_offset + storage_index(element, params.dims, params.lhs_strides)) / per_word(LHS_DTYPE);
    return unpack(raw(LHS_DTYPE), from_word(lhs[at]), from_word(lhs[at + second(LHS_DTYPE)]));
}

fn rhs_eight(element: u32) -> Eight {
    if params.rhs_strides[1].w == 0u {
        let value = rhs_at(element);
        return Eight(value, value);
    }
    let at = (params.rhs_offset + storage_index(element, params.dims, params.rhs_strides)) / per_word(RHS_DTYPE);
    return unpack(raw(RHS_DTYPE), from_word(rhs[at]), from_word(rhs[at + second(RHS_DTYPE)]));
}

// f32 is the first of two float types.
fn holds(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    return compare(params.op, LHS_DTYPE, a, lifted(RHS_DTYPE, LHS_DTYPE, b));
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
        let a = lhs_eight(unit * 8u);
        let b = rhs_eight(unit * 8u);
        let bytes = vec4<u32>(1u, 0x100u, 0x10000u, 0x1000000u);
        let at = params.out_offset / 4u + unit * 2u;
        out[at] = dot(holds(a.low, b.low), bytes);
        out[at + 1u] = dot(holds(a.high, b.high), bytes);
        return;
    }
    let word = params.out_offset / 4u + unit;
    // The first and the last word may hold a neighbour's elements: they stay. One before `out` wraps to a number past its end.
    var bits = out[word];
    for (var slot = 0u; slot < 4u; slot++) {
        let element = word * 4u + slot - params.out_offset;
        if element < params.len {
            bits = insert(BOOL, bits, slot, holds(lhs_at(element), rhs_at(element)).x);
        }
    }
    out[word] = bits;
}
