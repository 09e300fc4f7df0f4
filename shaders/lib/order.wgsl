// Floats compared by their bits: WGSL may assume that NaN and infinities do not occur, and leaves min and max of zeros open.

// Grows with the float: -inf lowest, -0 just below 0.
fn order(bits: vec4<u32>) -> vec4<i32> {
    let number = bitcast<vec4<i32>>(bits);
    return select(number, number ^ vec4<i32>(0x7fffffff), number < vec4<i32>(0));
}

fn lowest_of(lhs: vec4<u32>, rhs: vec4<u32>) -> vec4<u32> {
    return select(rhs, lhs, order(lhs) <= order(rhs));
}

fn highest_of(lhs: vec4<u32>, rhs: vec4<u32>) -> vec4<u32> {
    return select(rhs, lhs, order(lhs) >= order(rhs));
}
