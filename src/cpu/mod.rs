//! The CPU's storage and iteration; knows no op.

pub(crate) mod activation;
pub(crate) mod gemm;
pub(crate) mod numbers;
pub(crate) mod product;

use std::sync::{Arc, PoisonError, RwLock};

use crate::Layout;
use crate::error::{Error, Result};

/// Storage comes in 16-byte words, so that a slice of any element type is aligned.
type Word = [u32; 4];

/// Host memory of one tensor's size, seen as bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bytes {
    words: Vec<Word>,
    len: usize,
}

impl Bytes {
    /// Zeroes.
    pub(crate) fn new(op: &'static str, len: usize) -> Result<Self> {
        let count = len.div_ceil(size_of::<Word>());
        let mut words = Vec::new();
        let out_of_memory = |_| Error::OutOfMemory { op, bytes: len as u64, device: "cpu".into() };
        words.try_reserve_exact(count).map_err(out_of_memory)?;
        words.resize(count, [0; 4]);
        Ok(Bytes { words, len })
    }

    /// `len` bytes that `fill` brings in order, piece by piece: memory grows with what has come, whatever was promised.
    #[cfg(feature = "npy")]
    pub(crate) fn grow(op: &'static str, len: usize, mut fill: impl FnMut(&mut [u8]) -> Result<()>) -> Result<Self> {
        const FIRST: usize = 1 << 20;
        let mut bytes = Bytes::default();
        while bytes.len < len {
            let start = bytes.len;
            bytes.len = len.min((2 * start).max(FIRST));
            let count = bytes.len.div_ceil(size_of::<Word>());
            let out_of_memory = |_| Error::OutOfMemory { op, bytes: len as u64, device: "the host".into() };
            bytes.words.try_reserve_exact(count - bytes.words.len()).map_err(out_of_memory)?;
            bytes.words.resize(count, [0; 4]);
            fill(&mut bytes[start..])?;
        }
        Ok(bytes)
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

impl std::ops::DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

/// One tensor's storage in host memory.
///
/// The lock is only ever held for a moment, never while an op computes: a rayon worker that waits for its tasks may start another op on the
/// same thread, which must not find a lock held below it. So readers take a snapshot, and writers bring what they have computed.
#[derive(Debug)]
pub(crate) struct CpuBuffer(RwLock<Arc<Bytes>>);

impl CpuBuffer {
    pub(crate) fn new(bytes: Bytes) -> Self {
        CpuBuffer(RwLock::new(Arc::new(bytes)))
    }

    pub(crate) fn from_slice(op: &'static str, data: &[u8]) -> Result<Self> {
        let mut bytes = Bytes::new(op, data.len())?;
        bytes.copy_from_slice(data);
        Ok(Self::new(bytes))
    }

    /// The contents as they are now; later writes do not show in it.
    pub(crate) fn snapshot(&self) -> Arc<Bytes> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes under the lock. `write` only moves bytes: no rayon, no other lock.
    pub(crate) fn write(&self, write: impl FnOnce(&mut [u8])) {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Copies if a snapshot is still out.
        let bytes: &mut Bytes = Arc::make_mut(&mut bytes);
        write(bytes);
    }

    /// Computes in place, without the lock. For a storage that nobody else has a handle of: they would find it empty meanwhile.
    pub(crate) fn compute(&self, compute: impl FnOnce(&mut [u8])) {
        let mut taken = std::mem::take(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner));
        let bytes: &mut Bytes = Arc::make_mut(&mut taken);
        compute(bytes);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = taken;
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
