// What the softmax kernels share: Params, a row's logits, its result, and the state of a part of it, the maximum and the sum of exponentials
// below that (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018). Every kernel folds the same eights in the same
// order into the states of `lanes` lanes and joins these as neighbours, pairs of neighbours and so on: the bits of a row depend on its
// values alone. Needs a kernel's bindings, X_DTYPE and `x_word`, a Word, lib/softmax.wgsl, lib/element.wgsl, lib/float.wgsl and lib/index.wgsl.

const OUT_DTYPE: u32 = 0u;

const HAS_MASK: u32 = 1u;
const HAS_SINKS: u32 = 2u;
const HAS_PAIRS: u32 = 4u; // words of x with an element of two neighbouring rows each

struct Params {
    dims: array<vec4<u32>, 2>, // of the axes that count rows
    x_strides: array<vec4<u32>, 2>,
    mask_strides: array<vec4<u32>, 2>,
    sinks_strides: array<vec4<u32>, 2>,
    out_strides: array<vec4<u32>, 2>,
    x_offset: u32,
    x_step: u32, // along the row
    mask_offset: u32,
    mask_step: u32,
    mask_dtype: u32,
    sinks_offset: u32,
    sinks_dtype: u32,
    out_offset: u32,
    out_step: u32,
    len: u32,
    rows: u32,
    lanes: u32, // that a row's eights are dealt to: a power of 2, at least 8
    queries: u32, // row r is of query r / query_step % queries
    query_step: u32,
    ahead: u32, // query i sees i + ahead - behind elements
    behind: u32,
    scale: f32,
    has: u32,
    log: u32,
    pad: u32,
}

// Where a row begins, and how much of it there is; all 0 for one past the last.
struct Row {
    x: u32,
    mask: u32,
    sinks: u32,
    out: u32,
    visible: u32,
    len: u32,
}

fn row_of(number: u32) -> Row {
    if number >= params.rows {
        return Row(0u, 0u, 0u, 0u, 0u, 0u);
    }
    let seen = number / params.query_step % params.queries + params.ahead;
    return Row(
        params.x_offset + storage_index(number, params.dims, params.x_strides),
        params.mask_offset + storage_index(number, params.dims, params.mask_strides),
        params.sinks_offset + storage_index(number, params.dims, params.sinks_strides),
        params.out_offset + storage_index(number, params.dims, params.out_strides),
        min(max(seen, params.behind) - params.behind, params.len),
        params.len,
    );
}

fn x_at(index: u32) -> u32 {
    let count = per_word(X_DTYPE);
    return element_of(X_DTYPE, from_word(x_word(index / count)), index % count);
}

// Elements of the mask and the sinks are of any float type: 1 for 16 bits.
fn halved(dtype: u32) -> u32 {
    return select(1u, 0u, dtype == F32);
}

// The bits of an f32, of an element in the low end of 32 bits; without branches, of which a switch for each element would be many.
fn float_of(dtype: u32, bits: u32) -> u32 {
    let narrow = select(bits << 16u, bitcast<u32>(unpack2x16float(bits & 0xffffu).x), dtype == F16);
    return select(narrow, bits, dtype == F32);
}

fn mask_at(index: u32) -> u32 {
    let half = halved(params.mask_dtype);
    let shift = half + select(0u, 2u, VECTOR);
    let word = from_word(mask[index >> shift]);
    var bits = word.x;
    if VECTOR {
        bits = word[(index >> half) & 3u];
    }
    return float_of(params.mask_dtype, bits >> ((index & half) * 16u));
}

fn mask_eight(row: Row, i: u32) -> Eight {
    if VECTOR && params.mask_step == 0u {
        let all = vec4<u32>(mask_at(row.mask));
        return Eight(all, all);
    }
    if VECTOR {
        let half = halved(params.mask_dtype);
        let at = (row.mask + i) >> (2u + half);
        return unpack(params.mask_dtype, from_word(mask[at]), from_word(mask[at + 1u - half]));
    }
    return Eight(mask_four(row, i), mask_four(row, i + 4u));
}

fn mask_four(row: Row, i: u32) -> vec4<u32> {
    let at = row.mask + place(row, i) * params.mask_step;
    return vec4<u32>(mask_at(at.x), mask_at(at.y), mask_at(at.z), mask_at(at.w));
}

// Four neighbours of a row; beyond what is visible the last that is.
fn place(row: Row, i: u32) -> vec4<u32> {
    return min(i + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(row.visible - 1u));
}

fn x_of(at: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(x_at(at.x), x_at(at.y), x_at(at.z), x_at(at.w));
}

fn x_four(row: Row, i: u32) -> vec4<u32> {
    return x_of(row.x + place(row, i) * params.x_step);
}

// The bits of four logits from the i-th of a row on. The product and the sum are one operation wherever they are compiled.
fn logit_bits(x: vec4<u32>, bias: vec4<u32>, row: Row, i: u32) -> vec4<u32> {
    let value = fma(bitcast<vec4<f32>>(x), vec4<f32>(params.scale), bitcast<vec4<f32>>(bias));
    let bits = bitcast<vec4<u32>>(clamp(value, vec4<f32>(LOWEST), vec4<f32>(-LOWEST)));
    let hidden = i + vec4<u32>(0u, 1u, 2u, 3u) >= vec4<u32>(row.visible);
    return select(bits, vec4<u32>(MASKED), is_masked(x) | is_masked(bias) | hidden);
}

// The bits of eight logits, MASKED where they are masked or lie past the row's end.
fn eight_at(row: Row, i: u32) -> Eight {
    if i >= row.visible {
        return Eight(vec4<u32>(MASKED), vec4<u32>(MASKED));
    }
    var values: Eight;
    if VECTOR {
        let at = (row.x + i) / per_word(X_DTYPE);
        values = unpack(X_DTYPE, from_word(x_word(at)), from_word(x_word(at + second(X_DTYPE))));
    } else {
        values = Eight(x_four(row, i), x_four(row, i + 4u));
    }
    return logits_of(row, i, values);
}

fn logits_of(row: Row, i: u32, values: Eight) -> Eight {
    if i >= row.visible {
        return Eight(vec4<u32>(MASKED), vec4<u32>(MASKED));
    }
    var bias: Eight;
    if (params.has & HAS_MASK) != 0u {
        bias = mask_eight(row, i);
    }
    return Eight(logit_bits(values.low, bias.low, row, i), logit_bits(values.high, bias.high, row, i + 4u));
}

// What is masked as a finite number.
fn shown(bits: vec4<u32>) -> vec4<f32> {
    return select(bitcast<vec4<f32>>(bits), vec4<f32>(LOWEST), is_masked(bits));
}

struct State {
    top: f32,
    sum: f32,
}

fn nothing() -> State {
    return State(LOWEST, 0.0);
}

fn exponentials(bits: vec4<u32>, top: f32) -> vec4<f32> {
    return select(exp_below(shown(bits), top), vec4<f32>(0.0), is_masked(bits));
}

// A state with eight more.
fn fold(state: State, eight: Eight) -> State {
    let highs = max(shown(eight.low), shown(eight.high));
    let top = max(state.top, max(max(highs.x, highs.y), max(highs.z, highs.w)));
    let part = total(exponentials(eight.low, top)) + total(exponentials(eight.high, top));
    let kept = select(exp_below(vec4<f32>(state.top), top).x, 1.0, state.top == top);
    return State(top, fma(state.sum, kept, part));
}

// Two states in one.
fn join(a: State, b: State) -> State {
    let top = max(a.top, b.top);
    let below = exp_below(vec4<f32>(min(a.top, b.top)), top).x;
    let first = a.top >= b.top;
    return State(top, fma(select(a.sum, b.sum, first), below, select(b.sum, a.sum, first)));
}

// A row's maximum, and what its exponentials are multiplied by, or the logarithm of their sum. Of a row that is all masked nothing is read.
fn norm_from(row: Row, state: State) -> vec2<f32> {
    var whole = state;
    if (params.has & HAS_SINKS) != 0u {
        let half = halved(params.sinks_dtype);
        let bits = float_of(params.sinks_dtype, sinks[row.sinks >> half] >> ((row.sinks & half) * 16u));
        if bits != MASKED {
            whole = join(whole, State(clamp(bitcast<f32>(bits), LOWEST, -LOWEST), 1.0));
        }
    }
    let sum = max(whole.sum, 0.5);
    if params.log == 0u {
        return vec2<f32>(whole.top, 1.0 / sum);
    }
    return vec2<f32>(whole.top, log(sum));
}

// The bits of four results.
fn result(bits: vec4<u32>, norm: vec2<f32>) -> vec4<u32> {
    if params.log == 0u {
        return bitcast<vec4<u32>>(exponentials(bits, norm.x) * norm.y);
    }
    let value = max(2.0 * (0.5 * shown(bits) - 0.5 * norm.x) - norm.y, vec4<f32>(LOWEST));
    return select(bitcast<vec4<u32>>(value), vec4<u32>(MASKED), is_masked(bits));
}

fn results(eight: Eight, norm: vec2<f32>) -> Eight {
    return Eight(result(eight.low, norm), result(eight.high, norm));
}
