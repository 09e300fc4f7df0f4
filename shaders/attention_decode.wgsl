// out = softmax(scale * q * k^T + bias, masked) * v for few queries, as in decoding: bound by reading k and v, once.
// The queries of all heads that share keys are rows; one workgroup makes ROWS of them over one part of the keys, each slot of D_LANES lanes
// 4 of its keys at a time, a lane eight columns of q, k, v and out. A slot has maxima and sums of its own, joined at the end; more than one part is
// joined by attention_reduce.
// Traffic: k and v are read once for ROWS rows.

const ROWS: u32 = 8u;
// At least head_dim and v_dim.
const D_MAX: u32 = 128u;
const THREADS: u32 = 64u;

const D_LANES: u32 = D_MAX / 8u;
const SLOTS: u32 = THREADS / D_LANES;
const KEYS: u32 = 4u;
// Lanes that add the products of a row, and what each of them adds.
const PARTS: u32 = max(D_LANES / ROWS, 1u);
const ADDED: u32 = D_LANES / PARTS;
// Rows of the result that are joined at a time.
const JOINED: u32 = min(ROWS, 4u);
const SUMS_AT: u32 = THREADS * max(ROWS, 2u * JOINED);
const KEPT_AT: u32 = SUMS_AT + SLOTS * ROWS * PARTS;

// Of four keys: each lane's products of each row, then each part's; what dropout leaves of a row's weights. At the end each slot's maxima and sums,
// then its results.
var<workgroup> tile: array<vec4<f32>, KEPT_AT + SLOTS * ROWS * OPTIONS>;

// Indexed by constants alone, row by row in calls: an index that varies would put them in memory.
var<private> queries: array<vec4<f32>, 2u * ROWS>;
var<private> outs: array<vec4<f32>, 2u * ROWS>;
var<private> tops: array<f32, ROWS>;
var<private> sums: array<f32, ROWS>;

fn dot_eight(left: vec4<f32>, left_high: vec4<f32>, right: Eight) -> f32 {
    let low = left * bitcast<vec4<f32>>(right.low);
    let all = low + left_high * bitcast<vec4<f32>>(right.high);
    return (all.x + all.y) + (all.z + all.w);
}

// The head of a row.
fn head_of_row(batch: u32, kv_head: u32, row: u32) -> Head {
    return head_of(batch, kv_head * params.heads_per_kv + row / params.seq_q);
}

fn start_row(r: u32, batch: u32, kv_head: u32, first_row: u32, last_row: u32, column: u32, first: bool) {
    if r < ROWS {
        let row = min(first_row + r, last_row);
        let head = head_of_row(batch, kv_head, row);
        // What a sink weighs, once.
        let counts = first && head.sink > FLOOR;
        tops[r] = select(FLOOR, head.sink, counts);
        sums[r] = select(0.0, 1.0, counts);
        if column < params.head_dim {
            let eight = q_eight(q_row(head, row % params.seq_q), column);
            queries[2u * r] = bitcast<vec4<f32>>(eight.low);
            queries[2u * r + 1u] = bitcast<vec4<f32>>(eight.high);
        }
    }
}

fn multiply_row(r: u32, at: u32, a: Eight, b: Eight, c: Eight, d: Eight) {
    if r < ROWS {
        let low = queries[2u * r];
        let high = queries[2u * r + 1u];
        tile[at + r * D_LANES] = vec4<f32>(dot_eight(low, high, a), dot_eight(low, high, b), dot_eight(low, high, c), dot_eight(low, high, d));
    }
}

// The sum of a row's parts.
fn added(at: u32) -> vec4<f32> {
    var sum = tile[at];
    for (var i = 1u; i < PARTS; i++) {
        sum += tile[at + i];
    }
    return sum;
}

fn add_eight(r: u32, p: f32, right: Eight) {
    outs[2u * r] += p * bitcast<vec4<f32>>(right.low);
    outs[2u * r + 1u] += p * bitcast<vec4<f32>>(right.high);
}

fn weigh_row(r: u32, slot: u32, query: u32, seen: bool, bounds: vec3<i32>, a: Eight, b: Eight, c: Eight, d: Eight) {
    if r < ROWS {
        let at = SUMS_AT + (slot * ROWS + r) * PARTS;
        var scores = tile[at];
        if OPTIONS == 0u {
            scores = added(at);
        }
        if !seen {
            scores = seen_of(scores, bounds + vec3<i32>(i32(query), i32(query), 0), 0u);
        }
        let top = max(tops[r], min(max(max(scores.x, scores.y), max(scores.z, scores.w)), -LOWEST));
        // What was summed so far was relative to the old maximum.
        let shrink = weight(tops[r], top);
        tops[r] = top;
        outs[2u * r] *= shrink;
        outs[2u * r + 1u] *= shrink;
        var p = weights(scores, top);
        sums[r] = sums[r] * shrink + ((p.x + p.y) + (p.z + p.w));
        if OPTIONS == 1u && (params.has & HAS_DROPOUT) != 0u {
            p *= tile[KEPT_AT + (slot * ROWS + r) * OPTIONS];
        }
        add_eight(r, p.x, a);
        add_eight(r, p.y, b);
        add_eight(r, p.z, c);
        add_eight(r, p.w, d);
    }
}

fn put_sums(r: u32, slot: u32) {
    if r < ROWS {
        tile[slot * ROWS + r] = vec4<f32>(tops[r], sums[r], 0.0, 0.0);
    }
}

// The slots' sums of a row as one, by which a lane's results are divided.
fn join_row(r: u32, batch: u32, kv_head: u32, row: u32, last_row: u32, split: u32, writes: bool) {
    if r < ROWS {
        var top = tile[r].x;
        for (var s = 1u; s < SLOTS; s++) {
            top = max(top, tile[s * ROWS + r].x);
        }
        var sum = 0.0;
        for (var s = 0u; s < SLOTS; s++) {
            sum += tile[s * ROWS + r].y * weight(tile[s * ROWS + r].x, top);
        }
        // More than a half if any key was visible.
        let unit = select(0.0, weight(tops[r], top) / sum, sum > 0.0);
        outs[2u * r] *= unit;
        outs[2u * r + 1u] *= unit;
        if (params.has & HAS_LSE) != 0u && writes && row <= last_row {
            let head = head_of_row(batch, kv_head, row);
            lse[head.lse + row % params.seq_q * params.lse_strides.z + split * params.lse_strides.w] = log_sum(top, sum);
        }
    }
}

fn place_row(j: u32, r: u32, lane: u32) {
    if j < JOINED && r < ROWS {
        tile[2u * j * THREADS + lane] = outs[2u * r];
        tile[(2u * j + 1u) * THREADS + lane] = outs[2u * r + 1u];
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
    let split = number % params.splits;
    let first_row = number / params.splits % params.blocks_q * ROWS;
    let kv_heads = params.heads / params.heads_per_kv;
    let kv_head = number / params.splits / params.blocks_q % kv_heads;
    let batch = number / params.splits / params.blocks_q / kv_heads;
    let last_row = params.heads_per_kv * params.seq_q - 1u;
    // What the heads share.
    let head = head_of(batch, kv_head * params.heads_per_kv);
    let slot = lane / D_LANES;
    let column = lane % D_LANES * 8u;

    start_row(0u, batch, kv_head, first_row, last_row, column, split == 0u && slot == 0u);
    start_row(1u, batch, kv_head, first_row, last_row, column, split == 0u && slot == 0u);
    start_row(2u, batch, kv_head, first_row, last_row, column, split == 0u && slot == 0u);
    start_row(3u, batch, kv_head, first_row, last_row, column, split == 0u && slot == 0u);
    start_row(4u, batch, kv_head, first_row, last_row, column, split == 0u && slot == 0u);
    start_row(5u, batch, kv_head, first_row, last_row, column, split == 0u && slot == 0u);
    start_row(6u, batch, kv_head, first_row, last_row, column, split == 0u && slot == 0u);
    start_row(7u, batch, kv_head, first_row, last_row, column, split == 0u && slot == 0u);

    let keys = keys_of_rows(head, 0u, params.seq_q - 1u);
    let inner = vec2<u32>(keys_of(head, params.seq_q - 1u).x, keys_of(head, 0u).y);
    let start = max(split * params.chunk, keys.x / (SLOTS * KEYS) * (SLOTS * KEYS));
    let end = min(keys.y, split * params.chunk + params.chunk);
    let last_column = select(params.head_dim - 1u, params.head_dim - 8u, VECTOR);
    let last_value = select(params.v_dim - 1u, params.v_dim - 8u, VECTOR);
    for (var first = start; first < end; first += SLOTS * KEYS) {
        // Past the last key it is read again.
        let key = first + slot * KEYS;
        let four = min(key + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(end - 1u));
        let k_column = min(column, last_column);
        let a = k_eight(k_row(head, four.x), k_column);
        let b = k_eight(k_row(head, four.y), k_column);
        let c = k_eight(k_row(head, four.z), k_column);
        let d = k_eight(k_row(head, four.w), k_column);
        let v_column = min(column, last_value);
        let e = v_eight(v_row(head, four.x), v_column);
        let f = v_eight(v_row(head, four.y), v_column);
        let g = v_eight(v_row(head, four.z), v_column);
        let h = v_eight(v_row(head, four.w), v_column);
        let to = slot * ROWS * D_LANES + lane % D_LANES;
        multiply_row(0u, to, a, b, c, d);
        multiply_row(1u, to, a, b, c, d);
        multiply_row(2u, to, a, b, c, d);
        multiply_row(3u, to, a, b, c, d);
        multiply_row(4u, to, a, b, c, d);
        multiply_row(5u, to, a, b, c, d);
        multiply_row(6u, to, a, b, c, d);
        multiply_row(7u, to, a, b, c, d);
        workgroupBarrier();
        if lane % D_LANES < ROWS * PARTS {
            let at = slot * ROWS * D_LANES + lane % D_LANES * ADDED;
            var sum = tile[at];
            for (var i = 1u; i < ADDED; i++) {
                sum += tile[at + i];
            }
            tile[SUMS_AT + slot * ROWS * PARTS + lane % D_LANES] = sum;
        }
        workgroupBarrier();
        if OPTIONS == 1u {
            // A row a lane, whose index may vary: written out for each row this would be long.
            if lane % D_LANES < ROWS {
                let row = min(first_row + lane % D_LANES, last_row);
                let own = head_of_row(batch, kv_head, row);
                let place = slot * ROWS + lane % D_LANES;
                tile[SUMS_AT + place * PARTS] = scores_of(own, added(SUMS_AT + place * PARTS), row % params.seq_q, key);
                if (params.has & HAS_DROPOUT) != 0u {
                    tile[KEPT_AT + place * OPTIONS] = drop(own, vec4<f32>(1.0), row % params.seq_q, key);
                }
            }
            workgroupBarrier();
        }
        let seen = first >= inner.x && first + SLOTS * KEYS <= inner.y && first + SLOTS * KEYS <= end;
        var bounds = bounds_of(head, 0u, key);
        bounds.z = min(bounds.z, i32(end) - i32(key));
        weigh_row(0u, slot, min(first_row + 0u, last_row) % params.seq_q, seen, bounds, e, f, g, h);
        weigh_row(1u, slot, min(first_row + 1u, last_row) % params.seq_q, seen, bounds, e, f, g, h);
        weigh_row(2u, slot, min(first_row + 2u, last_row) % params.seq_q, seen, bounds, e, f, g, h);
        weigh_row(3u, slot, min(first_row + 3u, last_row) % params.seq_q, seen, bounds, e, f, g, h);
        weigh_row(4u, slot, min(first_row + 4u, last_row) % params.seq_q, seen, bounds, e, f, g, h);
        weigh_row(5u, slot, min(first_row + 5u, last_row) % params.seq_q, seen, bounds, e, f, g, h);
        weigh_row(6u, slot, min(first_row + 6u, last_row) % params.seq_q, seen, bounds, e, f, g, h);
        weigh_row(7u, slot, min(first_row + 7u, last_row) % params.seq_q, seen, bounds, e, f, g, h);
    }

    // Join the slots: their maxima and sums first.
    workgroupBarrier();
    if lane % D_LANES == 0u {
        put_sums(0u, slot);
        put_sums(1u, slot);
        put_sums(2u, slot);
        put_sums(3u, slot);
        put_sums(4u, slot);
        put_sums(5u, slot);
        put_sums(6u, slot);
        put_sums(7u, slot);
    }
    workgroupBarrier();
    join_row(0u, batch, kv_head, first_row + 0u, last_row, split, lane == 0u);
    join_row(1u, batch, kv_head, first_row + 1u, last_row, split, lane == 0u);
    join_row(2u, batch, kv_head, first_row + 2u, last_row, split, lane == 0u);
    join_row(3u, batch, kv_head, first_row + 3u, last_row, split, lane == 0u);
    join_row(4u, batch, kv_head, first_row + 4u, last_row, split, lane == 0u);
    join_row(5u, batch, kv_head, first_row + 5u, last_row, split, lane == 0u);
    join_row(6u, batch, kv_head, first_row + 6u, last_row, split, lane == 0u);
    join_row(7u, batch, kv_head, first_row + 7u, last_row, split, lane == 0u);
    for (var round = 0u; round < ROWS / JOINED; round++) {
        workgroupBarrier();
        if round == 0u {
            place_row(0u, 0u, lane);
            place_row(1u, 1u, lane);
            place_row(2u, 2u, lane);
            place_row(3u, 3u, lane);
        } else {
            place_row(0u, 4u, lane);
            place_row(1u, 5u, lane);
            place_row(2u, 6u, lane);
            place_row(3u, 7u, lane);
        }
        workgroupBarrier();
        for (var e = lane; e < JOINED * D_LANES; e += THREADS) {
            let at = e / D_LANES * 2u * THREADS + e % D_LANES;
            var low = tile[at];
            var high = tile[at + THREADS];
            for (var s = 1u; s < SLOTS; s++) {
                low += tile[at + s * D_LANES];
                high += tile[at + THREADS + s * D_LANES];
            }
            let row = first_row + round * JOINED + e / D_LANES;
            if row <= last_row {
                let own = head_of(batch, kv_head * params.heads_per_kv + row / params.seq_q);
                let values = Eight(bitcast<vec4<u32>>(low), bitcast<vec4<u32>>(high));
                store_eight(own.out + split * params.part_stride, row % params.seq_q, e % D_LANES * 8u, values);
            }
        }
    }
}
