// out[row, col] = finish(sum over i of lhs[row, i] * rhs[i, col]), for each batch, in f32: for adapters that run on the CPU.
// One workgroup makes ROWS x (LANES * 8), one invocation ROWS x 8 (GATED: half the rows, twice the columns), without workgroup memory: there
// it is memory like any other, and a barrier costs a switch of every lane. The lanes of a workgroup share its rows, so lhs is read by scalar
// loads, which are cheap; rhs by gathers, which are dear, so that each is used for all the rows. Four columns at a time go through all of k,
// STEP at a time: the text of a step is there once, as every copy of it is compiled, and what was gathered stays in registers.
// Traffic: lhs is read 2n / (LANES * 8) times, rhs m / ROWS times (GATED: each twice as often), out written once.

const ROWS: u32 = 16u;
const LANES: u32 = 8u;

const LANE_ROWS: u32 = ROWS / (1u + GATED);
// Of k at a time: a Word, where the operand is dense along it (F32 is 0).
const STEP: u32 = 4u + 4u * min(LHS_DTYPE + RHS_DTYPE, 1u);

// Of rhs or gate: STEP rows of four columns.
var<private> right: array<vec4<f32>, STEP>;
// Of four columns of rhs, and of gate.
var<private> sums: array<array<vec4<f32>, LANE_ROWS>, 1u + GATED>;

fn lhs_at(index: u32) -> f32 {
    let count = per_word(LHS_DTYPE);
    return bitcast<f32>(element_of(LHS_DTYPE, from_word(lhs[index / count]), index % count));
}

fn right_word(of_gate: bool, at: u32) -> vec4<u32> {
    if of_gate {
        return from_word(gate[at]);
    }
    return from_word(rhs[at]);
}

fn right_at(of_gate: bool, index: u32) -> f32 {
    let count = per_word(RHS_DTYPE);
    return bitcast<f32>(element_of(RHS_DTYPE, right_word(of_gate, index / count), index % count));
}

// Row k of four columns.
fn fetch_row(of_gate: bool, base: u32, k: u32, col: u32, row_stride: u32, col_stride: u32) -> vec4<f32> {
    let at = base + k * row_stride;
    if VECTOR {
        let word = right_word(of_gate, (at + col) / per_word(RHS_DTYPE));
        let eight = unpack(RHS_DTYPE, word, word);
        return bitcast<vec4<f32>>(select(eight.low, eight.high, col % 8u == 4u));
    }
    let places = at + min(col + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u)) * col_stride;
    return vec4<f32>(right_at(of_gate, places.x), right_at(of_gate, places.y), right_at(of_gate, places.z), right_at(of_gate, places.w));
}

// STEP of a column, from k on.
fn fetch_column(of_gate: bool, c: u32, base: u32, k: u32, col: u32, col_stride: u32) {
    let at = base + min(col + c, params.n - 1u) * col_stride + k;
    let word = right_word(of_gate, at / per_word(RHS_DTYPE));
    let next = right_word(of_gate, (at + STEP - 4u) / per_word(RHS_DTYPE));
    let eight = unpack(RHS_DTYPE, word, next);
    for (var i = 0u; i < 4u; i++) {
        right[i][c] = bitcast<f32>(eight.low[i]);
        if STEP == 8u {
            right[i + STEP - 4u][c] = bitcast<f32>(eight.high[i]);
        }
    }
}

fn fetch(of_gate: bool, base: u32, k: u32, col: u32, row_stride: u32, col_stride: u32) {
    if VECTOR && (params.along & 2u) == 0u {
        fetch_column(of_gate, 0u, base, k, col, col_stride);
        fetch_column(of_gate, 1u, base, k, col, col_stride);
        fetch_column(of_gate, 2u, base, k, col, col_stride);
        fetch_column(of_gate, 3u, base, k, col, col_stride);
    } else {
        for (var i = 0u; i < STEP; i++) {
            // Past the last k both operands are 0.
            right[i] = vec4<f32>(0.0);
            if VECTOR || k + i < params.k {
                right[i] = fetch_row(of_gate, base, k + i, col, row_stride, col_stride);
            }
        }
    }
}

// STEP elements of a row of lhs times right. VECTOR: lhs is dense along k.
fn multiply(side: u32, r: u32, base: u32, row: u32, k: u32) {
    let at = base + min(row + r, params.m - 1u) * params.lhs_row + k * params.lhs_col;
    var left: array<f32, STEP>;
    if VECTOR {
        let word = from_word(lhs[at / per_word(LHS_DTYPE)]);
        let next = from_word(lhs[(at + STEP - 4u) / per_word(LHS_DTYPE)]);
        let eight = unpack(LHS_DTYPE, word, next);
        for (var i = 0u; i < 4u; i++) {
            left[i] = bitcast<f32>(eight.low[i]);
            if STEP == 8u {
                left[i + STEP - 4u] = bitcast<f32>(eight.high[i]);
            }
        }
    } else {
        for (var i = 0u; i < STEP; i++) {
            left[i] = lhs_at(at + min(i, params.k - 1u - k) * params.lhs_col);
            if k + i >= params.k {
                left[i] = 0.0;
            }
        }
    }
    var sum = sums[side][r];
    for (var i = 0u; i < STEP; i++) {
        sum += left[i] * right[i];
    }
    sums[side][r] = sum;
}

// Four columns of rhs or gate, through all of k.
// side: 1 for gate.
fn product(side: u32, lhs_base: u32, row: u32, base: u32, col: u32, row_stride: u32, col_stride: u32) {
    for (var r = 0u; r < LANE_ROWS; r++) {
        sums[side][r] = vec4<f32>(0.0);
    }
    for (var k = 0u; k < params.k; k += STEP) {
        fetch(side == 1u, base, k, col, row_stride, col_stride);
        // As many trips as sums has elements: such loops compilers unroll at any length.
        for (var r = 0u; r < LANE_ROWS; r++) {
            multiply(side, r, lhs_base, row, k);
        }
    }
}

// Writes four of a row, as far as they lie in out. Scalar: `out` of 16 bits is made of whole pairs.
fn store_four(base: u32, row: u32, col: u32, values: vec4<f32>) {
    let bits = bitcast<vec4<u32>>(values);
    let start = base + row * params.out_row;
    let pairs = pack(OUT_DTYPE, Eight(bits, bits));
    if VECTOR {
        let at = (start + col) / per_word(OUT_DTYPE);
        if lanes(OUT_DTYPE) == 1u {
            out[at] = to_word(bits);
        } else {
            // The other half of the Word stays.
            let word = from_word(out[at]);
            out[at] = to_word(select(vec4<u32>(pairs.xy, word.zw), vec4<u32>(word.xy, pairs.zw), col % 8u == 4u));
        }
    } else if lanes(OUT_DTYPE) == 1u {
        for (var i = 0u; i < 4u; i++) {
            if col + i < params.n {
                out[start + (col + i) * params.out_col] = to_word(vec4<u32>(bits[i]));
            }
        }
    } else {
        for (var i = 0u; i < 2u; i++) {
            if col + 2u * i < params.n {
                out[(start + col) / 2u + i] = to_word(vec4<u32>(pairs[i]));
            }
        }
    }
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = group.x + grid.x * group.y;
    if number >= params.groups {
        return;
    }
    let tiles = params.tiles_m * params.tiles_n;
    let tile = tile_of(number % tiles);
    let bases = bases_of(number / tiles);
    let row = tile.x * LANE_ROWS;
    let col = (tile.y * LANES + lane) * 8u;
    // Columns past the last are read again, and never stored.
    let read = select(col, 0u, col >= params.n);
    // Compilers that knew how often would write all of it out twice.
    for (var half = 0u; half < 2u + params.zero; half++) {
        product(0u, bases.lhs, row, bases.rhs, read + half * 4u, params.rhs_row, params.rhs_col);
        if GATED == 1u {
            product(GATED, bases.lhs, row, bases.gate, read + half * 4u, params.gate_row, params.gate_col);
        }
        let first = col + half * 4u;
        if first < params.n {
            for (var r = 0u; r < min(LANE_ROWS, params.m - row); r++) {
                store_four(bases.out, row + r, first, finish(bases, row + r, first, sums[0][r], sums[GATED][r]));
            }
        }
    }
}
