//! A GPU's memory: what repeats allocates nothing, what comes back is never seen again, and the budget and `trim` hold.

use gristmill::gpu::{GpuOptions, Memory};
use gristmill::{DType, Device, Element, Error, Tensor, ops};
use libtest_mimic::Trial;

use crate::support::devices::{Level, Subject};
use crate::support::runner::{expect, trials};

pub fn all() -> Vec<Trial> {
    let mut all = trials("memory", "steady", steady);
    all.extend(trials("memory", "one_submission", one_submission));
    all.extend(trials("memory", "growing", growing));
    all.extend(trials("memory", "recycled", recycled));
    all.extend(trials("memory", "trim", trim));
    all.extend(trials("memory", "budget", budget));
    all.extend(trials("memory", "attention", attention));
    all
}

fn memory(device: &Device) -> Memory {
    device.memory().expect("a GPU")
}

/// Uploads, products, a scratch, an op in place, a readback.
fn step(device: &Device, rows: usize, weight: &Tensor) -> gristmill::Result<Vec<f32>> {
    let ids: Vec<u32> = (0..rows as u32).collect();
    let x = ops::gather(weight, &Tensor::from_slice(device, &ids, &[rows])?, 0)?;
    let mut y = ops::matmul(&x, weight, &Default::default())?;
    ops::relu_in_place(&mut y)?;
    let mut z = ops::softmax(&y, -1, &ops::Softmax::default())?;
    ops::add_in_place(&mut z, &x)?;
    ops::sum(&z, &[0, 1], false)?.to_vec()
}

fn weight(device: &Device) -> gristmill::Result<Tensor> {
    Tensor::rand_uniform(device, &[96, 96], 1)
}

/// Steps of the same shapes: after the second no buffer, no bind group, and one submission each.
fn steady(_: &Subject, device: &Device, _: Level) -> Result<(), String> {
    if device.is_cpu() {
        return Ok(());
    }
    let run = || -> gristmill::Result<_> {
        let weight = weight(device)?;
        let first = step(device, 40, &weight)?;
        // What the first had to allocate may suit an earlier place in the second.
        step(device, 40, &weight)?;
        let before = memory(device);
        for _ in 0..5 {
            assert_eq!(step(device, 40, &weight)?, first, "the same bits from recycled buffers");
        }
        Ok((before, memory(device)))
    };
    let (before, after) = run().map_err(|error| error.to_string())?;
    expect(after.buffers == before.buffers, format!("allocated: {before:?}, then {after:?}"))?;
    expect(after.bind_groups == before.bind_groups, format!("made bind groups: {before:?}, then {after:?}"))?;
    expect(after.submissions == before.submissions + 5, format!("submissions: {before:?}, then {after:?}"))?;
    expect(after.in_use == before.in_use && after.peak == before.peak, format!("grew: {before:?}, then {after:?}"))
}

/// A step of a thousand dispatches goes out once, when something waits for it.
fn one_submission(_: &Subject, device: &Device, _: Level) -> Result<(), String> {
    if device.is_cpu() {
        return Ok(());
    }
    let run = || -> gristmill::Result<_> {
        let one = Tensor::full(device, 1.0f32, &[7])?;
        let mut sum = Tensor::zeros(device, DType::F32, &[7])?;
        device.sync()?;
        let before = memory(device);
        for _ in 0..1000 {
            ops::add_in_place(&mut sum, &one)?;
        }
        Ok((before, sum.to_vec::<f32>()?, memory(device)))
    };
    let (before, sum, after) = run().map_err(|error| error.to_string())?;
    expect(sum == [1000.0; 7], format!("a thousand times one: {sum:?}"))?;
    expect(after.submissions == before.submissions + 1, format!("submissions: {before:?}, then {after:?}"))
}

/// A sequence that grows by one a step finds buffers and bind groups again.
fn growing(_: &Subject, device: &Device, _: Level) -> Result<(), String> {
    if device.is_cpu() {
        return Ok(());
    }
    let run = || -> gristmill::Result<_> {
        let weight = weight(device)?;
        step(device, 32, &weight)?;
        let before = memory(device);
        for rows in 33..97 {
            step(device, rows, &weight)?;
        }
        Ok((before, memory(device)))
    };
    let (before, after) = run().map_err(|error| error.to_string())?;
    let (buffers, groups) = (after.buffers - before.buffers, after.bind_groups - before.bind_groups);
    println!("64 lengths: {buffers} buffers, {groups} bind groups on {device}");
    expect(buffers <= 64 && groups <= 160, format!("{buffers} buffers and {groups} bind groups for 64 lengths of 6 dispatches"))
}

/// Poison that was dropped is not in what comes next, whatever its length.
fn recycled(_: &Subject, device: &Device, _: Level) -> Result<(), String> {
    fn all<T: Element>(device: &Device, len: usize) -> gristmill::Result<bool> {
        drop(Tensor::from_slice(device, &vec![u32::MAX; (len * size_of::<T>()).div_ceil(4)], &[(len * size_of::<T>()).div_ceil(4)])?);
        let zeros = Tensor::zeros(device, T::DTYPE, &[len])?.to_vec::<T>()?;
        let ones = vec![T::from_f64(1.0); len];
        drop(Tensor::from_slice(device, &vec![u32::MAX; len], &[len])?);
        let x = Tensor::from_slice(device, &ones, &[len])?;
        let copied = ops::copy(&x)?;
        Ok(zeros == vec![T::from_f64(0.0); len] && x.to_vec::<T>()? == ones && copied.to_vec::<T>()? == ones)
    }
    // Below and above what goes with the params.
    for len in [1, 3, 63, 64, 65, 4095, 4097, 70_001] {
        for clean in [all::<f32>(device, len), all::<half::f16>(device, len), all::<u8>(device, len), all::<bool>(device, len)] {
            expect(clean.map_err(|error| error.to_string())?, format!("{len} elements on {device}: another tensor's data"))?;
        }
    }
    Ok(())
}

/// Everything that is cached goes, bind groups or not, and what follows is right.
fn trim(_: &Subject, device: &Device, _: Level) -> Result<(), String> {
    if device.is_cpu() {
        return device.trim().map_err(|error| error.to_string());
    }
    let run = || -> gristmill::Result<_> {
        device.trim()?;
        let before = memory(device);
        let weight = weight(device)?;
        let first = step(device, 50, &weight)?;
        let cached = memory(device).cached;
        device.trim()?;
        let trimmed = memory(device);
        let again = step(device, 50, &weight)? == first;
        drop(weight);
        device.trim()?;
        Ok((before, cached, trimmed, again, memory(device)))
    };
    let (before, cached, trimmed, again, after) = run().map_err(|error| error.to_string())?;
    expect(before.cached == 0 && trimmed.cached == 0 && after.cached == 0, format!("{before:?} {trimmed:?} {after:?}"))?;
    expect(cached > 0 && again, "a step caches its buffers, and gives the same without them")?;
    expect(trimmed.in_use > before.in_use && after.in_use == before.in_use, format!("in use: {before:?} {trimmed:?} {after:?}"))
}

/// An error before the driver has to give one; what is dropped makes room again, whatever its size was.
fn budget(subject: &Subject, device: &Device, _: Level) -> Result<(), String> {
    let Some(caps) = device.caps() else { return Ok(()) };
    let options = GpuOptions {
        backend: Some(caps.backend),
        name: Some(caps.name.clone()),
        software: true,
        memory_budget: Some(1 << 20),
        ..GpuOptions::default()
    };
    let bounded = Device::gpu(&options).map_err(|error| error.to_string())?;
    let zeros = |bytes: usize| Tensor::zeros(&bounded, DType::U8, &[bytes]);
    let held = zeros(600_000).map_err(|error| error.to_string())?;
    match zeros(500_000) {
        Err(Error::OutOfMemory { bytes, .. }) => expect(bytes >= 500_000, format!("{bytes} bytes"))?,
        other => return Err(format!("past the budget on {}: {other:?}", subject.name)),
    }
    let peak = memory(&bounded).peak;
    expect(peak < 1_000_000, format!("a peak of {peak} that never was in use"))?;
    // A readback is not held to it.
    let read = held.to_vec::<u8>().map_err(|error| format!("a readback: {error}"))?;
    expect(read == vec![0; 600_000], "zeros")?;
    drop(held);
    // The last would not fit if it were rounded up.
    for bytes in [500_000, 300_000, 900_000, 1_000_000, 1_048_000] {
        zeros(bytes).map_err(|error| format!("{bytes} bytes of an empty budget: {error}"))?;
        let memory = memory(&bounded);
        expect(memory.in_use + memory.cached <= 1 << 20, format!("{memory:?} is over the budget"))?;
    }
    Ok(())
}

/// A long causal attention takes what its operands and its result do, and no scores: 8 GiB they would be. (`tests/attention_memory.rs` counts on the CPU.)
fn attention(subject: &Subject, device: &Device, level: Level) -> Result<(), String> {
    // Ten seconds on a software driver: on one of them.
    if level == Level::Smoke || level == Level::Quick && subject.name.contains('@') {
        return Ok(());
    }
    let Some(caps) = device.caps() else { return Ok(()) };
    let options = GpuOptions { backend: Some(caps.backend), name: Some(caps.name.clone()), software: true, ..GpuOptions::default() };
    let run = || -> gristmill::Result<_> {
        let own = Device::gpu(&options)?;
        let x = |seed| Tensor::rand_normal(&own, &[1, 8, 16_384, 64], 0.0, 1.0, seed);
        let (q, k, v) = (x(1)?, x(2)?, x(3)?);
        own.sync()?;
        let before = memory(&own);
        let out = ops::attention(&q, &k, &v, &ops::Attention { causal: true, ..Default::default() })?;
        own.sync()?;
        Ok((out.len() as u64 * 4, before, memory(&own)))
    };
    let (result, before, after) = run().map_err(|error| error.to_string())?;
    let counts = format!("{before:?}, then {after:?}, of a result of {result} bytes");
    expect(before.in_use >= 3 * result && before.peak < before.in_use + result, counts.clone())?;
    // A result is rounded up by an eighth at the most; beside it a number a row would be 512 KiB.
    expect(after.peak <= before.in_use + result + result / 8 + (1 << 19), counts)
}
