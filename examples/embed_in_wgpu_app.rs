//! gristmill inside a program that has a wgpu device already: `cargo run --release --example embed_in_wgpu_app`.
//!
//! The app makes device, buffers and encoders. Its own compute pass fills a buffer; gristmill's ops read that buffer, recorded into the app's
//! encoder; the app copies the result out of gristmill's buffer: one submission, no copy in between, the app's error handlers in place.

use std::error::Error;

use gristmill::gpu::{GpuOptions, wgpu};
use gristmill::{DType, Device, Tensor, ops};

const ROWS: usize = 8;
const COLUMNS: usize = 32;
const BYTES: u64 = (ROWS * COLUMNS * 4) as u64;

/// The app's own shader: a table of waves.
const WAVES: &str = "
@group(0) @binding(0) var<storage, read_write> table: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&table) {
        table[id.x] = sin(f32(id.x) * 0.1);
    }
}
";

fn main() -> Result<(), Box<dyn Error>> {
    // As the app would have it.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let Some(adapter) = adapters.first() else {
        println!("no GPU adapter here");
        return Ok(());
    };
    let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
    let (app, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let table = app.create_buffer(&wgpu::BufferDescriptor {
        label: Some("table"),
        size: BYTES,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    let result = app.create_buffer(&wgpu::BufferDescriptor {
        label: Some("result"),
        size: BYTES,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let module = app.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(WAVES.into()) });
    let pipeline = app.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    let group = app.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: table.as_entire_binding() }],
    });

    // gristmill on the same device, and on the app's buffer.
    let device = Device::from_wgpu(app.clone(), queue.clone(), &GpuOptions::default())?;
    let logits = Tensor::from_buffer(&device, table, DType::F32, &[ROWS, COLUMNS])?;

    let mut encoder = app.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups((ROWS * COLUMNS).div_ceil(64) as u32, 1, 1);
    }
    let probabilities = device.record(&mut encoder, || ops::softmax(&logits, -1, &ops::Softmax { scale: 5.0, ..Default::default() }))?;
    let (buffer, range) = probabilities.buffer()?;
    encoder.copy_buffer_to_buffer(&buffer, range.start, &result, 0, BYTES);
    queue.submit([encoder.finish()]);

    // The app waits in its own way.
    result.slice(..).map_async(wgpu::MapMode::Read, |mapped| mapped.expect("the buffer can be mapped"));
    app.poll(wgpu::PollType::wait_indefinitely())?;
    let values: Vec<f32> = bytemuck::cast_slice(&result.slice(..).get_mapped_range()?).to_vec();

    for row in values.chunks_exact(COLUMNS) {
        let sum: f32 = row.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "a row of probabilities sums to {sum}");
    }
    println!("{device}: {ROWS} rows of probabilities, recorded into the app's encoder, each sums to 1");
    Ok(())
}
