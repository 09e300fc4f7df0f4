// out[outer, i, inner] = x[outer, indices[i], inner], bit for bit; zeros where an index is out of range.
// One invocation makes one Word of `out`, which is dense: 16 bytes or 4 where rows are made of whole ones (sizes and strides then count
// them), else the elements of 1 or 2 bytes in 32 bits, the dtype saying the width alone. Traffic: a read and a write an element.

const WORKGROUP: u32 = 64u;
const X_DTYPE: u32 = 0u;
const INDICES_DTYPE: u32 = 0u;

struct Params {
    outer_dims: array<vec4<u32>, 2>,
    outer_strides: array<vec4<u32>, 2>,
    inner_dims: array<vec4<u32>, 2>,
    inner_strides: array<vec4<u32>, 2>,
    indices_dims: array<vec4<u32>, 2>,
    indices_strides: array<vec4<u32>, 2>,
    x_offset: u32,
    x_stride: u32, // along the axis
    rows: u32, // of x along the axis
    indices_offset: u32,
    out_offset: u32,
    count: u32, // of indices
    inner: u32, // elements
    len: u32, // of out
    units: u32, // Words of out
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

// Where an element of out comes from; `found` unless its index is out of range.
struct Source {
    found: bool,
    index: u32,
}

fn source_of(element: u32) -> Source {
    let inner = element % params.inner;
    let number = element / params.inner % params.count;
    let outer = element / params.inner / params.count;
    var row = indices[params.indices_offset + storage_index(number, params.indices_dims, params.indices_strides)];
    // Negative ones count from the end; what is still too low wraps far past it.
    if INDICES_DTYPE == I32 && (row >> 31u) == 1u {
        row += params.rows;
    }
    let start = params.x_offset + storage_index(outer, params.outer_dims, params.outer_strides);
    let found = row < params.rows;
    return Source(found, start + select(0u, row, found) * params.x_stride + storage_index(inner, params.inner_dims, params.inner_strides));
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
    let count = lanes(X_DTYPE);
    if count == 1u {
        let source = source_of(unit);
        out[params.out_offset + unit] = to_word(select(vec4<u32>(0u), from_word(x[source.index]), source.found));
        return;
    }
    let width = 32u / count;
    let mask = 0xffffffffu >> (32u - width);
    let word = params.out_offset / count + unit;
    // The first and the last word may hold a neighbour's elements: they stay. One before `out` wraps to a number past its end.
    var bits = from_word(out[word]).x;
    for (var slot = 0u; slot < count; slot++) {
        let element = word * count + slot - params.out_offset;
        if element < params.len {
            let source = source_of(element);
            let moved = (from_word(x[source.index / count]).x >> (source.index % count * width)) & mask;
            bits = (bits & ~(mask << (slot * width))) | (select(0u, moved, source.found) << (slot * width));
        }
    }
    out[word] = to_word(vec4<u32>(bits));
}
