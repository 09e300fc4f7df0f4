// Attention by tiles, for kernels that differ in how the 16 lanes of a row join their maxima, once a step: each has its own `join_highs`, which leaves in
// `parts` the highest of what a row's lanes had there. FlashAttention-2 (Dao 2023), so no score leaves the group.
// One workgroup makes BLOCK_Q queries of one head, going over the keys 64 at a time, and only over those that some of them see. Its lanes are a
// grid of BLOCK_Q / ROWS x 16: a lane holds the products of ROWS queries, every LANES_M-th, and 4 neighbouring keys, and V_MAX / 16 columns of
// their output, in registers. q and k come in 16 columns at a time, v V_KEYS keys; weights go through workgroup memory. A lane sums its own weights,
// until the end.

const BLOCK_Q: u32 = 32u;
const ROWS: u32 = 8u;
// Columns of v that the registers hold: at least v_dim.
const V_MAX: u32 = 64u;
const V_KEYS: u32 = 16u;

const BLOCK_K: u32 = 64u;
const LANES_N: u32 = 16u;
const LANES_M: u32 = BLOCK_Q / ROWS;
const THREADS: u32 = LANES_M * LANES_N;
const V_VECS: u32 = V_MAX / 64u; // vec4s of an output row that a lane holds
const V_ROW: u32 = V_MAX / 4u;
const V_EIGHTS: u32 = V_MAX / 8u;
// Eights that are staged at a time, and how many a lane brings in.
const Q_EIGHTS: u32 = BLOCK_Q * 2u;
const Q_ROUNDS: u32 = (Q_EIGHTS + THREADS - 1u) / THREADS;
const K_ROUNDS: u32 = BLOCK_K * 2u / THREADS;
const V_ROUNDS: u32 = V_KEYS * V_EIGHTS / THREADS;
// Rows of the tiles, in vec4s: one more than they hold, so that lanes read different banks.
const CHUNK_ROW: u32 = 5u;
const P_ROW: u32 = 17u;
const K_AT: u32 = BLOCK_Q * CHUNK_ROW;
// q and k, then partial results of four rows each, then the weights; beside them v, and before it partial results too.
const V_AT: u32 = max(K_AT + BLOCK_K * CHUNK_ROW, BLOCK_Q * P_ROW);

// What little there is of it is what keeps few waves waiting: three of 64 lanes a SIMD of RDNA, of 21.5 KiB for 64 queries.
var<workgroup> tile: array<vec4<f32>, V_AT + max(V_KEYS * V_ROW, BLOCK_Q)>;

// Indexed by constants alone, row by row in calls: an index that varies would put them in memory.
var<private> scores: array<vec4<f32>, ROWS>;
var<private> outs: array<vec4<f32>, ROWS * V_VECS>;
var<private> tops: array<f32, ROWS>;
var<private> sums: array<f32, ROWS>;
// A lane's of each row, maxima or sums, and then what all lanes of the row have.
var<private> parts: array<f32, 8>;
// Where a lane's eights of q and k come from, and how far from a step's first key those of k and v.
var<private> q_from: array<u32, Q_ROUNDS>;
var<private> k_from: array<u32, K_ROUNDS>;
var<private> k_off: array<u32, K_ROUNDS>;
var<private> v_off: array<u32, V_ROUNDS>;

fn start_row(r: u32, sink: f32, first: bool) {
    if r < ROWS {
        tops[r] = sink;
        // What a sink weighs, once.
        sums[r] = select(0.0, 1.0, first && sink > FLOOR);
    }
}

fn clear_row(r: u32) {
    if r < ROWS {
        scores[r] = vec4<f32>(0.0);
    }
}

fn multiply_row(r: u32, at: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) {
    if r < ROWS {
        let left = tile[at + r * LANES_M * CHUNK_ROW];
        var sum = scores[r];
        sum += left.x * vec4<f32>(a.x, b.x, c.x, d.x);
        sum += left.y * vec4<f32>(a.y, b.y, c.y, d.y);
        sum += left.z * vec4<f32>(a.z, b.z, c.z, d.z);
        sum += left.w * vec4<f32>(a.w, b.w, c.w, d.w);
        scores[r] = sum;
    }
}

// Four columns of q and k. `q_at`, `k_at`: a lane's first row in the tiles.
fn multiply(i: u32, q_at: u32, k_at: u32) {
    let a = tile[k_at + i];
    let b = tile[k_at + LANES_N * CHUNK_ROW + i];
    let c = tile[k_at + 2u * LANES_N * CHUNK_ROW + i];
    let d = tile[k_at + 3u * LANES_N * CHUNK_ROW + i];
    multiply_row(0u, q_at + i, a, b, c, d);
    multiply_row(1u, q_at + i, a, b, c, d);
    multiply_row(2u, q_at + i, a, b, c, d);
    multiply_row(3u, q_at + i, a, b, c, d);
    multiply_row(4u, q_at + i, a, b, c, d);
    multiply_row(5u, q_at + i, a, b, c, d);
    multiply_row(6u, q_at + i, a, b, c, d);
    multiply_row(7u, q_at + i, a, b, c, d);
}

fn save_row(r: u32, at: u32) {
    if r < ROWS {
        tile[at + r * LANES_M * P_ROW] = scores[r];
    }
}

fn load_row(r: u32, at: u32) {
    if r < ROWS {
        scores[r] = tile[at + r * LANES_M * P_ROW];
    }
}

fn hide_row(r: u32, bounds: vec3<i32>) {
    if r < ROWS {
        scores[r] = seen_of(scores[r], bounds, r * LANES_M);
    }
}

fn highest_of_row(r: u32) {
    if r < ROWS {
        // Or what was highest before, which the row's lanes have in common. Products that overflow are the highest there are.
        parts[r] = max(max(max(scores[r].x, scores[r].y), scores[r].z), max(scores[r].w, tops[r]));
    }
}

// Scores to weights, which go into the tile. What was summed so far was relative to the old maximum.
fn weigh_row(r: u32, at: u32) {
    if r < ROWS {
        let top = min(parts[r], -LOWEST);
        let shrink = weight(tops[r], top);
        tops[r] = top;
        for (var j = 0u; j < V_VECS; j++) {
            outs[r * V_VECS + j] *= shrink;
        }
        let p = weights(scores[r], top);
        sums[r] = sums[r] * shrink + ((p.x + p.y) + (p.z + p.w));
        tile[at + r * LANES_M * P_ROW] = p;
    }
}

fn gather_row(r: u32, j: u32, p_at: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) {
    if r < ROWS {
        let p = tile[p_at + r * LANES_M * P_ROW];
        var sum = outs[r * V_VECS + j];
        sum += p.x * a;
        sum += p.y * b;
        sum += p.z * c;
        sum += p.w * d;
        outs[r * V_VECS + j] = sum;
    }
}

// Four keys of the weights and of v, the i-th four of those staged. `p_at`: a lane's first row of the weights, from the first of those keys on.
fn gather(i: u32, p_at: u32, lane_n: u32) {
    if 4u * i < V_KEYS {
        for (var j = 0u; j < V_VECS; j++) {
            let at = V_AT + lane_n + 4u * i * V_ROW + j * LANES_N;
            let a = tile[at];
            let b = tile[at + V_ROW];
            let c = tile[at + 2u * V_ROW];
            let d = tile[at + 3u * V_ROW];
            gather_row(0u, j, p_at + i, a, b, c, d);
            gather_row(1u, j, p_at + i, a, b, c, d);
            gather_row(2u, j, p_at + i, a, b, c, d);
            gather_row(3u, j, p_at + i, a, b, c, d);
            gather_row(4u, j, p_at + i, a, b, c, d);
            gather_row(5u, j, p_at + i, a, b, c, d);
            gather_row(6u, j, p_at + i, a, b, c, d);
            gather_row(7u, j, p_at + i, a, b, c, d);
        }
    }
}

fn sum_of_row(r: u32) {
    if r < ROWS {
        parts[r] = sums[r];
    }
}

fn log_row(r: u32, head: Head, row: u32) {
    if r < ROWS && row + r * LANES_M < params.seq_q {
        lse[head.lse + (row + r * LANES_M) * params.lse_strides.z] = log_sum(tops[r % ROWS], parts[r]);
    }
}

// 64 columns of a row, into the place of the weights. The sum is more than a half if any key was visible.
fn place_row(r: u32, j: u32, at: u32) {
    if r < ROWS {
        let total = parts[r];
        var value = outs[r * V_VECS];
        for (var i = 1u; i < V_VECS; i++) {
            value = select(value, outs[r * V_VECS + i], i == j);
        }
        tile[at + r * LANES_M * P_ROW] = value * select(0.0, 1.0 / total, total > 0.0);
    }
}

fn put_eight(at: u32, eight: Eight) {
    tile[at] = bitcast<vec4<f32>>(eight.low);
    tile[at + 1u] = bitcast<vec4<f32>>(eight.high);
}

// What a lane brings in of q and k, to the same places of both.
fn bring(lane: u32, to: u32, column: u32) {
    for (var round = 0u; round < Q_ROUNDS; round++) {
        if Q_EIGHTS % THREADS == 0u || lane + round * THREADS < Q_EIGHTS {
            put_eight(to + round * (THREADS / 2u * CHUNK_ROW), q_eight(q_from[round], column));
        }
    }
    for (var round = 0u; round < K_ROUNDS; round++) {
        put_eight(K_AT + to + round * (THREADS / 2u * CHUNK_ROW), k_eight(k_from[round], column));
    }
}

// Partial results in the place of the weights, four rows a vec4.
fn put(lane_m: u32, lane_n: u32) {
    tile[lane_m * LANES_N + lane_n] = vec4<f32>(parts[0], parts[1], parts[2], parts[3]);
    if ROWS == 8u {
        tile[(LANES_M + lane_m) * LANES_N + lane_n] = vec4<f32>(parts[4], parts[5], parts[6], parts[7]);
    }
}

fn take(low: vec4<f32>, high: vec4<f32>) {
    parts[0] = low.x;
    parts[1] = low.y;
    parts[2] = low.z;
    parts[3] = low.w;
    parts[4] = high.x;
    parts[5] = high.y;
    parts[6] = high.z;
    parts[7] = high.w;
}

fn sum_of_four(at: u32) -> vec4<f32> {
    return (tile[at] + tile[at + 1u]) + (tile[at + 2u] + tile[at + 3u]);
}

// The sums of a row's lanes, in two steps of four.
fn join_sums(lane: u32, lane_m: u32, lane_n: u32) {
    put(lane_m, lane_n);
    workgroupBarrier();
    if lane < BLOCK_Q {
        tile[V_AT + lane] = sum_of_four(4u * lane);
    }
    workgroupBarrier();
    let at = V_AT + lane_m * 4u;
    take(sum_of_four(at), sum_of_four(at + select(0u, LANES_M * 4u, ROWS == 8u)));
}

// A workgroup's part. `side`: lanes of a row that need no barrier to see each other's writes.
fn attend(number: u32, lane: u32, side: u32) {
    let first_row = number % params.blocks_q * BLOCK_Q;
    let head = head_of(number / params.blocks_q / params.heads, number / params.blocks_q % params.heads);
    let lane_m = lane / LANES_N;
    let lane_n = lane % LANES_N;
    start_row(0u, head.sink, lane_n == 0u);
    start_row(1u, head.sink, lane_n == 0u);
    start_row(2u, head.sink, lane_n == 0u);
    start_row(3u, head.sink, lane_n == 0u);
    start_row(4u, head.sink, lane_n == 0u);
    start_row(5u, head.sink, lane_n == 0u);
    start_row(6u, head.sink, lane_n == 0u);
    start_row(7u, head.sink, lane_n == 0u);

    // What a lane brings in: eights of q and k, every other one the second half of 16 columns.
    let half = lane % 2u;
    for (var round = 0u; round < Q_ROUNDS; round++) {
        q_from[round] = q_row(head, first_row + (lane + round * THREADS) / 2u) + select(0u, half * 8u / per_word(Q_DTYPE), VECTOR);
    }
    let to = lane / 2u * CHUNK_ROW + half * 2u;
    for (var round = 0u; round < K_ROUNDS; round++) {
        let row = (lane + round * THREADS) / 2u;
        // Four neighbours, which are a lane's in the product, come to lie LANES_N rows apart.
        k_off[round] = k_ahead(row % LANES_N * 4u + row / LANES_N);
    }
    for (var round = 0u; round < V_ROUNDS; round++) {
        v_off[round] = v_ahead((lane + round * THREADS) / V_EIGHTS);
    }
    let q_lane = lane_m * CHUNK_ROW;
    let k_lane = K_AT + lane_n * CHUNK_ROW;
    let p_lane = lane_m * P_ROW;
    // Vector: eight columns are left when all sixteens are done.
    let whole = select(params.head_dim, params.head_dim / 16u * 16u, VECTOR);

    // Keys that all or none of the queries see, by their first and their last.
    let last_row = min(first_row + BLOCK_Q, params.seq_q) - 1u;
    let keys = keys_of_rows(head, first_row, last_row);
    let inner = vec2<u32>(keys_of(head, last_row).x, keys_of(head, first_row).y);
    for (var first_key = keys.x / BLOCK_K * BLOCK_K; first_key < keys.y; first_key += BLOCK_K) {
        clear_row(0u);
        clear_row(1u);
        clear_row(2u);
        clear_row(3u);
        clear_row(4u);
        clear_row(5u);
        clear_row(6u);
        clear_row(7u);
        // Keys past the last are read again: they weigh 0.
        for (var round = 0u; round < K_ROUNDS; round++) {
            k_from[round] = k_near(head, first_key, k_off[round], keys.y - 1u) + select(0u, half * 8u / per_word(K_DTYPE), VECTOR);
        }
        for (var d = 0u; d < whole; d += 16u) {
            bring(lane, to, d + select(half * 8u, 0u, VECTOR));
            workgroupBarrier();
            multiply(0u, q_lane, k_lane);
            multiply(1u, q_lane, k_lane);
            multiply(2u, q_lane, k_lane);
            multiply(3u, q_lane, k_lane);
            workgroupBarrier();
        }
        if whole < params.head_dim {
            if half == 0u {
                bring(lane, to, whole);
            }
            workgroupBarrier();
            multiply(0u, q_lane, k_lane);
            multiply(1u, q_lane, k_lane);
            workgroupBarrier();
        }

        let key = first_key + 4u * lane_n;
        let seen = first_key >= inner.x && first_key + BLOCK_K <= inner.y;
        if OPTIONS == 1u {
            // Through a lane's own places in the tile, whose index may vary: written out for each row this would be long.
            save_row(0u, p_lane + lane_n);
            save_row(1u, p_lane + lane_n);
            save_row(2u, p_lane + lane_n);
            save_row(3u, p_lane + lane_n);
            save_row(4u, p_lane + lane_n);
            save_row(5u, p_lane + lane_n);
            save_row(6u, p_lane + lane_n);
            save_row(7u, p_lane + lane_n);
            for (var r = 0u; r < ROWS; r++) {
                let at = p_lane + lane_n + r * LANES_M * P_ROW;
                tile[at] = scores_of(head, tile[at], first_row + r * LANES_M + lane_m, key);
            }
            load_row(0u, p_lane + lane_n);
            load_row(1u, p_lane + lane_n);
            load_row(2u, p_lane + lane_n);
            load_row(3u, p_lane + lane_n);
            load_row(4u, p_lane + lane_n);
            load_row(5u, p_lane + lane_n);
            load_row(6u, p_lane + lane_n);
            load_row(7u, p_lane + lane_n);
        }
        if !seen {
            let bounds = bounds_of(head, first_row + lane_m, key);
            hide_row(0u, bounds);
            hide_row(1u, bounds);
            hide_row(2u, bounds);
            hide_row(3u, bounds);
            hide_row(4u, bounds);
            hide_row(5u, bounds);
            hide_row(6u, bounds);
            hide_row(7u, bounds);
        }
        highest_of_row(0u);
        highest_of_row(1u);
        highest_of_row(2u);
        highest_of_row(3u);
        highest_of_row(4u);
        highest_of_row(5u);
        highest_of_row(6u);
        highest_of_row(7u);
        join_highs(lane, lane_m, lane_n, side);
        weigh_row(0u, p_lane + lane_n);
        weigh_row(1u, p_lane + lane_n);
        weigh_row(2u, p_lane + lane_n);
        weigh_row(3u, p_lane + lane_n);
        weigh_row(4u, p_lane + lane_n);
        weigh_row(5u, p_lane + lane_n);
        weigh_row(6u, p_lane + lane_n);
        weigh_row(7u, p_lane + lane_n);
        if OPTIONS == 1u && (params.has & HAS_DROPOUT) != 0u {
            for (var r = 0u; r < ROWS; r++) {
                let at = p_lane + lane_n + r * LANES_M * P_ROW;
                tile[at] = drop(head, tile[at], first_row + r * LANES_M + lane_m, key);
            }
        }
        // Weights are read by the lanes of their row alone, and partial maxima lie where v goes.
        if side < LANES_N {
            workgroupBarrier();
        }

        for (var first = 0u; first < BLOCK_K; first += V_KEYS) {
            for (var round = 0u; round < V_ROUNDS; round++) {
                let e = lane + round * THREADS;
                let row = v_near(head, first_key + first, v_off[round], keys.y - 1u);
                let eight = v_eight(row, min(e % V_EIGHTS * 8u, select(params.v_dim, params.v_dim - 8u, VECTOR)));
                put_eight(V_AT + 2u * e, eight);
            }
            workgroupBarrier();
            gather(0u, p_lane + first / 4u, lane_n);
            gather(1u, p_lane + first / 4u, lane_n);
            gather(2u, p_lane + first / 4u, lane_n);
            gather(3u, p_lane + first / 4u, lane_n);
            workgroupBarrier();
        }
    }

    sum_of_row(0u);
    sum_of_row(1u);
    sum_of_row(2u);
    sum_of_row(3u);
    sum_of_row(4u);
    sum_of_row(5u);
    sum_of_row(6u);
    sum_of_row(7u);
    join_sums(lane, lane_m, lane_n);
    if (params.has & HAS_LSE) != 0u && lane_n == 0u {
        log_row(0u, head, first_row + lane_m);
        log_row(1u, head, first_row + lane_m);
        log_row(2u, head, first_row + lane_m);
        log_row(3u, head, first_row + lane_m);
        log_row(4u, head, first_row + lane_m);
        log_row(5u, head, first_row + lane_m);
        log_row(6u, head, first_row + lane_m);
        log_row(7u, head, first_row + lane_m);
    }

    // Out, 64 columns at a time, through the place of the weights, so that a lane gets eights.
    for (var j = 0u; j < V_VECS; j++) {
        place_row(0u, j, p_lane + lane_n);
        place_row(1u, j, p_lane + lane_n);
        place_row(2u, j, p_lane + lane_n);
        place_row(3u, j, p_lane + lane_n);
        place_row(4u, j, p_lane + lane_n);
        place_row(5u, j, p_lane + lane_n);
        place_row(6u, j, p_lane + lane_n);
        place_row(7u, j, p_lane + lane_n);
        workgroupBarrier();
        for (var e = lane; e < BLOCK_Q * 8u; e += THREADS) {
            let at = e / 8u * P_ROW + e % 8u * 2u;
            let eight = Eight(bitcast<vec4<u32>>(tile[at]), bitcast<vec4<u32>>(tile[at + 1u]));
            store_eight(head.out, first_row + e / 8u, j * 64u + e % 8u * 8u, eight);
        }
        workgroupBarrier();
    }
}
