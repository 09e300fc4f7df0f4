// What the attention kernels share: bindings, Params, which keys a query sees, and what becomes of a product of q and k.
// A masked score is the lowest number, and FLOOR, where a row's maximum begins, lies above it, so that a masked key weighs 2^-huge = 0 without a
// flag, also in a row that has no other. Weights are 2^(params.rate * (score - maximum)).
// Needs a Word, lib/element.wgsl, lib/float.wgsl and lib/philox.wgsl.

const OUT_DTYPE: u32 = 0u;
const Q_DTYPE: u32 = 0u;
const K_DTYPE: u32 = 0u;
const V_DTYPE: u32 = 0u;
// 0: scores are the products, for a scale from 1e-30 to 1/4. 1: everything; scores are an eighth of logits, so that no difference overflows.
const OPTIONS: u32 = 0u;

const LOWEST: f32 = -3.4028234e38;
const MASKED: f32 = LOWEST / (1.0 + f32(OPTIONS));
const FLOOR: f32 = 0.999 * MASKED;

// A window that leaves out nothing.
const ALL: i32 = 0x40000000;

const HAS_LSE: u32 = 1u;
const HAS_SINKS: u32 = 2u;
const HAS_ALIBI: u32 = 4u;
const HAS_LENS: u32 = 8u;
const HAS_SOFTCAP: u32 = 16u;
const HAS_DROPOUT: u32 = 32u;
const TO_LEN: u32 = 64u; // the last query stands at a batch's last key

const NO_MASK: u32 = 0u;
const BOOL_MASK: u32 = 1u;
const F32_MASK: u32 = 2u;
const F16_MASK: u32 = 3u;

struct Params {
    q_strides: vec4<u32>, // batch, head, row, column; the same below
    k_strides: vec4<u32>,
    v_strides: vec4<u32>,
    out_strides: vec4<u32>,
    mask_strides: vec4<u32>, // batch, head, query, key
    lse_strides: vec4<u32>, // batch, head, query, part
    q_offset: u32,
    k_offset: u32,
    v_offset: u32,
    out_offset: u32,
    mask_offset: u32,
    lse_offset: u32,
    sink_offset: u32,
    sink_stride: u32,
    alibi_offset: u32,
    alibi_stride: u32,
    len_offset: u32,
    len_stride: u32,
    heads: u32,
    heads_per_kv: u32,
    seq_q: u32,
    seq_k: u32,
    head_dim: u32,
    v_dim: u32,
    blocks_q: u32,
    groups: u32,
    place: i32, // of query 0 among the keys
    left: i32, // keys that a query sees before its place
    right: i32, // and after it
    has: u32,
    mask_kind: u32,
    scale: f32,
    softcap: f32,
    rate: f32,
    seed_low: u32,
    seed_high: u32,
    draw: u32,
    threshold: u32, // a weight is kept if 24 random bits are not below
    kept: f32, // what is kept is multiplied by
    first_row: u32, // of the whole call, where this is a part of it
    first_head: u32, // heads of all batches, counted through
    all_heads: u32,
    splits: u32,
    chunk: u32, // of keys, for each split
    part_stride: u32, // from one split's sums to the next's
    full_k: u32, // keys that there are, also those that a short mask hides; TO_LEN
}

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read_write> lse: array<u32>; // bits of f32
@group(0) @binding(2) var<storage, read> q: array<Word>;
@group(0) @binding(3) var<storage, read> k: array<Word>;
@group(0) @binding(4) var<storage, read> v: array<Word>;
@group(0) @binding(5) var<storage, read> mask: array<u32>;
@group(0) @binding(6) var<storage, read> per_head: array<f32>; // sinks, ALiBi's slopes
@group(0) @binding(7) var<storage, read> lens: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

// A head of a batch.
struct Head {
    q: u32,
    k: u32,
    v: u32,
    out: u32,
    mask: u32,
    lse: u32,
    len: u32, // keys
    place: i32, // of query 0
    slope: f32,
    sink: f32, // as a score
    stream: u32, // of random numbers
}

fn head_of(batch: u32, head: u32) -> Head {
    let kv_head = head / params.heads_per_kv;
    var result: Head;
    result.q = params.q_offset + batch * params.q_strides.x + head * params.q_strides.y;
    result.k = params.k_offset + batch * params.k_strides.x + kv_head * params.k_strides.y;
    result.v = params.v_offset + batch * params.v_strides.x + kv_head * params.v_strides.y;
    result.out = params.out_offset + batch * params.out_strides.x + head * params.out_strides.y;
    result.mask = params.mask_offset + batch * params.mask_strides.x + head * params.mask_strides.y;
    result.lse = params.lse_offset + batch * params.lse_strides.x + head * params.lse_strides.y;
    result.len = params.seq_k;
    result.place = params.place;
    if (params.has & HAS_LENS) != 0u {
        let len = min(params.full_k, lens[params.len_offset + batch * params.len_stride]);
        result.len = min(params.seq_k, len);
        if (params.has & TO_LEN) != 0u {
            result.place += i32(len);
        }
    }
    result.sink = FLOOR;
    if OPTIONS == 1u {
        if (params.has & HAS_ALIBI) != 0u {
            result.slope = per_head[params.alibi_offset + head * params.alibi_stride];
        }
        if (params.has & HAS_SINKS) != 0u {
            let sink = per_head[params.sink_offset + head * params.sink_stride];
            result.sink = select(score_of(sink), FLOOR, bitcast<u32>(sink) == 0xff800000u);
        }
        result.stream = params.first_head + batch * params.all_heads + head;
    }
    return result;
}

// The keys that a query sees by its place: from .x to below .y.
fn keys_of(head: Head, row: u32) -> vec2<u32> {
    let place = head.place + i32(row);
    let len = i32(head.len);
    return vec2<u32>(u32(clamp(place - params.left, 0, len)), u32(clamp(place + params.right + 1, 0, len)));
}

// Those that any of some rows sees.
fn keys_of_rows(head: Head, first: u32, last: u32) -> vec2<u32> {
    return vec2<u32>(keys_of(head, first).x, keys_of(head, last).y);
}

// A logit as a score; OPTIONS == 1.
fn score_of(logit: f32) -> f32 {
    return 0.125 * clamp(logit, LOWEST, -LOWEST);
}

// 2^(rate * (score - top)), for a top of at least FLOOR. Of products that overflow the highest weigh 1, and all are finite.
fn weight(score: f32, top: f32) -> f32 {
    return weights(vec4<f32>(score), top).x;
}

fn weights(scores: vec4<f32>, top: f32) -> vec4<f32> {
    var below = scores - top;
    if OPTIONS == 1u {
        below = max(below, vec4<f32>(-20.0));
    }
    return clamp(exp2(below * params.rate), vec4<f32>(0.0), vec4<f32>(1.0));
}

// The bits of the logarithm of a row's sum; -inf of none.
fn log_sum(top: f32, sum: f32) -> u32 {
    let unit = select(params.scale, 8.0, OPTIONS == 1u);
    let value = clamp(top * unit + log(sum), LOWEST, -LOWEST);
    return select(0xff800000u, bitcast<u32>(value), sum > 0.0);
}

// The bits of what a mask adds to a logit.
fn mask_bits(index: u32) -> u32 {
    switch params.mask_kind {
        case BOOL_MASK: { return select(0u, 0xff800000u, ((mask[index / 4u] >> (index % 4u * 8u)) & 0xffu) == 0u); }
        case F32_MASK: { return mask[index]; }
        default: {
            let bits = (mask[index / 2u] >> (index % 2u * 16u)) & 0xffffu;
            if params.mask_kind == F16_MASK {
                return bitcast<u32>(unpack2x16float(bits).x);
            }
            return bits << 16u;
        }
    }
}

// tanh, to an absolute 2^-22: the series near 0.
fn tanh_of(x: vec4<f32>) -> vec4<f32> {
    let s = x * x;
    let near = x + x * s * (-1.0 / 3.0 + s * (2.0 / 15.0 + s * (-17.0 / 315.0 + s * (62.0 / 2835.0))));
    let far = 1.0 - 2.0 / (exp(2.0 * clamp(x, vec4<f32>(-20.0), vec4<f32>(20.0))) + 1.0);
    return select(far, near, s < vec4<f32>(0.04));
}

// The scores of a query and four neighbouring keys, were all of them seen.
fn scores_of(head: Head, products: vec4<f32>, row: u32, key: u32) -> vec4<f32> {
    if OPTIONS == 0u {
        return products;
    }
    var logits = clamp(products * params.scale, vec4<f32>(LOWEST), vec4<f32>(-LOWEST));
    if (params.has & HAS_SOFTCAP) != 0u {
        logits = params.softcap * tanh_of(logits / params.softcap);
    }
    if (params.has & HAS_ALIBI) != 0u {
        let distance = vec4<i32>(head.place + i32(row)) - (vec4<i32>(i32(key)) + vec4<i32>(0, 1, 2, 3));
        logits -= head.slope * vec4<f32>(abs(distance));
    }
    if params.mask_kind == NO_MASK {
        return 0.125 * clamp(logits, vec4<f32>(LOWEST), vec4<f32>(-LOWEST));
    }
    let keys = min(key + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.seq_k - 1u));
    let at = head.mask + min(row, params.seq_q - 1u) * params.mask_strides.z + keys * params.mask_strides.w;
    let bits = vec4<u32>(mask_bits(at.x), mask_bits(at.y), mask_bits(at.z), mask_bits(at.w));
    let masked = bits == vec4<u32>(0xff800000u);
    // Halved, as the sum may overflow.
    let bias = 0.5 * bitcast<vec4<f32>>(select(bits, vec4<u32>(0u), masked));
    let both = 0.25 * clamp(0.5 * logits + bias, vec4<f32>(0.5 * LOWEST), vec4<f32>(-0.5 * LOWEST));
    return select(both, vec4<f32>(MASKED), masked);
}

// The bounds of the keys that a query sees by its place, counted from `key`: from .x to below .y, and none from .z on. Those of the next query are one
// further, but for .z.
fn bounds_of(head: Head, row: u32, key: u32) -> vec3<i32> {
    let place = head.place + i32(row) - i32(key);
    return vec3<i32>(place - params.left, place + params.right + 1, i32(head.len) - i32(key));
}

// Masks what lies outside of the bounds of the query `ahead` rows further.
fn seen_of(scores: vec4<f32>, bounds: vec3<i32>, ahead: u32) -> vec4<f32> {
    let counting = vec4<i32>(0, 1, 2, 3);
    let near = counting - i32(ahead);
    let seen = (near >= vec4<i32>(bounds.x)) & (near < vec4<i32>(bounds.y)) & (counting < vec4<i32>(bounds.z));
    return select(vec4<f32>(MASKED), scores, seen);
}

// What dropout leaves of the weights of four keys from a multiple of 4 on.
fn drop(head: Head, kept: vec4<f32>, row: u32, key: u32) -> vec4<f32> {
    let counter = vec4<u32>(key / 4u, params.first_row + row, head.stream, params.draw);
    let words = philox(counter, vec2<u32>(params.seed_low, params.seed_high));
    return select(vec4<f32>(0.0), kept * params.kept, (words >> vec4<u32>(8u)) >= vec4<u32>(params.threshold));
}

// Where rows of q, k and v begin: Words, or elements of a scalar width.
fn q_row(head: Head, row: u32) -> u32 {
    return (head.q + min(row, params.seq_q - 1u) * params.q_strides.z) / select(1u, per_word(Q_DTYPE), VECTOR);
}

fn k_row(head: Head, key: u32) -> u32 {
    return (head.k + key * params.k_strides.z) / select(1u, per_word(K_DTYPE), VECTOR);
}

fn v_row(head: Head, key: u32) -> u32 {
    return (head.v + key * params.v_strides.z) / select(1u, per_word(V_DTYPE), VECTOR);
}

// How far `i` keys are ahead. Vector: in Words, which the host has proven not to wrap.
fn k_ahead(i: u32) -> u32 {
    return i * select(1u, params.k_strides.z / per_word(K_DTYPE), VECTOR);
}

fn v_ahead(i: u32) -> u32 {
    return i * select(1u, params.v_strides.z / per_word(V_DTYPE), VECTOR);
}

// The row of the key so far ahead of `first`, or of the last one.
fn k_near(head: Head, first: u32, ahead: u32, last: u32) -> u32 {
    if VECTOR {
        return min(k_row(head, first) + ahead, k_row(head, last));
    }
    return k_row(head, min(first + ahead, last));
}

fn v_near(head: Head, first: u32, ahead: u32, last: u32) -> u32 {
    if VECTOR {
        return min(v_row(head, first) + ahead, v_row(head, last));
    }
    return v_row(head, min(first + ahead, last));
}

// Columns past the last are read again: they count for nothing, by zeros in q.
fn q_at(row: u32, column: u32) -> u32 {
    let index = row + min(column, params.head_dim - 1u) * params.q_strides.w;
    return select(0u, element_of(Q_DTYPE, from_word(q[index / per_word(Q_DTYPE)]), index % per_word(Q_DTYPE)), column < params.head_dim);
}

fn k_at(row: u32, column: u32) -> u32 {
    let index = row + min(column, params.head_dim - 1u) * params.k_strides.w;
    return element_of(K_DTYPE, from_word(k[index / per_word(K_DTYPE)]), index % per_word(K_DTYPE));
}

fn v_at(row: u32, column: u32) -> u32 {
    let index = row + min(column, params.v_dim - 1u) * params.v_strides.w;
    return element_of(V_DTYPE, from_word(v[index / per_word(V_DTYPE)]), index % per_word(V_DTYPE));
}

// Eight columns of a row. Vector: there must be as many.
fn q_eight(row: u32, column: u32) -> Eight {
    if VECTOR {
        let at = row + column / per_word(Q_DTYPE);
        return unpack(Q_DTYPE, from_word(q[at]), from_word(q[at + second(Q_DTYPE)]));
    }
    return Eight(
        vec4<u32>(q_at(row, column), q_at(row, column + 1u), q_at(row, column + 2u), q_at(row, column + 3u)),
        vec4<u32>(q_at(row, column + 4u), q_at(row, column + 5u), q_at(row, column + 6u), q_at(row, column + 7u)),
    );
}

fn k_eight(row: u32, column: u32) -> Eight {
    if VECTOR {
        let at = row + column / per_word(K_DTYPE);
        return unpack(K_DTYPE, from_word(k[at]), from_word(k[at + second(K_DTYPE)]));
    }
    return Eight(
        vec4<u32>(k_at(row, column), k_at(row, column + 1u), k_at(row, column + 2u), k_at(row, column + 3u)),
        vec4<u32>(k_at(row, column + 4u), k_at(row, column + 5u), k_at(row, column + 6u), k_at(row, column + 7u)),
    );
}

fn v_eight(row: u32, column: u32) -> Eight {
    if VECTOR {
        let at = row + column / per_word(V_DTYPE);
        return unpack(V_DTYPE, from_word(v[at]), from_word(v[at + second(V_DTYPE)]));
    }
    return Eight(
        vec4<u32>(v_at(row, column), v_at(row, column + 1u), v_at(row, column + 2u), v_at(row, column + 3u)),
        vec4<u32>(v_at(row, column + 4u), v_at(row, column + 5u), v_at(row, column + 6u), v_at(row, column + 7u)),
    );
}

// Writes eight columns of a row, as far as they lie in out. Scalar: `out` of 16 bits is made of whole pairs.
fn store_eight(base: u32, row: u32, column: u32, values: Eight) {
    if row >= params.seq_q || column >= params.v_dim {
        return;
    }
    let start = base + row * params.out_strides.z;
    if VECTOR {
        let at = (start + column) / per_word(OUT_DTYPE);
        out[at] = to_word(pack(OUT_DTYPE, values));
        if second(OUT_DTYPE) == 1u {
            out[at + 1u] = to_word(values.high);
        }
    } else if lanes(OUT_DTYPE) == 1u {
        for (var c = 0u; c < 8u; c++) {
            if column + c < params.v_dim {
                let value = select(values.low[c % 4u], values.high[c % 4u], c > 3u);
                out[start + (column + c) * params.out_strides.w] = to_word(vec4<u32>(value));
            }
        }
    } else {
        let pairs = pack(OUT_DTYPE, values);
        for (var c = 0u; c < 4u; c++) {
            if column + 2u * c < params.v_dim {
                out[(start + column) / 2u + c] = to_word(vec4<u32>(pairs[c]));
            }
        }
    }
}
