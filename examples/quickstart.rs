//! A transformer's attention block on real numbers: `cargo run --release --example quickstart`.
//!
//! The weights are the first block's of sentence-transformers/all-MiniLM-L6-v2, the input is two sentences, and the file holds every
//! intermediate result, computed in f64. Each step runs on the CPU and on every GPU adapter present, from the published results of the step
//! before, and is compared with the published result, within what the op promises. Exit code 1 if a row is WRONG.

#[path = "quickstart/bounds.rs"]
mod bounds;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use gristmill::{Device, Result, Tensor, ops};
use safetensors::{Dtype, SafeTensors};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/real/minilm_layer0_attention.safetensors");
const BATCH: usize = 2;
const SEQ: usize = 32;
const HEADS: usize = 12;
const HEAD_DIM: usize = 32;
const WIDTH: usize = HEADS * HEAD_DIM;

type Tensors = HashMap<String, Tensor>;

// ---- The block, as a model would write it.

/// x · Wᵀ + b. The transpose is a view: nothing moves.
fn linear(x: &Tensor, t: &Tensors, layer: &str) -> Result<Tensor> {
    let (weight, bias) = (&t[&format!("{layer}.weight")], &t[&format!("{layer}.bias")]);
    ops::matmul(x, &weight.transpose(0, 1)?, &ops::Matmul { bias: Some(ops::Bias::Columns(bias)), ..Default::default() })
}

/// [batch, seq, width] as [batch, heads, seq, head_dim], a view.
fn split_heads(x: &Tensor) -> Result<Tensor> {
    x.reshape(&[BATCH, SEQ, HEADS, HEAD_DIM])?.permute(&[0, 2, 1, 3])
}

fn merge_heads(x: &Tensor) -> Result<Tensor> {
    x.permute(&[0, 2, 1, 3])?.contiguous()?.reshape(&[BATCH, SEQ, WIDTH])
}

fn scores(t: &Tensors) -> Result<Tensor> {
    ops::mul(&ops::matmul(&t["out.q"], &t["out.k"].transpose(-1, -2)?, &Default::default())?, &t["scale"])
}

fn probabilities(scores: &Tensor, t: &Tensors) -> Result<Tensor> {
    ops::softmax(scores, -1, &ops::Softmax { mask: Some(&t["mask.additive"]), ..Default::default() })
}

fn unfused_attention(t: &Tensors) -> Result<Tensor> {
    merge_heads(&ops::matmul(&probabilities(&scores(t)?, t)?, &t["out.v"], &Default::default())?)
}

/// The same in one kernel, which keeps the scores to itself.
fn attention(t: &Tensors) -> Result<Tensor> {
    let options = ops::Attention { mask: Some(&t["mask.bool"]), ..Default::default() };
    merge_heads(&ops::attention(&t["out.q"], &t["out.k"], &t["out.v"], &options)?)
}

// ---- What is run and compared.

struct Step {
    op: &'static str,
    golden: &'static str,
    run: fn(&Tensors) -> Result<Tensor>,
    /// Of an element. Attention's depends on the device instead.
    bound: Option<fn(&File, usize) -> f64>,
    /// Floating point operations, or bytes read and written.
    work: (f64, &'static str),
}

fn steps() -> [Step; 8] {
    let flops = |matmuls: usize, inner: usize, outer: usize| ((2 * matmuls * inner * outer) as f64, "GFLOP/s");
    let linear_flops = flops(BATCH * SEQ, WIDTH, WIDTH);
    let count = BATCH * HEADS * SEQ * SEQ; // of scores
    let step = |op, golden, work, run, bound| Step { op, golden, run, bound, work };
    [
        step("query", "out.q", linear_flops, |t| split_heads(&linear(&t["hidden"], t, "query")?), Some(|f, i| bounds::head(f, "query", i))),
        step("key", "out.k", linear_flops, |t| split_heads(&linear(&t["hidden"], t, "key")?), Some(|f, i| bounds::head(f, "key", i))),
        step("value", "out.v", linear_flops, |t| split_heads(&linear(&t["hidden"], t, "value")?), Some(|f, i| bounds::head(f, "value", i))),
        step("scores", "out.scores", flops(1, count, HEAD_DIM), scores, Some(bounds::scores)),
        step("softmax", "out.probs", ((8 * count) as f64, "GB/s"), |t| probabilities(&t["out.scores"], t), Some(bounds::softmax)),
        step("unfused", "out.context", flops(2, count, HEAD_DIM), unfused_attention, Some(bounds::unfused)),
        step("attention", "out.context", flops(2, count, HEAD_DIM), attention, None),
        step("output", "out.projected", linear_flops, |t| linear(&t["out.context"], t, "output"), Some(bounds::output)),
    ]
}

/// The error and the bound where their ratio is largest, and whether that is within bounds. NaN is not.
fn compare(got: &[f32], golden: &[f32], bound: impl Fn(usize) -> f64) -> (f64, f64, bool) {
    let ratio = |(error, bound): (f64, f64)| if error / bound >= 0.0 && bound.is_finite() { error / bound } else { f64::INFINITY };
    let pairs = (0..golden.len()).map(|i| (got.get(i).map_or(f64::NAN, |g| (f64::from(*g) - f64::from(golden[i])).abs()), bound(i)));
    let worst = pairs.reduce(|a, b| if ratio(b) > ratio(a) { b } else { a }).unwrap_or((f64::NAN, 0.0));
    (worst.0, worst.1, ratio(worst) <= 1.0 && got.len() == golden.len())
}

// ---- The file, the devices and the table.

/// The file's tensors on the host: shape and values, by name.
struct File(HashMap<String, (Vec<usize>, Vec<f32>)>);

impl File {
    fn read() -> std::result::Result<Self, Box<dyn std::error::Error>> {
        let bytes = std::fs::read(FILE)?;
        let mut all = HashMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes)?.iter() {
            let words = view.data().chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
            let values = match view.dtype() {
                Dtype::F32 => words.map(f32::from_le_bytes).collect(),
                _ => words.map(|word| i32::from_le_bytes(word) as f32).collect(),
            };
            all.insert(name.to_string(), (view.shape().to_vec(), values));
        }
        Ok(File(all))
    }

    fn get(&self, name: &str) -> &[f32] {
        &self.0[name].1
    }

    /// Everything on a device, and the mask of the keys in both of its forms.
    fn upload(&self, device: &Device) -> Result<Tensors> {
        let mut all = Tensors::new();
        for (name, (shape, values)) in &self.0 {
            all.insert(name.clone(), Tensor::from_slice(device, values, shape)?);
        }
        let visible: Vec<bool> = self.get("attention_mask").iter().map(|m| *m != 0.0).collect();
        let additive: Vec<f32> = visible.iter().map(|v| if *v { 0.0 } else { f32::NEG_INFINITY }).collect();
        all.insert("mask.bool".into(), Tensor::from_slice(device, &visible, &[BATCH, 1, 1, SEQ])?);
        all.insert("mask.additive".into(), Tensor::from_slice(device, &additive, &[BATCH, 1, 1, SEQ])?);
        all.insert("scale".into(), Tensor::from_slice(device, &[1.0 / (HEAD_DIM as f32).sqrt()], &[1])?);
        Ok(all)
    }
}

/// Every GPU adapter that opens, software ones included.
#[cfg(feature = "gpu")]
fn gpus() -> Vec<Device> {
    let mut adapters = Device::adapters();
    adapters.dedup();
    if adapters.is_empty() {
        println!("No GPU driver: for a GPU row `apt install mesa-vulkan-drivers` (Debian, Ubuntu), or run `bash tests/run.sh`.\n");
    }
    let open = |adapter: &gristmill::gpu::AdapterInfo| {
        let name = Some(format!("{} {}", adapter.name, adapter.driver));
        let options = gristmill::gpu::GpuOptions { backend: Some(adapter.backend), name, software: true, ..Default::default() };
        Device::gpu(&options).inspect_err(|error| println!("{adapter} does not open: {error}")).ok()
    };
    adapters.iter().filter_map(open).collect()
}

#[cfg(not(feature = "gpu"))]
fn gpus() -> Vec<Device> {
    println!("Built without the feature `gpu`: for a GPU row build with it (it is on by default).\n");
    Vec::new()
}

/// One row: the first run compiles and is compared, the best of five more is timed.
fn row(device: &Device, file: &File, t: &Tensors, step: &Step) -> Result<bool> {
    let result = (step.run)(t)?;
    let golden = file.get(step.golden);
    let (error, bound, ok) = match step.bound {
        Some(bound) => compare(&result.to_vec()?, golden, |i| bound(file, i)),
        None => {
            let bound = bounds::attention(file, t)?;
            compare(&result.to_vec()?, golden, |_| bound)
        }
    };
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        (step.run)(t)?;
        device.sync()?;
        best = best.min(start.elapsed());
    }
    let label: String = device.label().split(" (").next().unwrap_or_default().chars().take(28).collect();
    let shape: Vec<String> = result.shape().iter().map(usize::to_string).collect();
    let (shape, verdict, seconds) = (shape.join("x"), if ok { "ok" } else { "WRONG" }, best.as_secs_f64());
    let (work, unit) = step.work;
    println!(
        "{label:<28} {:<10} {shape:<11} {error:>8.1e} {bound:>8.1e}  {verdict:<6}{:>9.3} ms {:>8.2} {unit}",
        step.op,
        seconds * 1e3,
        work / seconds / 1e9
    );
    Ok(ok)
}

fn main() -> ExitCode {
    let file = match File::read() {
        Ok(file) => file,
        Err(error) => {
            eprintln!("quickstart: {FILE}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("The first attention block of all-MiniLM-L6-v2, two sentences, against results computed in f64.");
    println!("Error and bound are those of the element that comes closest to its bound.\n");
    let devices: Vec<Device> = std::iter::once(Device::cpu()).chain(gpus()).collect();
    println!("{:<28} {:<10} {:<11} {:>8} {:>8}  {:<6}{:>12} {:>16}", "device", "op", "shape", "error", "bound", "", "time", "rate");
    let (mut rows, mut wrong) = (0, 0);
    for device in devices {
        let tensors = file.upload(&device);
        for step in steps() {
            let ok = tensors.as_ref().map_err(Clone::clone).and_then(|tensors| row(&device, &file, tensors, &step));
            if let Err(error) = &ok {
                println!("{:<28} {:<10} WRONG: {error}", device.label(), step.op);
            }
            rows += 1;
            wrong += usize::from(!ok.is_ok_and(|ok| ok));
        }
    }
    println!("\n{rows} rows, {wrong} WRONG");
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
