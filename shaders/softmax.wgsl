// softmax: out[i] = exp(l[i] - max l) / sum exp(l - max l); log_softmax: its logarithm; l = scale * x + mask, along one axis, in f32.
// One workgroup makes one row; a lane takes every WORKGROUP-th eight of its elements, whatever the width, so that the bits do not depend
// on how operands lie. Two tree reductions give the maximum and the sum. Scalar: `out` of 16 bits is made of whole pairs.
// Traffic an element: three reads (the last two from cache), one write. -inf in x or mask masks; a row all masked gives 0 (-inf).

const WORKGROUP: u32 = 256u;
const OUT_DTYPE: u32 = 0u;
const X_DTYPE: u32 = 0u;
const MASK_DTYPE: u32 = 0u;

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

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> mask: array<Word>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> partial: array<f32, WORKGROUP>;

// Four elements of a row.
struct Four {
    masked: vec4<bool>,
    logit: vec4<f32>,
}

fn four(x: vec4<u32>, bias: vec4<u32>) -> Four {
    return Four(is_masked(x) | is_masked(bias), logits(bitcast<vec4<f32>>(x), params.scale, bitcast<vec4<f32>>(bias)));
}

fn x_at(index: u32) -> u32 {
    let count = per_word(X_DTYPE);
    return element_of(X_DTYPE, from_word(x[index / count]), index % count);
}

fn mask_at(index: u32) -> u32 {
    if params.has_mask == 0u {
        return 0u;
    }
    let count = per_word(MASK_DTYPE);
    return element_of(MASK_DTYPE, from_word(mask[index / count]), index % count);
}

// Eight elements of a row from the i-th on; what lies past its end is masked.
struct Part {
    low: Four,
    high: Four,
}

fn part_at(x_row: u32, mask_row: u32, i: u32) -> Part {
    var values: Eight;
    var bias: Eight;
    if VECTOR {
        let at = (x_row + i) / per_word(X_DTYPE);
        values = unpack(X_DTYPE, from_word(x[at]), from_word(x[at + second(X_DTYPE)]));
        bias = mask_eight(mask_row + i * params.mask_step);
    } else {
        values = Eight(vec4<u32>(MASKED), vec4<u32>(MASKED));
        for (var j = 0u; j < min(4u, params.len - i); j++) {
            values.low[j] = x_at(x_row + (i + j) * params.x_step);
            bias.low[j] = mask_at(mask_row + (i + j) * params.mask_step);
        }
        for (var j = 4u; j < min(8u, params.len - i); j++) {
            values.high[j - 4u] = x_at(x_row + (i + j) * params.x_step);
            bias.high[j - 4u] = mask_at(mask_row + (i + j) * params.mask_step);
        }
    }
    return Part(four(values.low, bias.low), four(values.high, bias.high));
}

fn mask_eight(index: u32) -> Eight {
    if params.has_mask == 0u || params.mask_step == 0u {
        let all = vec4<u32>(mask_at(index));
        return Eight(all, all);
    }
    let at = index / per_word(MASK_DTYPE);
    return unpack(MASK_DTYPE, from_word(mask[at]), from_word(mask[at + second(MASK_DTYPE)]));
}

// The bits of the result.
fn result(element: Four, top: f32, sum: f32) -> vec4<u32> {
    if params.log == 0u {
        return select(bitcast<vec4<u32>>(exp_below(element.logit, top) / sum), vec4<u32>(0u), element.masked);
    }
    let value = max(2.0 * (0.5 * element.logit - 0.5 * top) - log(sum), vec4<f32>(LOWEST));
    return select(bitcast<vec4<u32>>(value), vec4<u32>(MASKED), element.masked);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x + grid.x * group.y;
    if row >= params.rows {
        return;
    }
    let x_row = params.x_offset + storage_index(row, params.dims, params.x_strides);
    let mask_row = params.mask_offset + storage_index(row, params.dims, params.mask_strides);
    let out_row = params.out_offset + storage_index(row, params.dims, params.out_strides);

    var top = LOWEST;
    for (var i = lane * 8u; i < params.len; i += WORKGROUP * 8u) {
        let part = part_at(x_row, mask_row, i);
        top = max(top, max(highest(part.low.logit, part.low.masked), highest(part.high.logit, part.high.masked)));
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
    for (var i = lane * 8u; i < params.len; i += WORKGROUP * 8u) {
        let part = part_at(x_row, mask_row, i);
        sum += total(select(exp_below(part.low.logit, top), vec4<f32>(0.0), part.low.masked));
        sum += total(select(exp_below(part.high.logit, top), vec4<f32>(0.0), part.high.masked));
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
    sum = partial[0];

    for (var i = lane * 8u; i < params.len; i += WORKGROUP * 8u) {
        let part = part_at(x_row, mask_row, i);
        let value = Eight(result(part.low, top, sum), result(part.high, top, sum));
        if VECTOR {
            let at = (out_row + i) / per_word(OUT_DTYPE);
            out[at] = to_word(pack(OUT_DTYPE, value));
            if second(OUT_DTYPE) == 1u {
                out[at + 1u] = to_word(value.high);
            }
        } else if lanes(OUT_DTYPE) == 1u {
            for (var j = 0u; j < min(8u, params.len - i); j++) {
                let bits = select(value.low[j % 4u], value.high[j % 4u], j > 3u);
                out[out_row + (i + j) * params.out_step] = to_word(vec4<u32>(bits));
            }
        } else {
            let pairs = pack(OUT_DTYPE, value);
            for (var j = 0u; j < min(4u, (params.len - i) / 2u); j++) {
                out[(out_row + i) / 2u + j] = to_word(vec4<u32>(pairs[j]));
            }
        }
    }
}
