// out[i] = x[i], bit for bit, into a strided `out`: elements of 1, 2 or 4 bytes (the dtype says the width, nothing else).
// One invocation moves one element. Elements that share a word belong to different invocations, so each clears and sets its own
// bits atomically; nobody else touches them. Traffic an element: one read, two atomic updates.

const WORKGROUP: u32 = 256u;
const X_DTYPE: u32 = 0u;

struct Params {
    dims: array<vec4<u32>, 2>,
    x_strides: array<vec4<u32>, 2>,
    out_strides: array<vec4<u32>, 2>,
    x_offset: u32,
    out_offset: u32,
    len: u32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<atomic<u32>>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let element = (group.x + grid.x * group.y) * WORKGROUP + lane;
    if element >= params.len {
        return;
    }
    let count = lanes(X_DTYPE);
    let width = 32u / count;
    let mask = 0xffffffffu >> (32u - width);
    let from_index = params.x_offset + storage_index(element, params.dims, params.x_strides);
    let to_index = params.out_offset + storage_index(element, params.dims, params.out_strides);
    let bits = (x[from_index / count] >> (from_index % count * width)) & mask;
    if count == 1u {
        atomicStore(&out[to_index], bits);
    } else {
        let shift = to_index % count * width;
        atomicAnd(&out[to_index / count], ~(mask << shift));
        atomicOr(&out[to_index / count], bits << shift);
    }
}
