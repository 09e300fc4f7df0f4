//! A loop that survives the loss of its GPU: `cargo run --release --example survive_loss`.
//!
//! The weights keep a copy on the host. Halfway the device is destroyed, as a driver's reset would; the step fails with an error that
//! `is_loss`, the loop opens a new device, moves the weights there and goes on from the last step that it finished.

use std::process::ExitCode;

use gristmill::gpu::GpuOptions;
use gristmill::{Device, Result, Tensor, ops};

const STEPS: usize = 10;

fn open() -> Result<Device> {
    Device::gpu(&GpuOptions { software: true, ..GpuOptions::default() })
}

/// One step: whatever the model does, and its result on the host.
fn step(state: &[f32], weights: &Tensor) -> Result<Vec<f32>> {
    let state = Tensor::from_slice(weights.device(), state, &[1, state.len()])?;
    ops::tanh(&ops::matmul(&state, weights, &Default::default())?)?.to_vec()
}

fn run() -> Result<()> {
    let mut device = open()?;
    let mut weights = Tensor::rand_normal(&device, &[64, 64], 0.0, 0.3, 1)?;
    weights.keep_host_copy()?;
    let mut state = vec![0.5; 64];
    let (mut done, mut losses) = (0, 0);
    while done < STEPS {
        if done == STEPS / 2 && losses == 0 {
            // What a driver's reset does to a device.
            device.wgpu().expect("a GPU").0.destroy();
        }
        match step(&state, &weights) {
            Ok(next) => {
                state = next;
                done += 1;
            }
            Err(error) if error.is_loss() && losses < 3 => {
                losses += 1;
                println!("step {done}: {error}");
                device = open()?;
                weights = weights.to_device(&device)?;
                weights.keep_host_copy()?;
            }
            Err(error) => return Err(error),
        }
    }

    // The same without a loss, on the CPU.
    let cpu = Tensor::rand_normal(&Device::cpu(), &[64, 64], 0.0, 0.3, 1)?;
    let mut expected = vec![0.5; 64];
    for _ in 0..STEPS {
        expected = step(&expected, &cpu)?;
    }
    let worst = state.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-3, "off by {worst}");
    println!("{STEPS} steps on {device}, {losses} loss survived, within {worst:.1e} of the CPU");
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ gristmill::Error::NoGpu { .. }) => {
            println!("{error}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
