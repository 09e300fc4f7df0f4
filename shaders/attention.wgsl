// out = softmax(scale * q * k^T + bias, masked) * v for each batch and head, by tiles (lib/attention_tiles.wgsl).
// The lanes of a row join their maxima through workgroup memory, in two steps of four.
// Traffic: k and v are read seq_q / BLOCK_Q times, q once a block of keys, out written once. Rows without a visible key give zeros.

fn highest_of_four(at: u32) -> vec4<f32> {
    return max(max(tile[at], tile[at + 1u]), max(tile[at + 2u], tile[at + 3u]));
}

fn join_highs(lane: u32, lane_m: u32, lane_n: u32, side: u32) {
    if OPTIONS == 1u {
        // Others have read the scores that they kept there.
        workgroupBarrier();
    }
    put(lane_m, lane_n);
    workgroupBarrier();
    if lane < BLOCK_Q {
        tile[V_AT + lane] = highest_of_four(4u * lane);
    }
    workgroupBarrier();
    let at = V_AT + lane_m * 4u;
    take(highest_of_four(at), highest_of_four(at + select(0u, LANES_M * 4u, ROWS == 8u)));
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
    attend(number, lane, 1u);
}
