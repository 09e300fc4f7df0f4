// Philox4x32-10 (Salmon et al., SC 2011), the same function as src/philox.rs.

// The high and the low word of a product.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let a_high = a >> 16u;
    let a_low = a & 0xffffu;
    let b_high = b >> 16u;
    let b_low = b & 0xffffu;
    let low = a_low * b_low;
    let middle = a_high * b_low + (low >> 16u);
    let carry = a_low * b_high + (middle & 0xffffu);
    return vec2<u32>(a_high * b_high + (middle >> 16u) + (carry >> 16u), a * b);
}

fn philox(start: vec4<u32>, start_key: vec2<u32>) -> vec4<u32> {
    var counter = start;
    var key = start_key;
    for (var round = 0u; round < 10u; round++) {
        let first = wide_product(0xd2511f53u, counter.x);
        let other = wide_product(0xcd9e8d57u, counter.z);
        counter = vec4<u32>(other.x ^ counter.y ^ key.x, other.y, first.x ^ counter.w ^ key.y, first.y);
        key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return counter;
}
