// out = where the maximum (or minimum) of x over its reduced axes lies, the first of equals; both sides strided.
// GROUP lanes make an output, as in reduce.wgsl: eights of elements into eight candidates, trees over these and over the lanes. A long
// axis comes in parts, whose winners are in a scratch: the next dispatch looks at these elements alone. Traffic: one read an element.

const WORKGROUP: u32 = 256u;
const GROUP: u32 = 256u;
const X_DTYPE: u32 = 0u;

struct Params {
    dims: array<vec4<u32>, 2>, // kept
    x_strides: array<vec4<u32>, 2>,
    out_strides: array<vec4<u32>, 2>,
    reduced_dims: array<vec4<u32>, 2>,
    reduced_strides: array<vec4<u32>, 2>,
    x_offset: u32,
    out_offset: u32,
    len: u32, // of the reduced axes, or of an output's candidates
    part: u32, // of them
    outputs: u32, // part p of output o is number p * outputs + o
    units: u32,
    lowest: u32,
    listed: u32, // whether there are candidates
}

@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> candidates: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> keys: array<i32, WORKGROUP>;
var<workgroup> places: array<u32, WORKGROUP>;

// Four numbers, the highest wanted, and where each lies.
struct Four {
    key: vec4<i32>,
    place: vec4<u32>,
}

const NONE: i32 = -2147483647 - 1;
const NOWHERE: u32 = 0xffffffffu;

fn better(a: Four, b: Four) -> Four {
    let wins = (b.key > a.key) | ((b.key == a.key) & (b.place < a.place));
    return Four(select(a.key, b.key, wins), select(a.place, b.place, wins));
}

// -0 equals 0.
fn taken(bits: vec4<u32>) -> vec4<i32> {
    let zero = (bits == vec4<u32>(0x80000000u)) & vec4<bool>(is_float(X_DTYPE));
    let key = key_of(X_DTYPE, select(bits, vec4<u32>(0u), zero));
    return select(key, ~key, params.lowest != 0u);
}

// Four of the elements that a lane takes.
fn four_at(output: u32, first: u32, i: u32, end: u32) -> Four {
    let count = per_word(X_DTYPE);
    var four = vec4<u32>(0u);
    var place = vec4<u32>(NOWHERE);
    for (var slot = 0u; slot < 4u; slot++) {
        var element = i + slot * GROUP;
        if element < end {
            if params.listed != 0u {
                element = candidates[output * params.len + element];
            }
            let at = first + storage_index(element, params.reduced_dims, params.reduced_strides);
            four[slot] = element_of(X_DTYPE, from_word(x[at / count]), at % count);
            place[slot] = element;
        }
    }
    return Four(select(taken(four), vec4<i32>(NONE), place == vec4<u32>(NOWHERE)), place);
}

// The best of a lane's share of an output, in the first of the four.
fn share_of(unit: u32, lane: u32) -> Four {
    let begin = unit / params.outputs * params.part;
    let end = select(begin, min(begin + params.part, params.len), unit < params.units);
    let output = unit % params.outputs;
    let first = params.x_offset + storage_index(output, params.dims, params.x_strides);
    var low = Four(vec4<i32>(NONE), vec4<u32>(NOWHERE));
    var high = low;
    if VECTOR {
        for (var i = begin + lane * 8u; i < end; i += GROUP * 8u) {
            let at = (first + storage_index(i, params.reduced_dims, params.reduced_strides)) / per_word(X_DTYPE);
            let eight = unpack(X_DTYPE, from_word(x[at]), from_word(x[at + second(X_DTYPE)]));
            let place = vec4<u32>(i) + vec4<u32>(0u, 1u, 2u, 3u);
            low = better(low, Four(taken(eight.low), place));
            high = better(high, Four(taken(eight.high), place + vec4<u32>(4u)));
        }
    } else {
        for (var i = begin + lane; i < end; i += GROUP * 8u) {
            low = better(low, four_at(output, first, i, end));
            high = better(high, four_at(output, first, i + 4u * GROUP, end));
        }
    }
    low = better(low, high);
    low = better(low, Four(low.key.zwxy, low.place.zwxy));
    return better(low, Four(low.key.yxwz, low.place.yxwz));
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
    let best = share_of(unit, lane);
    var place = best.place.x;
    if GROUP > 1u {
        keys[invocation] = best.key.x;
        places[invocation] = best.place.x;
        workgroupBarrier();
        for (var half = GROUP / 2u; half > 0u; half /= 2u) {
            if lane < half {
                let mine = Four(vec4<i32>(keys[invocation]), vec4<u32>(places[invocation]));
                let other = Four(vec4<i32>(keys[invocation + half]), vec4<u32>(places[invocation + half]));
                let won = better(mine, other);
                keys[invocation] = won.key.x;
                places[invocation] = won.place.x;
            }
            workgroupBarrier();
        }
        place = places[invocation];
    }
    if unit < params.units && lane == 0u {
        let at = storage_index(unit % params.outputs, params.dims, params.out_strides);
        out[params.out_offset + at + unit / params.outputs] = place;
    }
}
