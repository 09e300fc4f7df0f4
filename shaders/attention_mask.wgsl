// out = mask ? bias : -inf in f32: both masks of an attention as one, over the axes that either has.
// One invocation makes one element of a dense `out`. Traffic an element: a byte and an element of bias read, four bytes written.

const WORKGROUP: u32 = 64u;

struct Params {
    dims: array<vec4<u32>, 2>,
    mask_strides: array<vec4<u32>, 2>,
    bias_strides: array<vec4<u32>, 2>,
    mask_offset: u32,
    bias_offset: u32,
    bias_dtype: u32,
    len: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@group(0) @binding(1) var<storage, read> mask: array<u32>; // a byte an element
@group(0) @binding(2) var<storage, read> bias: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + grid.x * group.y) * WORKGROUP + lane;
    if i >= params.len {
        return;
    }
    let at = params.mask_offset + storage_index(i, params.dims, params.mask_strides);
    var bits = 0xff800000u;
    if ((mask[at / 4u] >> (at % 4u * 8u)) & 0xffu) != 0u {
        let index = params.bias_offset + storage_index(i, params.dims, params.bias_strides);
        let count = lanes(params.bias_dtype);
        bits = element_of(params.bias_dtype, from_word(bias[index / count]), index % count);
    }
    out[i] = bits;
}
