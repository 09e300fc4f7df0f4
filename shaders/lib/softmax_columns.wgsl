// The softmax of rows that lie across memory: neighbouring lanes take neighbouring rows, so that what they load lies side by side. COLUMNS
// lanes times SLICES of a row make a workgroup; a slice stands in for several lanes of lib/softmax_rows.wgsl, one after the other, and
// joins their states as neighbours. A lane makes a row, or two where `out` has two elements a word, which it owns then.
// Two reads and one write an element. Needs a kernel's tunables and `column_state`, lib/softmax_row.wgsl and what that needs.

// What a slice knows of a row: `share` lanes' states, joined.
fn slice_state(row: Row, slice: u32, share: u32) -> State {
    // The states of 1, 2, 4, … lanes that wait for their neighbours.
    var s0: State;
    var s1: State;
    var s2: State;
    var s3: State;
    var s4: State;
    var s5: State;
    var s6: State;
    var s7: State;
    var state: State;
    for (var lane = 0u; lane < share; lane++) {
        state = nothing();
        for (var i = (slice * share + lane) * 8u; i < row.visible; i += params.lanes * 8u) {
            state = fold(state, eight_at(row, i));
        }
        if (lane & 1u) == 0u {
            s0 = state;
            continue;
        }
        state = join(s0, state);
        if (lane & 2u) == 0u {
            s1 = state;
            continue;
        }
        state = join(s1, state);
        if (lane & 4u) == 0u {
            s2 = state;
            continue;
        }
        state = join(s2, state);
        if (lane & 8u) == 0u {
            s3 = state;
            continue;
        }
        state = join(s3, state);
        if (lane & 16u) == 0u {
            s4 = state;
            continue;
        }
        state = join(s4, state);
        if (lane & 32u) == 0u {
            s5 = state;
            continue;
        }
        state = join(s5, state);
        if (lane & 64u) == 0u {
            s6 = state;
            continue;
        }
        state = join(s6, state);
        if (lane & 128u) == 0u {
            s7 = state;
            continue;
        }
        state = join(s7, state);
    }
    return state;
}

// An element of a row, and of the next where they share a word.
fn put(row: Row, i: u32, bits: u32, next: u32) {
    if i >= row.len {
        return;
    }
    let at = row.out + i * params.out_step;
    if lanes(OUT_DTYPE) == 1u {
        out[at] = to_word(vec4<u32>(bits));
        return;
    }
    let pair = narrow(OUT_DTYPE, vec4<u32>(bits, next, 0u, 0u));
    out[at / 2u] = to_word(vec4<u32>(pair.x | (pair.y << 16u)));
}

fn columns(group: u32, invocation: u32) {
    let column = invocation % COLUMNS;
    let slice = invocation / COLUMNS;
    let number = (group * COLUMNS + column) * lanes(OUT_DTYPE);
    let share = params.lanes / SLICES;
    let row = row_of(number);
    let norm = norm_of(row, column, slice, share);
    var next: Row;
    var next_norm: vec2<f32>;
    if lanes(OUT_DTYPE) == 2u {
        next = row_of(number + 1u);
        next_norm = norm_of(next, column, slice, share);
    }
    for (var i = slice * 8u; i < row.len; i += SLICES * 8u) {
        let made = results(eight_at(row, i), norm);
        var other: Eight;
        if lanes(OUT_DTYPE) == 2u {
            other = results(eight_at(next, i), next_norm);
        }
        put(row, i, made.low.x, other.low.x);
        put(row, i + 1u, made.low.y, other.low.y);
        put(row, i + 2u, made.low.z, other.low.z);
        put(row, i + 3u, made.low.w, other.low.w);
        put(row, i + 4u, made.high.x, other.high.x);
        put(row, i + 5u, made.high.y, other.high.y);
        put(row, i + 6u, made.high.z, other.high.z);
        put(row, i + 7u, made.high.w, other.high.w);
    }
}

fn norm_of(row: Row, column: u32, slice: u32, share: u32) -> vec2<f32> {
    return norm_from(row, column_state(slice_state(row, slice, share), column, slice));
}
