//! The stream: dispatches recorded into one open encoder, their params gathered beside it, submitted together.

use super::Dispatch;
use super::pipelines::Pipeline;

/// Bytes of params that one submission can carry.
const RING_BYTES: usize = 64 << 10;
/// Bytes touched after which it does, since it holds on to every buffer that it touches.
const BYTES_A_SUBMISSION: u64 = 256 << 20;
/// Work after which a submission goes out by itself, so that the GPU starts while the host records.
const FLOPS_A_SUBMISSION: u64 = 2_000_000_000;

pub(super) struct Stream {
    encoder: Option<wgpu::CommandEncoder>,
    /// Written with the submission: `write_buffer` lands before all that the encoder holds, and each dispatch has a slot of its own.
    params: Vec<u8>,
    ring: wgpu::Buffer,
    align: usize,
    binding_bytes: u64,
    flops: u64,
    bytes: u64,
}

impl Stream {
    pub(super) fn new(device: &wgpu::Device, limits: &wgpu::Limits) -> Self {
        let ring = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: RING_BYTES as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Stream {
            encoder: None,
            params: Vec::with_capacity(RING_BYTES),
            ring,
            align: limits.min_uniform_buffer_offset_alignment.max(16) as usize,
            binding_bytes: limits.max_storage_buffer_binding_size / 16 * 16,
            flops: 0,
            bytes: 0,
        }
    }

    /// The open encoder; opens one.
    pub(super) fn encoder(&mut self, device: &wgpu::Device) -> &mut wgpu::CommandEncoder {
        self.encoder.get_or_insert_with(|| device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("gristmill") }))
    }

    /// Whether the open submission should go out before this dispatch.
    pub(super) fn is_full(&self, dispatch: &Dispatch) -> bool {
        self.params.len() + dispatch.params.len() + self.align > RING_BYTES
            || self.flops > FLOPS_A_SUBMISSION
            || self.bytes > BYTES_A_SUBMISSION
    }

    pub(super) fn record(&mut self, device: &wgpu::Device, pipeline: &Pipeline, dispatch: &Dispatch, buffers: &[&wgpu::Buffer]) {
        let offset = self.params.len();
        self.params.extend_from_slice(&dispatch.params);
        self.params.resize(self.params.len().next_multiple_of(self.align), 0);
        self.flops = self.flops.saturating_add(dispatch.flops);
        self.bytes = self.bytes.saturating_add(dispatch.bytes);
        let params = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.ring,
            offset: 0,
            size: std::num::NonZeroU64::new(dispatch.params.len() as u64),
        });
        let entries: Vec<_> = buffers
            .iter()
            .map(|buffer| {
                // A view may reach less than its buffer holds; the planner has checked that it reaches no more than this.
                let size = buffer.size().min(self.binding_bytes);
                wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size: std::num::NonZeroU64::new(size) })
            })
            .chain([params])
            .zip(0..)
            .map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(dispatch.kernel.name),
            layout: &pipeline.layout,
            entries: &entries,
        });
        let mut pass = self
            .encoder(device)
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(dispatch.kernel.name), timestamp_writes: None });
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &group, &[offset as u32]);
        let [x, y, z] = dispatch.grid;
        pass.dispatch_workgroups(x, y, z);
    }

    pub(super) fn flush(&mut self, queue: &wgpu::Queue) {
        let Some(encoder) = self.encoder.take() else { return };
        if !self.params.is_empty() {
            queue.write_buffer(&self.ring, 0, &self.params);
        }
        self.params.clear();
        self.flops = 0;
        self.bytes = 0;
        queue.submit([encoder.finish()]);
    }
}
