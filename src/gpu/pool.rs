//! Buffers that come back: whole ones, so that a step that repeats allocates none and finds its bind groups again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;

/// What a device's buffers hold, in bytes as allocated, and how often something was made for it since it was opened.
///
/// The counters stand still while steps of the same shapes repeat. Uploads of over 4 KiB pass through a buffer of their own each, which is
/// freed once it is copied and not counted here; nor is what recorded work still needs of buffers that were freed.
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
    pub(super) reusable: AtomicBool,
    pool: Arc<Pool>,
}

impl GpuBuffer {
    /// Not to be used again once it is dropped: others may use it still, when nobody can tell.
    pub(crate) fn retire(&self) {
        self.reusable.store(false, Ordering::Relaxed);
    }

    /// Whether others than gristmill may use it.
    pub(crate) fn is_retired(&self) -> bool {
        !self.reusable.load(Ordering::Relaxed)
    }
}

impl Drop for GpuBuffer {
    fn drop(&mut self) {
        let mut state = lock(&self.pool.state);
        let size = self.buffer.size();
        state.memory.in_use -= size;
        if *self.reusable.get_mut() {
            state.memory.cached += size;
            state.clock += 1;
            let (since, key) = (state.clock, (self.role, size, self.number));
            state.ages.insert(since, key);
            state.free.insert(key, (self.buffer.clone(), since));
        } else {
            state.retired.push(self.buffer.clone());
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
    free: BTreeMap<Key, (wgpu::Buffer, u64)>,
    /// The same by that time.
    ages: BTreeMap<u64, Key>,
    /// Dropped, and not to be used again.
    retired: Vec<wgpu::Buffer>,
    clock: u64,
    memory: Memory,
}

/// Role, size and number.
type Key = (Role, u64, u64);

/// Room for a new buffer, counted as used.
#[derive(Debug)]
pub(super) struct Room {
    role: Role,
    size: u64,
    number: u64,
    pool: Arc<Pool>,
    /// Whether a buffer was made of it, which is counted from then on.
    made: bool,
    /// Cached buffers that had to go for it: to be dropped where wgpu calls are guarded.
    pub(super) evicted: Vec<wgpu::Buffer>,
}

impl Room {
    /// What to allocate.
    pub(super) fn descriptor(&self, label: &'static str) -> wgpu::BufferDescriptor<'static> {
        wgpu::BufferDescriptor { label: Some(label), size: self.size, usage: self.role.usage(), mapped_at_creation: false }
    }

    /// Puts the buffer that was made of it under the pool's care.
    pub(super) fn filled(mut self, buffer: wgpu::Buffer) -> GpuBuffer {
        {
            let memory = &mut lock(&self.pool.state).memory;
            memory.buffers += 1;
            memory.peak = memory.peak.max(memory.in_use);
        }
        self.made = true;
        GpuBuffer {
            buffer,
            role: self.role,
            number: self.number,
            recycled: false,
            reusable: AtomicBool::new(true),
            pool: self.pool.clone(),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.made {
            lock(&self.pool.state).memory.in_use -= self.size;
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

    /// A buffer of at least `size` bytes, a multiple of 16. A new one is rounded up, by an eighth or to 256 bytes, so that sizes that grow
    /// find it again: not if it is `exact`, where it is to last, nor past the budget. Readbacks are not held to that.
    pub(super) fn lease(self: &Arc<Self>, role: Role, size: u64, exact: bool) -> Lease {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        // None that would be wasted on it.
        let fitting = state.free.range((role, size, 0)..=(role, size + size / 4 + 256, u64::MAX)).next().map(|(key, _)| *key);
        if let Some(key) = fitting
            && let Some((buffer, since)) = state.free.remove(&key)
        {
            state.ages.remove(&since);
            let (_, bytes, number) = key;
            state.memory.cached -= bytes;
            state.memory.in_use += bytes;
            state.memory.peak = state.memory.peak.max(state.memory.in_use);
            return Lease::Recycled(GpuBuffer {
                buffer,
                role,
                number,
                recycled: true,
                reusable: AtomicBool::new(true),
                pool: self.clone(),
            });
        }
        let budget = self.budget.filter(|_| role == Role::Storage).unwrap_or(u64::MAX);
        let left = budget.saturating_sub(state.memory.in_use);
        if size > left {
            return Lease::OverBudget(budget);
        }
        let wanted = if exact { size } else { rounded(size).min(self.largest).min(left).max(size) };
        let in_use = state.memory.in_use.saturating_add(wanted);
        // No more waits than was once in use, and no more than the budget leaves.
        let evicted = state.evict(state.memory.peak.max(in_use).min(budget - in_use));
        state.memory.in_use = in_use;
        state.clock += 1;
        Lease::New(Room { role, size: wanted, number: state.clock, pool: self.clone(), made: false, evicted })
    }

    /// A buffer that the caller made: it counts as in use, and is never used again.
    pub(super) fn foreign(self: &Arc<Self>, buffer: wgpu::Buffer) -> GpuBuffer {
        let memory = &mut lock(&self.state).memory;
        memory.in_use = memory.in_use.saturating_add(buffer.size());
        memory.peak = memory.peak.max(memory.in_use);
        GpuBuffer { buffer, role: Role::Storage, number: 0, recycled: true, reusable: AtomicBool::new(false), pool: self.clone() }
    }

    /// What was dropped since and is not to be used again.
    pub(super) fn retired(&self) -> Vec<wgpu::Buffer> {
        std::mem::take(&mut lock(&self.state).retired)
    }

    /// Everything that is cached.
    pub(super) fn drain(&self) -> Vec<wgpu::Buffer> {
        let mut state = lock(&self.state);
        state.memory.cached = 0;
        state.ages.clear();
        std::mem::take(&mut state.free).into_values().map(|(buffer, _)| buffer).collect()
    }

    /// Its share of what [`Memory`] tells.
    pub(super) fn memory(&self) -> Memory {
        lock(&self.state).memory
    }
}

impl State {
    /// Takes out what has waited longest until no more than `most` bytes are cached.
    fn evict(&mut self, most: u64) -> Vec<wgpu::Buffer> {
        let mut evicted = Vec::new();
        while self.memory.cached > most {
            let Some((_, key)) = self.ages.pop_first() else { break };
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
