// softmax: out[i] = exp(l[i] - max l) / sum exp(l - max l); log_softmax: its logarithm; l = scale * x + mask, along one axis.
// One workgroup makes one row. Each lane takes every WORKGROUP-th element; two tree reductions give the maximum and the sum.
// Traffic an element: three reads (the last two from cache), one write. -inf in x or mask masks; a row all masked gives 0 (-inf).

const WORKGROUP: u32 = 256u;

struct Params {
    dims: array<vec4<u32>, 2>,
    x_strides: array<vec4<u32>, 2>,
    mask_strides: array<vec4<u32>, 2>,
    out_strides: array<vec4<u32>, 2>,
    x_offset: u32,
    x_step: u32,
    mask_offset: u32,
    mask_step: u32,
    out_offset: u32,
    out_step: u32,
    len: u32,
    rows: u32,
    scale: f32,
    has_mask: u32,
    log: u32,
    pad: u32,
}

// As words: log_softmax writes -inf, for which WGSL has no literal.
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> mask: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> partial: array<f32, WORKGROUP>;

struct Element {
    masked: bool,
    logit: f32,
}

fn element_at(x_index: u32, mask_index: u32) -> Element {
    let value = x[x_index];
    var bias = 0.0;
    if params.has_mask != 0u {
        bias = mask[mask_index];
    }
    let masked = is_masked(bitcast<u32>(value)) || is_masked(bitcast<u32>(bias));
    return Element(masked, logit(value, params.scale, bias));
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x + grid.x * (group.y + grid.y * group.z);
    if row >= params.rows {
        return;
    }
    let x_row = params.x_offset + storage_index(row, params.dims, params.x_strides);
    let mask_row = params.mask_offset + storage_index(row, params.dims, params.mask_strides);
    let out_row = params.out_offset + storage_index(row, params.dims, params.out_strides);

    var top = LOWEST;
    for (var i = lane; i < params.len; i += WORKGROUP) {
        let element = element_at(x_row + i * params.x_step, mask_row + i * params.mask_step);
        top = select(max(top, element.logit), top, element.masked);
    }
    partial[lane] = top;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[lane] = max(partial[lane], partial[lane + half]);
        }
        workgroupBarrier();
    }
    top = partial[0];
    workgroupBarrier();

    var sum = 0.0;
    for (var i = lane; i < params.len; i += WORKGROUP) {
        let element = element_at(x_row + i * params.x_step, mask_row + i * params.mask_step);
        sum += select(exp_below(element.logit, top), 0.0, element.masked);
    }
    partial[lane] = sum;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[lane] += partial[lane + half];
        }
        workgroupBarrier();
    }
    // At least 1 unless every element is masked, and then nothing below reads it.
    let total = partial[0];

    for (var i = lane; i < params.len; i += WORKGROUP) {
        let element = element_at(x_row + i * params.x_step, mask_row + i * params.mask_step);
        let index = out_row + i * params.out_step;
        if params.log == 0u {
            out[index] = select(bitcast<u32>(exp_below(element.logit, top) / total), 0u, element.masked);
        } else {
            let value = max(2.0 * (0.5 * element.logit - 0.5 * top) - log(total), LOWEST);
            out[index] = select(bitcast<u32>(value), MASKED, element.masked);
        }
    }
}
