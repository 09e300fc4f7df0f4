// One element of any type as a number, and back: by arithmetic that is exact, so that every device gives the same bits.
// A float is carried as the bits of an f32, which holds every f16 and bf16; an integer as sign and magnitude.

struct Number {
    integer: bool,
    negative: bool,
    bits: u32,
}

// The element in lane `lane` of a word.
fn decode(dtype: u32, word: u32, lane: u32) -> Number {
    switch dtype {
        case F16: { return Number(false, false, f16_to_f32((word >> (16u * lane)) & 0xffffu)); }
        case BF16: { return Number(false, false, (word >> (16u * lane)) << 16u); }
        case I32: {
            let negative = (word >> 31u) == 1u;
            return Number(true, negative, select(word, ~word + 1u, negative));
        }
        case U32: { return Number(true, false, word); }
        case U8: { return Number(true, false, (word >> (8u * lane)) & 0xffu); }
        case BOOL: { return Number(true, false, select(0u, 1u, ((word >> (8u * lane)) & 0xffu) != 0u)); }
        default: { return Number(false, false, word); }
    }
}

// The bits of the number in a type, in the low end of a word.
fn encode(dtype: u32, number: Number) -> u32 {
    switch dtype {
        case F16: { return f32_to_f16(as_f32(number, true)); }
        case BF16: { return f32_to_bf16(as_f32(number, true)); }
        case I32: {
            let whole = as_integer(number);
            let limit = select(0x7fffffffu, 0x80000000u, whole.negative);
            let magnitude = min(whole.bits, limit);
            return select(magnitude, ~magnitude + 1u, whole.negative);
        }
        case U32: {
            let whole = as_integer(number);
            return select(whole.bits, 0u, whole.negative);
        }
        case U8: {
            let whole = as_integer(number);
            return select(min(whole.bits, 255u), 0u, whole.negative);
        }
        case BOOL: {
            let mask = select(0x7fffffffu, 0xffffffffu, number.integer);
            return select(0u, 1u, (number.bits & mask) != 0u);
        }
        default: { return as_f32(number, false); }
    }
}

// Shifts right by 1 to 31 and rounds to nearest even; or to odd, so that a later rounding is the only one.
fn shift_round(value: u32, shift: u32, odd: bool) -> u32 {
    let kept = value >> shift;
    let rest = value & ((1u << shift) - 1u);
    let half = 1u << (shift - 1u);
    let up = rest > half || (rest == half && (kept & 1u) == 1u);
    return select(kept + select(0u, 1u, up), kept | select(0u, 1u, rest != 0u), odd);
}

// The bits of the nearest f32 (or of the one rounded to odd).
fn as_f32(number: Number, odd: bool) -> u32 {
    if !number.integer || number.bits == 0u {
        return number.bits;
    }
    let lead = 31u - countLeadingZeros(number.bits);
    var mantissa = number.bits << (23u - min(lead, 23u));
    if lead > 23u {
        mantissa = shift_round(number.bits, lead - 23u, odd);
    }
    // A mantissa that rounded up to 2^24 carries into the exponent.
    let bits = ((lead + 126u) << 23u) + mantissa;
    return bits | select(0u, 0x80000000u, number.negative);
}

// Truncated towards zero; saturated at 2^32 - 1; NaN is 0.
fn as_integer(number: Number) -> Number {
    if number.integer {
        return number;
    }
    let magnitude = number.bits & 0x7fffffffu;
    let exponent = magnitude >> 23u;
    let negative = (number.bits >> 31u) == 1u;
    if magnitude > 0x7f800000u || exponent < 127u {
        return Number(true, false, 0u);
    }
    if exponent >= 159u {
        return Number(true, negative, 0xffffffffu);
    }
    let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    let down = 150u - min(exponent, 150u);
    let up = max(exponent, 150u) - 150u;
    return Number(true, negative, (mantissa >> down) << up);
}
