//! `cargo bench --bench overhead`: what the host pays to record small dispatches, in CPU time of the recording thread: 10,000 of them, ops
//! with an output that is there and ops that make theirs, and the submissions that they came to. The GPU's own work is not in it.

mod support;

use gristmill::{DType, Result, Tensor, ops};
use support::clock::Clock;
use support::{Place, normals, places, zeros};

fn main() {
    // Cargo says `--bench` when it benches; all else is a trial.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        return;
    }
    let calls = if arguments.iter().any(|a| a == "--bench") { 10_000 } else { 100 };
    println!("{:<40} {:>8} {:>12} {:>12}  device", "calls", "number", "us a call", "submissions");
    for place in places().iter().filter(|place| !place.device.is_cpu()) {
        let (x, host) = normals(&place.device, &[64], 1);
        let out = zeros(&place.device, DType::F32, &[64]);
        let check = |y: &Tensor, factor: f32| {
            let got: Vec<f32> = support::download(y);
            assert!(got.iter().zip(&host).all(|(got, x)| *got == factor * x), "wrong answer");
        };
        let into = || ops::add_into(&mut out.clone(), &x, &x);
        row(place, "add_into [64]", calls, &into);
        check(&out, 2.0);
        let chain = || {
            let mut y = ops::add(&x, &x)?;
            for _ in 1..4 {
                y = ops::add(&y, &x)?;
            }
            Ok(())
        };
        row(place, "add [64], a fresh output", calls / 4, &chain);
        let (w, _) = normals(&place.device, &[64, 64], 2);
        let matmul = || ops::matmul(&x, &w, &Default::default()).map(drop);
        row(place, "matmul [64] x [64, 64]", calls, &matmul);
        let softmax = || ops::softmax(&x, -1, &ops::Softmax::default()).map(drop);
        row(place, "softmax [64]", calls, &softmax);
    }
}

/// Records so many calls and prints what one took; `add` of a fresh output counts as four.
fn row(place: &Place, name: &str, times: usize, call: &dyn Fn() -> Result<()>) {
    let submissions = || place.device.memory().map_or(0, |memory| memory.submissions);
    let run = |times: usize| {
        place.device.sync().expect("a device that works");
        let (before, start) = (submissions(), Clock::Thread.now());
        for _ in 0..times {
            call().expect("a call that is right");
        }
        let time = Clock::Thread.now() - start;
        let submitted = submissions() - before;
        place.device.sync().expect("a device that works");
        (time, submitted)
    };
    // Compiles, and fills the pool.
    run(times / 10);
    let (time, submitted) = run(times);
    let dispatches = if name.contains("fresh") { 4 * times } else { times };
    let each = time.as_secs_f64() * 1e6 / dispatches as f64;
    println!("{name:<40} {dispatches:>8} {each:>12.2} {submitted:>12}  {}", place.device);
}
