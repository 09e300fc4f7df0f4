// softmax_columns.wgsl with one binding less: out is x. A slice writes what other slices have read: they met between.

const COLUMNS: u32 = 32u;
const SLICES: u32 = 8u;
const WORKGROUP: u32 = COLUMNS * SLICES;
const X_DTYPE: u32 = OUT_DTYPE;

@group(0) @binding(0) var<storage, read_write> out: array<Word>;
@group(0) @binding(1) var<storage, read> mask: array<Word>; // of any float type
@group(0) @binding(2) var<storage, read> sinks: array<u32>; // of any float type
@group(0) @binding(3) var<uniform> params: Params;

// Each slice's state of each row.
var<workgroup> partial: array<vec2<f32>, WORKGROUP>;

fn x_word(at: u32) -> Word {
    return out[at];
}

// All slices' states of a column.
fn column_state(own: State, column: u32, slice: u32) -> State {
    if SLICES == 1u {
        return own;
    }
    // What was there is read.
    workgroupBarrier();
    partial[slice * COLUMNS + column] = vec2<f32>(own.top, own.sum);
    workgroupBarrier();
    let low = join(join(partial_at(column, 0u), partial_at(column, 1u)), join(partial_at(column, 2u), partial_at(column, 3u)));
    let high = join(join(partial_at(column, 4u), partial_at(column, 5u)), join(partial_at(column, 6u), partial_at(column, 7u)));
    return join(low, high);
}

fn partial_at(column: u32, slice: u32) -> State {
    let at = min(slice, SLICES - 1u) * COLUMNS + column;
    return State(partial[at].x, partial[at].y);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    columns(group.x + grid.x * group.y, invocation);
}
