// Storage by 32 bits: any offsets, strides and lengths.

alias Word = u32;
const VECTOR: bool = false;

fn to_word(bits: vec4<u32>) -> Word {
    return bits.x;
}

fn from_word(word: Word) -> vec4<u32> {
    return vec4<u32>(word, 0u, 0u, 0u);
}
