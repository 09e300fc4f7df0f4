//! What a GPU can do at most: fused multiply-adds out of registers, and a copy.

use std::fmt::Write as _;
use std::time::Duration;

use super::Place;
use super::yardstick::{Bare, Program, copy};

/// Chains of dependent multiply-adds an invocation, and their length in one trip of the loop. Longer ones are slower on lavapipe: LLVM
/// puts the steps of a chain side by side, and the CPU then has to wait.
const CHAINS: u32 = 24;
const UNROLL: u32 = 4;
const WORKGROUP: u32 = 256;
/// lavapipe and llvmpipe break off loops at 65,535 trips.
const MOST_STEPS: u32 = 1 << 15;

/// In thousand millions a second of the place's clock.
#[derive(Debug, Clone, Copy)]
pub struct Peak {
    pub gflops: f64,
    /// Read and written.
    pub gbytes: f64,
}

/// `None` on the CPU. Quick: as short as it can be.
pub fn measure(place: &Place, quick: bool) -> Option<Peak> {
    let bare = Bare::open(place)?;
    Some(Peak { gflops: fma(place, &bare, quick), gbytes: bandwidth(place, quick)? })
}

/// x = 0.5 x + 1 goes to 2; from 2 + d it is 2 + d / 2^n after n steps, exactly while that has 24 bits, however it is rounded.
fn kernel() -> String {
    let mut text = format!(
        "struct Params {{ steps: u32, factor: f32, add: f32, pad: u32 }}
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<uniform> params: Params;
@compute @workgroup_size({WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let start = 3.0 + f32(id.x % 64u);
    let factor = params.factor;
    let add = params.add;
"
    );
    let mut each = |line: &dyn Fn(u32) -> String| (0..CHAINS).for_each(|chain| text.push_str(&line(chain)));
    each(&|c| format!("    var x{c} = start + {c}.0;\n"));
    each(&|c| if c == 0 { "    for (var i = 0u; i < params.steps; i++) {\n".into() } else { String::new() });
    for _ in 0..UNROLL {
        each(&|c| format!("        x{c} = fma(x{c}, factor, add);\n"));
    }
    let sum: Vec<_> = (0..CHAINS).map(|c| format!("x{c}")).collect();
    let _ = write!(text, "    }}\n    out[id.x] = {};\n}}\n", sum.join(" + "));
    text
}

fn fma(place: &Place, bare: &Bare, quick: bool) -> f64 {
    let groups = if place.is_software() { 64 } else { 4096 };
    let out = bare.zeros((groups * WORKGROUP) as usize);
    let words = |steps: u32| [steps, 0.5f32.to_bits(), 1.0f32.to_bits(), 0];
    let params = bare.params(&words(1));
    // SAFETY: every lane writes an element of its own, of which `out` has as many as there are lanes, and the loop ends after `steps`.
    let program = unsafe { bare.program_unchecked(&kernel(), &[&out, &params]) };
    let run = |steps: u32| {
        bare.set_params(&params, &words(steps));
        timed(place, bare, &program, groups)
    };
    run(1);
    for (lane, got) in bare.download(&out).into_iter().enumerate() {
        let want: f32 = (0..CHAINS).map(|c| 2.0 + (1.0 + (lane % 64) as f32 + c as f32) / (1 << UNROLL) as f32).sum();
        assert!(got == want, "fma peak: wrong answer: lane {lane} is {got}, not {want}");
    }
    let mut steps = 16;
    while !quick && run(steps) < Duration::from_millis(50) && steps < MOST_STEPS {
        steps *= 2;
    }
    let best = (0..if quick { 1 } else { 7 }).map(|_| run(steps)).min().unwrap_or_default();
    for (lane, got) in bare.download(&out).into_iter().enumerate() {
        // Rounded upwards, a chain stops one unit in the last place above 2.
        let error = (got - 2.0 * CHAINS as f32).abs();
        let within = error <= CHAINS as f32 * 2.0 * f32::EPSILON;
        assert!(within, "fma peak: wrong answer: lane {lane} ends at {got}");
    }
    let flops = 2.0 * f64::from(CHAINS * UNROLL) * f64::from(groups * WORKGROUP) * f64::from(steps);
    flops / best.as_nanos() as f64
}

fn timed(place: &Place, bare: &Bare, program: &Program, groups: u32) -> Duration {
    place.clock.time(|| {
        bare.record(program, [groups, 1, 1]);
        bare.sync();
    })
}

/// Out of any cache: 64 MiB to 64 MiB.
fn bandwidth(place: &Place, quick: bool) -> Option<f64> {
    let len = if quick { 1 << 20 } else { 1 << 24 };
    let mut ready = copy(place, len)?;
    (ready.call)();
    (ready.sync)();
    (ready.check)();
    let calls = if place.is_software() { 1 } else { 16 };
    let rounds = (0..if quick { 1 } else { 7 }).map(|_| {
        place.clock.time(|| {
            (0..calls).for_each(|_| (ready.call)());
            (ready.sync)();
        })
    });
    let best = rounds.min().unwrap_or_default();
    Some((8 * len * calls) as f64 / best.as_nanos() as f64)
}
