//! Buffers that come back: whole ones, so that a step that repeats allocates nothing and finds its bind groups again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::lock;

/// What a device's buffers hold, in bytes as allocated, and how often something was made for it since it was opened.
///
/// The counters stand still while steps of the same shapes repeat: nothing is allocated then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Memory {
    /// Of tensors that live, and of readbacks under way.
    pub in_use: u64,
    /// Of buffers that wait to be used again; [`Device::trim`](crate::Device::trim) frees them. With `in_use` at most twice `peak`.
    pub cached: u64,
    /// The highest that `in_use` has been.
    pub peak: u64,
    /// Buffers allocated.
    pub buffers: u64,
    /// Bind groups made.
    pub bind_groups: u64,
    /// Submissions to the queue.
    pub submissions: u64,
}

/// What a buffer may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Bound to kernels, copied from and to.
    Storage,
    /// Copied to and mapped.
    Readback,
}

impl Role {
    fn usage(self) -> wgpu::BufferUsages {
        match self {
            Role::Storage => wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            Role::Readback => wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        }
    }
}

/// A whole wgpu buffer that one tensor's storage lives in. Goes back to the pool when it is dropped.
#[derive(Debug)]
pub(crate) struct GpuBuffer {
    pub(crate) buffer: wgpu::Buffer,
    role: Role,
    /// Which of the pool's buffers: lower ones are taken first, so that a step that repeats gets the same ones.
    number: u64,
    /// Whether it was used before: it then holds what somebody left.
    pub(super) recycled: bool,
    /// Whether it may be used again: not while it may still be mapped.
    pub(super) reusable: bool,
    pool: Arc<Pool>,
}

impl Drop for GpuBuffer {
    fn drop(&mut self) {
        let mut state = lock(&self.pool.state);
        let size = self.buffer.size();
        state.memory.in_use -= size;
        if self.reusable {
            state.memory.cached += size;
            state.clock += 1;
            let since = state.clock;
            state.free.insert((self.role, size, self.number), (self.buffer.clone(), since));
        }
    }
}

/// The buffers of one device.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    budget: Option<u64>,
    largest: u64,
}

#[derive(Debug, Default)]
struct State {
    /// By role, size and number; since when.
    free: BTreeMap<(Role, u64, u64), (wgpu::Buffer, u64)>,
    clock: u64,
    memory: Memory,
}

/// Room for a new buffer, counted as used.
#[derive(Debug)]
pub(super) struct Room {
    role: Role,
    size: u64,
    number: u64,
    pool: Option<Arc<Pool>>,
    /// Cached buffers that had to go for it: to be dropped where wgpu calls are guarded.
    pub(super) evicted: Vec<wgpu::Buffer>,
}

impl Room {
    /// What to allocate.
    pub(super) fn descriptor(&self, label: &'static str) -> wgpu::BufferDescriptor<'static> {
        wgpu::BufferDescriptor { label: Some(label), size: self.size, usage: self.role.usage(), mapped_at_creation: false }
    }

    /// Puts the buffer that was made of it under the pool's care.
    pub(super) fn filled(mut self, buffer: wgpu::Buffer) -> Option<GpuBuffer> {
        let pool = self.pool.take()?;
        lock(&pool.state).memory.buffers += 1;
        Some(GpuBuffer { buffer, role: self.role, number: self.number, recycled: false, reusable: true, pool })
    }
}

impl Drop for Room {
    /// Nothing was made of it.
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            lock(&pool.state).memory.in_use -= self.size;
        }
    }
}

/// What a request comes to.
pub(super) enum Lease {
    /// A buffer that was used before.
    Recycled(GpuBuffer),
    /// Leave to allocate.
    New(Room),
    /// The budget does not have it.
    OverBudget(u64),
}

impl Pool {
    /// `largest`: bytes that a buffer may have.
    pub(super) fn new(budget: Option<u64>, largest: u64) -> Arc<Self> {
        Arc::new(Pool { state: Mutex::default(), budget, largest })
    }

    /// A buffer of at least `size` bytes, a multiple of 16. `exact` where it is to last: else it is rounded up, by an eighth at the most,
    /// so that sizes that grow find it again.
    pub(super) fn lease(self: &Arc<Self>, role: Role, size: u64, exact: bool) -> Lease {
        let wanted = if exact { size } else { rounded(size).min(self.largest).max(size) };
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        // None that would be wasted on it.
        let fitting = state.free.range((role, size, 0)..=(role, size + size / 4 + 256, u64::MAX)).next().map(|(key, _)| *key);
        if let Some(key) = fitting
            && let Some((buffer, _)) = state.free.remove(&key)
        {
            let (_, bytes, number) = key;
            state.memory.cached -= bytes;
            state.take(bytes);
            return Lease::Recycled(GpuBuffer { buffer, role, number, recycled: true, reusable: true, pool: self.clone() });
        }
        let in_use = state.memory.in_use.saturating_add(wanted);
        if let Some(budget) = self.budget.filter(|budget| in_use > *budget) {
            return Lease::OverBudget(budget);
        }
        // No more waits than was once in use, and no more than the budget leaves.
        let most = state.memory.peak.max(in_use).min(self.budget.map_or(u64::MAX, |budget| budget - in_use));
        let evicted = state.evict(most);
        state.take(wanted);
        state.clock += 1;
        Lease::New(Room { role, size: wanted, number: state.clock, pool: Some(self.clone()), evicted })
    }

    /// Everything that is cached.
    pub(super) fn drain(&self) -> Vec<wgpu::Buffer> {
        lock(&self.state).evict(0)
    }

    /// Its share of what [`Memory`] tells.
    pub(super) fn memory(&self) -> Memory {
        lock(&self.state).memory
    }
}

impl State {
    fn take(&mut self, bytes: u64) {
        self.memory.in_use += bytes;
        self.memory.peak = self.memory.peak.max(self.memory.in_use);
    }

    /// Takes out what has waited longest until no more than `most` bytes are cached.
    fn evict(&mut self, most: u64) -> Vec<wgpu::Buffer> {
        let mut evicted = Vec::new();
        while self.memory.cached > most {
            let Some(key) = self.free.iter().min_by_key(|(_, (_, since))| *since).map(|(key, _)| *key) else { break };
            if let Some((buffer, _)) = self.free.remove(&key) {
                self.memory.cached -= key.1;
                evicted.push(buffer);
            }
        }
        evicted
    }
}

/// Up to eight sizes between one power of two and the next, 256 bytes apart at the least.
fn rounded(size: u64) -> u64 {
    let step = (1 << size.max(1).ilog2().saturating_sub(3)).max(256);
    size.checked_next_multiple_of(step).unwrap_or(size)
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn sizes_waste_an_eighth_at_the_most() {
        for size in (1..100_000u64).step_by(7).chain([1 << 20, (1 << 20) + 16, (1 << 40) - 1]) {
            let up = rounded(size);
            assert!(up >= size && up.is_multiple_of(16) && up - size < (size / 8).max(256), "{size} became {up}");
            assert_eq!(rounded(up), up);
        }
        assert_eq!(rounded(u64::MAX), u64::MAX);
    }
}
