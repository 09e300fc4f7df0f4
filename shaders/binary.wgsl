// out[i] = lhs[i] op rhs[i], with broadcasting (a stride of 0 repeats), in f32 or in whole numbers.
// Vector: one invocation makes 8 neighbours. Scalar: one invocation owns one 32-bit word of `out` and makes every element in it; where
// a word holds several, `out` is dense, at any offset. Traffic an element: two reads, one write.

const WORKGROUP: u32 = 256u;
const OUT_DTYPE: u32 = 0u;
const LHS_DTYPE: u32 = 0u;
const RHS_DTYPE: u32 = 0u;

struct Params {
    dims: array<vec4<u32>, 2>,
    lhs_strides: array<vec4<u32>, 2>,
    rhs_strides: array<vec4<u32>, 2>,
    out_strides: array<vec4<u32>, 2>,
    lhs_offset: u32,
    rhs_offset: u32,
    out_offset: u32,
    len: u32,
    units: u32, // of work: eights, or words of out
    op: u32, // lib/binary.wgsl
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read> lhs: array<Word>;
@group(0) @binding(2) var<storage, read> rhs: array<Word>;
@group(0) @binding(3) var<uniform> params: Params;

fn lhs_at(element: u32) -> u32 {
    let index = params.lhs_offset + storage_index(element, params.dims, params.lhs_strides);
    let count = per_word(LHS_DTYPE);
    return element_of(LHS_DTYPE, from_word(lhs[index / count]), index % count);
}

fn rhs_at(element: u32) -> u32 {
    let index = params.rhs_offset + storage_index(element, params.dims, params.rhs_strides);
    let count = per_word(RHS_DTYPE);
    return element_of(RHS_DTYPE, from_word(rhs[index / count]), index % count);
}

// The eight from an element on; all the same where the last axis repeats.
fn lhs_eight(element: u32) -> Eight {
    if params.lhs_strides[1].w == 0u {
        let value = vec4<u32>(lhs_at(element));
        return Eight(value, value);
    }
    let at = (params.lhs_offset + storage_index(element, params.dims, params.lhs_strides)) / per_word(LHS_DTYPE);
    return unpack(LHS_DTYPE, from_word(lhs[at]), from_word(lhs[at + second(LHS_DTYPE)]));
}

fn rhs_eight(element: u32) -> Eight {
    if params.rhs_strides[1].w == 0u {
        let value = vec4<u32>(rhs_at(element));
        return Eight(value, value);
    }
    let at = (params.rhs_offset + storage_index(element, params.dims, params.rhs_strides)) / per_word(RHS_DTYPE);
    return unpack(RHS_DTYPE, from_word(rhs[at]), from_word(rhs[at + second(RHS_DTYPE)]));
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
        let value = Eight(binary(params.op, LHS_DTYPE, a.low, b.low), binary(params.op, LHS_DTYPE, a.high, b.high));
        let at = (params.out_offset + storage_index(unit * 8u, params.dims, params.out_strides)) / per_word(OUT_DTYPE);
        out[at] = to_word(pack(OUT_DTYPE, value));
        if second(OUT_DTYPE) == 1u {
            out[at + 1u] = to_word(value.high);
        }
        return;
    }
    let count = lanes(OUT_DTYPE);
    if count == 1u {
        let value = binary(params.op, LHS_DTYPE, vec4<u32>(lhs_at(unit)), vec4<u32>(rhs_at(unit))).x;
        out[params.out_offset + storage_index(unit, params.dims, params.out_strides)] = to_word(vec4<u32>(value));
        return;
    }
    let word = params.out_offset / count + unit;
    // The first and the last word may hold a neighbour's elements: they stay. One before `out` wraps to a number past its end.
    var bits = from_word(out[word]).x;
    for (var slot = 0u; slot < count; slot++) {
        let element = word * count + slot - params.out_offset;
        if element < params.len {
            let value = binary(params.op, LHS_DTYPE, vec4<u32>(lhs_at(element)), vec4<u32>(rhs_at(element))).x;
            bits = insert(OUT_DTYPE, bits, slot, value);
        }
    }
    out[word] = to_word(vec4<u32>(bits));
}
