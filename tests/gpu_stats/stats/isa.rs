//! What an ISA text says that the driver's statistics do not: the loops, the FMAs in them, and how wide memory is reached.
//!
//! ACO (Mesa's `aco_statistics.cpp`) weighs a block by how often it believes it to run: 8 times in a loop, 4 times that in a loop in it and
//! twice that in each further one; half where a uniform branch decides, three quarters where a divergent one does. "Inverse Throughput" is
//! a sum with these weights, so what is compared with it is weighed alike.

use std::collections::{BTreeMap, HashMap};

/// How many accesses of each width in bytes.
pub type Widths = BTreeMap<u32, usize>;

/// The facts of one shader.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Facts {
    /// FMAs of a thread in the main loop's own blocks: the loop that has the most.
    pub fma: usize,
    /// Matrix multiply-adds of a wave there.
    pub wmma: usize,
    /// How deep the main loop lies: 1 is no loop but its own. 0: there are no FMAs in loops.
    pub depth: usize,
    /// FMAs in one trip of the outermost loop around it, what is nested or conditional weighed as ACO does.
    pub trip_fma: f64,
    /// The same of matrix multiply-adds.
    pub trip_wmma: f64,
    /// Of that outermost loop, global memory and workgroup memory. Without a main loop: of the whole shader.
    pub loads: Widths,
    pub lds_loads: Widths,
    pub lds_stores: Widths,
    /// Of the whole shader, global memory.
    pub stores: Widths,
}

struct Instruction<'a> {
    /// The mnemonic, and the second half's where two are issued as one (`v_dual_…`).
    names: Vec<&'a str>,
    target: Option<&'a str>,
}

/// A range of instructions, both ends in.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Loop {
    first: usize,
    last: usize,
}

impl Loop {
    fn holds(&self, at: usize) -> bool {
        (self.first..=self.last).contains(&at)
    }
}

pub fn facts(text: &str) -> Facts {
    let (instructions, labels) = parse(text);
    let branches: Vec<(usize, usize)> =
        instructions.iter().enumerate().filter_map(|(at, instruction)| Some((at, *labels.get(instruction.target?)?))).collect();

    // A branch back ends a loop; several to one header, the loop's `continue`s, are one loop.
    let mut ends: BTreeMap<usize, usize> = BTreeMap::new();
    for &(at, to) in branches.iter().filter(|(at, to)| to <= at) {
        let end = ends.entry(to).or_insert(at);
        *end = at.max(*end);
    }
    let loops: Vec<Loop> = ends.into_iter().map(|(first, last)| Loop { first, last }).collect();
    let around = |at: usize| loops.iter().filter(move |l| l.holds(at));
    let innermost = |at: usize| around(at).min_by_key(|l| l.last - l.first).copied();

    // A branch forward that stays in its loop is an `if`; one that leaves it is a `break`.
    let mut weights: Vec<f64> = (0..instructions.len())
        .map(|at| match around(at).count() {
            0 => 1.0,
            depth => 8.0 * if depth > 1 { 4.0 * 2f64.powi(depth as i32 - 2) } else { 1.0 },
        })
        .collect();
    for &(at, to) in branches.iter().filter(|(at, to)| to > at) {
        if innermost(at).is_none_or(|l| l.holds(to)) {
            let taken = if instructions[at].names[0].contains("exec") { 0.75 } else { 0.5 };
            weights[at + 1..to].iter_mut().for_each(|weight| *weight *= taken);
        }
    }

    let count = |count: fn(&str) -> usize, at: usize| instructions[at].names.iter().map(|name| count(name)).sum::<usize>();
    let mut own: Vec<(Loop, usize, usize)> = loops.iter().map(|&l| (l, 0, 0)).collect();
    for at in 0..instructions.len() {
        if let Some(slot) = innermost(at).and_then(|inner| own.iter_mut().find(|(l, ..)| *l == inner)) {
            slot.1 += count(fma, at);
            slot.2 += count(wmma, at);
        }
    }
    let mut facts = Facts::default();
    let whole = Loop { first: 0, last: instructions.len().saturating_sub(1) };
    // A matrix instruction of 16 x 16 x 16 is 128 FMAs of each of 32 threads.
    let main = own.iter().filter(|(_, fma, wmma)| fma + wmma > 0).max_by_key(|(_, fma, wmma)| fma + 128 * wmma);
    let outer = main.and_then(|(l, ..)| around(l.first).max_by_key(|outer| outer.last - outer.first)).copied();
    if let Some(&(l, fma, wmma)) = main {
        (facts.fma, facts.wmma, facts.depth) = (fma, wmma, around(l.first).filter(|outer| outer.holds(l.last)).count());
    }
    for at in 0..instructions.len() {
        let in_outer = outer.unwrap_or(whole).holds(at);
        if outer.is_some() && in_outer {
            facts.trip_fma += count(fma, at) as f64 * weights[at] / 8.0;
            facts.trip_wmma += count(wmma, at) as f64 * weights[at] / 8.0;
        }
        for name in &instructions[at].names {
            let Some((kind, bytes)) = access(name) else { continue };
            let (widths, counted) = match kind {
                Kind::Load => (&mut facts.loads, in_outer),
                Kind::Store => (&mut facts.stores, true),
                Kind::LdsLoad => (&mut facts.lds_loads, in_outer),
                Kind::LdsStore => (&mut facts.lds_stores, in_outer),
            };
            if counted {
                *widths.entry(bytes).or_default() += 1;
            }
        }
    }
    facts
}

/// Instructions in order, and at which of them each label stands.
fn parse(text: &str) -> (Vec<Instruction<'_>>, HashMap<&str, usize>) {
    let mut instructions = Vec::new();
    let mut labels = HashMap::new();
    for line in text.lines() {
        let line = line.split(';').next().unwrap_or_default().trim();
        if let Some(label) = line.strip_suffix(':').filter(|label| label.starts_with("BB")) {
            labels.insert(label, instructions.len());
        } else if line.starts_with(|c: char| c.is_ascii_lowercase()) {
            // RDNA3 turns f16 into f32 and back as `x * 1.0 + -0.0`.
            let conversion = line.contains("_mix") && line.contains("neg(0)");
            let halves = line.split("::").filter_map(|half| half.split_whitespace().next());
            let names: Vec<&str> = if conversion { vec!["v_cvt"] } else { halves.collect() };
            let target = line.split_whitespace().nth(1).filter(|_| line.starts_with("s_branch") || line.starts_with("s_cbranch"));
            instructions.push(Instruction { names, target });
        }
    }
    (instructions, labels)
}

/// FMAs of a thread in one instruction: `v_fma_f32`, `v_fmac_f32_e32`, `v_dual_fmamk_f32`, GCN's `v_mad_f32`; two in `v_pk_fma_f16`.
fn fma(name: &str) -> usize {
    let stem = name.strip_prefix("v_").unwrap_or_default();
    let stem = stem.strip_prefix("dual_").unwrap_or(stem);
    // There are `mad`s of integers.
    let float = stem.contains("_f32") || stem.contains("_f16");
    match stem {
        _ if !float => 0,
        _ if stem.starts_with("pk_fma") || stem.starts_with("dot2") => 2,
        _ => usize::from(["fma", "mac_", "mad_", "madak", "madmk"].iter().any(|head| stem.starts_with(head))),
    }
}

fn wmma(name: &str) -> usize {
    usize::from(name.starts_with("v_wmma_"))
}

enum Kind {
    Load,
    Store,
    LdsLoad,
    LdsStore,
}

/// What a vector memory or workgroup memory instruction does, and the bytes of a thread.
fn access(name: &str) -> Option<(Kind, u32)> {
    let lds = name.starts_with("ds_");
    if !lds && !["global_", "buffer_", "flat_"].iter().any(|head| name.starts_with(head)) {
        return None;
    }
    let load = name.contains("_load") || name.contains("_read");
    let store = name.contains("_store") || name.contains("_write");
    let kind = match (lds, load, store) {
        (false, true, _) => Kind::Load,
        (false, _, true) => Kind::Store,
        (true, true, _) => Kind::LdsLoad,
        (true, _, true) => Kind::LdsStore,
        _ => return None,
    };
    // RDNA3's names, then those before; workgroup memory has one or two addresses an instruction.
    let words = [("b128", 4), ("b96", 3), ("b64", 2), ("b32", 1), ("dwordx4", 4), ("dwordx3", 3), ("dwordx2", 2), ("dword", 1)];
    let bytes = match words.iter().find(|(part, _)| name.contains(part)) {
        Some((_, words)) => words * 4,
        None if name.contains("16") || name.contains("short") => 2,
        None => 1,
    };
    Some((kind, if name.contains("2addr") || name.contains("read2") || name.contains("write2") { bytes * 2 } else { bytes }))
}
