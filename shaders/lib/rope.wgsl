// What RoPE's kernels share: the tables, how a row finds its angles, and the units of work. Needs lib/rotation.wgsl, lib/element.wgsl, and
// of the kernel `out`, `params` and `load`.

struct Params {
    x_strides: vec4<u32>, // batch, heads, seq, head_dim
    out_strides: vec4<u32>,
    positions_strides: vec4<u32>, // streams, batch, seq, nothing
    sections: vec4<u32>, // frequencies of each stream
    x_offset: u32,
    out_offset: u32,
    heads: u32,
    seq: u32,
    half: u32, // pairs of a row
    turning: u32, // units of a row that turn; the others pass
    row_units: u32,
    units: u32,
    style: u32, // 0: pairs (i, i + half); 1: INTERLEAVED
    streams: u32, // 0: a row has one position; 1: three, in sections; 2: in turn
    sign: u32, // of the sines
    positions_offset: u32,
    has_positions: u32,
    offset: u32, // the first row's position, without positions
    table_rows: u32,
    cosines_offset: u32,
    cosines_row: u32,
    cosines_step: u32,
    sines_offset: u32,
    sines_row: u32,
    sines_step: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read> cosines: array<Word>;
@group(0) @binding(3) var<storage, read> sines: array<Word>;

// Where a row's elements and its first position lie.
struct Row {
    x: u32,
    out: u32,
    positions: u32,
    seq: u32,
}

fn row_at(number: u32) -> Row {
    let seq = number % params.seq;
    let head = number / params.seq % params.heads;
    let batch = number / params.seq / params.heads;
    return Row(
        params.x_offset + batch * params.x_strides.x + head * params.x_strides.y + seq * params.x_strides.z,
        params.out_offset + batch * params.out_strides.x + head * params.out_strides.y + seq * params.out_strides.z,
        params.positions_offset + batch * params.positions_strides.y + seq * params.positions_strides.z,
        seq,
    );
}

// Elements of a unit's Eight that count: a Word of out, or in the vector width all.
fn unit_size() -> u32 {
    return select(lanes(OUT_DTYPE), 8u, VECTOR);
}

// Of the frequencies from one on, as many as a Word of the tables holds. Nothing turns by a position past the tables: all is 0.
fn word_of_angles(row: Row, stream: u32, frequency: u32) -> Angles {
    var position = params.offset + row.seq;
    if params.has_positions == 1u {
        position = positions[row.positions + stream * params.positions_strides.x];
    }
    let inside = position < params.table_rows;
    position = select(0u, position, inside);
    let cosine = params.cosines_offset + position * params.cosines_row + frequency * params.cosines_step;
    let sine = params.sines_offset + position * params.sines_row + frequency * params.sines_step;
    let cosine_bits = from_word(cosines[cosine / per_word(F32)]);
    let sine_bits = from_word(sines[sine / per_word(F32)]) ^ vec4<u32>(params.sign);
    return Angles(
        select(vec4<f32>(0.0), bitcast<vec4<f32>>(cosine_bits), vec4<bool>(inside)),
        select(vec4<f32>(0.0), bitcast<vec4<f32>>(sine_bits), vec4<bool>(inside)),
    );
}

fn one_angle(row: Row, frequency: u32) -> Angles {
    var stream = 0u;
    if params.streams != 0u {
        stream = streams_of(vec4<u32>(frequency), params.streams, params.sections).x;
    }
    return word_of_angles(row, stream, frequency);
}

// Of the frequencies from one on: four in the vector width, else one or two.
fn angles_at(row: Row, frequency: u32, two: bool) -> Angles {
    if !VECTOR {
        var angles = one_angle(row, frequency);
        if two {
            let next = one_angle(row, frequency + 1u);
            angles.cosine.y = next.cosine.x;
            angles.sine.y = next.sine.x;
        }
        return angles;
    }
    var angles = word_of_angles(row, 0u, frequency);
    if params.streams != 0u {
        let streams = streams_of(vec4<u32>(frequency) + vec4<u32>(0u, 1u, 2u, 3u), params.streams, params.sections);
        for (var stream = 1u; stream < 3u; stream++) {
            let other = word_of_angles(row, stream, frequency);
            angles.cosine = select(angles.cosine, other.cosine, streams == vec4<u32>(stream));
            angles.sine = select(angles.sine, other.sine, streams == vec4<u32>(stream));
        }
    }
    return angles;
}

fn store(row: Row, element: u32, value: Eight) {
    let at = (row.out + element * params.out_strides.w) / per_word(OUT_DTYPE);
    out[at] = to_word(pack(OUT_DTYPE, value));
    if VECTOR && second(OUT_DTYPE) == 1u {
        out[at + 1u] = to_word(value.high);
    }
}

// A unit that turns: an Eight of firsts and that of their seconds, or two Eights of neighbours.
fn turn_unit(row: Row, unit: u32) {
    let size = unit_size();
    let neighbours = params.style == INTERLEAVED && size > 1u;
    let frequency = unit * size;
    var first = frequency;
    var next = frequency + params.half;
    if params.style == INTERLEAVED {
        first = 2u * frequency;
        next = first + size;
    }
    let a = load(row, first);
    let b = load(row, next);
    var low = Eight(a.low, b.low);
    var high = Eight(a.high, b.high);
    if neighbours {
        low = split(a);
        high = split(b);
    }
    low = turned(low, angles_at(row, frequency, size == 2u && !neighbours));
    if VECTOR || neighbours {
        high = turned(high, angles_at(row, frequency + size / 2u, false));
    }
    if neighbours {
        store(row, first, join(low));
        store(row, next, join(high));
        return;
    }
    store(row, first, Eight(low.low, high.low));
    store(row, next, Eight(low.high, high.high));
}
