//! A soak: thousands of mixed ops with changing shapes, tensors that come and go, several devices. Memory stays bounded on the GPU, by the
//! device's own counters, and on the host, by an allocator that counts; the figures are printed. `GRISTMILL_SOAK` sets the number of ops.
#![cfg(feature = "gpu")]

mod counting;

use std::sync::atomic::{AtomicU64, Ordering};

use counting::held;
use gristmill::gpu::{Backend, GpuOptions};
use gristmill::{DType, Device, Result, Tensor, ops};

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }
}

/// One op of a random kind on tensors of random shapes; the result joins the live ones, of which the oldest go.
fn op(device: &Device, random: &mut Random, live: &mut Vec<Tensor>) -> Result<()> {
    let (rows, width) = (1 + random.below(64), 1 + random.below(96));
    let x = match live.get(random.below(live.len().max(1))) {
        Some(x) if random.below(3) > 0 => x.clone(),
        _ => Tensor::full(device, 0.5f32, &[rows, width])?,
    };
    let (rows, width) = (x.shape()[0], x.shape()[1]);
    let made = match random.below(12) {
        0 => ops::matmul(&x, &Tensor::full(device, 0.25f32, &[width, 1 + random.below(80)])?, &Default::default())?,
        1 => ops::softmax(&x, -1, &ops::Softmax::default())?,
        2 => ops::add(&x, &Tensor::full(device, 1.0f32, &[rows, 1])?)?,
        3 => ops::tanh(&x)?,
        4 => ops::cast(&ops::cast(&x, DType::BF16)?, DType::F32)?,
        5 => ops::sum(&x, &[random.below(2) as isize], true)?,
        6 => {
            let ids = vec![0u32; 1 + random.below(40)];
            ops::gather(&x, &Tensor::from_slice(device, &ids, &[ids.len()])?, 0)?
        }
        7 => ops::concat(&[&x, &x], 0)?.narrow(0, 0..rows)?,
        8 => ops::where_cond(&ops::gt(&x, &Tensor::full(device, 0.5f32, &[1])?)?, &x, &ops::neg(&x)?)?,
        9 => {
            let mut own = ops::copy(&x)?;
            ops::silu_in_place(&mut own)?;
            own
        }
        10 => x.transpose(0, 1)?.contiguous()?,
        _ => {
            let four = x.reshape(&[1, 1, rows, width])?;
            ops::attention(&four, &four, &four, &ops::Attention::default())?.reshape(&[rows, width])?
        }
    };
    live.push(made);
    if live.len() > 20 {
        live.drain(..10);
    }
    if random.below(50) == 0 {
        live[0].to_vec::<f32>()?;
    }
    Ok(())
}

#[test]
fn memory_stays_bounded() {
    let ops: u64 = std::env::var("GRISTMILL_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let adapters = Device::adapters();
    let Some(adapter) = adapters.iter().find(|a| a.backend == Backend::Vulkan).or(adapters.first()) else {
        assert!(std::env::var("GRISTMILL_REQUIRE_GPU").is_err(), "no adapter on this machine");
        return;
    };
    let options = GpuOptions { adapter: Some(adapter.clone()), software: true, ..GpuOptions::default() };
    let device = Device::gpu(&options).expect("an adapter that is there");
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut live = Vec::new();
    let done = AtomicU64::new(0);
    // Per tenth: bytes held by the host, and the device's.
    let mut tenths = Vec::new();
    for _ in 0..10 {
        for _ in 0..ops / 10 {
            op(&device, &mut random, &mut live).expect("an op that is right");
            done.fetch_add(1, Ordering::Relaxed);
        }
        device.sync().expect("a device that works");
        live.clear();
        device.trim().expect("a device that works");
        let memory = device.memory().expect("a GPU");
        println!("{:>6} ops: {:>9} bytes on the host, {memory:?}", done.load(Ordering::Relaxed), held());
        assert_eq!((memory.in_use, memory.cached), (0, 0), "after everything was dropped and trimmed");
        tenths.push((held(), memory.peak));
    }
    // All pipelines are there after a tenth or two.
    let (settled, last) = (tenths[4], tenths[9]);
    // wgpu keeps what it has made for the next time, in vectors that double, so it settles late: of 40,000 ops in the last 16,000 there is no growth.
    // 100 bytes an op would be as much as is allowed.
    assert!(last.0 < settled.0 + (1 << 20), "the host held {} bytes in the middle and {} at the end", settled.0, last.0);
    assert!(last.1 < 64 << 20, "a peak of {} bytes of tensors", last.1);
}
