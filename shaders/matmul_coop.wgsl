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
// In fours.
const LINE: u32 = PITCH / 4u;
const RHS_LINES: u32 = TILE_M * LINE;
const EIGHTS_K: u32 = TILE_K / 8u;
const EIGHTS_M: u32 = TILE_M / 8u;
const EIGHTS_N: u32 = TILE_N / 8u;
// Invocations that bring in one operand, four eights each; BOTH: they bring in the other one too, else it is left to as many more.
const WORKERS: u32 = TILE_M * EIGHTS_K / 4u;
const BOTH: bool = WORKERS == THREADS;
// From one eight to the next, where they lie along i.
const LINES: u32 = WORKERS / EIGHTS_K;
// The same, of all invocations and all lines.
const ALL_LINES: u32 = THREADS / EIGHTS_K;
// Two of a slot's matrices go to `finish` at a time, neighbours in a row; GATED, gate's beside rhs's.
const PATCH_ROW: u32 = 2u * COOP;
const PATCH: u32 = COOP * PATCH_ROW;
const PATCH_COLS: u32 = PATCH_ROW / (1u + GATED);
const PATCH_EIGHTS: u32 = PATCH_COLS / 8u;
// From a pair's first matrix to the next pair's, and to its second.
const PAIR: u32 = 2u - GATED;
const BESIDE: u32 = 1u + GATED;
const PATCH_PASSES: u32 = (SLOTS * COOP * PATCH_EIGHTS + THREADS - 1u) / THREADS;

// An eight of f16: naga 30 has no bitcast to f16, and by way of unpack2x16float each would be converted twice.
struct Operand {
    @align(16) low: vec4<f16>,
    high: vec4<f16>,
}

// A line is a row of lhs or a column of rhs or gate, in this order.
var<workgroup> lines: array<vec4<f16>, (TILE_M + TILE_N) * LINE>;
var<workgroup> patches: array<f32, SLOTS * PATCH>;

// An eight along i; places count fours.
fn put(at: u32, eight: Operand) {
    lines[at] = eight.low;
    lines[at + 1u] = eight.high;
}

// Four eights across lines, neighbours along i.
fn put_across(at: u32, a: Operand, b: Operand, d: Operand, e: Operand) {
    for (var j = 0u; j < 4u; j++) {
        lines[at + j * LINE] = vec4<f16>(a.low[j], b.low[j], d.low[j], e.low[j]);
        lines[at + (4u + j) * LINE] = vec4<f16>(a.high[j], b.high[j], d.high[j], e.high[j]);
    }
}

// What an invocation brings in of an operand, in each step.
struct Load {
    right: bool, // rhs or gate, else lhs
    along: bool, // the eights lie along i, of lines LINES apart; else across, neighbours along i
    gate: vec4<bool>,
    at: vec4<u32>, // in eights
    step: vec4<u32>, // to the next eight of i, times 8
    // Where they go, either way: a select would hide from compilers what is a multiple of 16 bytes.
    along_to: u32,
    across_to: u32,
}

struct Eights {
    a: Operand,
    b: Operand,
    d: Operand,
    e: Operand,
}

fn load_of(right: bool, worker: u32, origin: vec2<u32>, bases: Bases) -> Load {
    let p = vec4<u32>(0u, 1u, 2u, 3u);
    let along_to = worker / EIGHTS_K * LINE + worker % EIGHTS_K * 2u;
    if !right {
        let along = (params.along & 1u) != 0u;
        let row = select(vec4<u32>(worker % EIGHTS_M * 8u), worker / EIGHTS_K + p * LINES, along);
        let i = select(worker / EIGHTS_M * 4u + p, vec4<u32>(worker % EIGHTS_K * 8u), along);
        let at = (bases.lhs + (origin.x + row) * params.lhs_row + i * params.lhs_col) / 8u;
        let across_to = worker % EIGHTS_M * (8u * LINE) + worker / EIGHTS_M;
        return Load(false, along, vec4<bool>(), at, vec4<u32>(params.lhs_col), along_to, across_to);
    }
    let along = (params.along & 2u) == 0u;
    let line = select(vec4<u32>(worker % EIGHTS_N * 8u), worker / EIGHTS_K + p * LINES, along);
    let i = select(worker / EIGHTS_N * 4u + p, vec4<u32>(worker % EIGHTS_K * 8u), along);
    let of_gate = line >= vec4<u32>(OUT_N);
    var at = (bases.rhs + i * params.rhs_row + (origin.y + line) * params.rhs_col) / 8u;
    var step = vec4<u32>(params.rhs_row);
    if GATED == 1u {
        at = select(at, (bases.gate + i * params.gate_row + (origin.y + line - OUT_N) * params.gate_col) / 8u, of_gate);
        step = select(step, vec4<u32>(params.gate_row), of_gate);
    }
    let across_to = RHS_LINES + worker % EIGHTS_N * (8u * LINE) + worker / EIGHTS_N;
    return Load(true, along, of_gate, at, step, RHS_LINES + along_to, across_to);
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

// Those of the step that begins at 8 · ahead.
fn bring(load: Load, ahead: u32) -> Eights {
    let at = load.at + ahead * load.step;
    if !load.right {
        return Eights(left_of(at.x), left_of(at.y), left_of(at.z), left_of(at.w));
    }
    return Eights(right_of(load.gate.x, at.x), right_of(load.gate.y, at.y), right_of(load.gate.z, at.z), right_of(load.gate.w, at.w));
}

fn put_eights(load: Load, eights: Eights) {
    if load.along {
        put(load.along_to, eights.a);
        put(load.along_to + LINES * LINE, eights.b);
        put(load.along_to + 2u * LINES * LINE, eights.d);
        put(load.along_to + 3u * LINES * LINE, eights.e);
    } else {
        put_across(load.across_to, eights.a, eights.b, eights.d, eights.e);
    }
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

    let worker = lane % WORKERS;
    let first_load = load_of(!BOTH && lane >= WORKERS, worker, origin, bases);
    let second_load = load_of(true, worker, origin, bases);

    // A subgroup past the slots does the last one's work again, for nobody: naga 30 allows no branch round the matrices.
    let own = min(subgroup, SLOTS - 1u);
    let slot_row = own / SLOTS_N * SLOT;
    let slot_col = own % SLOTS_N * OUT_SLOT;
    var sums: array<Sum, 16>;
    var first_eights = bring(first_load, 0u);
    var second_eights: Eights;
    if BOTH {
        second_eights = bring(second_load, 0u);
    }
    for (var k = 0u; k < params.k; k += TILE_K) {
        put_eights(first_load, first_eights);
        if BOTH {
            put_eights(second_load, second_eights);
        }
        // From k on there are zeros on both sides, as 0 * inf would be NaN.
        if k + TILE_K > params.k {
            workgroupBarrier();
            if k + lane % EIGHTS_K * 8u >= params.k {
                let to = lane / EIGHTS_K * LINE + lane % EIGHTS_K * 2u;
                for (var p = 0u; p < (TILE_M + TILE_N) / ALL_LINES; p++) {
                    put(to + p * ALL_LINES * LINE, Operand(vec4<f16>(0.0h), vec4<f16>(0.0h)));
                }
            }
        }
        workgroupBarrier();
        // The eights of the next step are under way while this one is computed.
        first_eights = bring(first_load, (k + TILE_K) / 8u);
        if BOTH {
            second_eights = bring(second_load, (k + TILE_K) / 8u);
        }
        for (var i = 0u; i < TILE_K; i += COOP) {
            // naga 30 wants each index and stride of a cooperative access to be a `let`.
            let pitch = LINE;
            let top = slot_row * LINE + i / 4u;
            let top1 = top + 1u * COOP * LINE;
            let top2 = top + 2u * COOP * LINE;
            let top3 = top + 3u * COOP * LINE;
            let left0 = coopLoadT<Left>(&lines[top], pitch);
            let left1 = coopLoadT<Left>(&lines[top1], pitch);
            let left2 = coopLoadT<Left>(&lines[top2], pitch);
            let left3 = coopLoadT<Left>(&lines[top3], pitch);
            let first = RHS_LINES + slot_col * LINE + i / 4u;
            let first1 = first + (1u % OUT_COLS * COOP + 1u / OUT_COLS * OUT_N) * LINE;
            let first2 = first + (2u % OUT_COLS * COOP + 2u / OUT_COLS * OUT_N) * LINE;
            let first3 = first + (3u % OUT_COLS * COOP + 3u / OUT_COLS * OUT_N) * LINE;
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
    let first_patch = subgroup * PATCH;
    let beside = first_patch + COOP;
    let patch_pitch = PATCH_ROW;
    for (var t = 0u; t < 8u; t++) {
        if subgroup < SLOTS {
            switch t {
                case 0u: {
                    coopStoreT(sums[0 + 0 * PAIR], &patches[first_patch], patch_pitch);
                    coopStoreT(sums[0 + 0 * PAIR + BESIDE], &patches[beside], patch_pitch);
                }
                case 1u: {
                    coopStoreT(sums[0 + 1 * PAIR], &patches[first_patch], patch_pitch);
                    coopStoreT(sums[0 + 1 * PAIR + BESIDE], &patches[beside], patch_pitch);
                }
                case 2u: {
                    coopStoreT(sums[4 + 0 * PAIR], &patches[first_patch], patch_pitch);
                    coopStoreT(sums[4 + 0 * PAIR + BESIDE], &patches[beside], patch_pitch);
                }
                case 3u: {
                    coopStoreT(sums[4 + 1 * PAIR], &patches[first_patch], patch_pitch);
                    coopStoreT(sums[4 + 1 * PAIR + BESIDE], &patches[beside], patch_pitch);
                }
                case 4u: {
                    coopStoreT(sums[8 + 0 * PAIR], &patches[first_patch], patch_pitch);
                    coopStoreT(sums[8 + 0 * PAIR + BESIDE], &patches[beside], patch_pitch);
                }
                case 5u: {
                    coopStoreT(sums[8 + 1 * PAIR], &patches[first_patch], patch_pitch);
                    coopStoreT(sums[8 + 1 * PAIR + BESIDE], &patches[beside], patch_pitch);
                }
                case 6u: {
                    coopStoreT(sums[12 + 0 * PAIR], &patches[first_patch], patch_pitch);
                    coopStoreT(sums[12 + 0 * PAIR + BESIDE], &patches[beside], patch_pitch);
                }
                default: {
                    coopStoreT(sums[12 + 1 * PAIR], &patches[first_patch], patch_pitch);
                    coopStoreT(sums[12 + 1 * PAIR + BESIDE], &patches[beside], patch_pitch);
                }
            }
        }
        workgroupBarrier();
        for (var p = 0u; p < PATCH_PASSES; p++) {
            let e = lane + p * THREADS;
            let slot = e / (COOP * PATCH_EIGHTS);
            let row = e / PATCH_EIGHTS % COOP;
            let eight = e % PATCH_EIGHTS * 8u;
            let out_row = origin.x + slot / SLOTS_N * SLOT + t / 2u * COOP + row;
            let col = origin.y + slot % SLOTS_N * OUT_SLOT + t % 2u * PATCH_COLS + eight;
            if slot < SLOTS && out_row < params.m && col < params.n {
                let at = slot * PATCH + row * PATCH_ROW + eight;
                let gate_at = at + GATED * COOP;
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
