// out[row, col] = sum over i of lhs[row, i] * rhs[i, col], for each batch, in f32.
// One workgroup makes a tile of TILE_M x TILE_N; one invocation ROWS x 8 of it, in registers. Both operands pass through workgroup
// memory in steps of TILE_K, lhs transposed so that a row group is contiguous. Any strides: transposes cost no spec of their own. Vector:
// eights along whichever axis of an operand is dense. Scalar: `out` of 16 bits is made of whole pairs.
// Traffic: lhs is read n / TILE_N times, rhs m / TILE_M times, out written once.

const OUT_DTYPE: u32 = 0u;
const LHS_DTYPE: u32 = 0u;
const RHS_DTYPE: u32 = 0u;
const TILE_M: u32 = 64u;
const TILE_N: u32 = 64u;
const TILE_K: u32 = 16u;
const ROWS: u32 = 4u;

const VECS_N: u32 = TILE_N / 4u;
const EIGHTS_N: u32 = TILE_N / 8u;
const EIGHTS_M: u32 = TILE_M / 8u;
const EIGHTS_K: u32 = TILE_K / 8u;
const THREADS: u32 = TILE_M / ROWS * EIGHTS_N;

struct Params {
    batch_dims: vec4<u32>,
    lhs_batch: vec4<u32>,
    rhs_batch: vec4<u32>,
    out_batch: vec4<u32>,
    lhs_offset: u32,
    lhs_row: u32,
    lhs_col: u32,
    rhs_offset: u32,
    rhs_row: u32,
    rhs_col: u32,
    out_offset: u32,
    out_row: u32,
    out_col: u32,
    m: u32,
    n: u32,
    k: u32,
    tiles_m: u32,
    tiles_n: u32,
    groups: u32,
    along: u32, // bit 0: eights of lhs lie along i, else along rows; bit 1: those of rhs along columns, else along i
}

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read> lhs: array<Word>;
@group(0) @binding(2) var<storage, read> rhs: array<Word>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> lhs_tile: array<f32, TILE_K * TILE_M>;
var<workgroup> rhs_tile: array<vec4<f32>, TILE_K * VECS_N>;

fn dot4(a: vec4<u32>, b: vec4<u32>) -> u32 {
    return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

// Outside the matrices there are zeros.
fn lhs_at(base: u32, row: u32, i: u32) -> f32 {
    if row >= params.m || i >= params.k {
        return 0.0;
    }
    let index = base + row * params.lhs_row + i * params.lhs_col;
    let count = per_word(LHS_DTYPE);
    return bitcast<f32>(element_of(LHS_DTYPE, from_word(lhs[index / count]), index % count));
}

fn rhs_at(base: u32, i: u32, col: u32) -> f32 {
    if i >= params.k || col >= params.n {
        return 0.0;
    }
    let index = base + i * params.rhs_row + col * params.rhs_col;
    let count = per_word(RHS_DTYPE);
    return bitcast<f32>(element_of(RHS_DTYPE, from_word(rhs[index / count]), index % count));
}

// Eights begin at multiples of 8 and lie inside or outside as a whole.
fn lhs_eight(base: u32, row: u32, i: u32) -> Eight {
    if row >= params.m || i >= params.k {
        return Eight(vec4<u32>(0u), vec4<u32>(0u));
    }
    let at = (base + row * params.lhs_row + i * params.lhs_col) / per_word(LHS_DTYPE);
    return unpack(LHS_DTYPE, from_word(lhs[at]), from_word(lhs[at + second(LHS_DTYPE)]));
}

fn rhs_eight(base: u32, i: u32, col: u32) -> Eight {
    if i >= params.k || col >= params.n {
        return Eight(vec4<u32>(0u), vec4<u32>(0u));
    }
    let at = (base + i * params.rhs_row + col * params.rhs_col) / per_word(RHS_DTYPE);
    return unpack(RHS_DTYPE, from_word(rhs[at]), from_word(rhs[at + second(RHS_DTYPE)]));
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
    let tile_col = number % params.tiles_n * TILE_N;
    let tile_row = number / params.tiles_n % params.tiles_m * TILE_M;
    let batch = number / params.tiles_n / params.tiles_m;
    let dims = params.batch_dims;
    let coords = vec4<u32>(
        batch / dims.w / dims.z / dims.y,
        batch / dims.w / dims.z % dims.y,
        batch / dims.w % dims.z,
        batch % dims.w,
    );
    let lhs_base = params.lhs_offset + dot4(coords, params.lhs_batch);
    let rhs_base = params.rhs_offset + dot4(coords, params.rhs_batch);
    let out_base = params.out_offset + dot4(coords, params.out_batch);

    let lane_row = lane / EIGHTS_N * ROWS;
    let lane_eight = lane % EIGHTS_N;
    // Two vec4s a row.
    var sums: array<vec4<f32>, 2u * ROWS>;
    for (var step = 0u; step < params.k; step += TILE_K) {
        if VECTOR {
            if (params.along & 1u) != 0u {
                for (var e = lane; e < TILE_M * EIGHTS_K; e += THREADS) {
                    let row = e / EIGHTS_K;
                    let i = e % EIGHTS_K * 8u;
                    let eight = lhs_eight(lhs_base, tile_row + row, step + i);
                    for (var j = 0u; j < 4u; j++) {
                        lhs_tile[(i + j) * TILE_M + row] = bitcast<f32>(eight.low[j]);
                        lhs_tile[(i + 4u + j) * TILE_M + row] = bitcast<f32>(eight.high[j]);
                    }
                }
            } else {
                for (var e = lane; e < TILE_K * EIGHTS_M; e += THREADS) {
                    let i = e / EIGHTS_M;
                    let row = e % EIGHTS_M * 8u;
                    let eight = lhs_eight(lhs_base, tile_row + row, step + i);
                    for (var j = 0u; j < 4u; j++) {
                        lhs_tile[i * TILE_M + row + j] = bitcast<f32>(eight.low[j]);
                        lhs_tile[i * TILE_M + row + 4u + j] = bitcast<f32>(eight.high[j]);
                    }
                }
            }
            if (params.along & 2u) != 0u {
                for (var e = lane; e < TILE_K * EIGHTS_N; e += THREADS) {
                    let i = e / EIGHTS_N;
                    let eight = rhs_eight(rhs_base, step + i, tile_col + e % EIGHTS_N * 8u);
                    rhs_tile[2u * e] = bitcast<vec4<f32>>(eight.low);
                    rhs_tile[2u * e + 1u] = bitcast<vec4<f32>>(eight.high);
                }
            } else {
                // Four columns together, so that one invocation writes whole vec4s.
                for (var e = lane; e < VECS_N * EIGHTS_K; e += THREADS) {
                    let i = e / VECS_N * 8u;
                    let vec = e % VECS_N;
                    let col = tile_col + vec * 4u;
                    let a = rhs_eight(rhs_base, step + i, col);
                    let b = rhs_eight(rhs_base, step + i, col + 1u);
                    let c = rhs_eight(rhs_base, step + i, col + 2u);
                    let d = rhs_eight(rhs_base, step + i, col + 3u);
                    for (var j = 0u; j < 4u; j++) {
                        rhs_tile[(i + j) * VECS_N + vec] = bitcast<vec4<f32>>(vec4<u32>(a.low[j], b.low[j], c.low[j], d.low[j]));
                        rhs_tile[(i + 4u + j) * VECS_N + vec] = bitcast<vec4<f32>>(vec4<u32>(a.high[j], b.high[j], c.high[j], d.high[j]));
                    }
                }
            }
        } else {
            for (var e = lane; e < TILE_M * TILE_K; e += THREADS) {
                let row = e / TILE_K;
                let i = e % TILE_K;
                lhs_tile[i * TILE_M + row] = lhs_at(lhs_base, tile_row + row, step + i);
            }
            for (var e = lane; e < TILE_K * VECS_N; e += THREADS) {
                let i = step + e / VECS_N;
                let col = tile_col + e % VECS_N * 4u;
                rhs_tile[e] = vec4<f32>(
                    rhs_at(rhs_base, i, col),
                    rhs_at(rhs_base, i, col + 1u),
                    rhs_at(rhs_base, i, col + 2u),
                    rhs_at(rhs_base, i, col + 3u),
                );
            }
        }
        workgroupBarrier();
        for (var i = 0u; i < TILE_K; i++) {
            let low = rhs_tile[i * VECS_N + lane_eight * 2u];
            let high = rhs_tile[i * VECS_N + lane_eight * 2u + 1u];
            for (var r = 0u; r < ROWS; r++) {
                let left = lhs_tile[i * TILE_M + lane_row + r];
                sums[2u * r] += left * low;
                sums[2u * r + 1u] += left * high;
            }
        }
        workgroupBarrier();
    }

    let col = tile_col + lane_eight * 8u;
    for (var r = 0u; r < ROWS; r++) {
        let row = tile_row + lane_row + r;
        if row >= params.m {
            break;
        }
        let base = out_base + row * params.out_row;
        let eight = Eight(bitcast<vec4<u32>>(sums[2u * r]), bitcast<vec4<u32>>(sums[2u * r + 1u]));
        if VECTOR {
            if col < params.n {
                let at = (base + col) / per_word(OUT_DTYPE);
                out[at] = to_word(pack(OUT_DTYPE, eight));
                if second(OUT_DTYPE) == 1u {
                    out[at + 1u] = to_word(eight.high);
                }
            }
        } else if lanes(OUT_DTYPE) == 1u {
            for (var c = 0u; c < 8u; c++) {
                if col + c < params.n {
                    let value = select(eight.low[c % 4u], eight.high[c % 4u], c > 3u);
                    out[base + (col + c) * params.out_col] = to_word(vec4<u32>(value));
                }
            }
        } else {
            let pairs = pack(OUT_DTYPE, eight);
            for (var c = 0u; c < 4u; c++) {
                if col + 2u * c < params.n {
                    out[(base + col) / 2u + c] = to_word(vec4<u32>(pairs[c]));
                }
            }
        }
    }
}
