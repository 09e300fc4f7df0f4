// out[row, col] = finish(sum over i of lhs[row, i] * rhs[i, col]), for each batch, in f32.
// One workgroup makes a tile of TILE_M x TILE_N; one invocation ROWS x COLS of it in registers: rows in groups of four, columns in eights.
// Both operands pass through workgroup memory in steps of TILE_K, as vec4s of rows and of columns. A lane brings in a block of one: vector,
// four Words along whichever axis is dense, turned where that is k; scalar, 4 x 4 elements. GATED: half of the columns are gate's.
// Traffic: lhs is read n / TILE_N times, rhs m / TILE_M times, out written once.

const TILE_M: u32 = 128u;
const TILE_N: u32 = 128u;
const TILE_K: u32 = 16u;
const ROWS: u32 = 8u;

// GATED: twice the columns, half the rows but for a single group.
const LANE_ROWS: u32 = ROWS / (1u + GATED * (ROWS / 8u));
const LANE_COLS: u32 = 8u + 8u * GATED;
const GROUPS_M: u32 = LANE_ROWS / 4u;
const GROUPS_N: u32 = LANE_COLS / 4u;
const LANES_N: u32 = TILE_N / LANE_COLS;
const THREADS: u32 = TILE_M / LANE_ROWS * LANES_N;
const VECS_M: u32 = TILE_M / 4u;
const VECS_N: u32 = TILE_N / 4u;
const OUT_N: u32 = TILE_N / (1u + GATED);
// Blocks a lane.
const ROUNDS: u32 = (TILE_M + TILE_N + THREADS - 1u) / THREADS;

// lhs, then rhs.
var<workgroup> tile: array<vec4<f32>, TILE_K * (VECS_M + VECS_N)>;

// Indexed by constants alone: an index that varies would put them in memory (on an H100, a twentieth of the speed).
var<private> sums: array<vec4<f32>, LANE_ROWS * GROUPS_N>;
// Those of one row.
var<private> line: array<vec4<f32>, GROUPS_N>;

const OF_LHS: u32 = 0u;
const OF_RHS: u32 = 1u;
const OF_GATE: u32 = 2u;
const OF_NONE: u32 = 3u;

struct Block {
    kind: u32,
    turned: bool,
    at: vec4<u32>, // its Words, of the step to come; scalar: the first elements of its rows or columns
    step: u32,
    k: u32,
    to: u32,
    next: u32, // where the second halves of Words of eight go
}

// Elements of a block along its dense axis.
fn block_len(dtype: u32) -> u32 {
    return select(4u, per_word(dtype), VECTOR);
}

// Columns lie even vecs first, so that neighbouring lanes, which have eights, read neighbours.
fn place(vec: u32) -> u32 {
    return vec / (2u * LANES_N) * (2u * LANES_N) + (vec & 1u) * LANES_N + vec % (2u * LANES_N) / 2u;
}

// Neighbouring lanes take neighbours in memory.
fn block_of(number: u32, origin: vec2<u32>, first: u32, bases: Bases) -> Block {
    let counting = vec4<u32>(0u, 1u, 2u, 3u);
    let lhs_len = block_len(LHS_DTYPE);
    let lhs_blocks = TILE_M * TILE_K / 4u / lhs_len;
    var block: Block;
    if number < lhs_blocks {
        let along = (params.along & 1u) != 0u;
        let turned = along || !VECTOR;
        let vecs = select(lhs_len / 4u, 1u, turned);
        let vec = select(number % (VECS_M / vecs) * vecs, number / (TILE_K / lhs_len), along);
        let k = select(number / (VECS_M / vecs) * 4u, number % (TILE_K / lhs_len) * lhs_len, along);
        // Rows past the last are read again, and never stored.
        let row = min(origin.x + vec * 4u + select(vec4<u32>(0u), counting, turned), vec4<u32>(params.m - 1u));
        let ks = first + k + select(counting, vec4<u32>(0u), turned);
        let unit = select(1u, per_word(LHS_DTYPE), VECTOR);
        let at = (bases.lhs + row * params.lhs_row + ks * params.lhs_col) / unit;
        block = Block(OF_LHS, turned, at, TILE_K * params.lhs_col / unit, first + k, k * VECS_M + vec, k * VECS_M + vec + 1u);
    } else {
        let along = (params.along & 2u) == 0u;
        let turned = along || !VECTOR;
        let rhs_len = block_len(RHS_DTYPE);
        let index = number - lhs_blocks;
        let vecs = select(rhs_len / 4u, 1u, turned);
        let vec = select(index % (VECS_N / vecs) * vecs, index / (TILE_K / rhs_len), along);
        let k = select(index / (VECS_N / vecs) * 4u, index % (TILE_K / rhs_len) * rhs_len, along);
        let half = vec / (OUT_N / 4u);
        let col = min(origin.y + vec * 4u - half * OUT_N + select(vec4<u32>(0u), counting, turned), vec4<u32>(params.n - 1u));
        let ks = first + k + select(counting, vec4<u32>(0u), turned);
        let unit = select(1u, per_word(RHS_DTYPE), VECTOR);
        var at = bases.rhs + ks * params.rhs_row + col * params.rhs_col;
        var step = params.rhs_row;
        if half == 1u {
            at = bases.gate + ks * params.gate_row + col * params.gate_col;
            step = params.gate_row;
        }
        let to = TILE_K * VECS_M + k * VECS_N;
        let kind = select(OF_NONE, OF_RHS + half, index < TILE_N * TILE_K / 4u / rhs_len);
        block = Block(kind, turned, at / unit, TILE_K * step / unit, first + k, to + place(vec), to + place(vec + 1u));
    }
    return block;
}

fn word_of(kind: u32, at: u32) -> vec4<u32> {
    if kind == OF_LHS {
        return from_word(lhs[at]);
    }
    if GATED == 1u && kind == OF_GATE {
        return from_word(gate[at]);
    }
    return from_word(rhs[at]);
}

fn unpack_word(kind: u32, word: vec4<u32>) -> Eight {
    if LHS_DTYPE == RHS_DTYPE || kind == OF_LHS {
        return unpack(LHS_DTYPE, word, word);
    }
    return unpack(RHS_DTYPE, word, word);
}

fn element(kind: u32, index: u32) -> f32 {
    if LHS_DTYPE == RHS_DTYPE || kind == OF_LHS {
        return bitcast<f32>(element_of(LHS_DTYPE, word_of(kind, index / per_word(LHS_DTYPE)), index % per_word(LHS_DTYPE)));
    }
    return bitcast<f32>(element_of(RHS_DTYPE, word_of(kind, index / per_word(RHS_DTYPE)), index % per_word(RHS_DTYPE)));
}

fn multiply(i: u32, lane_m: u32, lane_n: u32) {
    for (var g = 0u; g < GROUPS_M; g++) {
        let left = tile[i * VECS_M + g * (VECS_M / GROUPS_M) + lane_m];
        for (var h = 0u; h < GROUPS_N; h++) {
            let right = tile[TILE_K * VECS_M + i * VECS_N + h * LANES_N + lane_n];
            for (var r = 0u; r < 4u; r++) {
                sums[(g * 4u + r) * GROUPS_N + h] += left[r] * right;
            }
        }
    }
}

fn row_of(r: u32, origin: vec2<u32>, lane_m: u32) -> u32 {
    return origin.x + r / 4u * (TILE_M / GROUPS_M) + lane_m * 4u + r % 4u;
}

fn store_row(r: u32, origin: vec2<u32>, base: u32, lane_m: u32, col: u32) {
    if r < LANE_ROWS {
        store(base, row_of(r, origin, lane_m), col, sums[r * GROUPS_N], sums[r * GROUPS_N + 1u]);
    }
}

fn pick_row(q: u32, r: u32) {
    for (var h = 0u; h < GROUPS_N; h++) {
        line[h] = select(line[h], sums[min(q, LANE_ROWS - 1u) * GROUPS_N + h], q == r);
    }
}

@compute @workgroup_size(THREADS)
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
    let origin = tile_of(number % tiles) * vec2<u32>(TILE_M, OUT_N);
    let split = number / tiles % params.splits;
    var bases = bases_of(number / tiles / params.splits);
    bases.out += split * params.split_stride;
    let first = split * params.chunk;
    let end = min(params.k, first + params.chunk);

    var blocks: array<Block, ROUNDS>;
    for (var round = 0u; round < ROUNDS; round++) {
        blocks[round] = block_of(lane + round * THREADS, origin, first, bases);
    }
    let lane_m = lane / LANES_N;
    let lane_n = lane % LANES_N;
    for (var k = first; k < end; k += TILE_K) {
        for (var round = 0u; round < ROUNDS; round++) {
            let block = blocks[round];
            let is_lhs = block.kind == OF_LHS;
            let pitch = select(VECS_N, VECS_M, is_lhs);
            if VECTOR && block.kind != OF_NONE {
                var a = vec4<u32>(0u);
                var b = vec4<u32>(0u);
                var d = vec4<u32>(0u);
                var e = vec4<u32>(0u);
                if k + TILE_K <= end {
                    a = word_of(block.kind, block.at.x);
                    b = word_of(block.kind, block.at.y);
                    d = word_of(block.kind, block.at.z);
                    e = word_of(block.kind, block.at.w);
                } else {
                    // What is past the end counts as zero. Eights along k end where k does.
                    let ks = block.k + (k - first) + select(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(0u), block.turned);
                    if ks.x < end {
                        a = word_of(block.kind, block.at.x);
                    }
                    if ks.y < end {
                        b = word_of(block.kind, block.at.y);
                    }
                    if ks.z < end {
                        d = word_of(block.kind, block.at.z);
                    }
                    if ks.w < end {
                        e = word_of(block.kind, block.at.w);
                    }
                }
                let eights = array<Eight, 4>(
                    unpack_word(block.kind, a), unpack_word(block.kind, b), unpack_word(block.kind, d), unpack_word(block.kind, e),
                );
                let len = block_len(select(RHS_DTYPE, LHS_DTYPE, is_lhs));
                for (var j = 0u; j < 4u; j++) {
                    var low = eights[j].low;
                    var high = eights[j].high;
                    var next = block.next + j * pitch;
                    if block.turned {
                        low = vec4<u32>(eights[0].low[j], eights[1].low[j], eights[2].low[j], eights[3].low[j]);
                        high = vec4<u32>(eights[0].high[j], eights[1].high[j], eights[2].high[j], eights[3].high[j]);
                        next = block.to + (j + 4u) * pitch;
                    }
                    tile[block.to + j * pitch] = bitcast<vec4<f32>>(low);
                    if len == 8u {
                        tile[next] = bitcast<vec4<f32>>(high);
                    }
                }
            }
            if !VECTOR && block.kind != OF_NONE {
                let stride = select(select(params.rhs_row, params.gate_row, block.kind == OF_GATE), params.lhs_col, is_lhs);
                for (var j = 0u; j < 4u; j++) {
                    var values = vec4<f32>(0.0);
                    if block.k + (k - first) + j < end {
                        let at = block.at + j * stride;
                        values = vec4<f32>(
                            element(block.kind, at.x), element(block.kind, at.y), element(block.kind, at.z), element(block.kind, at.w),
                        );
                    }
                    tile[block.to + j * pitch] = values;
                }
            }
            blocks[round].at += block.step;
        }
        workgroupBarrier();
        multiply(0u, lane_m, lane_n);
        multiply(1u, lane_m, lane_n);
        multiply(2u, lane_m, lane_n);
        multiply(3u, lane_m, lane_n);
        multiply(4u, lane_m, lane_n);
        multiply(5u, lane_m, lane_n);
        multiply(6u, lane_m, lane_n);
        multiply(7u, lane_m, lane_n);
        multiply(8u, lane_m, lane_n);
        multiply(9u, lane_m, lane_n);
        multiply(10u, lane_m, lane_n);
        multiply(11u, lane_m, lane_n);
        multiply(12u, lane_m, lane_n);
        multiply(13u, lane_m, lane_n);
        multiply(14u, lane_m, lane_n);
        multiply(15u, lane_m, lane_n);
        workgroupBarrier();
    }

    let col = origin.y + lane_n * 8u;
    if EPILOGUE == 0u {
        store_row(0u, origin, bases.out, lane_m, col);
        store_row(1u, origin, bases.out, lane_m, col);
        store_row(2u, origin, bases.out, lane_m, col);
        store_row(3u, origin, bases.out, lane_m, col);
        store_row(4u, origin, bases.out, lane_m, col);
        store_row(5u, origin, bases.out, lane_m, col);
        store_row(6u, origin, bases.out, lane_m, col);
        store_row(7u, origin, bases.out, lane_m, col);
    } else {
        // A loop, as the epilogue is long.
        for (var r = 0u; r < LANE_ROWS; r++) {
            pick_row(0u, r);
            pick_row(1u, r);
            pick_row(2u, r);
            pick_row(3u, r);
            pick_row(4u, r);
            pick_row(5u, r);
            pick_row(6u, r);
            pick_row(7u, r);
            let row = row_of(r, origin, lane_m);
            if row < params.m && col < params.n {
                let low = finish(bases, row, col, line[0], line[2u * GATED]);
                let high = finish(bases, row, col + 4u, line[1], line[1u + 2u * GATED]);
                store(bases.out, row, col, low, high);
            }
        }
    }
}
