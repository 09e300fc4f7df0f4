//! A kernel of one's own among gristmill's: `cargo run --release --example custom_kernel`.
//!
//! The Swish-gated unit `silu(gate) * up` in one pass, as a WGSL kernel with params, dispatched between ops and checked against them. The
//! kernel is data: the same struct that gristmill's own kernels are.

use std::process::ExitCode;

use gristmill::gpu::{Access, Arg, Binding, Constants, Dispatch, GpuOptions, Kernel, Needs, Params as _, Plan, Spec, Width};
use gristmill::{DType, Device, Result, Tensor, ops};

gristmill::params! {
    /// As in the WGSL: same members, same order.
    struct Params {
        len: u32,
        pad0: u32,
        pad1: u32,
        pad2: u32,
    }
}

static SWIGLU: Kernel = Kernel {
    name: "swiglu",
    source: "
const WORKGROUP: u32 = 64u;

struct Params {
    len: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> gate: array<f32>;
@group(0) @binding(2) var<storage, read> up: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + grid.x * group.y) * WORKGROUP + lane;
    if i < params.len {
        out[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
    }
}
",
    libs: &[],
    bindings: &[Binding::new("out", Access::Write), Binding::new("gate", Access::Read), Binding::new("up", Access::Read)],
    params: Params::FIELDS,
    fills_workgroup_memory: true, // it has none
    variants: &[Constants::NONE],
    tunes: &[Constants { name: "group64", values: &[("WORKGROUP", 64)] }],
    dtypes: &[&[DType::F32; 3]],
    widths: &[Width::Fixed],
    needs: Needs::Nothing,
};

/// `silu(gate) * up`; both dense, f32 and of one shape.
fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let mut out = Tensor::zeros(gate.device(), DType::F32, gate.shape())?;
    let tune = &SWIGLU.tunes[0];
    let caps = gate.device().caps().expect("on a GPU");
    let len = gristmill::gpu::word("swiglu", "the tensor", gate.len())?;
    let plan = Plan::from(Dispatch {
        kernel: &SWIGLU,
        spec: Spec { dtypes: SWIGLU.dtypes[0], variant: &Constants::NONE, tune, width: Width::Fixed },
        args: vec![Arg::Tensor(0), Arg::Tensor(1), Arg::Tensor(2)],
        params: bytemuck::bytes_of(&Params { len, pad0: 0, pad1: 0, pad2: 0 }).to_vec(),
        grid: gristmill::gpu::fold("swiglu", caps, u64::from(len).div_ceil(64))?,
        bytes: 12 * u64::from(len),
        flops: 4 * u64::from(len),
    });
    ops::dispatch("swiglu", &plan, &mut out, &[gate, up])?;
    Ok(out)
}

fn run(device: &Device) -> Result<f32> {
    let x = Tensor::rand_normal(device, &[37, 128], 0.0, 1.0, 1)?;
    let [gate, up] = [2, 3].map(|seed| ops::matmul(&x, &Tensor::rand_normal(device, &[128, 300], 0.0, 0.1, seed)?, &Default::default()));
    let (gate, up) = (gate?, up?);
    let own = swiglu(&gate, &up)?;
    let two_passes = ops::mul(&ops::silu(&gate)?, &up)?;
    ops::amax(&ops::abs(&ops::sub(&own, &two_passes)?)?, &[0, 1], false)?.to_vec::<f32>().map(|worst| worst[0])
}

fn main() -> ExitCode {
    let device = match Device::gpu(&GpuOptions { software: true, ..GpuOptions::default() }) {
        Ok(device) => device,
        Err(error) => {
            println!("{error}");
            return ExitCode::SUCCESS;
        }
    };
    match run(&device) {
        Ok(worst) if worst < 1e-5 => {
            println!("{device}: swiglu in one pass and in two agree within {worst:.1e}");
            ExitCode::SUCCESS
        }
        Ok(worst) => {
            eprintln!("{device}: WRONG by {worst}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
