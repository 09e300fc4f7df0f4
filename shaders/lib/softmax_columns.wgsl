// The softmax of rows that lie across memory: neighbouring lanes take neighbouring rows, so that what they load lies side by side. COLUMNS
// lanes times SLICES of a row make a workgroup; a slice stands in for several lanes of lib/softmax_rows.wgsl, one after the other, and
// joins their states as neighbours. A lane makes a row, or two where `out` has two elements a word, which it owns then.
// Two reads and one write an element. Needs a kernel's tunables and `column_state`, lib/softmax_row.wgsl and what that needs.

// What a lane makes: a row, and the next where two elements of `out` share a word; else that is nothing.
struct Rows {
    one: Row,
    next: Row,
}

struct States {
    one: State,
    next: State,
}

struct Eights {
    one: Eight,
    next: Eight,
}

fn rows_of(number: u32) -> Rows {
    var rows: Rows;
    rows.one = row_of(number);
    if lanes(OUT_DTYPE) == 2u {
        rows.next = row_of(number + 1u);
    }
    return rows;
}

// Where four neighbours of a row lie; past its end the last again.
fn places(row: Row, i: u32) -> vec4<u32> {
    return row.x + min(i + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(row.len - 1u)) * params.x_step;
}

fn words_at(at: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(from_word(x_word(at.x)).x, from_word(x_word(at.y)).x, from_word(x_word(at.z)).x, from_word(x_word(at.w)).x);
}

// A row's elements among such words.
fn halves_of(row: Row, words: vec4<u32>) -> vec4<u32> {
    let bits = words >> vec4<u32>((row.x & 1u) * 16u);
    return vec4<u32>(widen(X_DTYPE, bits.x), widen(X_DTYPE, bits.y), widen(X_DTYPE, bits.z), widen(X_DTYPE, bits.w));
}

fn eights_at(rows: Rows, i: u32) -> Eights {
    var eights: Eights;
    if lanes(OUT_DTYPE) == 1u {
        eights.one = eight_at(rows.one, i);
        return eights;
    }
    if i >= max(rows.one.visible, rows.next.visible) {
        let hidden = Eight(vec4<u32>(MASKED), vec4<u32>(MASKED));
        return Eights(hidden, hidden);
    }
    let low = places(rows.one, i);
    let high = places(rows.one, i + 4u);
    var one: Eight;
    var next: Eight;
    if (params.has & HAS_PAIRS) != 0u {
        let low_words = words_at(low / 2u);
        let high_words = words_at(high / 2u);
        one = Eight(halves_of(rows.one, low_words), halves_of(rows.one, high_words));
        next = Eight(halves_of(rows.next, low_words), halves_of(rows.next, high_words));
    } else {
        one = Eight(x_of(low), x_of(high));
        next = Eight(x_of(places(rows.next, i)), x_of(places(rows.next, i + 4u)));
    }
    eights.one = logits_of(rows.one, i, one);
    eights.next = logits_of(rows.next, i, next);
    return eights;
}

fn fold_both(states: States, eights: Eights) -> States {
    var both: States;
    both.one = fold(states.one, eights.one);
    if lanes(OUT_DTYPE) == 2u {
        both.next = fold(states.next, eights.next);
    }
    return both;
}

fn join_both(a: States, b: States) -> States {
    var both: States;
    both.one = join(a.one, b.one);
    if lanes(OUT_DTYPE) == 2u {
        both.next = join(a.next, b.next);
    }
    return both;
}

// What a slice knows of its rows: `share` lanes' states, joined.
fn slice_states(rows: Rows, slice: u32, share: u32) -> States {
    let visible = max(rows.one.visible, rows.next.visible);
    // The states of 1, 2, 4, … lanes that wait for their neighbours.
    var s0: States;
    var s1: States;
    var s2: States;
    var s3: States;
    var s4: States;
    var s5: States;
    var s6: States;
    var s7: States;
    var states: States;
    for (var lane = 0u; lane < share; lane++) {
        states = States(nothing(), nothing());
        for (var i = (slice * share + lane) * 8u; i < visible; i += params.lanes * 8u) {
            states = fold_both(states, eights_at(rows, i));
        }
        if (lane & 1u) == 0u {
            s0 = states;
            continue;
        }
        states = join_both(s0, states);
        if (lane & 2u) == 0u {
            s1 = states;
            continue;
        }
        states = join_both(s1, states);
        if (lane & 4u) == 0u {
            s2 = states;
            continue;
        }
        states = join_both(s2, states);
        if (lane & 8u) == 0u {
            s3 = states;
            continue;
        }
        states = join_both(s3, states);
        if (lane & 16u) == 0u {
            s4 = states;
            continue;
        }
        states = join_both(s4, states);
        if (lane & 32u) == 0u {
            s5 = states;
            continue;
        }
        states = join_both(s5, states);
        if (lane & 64u) == 0u {
            s6 = states;
            continue;
        }
        states = join_both(s6, states);
        if (lane & 128u) == 0u {
            s7 = states;
            continue;
        }
        states = join_both(s7, states);
    }
    return states;
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
    let rows = rows_of((group * COLUMNS + column) * lanes(OUT_DTYPE));
    let states = slice_states(rows, slice, params.lanes / SLICES);
    let norm = norm_from(rows.one, column_state(states.one, column, slice));
    var next_norm: vec2<f32>;
    if lanes(OUT_DTYPE) == 2u {
        next_norm = norm_from(rows.next, column_state(states.next, column, slice));
    }
    for (var i = slice * 8u; i < rows.one.len; i += SLICES * 8u) {
        let eights = eights_at(rows, i);
        let made = results(eights.one, norm);
        var other: Eight;
        if lanes(OUT_DTYPE) == 2u {
            other = results(eights.next, next_norm);
        }
        put(rows.one, i, made.low.x, other.low.x);
        put(rows.one, i + 1u, made.low.y, other.low.y);
        put(rows.one, i + 2u, made.low.z, other.low.z);
        put(rows.one, i + 3u, made.low.w, other.low.w);
        put(rows.one, i + 4u, made.high.x, other.high.x);
        put(rows.one, i + 5u, made.high.y, other.high.y);
        put(rows.one, i + 6u, made.high.z, other.high.z);
        put(rows.one, i + 7u, made.high.w, other.high.w);
    }
}
