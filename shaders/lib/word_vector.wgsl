// Storage by 16 bytes: the host has proven that every run begins at a multiple of 8 elements and holds whole eights.

alias Word = vec4<u32>;
const VECTOR: bool = true;

fn to_word(bits: vec4<u32>) -> Word {
    return bits;
}

fn from_word(word: Word) -> vec4<u32> {
    return word;
}
