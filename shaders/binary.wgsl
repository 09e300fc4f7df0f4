// out[i] = lhs[i] op rhs[i], with broadcasting (a stride of 0 repeats).
// One invocation makes one element. Traffic an element: two reads, one write.

const WORKGROUP: u32 = 256u;
const OP: u32 = 0u;
const ADD: u32 = 0u;

struct Params {
    dims: array<vec4<u32>, 2>,
    lhs_strides: array<vec4<u32>, 2>,
    rhs_strides: array<vec4<u32>, 2>,
    out_strides: array<vec4<u32>, 2>,
    lhs_offset: u32,
    rhs_offset: u32,
    out_offset: u32,
    len: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> lhs: array<f32>;
@group(0) @binding(2) var<storage, read> rhs: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let element = (group.x + grid.x * (group.y + grid.y * group.z)) * WORKGROUP + lane;
    if element >= params.len {
        return;
    }
    let a = lhs[params.lhs_offset + storage_index(element, params.dims, params.lhs_strides)];
    let b = rhs[params.rhs_offset + storage_index(element, params.dims, params.rhs_strides)];
    let index = params.out_offset + storage_index(element, params.dims, params.out_strides);
    if OP == ADD {
        out[index] = a + b;
    } else {
        out[index] = a * b;
    }
}
