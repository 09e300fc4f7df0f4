// out[row, col] = finish(sum over i of lhs[row, i] * rhs[i, col]), for each batch, in f32: at most ROWS rows, bound by reading rhs.
// One workgroup makes TILE_N columns of all rows. A lane takes eight of them and every LANES_K-th block of k: 8 loads of rhs at once, Words
// along whichever axis is dense (scalar: elements of one k). Neighbouring lanes take neighbours in memory.
// Sums stay in registers; in the end those of LANES_K lanes are added through workgroup memory, in fours. GATED: half of the lanes do gate.
// Traffic: rhs is read once, lhs n / TILE_N times (it is small, and stays in caches), out written once.

const ROWS: u32 = 4u;
const TILE_N: u32 = 32u;
const THREADS: u32 = 256u;

const LANES_N: u32 = TILE_N / 8u;
// Of both products.
const EIGHTS: u32 = LANES_N * (1u + GATED);
const LANES_K: u32 = THREADS / EIGHTS;
// A Word of 16-bit elements is an eight. Else a lane's columns are two fours, half a tile apart: so are lanes neighbours along columns.
const WIDE: bool = VECTOR && RHS_DTYPE != F32;
const NEXT_LANE: u32 = select(4u, 8u, WIDE);
const NEXT_FOUR: u32 = select(TILE_N / 2u, 4u, WIDE);
// k of a block: a Word's, or one.
const BLOCK_K: u32 = select(1u, select(4u, 8u, WIDE), VECTOR);
// Rows whose lhs is in registers at a time.
const TOGETHER: u32 = min(ROWS, 4u);
// Workgroup memory holds the sums of two rows.
const ROUNDS: u32 = (ROWS + 1u) / 2u;
const PARTS: u32 = 2u * ROWS / ROUNDS * THREADS;

// Fours of columns: by row, half, eight of either product, lane along k.
var<workgroup> parts: array<vec4<f32>, PARTS>;

// Two fours a row.
var<private> sums: array<vec4<f32>, ROWS * 2u>;
// A block of lhs as it is stored, in two Words a row: the conversion is free in a product on some GPUs.
var<private> lefts: array<vec4<u32>, TOGETHER * 2u>;
// Of each two rows.
var<private> quarters: array<vec4<f32>, ROUNDS>;
// A block of rhs.
var<private> words: array<vec4<u32>, 8>;

// The block that begins at k, of the rows from top. What is past the end of k counts as zero; rows past the last are never stored.
fn read_lhs(base: u32, top: u32, k: u32, end: u32) {
    let unit = per_word(LHS_DTYPE);
    let count = lanes(LHS_DTYPE);
    if VECTOR && (params.along & 1u) != 0u {
        for (var r = 0u; r < TOGETHER; r++) {
            let at = base + min(top + r, params.m - 1u) * params.lhs_row + k;
            let word = from_word(lhs[at / unit]);
            // Four k may be the second half of a Word.
            lefts[2u * r] = select(word, word.zwzw, !WIDE && at % unit != 0u);
            if WIDE && LHS_DTYPE == F32 {
                lefts[2u * r + 1u] = from_word(lhs[at / unit + 1u]);
            }
        }
    } else {
        for (var r = 0u; r < TOGETHER; r++) {
            // By elements: a branch a row, as the loads of all of them at once would fill the registers.
            if top + r < params.m {
                for (var i = 0u; i < BLOCK_K; i++) {
                    let inside = k + i < end;
                    let at = base + (top + r) * params.lhs_row + select(k, k + i, inside) * params.lhs_col;
                    let word = from_word(lhs[at / unit]);
                    var bits = word.x;
                    if VECTOR {
                        bits = word[at % unit / count];
                    }
                    bits = select(0u, (bits >> (at % count * 16u)) & (0xffffffffu >> (32u - 32u / count)), inside);
                    let slot = i / count;
                    let before = select(lefts[2u * r + slot / 4u][slot % 4u], 0u, i % count == 0u);
                    lefts[2u * r + slot / 4u][slot % 4u] = before | (bits << (i % count * 16u));
                }
            }
        }
    }
}

fn left_of(r: u32, i: u32) -> f32 {
    let eight = unpack(LHS_DTYPE, lefts[2u * r], lefts[2u * r + 1u]);
    return bitcast<f32>(select(eight.low[i % 4u], eight.high[i % 4u], i > 3u));
}

// Where load j of a block lies, from the lane's first k and column. `dense`: it is a Word along columns.
fn k_of(j: u32, dense: bool) -> u32 {
    return select(0u, j * BLOCK_K / 8u, dense);
}

fn col_of(j: u32, dense: bool) -> u32 {
    return select(j / 4u * NEXT_FOUR + j % 4u, select(j % 2u * NEXT_FOUR, 0u, WIDE), dense);
}

// A Word; scalar, an element as 32 bits.
fn rhs_word(gated: bool, at: u32) -> vec4<u32> {
    let index = select(at / per_word(RHS_DTYPE), at, VECTOR);
    var word: vec4<u32>;
    if gated {
        word = from_word(gate[index]);
    } else {
        word = from_word(rhs[index]);
    }
    if VECTOR {
        return word;
    }
    return vec4<u32>(element_of(RHS_DTYPE, word, at % per_word(RHS_DTYPE)), 0u, 0u, 0u);
}

fn eight_of(word: vec4<u32>) -> Eight {
    if VECTOR {
        return unpack(RHS_DTYPE, word, word);
    }
    return Eight(word, word);
}

// One k of Words along columns, which has one or two of them.
fn multiply_columns(top: u32, i: u32) {
    let eight = eight_of(words[i * (8u / BLOCK_K)]);
    let high = select(words[i * (8u / BLOCK_K) + 1u - u32(WIDE)], eight.high, WIDE);
    for (var r = 0u; r < TOGETHER; r++) {
        let left = left_of(r, i);
        sums[2u * (top + r)] += left * bitcast<vec4<f32>>(eight.low);
        sums[2u * (top + r) + 1u] += left * bitcast<vec4<f32>>(high);
    }
}

// Four k of four columns of Words along k, one a column: fours.
fn multiply_k(top: u32, half: u32, four: u32) {
    let a = eight_of(words[half * 4u]);
    let b = eight_of(words[half * 4u + 1u]);
    let d = eight_of(words[half * 4u + 2u]);
    let e = eight_of(words[half * 4u + 3u]);
    for (var i = 0u; i < min(BLOCK_K, 4u); i++) {
        let low = vec4<u32>(a.low[i], b.low[i], d.low[i], e.low[i]);
        let high = vec4<u32>(a.high[i], b.high[i], d.high[i], e.high[i]);
        let right = bitcast<vec4<f32>>(select(low, high, four == 1u));
        for (var r = 0u; r < TOGETHER; r++) {
            sums[2u * (top + r) + half] += left_of(r, four * 4u + i) * right;
        }
    }
}

fn multiply(top: u32, dense: bool) {
    if dense {
        multiply_columns(top, 0u);
        multiply_columns(top, 1u);
        multiply_columns(top, 2u);
        multiply_columns(top, 3u);
        if WIDE {
            multiply_columns(top, 4u);
            multiply_columns(top, 5u);
            multiply_columns(top, 6u);
            multiply_columns(top, 7u);
        }
    } else {
        multiply_k(top, 0u, 0u);
        multiply_k(top, 1u, 0u);
        if WIDE {
            multiply_k(top, 0u, 1u);
            multiply_k(top, 1u, 1u);
        }
    }
}

// Of the `len` parts of an output, four that lie a quarter apart.
fn fold(number: u32, len: u32) -> vec4<f32> {
    let quarter = len / 4u;
    let at = number / quarter * len + number % quarter;
    return (parts[at] + parts[at + quarter]) + (parts[at + 2u * quarter] + parts[at + 3u * quarter]);
}

// The sums of two rows to a quarter of them, which the second fold makes a sixteenth. By calls, not in a loop: an index that varies would put
// all sums in memory (on an H100, a fifth of the speed).
fn add_round(round: u32, lane: u32, eight: u32, lane_k: u32) {
    if round >= ROUNDS {
        return;
    }
    for (var i = 0u; i < PARTS / THREADS; i++) {
        parts[(i * EIGHTS + eight) * LANES_K + lane_k] = sums[round * (PARTS / THREADS) + i];
    }
    workgroupBarrier();
    if lane < PARTS / 4u {
        quarters[round] = fold(lane, LANES_K);
    }
    workgroupBarrier();
}

// The rest of it, after two folds.
fn total(row: u32, four: u32, product: u32) -> vec4<f32> {
    let half = select(four / LANES_N, four % 2u, WIDE);
    let eight = select(four % LANES_N, four / 2u, WIDE) + product * LANES_N;
    let at = ((2u * row + half) * EIGHTS + eight) * (LANES_K / 16u);
    var sum = parts[at];
    for (var i = 1u; i < LANES_K / 16u; i++) {
        sum += parts[at + i];
    }
    return sum;
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
    let origin = number % params.tiles_n * TILE_N;
    let split = number / params.tiles_n % params.splits;
    var bases = bases_of(number / params.tiles_n / params.splits);
    bases.out += split * params.split_stride;
    let first = split * params.chunk;
    let end = min(params.k, first + params.chunk);

    let columns = (params.along & 2u) != 0u;
    let dense = VECTOR && columns;
    let product = lane / (LANES_N * LANES_K);
    let gated = GATED == 1u && product == 1u;
    let index = lane % (LANES_N * LANES_K);
    let lane_n = select(index / LANES_K, index % LANES_N, columns);
    let lane_k = select(index % LANES_K, index / LANES_N, columns);

    let base = select(bases.rhs, bases.gate, gated);
    let row_stride = select(params.rhs_row, params.gate_row, gated);
    let col_stride = select(params.rhs_col, params.gate_col, gated);
    let unit = select(1u, per_word(RHS_DTYPE), VECTOR); // `at` counts Words; scalar, elements
    let begin = first + lane_k * BLOCK_K;
    var at: array<u32, 8>;
    for (var j = 0u; j < 8u; j++) {
        // Columns past the last are read again, and never stored.
        let col = min(origin + lane_n * NEXT_LANE + col_of(j, dense), params.n - 1u);
        at[j] = (base + (begin + k_of(j, dense)) * row_stride + col * col_stride) / unit;
    }
    let step = LANES_K * BLOCK_K * row_stride / unit;
    for (var k = begin; k < end; k += LANES_K * BLOCK_K) {
        // The first k is inside. What is past the end counts as zero; the first is read in its place.
        if gated {
            for (var j = 0u; j < 8u; j++) {
                words[j] = rhs_word(true, select(at[0], at[j], k + k_of(j, dense) < end));
            }
        } else {
            for (var j = 0u; j < 8u; j++) {
                words[j] = rhs_word(false, select(at[0], at[j], k + k_of(j, dense) < end));
            }
        }
        if k + BLOCK_K > end {
            for (var j = 0u; j < 8u; j++) {
                words[j] = select(vec4<u32>(0u), words[j], k + k_of(j, dense) < end);
            }
        }
        read_lhs(bases.lhs, 0u, k, end);
        multiply(0u, dense);
        if ROWS > TOGETHER {
            read_lhs(bases.lhs, TOGETHER, k, end);
            multiply(TOGETHER, dense);
        }
        for (var j = 0u; j < 8u; j++) {
            at[j] += step;
        }
    }

    add_round(0u, lane, product * LANES_N + lane_n, lane_k);
    add_round(1u, lane, product * LANES_N + lane_n, lane_k);
    add_round(2u, lane, product * LANES_N + lane_n, lane_k);
    add_round(3u, lane, product * LANES_N + lane_n, lane_k);
    if lane < PARTS / 4u {
        for (var round = 0u; round < ROUNDS; round++) {
            parts[round * (PARTS / 4u) + lane] = quarters[round];
        }
    }
    workgroupBarrier();
    var sixteenth = vec4<f32>(0.0);
    if lane < ROUNDS * PARTS / 16u {
        sixteenth = fold(lane, LANES_K / 4u);
    }
    workgroupBarrier();
    if lane < ROUNDS * PARTS / 16u {
        parts[lane] = sixteenth;
    }
    workgroupBarrier();

    let row = lane / LANES_N;
    let eight = lane % LANES_N;
    let col = origin + eight * 8u;
    if row < min(ROWS, params.m) && col < params.n {
        let low = finish(bases, row, col, total(row, eight * 2u, 0u), total(row, eight * 2u, GATED));
        let high = finish(bases, row, col + 4u, total(row, eight * 2u + 1u, 0u), total(row, eight * 2u + 1u, GATED));
        store(bases.out, row, col, low, high);
    }
}
