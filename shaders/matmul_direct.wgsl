// out[row, col] = finish(sum over i of lhs[row, i] * rhs[i, col]), for each batch, in f32: for adapters that run on the CPU.
// One workgroup makes ROWS x (LANES * 8), one invocation ROWS x 8 (GATED: half the rows, twice the columns) in registers, without workgroup
// memory: there it is memory like any other, and a barrier costs a switch of every lane. The lanes of a workgroup share its rows, so lhs is
// read by scalar loads, which are cheap; rhs by gathers, which are dear, so that each is used for all the rows. STRIP fours of columns at a time
// take STEP products for every row: compilers keep what is gathered in registers, and each sum while it grows; the other sums lie in memory.
// Traffic: lhs is read n / (LANES * 8) times, rhs m / ROWS times, out written once.

const ROWS: u32 = 16u;
const LANES: u32 = 8u;
// Fours of columns that go through k at a time, 1 or 2: compilers that read lhs by gathers too want it read once for both.
const STRIP: u32 = 1u;

const LANE_ROWS: u32 = ROWS / (1u + GATED);
const VECS: u32 = 2u + 2u * GATED;
// Of k at a time: a Word, where the operand is dense along it.
const STEP: u32 = 4u + 4u * min(LHS_DTYPE + RHS_DTYPE, 1u);

var<private> sums: array<vec4<f32>, LANE_ROWS * VECS>;
// Of rhs or gate: STEP rows of STRIP fours of columns.
var<private> right: array<vec4<f32>, STEP * STRIP>;

fn lhs_at(index: u32) -> f32 {
    let count = per_word(LHS_DTYPE);
    return bitcast<f32>(element_of(LHS_DTYPE, from_word(lhs[index / count]), index % count));
}

// v / 2 is 1 for gate.
fn right_at(v: u32, index: u32) -> f32 {
    let count = per_word(RHS_DTYPE);
    if v > 1u {
        return bitcast<f32>(element_of(RHS_DTYPE, from_word(gate[index / count]), index % count));
    }
    return bitcast<f32>(element_of(RHS_DTYPE, from_word(rhs[index / count]), index % count));
}

fn right_word(v: u32, at: u32) -> vec4<u32> {
    if v > 1u {
        return from_word(gate[at]);
    }
    return from_word(rhs[at]);
}

// Row k of four columns, into its place in right.
fn fetch_row(v: u32, i: u32, base: u32, k: u32, col: u32, row_stride: u32, col_stride: u32) {
    let at = base + k * row_stride;
    if VECTOR && (params.along & 2u) != 0u {
        let word = (at + col) / per_word(RHS_DTYPE);
        let eight = unpack(RHS_DTYPE, right_word(v, word), right_word(v, word + second(RHS_DTYPE)));
        right[i * STRIP + v % STRIP] = bitcast<vec4<f32>>(select(eight.low, eight.high, v % 2u == 1u));
    } else {
        let places = at + min(col + v % 2u * 4u + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u)) * col_stride;
        right[i * STRIP + v % STRIP] = vec4<f32>(right_at(v, places.x), right_at(v, places.y), right_at(v, places.z), right_at(v, places.w));
    }
}

// One column's Word along k, into its place in each of right's rows.
fn fetch_column(v: u32, c: u32, base: u32, k: u32, col: u32, col_stride: u32) {
    let at = base + min(col + v % 2u * 4u + c, params.n - 1u) * col_stride + k;
    let word = right_word(v, at / per_word(RHS_DTYPE));
    let next = right_word(v, (at + STEP - 4u) / per_word(RHS_DTYPE));
    let eight = unpack(RHS_DTYPE, word, next);
    for (var i = 0u; i < 4u; i++) {
        right[i * STRIP + v % STRIP][c] = bitcast<f32>(eight.low[i]);
        if STEP == 8u {
            right[(i + STEP - 4u) * STRIP + v % STRIP][c] = bitcast<f32>(eight.high[i]);
        }
    }
}

fn fetch(v: u32, base: u32, k: u32, col: u32, row_stride: u32, col_stride: u32) {
    if VECTOR && (params.along & 2u) == 0u {
        fetch_column(v, 0u, base, k, col, col_stride);
        fetch_column(v, 1u, base, k, col, col_stride);
        fetch_column(v, 2u, base, k, col, col_stride);
        fetch_column(v, 3u, base, k, col, col_stride);
    } else {
        for (var i = 0u; i < STEP; i++) {
            if VECTOR || k + i < params.k {
                fetch_row(v, i, base, k + i, col, row_stride, col_stride);
            } else {
                // Past the last k both operands are 0.
                right[i * STRIP + v % STRIP] = vec4<f32>(0.0);
            }
        }
    }
}

// STEP elements of a row of lhs times right. VECTOR: lhs is dense along k.
fn multiply(v: u32, r: u32, base: u32, row: u32, k: u32) {
    if r >= LANE_ROWS {
        return;
    }
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
    for (var s = 0u; s < STRIP; s++) {
        var sum = sums[r * VECS + v + s];
        for (var i = 0u; i < STEP; i++) {
            sum += left[i] * right[i * STRIP + s];
        }
        sums[r * VECS + v + s] = sum;
    }
}

// STEP of k, for STRIP fours of columns of all rows, from the v-th on.
fn strip(v: u32, bases: Bases, row: u32, k: u32, col: u32) {
    for (var s = 0u; s < STRIP; s++) {
        if v > 1u {
            fetch(v + s, bases.gate, k, col, params.gate_row, params.gate_col);
        } else {
            fetch(v + s, bases.rhs, k, col, params.rhs_row, params.rhs_col);
        }
    }
    multiply(v, 0u, bases.lhs, row, k);
    multiply(v, 1u, bases.lhs, row, k);
    multiply(v, 2u, bases.lhs, row, k);
    multiply(v, 3u, bases.lhs, row, k);
    multiply(v, 4u, bases.lhs, row, k);
    multiply(v, 5u, bases.lhs, row, k);
    multiply(v, 6u, bases.lhs, row, k);
    multiply(v, 7u, bases.lhs, row, k);
    multiply(v, 8u, bases.lhs, row, k);
    multiply(v, 9u, bases.lhs, row, k);
    multiply(v, 10u, bases.lhs, row, k);
    multiply(v, 11u, bases.lhs, row, k);
    multiply(v, 12u, bases.lhs, row, k);
    multiply(v, 13u, bases.lhs, row, k);
    multiply(v, 14u, bases.lhs, row, k);
    multiply(v, 15u, bases.lhs, row, k);
    multiply(v, 16u, bases.lhs, row, k);
    multiply(v, 17u, bases.lhs, row, k);
    multiply(v, 18u, bases.lhs, row, k);
    multiply(v, 19u, bases.lhs, row, k);
    multiply(v, 20u, bases.lhs, row, k);
    multiply(v, 21u, bases.lhs, row, k);
    multiply(v, 22u, bases.lhs, row, k);
    multiply(v, 23u, bases.lhs, row, k);
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
    for (var k = 0u; k < params.k; k += STEP) {
        strip(0u, bases, row, k, read);
        if STRIP == 1u {
            strip(1u, bases, row, k, read);
        }
        if GATED == 1u {
            strip(2u, bases, row, k, read);
            if STRIP == 1u {
                strip(3u, bases, row, k, read);
            }
        }
    }
    // A loop, as the epilogue is long; its sums are selected, since an index that varies would put all of them in memory.
    for (var r = 0u; r < LANE_ROWS; r++) {
        var line: array<vec4<f32>, VECS>;
        for (var v = 0u; v < VECS; v++) {
            line[v] = sums[v];
            for (var q = 1u; q < LANE_ROWS; q++) {
                line[v] = select(line[v], sums[q * VECS + v], q == r);
            }
        }
        if row + r < params.m && col < params.n {
            let low = finish(bases, row + r, col, line[0], line[2u * GATED]);
            let high = finish(bases, row + r, col + 4u, line[1], line[1u + 2u * GATED]);
            store(bases.out, row + r, col, low, high);
        }
    }
}
