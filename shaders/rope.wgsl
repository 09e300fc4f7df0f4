// out = x, its first 2 * half elements along head_dim turned in pairs: (a, b) becomes (a cos - b sin, b cos + a sin), in f32.
// One invocation makes a unit: of pairs (i, i + half) 8 firsts and their seconds, of pairs (2i, 2i + 1) 16 neighbours, of what passes 8.
// Scalar: a 32-bit word of `out` for each 8. Rows of 16 bits are made of whole words, and so are the halves that turn.
// Traffic an element: one read, one write; of the tables half a read, from cache for all heads but the first.

const WORKGROUP: u32 = 64u;
const OUT_DTYPE: u32 = 0u;
const X_DTYPE: u32 = 0u;

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(4) var<storage, read> x: array<Word>;
@group(0) @binding(5) var<uniform> params: Params;

fn x_at(index: u32) -> u32 {
    let count = per_word(X_DTYPE);
    return element_of(X_DTYPE, from_word(x[index / count]), index % count);
}

fn load(row: Row, element: u32) -> Eight {
    let at = row.x + element * params.x_strides.w;
    if VECTOR {
        let word = at / per_word(X_DTYPE);
        return unpack(X_DTYPE, from_word(x[word]), from_word(x[word + second(X_DTYPE)]));
    }
    var eight: Eight;
    eight.low.x = x_at(at);
    if unit_size() == 2u {
        eight.low.y = x_at(at + params.x_strides.w);
    }
    return eight;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = (group.x + grid.x * group.y) * WORKGROUP + lane;
    if number >= params.units {
        return;
    }
    let row = row_at(number / params.row_units);
    let unit = number % params.row_units;
    if unit < params.turning {
        turn_unit(row, unit);
        return;
    }
    let element = 2u * params.half + (unit - params.turning) * unit_size();
    store(row, element, load(row, element));
}
