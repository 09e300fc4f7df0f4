// out = softmax(scale * q * k^T + bias, masked) * v for each batch and head, by tiles (lib/attention_tiles.wgsl), where there are subgroups.
// The lanes of a row join their maxima by shuffles, without a barrier where 16 lanes are in one subgroup; of smaller ones, of 4 or 8, the
// partial results go through workgroup memory. Lanes are numbered by subgroup, as nothing says which lane of a workgroup is where.
// Traffic: as attention's.

fn highest(own: vec4<f32>, side: u32) -> vec4<f32> {
    var most = max(own, subgroupShuffleXor(own, 1u));
    most = max(most, subgroupShuffleXor(most, 2u));
    if side > 4u {
        most = max(most, subgroupShuffleXor(most, 4u));
    }
    if side > 8u {
        most = max(most, subgroupShuffleXor(most, 8u));
    }
    return most;
}

// What a row's subgroups have, up to four of them, in the place of v.
fn put_highs(low: vec4<f32>, high: vec4<f32>, lane_m: u32, lane_n: u32, side: u32) {
    if lane_n % side == 0u {
        let at = V_AT + 8u * lane_m + lane_n / side;
        tile[at] = low;
        tile[at + 4u] = high;
    }
}

fn join_highs(lane: u32, lane_m: u32, lane_n: u32, side: u32) {
    var low = highest(vec4<f32>(parts[0], parts[1], parts[2], parts[3]), side);
    var high = low;
    if ROWS == 8u {
        high = highest(vec4<f32>(parts[4], parts[5], parts[6], parts[7]), side);
    }
    if side < LANES_N {
        put_highs(low, high, lane_m, lane_n, side);
        workgroupBarrier();
        for (var i = 0u; i < LANES_N / side; i++) {
            low = max(low, tile[V_AT + 8u * lane_m + i]);
            high = max(high, tile[V_AT + 8u * lane_m + 4u + i]);
        }
    }
    take(low, high);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(subgroup_id) slot: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) place: u32,
) {
    let number = group.x + grid.x * group.y;
    if number >= params.groups {
        return;
    }
    attend(number, slot * size + place, min(size, LANES_N));
}
