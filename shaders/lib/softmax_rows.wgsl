// The softmax of rows, GROUP lanes to one: lane l takes the eights l, l + GROUP and so on. Up to HELD eights a lane stay in registers, for one
// read and one write an element; with HELD = 0 the row is read twice, however long it is. Registers are what a constant names: no array
// and no loop, which NVIDIA's compiler would put into memory. Scalar: `out` of 16 bits is made of whole pairs.
// Needs a kernel's tunables and `row_state`, lib/softmax_row.wgsl and what that needs.

fn put(row: Row, i: u32, bits: u32) {
    if i < row.len {
        out[row.out + i * params.out_step] = to_word(vec4<u32>(bits));
    }
}

fn put_pair(row: Row, i: u32, pair: u32) {
    if i < row.len {
        out[(row.out + i) / 2u] = to_word(vec4<u32>(pair));
    }
}

fn store(row: Row, i: u32, eight: Eight) {
    if i >= row.len {
        return;
    }
    if VECTOR {
        let at = (row.out + i) / per_word(OUT_DTYPE);
        out[at] = to_word(pack(OUT_DTYPE, eight));
        if second(OUT_DTYPE) == 1u {
            out[at + 1u] = to_word(eight.high);
        }
    } else if lanes(OUT_DTYPE) == 1u {
        put(row, i, eight.low.x);
        put(row, i + 1u, eight.low.y);
        put(row, i + 2u, eight.low.z);
        put(row, i + 3u, eight.low.w);
        put(row, i + 4u, eight.high.x);
        put(row, i + 5u, eight.high.y);
        put(row, i + 6u, eight.high.z);
        put(row, i + 7u, eight.high.w);
    } else {
        let pairs = pack(OUT_DTYPE, eight);
        put_pair(row, i, pairs.x);
        put_pair(row, i + 2u, pairs.y);
        put_pair(row, i + 4u, pairs.z);
        put_pair(row, i + 6u, pairs.w);
    }
}

fn rows(group: u32, invocation: u32) {
    let row = row_of(group * (WORKGROUP / GROUP) + invocation / GROUP);
    let first = invocation % GROUP * 8u;
    var state = nothing();
    if HELD == 0u {
        for (var i = first; i < row.visible; i += ROUND) {
            state = fold(state, eight_at(row, i));
        }
        let norm = norm_from(row, row_state(state, invocation));
        for (var i = first; i < row.len; i += ROUND) {
            store(row, i, results(eight_at(row, i), norm));
        }
        return;
    }
    // Short rows leave the later rounds out: every lane of every row does.
    let rounds = (params.len + ROUND - 1u) / ROUND;
    let e0 = eight_at(row, first);
    var e1: Eight;
    var e2: Eight;
    var e3: Eight;
    var e4: Eight;
    var e5: Eight;
    var e6: Eight;
    var e7: Eight;
    if rounds > 1u {
        e1 = eight_at(row, first + ROUND);
    }
    if rounds > 2u {
        e2 = eight_at(row, first + 2u * ROUND);
        e3 = eight_at(row, first + 3u * ROUND);
    }
    if HELD > 4u && rounds > 4u {
        e4 = eight_at(row, first + 4u * ROUND);
        e5 = eight_at(row, first + 5u * ROUND);
        e6 = eight_at(row, first + 6u * ROUND);
        e7 = eight_at(row, first + 7u * ROUND);
    }
    state = fold(state, e0);
    if rounds > 1u {
        state = fold(state, e1);
    }
    if rounds > 2u {
        state = fold(fold(state, e2), e3);
    }
    if HELD > 4u && rounds > 4u {
        state = fold(fold(fold(fold(state, e4), e5), e6), e7);
    }
    let norm = norm_from(row, row_state(state, invocation));
    store(row, first, results(e0, norm));
    if rounds > 1u {
        store(row, first + ROUND, results(e1, norm));
    }
    if rounds > 2u {
        store(row, first + 2u * ROUND, results(e2, norm));
        store(row, first + 3u * ROUND, results(e3, norm));
    }
    if HELD > 4u && rounds > 4u {
        store(row, first + 4u * ROUND, results(e4, norm));
        store(row, first + 5u * ROUND, results(e5, norm));
        store(row, first + 6u * ROUND, results(e6, norm));
        store(row, first + 7u * ROUND, results(e7, norm));
    }
}
