// out[row, col] = sum over i of lhs[row, i] * rhs[i, col], for each batch.
// One workgroup makes a tile of TILE_M x TILE_N; one invocation ROWS x 4 of it, in registers. Both operands pass through workgroup
// memory in steps of TILE_K, lhs transposed so that a row group is contiguous. Any strides: transposes cost no spec of their own.
// Traffic: lhs is read n / TILE_N times, rhs m / TILE_M times, out written once.

const TILE_M: u32 = 64u;
const TILE_N: u32 = 64u;
const TILE_K: u32 = 16u;
const ROWS: u32 = 4u;

const VECS_N: u32 = TILE_N / 4u;
const THREADS: u32 = TILE_M / ROWS * VECS_N;

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
    pad: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> lhs: array<f32>;
@group(0) @binding(2) var<storage, read> rhs: array<f32>;
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
    return lhs[base + row * params.lhs_row + i * params.lhs_col];
}

fn rhs_at(base: u32, i: u32, col: u32) -> f32 {
    if i >= params.k || col >= params.n {
        return 0.0;
    }
    return rhs[base + i * params.rhs_row + col * params.rhs_col];
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = group.x + grid.x * (group.y + grid.y * group.z);
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

    let lane_row = lane / VECS_N * ROWS;
    let lane_vec = lane % VECS_N;
    var sums: array<vec4<f32>, ROWS>;
    for (var step = 0u; step < params.k; step += TILE_K) {
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
        workgroupBarrier();
        for (var i = 0u; i < TILE_K; i++) {
            let right = rhs_tile[i * VECS_N + lane_vec];
            for (var r = 0u; r < ROWS; r++) {
                sums[r] += lhs_tile[i * TILE_M + lane_row + r] * right;
            }
        }
        workgroupBarrier();
    }

    let col = tile_col + lane_vec * 4u;
    for (var r = 0u; r < ROWS; r++) {
        let row = tile_row + lane_row + r;
        if row < params.m {
            for (var c = 0u; c < 4u; c++) {
                if col + c < params.n {
                    out[out_base + row * params.out_row + (col + c) * params.out_col] = sums[r][c];
                }
            }
        }
    }
}
