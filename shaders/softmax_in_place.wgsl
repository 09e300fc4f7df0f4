// softmax.wgsl with one binding less: out is x. A lane reads and writes the same elements, and what another looked at was read before the
// lanes met.

const WORKGROUP: u32 = 256u;
const GROUP: u32 = 256u;
const HELD: u32 = 8u;
const ROUND: u32 = GROUP * 8u; // elements that the lanes of a row take at a time
const X_DTYPE: u32 = OUT_DTYPE;

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read> mask: array<Word>; // of any float type
@group(0) @binding(2) var<storage, read> sinks: array<u32>; // of any float type
@group(0) @binding(3) var<uniform> params: Params;

// The lanes' states, then those of eights of lanes, and of eights of these.
var<workgroup> partial: array<vec2<f32>, WORKGROUP + WORKGROUP / 8u + WORKGROUP / 64u>;

fn x_word(at: u32) -> Word {
    return out[at];
}

fn state_at(index: u32, there: bool) -> State {
    if !there {
        return nothing();
    }
    return State(partial[index].x, partial[index].y);
}

// Eight neighbours' states, or as many as there are, from a place on.
fn joined(start: u32, count: u32) -> State {
    let first = join(state_at(start, true), state_at(start + 1u, true));
    let second = join(state_at(start + 2u, true), state_at(start + 3u, true));
    let third = join(state_at(start + 4u, count > 4u), state_at(start + 5u, count > 5u));
    let fourth = join(state_at(start + 6u, count > 6u), state_at(start + 7u, count > 7u));
    return join(join(first, second), join(third, fourth));
}

// The state of the row from those of its lanes.
fn row_state(own: State, invocation: u32) -> State {
    let row = invocation / GROUP;
    let lane = invocation % GROUP;
    partial[invocation] = vec2<f32>(own.top, own.sum);
    workgroupBarrier();
    var start = 0u;
    for (var count = GROUP; count > 8u; count /= 8u) {
        let next = start + WORKGROUP / GROUP * count;
        if lane < count / 8u {
            let state = joined(start + row * count + lane * 8u, 8u);
            partial[next + row * (count / 8u) + lane] = vec2<f32>(state.top, state.sum);
        }
        workgroupBarrier();
        start = next;
    }
    let left = select(select(GROUP, GROUP / 8u, GROUP > 8u), GROUP / 64u, GROUP > 64u);
    return joined(start + row * left, left);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    rows(group.x + grid.x * group.y, invocation);
}
