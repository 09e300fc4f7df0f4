//! What is broken, and when.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gristmill::gpu::wgpu;
use gristmill::{DType, Device, Error, Tensor, ops};
use libtest_mimic::{Failed, Trial};

use crate::program::{Outcome, Program};
use crate::support::{Call, How, adapter, adopted, arm, bounded, destroy, disarm, fired, healthy, open, options};

/// So many faults at the least, when everything is run.
pub const PROMISED: u32 = 1000;
/// Calls of a program after the fault is armed.
const CALLS: usize = 40;
/// What "at once" is on a machine that does other things too.
const AT_ONCE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(60);

pub fn all() -> Vec<Trial> {
    let mut all = Vec::new();
    // How often, and how many programs: so that all of a program's calls of a kind come to fail, and together over a thousand.
    for (call, how, programs) in [
        (Call::Submit, How::Lost, 8),
        (Call::Wait, How::Lost, 7),
        (Call::Commands, How::Lost, 1),
        (Call::Pipeline, How::Lost, 2),
        (Call::Allocate, How::Lost, 6),
        (Call::Submit, How::OutOfMemory, 4),
        (Call::Wait, How::OutOfMemory, 2),
        (Call::Commands, How::OutOfMemory, 1),
        (Call::Allocate, How::OutOfMemory, 8),
        (Call::Allocate, How::Exhausted, 8),
        (Call::Buffer, How::OutOfMemory, 2),
        (Call::Buffer, How::Exhausted, 1),
        (Call::Map, How::OutOfMemory, 4),
        (Call::Pipeline, How::OutOfMemory, 3),
        (Call::Module, How::OutOfMemory, 3),
        (Call::Descriptors, How::OutOfMemory, 2),
        (Call::Submit, How::Killed, 6),
        (Call::Submit, How::Late, 1),
        (Call::Wait, How::Late, 1),
    ] {
        all.push(trial(format!("{call:?}::{how:?}"), move || campaign(call, how, programs, || open(None))));
    }
    let hung = || campaign(Call::Submit, How::Hung, 1, || open(Some(Duration::from_secs(2))));
    all.push(trial("Submit::Hung".into(), hung));
    all.push(trial("adopted::submit".into(), || campaign(Call::Submit, How::Lost, 2, || Ok(adopted()?.0))));
    all.push(trial("adopted::wait".into(), || campaign(Call::Wait, How::Lost, 2, || Ok(adopted()?.0))));
    all.push(trial("adopted::handlers".into(), handlers));
    all.push(trial("host_copy".into(), host_copy));
    all.push(trial("opening".into(), opening));
    all.push(trial("threads::lost".into(), threads));
    all.push(trial("threads::destroyed".into(), destroyed));
    all
}

/// The device itself cannot be made: an error that says so, and the next can.
fn opening() -> Result<(), String> {
    let matrices = |device: &Device| device.caps().is_some_and(|caps| caps.cooperative.is_some());
    let offered = matrices(&open(None)?);
    for how in [How::Lost, How::OutOfMemory, How::Exhausted, How::Lost] {
        arm(Call::Device, 0, how);
        let opened = open(None);
        disarm();
        match opened {
            Err(error) if error.contains("refused to open") && (!offered || matches!(how, How::Exhausted)) => {}
            // What fails once is tried again without cooperative matrices, which drivers may show and not give.
            Ok(device) if offered && !matrices(&device) => healthy(&device)?,
            other => return Err(format!("{how:?}: {other:?}")),
        }
        healthy(&open(None)?)?;
    }
    Ok(())
}

/// A copy on the host survives a loss for as long as nothing was written; views of it too.
fn host_copy() -> Result<(), String> {
    let run = || -> gristmill::Result<Result<(), String>> {
        let device = Device::gpu(&options(None))?;
        let x = Tensor::rand_uniform(&device, &[6, 10], 1)?;
        let mut stale = ops::copy(&x)?;
        let (plain, mut renewed) = (ops::copy(&x)?, ops::copy(&x)?);
        let before = x.to_vec::<f32>()?;
        for kept in [&x.narrow(0, 2..6)?, &stale, &renewed] {
            kept.keep_host_copy()?;
        }
        ops::neg_in_place(&mut stale)?;
        ops::neg_in_place(&mut renewed)?;
        renewed.keep_host_copy()?;
        destroy(&device);
        let new = Device::gpu(&options(None))?;
        let moved = x.narrow(0, 2..6)?.transpose(0, 1)?.to_device(&new)?;
        let inside = moved.to_vec::<f32>()?;
        let inside_right = (0..40).all(|i| inside[i] == before[(2 + i % 4) * 10 + i / 4]);
        let renewed_right = renewed.to_vec::<f32>()?.iter().zip(&before).all(|(got, x)| *got == -x);
        let lost = [x.to_device(&new), stale.to_device(&new), plain.to_device(&new)];
        let lost_right = lost.iter().all(|result| matches!(result, Err(Error::Lost { .. })));
        Ok(match (inside_right, renewed_right, lost_right) {
            (true, true, true) => healthy(&new),
            other => Err(format!("of a part, renewed, stale or none: {other:?}, {lost:?}")),
        })
    };
    run().map_err(|error| error.to_string())?
}

/// The caller's handlers stay, and see what is the caller's alone.
fn handlers() -> Result<(), String> {
    let (device, seen) = adopted()?;
    healthy(&device)?;
    // Errors of ours are not the caller's.
    let (raw, _) = device.wgpu().ok_or("a GPU")?;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 64, usage: wgpu::BufferUsages::MAP_READ, mapped_at_creation: false };
    let useless = Tensor::from_buffer(&device, raw.create_buffer(&descriptor), DType::F32, &[16]);
    let (one, other) = (open(None)?, open(None)?);
    let foreign = one
        .wgpu()
        .ok_or("a GPU")?
        .0
        .create_buffer(&wgpu::BufferDescriptor { usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC, ..descriptor });
    let foreign = Tensor::from_buffer(&other, foreign, DType::F32, &[16]);
    healthy(&other)?;
    if !matches!(useless, Err(Error::Argument { .. })) || !matches!(foreign, Err(Error::Rejected { .. })) {
        return Err(format!("a useless buffer: {useless:?}; one of another device: {foreign:?}"));
    }
    healthy(&device)?;
    if (seen.errors.load(Ordering::SeqCst), seen.losses.load(Ordering::SeqCst)) != (0, 0) {
        return Err("the caller's handlers saw errors of ours".into());
    }
    // Errors of the caller's are.
    let _ = raw.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: u64::MAX,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    if seen.errors.load(Ordering::SeqCst) != 1 {
        return Err("the caller's handler is not called any more".into());
    }
    healthy(&device)?;
    destroy(&device);
    let last = device.sync();
    // wgpu tells when it is polled.
    let _ = raw.poll(wgpu::PollType::Poll);
    match (last, seen.losses.load(Ordering::SeqCst), device.is_lost()) {
        (Err(Error::Lost { .. }), 1, true) => Ok(()),
        other => Err(format!("destroyed by its owner: {other:?}")),
    }
}

/// Threads run programs on one device; in the middle of it, it dies.
fn together(device: Device, seed: u64, die: impl FnOnce(&Device) + Send) -> Result<u32, String> {
    let hits = fired();
    let programs: Vec<Vec<Outcome>> = std::thread::scope(|scope| {
        let device = &device;
        let runs = (0..4).map(|thread| {
            scope.spawn(move || {
                let mut program = Program::new(seed * 4 + thread, true);
                program.run(device, CALLS);
                program.outcomes
            })
        });
        let runs: Vec<_> = runs.collect();
        scope.spawn(move || die(device));
        runs.into_iter().map(|run| run.join().map_err(|_| "a thread panicked".to_string())).collect::<Result<_, _>>()
    })?;
    let last = device.sync();
    disarm();
    let hit = fired() != hits;
    for outcomes in &programs {
        judge(outcomes, How::Lost, hit)?;
    }
    match last {
        Ok(()) if !hit => Ok(0),
        Err(Error::Lost { .. }) if hit => Ok(1),
        other => Err(format!("fault {hit}, then sync: {other:?}")),
    }
}

fn threads() -> Result<(), String> {
    for nth in (0..90).step_by(3) {
        let device = open(None)?;
        healthy(&device)?;
        arm(Call::Submit, nth, How::Lost);
        bounded("threads", LIMIT, move || together(device, nth.into(), |_| {})).and_then(|result| result)?;
    }
    healthy(&open(None)?)
}

/// The wgpu device is destroyed under threads that use it: ours, or one that the caller made.
fn destroyed() -> Result<(), String> {
    for turn in 0..40u64 {
        let device = if turn % 2 == 0 { open(None)? } else { adopted()?.0 };
        healthy(&device)?;
        let die = move |device: &Device| {
            std::thread::sleep(Duration::from_millis(turn * 5));
            destroy(device);
        };
        bounded("threads", LIMIT, move || together(device, turn, die))
            .and_then(|result| result)
            .map_err(|e| format!("turn {turn}: {e}"))?;
    }
    healthy(&open(None)?)
}

fn trial(name: String, run: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    Trial::test(name.to_lowercase(), move || match adapter() {
        Some(_) => run().map_err(Failed::from),
        None => Ok(()),
    })
}

/// Breaks every call of a kind in some programs, one a device.
fn campaign(call: Call, how: How, programs: u64, open: impl Fn() -> Result<Device, String>) -> Result<(), String> {
    let (before, clock) = (fired(), Instant::now());
    let mut kinds = BTreeMap::new();
    for seed in 0..programs {
        for nth in 0.. {
            let place = |problem: String| format!("program {seed}, {call:?} {nth} {how:?}: {problem}");
            let device = open().map_err(place)?;
            healthy(&device).map_err(place)?;
            let hits = fired();
            let run = move || ordeal(device, seed, call, nth, how);
            let kind = bounded("a program", LIMIT, run).and_then(|result| result).map_err(place)?;
            *kinds.entry(kind).or_insert(0) += 1;
            if fired() == hits {
                break;
            }
        }
    }
    healthy(&open()?)?;
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    println!("{call:?} {how:?}: {} faults in {:.1} s: {}", fired() - before, clock.elapsed().as_secs_f64(), kinds.join(", "));
    Ok(())
}

/// One program with one fault, and what is left after it. Tells what the fault came to.
fn ordeal(device: Device, seed: u64, call: Call, nth: u32, how: How) -> Result<&'static str, String> {
    let mut program = Program::new(seed, how != How::Killed);
    let hits = fired();
    arm(call, nth, how);
    program.run(&device, CALLS);
    let last = device.sync();
    disarm();
    let hit = fired() != hits;
    let lost = judge(&program.outcomes, how, hit)?;
    let ended = match (&last, how, hit) {
        (Ok(()), How::Lost | How::Hung | How::Killed, true) if call != Call::Pipeline => {
            return Err("the last sync does not tell of a loss".into());
        }
        (Err(error), _, false) => return Err(format!("without a fault, sync: {error}")),
        (Ok(()), ..) if lost => return Err("after a loss, sync is well".into()),
        (Err(error), ..) if lost && !error.is_loss() => return Err(format!("after a loss, sync: {error}")),
        (Err(error), ..) => error.is_loss(),
        (Ok(()), ..) => false,
    };
    if !ended {
        // It works as before.
        healthy(&device)?;
        let mut more = Program::new(seed + 1000, true);
        more.run(&device, CALLS);
        judge(&more.outcomes, How::Late, false)?;
    }
    let clock = Instant::now();
    drop(device);
    drop(program.into_tensors());
    if clock.elapsed() > AT_ONCE * 5 {
        return Err(format!("dropping took {:?}", clock.elapsed()));
    }
    Ok(match (hit, ended) {
        (false, _) => "not reached",
        (true, true) => "losses",
        (true, false) => "survived",
    })
}

/// Every result is right, errors are of the fault's kind, and after a loss there is nothing else, at once. Tells whether there was one.
fn judge(outcomes: &[Outcome], how: How, hit: bool) -> Result<bool, String> {
    let mut lost = false;
    for (i, Outcome { what, error, right, kept, took }) in outcomes.iter().enumerate() {
        let place = |problem: String| Err(format!("call {i}, {what}: {problem}"));
        match error {
            None if !right => return place("a wrong result".into()),
            None if lost && !kept => return place("well after a loss".into()),
            None => {}
            Some(error) if !hit => return place(format!("without a fault: {error}")),
            Some(error) if error.is_loss() => {
                if lost && (*took > AT_ONCE || !matches!(error, Error::Lost { .. })) {
                    return place(format!("after a loss, {took:?}: {error}"));
                }
                lost = true;
            }
            Some(error) if lost => return place(format!("after a loss: {error}")),
            Some(Error::OutOfMemory { .. }) if matches!(how, How::OutOfMemory | How::Exhausted) => {}
            Some(error) => return place(format!("of another kind: {error}")),
        }
    }
    Ok(lost)
}
