// The first 2 * half elements of out along head_dim turned in pairs, in their place: rope.wgsl with one binding less. The others stay.
// One invocation makes a unit, and owns both elements of each pair in it: of pairs (i, i + half) 8 firsts and their seconds, of pairs
// (2i, 2i + 1) 16 neighbours. Scalar: a 32-bit word of `out` for each 8. Rows of 16 bits are made of whole words, and so are the halves
// that turn. Traffic an element that turns: one read, one write.

const WORKGROUP: u32 = 64u;
const OUT_DTYPE: u32 = 0u;

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(4) var<uniform> params: Params;

fn load(row: Row, element: u32) -> Eight {
    let at = (row.out + element * params.out_strides.w) / per_word(OUT_DTYPE);
    let word = from_word(out[at]);
    if VECTOR {
        return unpack(OUT_DTYPE, word, from_word(out[at + second(OUT_DTYPE)]));
    }
    var eight: Eight;
    eight.low.x = element_of(OUT_DTYPE, word, 0u);
    eight.low.y = element_of(OUT_DTYPE, word, 1u);
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
    turn_unit(row_at(number / params.row_units), number % params.row_units);
}
