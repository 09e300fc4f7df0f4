// out[row, col] = finish(sum over i of lhs[row, i] * rhs[i, col]), for each batch, f16 in, sums in f32, by cooperative matrices.
// One workgroup makes a tile of TILE_M x TILE_N in slots of 4 x 4 matrices; a slot's sums stay in the registers of one subgroup. The host
// sees to it that there are as many subgroups as slots, whatever size of theirs the driver takes. Those 16 are written out one by one: a loop
// that a compiler leaves as it is puts them in memory (NVIDIA's does: half the speed).
// Both operands pass through workgroup memory in steps of TILE_K, i contiguous. Eights along the dense axis of each operand, and along the
// columns of out, begin at multiples of 8 and are whole; so is k. GATED: half of the columns are gate's, in each slot too.
// Traffic: lhs is read n / TILE_N times, rhs m / TILE_M times, out written once.

const TILE_M: u32 = 128u;
const TILE_N: u32 = 128u;
const TILE_K: u32 = 32u;
const THREADS: u32 = 256u;

const SLOT: u32 = 4u * COOP;
const SLOTS_N: u32 = TILE_N / SLOT;
const SLOTS: u32 = TILE_M / SLOT * SLOTS_N;
const OUT_N: u32 = TILE_N / (1u + GATED);
const OUT_SLOT: u32 = SLOT / (1u + GATED);
const OUT_COLS: u32 = 4u / (1u + GATED);
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
// A row of a slot's matrices goes to `finish` at a time: GATED, gate's half of it beside rhs's.
const PATCH: u32 = COOP * SLOT;
const PATCH_EIGHTS: u32 = OUT_SLOT / 8u;
const PATCH_PASSES: u32 = (SLOTS * COOP * PATCH_EIGHTS + THREADS - 1u) / THREADS;

// An eight of f16: naga 30 has no bitcast to f16, and by way of unpack2x16float each would be converted twice.
struct Operand {
    @align(16) low: vec4<f16>,
    high: vec4<f16>,
}

// A line is a row of lhs or a column of rhs or gate, in this order.
var<workgroup> lines: array<vec4<f16>, (TILE_M + TILE_N) * PITCH / 4u>;
var<workgroup> patches: array<f32, SLOTS * PATCH>;

// An eight along i.
fn put(at: u32, eight: Operand) {
    lines[at / 4u] = eight.low;
    lines[at / 4u + 1u] = eight.high;
}

// An eight across lines.
fn put_across(at: u32, eight: Operand) {
    for (var j = 0u; j < 4u; j++) {
        lines[(at + j * PITCH) / 4u][at % 4u] = eight.low[j];
        lines[(at + (4u + j) * PITCH) / 4u][at % 4u] = eight.high[j];
    }
}

// Four of them, neighbours along i.
fn put_four_across(at: u32, a: Operand, b: Operand, d: Operand, e: Operand) {
    for (var j = 0u; j < 4u; j++) {
        lines[(at + j * PITCH) / 4u] = vec4<f16>(a.low[j], b.low[j], d.low[j], e.low[j]);
        lines[(at + (4u + j) * PITCH) / 4u] = vec4<f16>(a.high[j], b.high[j], d.high[j], e.high[j]);
    }
}

// Past the edges of a matrix is whatever lies there in the buffer: what comes of it goes nowhere.
fn left_of(at: u32) -> Operand {
    return lhs[min(at, arrayLength(&lhs) - 1u)];
}

fn right_of(of_gate: bool, at: u32) -> Operand {
    if GATED == 1u && of_gate {
        return gate[min(at, arrayLength(&gate) - 1u)];
    }
    return rhs[min(at, arrayLength(&rhs) - 1u)];
}

fn four(at: u32) -> vec4<f32> {
    return vec4<f32>(patches[at], patches[at + 1u], patches[at + 2u], patches[at + 3u]);
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
    let tiles = params.tiles_m * params.tiles_n;
    let origin = tile_of(number % tiles) * vec2<u32>(TILE_M, OUT_N);
    let bases = bases_of(number / tiles);

    // The eights that this invocation carries. Along i: of lines LINES apart. Across: neighbours along i, so that it writes whole words.
    let lhs_along = (params.along & 1u) != 0u;
    var lhs_at: array<u32, LHS_EIGHTS>;
    for (var p = 0u; p < LHS_EIGHTS; p++) {
        let row = select(lane % EIGHTS_M * 8u, lane / EIGHTS_K + p * LINES, lhs_along);
        let i = select(lane / EIGHTS_M * LHS_EIGHTS + p, lane % EIGHTS_K * 8u, lhs_along);
        lhs_at[p] = (bases.lhs + (origin.x + row) * params.lhs_row + i * params.lhs_col) / 8u;
    }
    let rhs_along = (params.along & 2u) == 0u;
    var rhs_at: array<u32, RHS_EIGHTS>;
    var of_gate: array<bool, RHS_EIGHTS>;
    for (var p = 0u; p < RHS_EIGHTS; p++) {
        let i = select(lane / EIGHTS_N * RHS_EIGHTS + p, lane % EIGHTS_K * 8u, rhs_along);
        let line = select(lane % EIGHTS_N * 8u, lane / EIGHTS_K + p * LINES, rhs_along);
        of_gate[p] = line >= OUT_N;
        rhs_at[p] = (bases.rhs + i * params.rhs_row + (origin.y + line) * params.rhs_col) / 8u;
        if GATED == 1u && of_gate[p] {
            rhs_at[p] = (bases.gate + i * params.gate_row + (origin.y + line - OUT_N) * params.gate_col) / 8u;
        }
    }
    // Where they go. Not by a select, which would hide from compilers what is a multiple of 8.
    let put_at = lane / EIGHTS_K * PITCH + lane % EIGHTS_K * 8u;
    let lhs_across_at = lane % EIGHTS_M * (8u * PITCH) + lane / EIGHTS_M * LHS_EIGHTS;
    let rhs_across_at = RHS_LINES + lane % EIGHTS_N * (8u * PITCH) + lane / EIGHTS_N * RHS_EIGHTS;

    // A subgroup past the slots does the last one's work again, for nobody: naga 30 allows no branch round the matrices.
    let own = min(subgroup, SLOTS - 1u);
    let slot_row = own / SLOTS_N * SLOT;
    let slot_col = own % SLOTS_N * OUT_SLOT;
    var sums: array<Sum, 16>;
    var lhs_eights: array<Operand, LHS_EIGHTS>;
    for (var p = 0u; p < LHS_EIGHTS; p++) {
        lhs_eights[p] = left_of(lhs_at[p]);
    }
    var rhs_eights: array<Operand, RHS_EIGHTS>;
    for (var p = 0u; p < RHS_EIGHTS; p++) {
        rhs_eights[p] = right_of(of_gate[p], rhs_at[p]);
    }
    for (var k = 0u; k < params.k; k += TILE_K) {
        if lhs_along {
            for (var p = 0u; p < LHS_EIGHTS; p++) {
                put(put_at + p * LINES * PITCH, lhs_eights[p]);
            }
        } else if LHS_EIGHTS == 4u {
            put_four_across(lhs_across_at, lhs_eights[0], lhs_eights[1], lhs_eights[2 % LHS_EIGHTS], lhs_eights[3 % LHS_EIGHTS]);
        } else {
            for (var p = 0u; p < LHS_EIGHTS; p++) {
                put_across(lhs_across_at + p, lhs_eights[p]);
            }
        }
        if rhs_along {
            for (var p = 0u; p < RHS_EIGHTS; p++) {
                put(RHS_LINES + put_at + p * LINES * PITCH, rhs_eights[p]);
            }
        } else if RHS_EIGHTS == 4u {
            put_four_across(rhs_across_at, rhs_eights[0], rhs_eights[1], rhs_eights[2 % RHS_EIGHTS], rhs_eights[3 % RHS_EIGHTS]);
        } else {
            for (var p = 0u; p < RHS_EIGHTS; p++) {
                put_across(rhs_across_at + p, rhs_eights[p]);
            }
        }
        // From k on there are zeros on both sides, as 0 * inf would be NaN.
        if k + TILE_K > params.k {
            workgroupBarrier();
            if k + lane % EIGHTS_K * 8u >= params.k {
                for (var p = 0u; p < LHS_EIGHTS + RHS_EIGHTS; p++) {
                    put(put_at + p * LINES * PITCH, Operand(vec4<f16>(0.0h), vec4<f16>(0.0h)));
                }
            }
        }
        workgroupBarrier();
        // The eights of the next step are under way while this one is computed.
        let ahead = (k + TILE_K) / 8u;
        for (var p = 0u; p < LHS_EIGHTS; p++) {
            lhs_eights[p] = left_of(lhs_at[p] + ahead * params.lhs_col);
        }
        for (var p = 0u; p < RHS_EIGHTS; p++) {
            let stride = select(params.rhs_row, params.gate_row, GATED == 1u && of_gate[p]);
            rhs_eights[p] = right_of(of_gate[p], rhs_at[p] + ahead * stride);
        }
        for (var i = 0u; i < TILE_K; i += COOP) {
            // naga 30 wants each index and stride of a cooperative access to be a `let`. They count fours.
            let pitch = PITCH / 4u;
            let top = (slot_row * PITCH + i) / 4u;
            let top1 = top + 1u * COOP * pitch;
            let top2 = top + 2u * COOP * pitch;
            let top3 = top + 3u * COOP * pitch;
            let left0 = coopLoadT<Left>(&lines[top], pitch);
            let left1 = coopLoadT<Left>(&lines[top1], pitch);
            let left2 = coopLoadT<Left>(&lines[top2], pitch);
            let left3 = coopLoadT<Left>(&lines[top3], pitch);
            let first = (RHS_LINES + slot_col * PITCH + i) / 4u;
            let first1 = first + (1u % OUT_COLS * COOP + 1u / OUT_COLS * OUT_N) * pitch;
            let first2 = first + (2u % OUT_COLS * COOP + 2u / OUT_COLS * OUT_N) * pitch;
            let first3 = first + (3u % OUT_COLS * COOP + 3u / OUT_COLS * OUT_N) * pitch;
            let right0 = coopLoad<Right>(&lines[first], pitch);
            sums[0] = coopMultiplyAdd(left0, right0, sums[0]);
            sums[4] = coopMultiplyAdd(left1, right0, sums[4]);
            sums[8] = coopMultiplyAdd(left2, right0, sums[8]);
            sums[12] = coopMultiplyAdd(left3, right0, sums[12]);
            let right1 = coopLoad<Right>(&lines[first1], pitch);
            sums[1] = coopMultiplyAdd(left0, right1, sums[1]);
            sums[5] = coopMultiplyAdd(left1, right1, sums[5]);
            sums[9] = coopMultiplyAdd(left2, right1, sums[9]);
            sums[13] = coopMultiplyAdd(left3, right1, sums[13]);
            let right2 = coopLoad<Right>(&lines[first2], pitch);
            sums[2] = coopMultiplyAdd(left0, right2, sums[2]);
            sums[6] = coopMultiplyAdd(left1, right2, sums[6]);
            sums[10] = coopMultiplyAdd(left2, right2, sums[10]);
            sums[14] = coopMultiplyAdd(left3, right2, sums[14]);
            let right3 = coopLoad<Right>(&lines[first3], pitch);
            sums[3] = coopMultiplyAdd(left0, right3, sums[3]);
            sums[7] = coopMultiplyAdd(left1, right3, sums[7]);
            sums[11] = coopMultiplyAdd(left2, right3, sums[11]);
            sums[15] = coopMultiplyAdd(left3, right3, sums[15]);
        }
        workgroupBarrier();
    }

    // A cooperative matrix shows its elements only in memory.
    let patch0 = subgroup * PATCH;
    let patch1 = patch0 + COOP;
    let patch2 = patch0 + 2u * COOP;
    let patch3 = patch0 + 3u * COOP;
    let patch_pitch = SLOT;
    for (var r = 0u; r < 4u; r++) {
        if subgroup < SLOTS {
            switch r {
                case 0u: {
                    coopStoreT(sums[0], &patches[patch0], patch_pitch);
                    coopStoreT(sums[1], &patches[patch1], patch_pitch);
                    coopStoreT(sums[2], &patches[patch2], patch_pitch);
                    coopStoreT(sums[3], &patches[patch3], patch_pitch);
                }
                case 1u: {
                    coopStoreT(sums[4], &patches[patch0], patch_pitch);
                    coopStoreT(sums[5], &patches[patch1], patch_pitch);
                    coopStoreT(sums[6], &patches[patch2], patch_pitch);
                    coopStoreT(sums[7], &patches[patch3], patch_pitch);
                }
                case 2u: {
                    coopStoreT(sums[8], &patches[patch0], patch_pitch);
                    coopStoreT(sums[9], &patches[patch1], patch_pitch);
                    coopStoreT(sums[10], &patches[patch2], patch_pitch);
                    coopStoreT(sums[11], &patches[patch3], patch_pitch);
                }
                default: {
                    coopStoreT(sums[12], &patches[patch0], patch_pitch);
                    coopStoreT(sums[13], &patches[patch1], patch_pitch);
                    coopStoreT(sums[14], &patches[patch2], patch_pitch);
                    coopStoreT(sums[15], &patches[patch3], patch_pitch);
                }
            }
        }
        workgroupBarrier();
        for (var p = 0u; p < PATCH_PASSES; p++) {
            let e = lane + p * THREADS;
            let slot = e / (COOP * PATCH_EIGHTS);
            let row = e / PATCH_EIGHTS % COOP;
            let eight = e % PATCH_EIGHTS * 8u;
            let out_row = origin.x + slot / SLOTS_N * SLOT + r * COOP + row;
            let col = origin.y + slot % SLOTS_N * OUT_SLOT + eight;
            if slot < SLOTS && out_row < params.m && col < params.n {
                let at = slot * PATCH + row * SLOT + eight;
                let gate_at = at + GATED * OUT_SLOT;
                store(
                    bases.out, out_row, col,
                    finish(bases, out_row, col, four(at), four(gate_at)),
                    finish(bases, out_row, col + 4u, four(at + 4u), four(gate_at + 4u)),
                );
            }
        }
        workgroupBarrier();
    }
}
