// out = the sum, mean, maximum or minimum of x over its reduced axes, in f32 or in whole numbers; both sides strided.
// GROUP lanes make an output, or its word where several share one (`out` is dense then): each takes eights of neighbours into eight
// accumulators, in either width; trees join the eight, then the lanes. A long axis comes in parts: each is an output of its own, in a
// scratch that another dispatch reduces. Traffic: one read an element.

const WORKGROUP: u32 = 256u;
const GROUP: u32 = 256u;
const OUT_DTYPE: u32 = 0u;
const X_DTYPE: u32 = 0u;

const MEAN: u32 = 1u;
const MAX: u32 = 2u;
const MIN: u32 = 3u;

struct Params {
    dims: array<vec4<u32>, 2>, // kept
    x_strides: array<vec4<u32>, 2>,
    out_strides: array<vec4<u32>, 2>,
    reduced_dims: array<vec4<u32>, 2>,
    reduced_strides: array<vec4<u32>, 2>,
    x_offset: u32,
    out_offset: u32,
    len: u32, // of the reduced axes
    part: u32, // of them
    outputs: u32, // all parts of the first, then of the second, …: part p of output o is number p * outputs + o
    units: u32, // of work: outputs and parts, or words of out
    op: u32, // 0 sums
    divisor: f32,
}

@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<uniform> params: Params;

var<workgroup> partial: array<u32, WORKGROUP>;

fn start() -> u32 {
    return select(0u, 0x80000000u, params.op >= MAX);
}

// An element as it is accumulated: sums as they are, extremes as keys, of which the highest is wanted.
fn taken(bits: vec4<u32>) -> vec4<u32> {
    if params.op < MAX {
        return bits;
    }
    let key = key_of(X_DTYPE, bits);
    return bitcast<vec4<u32>>(select(key, ~key, params.op == MIN));
}

fn join(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    if params.op >= MAX {
        return bitcast<vec4<u32>>(max(bitcast<vec4<i32>>(a), bitcast<vec4<i32>>(b)));
    }
    if is_float(X_DTYPE) {
        return bitcast<vec4<u32>>(bitcast<vec4<f32>>(a) + bitcast<vec4<f32>>(b));
    }
    return a + b;
}

fn given(bits: u32) -> u32 {
    if params.op >= MAX {
        let key = bitcast<i32>(bits);
        return of_key(X_DTYPE, vec4<i32>(select(key, ~key, params.op == MIN))).x;
    }
    if params.op == MEAN {
        // The mean of nothing is NaN, for which WGSL has no arithmetic.
        return select(bitcast<u32>(bitcast<f32>(bits) / max(params.divisor, 1.0)), 0x7fc00000u, params.divisor == 0.0);
    }
    return bits;
}

// Four of the elements that a lane takes, `start` past the end.
fn four_at(first: u32, i: u32, end: u32) -> vec4<u32> {
    let count = per_word(X_DTYPE);
    var four = vec4<u32>(0u);
    var inside = vec4<bool>(false);
    for (var slot = 0u; slot < 4u; slot++) {
        let element = i + slot;
        if element < end {
            let at = first + storage_index(element, params.reduced_dims, params.reduced_strides);
            four[slot] = element_of(X_DTYPE, from_word(x[at / count]), at % count);
            inside[slot] = true;
        }
    }
    return select(vec4<u32>(start()), taken(four), inside);
}

// What a lane makes of its share of an output.
fn share_of(output: u32, wanted: bool, lane: u32) -> u32 {
    let begin = output / params.outputs * params.part;
    let end = select(begin, min(begin + params.part, params.len), wanted);
    let first = params.x_offset + storage_index(output % params.outputs, params.dims, params.x_strides);
    var low = vec4<u32>(start());
    var high = low;
    if VECTOR {
        for (var i = begin + lane * 8u; i < end; i += GROUP * 8u) {
            let at = (first + storage_index(i, params.reduced_dims, params.reduced_strides)) / per_word(X_DTYPE);
            let eight = unpack(X_DTYPE, from_word(x[at]), from_word(x[at + second(X_DTYPE)]));
            low = join(low, taken(eight.low));
            high = join(high, taken(eight.high));
        }
    } else {
        // The same order: the bits do not depend on how operands lie.
        for (var i = begin + lane * 8u; i < end; i += GROUP * 8u) {
            low = join(low, four_at(first, i, end));
            high = join(high, four_at(first, i + 4u, end));
        }
    }
    low = join(low, high);
    low = join(low, low.zwxy);
    return join(low, low.yxwz).x;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let number = (group.x + grid.x * group.y) * (WORKGROUP / GROUP);
    if number >= params.units {
        return;
    }
    let lane = invocation % GROUP;
    let unit = number + invocation / GROUP;
    let count = lanes(OUT_DTYPE);
    let word = params.out_offset / count + unit;
    var bits = 0u;
    if count > 1u && unit < params.units && lane == 0u {
        // The first and the last word may hold a neighbour's elements: they stay. One before `out` wraps to a number past its end.
        bits = out[word];
    }
    for (var slot = 0u; slot < count; slot++) {
        var output = unit;
        var wanted = unit < params.units;
        if count > 1u {
            output = word * count + slot - params.out_offset;
            wanted = wanted && output < params.outputs;
            // A neighbour's number may have wrapped: its share would not end.
            output = select(0u, output, wanted);
        }
        var total = share_of(output, wanted, lane);
        if GROUP > 1u {
            partial[invocation] = total;
            workgroupBarrier();
            for (var half = GROUP / 2u; half > 0u; half /= 2u) {
                if lane < half {
                    partial[invocation] = join(vec4<u32>(partial[invocation]), vec4<u32>(partial[invocation + half])).x;
                }
                workgroupBarrier();
            }
            total = partial[invocation];
        }
        if wanted && lane == 0u {
            let value = given(total);
            if count > 1u {
                bits = insert(OUT_DTYPE, bits, slot, value);
            } else {
                let at = storage_index(output % params.outputs, params.dims, params.out_strides);
                out[params.out_offset + at + output / params.outputs] = value;
            }
        }
    }
    if count > 1u && unit < params.units && lane == 0u {
        out[word] = bits;
    }
}
