//! Callers who bring their own device, buffers, encoders and kernels.

use gristmill::gpu::{Access, Arg, Binding, Constants, Dispatch, GpuOptions, Kernel, Needs, Params as _, Plan, Spec, Width, wgpu};
use gristmill::{DType, Device, Error, Tensor, ops};
use libtest_mimic::Trial;
use wgpu::BufferUsages;

use crate::support::devices::{Level, Subject};
use crate::support::runner::{expect, trials};

pub fn all() -> Vec<Trial> {
    let mut all = trials("callers", "adopted", |s, d, _| on_gpu(s, d, adopted));
    all.extend(trials("callers", "buffers", |s, d, _| on_gpu(s, d, buffers)));
    all.extend(trials("callers", "recorded", |s, d, _| on_gpu(s, d, recorded)));
    all.extend(trials("callers", "record_refuses", record_refuses));
    all.extend(trials("callers", "kernels", |s, d, _| on_gpu(s, d, kernels)));
    all
}

type Raw = (wgpu::Device, wgpu::Queue);
type Test = fn(&Device, &Raw) -> gristmill::Result<Result<(), String>>;

fn on_gpu(_: &Subject, device: &Device, test: Test) -> Result<(), String> {
    let Some(raw) = device.wgpu() else { return Ok(()) };
    test(device, &raw).map_err(|error| error.to_string())?
}

fn buffer(raw: &wgpu::Device, size: u64, usage: BufferUsages) -> wgpu::Buffer {
    raw.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

fn encoder(raw: &wgpu::Device) -> wgpu::CommandEncoder {
    raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
}

/// Two devices of gristmill's on one of wgpu's: each with tensors of its own, buffers shared on request.
fn adopted(device: &Device, raw: &Raw) -> gristmill::Result<Result<(), String>> {
    let other = Device::from_wgpu(raw.0.clone(), raw.1.clone(), &GpuOptions::default())?;
    let x = Tensor::rand_uniform(device, &[40, 40], 1)?;
    let y = Tensor::rand_uniform(&other, &[40, 40], 1)?;
    let mixed = ops::add(&x, &y);
    let (a, b) = (ops::matmul(&x, &x, &Default::default())?, ops::matmul(&y, &y, &Default::default())?);
    let shared = Tensor::from_buffer(&other, a.buffer()?.0, DType::F32, &[40, 40])?;
    let same = ops::sub(&shared, &b)?.to_vec::<f32>()?.iter().all(|&v| v == 0.0);
    Ok(expect(matches!(mixed, Err(Error::Device { .. })), "tensors of two devices")
        .and(expect(same, "the same results on both, in a shared buffer"))
        .and(expect(other.caps().map(|caps| &caps.name) == device.caps().map(|caps| &caps.name), "the device's own name")))
}

/// Buffers in and out: what is refused, and that nothing is copied.
fn buffers(device: &Device, (raw, queue): &Raw) -> gristmill::Result<Result<(), String>> {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let refused = |size: u64, usage: BufferUsages, dtype: DType, shape: &[usize]| {
        let result = Tensor::from_buffer(device, buffer(raw, size, usage), dtype, shape);
        expect(matches!(result, Err(Error::Argument { .. })), format!("{size} bytes, {usage:?} as {dtype}{shape:?}: {result:?}"))
    };
    let checks = refused(60, usage, DType::F32, &[16])
        .and(refused(8, usage, DType::U8, &[6]))
        .and(refused(0, usage, DType::F32, &[0]))
        .and(refused(64, BufferUsages::COPY_SRC | BufferUsages::COPY_DST, DType::F32, &[16]))
        .and(refused(64, BufferUsages::STORAGE, DType::F32, &[16]));
    let on_cpu = Tensor::from_buffer(&Device::cpu(), buffer(raw, 64, usage), DType::F32, &[16]);
    let destroyed = buffer(raw, 64, usage);
    destroyed.destroy();
    let destroyed = Tensor::from_buffer(device, destroyed, DType::F32, &[16]);

    // Tensors that do not fill their buffers.
    let mut right = true;
    for len in [1usize, 3, 4, 5, 8, 13, 16, 24, 67] {
        let own = buffer(raw, (4 * len as u64).next_multiple_of(16), usage);
        let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
        queue.write_buffer(&own, 0, bytemuck::cast_slice(&values));
        let x = Tensor::from_buffer(device, own.clone(), DType::F32, &[len])?;
        let mut y = ops::add(&x, &x)?;
        right &= y.to_vec::<f32>()? == values.iter().map(|v| v * 2.0).collect::<Vec<_>>();
        // Written by the caller in turn, seen by the ops; written by ops, seen in the caller's buffer.
        queue.write_buffer(&own, 0, bytemuck::cast_slice(&vec![7.0f32; len]));
        ops::add_into(&mut y, &x, &x)?;
        right &= y.to_vec::<f32>()? == vec![14.0; len];
        let mut into = x.clone();
        ops::add_into(&mut into, &y, &y)?;
        right &= Tensor::from_buffer(device, own, DType::F32, &[len])?.to_vec::<f32>()? == vec![28.0; len];
    }
    // One element for all, to a kernel that reads 16 bytes at once.
    let one = buffer(raw, 16, usage);
    queue.write_buffer(&one, 0, bytemuck::cast_slice(&[3.0f32]));
    let one = Tensor::from_buffer(device, one, DType::F32, &[1])?;
    right &= ops::mul(&Tensor::full(device, 2.0f32, &[64])?, &one)?.to_vec::<f32>()? == [6.0; 64];
    let bytes = Tensor::from_buffer(device, buffer(raw, 16, usage), DType::U8, &[5])?;
    right &= ops::cast(&bytes, DType::F32)?.to_vec::<f32>()? == [0.0; 5];

    // Two tensors of one buffer are one storage.
    let both = buffer(raw, 64, usage);
    let (x, mut y) = (Tensor::from_buffer(device, both.clone(), DType::F32, &[16])?, Tensor::from_buffer(device, both, DType::F32, &[16])?);
    let alias = ops::neg_into(&mut y, &x);
    let no_copy = x.keep_host_copy();

    let x = Tensor::arange::<f32>(device, 0.0, 1.0, 24)?.reshape(&[4, 6])?;
    let (_, range) = x.narrow(0, 1..3)?.buffer()?;
    let gaps = x.narrow(1, 1..3)?.buffer();
    Ok(checks
        .and(expect(matches!(on_cpu, Err(Error::Argument { .. })), "a buffer for the CPU"))
        .and(expect(matches!(destroyed, Err(Error::Rejected { .. })), format!("a destroyed buffer: {destroyed:?}")))
        .and(expect(right, "values through shared buffers"))
        .and(expect(matches!(alias, Err(Error::Overlap { .. })), format!("two tensors of one buffer: {alias:?}")))
        .and(expect(matches!(no_copy, Err(Error::Argument { .. })), format!("a host copy of a shared buffer: {no_copy:?}")))
        .and(expect(range == (24..72), format!("rows 1 and 2 lie at {range:?}")))
        .and(expect(matches!(gaps, Err(Error::Shape { .. })), "a view with gaps")))
}

/// In the caller's encoder: more params than a ring holds, temporaries, uploads of both kinds, a recycled zero; and none of its buffers is used
/// for anything else before it runs.
fn recorded(device: &Device, (raw, queue): &Raw) -> gristmill::Result<Result<(), String>> {
    let steps = 300;
    let x = Tensor::full(device, 1.0f32, &[50, 20])?;
    drop(Tensor::full(device, f32::NAN, &[50, 20])?);
    let before = device.memory().map(|memory| memory.submissions);
    let mut own = encoder(raw);
    let (sum, total) = device.record(&mut own, || {
        let mut sum = Tensor::zeros(device, DType::F32, &[50, 20])?;
        for step in 0..steps {
            let scaled = ops::mul(&x, &Tensor::full(device, step as f32, &[1])?)?;
            sum = ops::add(&sum, &scaled)?;
        }
        let large = Tensor::full(device, 1.0f32, &[3000])?;
        Ok((sum, ops::sum(&large, &[0], false)?))
    })?;
    let after = device.memory().map(|memory| memory.submissions);
    // Of the same sizes, while the encoder waits.
    drop(x);
    let bystanders = (0..20).map(|i| ops::neg(&Tensor::full(device, i as f32, &[50, 20])?)).collect::<gristmill::Result<Vec<_>>>()?;
    device.sync()?;
    queue.submit([own.finish()]);
    let expected = (steps * (steps - 1) / 2) as f32;
    let right = sum.to_vec::<f32>()? == [expected; 1000] && total.to_vec::<f32>()? == [3000.0];
    let mut alone = true;
    for (i, bystander) in bystanders.iter().enumerate() {
        alone &= bystander.to_vec::<f32>()? == [-(i as f32); 1000];
    }

    // Another thread's work that nobody waited for, and whose buffer this one is lent.
    let (x, mut own) = (Tensor::full(device, 1.0f32, &[1000])?, encoder(raw));
    device.sync()?;
    let lent = device.record(&mut own, || {
        std::thread::scope(|scope| scope.spawn(|| ops::neg(&x).map(drop)).join()).expect("no panic")?;
        ops::add(&x, &x)
    })?;
    queue.submit([own.finish()]);
    alone &= lent.to_vec::<f32>()? == [2.0; 1000];

    // An encoder that never runs.
    let mut never = encoder(raw);
    let unwritten = device.record(&mut never, || ops::add(&sum, &sum))?;
    drop((never, unwritten));
    let twice = ops::add(&sum, &sum)?.to_vec::<f32>()? == [2.0 * expected; 1000];
    Ok(expect(right, "the recorded work's results")
        .and(expect(alone, "tensors made while the encoder waited"))
        .and(expect(before.zip(after).is_some_and(|(before, after)| after <= before + 1), "nothing but what was there is submitted"))
        .and(expect(twice, "after an encoder that was dropped")))
}

/// What cannot be done inside, and what is left after an error or a panic.
fn record_refuses(_: &Subject, device: &Device, _: Level) -> Result<(), String> {
    let x = Tensor::full(device, 1.0f32, &[9]).map_err(|e| e.to_string())?;
    let Some((raw, queue)) = device.wgpu() else {
        // Any encoder will do, but there is none on the CPU.
        return expect(!device.is_lost(), "the CPU is not lost");
    };
    let mut own = encoder(&raw);
    let refused = |result: gristmill::Result<()>, what: &str| {
        expect(matches!(result, Err(Error::Argument { .. })), format!("{what} inside `record`: {result:?}"))
    };
    refused(device.record(&mut own, || x.to_vec::<f32>().map(drop)), "to_vec")?;
    refused(device.record(&mut own, || device.sync()), "sync")?;
    refused(device.record(&mut own, || x.buffer().map(drop)), "buffer")?;
    refused(device.record(&mut own, || device.record(&mut encoder(&raw), || Ok(()))), "record")?;
    refused(Device::cpu().record(&mut own, || Ok(())), "on the CPU, record")?;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        device.record::<()>(&mut own, || std::panic::resume_unwind(Box::new("the caller's")))
    }));
    expect(panicked.is_err(), "a panic goes through")?;
    // All of it left the encoder and the device as they were.
    let y = device.record(&mut own, || ops::add(&x, &x)).map_err(|e| e.to_string())?;
    queue.submit([own.finish()]);
    let others = std::thread::scope(|scope| {
        let mut own = encoder(&raw);
        device.record(&mut own, || {
            // Another thread is not concerned.
            Ok(scope.spawn(|| ops::add(&x, &x).and_then(|t| t.to_vec::<f32>())).join())
        })
    });
    expect(y.to_vec::<f32>().is_ok_and(|y| y == [2.0; 9]), "work recorded after all that")?;
    expect(matches!(others, Ok(Ok(Ok(values))) if values == [2.0; 9]), "another thread, meanwhile")
}

gristmill::params! {
    struct Params {
        len: u32,
        pad0: u32,
        pad1: u32,
        pad2: u32,
    }
}

static TRIPLE: Kernel = Kernel {
    name: "triple",
    source: "
struct Params { len: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < params.len {
        out[id.x] = 3.0 * x[id.x];
    }
}
",
    libs: &[],
    bindings: &[Binding::new("out", Access::Write), Binding::new("x", Access::Read)],
    params: Params::FIELDS,
    fills_workgroup_memory: true,
    variants: &[Constants::NONE],
    tunes: &[Constants::NONE],
    dtypes: &[&[DType::F32; 2]],
    widths: &[Width::Fixed],
    needs: Needs::Nothing,
};

/// More than a tensor may hold, which shows when its encoder is closed.
static GREEDY: Kernel = Kernel {
    name: "greedy",
    source: "
struct Params { len: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<storage, read_write> out: array<f32, 100000>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    out[id.x + params.len] = x[id.x];
}
",
    ..TRIPLE
};

/// Params of more than the host's struct has.
static LONGER: Kernel = Kernel {
    name: "longer",
    source: "
struct Params { all: array<vec4<u32>, 20> }
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    out[id.x] = x[id.x] + params.all[id.x % 20u].x;
}
",
    ..TRIPLE
};

static BROKEN: Kernel = Kernel { name: "broken", source: "this is not WGSL", ..TRIPLE };

fn triple(kernel: &'static Kernel, args: [Arg; 2]) -> Dispatch {
    Dispatch {
        kernel,
        spec: Spec { dtypes: kernel.dtypes[0], variant: &Constants::NONE, tune: &Constants::NONE, width: Width::Fixed },
        args: args.to_vec(),
        params: bytemuck::bytes_of(&Params { len: 100, pad0: 0, pad1: 0, pad2: 0 }).to_vec(),
        grid: [2, 1, 1],
        bytes: 800,
        flops: 100,
    }
}

/// Kernels of the caller's: through a scratch, and every way to get it wrong.
fn kernels(device: &Device, _: &Raw) -> gristmill::Result<Result<(), String>> {
    let x = Tensor::arange::<f32>(device, 0.0, 1.0, 100)?;
    let mut out = Tensor::zeros(device, DType::F32, &[100])?;
    let (to_scratch, back) = (triple(&TRIPLE, [Arg::Scratch(0), Arg::Tensor(1)]), triple(&TRIPLE, [Arg::Tensor(0), Arg::Scratch(0)]));
    ops::dispatch("nine times", &Plan { dispatches: vec![to_scratch, back], scratch: vec![400] }, &mut out, &[&x])?;
    let nine_times: Vec<f32> = (0..100).map(|i| 9.0 * i as f32).collect();
    let mut checks = expect(out.to_vec::<f32>()? == nine_times && out.writes() == 1, "nine times");

    let good = || triple(&TRIPLE, [Arg::Tensor(0), Arg::Tensor(1)]);
    let wrong: [(&str, Plan); 8] = [
        ("too few arguments", Dispatch { args: vec![Arg::Tensor(0)], ..good() }.into()),
        ("too many params", Dispatch { params: vec![0; 32], ..good() }.into()),
        ("no params", Dispatch { params: vec![], ..good() }.into()),
        ("no such tensor", triple(&TRIPLE, [Arg::Tensor(0), Arg::Tensor(2)]).into()),
        ("no such scratch", triple(&TRIPLE, [Arg::Scratch(0), Arg::Tensor(1)]).into()),
        ("an input written", triple(&TRIPLE, [Arg::Tensor(1), Arg::Tensor(0)]).into()),
        ("read and written", triple(&TRIPLE, [Arg::Tensor(0), Arg::Tensor(0)]).into()),
        ("too few dtypes", Dispatch { spec: Spec { dtypes: &[DType::F32], ..good().spec }, ..good() }.into()),
    ];
    for (what, plan) in wrong {
        let result = ops::dispatch("wrong", &plan, &mut out, &[&x]);
        checks = checks.and(expect(matches!(result, Err(Error::Argument { .. })), format!("{what}: {result:?}")));
    }
    let grid = ops::dispatch("grid", &Dispatch { grid: [1 << 30, 1, 1], ..good() }.into(), &mut out, &[&x]);
    let broken = ops::dispatch("broken", &triple(&BROKEN, [Arg::Tensor(0), Arg::Tensor(1)]).into(), &mut out, &[&x]);
    for kernel in [&GREEDY, &LONGER] {
        let refused = ops::dispatch("refused", &triple(kernel, [Arg::Tensor(0), Arg::Tensor(1)]).into(), &mut out, &[&x]);
        checks = checks.and(expect(matches!(refused, Err(Error::Rejected { .. })), format!("{}: {refused:?}", kernel.name)));
    }
    let overlap = ops::dispatch("overlap", &good().into(), &mut out.clone(), &[&out]);
    let on_cpu = ops::dispatch("cpu", &good().into(), &mut Tensor::zeros(&Device::cpu(), DType::F32, &[100])?, &[]);
    checks = checks
        .and(expect(matches!(grid, Err(Error::TooLarge { .. })), format!("a grid: {grid:?}")))
        .and(expect(matches!(broken, Err(Error::Rejected { .. })), format!("no WGSL: {broken:?}")))
        .and(expect(matches!(overlap, Err(Error::Overlap { .. })), format!("out among the inputs: {overlap:?}")))
        .and(expect(matches!(on_cpu, Err(Error::Argument { .. })), format!("on the CPU: {on_cpu:?}")));
    // None of it did any harm.
    Ok(checks.and(expect(out.to_vec::<f32>()? == nine_times, "after the refusals")))
}
