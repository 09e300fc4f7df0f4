// What the matmul kernels share: bindings, Params, and what becomes of a sum: out = act(alpha sum + beta c + bias) * (alpha gate) + residual,
// and what was in out, if it accumulates.
// Needs a Word, an Operand (lib/operand.wgsl, or the kernel's own), lib/element.wgsl, lib/float.wgsl, lib/unary.wgsl and lib/order.wgsl.

const OUT_DTYPE: u32 = 0u;
const LHS_DTYPE: u32 = 0u;
const RHS_DTYPE: u32 = 0u;
// 0: the sum itself. 1: everything.
const EPILOGUE: u32 = 0u;
// 1: a second product, lhs · gate, of the same columns.
const GATED: u32 = 0u;

const HAS_C: u32 = 1u;
const HAS_BIAS: u32 = 2u;
const HAS_RESIDUAL: u32 = 4u;
const ACCUMULATE: u32 = 8u;

struct Params {
    batch_dims: vec4<u32>,
    lhs_batch: vec4<u32>,
    rhs_batch: vec4<u32>,
    gate_batch: vec4<u32>,
    out_batch: vec4<u32>,
    c_batch: vec4<u32>,
    bias_batch: vec4<u32>,
    residual_batch: vec4<u32>,
    lhs_offset: u32,
    lhs_row: u32,
    lhs_col: u32,
    rhs_offset: u32,
    rhs_row: u32,
    rhs_col: u32,
    gate_offset: u32,
    gate_row: u32,
    gate_col: u32,
    out_offset: u32,
    out_row: u32,
    out_col: u32,
    c_dtype: u32,
    c_offset: u32,
    c_row: u32,
    c_col: u32,
    bias_dtype: u32,
    bias_offset: u32,
    bias_row: u32,
    bias_col: u32,
    residual_dtype: u32,
    residual_offset: u32,
    residual_row: u32,
    residual_col: u32,
    m: u32,
    n: u32,
    k: u32,
    tiles_m: u32,
    tiles_n: u32,
    groups: u32,
    band: u32, // rows of tiles that are walked together, column by column
    along: u32, // bit 0: lhs is dense along k, else along rows; bit 1: rhs is dense along columns, else along k
    splits: u32,
    chunk: u32, // of k, for each split
    split_stride: u32, // from one split's sums to the next's
    has: u32,
    activation: u32,
    alpha: f32,
    beta: f32,
    zero: u32, // 0, which compilers do not know: see lib/unary.wgsl
}

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read> lhs: array<Operand>;
@group(0) @binding(2) var<storage, read> rhs: array<Operand>;
@group(0) @binding(3) var<storage, read> gate: array<Operand>;
@group(0) @binding(4) var<storage, read> c: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<u32>;
@group(0) @binding(6) var<storage, read> residual: array<u32>;
@group(0) @binding(7) var<uniform> params: Params;

// Where a batch's matrices begin.
struct Bases {
    lhs: u32,
    rhs: u32,
    gate: u32,
    out: u32,
    c: u32,
    bias: u32,
    residual: u32,
}

fn dot4(a: vec4<u32>, b: vec4<u32>) -> u32 {
    return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

fn bases_of(batch: u32) -> Bases {
    let dims = params.batch_dims;
    let at = vec4<u32>(
        batch / dims.w / dims.z / dims.y,
        batch / dims.w / dims.z % dims.y,
        batch / dims.w % dims.z,
        batch % dims.w,
    );
    return Bases(
        params.lhs_offset + dot4(at, params.lhs_batch),
        params.rhs_offset + dot4(at, params.rhs_batch),
        params.gate_offset + dot4(at, params.gate_batch),
        params.out_offset + dot4(at, params.out_batch),
        params.c_offset + dot4(at, params.c_batch),
        params.bias_offset + dot4(at, params.bias_batch),
        params.residual_offset + dot4(at, params.residual_batch),
    );
}

// The tile of a number within a batch: bands of rows, so that neighbours in time share both operands.
fn tile_of(number: u32) -> vec2<u32> {
    let area = params.band * params.tiles_n;
    let first = number / area * params.band;
    let rows = min(params.tiles_m - first, params.band);
    return vec2<u32>(first + number % area % rows, number % area / rows);
}

// Four neighbours along columns; what lies past the last is the last again.
fn indices(base: u32, row_stride: u32, col_stride: u32, row: u32, col: u32) -> vec4<u32> {
    let cols = min(col + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u));
    return base + row * row_stride + cols * col_stride;
}

fn c_at(index: u32) -> f32 {
    let count = lanes(params.c_dtype);
    return bitcast<f32>(widen(params.c_dtype, c[index / count] >> (index % count * 16u)));
}

fn bias_at(index: u32) -> f32 {
    let count = lanes(params.bias_dtype);
    return bitcast<f32>(widen(params.bias_dtype, bias[index / count] >> (index % count * 16u)));
}

fn residual_at(index: u32) -> f32 {
    let count = lanes(params.residual_dtype);
    return bitcast<f32>(widen(params.residual_dtype, residual[index / count] >> (index % count * 16u)));
}

fn out_at(index: u32) -> f32 {
    let count = per_word(OUT_DTYPE);
    return bitcast<f32>(element_of(OUT_DTYPE, from_word(out[index / count]), index % count));
}

fn activate(x: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(x);
    let zero = params.zero;
    var result = bits;
    switch params.activation {
        case RELU: { result = select(bits, vec4<u32>(0u), bits >= vec4<u32>(SIGN)); }
        case GELU: { result = gelu_of(bits, zero); }
        case GELU_TANH: { result = gelu_tanh_of(bits, zero); }
        case SILU: { result = gated(bits, x, zero); }
        default: {}
    }
    return bitcast<vec4<f32>>(select(result, vec4<u32>(0x7fc00000u), (bits & vec4<u32>(~SIGN)) > vec4<u32>(INFINITE)));
}

// Four sums of a row, and of lhs · gate: the elements of out.
fn finish(bases: Bases, row: u32, col: u32, sums: vec4<f32>, gates: vec4<f32>) -> vec4<f32> {
    if EPILOGUE == 0u {
        return sums;
    }
    var x = params.alpha * sums;
    if (params.has & HAS_C) != 0u {
        let at = indices(bases.c, params.c_row, params.c_col, row, col);
        x += params.beta * vec4<f32>(c_at(at.x), c_at(at.y), c_at(at.z), c_at(at.w));
    }
    if (params.has & HAS_BIAS) != 0u {
        let at = indices(bases.bias, params.bias_row, params.bias_col, row, col);
        x += vec4<f32>(bias_at(at.x), bias_at(at.y), bias_at(at.z), bias_at(at.w));
    }
    x = activate(x);
    if GATED == 1u {
        x *= params.alpha * gates;
    }
    if (params.has & HAS_RESIDUAL) != 0u {
        let at = indices(bases.residual, params.residual_row, params.residual_col, row, col);
        x += vec4<f32>(residual_at(at.x), residual_at(at.y), residual_at(at.z), residual_at(at.w));
    }
    if (params.has & ACCUMULATE) != 0u {
        let at = indices(bases.out, params.out_row, params.out_col, row, col);
        x += vec4<f32>(out_at(at.x), out_at(at.y), out_at(at.z), out_at(at.w));
    }
    return x;
}

// Writes the eight of a row that begins at col, as far as it lies in out. Scalar: `out` of 16 bits is made of whole pairs.
fn store(base: u32, row: u32, col: u32, low: vec4<f32>, high: vec4<f32>) {
    if row >= params.m || col >= params.n {
        return;
    }
    let eight = Eight(bitcast<vec4<u32>>(low), bitcast<vec4<u32>>(high));
    let start = base + row * params.out_row;
    if VECTOR {
        let at = (start + col) / per_word(OUT_DTYPE);
        out[at] = to_word(pack(OUT_DTYPE, eight));
        if second(OUT_DTYPE) == 1u {
            out[at + 1u] = to_word(eight.high);
        }
    } else if lanes(OUT_DTYPE) == 1u {
        for (var i = 0u; i < 8u; i++) {
            if col + i < params.n {
                out[start + (col + i) * params.out_col] = to_word(vec4<u32>(select(eight.low[i % 4u], eight.high[i % 4u], i > 3u)));
            }
        }
    } else {
        let pairs = pack(OUT_DTYPE, eight);
        for (var i = 0u; i < 4u; i++) {
            if col + 2u * i < params.n {
                out[(start + col) / 2u + i] = to_word(vec4<u32>(pairs[i]));
            }
        }
    }
}
