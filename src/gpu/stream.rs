//! The stream: dispatches recorded into one open encoder, their params gathered beside it, submitted together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::pipelines::Pipeline;
use super::{Dispatch, Memory};

/// Bytes of params and small uploads that one submission can carry.
const RING_BYTES: usize = 64 << 10;
/// Bytes up to which an upload goes with the params.
pub(super) const SMALL_BYTES: usize = 4 << 10;
/// Bind groups that are kept.
const GROUPS: usize = 4096;
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
    /// By the pipeline's place in memory (it keeps the pipeline there) and what it binds.
    groups: HashMap<Key, Group>,
    groups_made: u64,
    submissions: u64,
}

type Key = (usize, Vec<wgpu::Buffer>);

struct Group {
    group: wgpu::BindGroup,
    _pipeline: Arc<Pipeline>,
}

impl Stream {
    pub(super) fn new(device: &wgpu::Device, limits: &wgpu::Limits) -> Self {
        let ring = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: RING_BYTES as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
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
            groups: HashMap::new(),
            groups_made: 0,
            submissions: 0,
        }
    }

    /// The open encoder; opens one.
    pub(super) fn encoder(&mut self, device: &wgpu::Device) -> &mut wgpu::CommandEncoder {
        self.encoder.get_or_insert_with(|| device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("gristmill") }))
    }

    /// So many so far.
    pub(super) fn submissions(&self) -> u64 {
        self.submissions
    }

    /// What the pool counts, with what is counted here.
    pub(super) fn count(&self, memory: Memory) -> Memory {
        Memory { bind_groups: self.groups_made, submissions: self.submissions, ..memory }
    }

    /// Lets go of buffers: bind groups would keep them.
    #[expect(clippy::mutable_key_type, reason = "a buffer's identity is its key, not its content")]
    pub(super) fn forget(&mut self, buffers: Vec<wgpu::Buffer>) {
        if !buffers.is_empty() {
            let gone: HashSet<wgpu::Buffer> = buffers.into_iter().collect();
            self.groups.retain(|(_, bound), _| !bound.iter().any(|buffer| gone.contains(buffer)));
        }
    }

    /// Lets go of every bind group.
    pub(super) fn forget_all(&mut self) {
        self.groups.clear();
    }

    /// Submits if the ring has no room for so many bytes more, or if enough has gathered.
    fn make_room(&mut self, queue: &wgpu::Queue, bytes: usize) {
        let full = self.params.len() + bytes + self.align > RING_BYTES;
        if full || self.flops > FLOPS_A_SUBMISSION || self.bytes > BYTES_A_SUBMISSION {
            self.flush(queue);
        }
    }

    /// Puts bytes into the ring; gives where they begin.
    fn carry(&mut self, bytes: &[u8]) -> usize {
        let offset = self.params.len();
        self.params.extend_from_slice(bytes);
        self.params.resize(self.params.len().next_multiple_of(self.align), 0);
        offset
    }

    /// Zeroes a buffer.
    pub(super) fn clear(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, buffer: &wgpu::Buffer) {
        self.make_room(queue, 0);
        self.bytes = self.bytes.saturating_add(buffer.size());
        self.encoder(device).clear_buffer(buffer, 0, None);
    }

    /// Writes up to [`SMALL_BYTES`] to the start of a buffer.
    pub(super) fn upload(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, to: &wgpu::Buffer, data: &[u8]) {
        self.make_room(queue, data.len());
        let offset = self.carry(data);
        let ring = self.ring.clone();
        self.encoder(device).copy_buffer_to_buffer(&ring, offset as u64, to, 0, data.len().next_multiple_of(4) as u64);
    }

    /// Copies all of one buffer to the start of another.
    pub(super) fn fill(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, to: &wgpu::Buffer, from: &wgpu::Buffer) {
        self.make_room(queue, 0);
        self.bytes = self.bytes.saturating_add(from.size());
        self.encoder(device).copy_buffer_to_buffer(from, 0, to, 0, from.size());
    }

    pub(super) fn record(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        pipeline: &Arc<Pipeline>,
        dispatch: &Dispatch,
        buffers: &[&wgpu::Buffer],
    ) {
        self.make_room(queue, dispatch.params.len());
        let offset = self.carry(&dispatch.params);
        self.flops = self.flops.saturating_add(dispatch.flops);
        self.bytes = self.bytes.saturating_add(dispatch.bytes);
        let group = self.group(device, pipeline, dispatch, buffers);
        let mut pass = self
            .encoder(device)
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(dispatch.kernel.name), timestamp_writes: None });
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &group, &[offset as u32]);
        let [x, y, z] = dispatch.grid;
        pass.dispatch_workgroups(x, y, z);
    }

    /// The bind group of a pipeline with these buffers, made before or now.
    fn group(
        &mut self,
        device: &wgpu::Device,
        pipeline: &Arc<Pipeline>,
        dispatch: &Dispatch,
        buffers: &[&wgpu::Buffer],
    ) -> wgpu::BindGroup {
        let key = (Arc::as_ptr(pipeline) as usize, buffers.iter().map(|&buffer| buffer.clone()).collect::<Vec<_>>());
        if let Some(known) = self.groups.get(&key) {
            return known.group.clone();
        }
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
        let descriptor = wgpu::BindGroupDescriptor { label: Some(dispatch.kernel.name), layout: &pipeline.layout, entries: &entries };
        let group = device.create_bind_group(&descriptor);
        self.groups_made += 1;
        if self.groups.len() >= GROUPS {
            self.groups.clear();
        }
        self.groups.insert(key, Group { group: group.clone(), _pipeline: pipeline.clone() });
        group
    }

    pub(super) fn flush(&mut self, queue: &wgpu::Queue) {
        let Some(encoder) = self.encoder.take() else { return };
        if !self.params.is_empty() {
            queue.write_buffer(&self.ring, 0, &self.params);
        }
        self.params.clear();
        self.flops = 0;
        self.bytes = 0;
        self.submissions += 1;
        queue.submit([encoder.finish()]);
    }
}
