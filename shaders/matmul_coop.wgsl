// out[row, col] = sum over i of lhs[row, i] * rhs[i, col], f16 in, sums in f32, by cooperative matrices (lib/coop_*.wgsl).
// One workgroup makes a tile of TILE_M x TILE_N in slots of SLOT_M x SLOT_N; a slot's sums stay in the registers of one subgroup. The host
// sees to it that there are as many subgroups as slots, whatever size of theirs the driver takes.
// Both operands pass through workgroup memory in steps of TILE_K, i contiguous. Eights along the dense axis of each operand, and along the
// columns of out, begin at multiples of 8 and are whole; so is k.
// Traffic: lhs is read n / TILE_N times, rhs m / TILE_M times, out written once.

const TILE_M: u32 = 128u;
const TILE_N: u32 = 128u;
const TILE_K: u32 = 32u;
const SLOT_M: u32 = 64u;
const SLOT_N: u32 = 64u;
const THREADS: u32 = 256u;
// Matrices side by side that a slot hands to `finish` at a time.
const PATCH: u32 = 2u;

const SLOTS_N: u32 = TILE_N / SLOT_N;
const SLOTS: u32 = TILE_M / SLOT_M * SLOTS_N;
const ROWS: u32 = SLOT_M / COOP;
const COLS: u32 = SLOT_N / COOP;
// 8 more than a line holds, so that neighbouring lines lie in other banks.
const PITCH: u32 = TILE_K + 8u;
const RHS_LINES: u32 = TILE_M * PITCH;
const EIGHTS_K: u32 = TILE_K / 8u;
const EIGHTS_M: u32 = TILE_M / 8u;
const EIGHTS_N: u32 = TILE_N / 8u;
// What one invocation carries in a step.
const LHS_EIGHTS: u32 = TILE_M * EIGHTS_K / THREADS;
const RHS_EIGHTS: u32 = TILE_N * EIGHTS_K / THREADS;
// From one of them to the next, where they lie along i.
const LINES: u32 = THREADS / EIGHTS_K;
const PATCH_PITCH: u32 = PATCH * COOP;
const PATCH_EIGHTS: u32 = PATCH_PITCH / 8u;
const PATCH_PASSES: u32 = (SLOTS * COOP * PATCH_EIGHTS + THREADS - 1u) / THREADS;

struct Params {
    lhs_offset: u32,
    lhs_row: u32,
    lhs_col: u32,
    lhs_last: u32, // the number of the last eight in its buffer
    rhs_offset: u32,
    rhs_row: u32,
    rhs_col: u32,
    rhs_last: u32,
    out_offset: u32,
    out_row: u32,
    m: u32,
    n: u32,
    k: u32,
    tiles_n: u32,
    groups: u32,
    along: u32, // bit 0: eights of lhs lie along i, else along rows; bit 1: those of rhs along columns, else along i
}

// An eight of f16: naga 30 has no bitcast to f16, and by way of unpack2x16float each would be converted twice.
struct Halves {
    @align(16) low: vec4<f16>,
    high: vec4<f16>,
}

@group(0) @binding(0) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> lhs: array<Halves>;
@group(0) @binding(2) var<storage, read> rhs: array<Halves>;
@group(0) @binding(3) var<uniform> params: Params;

// A line is a row of lhs or a column of rhs: those of lhs come first.
var<workgroup> lines: array<f16, (TILE_M + TILE_N) * PITCH>;
var<workgroup> patches: array<f32, SLOTS * COOP * PATCH_PITCH>;

// An eight along i.
fn put(at: u32, eight: Halves) {
    for (var j = 0u; j < 4u; j++) {
        lines[at + j] = eight.low[j];
        lines[at + 4u + j] = eight.high[j];
    }
}

// An eight across lines.
fn put_across(at: u32, eight: Halves) {
    for (var j = 0u; j < 4u; j++) {
        lines[at + j * PITCH] = eight.low[j];
        lines[at + (4u + j) * PITCH] = eight.high[j];
    }
}

// 8 neighbours of a row of out.
fn finish(row: u32, col: u32, low: vec4<f32>, high: vec4<f32>) {
    if row >= params.m || col >= params.n {
        return;
    }
    let at = (params.out_offset + row * params.out_row + col) / 4u;
    out[at] = bitcast<vec4<u32>>(low);
    out[at + 1u] = bitcast<vec4<u32>>(high);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let number = group.x + grid.x * group.y;
    if number >= params.groups {
        return;
    }
    let tile_row = number / params.tiles_n * TILE_M;
    let tile_col = number % params.tiles_n * TILE_N;

    // The eights that this invocation carries. Along i: of lines LINES apart. Across: neighbours along i, so that it writes whole words.
    let lhs_along = (params.along & 1u) != 0u;
    var lhs_at: array<u32, LHS_EIGHTS>;
    for (var p = 0u; p < LHS_EIGHTS; p++) {
        let row = select(lane % EIGHTS_M * 8u, lane / EIGHTS_K + p * LINES, lhs_along);
        let i = select(lane / EIGHTS_M * LHS_EIGHTS + p, lane % EIGHTS_K * 8u, lhs_along);
        lhs_at[p] = (params.lhs_offset + (tile_row + row) * params.lhs_row + i * params.lhs_col) / 8u;
    }
    let rhs_along = (params.along & 2u) == 0u;
    var rhs_at: array<u32, RHS_EIGHTS>;
    for (var p = 0u; p < RHS_EIGHTS; p++) {
        let i = select(lane / EIGHTS_N * RHS_EIGHTS + p, lane % EIGHTS_K * 8u, rhs_along);
        let col = select(lane % EIGHTS_N * 8u, lane / EIGHTS_K + p * LINES, rhs_along);
        rhs_at[p] = (params.rhs_offset + i * params.rhs_row + (tile_col + col) * params.rhs_col) / 8u;
    }
    // Where they go. Not by a select, which would hide from compilers what is a multiple of 8.
    let put_at = lane / EIGHTS_K * PITCH + lane % EIGHTS_K * 8u;
    let lhs_across_at = lane % EIGHTS_M * (8u * PITCH) + lane / EIGHTS_M * LHS_EIGHTS;
    let rhs_across_at = RHS_LINES + lane % EIGHTS_N * (8u * PITCH) + lane / EIGHTS_N * RHS_EIGHTS;

    // A subgroup past the slots does the last one's work again, for nobody: naga 30 allows no branch round the matrices.
    let own = min(subgroup, SLOTS - 1u);
    let slot_row = own / SLOTS_N * SLOT_M;
    let slot_col = own % SLOTS_N * SLOT_N;
    var sums: array<Sum, ROWS * COLS>;
    // Rows and columns past the edges are whatever lies there in the buffer: what comes of them goes nowhere.
    var lhs_eights: array<Halves, LHS_EIGHTS>;
    for (var p = 0u; p < LHS_EIGHTS; p++) {
        lhs_eights[p] = lhs[min(lhs_at[p], params.lhs_last)];
    }
    var rhs_eights: array<Halves, RHS_EIGHTS>;
    for (var p = 0u; p < RHS_EIGHTS; p++) {
        rhs_eights[p] = rhs[min(rhs_at[p], params.rhs_last)];
    }
    for (var step = 0u; step < params.k; step += TILE_K) {
        if lhs_along {
            for (var p = 0u; p < LHS_EIGHTS; p++) {
                put(put_at + p * LINES * PITCH, lhs_eights[p]);
            }
        } else {
            for (var p = 0u; p < LHS_EIGHTS; p++) {
                put_across(lhs_across_at + p, lhs_eights[p]);
            }
        }
        if rhs_along {
            for (var p = 0u; p < RHS_EIGHTS; p++) {
                put(RHS_LINES + put_at + p * LINES * PITCH, rhs_eights[p]);
            }
        } else {
            for (var p = 0u; p < RHS_EIGHTS; p++) {
                put_across(rhs_across_at + p, rhs_eights[p]);
            }
        }
        // From k on there are zeros on both sides, as 0 * inf would be NaN.
        if step + TILE_K > params.k {
            workgroupBarrier();
            if step + lane % EIGHTS_K * 8u >= params.k {
                for (var p = 0u; p < LHS_EIGHTS + RHS_EIGHTS; p++) {
                    put(put_at + p * LINES * PITCH, Halves(vec4<f16>(0.0h), vec4<f16>(0.0h)));
                }
            }
        }
        workgroupBarrier();
        // The eights of the next step are under way while this one is computed.
        let ahead = (step + TILE_K) / 8u;
        for (var p = 0u; p < LHS_EIGHTS; p++) {
            lhs_eights[p] = lhs[min(lhs_at[p] + ahead * params.lhs_col, params.lhs_last)];
        }
        for (var p = 0u; p < RHS_EIGHTS; p++) {
            rhs_eights[p] = rhs[min(rhs_at[p] + ahead * params.rhs_row, params.rhs_last)];
        }
        for (var i = 0u; i < TILE_K; i += COOP) {
            // naga 30 wants each index and stride of a cooperative access to be a `let`.
            let pitch = PITCH;
            var left: array<Left, ROWS>;
            for (var r = 0u; r < ROWS; r++) {
                let at = (slot_row + r * COOP) * PITCH + i;
                left[r] = coopLoadT<Left>(&lines[at], pitch);
            }
            for (var c = 0u; c < COLS; c++) {
                let at = RHS_LINES + (slot_col + c * COOP) * PITCH + i;
                let right = coopLoad<Right>(&lines[at], pitch);
                for (var r = 0u; r < ROWS; r++) {
                    sums[r * COLS + c] = coopMultiplyAdd(left[r], right, sums[r * COLS + c]);
                }
            }
        }
        workgroupBarrier();
    }

    // A cooperative matrix shows its elements only in memory.
    for (var r = 0u; r < ROWS; r++) {
        for (var c = 0u; c < COLS; c += PATCH) {
            if subgroup < SLOTS {
                for (var q = 0u; q < PATCH; q++) {
                    let at = subgroup * COOP * PATCH_PITCH + q * COOP;
                    let pitch = PATCH_PITCH;
                    coopStoreT(sums[r * COLS + c + q], &patches[at], pitch);
                }
            }
            workgroupBarrier();
            for (var p = 0u; p < PATCH_PASSES; p++) {
                let e = lane + p * THREADS;
                let slot = e / (COOP * PATCH_EIGHTS);
                if slot < SLOTS {
                    let row = slot / SLOTS_N * SLOT_M + r * COOP + e / PATCH_EIGHTS % COOP;
                    let col = slot % SLOTS_N * SLOT_N + c * COOP + e % PATCH_EIGHTS * 8u;
                    let at = e * 8u;
                    let low = vec4<f32>(patches[at], patches[at + 1u], patches[at + 2u], patches[at + 3u]);
                    let high = vec4<f32>(patches[at + 4u], patches[at + 5u], patches[at + 6u], patches[at + 7u]);
                    finish(tile_row + row, tile_col + col, low, high);
                }
            }
            workgroupBarrier();
        }
    }
}
