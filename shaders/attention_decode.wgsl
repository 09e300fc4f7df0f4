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

// Of four keys: each lane's products of each row, then each part's. At the end each slot's results, then its maxima and sums.
var<workgroup> tile: array<vec4<f32>, SUMS_AT + SLOTS * ROWS * PARTS>;

var<private> queries: array<vec4<f32>, 2u * ROWS>;
var<private> outs: array<vec4<f32>, 2u * ROWS>;
var<private> tops: array<f32, ROWS>;
var<private> sums: array<f32, ROWS>;

fn dot_eight(left: vec4<f32>, left_high: vec4<f32>, right: Eight) -> f32 {
    let low = left * bitcast<vec4<f32>>(right.low);
    let all = low + left_high * bitcast<vec4<f32>>(right.high);
    return (all.x + all.y) + (all.z + all.w);
}

fn add_eight(r: u32, p: f32, right: Eight) {
    outs[2u * r] += p * bitcast<vec4<f32>>(right.low);
    outs[2u * r + 1u] += p * bitcast<vec4<f32>>(right.high);
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

    for (var r = 0u; r < ROWS; r++) {
        let row = min(first_row + r, last_row);
        let own = head_of(batch, kv_head * params.heads_per_kv + row / params.seq_q);
        // What a sink weighs, once.
        let counts = split == 0u && slot == 0u && own.sink > FLOOR;
        tops[r] = select(FLOOR, own.sink, counts);
        sums[r] = select(0.0, 1.0, counts);
        if column < params.head_dim {
            let eight = q_eight(q_row(own, row % params.seq_q), column);
            queries[2u * r] = bitcast<vec4<f32>>(eight.low);
            queries[2u * r + 1u] = bitcast<vec4<f32>>(eight.high);
        }
    }

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
        for (var r = 0u; r < ROWS; r++) {
            let low = queries[2u * r];
            let high = queries[2u * r + 1u];
            tile[(slot * ROWS + r) * D_LANES + lane % D_LANES] =
                vec4<f32>(dot_eight(low, high, a), dot_eight(low, high, b), dot_eight(low, high, c), dot_eight(low, high, d));
        }
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
        let seen = first >= inner.x && first + SLOTS * KEYS <= inner.y && first + SLOTS * KEYS <= end;
        for (var r = 0u; r < ROWS; r++) {
            let at = SUMS_AT + (slot * ROWS + r) * PARTS;
            var scores = tile[at];
            for (var i = 1u; i < PARTS; i++) {
                scores += tile[at + i];
            }
            let row = min(first_row + r, last_row);
            let query = row % params.seq_q;
            let own = head_of(batch, kv_head * params.heads_per_kv + row / params.seq_q);
            scores = scores_of(own, scores, query, key);
            if !seen {
                var bounds = bounds_of(head, query, key);
                bounds.z = min(bounds.z, i32(end) - i32(key));
                scores = seen_of(scores, bounds, 0u);
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
                p = drop(own, p, query, key);
            }
            add_eight(r, p.x, e);
            add_eight(r, p.y, f);
            add_eight(r, p.z, g);
            add_eight(r, p.w, h);
        }
    }

    // Join the slots: their maxima and sums first.
    workgroupBarrier();
    if lane % D_LANES == 0u {
        for (var r = 0u; r < ROWS; r++) {
            tile[slot * ROWS + r] = vec4<f32>(tops[r], sums[r], 0.0, 0.0);
        }
    }
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) {
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
        let row = first_row + r;
        if (params.has & HAS_LSE) != 0u && lane == 0u && row <= last_row {
            let own = head_of(batch, kv_head * params.heads_per_kv + row / params.seq_q);
            lse[own.lse + row % params.seq_q * params.lse_strides.z + split * params.lse_strides.w] = log_sum(top, sum);
        }
    }
    for (var round = 0u; round < ROWS / JOINED; round++) {
        workgroupBarrier();
        for (var j = 0u; j < JOINED; j++) {
            var low = outs[2u * j];
            var high = outs[2u * j + 1u];
            for (var i = 1u; i < ROWS / JOINED; i++) {
                low = select(low, outs[2u * (i * JOINED + j)], i == round);
                high = select(high, outs[2u * (i * JOINED + j) + 1u], i == round);
            }
            tile[2u * j * THREADS + lane] = low;
            tile[(2u * j + 1u) * THREADS + lane] = high;
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
