// c = a · b, f32, row-major: 16 x 16 elements a workgroup, one an invocation; both operands come in through workgroup memory, 16 of k at a time.
// The second rung of the ladder in ARCHITECTURE.md, beside the frozen naive_matmul.wgsl; do not tune it.
struct Params { m: u32, n: u32, k: u32, pad: u32 }
@group(0) @binding(0) var<storage, read>       a: array<f32>;
@group(0) @binding(1) var<storage, read>       b: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<uniform>             params: Params;

var<workgroup> left: array<f32, 256>;
var<workgroup> right: array<f32, 256>;

@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let row = min(id.y, params.m - 1u);
    let col = min(id.x, params.n - 1u);
    var sum = 0.0;
    for (var i = 0u; i < params.k; i += 16u) {
        let x = i + at.x;
        let y = i + at.y;
        left[at.y * 16u + at.x] = select(0.0, a[row * params.k + min(x, params.k - 1u)], x < params.k);
        right[at.y * 16u + at.x] = select(0.0, b[min(y, params.k - 1u) * params.n + col], y < params.k);
        workgroupBarrier();
        for (var j = 0u; j < 16u; j++) { sum += left[at.y * 16u + j] * right[j * 16u + at.x]; }
        workgroupBarrier();
    }
    if id.x < params.n && id.y < params.m { c[id.y * params.n + id.x] = sum; }
}
