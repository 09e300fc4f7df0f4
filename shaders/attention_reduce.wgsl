// out = sum over parts of exp(lse_i - max lse) * out_i / sum over parts of exp(lse_i - max lse), lse its logarithm: results over parts of the keys as one.
// One invocation makes eight columns of a row. Traffic: each part is read once, out written once.

const OUT_DTYPE: u32 = 0u;
const WORKGROUP: u32 = 64u;

const LOWEST: f32 = -3.4028234e38;
const NONE: u32 = 0xff800000u;

struct Params {
    out_strides: vec4<u32>, // batch, head, row, column
    lse_strides: vec4<u32>, // batch, head, row
    out_offset: u32,
    lse_offset: u32,
    heads: u32,
    seq_q: u32,
    v_dim: u32,
    rows: u32, // of all batches and heads
    eights: u32, // in a row
    parts: u32,
    part_row: u32, // elements of a part's row
    has_lse: u32,
    len: u32, // eights
    pad: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read_write> lse: array<u32>;
@group(0) @binding(2) var<storage, read> part: array<vec4<f32>>; // [part][row][column], rows of whole eights
@group(0) @binding(3) var<storage, read> part_lse: array<u32>; // [part][row]
@group(0) @binding(4) var<uniform> params: Params;

// exp(x - top), for any finite x up to top.
fn weight(x: f32, top: f32) -> f32 {
    return exp(2.0 * max(0.5 * x - 0.5 * top, -64.0));
}

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
    let row = i / params.eights;
    let column = i % params.eights * 8u;
    var top = LOWEST;
    for (var p = 0u; p < params.parts; p++) {
        let bits = part_lse[p * params.rows + row];
        top = select(max(top, bitcast<f32>(bits)), top, bits == NONE);
    }
    var sum = 0.0;
    for (var p = 0u; p < params.parts; p++) {
        let bits = part_lse[p * params.rows + row];
        sum += select(weight(bitcast<f32>(select(bits, 0u, bits == NONE)), top), 0.0, bits == NONE);
    }
    // Divided first: sums of values near the limits of f32 would overflow.
    let unit = select(0.0, 1.0 / sum, sum > 0.0);
    var low = vec4<f32>(0.0);
    var high = vec4<f32>(0.0);
    for (var p = 0u; p < params.parts; p++) {
        let bits = part_lse[p * params.rows + row];
        if bits != NONE {
            let w = weight(bitcast<f32>(bits), top) * unit;
            let at = ((p * params.rows + row) * params.part_row + column) / 4u;
            low += w * part[at];
            high += w * part[at + 1u];
        }
    }
    let query = row % params.seq_q;
    let head = row / params.seq_q % params.heads;
    let batch = row / params.seq_q / params.heads;
    if params.has_lse != 0u && column == 0u {
        let value = clamp(top + log(sum), LOWEST, -LOWEST);
        let at = params.lse_offset + batch * params.lse_strides.x + head * params.lse_strides.y + query * params.lse_strides.z;
        lse[at] = select(NONE, bitcast<u32>(value), sum > 0.0);
    }
    let base = params.out_offset + batch * params.out_strides.x + head * params.out_strides.y + query * params.out_strides.z;
    let values = Eight(bitcast<vec4<u32>>(low), bitcast<vec4<u32>>(high));
    if VECTOR {
        let at = (base + column) / per_word(OUT_DTYPE);
        out[at] = to_word(pack(OUT_DTYPE, values));
        if second(OUT_DTYPE) == 1u {
            out[at + 1u] = to_word(values.high);
        }
    } else if lanes(OUT_DTYPE) == 1u {
        for (var c = 0u; c < min(8u, params.v_dim - column); c++) {
            let value = select(values.low[c % 4u], values.high[c % 4u], c > 3u);
            out[base + (column + c) * params.out_strides.w] = to_word(vec4<u32>(value));
        }
    } else {
        let pairs = pack(OUT_DTYPE, values);
        for (var c = 0u; c < min(4u, (params.v_dim - column) / 2u); c++) {
            out[(base + column) / 2u + c] = to_word(vec4<u32>(pairs[c]));
        }
    }
}
