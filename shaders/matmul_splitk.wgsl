// out = finish(sum over splits of parts[split]), and of the gate's parts: the second pass of a product whose k was split.
// `lhs` holds the parts, f32, dense: split after split, each [batch, m, n]; `gate` those of the gate. One invocation takes eights of a row,
// and adds the splits in their order, which nothing changes. Traffic: every part is read once, out written once.

const GROUP: u32 = 64u;

fn part(half: u32, at: u32) -> vec4<f32> {
    var words: vec4<u32>;
    if VECTOR {
        if half == 1u {
            return bitcast<vec4<f32>>(from_word(gate[at / 4u]));
        }
        return bitcast<vec4<f32>>(from_word(lhs[at / 4u]));
    }
    // What lies past the row's end is another's, and never stored: within the parts as these are padded.
    if half == 1u {
        words = vec4<u32>(from_word(gate[at]).x, from_word(gate[at + 1u]).x, from_word(gate[at + 2u]).x, from_word(gate[at + 3u]).x);
    } else {
        words = vec4<u32>(from_word(lhs[at]).x, from_word(lhs[at + 1u]).x, from_word(lhs[at + 2u]).x, from_word(lhs[at + 3u]).x);
    }
    return bitcast<vec4<f32>>(words);
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = group.x + grid.x * group.y;
    if number >= params.groups {
        return;
    }
    // Eights of a row: tiles_n of them.
    let eight = number * GROUP + lane;
    let line = eight / params.tiles_n;
    let col = eight % params.tiles_n * 8u;
    let row = line % params.m;
    if line >= params.tiles_m {
        return;
    }
    let bases = bases_of(line / params.m);
    var low: array<vec4<f32>, 2>;
    var high: array<vec4<f32>, 2>;
    for (var split = 0u; split < params.splits; split++) {
        let at = split * params.split_stride + line * params.n + col;
        low[0] += part(0u, at);
        high[0] += part(0u, at + 4u);
        if GATED == 1u {
            low[1] += part(1u, at);
            high[1] += part(1u, at + 4u);
        }
    }
    store(bases.out, row, col, finish(bases, row, col, low[0], low[1]), finish(bases, row, col + 4u, high[0], high[1]));
}
