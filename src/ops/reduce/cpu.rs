//! Reductions on the CPU: floats are added in f64.

use std::ops::Range;

use rayon::prelude::*;

use super::{Function, Problem};
use crate::Layout;
use crate::cpu::numbers::{Number, load};
use crate::cpu::{CHUNK, indices_from};

/// Elements of an output that one task takes of a long axis.
const PART: usize = 1 << 14;

/// Elements in f32 (or i64) at a time.
const BLOCK: usize = 512;

/// Accumulators of an output whose elements are neighbours: so many additions are under way at a time.
const LANES: usize = 8;

/// How an op accumulates.
struct Fold<A, Take, Join, Finish> {
    start: A,
    /// Of an accumulator, an element and its place.
    take: Take,
    join: Join,
    finish: Finish,
}

/// `out` is dense.
pub(super) fn reduce(problem: &Problem, out: &mut [u8], x: &[u8]) {
    if problem.x.is_empty() {
        return nothing(problem, out);
    }
    let n = problem.over().len() as f64;
    let add = |a: f64, v: f32, _: usize| a + f64::from(v);
    let plus = |a: f64, b: f64| a + b;
    let higher = |a: f32, b: f32| if b.total_cmp(&a).is_gt() { b } else { a };
    let lower = |a: f32, b: f32| if b.total_cmp(&a).is_lt() { b } else { a };
    // The ends of the total order.
    let [lowest, highest] = [u32::MAX, u32::MAX >> 1].map(f32::from_bits);
    match (problem.function, problem.dtypes[1].is_float()) {
        (Function::Sum, true) => run(problem, out, x, &Fold { start: 0.0, take: add, join: plus, finish: |a| a as f32 }),
        (Function::Mean, _) => run(problem, out, x, &Fold { start: 0.0, take: add, join: plus, finish: |a| (a / n) as f32 }),
        (Function::Max, true) => run(problem, out, x, &Fold { start: lowest, take: |a, v, _| higher(a, v), join: higher, finish: |a| a }),
        (Function::Min, true) => run(problem, out, x, &Fold { start: highest, take: |a, v, _| lower(a, v), join: lower, finish: |a| a }),
        (Function::Sum, false) => whole(problem, out, x, 0, i64::wrapping_add),
        (Function::Max, false) => whole(problem, out, x, i64::MIN, i64::max),
        (Function::Min, false) => whole(problem, out, x, i64::MAX, i64::min),
        // Adding 0 makes 0 of -0.
        (Function::ArgMax, true) => place(problem, out, x, lowest, |v| v + 0.0, |a, b| b.total_cmp(a).is_gt()),
        (Function::ArgMin, true) => place(problem, out, x, highest, |v| v + 0.0, |a, b| b.total_cmp(a).is_lt()),
        (Function::ArgMax, false) => place(problem, out, x, i64::MIN, |v| v, |a, b| b > a),
        (Function::ArgMin, false) => place(problem, out, x, i64::MAX, |v| v, |a, b| b < a),
    }
}

/// The sum of nothing is 0, its mean NaN.
fn nothing(problem: &Problem, out: &mut [u8]) {
    let dtype = problem.dtypes[0];
    if dtype.is_float() {
        let value = if problem.function == Function::Mean { f32::NAN } else { 0.0 };
        out.chunks_exact_mut(dtype.block_bytes()).for_each(|element| f32::store(dtype, element, &[value]));
    } else {
        out.fill(0);
    }
}

fn whole(problem: &Problem, out: &mut [u8], x: &[u8], start: i64, join: impl Fn(i64, i64) -> i64 + Sync) {
    run(problem, out, x, &Fold { start, take: |a, v: i64, _| join(a, v), join: &join, finish: |a| a });
}

/// Where the best lies; of equals the first.
fn place<N: Number>(
    problem: &Problem,
    out: &mut [u8],
    x: &[u8],
    start: N,
    of: impl Fn(N) -> N + Sync,
    beats: impl Fn(&N, &N) -> bool + Sync,
) {
    let better = |a: (N, usize), b: (N, usize)| if beats(&a.0, &b.0) || (!beats(&b.0, &a.0) && b.1 < a.1) { b } else { a };
    let take = |a, v, place| better(a, (of(v), place));
    run(problem, out, x, &Fold { start: (start, usize::MAX), take, join: better, finish: |a: (N, usize)| a.1 as i64 });
}

fn run<N, A, R, Take, Join, Finish>(problem: &Problem, out: &mut [u8], x: &[u8], fold: &Fold<A, Take, Join, Finish>)
where
    N: Number,
    A: Copy + Send + Sync,
    R: Number,
    Take: Fn(A, N, usize) -> A + Sync,
    Join: Fn(A, A) -> A + Sync,
    Finish: Fn(A) -> R + Sync,
{
    let size = problem.dtypes[0].block_bytes();
    let walk = Walk::new(problem, x);
    let n = problem.over().len();
    let store = |bytes: &mut [u8], totals: &[A]| {
        let values: Vec<R> = totals.iter().map(|&total| (fold.finish)(total)).collect();
        R::store(problem.dtypes[0], bytes, &values);
    };
    let block = if walk.across { BLOCK } else { CHUNK.div_ceil(n.max(1)) };
    let parts = n.div_ceil(PART);
    if parts < 2 {
        out.par_chunks_mut(block * size).enumerate().for_each(|(chunk, bytes)| {
            store(bytes, &walk.fold(fold, chunk * block, bytes.len() / size, 0..n));
        });
        return;
    }
    // Blocks of outputs, each in parts that are joined in order.
    let outputs = out.len() / size;
    let blocks = outputs.div_ceil(block);
    let part = |i: usize| {
        let (start, from) = (i % blocks * block, i / blocks * PART);
        walk.fold(fold, start, block.min(outputs - start), from..n.min(from + PART))
    };
    let totals: Vec<Vec<A>> = (0..parts * blocks).into_par_iter().map(part).collect();
    out.par_chunks_mut(block * size).enumerate().for_each(|(chunk, bytes)| {
        let mut joined = totals[chunk].clone();
        for later in totals[blocks..].iter().skip(chunk).step_by(blocks) {
            joined.iter_mut().zip(later).for_each(|(a, &b)| *a = (fold.join)(*a, b));
        }
        store(bytes, &joined);
    });
}

/// The way through `x`.
struct Walk<'a> {
    problem: &'a Problem,
    x: &'a [u8],
    kept: Layout,
    over: Layout,
    /// Whether outputs are closer neighbours than the elements of one.
    across: bool,
}

impl<'a> Walk<'a> {
    fn new(problem: &'a Problem, x: &'a [u8]) -> Self {
        let [kept, over] = [problem.kept(), problem.over()].map(|layout| Layout::merge(&[layout])[0]);
        let across = match (kept.strides().last(), over.strides().last()) {
            (Some(kept), Some(over)) => kept < over,
            _ => false,
        };
        Walk { problem, x, kept, over, across }
    }

    /// The elements of `layout` from `start` on, all shifted by as much as storage element `to` is away from the first.
    fn load<N: Number>(&self, layout: &Layout, to: usize, start: usize, out: &mut [N]) {
        let dtype = self.problem.dtypes[1];
        let shift = to - layout.offset();
        load(dtype, &self.x[shift * dtype.block_bytes()..], layout, start, out);
    }

    /// Elements `range` of `count` outputs from `start` on.
    fn fold<N, A, Take, Join, Finish>(&self, fold: &Fold<A, Take, Join, Finish>, start: usize, count: usize, range: Range<usize>) -> Vec<A>
    where
        N: Number,
        A: Copy,
        Take: Fn(A, N, usize) -> A,
        Join: Fn(A, A) -> A,
    {
        if self.across {
            // In the same lanes and order as below: the bits do not depend on how operands lie.
            let mut lanes = vec![fold.start; LANES * count];
            let mut values = vec![N::default(); count];
            for (place, first) in range.clone().zip(indices_from(&self.over, range.start, range.len())) {
                self.load(&self.kept, first, start, &mut values);
                let totals = &mut lanes[(place - range.start) % LANES * count..][..count];
                totals.iter_mut().zip(&values).for_each(|(total, &value)| *total = (fold.take)(*total, value, place));
            }
            let join = |i: usize| (0..LANES).map(|lane| lanes[lane * count + i]).reduce(&fold.join).unwrap_or(fold.start);
            return (0..count).map(join).collect();
        }
        let mut values = [N::default(); BLOCK];
        let row = |first| {
            let mut lanes = [fold.start; LANES];
            for at in range.clone().step_by(BLOCK) {
                let values = &mut values[..BLOCK.min(range.end - at)];
                self.load(&self.over, first, at, values);
                for (i, eight) in values.chunks(LANES).enumerate() {
                    let places = at + i * LANES..;
                    lanes.iter_mut().zip(eight).zip(places).for_each(|((lane, &value), place)| *lane = (fold.take)(*lane, value, place));
                }
            }
            lanes.into_iter().reduce(&fold.join).unwrap_or(fold.start)
        };
        indices_from(&self.kept, start, count).map(row).collect()
    }
}
