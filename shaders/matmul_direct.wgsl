// out[row, col] = finish(sum over i of lhs[row, i] * rhs[i, col]), for each batch, in f32: for adapters that run on the CPU.
// One workgroup makes ROWS x (LANES * 8), one invocation ROWS x 8 (GATED: half the rows, twice the columns) in registers, without workgroup
// memory: there it is memory like any other, and a barrier costs a switch of every lane. The lanes of a workgroup share its rows, so lhs is
// read by scalar loads, which are cheap; rhs by gathers, which are dear, so that each is used for all the rows. All of a row's sums take STEP
// products before the next row's: compilers keep them in registers meanwhile, and the rest in memory.
// Traffic: lhs is read n / (LANES * 8) times, rhs m / ROWS times, out written once.

const ROWS: u32 = 16u;
const LANES: u32 = 8u;

const LANE_ROWS: u32 = ROWS / (1u + GATED);
const VECS: u32 = 2u + 2u * GATED;
// Of k at a time: a Word, where the operand is dense along it.
const STEP: u32 = 4u + 4u * min(LHS_DTYPE + RHS_DTYPE, 1u);

var<private> sums: array<vec4<f32>, LANE_ROWS * VECS>;
// Of rhs, and of gate: STEP rows of eights.
var<private> right: array<vec4<f32>, STEP * VECS>;

fn lhs_at(index: u32) -> f32 {
    let count = per_word(LHS_DTYPE);
    return bitcast<f32>(element_of(LHS_DTYPE, from_word(lhs[index / count]), index % count));
}

fn right_at(half: u32, index: u32) -> f32 {
    let count = per_word(RHS_DTYPE);
    if half == 1u {
        return bitcast<f32>(element_of(RHS_DTYPE, from_word(gate[index / count]), index % count));
    }
    return bitcast<f32>(element_of(RHS_DTYPE, from_word(rhs[index / count]), index % count));
}

fn right_word(half: u32, at: u32) -> vec4<u32> {
    if half == 1u {
        return from_word(gate[at]);
    }
    return from_word(rhs[at]);
}

// The next row of an eight of columns, into right[i].
fn fetch_row(half: u32, i: u32, base: u32, k: u32, col: u32, row_stride: u32, col_stride: u32) {
    let at = base + k * row_stride;
    if VECTOR && (params.along & 2u) != 0u {
        let word = (at + col) / per_word(RHS_DTYPE);
        let eight = unpack(RHS_DTYPE, right_word(half, word), right_word(half, word + second(RHS_DTYPE)));
        right[i * VECS + 2u * half] = bitcast<vec4<f32>>(eight.low);
        right[i * VECS + 2u * half + 1u] = bitcast<vec4<f32>>(eight.high);
    } else {
        let low = at + min(col + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u)) * col_stride;
        let high = at + min(col + vec4<u32>(4u, 5u, 6u, 7u), vec4<u32>(params.n - 1u)) * col_stride;
        right[i * VECS + 2u * half] = vec4<f32>(right_at(half, low.x), right_at(half, low.y), right_at(half, low.z), right_at(half, low.w));
        right[i * VECS + 2u * half + 1u] =
            vec4<f32>(right_at(half, high.x), right_at(half, high.y), right_at(half, high.z), right_at(half, high.w));
    }
}

// One column's Word along k, into its place in each of right's rows.
fn fetch_column(half: u32, c: u32, base: u32, k: u32, col: u32, col_stride: u32) {
    let at = base + min(col + c, params.n - 1u) * col_stride + k;
    let word = right_word(half, at / per_word(RHS_DTYPE));
    let next = right_word(half, (at + STEP - 4u) / per_word(RHS_DTYPE));
    let eight = unpack(RHS_DTYPE, word, next);
    for (var i = 0u; i < 4u; i++) {
        right[i * VECS + 2u * half + c / 4u][c % 4u] = bitcast<f32>(eight.low[i]);
        if STEP == 8u {
            right[(i + STEP - 4u) * VECS + 2u * half + c / 4u][c % 4u] = bitcast<f32>(eight.high[i]);
        }
    }
}

fn fetch(half: u32, base: u32, k: u32, col: u32, row_stride: u32, col_stride: u32) {
    if VECTOR && (params.along & 2u) == 0u {
        fetch_column(half, 0u, base, k, col, col_stride);
        fetch_column(half, 1u, base, k, col, col_stride);
        fetch_column(half, 2u, base, k, col, col_stride);
        fetch_column(half, 3u, base, k, col, col_stride);
        fetch_column(half, 4u, base, k, col, col_stride);
        fetch_column(half, 5u, base, k, col, col_stride);
        fetch_column(half, 6u, base, k, col, col_stride);
        fetch_column(half, 7u, base, k, col, col_stride);
    } else {
        for (var i = 0u; i < STEP; i++) {
            fetch_row(half, i, base, k + i, col, row_stride, col_stride);
        }
    }
}

// STEP elements of a row of lhs times right.
fn multiply(r: u32, base: u32, row: u32, k: u32) {
    if r >= LANE_ROWS {
        return;
    }
    let at = base + min(row + r, params.m - 1u) * params.lhs_row + k * params.lhs_col;
    var left: array<f32, STEP>;
    if VECTOR && (params.along & 1u) != 0u {
        let eight = unpack(LHS_DTYPE, from_word(lhs[at / per_word(LHS_DTYPE)]), from_word(lhs[(at + STEP - 4u) / per_word(LHS_DTYPE)]));
        for (var i = 0u; i < 4u; i++) {
            left[i] = bitcast<f32>(eight.low[i]);
            if STEP == 8u {
                left[i + STEP - 4u] = bitcast<f32>(eight.high[i]);
            }
        }
    } else {
        for (var i = 0u; i < STEP; i++) {
            left[i] = lhs_at(at + i * params.lhs_col);
        }
    }
    for (var v = 0u; v < VECS; v++) {
        var sum = sums[r * VECS + v];
        for (var i = 0u; i < STEP; i++) {
            sum += left[i] * right[i * VECS + v];
        }
        sums[r * VECS + v] = sum;
    }
}

// The same for one k.
fn multiply_one(r: u32, base: u32, row: u32, k: u32) {
    if r >= LANE_ROWS {
        return;
    }
    let left = lhs_at(base + min(row + r, params.m - 1u) * params.lhs_row + k * params.lhs_col);
    for (var v = 0u; v < VECS; v++) {
        sums[r * VECS + v] += left * right[v];
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
    let whole = params.k / STEP * STEP;
    for (var k = 0u; k < whole; k += STEP) {
        fetch(0u, bases.rhs, k, read, params.rhs_row, params.rhs_col);
        if GATED == 1u {
            fetch(1u, bases.gate, k, read, params.gate_row, params.gate_col);
        }
        multiply(0u, bases.lhs, row, k);
        multiply(1u, bases.lhs, row, k);
        multiply(2u, bases.lhs, row, k);
        multiply(3u, bases.lhs, row, k);
        multiply(4u, bases.lhs, row, k);
        multiply(5u, bases.lhs, row, k);
        multiply(6u, bases.lhs, row, k);
        multiply(7u, bases.lhs, row, k);
        multiply(8u, bases.lhs, row, k);
        multiply(9u, bases.lhs, row, k);
        multiply(10u, bases.lhs, row, k);
        multiply(11u, bases.lhs, row, k);
        multiply(12u, bases.lhs, row, k);
        multiply(13u, bases.lhs, row, k);
        multiply(14u, bases.lhs, row, k);
        multiply(15u, bases.lhs, row, k);
    }
    for (var k = whole; k < params.k; k++) {
        fetch_row(0u, 0u, bases.rhs, k, read, params.rhs_row, params.rhs_col);
        if GATED == 1u {
            fetch_row(1u, 0u, bases.gate, k, read, params.gate_row, params.gate_col);
        }
        multiply_one(0u, bases.lhs, row, k);
        multiply_one(1u, bases.lhs, row, k);
        multiply_one(2u, bases.lhs, row, k);
        multiply_one(3u, bases.lhs, row, k);
        multiply_one(4u, bases.lhs, row, k);
        multiply_one(5u, bases.lhs, row, k);
        multiply_one(6u, bases.lhs, row, k);
        multiply_one(7u, bases.lhs, row, k);
        multiply_one(8u, bases.lhs, row, k);
        multiply_one(9u, bases.lhs, row, k);
        multiply_one(10u, bases.lhs, row, k);
        multiply_one(11u, bases.lhs, row, k);
        multiply_one(12u, bases.lhs, row, k);
        multiply_one(13u, bases.lhs, row, k);
        multiply_one(14u, bases.lhs, row, k);
        multiply_one(15u, bases.lhs, row, k);
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
