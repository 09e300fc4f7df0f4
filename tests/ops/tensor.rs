//! Tensors on every device: making, viewing, reading, moving; ndarray; the generator; write counters; threads.

use approx::assert_abs_diff_eq;
use gristmill::{DType, Device, Tensor, ops};
use half::{bf16, f16};
use libtest_mimic::Trial;
use ndarray::{Array3, Array4, IxDyn, s};

use crate::support::devices::{Level, Subject, subjects};
use crate::support::runner::{expect, trial, trials};

type Outcome = Result<(), String>;

pub fn all() -> Vec<Trial> {
    let mut all = trials("tensor", "making", |_, d, _| making(d).map_err(text));
    all.extend(trials("tensor", "views", |_, d, _| views(d).map_err(text)));
    all.extend(trials("tensor", "ndarray", |_, d, _| arrays(d).map_err(text)));
    all.extend(trials("tensor", "moves", moves));
    all.extend(trials("tensor", "async", |_, d, _| asynchronous(d)));
    all.extend(trials("tensor", "threads", |_, d, _| threads(d)));
    all.push(trial("tensor::inside_rayon", inside_rayon));
    all.push(trial("tensor::wakers", wakers));
    all.push(trial("tensor::debug", || debug().map_err(text)));
    all.push(trial("tensor::random", || random().map_err(text)));
    all.push(trial("device::best", || best().map_err(text)));
    all
}

fn text(error: gristmill::Error) -> String {
    error.to_string()
}

fn making(device: &Device) -> gristmill::Result<()> {
    assert_eq!(Tensor::zeros(device, DType::F16, &[3])?.to_vec::<f16>()?, [f16::ZERO; 3]);
    assert_eq!(Tensor::zeros(device, DType::Bool, &[5])?.to_vec::<bool>()?, [false; 5]);
    assert_eq!(Tensor::full(device, bf16::from_f32(1.5), &[2, 2])?.to_vec::<bf16>()?, [bf16::from_f32(1.5); 4]);
    assert_eq!(Tensor::full(device, true, &[3])?.to_vec::<bool>()?, [true; 3]);
    assert_eq!(Tensor::full(device, 7u8, &[])?.to_vec::<u8>()?, [7]);
    assert_eq!(Tensor::arange::<i32>(device, -2.0, 3.0, 4)?.to_vec::<i32>()?, [-2, 1, 4, 7]);
    assert_eq!(Tensor::arange::<u8>(device, 250.0, 2.0, 4)?.to_vec::<u8>()?, [250, 252, 254, 255]);
    assert_eq!(Tensor::arange::<f32>(device, 0.5, 0.25, 3)?.to_vec::<f32>()?, [0.5, 0.75, 1.0]);
    assert_eq!(Tensor::from_slice(device, &[u32::MAX, 1, 2], &[3])?.to_vec::<u32>()?, [u32::MAX, 1, 2]);
    assert!(Tensor::from_slice::<f32>(device, &[], &[0, 4])?.to_vec::<f32>()?.is_empty());
    Ok(())
}

fn views(device: &Device) -> gristmill::Result<()> {
    let values: Vec<i32> = (0..24).collect();
    let x = Tensor::from_slice(device, &values, &[2, 3, 4])?;
    let pick = |f: &dyn Fn(usize, usize, usize) -> i32, dims: [usize; 3]| {
        let mut all = Vec::new();
        for a in 0..dims[0] {
            for b in 0..dims[1] {
                all.extend((0..dims[2]).map(|c| f(a, b, c)));
            }
        }
        all
    };
    let at = |a: usize, b: usize, c: usize| (a * 12 + b * 4 + c) as i32;
    assert_eq!(x.transpose(0, -1)?.to_vec::<i32>()?, pick(&|a, b, c| at(c, b, a), [4, 3, 2]));
    assert_eq!(x.permute(&[1, 2, 0])?.to_vec::<i32>()?, pick(&|a, b, c| at(c, a, b), [3, 4, 2]));
    assert_eq!(x.narrow(-1, 1..3)?.narrow(1, 2..3)?.to_vec::<i32>()?, pick(&|a, _, c| at(a, 2, c + 1), [2, 1, 2]));
    assert_eq!(x.narrow(0, 1..2)?.squeeze(0)?.reshape(&[12])?.to_vec::<i32>()?, values[12..]);
    assert_eq!(x.narrow(0, 1..2)?.broadcast_to(&[3, 3, 4])?.to_vec::<i32>()?, pick(&|_, b, c| at(1, b, c), [3, 3, 4]));
    let turned = x.transpose(1, 2)?;
    assert!(turned.shares_storage(&x) && turned.reshape(&[24]).is_err());
    let dense = turned.contiguous()?;
    assert!(dense.layout().is_contiguous() && !dense.shares_storage(&x));
    assert_eq!(dense.reshape(&[24])?.to_vec::<i32>()?, pick(&|a, b, c| at(a, c, b), [2, 4, 3]));
    assert!(x.contiguous()?.shares_storage(&x));
    assert_eq!(x.unsqueeze(-1)?.unsqueeze(0)?.shape(), [1, 2, 3, 4, 1]);
    assert!(x.narrow(1, 3..3)?.to_vec::<i32>()?.is_empty());
    // Views of nothing stay where they are.
    let nothing = Tensor::zeros(device, DType::I32, &[0, 10])?;
    assert!(nothing.narrow(1, 5..6)?.to_vec::<i32>()?.is_empty());
    assert_eq!(nothing.narrow(1, 5..6)?.reshape(&[0])?.to_ndarray::<i32>()?.len(), 0);

    // A write is seen by all that share the storage, and counted.
    let cache = Tensor::zeros(device, DType::I32, &[2, 6])?;
    let before = cache.writes();
    ops::copy_into(&mut cache.narrow(1, 2..5)?, &x.narrow(0, 0..1)?.narrow(2, 0..3)?.narrow(1, 0..2)?.squeeze(0)?)?;
    assert_eq!(cache.to_vec::<i32>()?, [0, 0, 0, 1, 2, 0, 0, 0, 4, 5, 6, 0]);
    assert_eq!(cache.writes(), before + 1);
    // And broadcasts.
    ops::copy_into(&mut cache.narrow(1, 0..1)?, &Tensor::full(device, 9i32, &[])?)?;
    assert_eq!(cache.to_vec::<i32>()?, [9, 0, 0, 1, 2, 0, 9, 0, 4, 5, 6, 0]);
    Ok(())
}

fn arrays(device: &Device) -> gristmill::Result<()> {
    let a = Array4::from_shape_fn((2, 3, 4, 5), |(a, b, c, d)| (a * 1000 + b * 100 + c * 10 + d) as f32);
    let fortran = a.t().as_standard_layout().reversed_axes().to_owned();
    assert_eq!(fortran, a);
    // Row-major, column-major, permuted, sliced with steps, reversed.
    assert_eq!(Tensor::from_ndarray(device, &a)?.to_ndarray::<f32>()?, a.clone().into_dyn());
    assert_eq!(Tensor::from_ndarray(device, &fortran)?.to_ndarray::<f32>()?, a.clone().into_dyn());
    let view = a.view().permuted_axes([2, 0, 3, 1]);
    assert_eq!(Tensor::from_ndarray(device, &view)?.to_ndarray::<f32>()?, view.into_dyn());
    let view = a.slice(s![.., ..;-1, 1..;2, ..]);
    assert_eq!(Tensor::from_ndarray(device, &view)?.to_ndarray::<f32>()?, view.into_dyn());
    // A view of ours out.
    let b = Array3::from_shape_fn((2, 3, 4), |(a, b, c)| f16::from_f32((a + b * c) as f32));
    let out = Tensor::from_ndarray(device, &b)?.transpose(0, 2)?.to_ndarray::<f16>()?;
    assert_eq!(out, b.t().into_dyn());
    let six = ndarray::ArrayD::<u8>::from_elem(IxDyn(&[1, 2, 1, 2, 1, 2]), 3);
    assert_eq!(Tensor::from_ndarray(device, &six)?.to_ndarray::<u8>()?, six);
    let seven = ndarray::ArrayD::<u8>::from_elem(IxDyn(&[1; 7]), 3);
    assert!(Tensor::from_ndarray(device, &seven).is_err());
    let scalar = ndarray::arr0(true);
    assert_eq!(Tensor::from_ndarray(device, &scalar)?.to_ndarray::<bool>()?, scalar.into_dyn());
    Ok(())
}

/// To and from every other device that is there.
fn moves(_: &Subject, device: &Device, _: Level) -> Outcome {
    let values: Vec<f32> = (0..35).map(|i| i as f32 * 0.5).collect();
    let x = Tensor::from_slice(device, &values, &[5, 7]).map_err(text)?;
    let view = x.transpose(0, 1).and_then(|t| t.narrow(0, 2..5)).map_err(text)?;
    for other in subjects().iter().filter_map(|s| s.device.as_ref().ok()) {
        let moved = view.to_device(other).map_err(text)?;
        expect(moved.device().same_as(other), "the copy must be on its device")?;
        let back = moved.to_device(device).map_err(text)?;
        expect(back.to_vec::<f32>().map_err(text)? == view.to_vec::<f32>().map_err(text)?, "a move must keep the elements")?;
        if !other.same_as(device) {
            expect(matches!(ops::add(&view, &moved), Err(gristmill::Error::Device { .. })), "two devices must be an error")?;
        }
    }
    Ok(())
}

fn asynchronous(device: &Device) -> Outcome {
    let work = async {
        let x = Tensor::from_slice(device, &[1.0f32, 2.0, 3.0], &[3])?;
        let y = ops::add(&x, &x)?;
        device.sync_async().await?;
        let array = y.to_ndarray_async::<f32>().await?;
        assert_eq!(array.as_slice(), Some(&[2.0, 4.0, 6.0][..]));
        let cpu = y.to_device_async(&Device::cpu()).await?;
        assert_eq!(cpu.to_vec_async::<f32>().await?, [2.0, 4.0, 6.0]);
        assert!(y.to_vec_async::<u8>().await.is_err());
        device.sync()
    };
    pollster::block_on(work).map_err(text)
}

/// One device from many threads: each sees its own results. The compiler proves the rest.
fn threads(device: &Device) -> Outcome {
    fn shared<T: Send + Sync>() {}
    shared::<Device>();
    shared::<Tensor>();
    shared::<gristmill::Error>();
    // An OpenGL context serves one thread at a time and waits for it.
    let count = if device.label().starts_with("gl:") { 1 } else { 4 };
    let work = |thread: usize| -> gristmill::Result<bool> {
        for turn in 0..20 {
            let n = 3 + (thread + turn) % 5;
            let x = Tensor::full(device, thread as f32, &[n, n])?;
            let y = ops::matmul(&x, &x, &Default::default())?;
            if y.to_vec::<f32>()? != vec![(thread * thread * n) as f32; n * n] {
                return Ok(false);
            }
        }
        Ok(true)
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..count).map(|thread| scope.spawn(move || work(thread))).collect();
        for handle in handles {
            let right = handle.join().map_err(|_| "a thread panicked")?.map_err(text)?;
            expect(right, "a thread saw another's result")?;
        }
        Ok(())
    })
}

/// Ops inside a caller's own rayon loop: a worker that waits for one op's tasks starts the next op on the same thread.
fn inside_rayon() -> Outcome {
    use rayon::prelude::*;

    let run = || -> gristmill::Result<()> {
        let device = Device::cpu();
        let w = Tensor::rand_uniform(&device, &[384, 384], 1)?;
        let x = Tensor::rand_uniform(&device, &[32, 384], 2)?;
        let out = Tensor::zeros(&device, DType::F32, &[32, 384])?;
        let whole = ops::matmul(&x, &w, &Default::default())?.to_vec::<f32>()?;
        for _ in 0..30 {
            (0..32).into_par_iter().try_for_each(|row| {
                let y = ops::matmul(&x.narrow(0, row..row + 1)?, &w, &Default::default())?;
                ops::copy_into(&mut out.narrow(0, row..row + 1)?, &y)
            })?;
        }
        for (got, want) in out.to_vec::<f32>()?.into_iter().zip(whole) {
            assert_abs_diff_eq!(got, want, epsilon = 1e-3);
        }
        Ok(())
    };
    // Where it once hung: on 3 and 8 threads. A hang must fail, not hang the tests.
    for threads in [3, 8] {
        let (done, finished) = std::sync::mpsc::channel();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| e.to_string())?;
        pool.spawn(move || drop(done.send(run())));
        let outcome = finished.recv_timeout(std::time::Duration::from_secs(120));
        // Dropping a pool that hangs would hang too.
        std::mem::forget(pool);
        outcome.map_err(|_| format!("ops inside a rayon loop hung on {threads} threads"))?.map_err(text)?;
    }
    Ok(())
}

/// A waker that polls at once, and a future that is dropped before its result.
fn wakers() -> Outcome {
    for device in subjects().iter().filter_map(|s| s.device.as_ref().ok()) {
        let x = Tensor::full(device, 2.0f32, &[1000]).map_err(text)?;
        let y = ops::mul(&x, &x).map_err(text)?;
        let mut dropped = Box::pin(y.to_vec_async::<f32>());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = dropped.as_mut().poll(&mut context);
        drop(dropped);
        expect(y.to_vec::<f32>().map_err(text)? == [4.0; 1000], "a dropped read must not disturb the next")?;
    }
    Ok(())
}

fn debug() -> gristmill::Result<()> {
    let x = Tensor::arange::<f32>(&Device::cpu(), 0.0, 1.0, 12)?.reshape(&[3, 4])?;
    assert_eq!(format!("{x:?}"), "Tensor f32[3, 4] on cpu [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, …]");
    let view = x.narrow(1, 1..3)?;
    assert_eq!(format!("{view:?}"), "Tensor f32[3, 2] on cpu, strides [4, 1] offset 1 [1.0, 2.0, 5.0, 6.0, 9.0, 10.0]");
    assert_eq!(format!("{:?}", Tensor::full(&Device::cpu(), true, &[2])?), "Tensor bool[2] on cpu [true, true]");
    Ok(())
}

/// Reproducible, the same on every device, with the right moments.
fn random() -> gristmill::Result<()> {
    let cpu = Device::cpu();
    let x = Tensor::rand_uniform(&cpu, &[100, 1001], 42)?.to_vec::<f32>()?;
    assert!(x.iter().all(|v| (0.0..1.0).contains(v) && (v * 16_777_216.0).fract() == 0.0));
    let mean = x.iter().sum::<f32>() / x.len() as f32;
    assert_abs_diff_eq!(mean, 0.5, epsilon = 0.005);
    assert_ne!(x[..4], Tensor::rand_uniform(&cpu, &[4], 43)?.to_vec::<f32>()?);
    // A longer tensor begins with a shorter one's elements.
    assert_eq!(x[..7], Tensor::rand_uniform(&cpu, &[7], 42)?.to_vec::<f32>()?);
    let n = Tensor::rand_normal(&cpu, &[100_003], 2.0, 3.0, 7)?.to_vec::<f32>()?;
    let mean = n.iter().map(|&v| f64::from(v)).sum::<f64>() / n.len() as f64;
    let variance = n.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n.len() as f64;
    assert_abs_diff_eq!(mean, 2.0, epsilon = 0.05);
    assert_abs_diff_eq!(variance.sqrt(), 3.0, epsilon = 0.05);
    for device in subjects().iter().filter_map(|s| s.device.as_ref().ok()) {
        assert_eq!(Tensor::rand_uniform(device, &[5, 5], 42)?.to_vec::<f32>()?, x[..25]);
        assert_eq!(Tensor::rand_normal(device, &[9], 2.0, 3.0, 7)?.to_vec::<f32>()?, n[..9]);
    }
    assert!(Tensor::rand_normal(&cpu, &[1], 0.0, f64::NAN, 0).is_err());
    Ok(())
}

/// Never a software adapter by itself.
fn best() -> gristmill::Result<()> {
    if std::env::var(gristmill::DEVICE_VAR).is_ok() {
        return Ok(());
    }
    let device = Device::best()?;
    #[cfg(feature = "gpu")]
    assert!(device.caps().is_none_or(|caps| caps.kind != gristmill::gpu::AdapterKind::Software));
    assert!(!device.label().is_empty());
    Ok(())
}
