// out[i] = x[i], bit for bit, for elements of 1, 2 or 4 bytes (the dtype says the width, nothing else).
// One invocation owns one 32-bit word of `out` and gathers every element in it. `out` is dense, at any offset; x is strided.
// Traffic an element: one read, one write.

const WORKGROUP: u32 = 256u;
const X_DTYPE: u32 = 0u;

struct Params {
    dims: array<vec4<u32>, 2>,
    x_strides: array<vec4<u32>, 2>,
    x_offset: u32,
    out_offset: u32,
    len: u32,
    words: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = (group.x + grid.x * group.y) * WORKGROUP + lane;
    if number >= params.words {
        return;
    }
    let count = lanes(X_DTYPE);
    let width = 32u / count;
    let mask = 0xffffffffu >> (32u - width);
    let word = params.out_offset / count + number;
    // The first and the last word may hold a neighbour's elements: they stay. One before `out` wraps to a number past its end.
    var value = 0u;
    if count > 1u {
        value = out[word];
    }
    for (var slot = 0u; slot < count; slot++) {
        let element = word * count + slot - params.out_offset;
        if element < params.len {
            let from_index = params.x_offset + storage_index(element, params.dims, params.x_strides);
            let bits = (x[from_index / count] >> (from_index % count * width)) & mask;
            value = (value & ~(mask << (slot * width))) | (bits << (slot * width));
        }
    }
    out[word] = value;
}
