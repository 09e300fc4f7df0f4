// out[row, col] = finish(sum over i of lhs[row, i] * rhs[i, col]), for each batch, f16 in, sums in f32, by cooperative matrices.
// One workgroup makes a tile of TILE_M x TILE_N in slots of SLOT_M x SLOT_N; a slot's sums stay in the registers of one subgroup. The host
// sees to it that there are as many subgroups as slots, whatever size of theirs the driver takes.
// Both operands pass through workgroup memory in steps of TILE_K, i contiguous. Eights along the dense axis of each operand, and along the
// columns of out, begin at multiples of 8 and are whole; so is k. GATED: half of the columns are gate's, in each slot too.
// Traffic: lhs is read n / TILE_N times, rhs m / TILE_M times, out written once.

const TILE_M: u32 = 128u;
const TILE_N: u32 = 128u;
const TILE_K: u32 = 32u;
const SLOT_M: u32 = 64u;
const SLOT_N: u32 = 64u;
const THREADS: u32 = 256u;

const SLOTS_N: u32 = TILE_N / SLOT_N;
const SLOTS: u32 = TILE_M / SLOT_M * SLOTS_N;
const ROWS: u32 = SLOT_M / COOP;
const COLS: u32 = SLOT_N / COOP;
const OUT_N: u32 = TILE_N / (1u + GATED);
const OUT_SLOT_N: u32 = SLOT_N / (1u + GATED);
const OUT_COLS: u32 = COLS / (1u + GATED);
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
// A slot's two matrices that go to `finish` at a time: neighbours, or one of rhs and gate's beside it.
const PATCH: u32 = 2u;
const PATCH_COLS: u32 = PATCH / (1u + GATED);
const PATCH_PITCH: u32 = PATCH * COOP;
const PATCH_EIGHTS: u32 = PATCH_COLS * COOP / 8u;
const PATCH_PASSES: u32 = (SLOTS * COOP * PATCH_EIGHTS + THREADS - 1u) / THREADS;

// An eight of f16: naga 30 has no bitcast to f16, and by way of unpack2x16float each would be converted twice.
struct Operand {
    @align(16) low: vec4<f16>,
    high: vec4<f16>,
}

// A line is a row of lhs or a column of rhs or gate, in this order.
var<workgroup> lines: array<f16, (TILE_M + TILE_N) * PITCH>;
var<workgroup> patches: array<f32, SLOTS * COOP * PATCH_PITCH>;

// An eight along i.
fn put(at: u32, eight: Operand) {
    for (var j = 0u; j < 4u; j++) {
        lines[at + j] = eight.low[j];
        lines[at + 4u + j] = eight.high[j];
    }
}

// An eight across lines.
fn put_across(at: u32, eight: Operand) {
    for (var j = 0u; j < 4u; j++) {
        lines[at + j * PITCH] = eight.low[j];
        lines[at + (4u + j) * PITCH] = eight.high[j];
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
    let slot_row = own / SLOTS_N * SLOT_M;
    let slot_col = own % SLOTS_N * OUT_SLOT_N;
    var sums: array<Sum, ROWS * COLS>;
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
            // naga 30 wants each index and stride of a cooperative access to be a `let`.
            let pitch = PITCH;
            var left: array<Left, ROWS>;
            for (var r = 0u; r < ROWS; r++) {
                let at = (slot_row + r * COOP) * PITCH + i;
                left[r] = coopLoadT<Left>(&lines[at], pitch);
            }
            for (var c = 0u; c < COLS; c++) {
                let line = slot_col + c % OUT_COLS * COOP + c / OUT_COLS * OUT_N;
                let at = RHS_LINES + line * PITCH + i;
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
        for (var c = 0u; c < OUT_COLS; c += PATCH_COLS) {
            if subgroup < SLOTS {
                for (var q = 0u; q < PATCH; q++) {
                    let at = subgroup * COOP * PATCH_PITCH + q * COOP;
                    let pitch = PATCH_PITCH;
                    coopStoreT(sums[r * COLS + c + q % PATCH_COLS + q / PATCH_COLS * OUT_COLS], &patches[at], pitch);
                }
            }
            workgroupBarrier();
            for (var p = 0u; p < PATCH_PASSES; p++) {
                let e = lane + p * THREADS;
                let slot = e / (COOP * PATCH_EIGHTS);
                let row = origin.x + slot / SLOTS_N * SLOT_M + r * COOP + e / PATCH_EIGHTS % COOP;
                let col = origin.y + slot % SLOTS_N * OUT_SLOT_N + c * COOP + e % PATCH_EIGHTS * 8u;
                if slot < SLOTS && row < params.m && col < params.n {
                    let at = e / PATCH_EIGHTS * PATCH_PITCH + e % PATCH_EIGHTS * 8u;
                    let gate_at = at + GATED * COOP;
                    store(
                        bases.out, row, col,
                        finish(bases, row, col, four(at), four(gate_at)),
                        finish(bases, row, col + 4u, four(at + 4u), four(gate_at + 4u)),
                    );
                }
            }
            workgroupBarrier();
        }
    }
}
