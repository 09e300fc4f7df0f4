// out = softmax(scale * q * k^T + bias, masked) * v for each batch and head; FlashAttention-2 (Dao 2023), so no score leaves the group.
// One workgroup makes 32 queries of one head, going over the keys 32 at a time. Its 64 lanes are an 8 x 8 grid: a lane holds 4 x 4
// scores, and 4 rows x V_MAX / 8 columns of the output. Sums stay a lane's own until the end.
// Vector: q, k, v and out by eights of columns. Scalar: `out` of 16 bits is made of whole pairs.
// Traffic: k and v are read seq_q / 32 times, q once a block of keys, out written once. Rows without a visible key give zeros.

const OUT_DTYPE: u32 = 0u;
const Q_DTYPE: u32 = 0u;
const K_DTYPE: u32 = 0u;
const V_DTYPE: u32 = 0u;
const BIAS_DTYPE: u32 = 0u;
// Columns of v that the output registers hold: at least v_dim.
const V_MAX: u32 = 64u;

const BLOCK: u32 = 32u; // queries, and keys a step
const SIDE: u32 = 8u; // lanes a side
const THREADS: u32 = SIDE * SIDE;
const STEP_D: u32 = 16u; // of head_dim, staged at a time
const V_VECS: u32 = V_MAX / BLOCK; // vec4s of an output row that a lane holds
const V_ROW: u32 = V_MAX / 4u; // vec4s of an output row
const V_EIGHTS: u32 = V_MAX / 8u;
const V_KEYS: u32 = 1024u / V_MAX; // keys of v staged at a time

struct Params {
    q_strides: vec4<u32>, // batch, head, row, column; the same below
    k_strides: vec4<u32>,
    v_strides: vec4<u32>,
    mask_strides: vec4<u32>, // batch, head, query, key
    bias_strides: vec4<u32>,
    out_strides: vec4<u32>,
    q_offset: u32,
    k_offset: u32,
    v_offset: u32,
    mask_offset: u32,
    bias_offset: u32,
    out_offset: u32,
    heads: u32,
    heads_per_kv: u32,
    seq_q: u32,
    seq_k: u32,
    head_dim: u32,
    v_dim: u32,
    blocks_q: u32,
    groups: u32,
    causal_limit: i32, // query i sees keys below i + causal_limit
    scale: f32,
    has_mask: u32,
    has_bias: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read> q: array<Word>;
@group(0) @binding(2) var<storage, read> k: array<Word>;
@group(0) @binding(3) var<storage, read> v: array<Word>;
@group(0) @binding(4) var<storage, read> mask: array<u32>; // a byte a key
@group(0) @binding(5) var<storage, read> bias: array<Word>;
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> q_tile: array<vec4<f32>, STEP_D * SIDE>; // [column][4 rows]
var<workgroup> k_tile: array<vec4<f32>, STEP_D * SIDE>;
var<workgroup> p_tile: array<vec4<u32>, BLOCK * SIDE>; // [key][4 rows]: bits of the biases, then of the weights
var<workgroup> v_tile: array<vec4<f32>, V_KEYS * V_ROW>; // [key][4 columns]
var<workgroup> partial: array<f32, BLOCK * SIDE>; // [row][lane column]

// Outside the matrices there are zeros; eights lie inside or outside as a whole.
fn q_at(base: u32, row: u32, column: u32) -> f32 {
    if row >= params.seq_q || column >= params.head_dim {
        return 0.0;
    }
    let index = base + row * params.q_strides.z + column * params.q_strides.w;
    let count = per_word(Q_DTYPE);
    return bitcast<f32>(element_of(Q_DTYPE, from_word(q[index / count]), index % count));
}

fn q_eight(base: u32, row: u32, column: u32) -> Eight {
    if row >= params.seq_q || column >= params.head_dim {
        return Eight(vec4<u32>(0u), vec4<u32>(0u));
    }
    let at = (base + row * params.q_strides.z + column) / per_word(Q_DTYPE);
    return unpack(Q_DTYPE, from_word(q[at]), from_word(q[at + second(Q_DTYPE)]));
}

fn k_at(base: u32, key: u32, column: u32) -> f32 {
    if key >= params.seq_k || column >= params.head_dim {
        return 0.0;
    }
    let index = base + key * params.k_strides.z + column * params.k_strides.w;
    let count = per_word(K_DTYPE);
    return bitcast<f32>(element_of(K_DTYPE, from_word(k[index / count]), index % count));
}

fn k_eight(base: u32, key: u32, column: u32) -> Eight {
    if key >= params.seq_k || column >= params.head_dim {
        return Eight(vec4<u32>(0u), vec4<u32>(0u));
    }
    let at = (base + key * params.k_strides.z + column) / per_word(K_DTYPE);
    return unpack(K_DTYPE, from_word(k[at]), from_word(k[at + second(K_DTYPE)]));
}

fn v_at(base: u32, key: u32, column: u32) -> f32 {
    if key >= params.seq_k || column >= params.v_dim {
        return 0.0;
    }
    let index = base + key * params.v_strides.z + column * params.v_strides.w;
    let count = per_word(V_DTYPE);
    return bitcast<f32>(element_of(V_DTYPE, from_word(v[index / count]), index % count));
}

fn v_eight(base: u32, key: u32, column: u32) -> Eight {
    if key >= params.seq_k || column >= params.v_dim {
        return Eight(vec4<u32>(0u), vec4<u32>(0u));
    }
    let at = (base + key * params.v_strides.z + column) / per_word(V_DTYPE);
    return unpack(V_DTYPE, from_word(v[at]), from_word(v[at + second(V_DTYPE)]));
}

// The first key that a query does not see.
fn key_end(row: u32) -> u32 {
    return u32(clamp(i32(row) + params.causal_limit, 0, i32(params.seq_k)));
}

// The bits of what is added to a score: -inf where the key is masked, and only there.
fn bias_at(mask_base: u32, bias_base: u32, row: u32, key: u32) -> u32 {
    if row >= params.seq_q || key >= key_end(row) {
        return MASKED;
    }
    if params.has_mask != 0u {
        let index = mask_base + row * params.mask_strides.z + key * params.mask_strides.w;
        if ((mask[index / 4u] >> (index % 4u * 8u)) & 0xffu) == 0u {
            return MASKED;
        }
    }
    if params.has_bias == 0u {
        return 0u;
    }
    let index = bias_base + row * params.bias_strides.z + key * params.bias_strides.w;
    let count = per_word(BIAS_DTYPE);
    return element_of(BIAS_DTYPE, from_word(bias[index / count]), index % count);
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
    let first_row = number % params.blocks_q * BLOCK;
    let head = number / params.blocks_q % params.heads;
    let batch = number / params.blocks_q / params.heads;
    let kv_head = head / params.heads_per_kv;
    let q_base = params.q_offset + batch * params.q_strides.x + head * params.q_strides.y;
    let k_base = params.k_offset + batch * params.k_strides.x + kv_head * params.k_strides.y;
    let v_base = params.v_offset + batch * params.v_strides.x + kv_head * params.v_strides.y;
    let mask_base = params.mask_offset + batch * params.mask_strides.x + head * params.mask_strides.y;
    let bias_base = params.bias_offset + batch * params.bias_strides.x + head * params.bias_strides.y;
    let out_base = params.out_offset + batch * params.out_strides.x + head * params.out_strides.y;

    let lane_row = lane / SIDE;
    let lane_col = lane % SIDE;
    var tops = vec4<f32>(LOWEST);
    var sums = vec4<f32>(0.0);
    var outs: array<vec4<f32>, 4u * V_VECS>;

    // Keys past the last row's end are masked for the whole block: not computed.
    let end = key_end(min(first_row + BLOCK, params.seq_q) - 1u);
    for (var first_key = 0u; first_key < end; first_key += BLOCK) {
        // Masks first, together: the barriers of the product below stand between these writes and their use.
        for (var e = lane; e < BLOCK * SIDE; e += THREADS) {
            let row = first_row + e % SIDE * 4u;
            let key = first_key + e / SIDE;
            p_tile[e] = vec4<u32>(
                bias_at(mask_base, bias_base, row, key),
                bias_at(mask_base, bias_base, row + 1u, key),
                bias_at(mask_base, bias_base, row + 2u, key),
                bias_at(mask_base, bias_base, row + 3u, key),
            );
        }

        // Scores: s[r][c] is query 4 * lane_row + r against key 4 * lane_col + c.
        var s: array<vec4<f32>, 4>;
        for (var d = 0u; d < params.head_dim; d += STEP_D) {
            if VECTOR {
                // Four rows of eight columns together, so that one invocation writes whole vec4s: of q first, then of k.
                for (var e = lane; e < STEP_D / 8u * SIDE * 2u; e += THREADS) {
                    let four = e % SIDE;
                    let column = e / SIDE % (STEP_D / 8u) * 8u;
                    let of_k = e / SIDE >= STEP_D / 8u;
                    var rows: array<Eight, 4>;
                    for (var r = 0u; r < 4u; r++) {
                        if of_k {
                            rows[r] = k_eight(k_base, first_key + four * 4u + r, d + column);
                        } else {
                            rows[r] = q_eight(q_base, first_row + four * 4u + r, d + column);
                        }
                    }
                    for (var c = 0u; c < 8u; c++) {
                        let low = vec4<u32>(rows[0].low[c % 4u], rows[1].low[c % 4u], rows[2].low[c % 4u], rows[3].low[c % 4u]);
                        let high = vec4<u32>(rows[0].high[c % 4u], rows[1].high[c % 4u], rows[2].high[c % 4u], rows[3].high[c % 4u]);
                        let values = bitcast<vec4<f32>>(select(low, high, c > 3u));
                        if of_k {
                            k_tile[(column + c) * SIDE + four] = values;
                        } else {
                            q_tile[(column + c) * SIDE + four] = values;
                        }
                    }
                }
            } else {
                for (var e = lane; e < STEP_D * SIDE; e += THREADS) {
                    let column = d + e % STEP_D;
                    let four = e / STEP_D * 4u;
                    let row = first_row + four;
                    let key = first_key + four;
                    let slot = e % STEP_D * SIDE + e / STEP_D;
                    q_tile[slot] = vec4<f32>(
                        q_at(q_base, row, column),
                        q_at(q_base, row + 1u, column),
                        q_at(q_base, row + 2u, column),
                        q_at(q_base, row + 3u, column),
                    );
                    k_tile[slot] = vec4<f32>(
                        k_at(k_base, key, column),
                        k_at(k_base, key + 1u, column),
                        k_at(k_base, key + 2u, column),
                        k_at(k_base, key + 3u, column),
                    );
                }
            }
            workgroupBarrier();
            for (var i = 0u; i < STEP_D; i++) {
                let left = q_tile[i * SIDE + lane_row];
                let right = k_tile[i * SIDE + lane_col];
                s[0] += left.x * right;
                s[1] += left.y * right;
                s[2] += left.z * right;
                s[3] += left.w * right;
            }
            workgroupBarrier();
        }

        // Scale and mask; the block's maximum of each row.
        var masked: array<vec4<bool>, 4>;
        for (var r = 0u; r < 4u; r++) {
            var bits: vec4<u32>;
            for (var c = 0u; c < 4u; c++) {
                bits[c] = p_tile[(lane_col * 4u + c) * SIDE + lane_row][r];
            }
            masked[r] = is_masked(bits);
            s[r] = logits(s[r], params.scale, bitcast<vec4<f32>>(select(bits, vec4<u32>(0u), masked[r])));
            partial[(lane_row * 4u + r) * SIDE + lane_col] = highest(s[r], masked[r]);
        }
        workgroupBarrier();
        for (var r = 0u; r < 4u; r++) {
            var top = tops[r];
            for (var c = 0u; c < SIDE; c++) {
                top = max(top, partial[(lane_row * 4u + r) * SIDE + c]);
            }
            // What was summed so far was relative to the old maximum.
            let shrink = exp_below(vec4<f32>(tops[r]), top).x;
            tops[r] = top;
            for (var j = 0u; j < V_VECS; j++) {
                outs[r * V_VECS + j] *= shrink;
            }
            s[r] = select(exp_below(s[r], top), vec4<f32>(0.0), masked[r]);
            sums[r] = sums[r] * shrink + total(s[r]);
        }
        for (var c = 0u; c < 4u; c++) {
            p_tile[(lane_col * 4u + c) * SIDE + lane_row] = bitcast<vec4<u32>>(vec4<f32>(s[0][c], s[1][c], s[2][c], s[3][c]));
        }

        // The second product: outs += p * v, V_KEYS keys at a time.
        for (var first = 0u; first < BLOCK; first += V_KEYS) {
            if VECTOR {
                for (var e = lane; e < V_KEYS * V_EIGHTS; e += THREADS) {
                    let eight = v_eight(v_base, first_key + first + e / V_EIGHTS, e % V_EIGHTS * 8u);
                    v_tile[2u * e] = bitcast<vec4<f32>>(eight.low);
                    v_tile[2u * e + 1u] = bitcast<vec4<f32>>(eight.high);
                }
            } else {
                for (var e = lane; e < V_KEYS * V_ROW; e += THREADS) {
                    let key = first_key + first + e / V_ROW;
                    let column = e % V_ROW * 4u;
                    v_tile[e] = vec4<f32>(
                        v_at(v_base, key, column),
                        v_at(v_base, key, column + 1u),
                        v_at(v_base, key, column + 2u),
                        v_at(v_base, key, column + 3u),
                    );
                }
            }
            workgroupBarrier();
            for (var i = 0u; i < V_KEYS; i++) {
                let p = bitcast<vec4<f32>>(p_tile[(first + i) * SIDE + lane_row]);
                for (var j = 0u; j < V_VECS; j++) {
                    let right = v_tile[i * V_ROW + (j / 2u * SIDE + lane_col) * 2u + j % 2u];
                    outs[j] += p.x * right;
                    outs[V_VECS + j] += p.y * right;
                    outs[2u * V_VECS + j] += p.z * right;
                    outs[3u * V_VECS + j] += p.w * right;
                }
            }
            workgroupBarrier();
        }
    }

    // Each lane summed its own keys: add the eight sums of a row.
    for (var r = 0u; r < 4u; r++) {
        partial[(lane_row * 4u + r) * SIDE + lane_col] = sums[r];
    }
    workgroupBarrier();
    for (var r = 0u; r < 4u; r++) {
        let row = first_row + lane_row * 4u + r;
        var sum = 0.0;
        for (var c = 0u; c < SIDE; c++) {
            sum += partial[(lane_row * 4u + r) * SIDE + c];
        }
        // At least the exponential of 0 if any key was visible.
        let unit = select(0.0, 1.0 / sum, sum > 0.0);
        if row >= params.seq_q {
            break;
        }
        let base = out_base + row * params.out_strides.z;
        for (var j = 0u; j < V_VECS; j += 2u) {
            let low = bitcast<vec4<u32>>(outs[r * V_VECS + j] * unit);
            let high = bitcast<vec4<u32>>(outs[r * V_VECS + j + 1u] * unit);
            let column = (j / 2u * SIDE + lane_col) * 8u;
            if VECTOR {
                if column < params.v_dim {
                    let at = (base + column) / per_word(OUT_DTYPE);
                    out[at] = to_word(pack(OUT_DTYPE, Eight(low, high)));
                    if second(OUT_DTYPE) == 1u {
                        out[at + 1u] = to_word(high);
                    }
                }
            } else if lanes(OUT_DTYPE) == 1u {
                for (var c = 0u; c < 8u; c++) {
                    if column + c < params.v_dim {
                        let value = select(low[c % 4u], high[c % 4u], c > 3u);
                        out[base + (column + c) * params.out_strides.w] = to_word(vec4<u32>(value));
                    }
                }
            } else {
                let pairs = pack(OUT_DTYPE, Eight(low, high));
                for (var c = 0u; c < 4u; c++) {
                    if column + 2u * c < params.v_dim {
                        out[(base + column) / 2u + c] = to_word(vec4<u32>(pairs[c]));
                    }
                }
            }
        }
    }
}
