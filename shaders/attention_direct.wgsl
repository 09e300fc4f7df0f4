// out = softmax(scale * q * k^T + bias, masked) * v for each batch and head, for adapters that run on the CPU; FlashAttention-2 (Dao 2023).
// One invocation makes QUERIES rows by itself, one workgroup LANES * QUERIES neighbours of one head: no workgroup memory, no barrier. All of its
// lanes are at the same key, so k and v are read by scalar loads, which are cheap there; queries and sums stay in registers and the stack.
// Traffic: k and v are read seq_q / (LANES * QUERIES) times, q once, out written once. Rows without a visible key give zeros.

const LANES: u32 = 8u;
const QUERIES: u32 = 2u;
// At least head_dim and v_dim.
const D_MAX: u32 = 64u;

const BLOCK_Q: u32 = LANES * QUERIES;
const D_EIGHTS: u32 = D_MAX / 8u;

// Of each eight of columns the first and the second four. Loops over them have as many trips as these have elements: such loops compilers
// unroll at any length, and what they leave rolled gathers lane by lane.
var<private> query_low: array<array<vec4<f32>, D_EIGHTS>, QUERIES>;
var<private> query_high: array<array<vec4<f32>, D_EIGHTS>, QUERIES>;
var<private> out_low: array<array<vec4<f32>, D_EIGHTS>, QUERIES>;
var<private> out_high: array<array<vec4<f32>, D_EIGHTS>, QUERIES>;
var<private> scores: array<vec4<f32>, QUERIES>;
var<private> tops: array<f32, QUERIES>;
var<private> sums: array<f32, QUERIES>;

// Four columns by four keys.
fn multiply(sums: vec4<f32>, left: vec4<f32>, a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32>) -> vec4<f32> {
    var sum = sums;
    sum += left.x * bitcast<vec4<f32>>(vec4<u32>(a.x, b.x, c.x, d.x));
    sum += left.y * bitcast<vec4<f32>>(vec4<u32>(a.y, b.y, c.y, d.y));
    sum += left.z * bitcast<vec4<f32>>(vec4<u32>(a.z, b.z, c.z, d.z));
    sum += left.w * bitcast<vec4<f32>>(vec4<u32>(a.w, b.w, c.w, d.w));
    return sum;
}

fn gather(sums: vec4<f32>, p: vec4<f32>, a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32>) -> vec4<f32> {
    var sum = sums;
    sum += p.x * bitcast<vec4<f32>>(a);
    sum += p.y * bitcast<vec4<f32>>(b);
    sum += p.z * bitcast<vec4<f32>>(c);
    sum += p.w * bitcast<vec4<f32>>(d);
    return sum;
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
    let first_row = number % params.blocks_q * BLOCK_Q;
    let head = head_of(number / params.blocks_q / params.heads, number / params.blocks_q % params.heads);
    for (var r = 0u; r < QUERIES; r++) {
        tops[r] = head.sink;
        sums[r] = select(0.0, 1.0, head.sink > FLOOR);
        let row = q_row(head, first_row + r * LANES + lane);
        for (var i = 0u; i < D_EIGHTS; i++) {
            if i * 8u < params.head_dim {
                let eight = q_eight(row, i * 8u);
                query_low[r][i] = bitcast<vec4<f32>>(eight.low);
                query_high[r][i] = bitcast<vec4<f32>>(eight.high);
            }
        }
    }

    let last_row = min(first_row + BLOCK_Q, params.seq_q) - 1u;
    let keys = keys_of_rows(head, first_row, last_row);
    let inner = vec2<u32>(keys_of(head, last_row).x, keys_of(head, first_row).y);
    for (var key = keys.x / 4u * 4u; key < keys.y; key += 4u) {
        // Past the last key it is read again.
        let four = min(key + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(keys.y - 1u));
        let k_rows = vec4<u32>(k_row(head, four.x), k_row(head, four.y), k_row(head, four.z), k_row(head, four.w));
        for (var r = 0u; r < QUERIES; r++) {
            scores[r] = vec4<f32>(0.0);
        }
        for (var i = 0u; i < D_EIGHTS; i++) {
            if i * 8u < params.head_dim {
                let a = k_eight(k_rows.x, i * 8u);
                let b = k_eight(k_rows.y, i * 8u);
                let c = k_eight(k_rows.z, i * 8u);
                let d = k_eight(k_rows.w, i * 8u);
                for (var r = 0u; r < QUERIES; r++) {
                    scores[r] = multiply(scores[r], query_low[r][i], a.low, b.low, c.low, d.low);
                    scores[r] = multiply(scores[r], query_high[r][i], a.high, b.high, c.high, d.high);
                }
            }
        }
        let seen = key >= inner.x && key + 4u <= inner.y;
        for (var r = 0u; r < QUERIES; r++) {
            let row = first_row + r * LANES + lane;
            var s = scores_of(head, scores[r], row, key);
            if !seen {
                s = seen_of(s, bounds_of(head, row, key), 0u);
            }
            let top = max(tops[r], min(max(max(s.x, s.y), max(s.z, s.w)), -LOWEST));
            let shrink = weight(tops[r], top);
            tops[r] = top;
            // What was summed so far was relative to the old maximum.
            for (var i = 0u; i < D_EIGHTS; i++) {
                out_low[r][i] *= shrink;
                out_high[r][i] *= shrink;
            }
            let p = weights(s, top);
            sums[r] = sums[r] * shrink + ((p.x + p.y) + (p.z + p.w));
            scores[r] = p;
            if OPTIONS == 1u && (params.has & HAS_DROPOUT) != 0u {
                scores[r] = drop(head, p, row, key);
            }
        }
        let v_rows = vec4<u32>(v_row(head, four.x), v_row(head, four.y), v_row(head, four.z), v_row(head, four.w));
        for (var i = 0u; i < D_EIGHTS; i++) {
            if i * 8u < params.v_dim {
                let a = v_eight(v_rows.x, i * 8u);
                let b = v_eight(v_rows.y, i * 8u);
                let c = v_eight(v_rows.z, i * 8u);
                let d = v_eight(v_rows.w, i * 8u);
                for (var r = 0u; r < QUERIES; r++) {
                    out_low[r][i] = gather(out_low[r][i], scores[r], a.low, b.low, c.low, d.low);
                    out_high[r][i] = gather(out_high[r][i], scores[r], a.high, b.high, c.high, d.high);
                }
            }
        }
    }

    for (var r = 0u; r < QUERIES; r++) {
        let row = first_row + r * LANES + lane;
        if (params.has & HAS_LSE) != 0u && row < params.seq_q {
            lse[head.lse + row * params.lse_strides.z] = log_sum(tops[r], sums[r]);
        }
        // At least a half if any key was visible.
        let unit = select(0.0, 1.0 / sums[r], sums[r] > 0.0);
        for (var i = 0u; i < D_EIGHTS; i++) {
            let eight = Eight(bitcast<vec4<u32>>(out_low[r][i] * unit), bitcast<vec4<u32>>(out_high[r][i] * unit));
            store_eight(head.out, row, i * 8u, eight);
        }
    }
}
