//! The CPU's storage and iteration; knows no op.

pub(crate) mod gemm;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::Layout;
use crate::error::{Error, Result};

/// Storage comes in 16-byte words, so that a slice of any element type is aligned.
type Word = [u32; 4];

/// One tensor's storage in host memory.
#[derive(Debug)]
pub(crate) struct CpuBuffer {
    words: RwLock<Vec<Word>>,
    bytes: usize,
}

impl CpuBuffer {
    /// Zeroes.
    pub(crate) fn new(op: &'static str, bytes: usize) -> Result<Self> {
        let count = bytes.div_ceil(size_of::<Word>());
        let mut words = Vec::new();
        words.try_reserve_exact(count).map_err(|_| Error::OutOfMemory { op, bytes: bytes as u64, device: "cpu".into() })?;
        words.resize(count, [0; 4]);
        Ok(CpuBuffer { words: RwLock::new(words), bytes })
    }

    pub(crate) fn from_bytes(op: &'static str, bytes: &[u8]) -> Result<Self> {
        let buffer = Self::new(op, bytes.len())?;
        buffer.write()[..bytes.len()].copy_from_slice(bytes);
        Ok(buffer)
    }

    fn read(&self) -> Guard<RwLockReadGuard<'_, Vec<Word>>> {
        Guard(self.words.read().unwrap_or_else(PoisonError::into_inner), self.bytes)
    }

    fn write(&self) -> Guard<RwLockWriteGuard<'_, Vec<Word>>> {
        Guard(self.words.write().unwrap_or_else(PoisonError::into_inner), self.bytes)
    }

    /// The bytes, for reading.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(&self.read())
    }

    /// Locks `out` for writing and each *distinct* input for reading, in the order of their addresses: no deadlock between threads,
    /// nor with oneself. `out` must not be among the inputs.
    pub(crate) fn with_all<R>(out: &CpuBuffer, inputs: &[&CpuBuffer], f: impl FnOnce(&mut [u8], &[&[u8]]) -> R) -> R {
        let address = |b: &CpuBuffer| std::ptr::from_ref(b) as usize;
        let mut order: Vec<&CpuBuffer> = inputs.to_vec();
        order.push(out);
        order.sort_by_key(|b| address(b));
        order.dedup_by_key(|b| address(b));
        let mut written = None;
        let mut read = Vec::with_capacity(order.len());
        for buffer in order {
            if std::ptr::eq(buffer, out) {
                written = Some(out.write());
            } else {
                read.push((address(buffer), buffer.read()));
            }
        }
        let slices: Vec<&[u8]> = inputs
            .iter()
            .map(|input| {
                let found = read.iter().find(|(at, _)| *at == address(input));
                found.map_or(&[][..], |(_, guard)| &**guard)
            })
            .collect();
        match written.as_mut() {
            Some(out) => f(out, &slices),
            None => f(&mut [], &slices),
        }
    }
}

/// A lock on words, seen as bytes.
struct Guard<G>(G, usize);

impl<G: std::ops::Deref<Target = Vec<Word>>> std::ops::Deref for Guard<G> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }
}

impl<G: std::ops::DerefMut<Target = Vec<Word>>> std::ops::DerefMut for Guard<G> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.0)[..self.1]
    }
}

/// Elements that one task takes of a flat loop. From the shape alone, so that no result depends on the number of threads.
pub(crate) const CHUNK: usize = 1 << 14;

/// Storage indices of elements `start..start + count` of a layout, row-major: one division for the start, additions from there.
pub(crate) fn indices_from(layout: &Layout, start: usize, count: usize) -> impl Iterator<Item = usize> {
    let (dims, strides, rank) = (layout.dims().to_vec(), layout.strides().to_vec(), layout.rank());
    let mut coords = vec![0; rank];
    let mut rest = start;
    for axis in (0..rank).rev() {
        coords[axis] = rest % dims[axis].max(1);
        rest /= dims[axis].max(1);
    }
    let mut next = layout.index_of(start);
    (0..count).map(move |_| {
        let index = next;
        for axis in (0..rank).rev() {
            coords[axis] += 1;
            next += strides[axis];
            if coords[axis] < dims[axis] {
                break;
            }
            next -= coords[axis] * strides[axis];
            coords[axis] = 0;
        }
        index
    })
}
