//! The stream: dispatches recorded into one open encoder, their params gathered beside it, submitted together; or into a caller's encoder.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread::ThreadId;

use super::pipelines::Pipeline;
use super::{Dispatch, Memory, Throughput};

/// Bytes of params and small uploads that one submission can carry: of 4,000 dispatches where params are 256 bytes apart.
const RING_BYTES: usize = 1 << 20;
/// The same of a ring for a caller's encoder; it gets another when one is full.
const CALLERS_RING_BYTES: usize = 64 << 10;
/// Bytes up to which an upload goes with the params.
pub(super) const SMALL_BYTES: usize = 4 << 10;
/// Bind groups that are kept.
const GROUPS: usize = 4096;
/// Seconds of work, by the throughput that the device is sure to have, after which a submission goes out by itself.
const SECONDS_A_SUBMISSION: u64 = 2;
/// Submissions before a wait that are proven to have run.
const SLOTS: u64 = 256;
/// Bytes that a stream itself takes.
pub(super) const OWN_BYTES: u64 = RING_BYTES as u64 + PROOF_BYTES;
/// Bytes of the proof.
pub(super) const PROOF_BYTES: u64 = 4 * SLOTS;

/// An encoder, and the params of what it holds.
struct Batch {
    /// The encoder's, while dispatches follow each other: wgpu puts barriers between them all the same, and a pass for each costs more than
    /// the dispatch. Before the encoder, which has to outlive it.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    /// Written with the submission: `write_buffer` lands before all that the encoder holds, and each dispatch has a slot of its own.
    params: Vec<u8>,
    ring: wgpu::Buffer,
}

impl Batch {
    fn new(ring: wgpu::Buffer, encoder: Option<wgpu::CommandEncoder>) -> Self {
        Batch { pass: None, encoder, params: Vec::new(), ring }
    }

    /// The open encoder, for what is no dispatch; opens one.
    fn encoder(&mut self, device: &wgpu::Device) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.encoder.get_or_insert_with(|| device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("gristmill") }))
    }

    /// The open pass; opens one.
    fn pass(&mut self, device: &wgpu::Device) -> &mut wgpu::ComputePass<'static> {
        if self.pass.is_none() {
            let descriptor = wgpu::ComputePassDescriptor { label: Some("gristmill"), timestamp_writes: None };
            self.pass = Some(self.encoder(device).begin_compute_pass(&descriptor).forget_lifetime());
        }
        self.pass.as_mut().expect("it was opened")
    }

    /// The encoder, closed.
    fn take(&mut self) -> Option<wgpu::CommandEncoder> {
        self.pass = None;
        self.encoder.take()
    }

    fn is_full(&self, bytes: usize, align: usize) -> bool {
        // With room for the proof.
        (self.params.len() + bytes + 2 * align) as u64 > self.ring.size()
    }

    /// Puts bytes into the ring; gives where they begin.
    fn carry(&mut self, bytes: &[u8], align: usize) -> usize {
        let offset = self.params.len();
        self.params.extend_from_slice(bytes);
        self.params.resize(self.params.len().next_multiple_of(align), 0);
        offset
    }

    /// Sends the params ahead of the encoder.
    fn write_params(&mut self, queue: &wgpu::Queue) {
        if !self.params.is_empty() {
            queue.write_buffer(&self.ring, 0, &self.params);
        }
        self.params.clear();
    }
}

/// Params of an encoder that is the caller's again.
pub(super) struct Unsent(Batch);

impl Unsent {
    /// They go out with the next submission to the queue, which is the caller's or comes before it.
    pub(super) fn send(mut self, queue: &wgpu::Queue) {
        self.0.write_params(queue);
    }
}

pub(super) struct Stream {
    own: Batch,
    /// Callers' encoders, by the thread that records into each.
    callers: HashMap<ThreadId, Batch>,
    align: usize,
    binding_bytes: u64,
    throughput: Throughput,
    flops: u64,
    bytes: u64,
    /// By the pipeline's place in memory (it keeps the pipeline there) and what it binds.
    groups: HashMap<Key, Group>,
    groups_made: u64,
    submissions: u64,
    /// Where each submission, at its end, leaves its number.
    proof: wgpu::Buffer,
}

type Key = (usize, Vec<wgpu::Buffer>);

struct Group {
    group: wgpu::BindGroup,
    _pipeline: Arc<Pipeline>,
}

fn buffer(device: &wgpu::Device, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    let usage = usage | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
}

fn ring(device: &wgpu::Device, bytes: usize) -> wgpu::Buffer {
    buffer(device, "params", bytes as u64, wgpu::BufferUsages::UNIFORM)
}

impl Stream {
    pub(super) fn new(device: &wgpu::Device, limits: &wgpu::Limits, throughput: Throughput) -> Self {
        Stream {
            own: Batch::new(ring(device, RING_BYTES), None),
            callers: HashMap::new(),
            align: limits.min_uniform_buffer_offset_alignment.max(16) as usize,
            binding_bytes: limits.max_storage_buffer_binding_size / 16 * 16,
            throughput,
            flops: 0,
            bytes: 0,
            groups: HashMap::new(),
            groups_made: 0,
            submissions: 0,
            proof: buffer(device, "proof", PROOF_BYTES, wgpu::BufferUsages::empty()),
        }
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

    /// Whether this thread records into a caller's encoder.
    pub(super) fn is_lent(&self) -> bool {
        self.callers.contains_key(&std::thread::current().id())
    }

    /// From now on this thread records into a caller's encoder.
    pub(super) fn lend(&mut self, device: &wgpu::Device, encoder: wgpu::CommandEncoder) {
        self.callers.insert(std::thread::current().id(), Batch::new(ring(device, CALLERS_RING_BYTES), Some(encoder)));
    }

    /// Takes the caller's encoder away from this thread, with its params.
    pub(super) fn unlend(&mut self) -> Option<(wgpu::CommandEncoder, Unsent)> {
        let mut batch = self.callers.remove(&std::thread::current().id())?;
        Some((batch.take()?, Unsent(batch)))
    }

    /// Where this thread records.
    fn batch(&mut self) -> &mut Batch {
        // Nearly always there is none.
        if self.callers.is_empty() {
            return &mut self.own;
        }
        self.callers.get_mut(&std::thread::current().id()).unwrap_or(&mut self.own)
    }

    /// Where there is no room for so many bytes more, or where enough has gathered: submits, or takes another ring.
    fn make_room(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, bytes: usize) {
        let align = self.align;
        if self.is_lent() {
            let batch = self.batch();
            if batch.is_full(bytes, align) {
                batch.write_params(queue);
                batch.ring = ring(device, CALLERS_RING_BYTES);
            }
        } else if self.own.is_full(bytes, align) || self.is_enough() {
            self.flush(queue);
        }
    }

    /// Whether the GPU should start on what has gathered.
    fn is_enough(&self) -> bool {
        let over = |work: u64, rate: u64| work / SECONDS_A_SUBMISSION > rate;
        over(self.flops, self.throughput.flops) || over(self.bytes, self.throughput.bytes)
    }

    /// Counts work, if it is for the stream's own encoder.
    fn count_work(&mut self, flops: u64, bytes: u64) {
        if !self.is_lent() {
            self.flops = self.flops.saturating_add(flops);
            self.bytes = self.bytes.saturating_add(bytes);
        }
    }

    /// Zeroes a buffer.
    pub(super) fn clear(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, buffer: &wgpu::Buffer) {
        self.make_room(device, queue, 0);
        self.count_work(0, buffer.size());
        self.batch().encoder(device).clear_buffer(buffer, 0, None);
    }

    /// Writes up to [`SMALL_BYTES`] to the start of a buffer.
    pub(super) fn upload(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, to: &wgpu::Buffer, data: &[u8]) {
        self.make_room(device, queue, data.len());
        let align = self.align;
        let batch = self.batch();
        let offset = batch.carry(data, align);
        let ring = batch.ring.clone();
        batch.encoder(device).copy_buffer_to_buffer(&ring, offset as u64, to, 0, data.len().next_multiple_of(4) as u64);
    }

    /// Copies all of one buffer to the start of another.
    pub(super) fn fill(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, to: &wgpu::Buffer, from: &wgpu::Buffer) {
        self.make_room(device, queue, 0);
        self.count_work(0, from.size());
        self.batch().encoder(device).copy_buffer_to_buffer(from, 0, to, 0, from.size());
    }

    pub(super) fn record(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        pipeline: &Arc<Pipeline>,
        dispatch: &Dispatch,
        buffers: &[&wgpu::Buffer],
    ) {
        self.make_room(device, queue, dispatch.params.len());
        self.count_work(dispatch.flops, dispatch.bytes);
        let align = self.align;
        let offset = self.batch().carry(&dispatch.params, align);
        let group = self.group(device, pipeline, dispatch, buffers);
        let pass = self.batch().pass(device);
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &group, &[offset as u32]);
        let [x, y, z] = dispatch.grid;
        pass.dispatch_workgroups(x, y, z);
    }

    /// The bind group of a pipeline with these buffers, made before or now. One for a caller's encoder is not kept: its ring is not.
    fn group(
        &mut self,
        device: &wgpu::Device,
        pipeline: &Arc<Pipeline>,
        dispatch: &Dispatch,
        buffers: &[&wgpu::Buffer],
    ) -> wgpu::BindGroup {
        let lent = self.is_lent();
        let key = (Arc::as_ptr(pipeline) as usize, buffers.iter().map(|&buffer| buffer.clone()).collect::<Vec<_>>());
        if let (false, Some(known)) = (lent, self.groups.get(&key)) {
            return known.group.clone();
        }
        let ring = self.batch().ring.clone();
        let params = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &ring,
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
        if lent {
            return group;
        }
        if self.groups.len() >= GROUPS {
            self.groups.clear();
        }
        self.groups.insert(key, Group { group: group.clone(), _pipeline: pipeline.clone() });
        group
    }

    /// Submits what the stream's own encoder holds.
    pub(super) fn flush(&mut self, queue: &wgpu::Queue) {
        if let Some(encoder) = self.own.take() {
            self.submit(queue, encoder, |_, _| {});
        }
    }

    /// Copies `size` bytes of a buffer, from byte `first` on, and behind them the proof of all that is submitted up to now; submits.
    pub(super) fn read(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        from: Option<(&wgpu::Buffer, u64)>,
        to: &wgpu::Buffer,
        size: u64,
    ) -> Proof {
        let encoder = self.own.encoder(device);
        if let Some((from, first)) = from {
            encoder.copy_buffer_to_buffer(from, first, to, 0, size);
        }
        if let Some(encoder) = self.own.take() {
            self.submit(queue, encoder, |encoder, proof| encoder.copy_buffer_to_buffer(proof, 0, to, size, PROOF_BYTES));
        }
        Proof { submissions: self.submissions }
    }

    fn submit(
        &mut self,
        queue: &wgpu::Queue,
        mut encoder: wgpu::CommandEncoder,
        last: impl FnOnce(&mut wgpu::CommandEncoder, &wgpu::Buffer),
    ) {
        self.number(&mut encoder);
        last(&mut encoder, &self.proof);
        self.send(queue, encoder.finish());
    }

    /// A driver may kill a submission and report it as done. What ends one early ends it before it leaves its number.
    fn number(&mut self, encoder: &mut wgpu::CommandEncoder) {
        let next = self.submissions + 1;
        let number = self.own.carry(&(next as u32).to_le_bytes(), self.align);
        encoder.copy_buffer_to_buffer(&self.own.ring, number as u64, &self.proof, 4 * (next % SLOTS), 4);
    }

    /// Submits commands, with the params that have gathered for them.
    pub(super) fn send(&mut self, queue: &wgpu::Queue, commands: wgpu::CommandBuffer) {
        self.submissions += 1;
        self.own.write_params(queue);
        self.flops = 0;
        self.bytes = 0;
        queue.submit([commands]);
    }

    /// A dispatch in commands of its own, when nothing else has gathered: to be sent or discarded.
    pub(super) fn closed(
        &mut self,
        device: &wgpu::Device,
        pipeline: &Arc<Pipeline>,
        dispatch: &Dispatch,
        buffers: &[&wgpu::Buffer],
    ) -> wgpu::CommandBuffer {
        let offset = self.own.carry(&dispatch.params, self.align);
        let group = self.group(device, pipeline, dispatch, buffers);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(dispatch.kernel.name) });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &group, &[offset as u32]);
        let [x, y, z] = dispatch.grid;
        pass.dispatch_workgroups(x, y, z);
        drop(pass);
        self.number(&mut encoder);
        encoder.finish()
    }

    /// Forgets what [`closed`](Self::closed) left.
    pub(super) fn discard(&mut self) {
        self.own.params.clear();
        self.forget_all();
    }
}

/// What must have been left by so many submissions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    submissions: u64,
}

impl Proof {
    /// The first of the last submissions that did not run to its end, if one did not.
    pub(super) fn missing(&self, proof: &[u8]) -> Option<u64> {
        let numbers: Vec<u32> = proof.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
        let mut last = self.submissions.saturating_sub(SLOTS - 1).max(1)..=self.submissions;
        last.find(|&submission| numbers.get((submission % SLOTS) as usize) != Some(&(submission as u32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_without_its_number_is_missed() {
        let left = |numbers: std::ops::RangeInclusive<u64>| {
            let mut words = vec![0u32; SLOTS as usize];
            numbers.for_each(|n| words[(n % SLOTS) as usize] = n as u32);
            words
        };
        for submissions in [0, 1, 2, SLOTS - 1, SLOTS, SLOTS + 1, 1000] {
            let proof = Proof { submissions };
            let words = left(1..=submissions);
            assert_eq!(proof.missing(bytemuck::cast_slice(&words)), None);
            for killed in submissions.saturating_sub(SLOTS - 1).max(1)..=submissions {
                let mut words = words.clone();
                words[(killed % SLOTS) as usize] = killed.saturating_sub(SLOTS) as u32;
                assert_eq!(proof.missing(bytemuck::cast_slice(&words)), Some(killed));
            }
        }
        assert_eq!(Proof { submissions: 1 }.missing(&[]), Some(1));
    }
}
