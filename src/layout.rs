//! [`Layout`]: how a tensor's elements lie in its storage. Pure arithmetic, checked.

use std::fmt;
use std::ops::Range;

/// The most axes that a tensor can have.
pub const MAX_RANK: usize = 6;

/// Dims, strides and offset, in elements. Up to [`MAX_RANK`] axes; a scalar has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    rank: usize,
    dims: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
    offset: usize,
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} strides {:?} offset {}", self.dims(), self.strides(), self.offset)
    }
}

impl Layout {
    /// Row-major, dense, from offset 0. `None` if there are more than [`MAX_RANK`] axes or the size in bytes of a 16-byte element
    /// would overflow.
    pub fn contiguous(dims: &[usize]) -> Option<Self> {
        if dims.len() > MAX_RANK {
            return None;
        }
        let mut layout = Layout { rank: dims.len(), dims: [1; MAX_RANK], strides: [0; MAX_RANK], offset: 0 };
        layout.dims[..dims.len()].copy_from_slice(dims);
        // Zero-sized axes count as 1 here, so that no stride overflows either.
        let mut stride = 1usize;
        for axis in (0..dims.len()).rev() {
            layout.strides[axis] = stride;
            stride = stride.checked_mul(dims[axis].max(1))?;
        }
        stride.checked_mul(16).filter(|&bytes| bytes <= isize::MAX as usize)?;
        Some(layout)
    }

    /// Two axes of any strides from an offset.
    pub(crate) fn matrix(offset: usize, dims: [usize; 2], strides: [usize; 2]) -> Self {
        let mut layout = Layout { rank: 2, dims: [1; MAX_RANK], strides: [0; MAX_RANK], offset };
        layout.dims[..2].copy_from_slice(&dims);
        layout.strides[..2].copy_from_slice(&strides);
        layout
    }

    /// The size of each axis.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// The distance between neighbours along each axis, in elements; 0 where an axis is broadcast.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.rank]
    }

    /// Where the first element lies, in elements.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.dims().contains(&0)
    }

    /// Whether the elements lie row-major without gaps (at any offset).
    pub fn is_contiguous(&self) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut expected = 1;
        for axis in (0..self.rank).rev() {
            if self.dims[axis] != 1 {
                if self.strides[axis] != expected {
                    return false;
                }
                expected *= self.dims[axis];
            }
        }
        true
    }

    /// The storage elements between the first and the last that the layout reaches.
    pub fn span(&self) -> Range<usize> {
        if self.is_empty() {
            return self.offset..self.offset;
        }
        let reach: usize = (0..self.rank).map(|a| (self.dims[a] - 1) * self.strides[a]).sum();
        self.offset..self.offset + reach + 1
    }

    /// Whether two index tuples may reach the same element. Conservative: sorts axes by stride and asks each to clear the ones below.
    pub fn overlaps_itself(&self) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut axes: Vec<_> = (0..self.rank).filter(|&a| self.dims[a] > 1).collect();
        axes.sort_by_key(|&a| self.strides[a]);
        let mut reach = 0;
        for axis in axes {
            if self.strides[axis] <= reach {
                return true;
            }
            reach += (self.dims[axis] - 1) * self.strides[axis];
        }
        false
    }

    /// `len` indices of `axis` from `start`. `None` if out of range.
    pub fn narrow(mut self, axis: usize, start: usize, len: usize) -> Option<Self> {
        if axis >= self.rank || start.checked_add(len)? > self.dims[axis] {
            return None;
        }
        self.dims[axis] = len;
        // An empty view stays where it was: its offset must not leave the storage.
        if !self.is_empty() {
            self.offset += start * self.strides[axis];
        }
        Some(self)
    }

    /// Every `step`-th index of `axis`, from the first. `None` if there is no such axis or `step` is 0.
    pub fn step(mut self, axis: usize, step: usize) -> Option<Self> {
        if axis >= self.rank || step == 0 {
            return None;
        }
        self.dims[axis] = self.dims[axis].div_ceil(step);
        // With one index left the stride is not used: it must not overflow.
        self.strides[axis] = if self.dims[axis] > 1 { self.strides[axis] * step } else { self.strides[axis] };
        Some(self)
    }

    /// Axis `i` of the result is axis `axes[i]` of this. `None` unless `axes` is a permutation.
    pub fn permute(self, axes: &[usize]) -> Option<Self> {
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..self.rank) {
            return None;
        }
        let mut result = self;
        for (to, &from) in axes.iter().enumerate() {
            result.dims[to] = self.dims[from];
            result.strides[to] = self.strides[from];
        }
        Some(result)
    }

    /// Swaps two axes. `None` if one is out of range.
    pub fn transpose(mut self, a: usize, b: usize) -> Option<Self> {
        if a >= self.rank || b >= self.rank {
            return None;
        }
        self.dims.swap(a, b);
        self.strides.swap(a, b);
        Some(self)
    }

    /// The same elements in the same order under other dims, without moving any. `None` if the counts differ or the strides forbid it.
    pub fn reshape(&self, dims: &[usize]) -> Option<Self> {
        let mut result = Layout::contiguous(dims)?;
        if result.len() != self.len() {
            return None;
        }
        result.offset = self.offset;
        if self.is_contiguous() {
            return Some(result);
        }
        // Match runs of axes with equal products, left to right; within a run the source must be one dense block.
        let mut from = 0;
        let mut to = 0;
        while from < self.rank && to < dims.len() {
            let (from_start, to_start) = (from, to);
            let (mut have, mut want) = (self.dims[from], dims[to]);
            from += 1;
            to += 1;
            while have != want {
                if have < want {
                    have *= self.dims[from];
                    from += 1;
                } else {
                    want *= dims[to];
                    to += 1;
                }
            }
            let run: Vec<_> = (from_start..from).filter(|&a| self.dims[a] != 1).collect();
            if run.windows(2).any(|w| self.strides[w[0]] != self.strides[w[1]] * self.dims[w[1]]) {
                return None;
            }
            let mut stride = run.last().map_or(0, |&a| self.strides[a]);
            for axis in (to_start..to).rev() {
                result.strides[axis] = stride;
                stride *= dims[axis];
            }
        }
        Some(result)
    }

    /// NumPy's rule: axes align at the right, an axis of 1 repeats. `None` if it does not fit.
    pub fn broadcast_to(&self, dims: &[usize]) -> Option<Self> {
        let lead = dims.len().checked_sub(self.rank)?;
        let mut result = Layout::contiguous(dims)?;
        result.offset = self.offset;
        result.strides[..lead].fill(0);
        for axis in 0..self.rank {
            result.strides[lead + axis] = match self.dims[axis] {
                have if have == dims[lead + axis] => self.strides[axis],
                1 => 0,
                _ => return None,
            };
        }
        Some(result)
    }

    /// Drops `axis`, which must have size 1.
    pub fn squeeze(mut self, axis: usize) -> Option<Self> {
        if axis >= self.rank || self.dims[axis] != 1 {
            return None;
        }
        self.dims.copy_within(axis + 1.., axis);
        self.strides.copy_within(axis + 1.., axis);
        self.rank -= 1;
        self.dims[self.rank..].fill(1);
        self.strides[self.rank..].fill(0);
        Some(self)
    }

    /// Inserts an axis of size 1 before `axis` (at the end if it equals the rank).
    pub fn unsqueeze(mut self, axis: usize) -> Option<Self> {
        if axis > self.rank || self.rank == MAX_RANK {
            return None;
        }
        self.dims.copy_within(axis..self.rank, axis + 1);
        self.strides.copy_within(axis..self.rank, axis + 1);
        self.dims[axis] = 1;
        self.strides[axis] = 0;
        self.rank += 1;
        Some(self)
    }

    /// The dims that all of `shapes` broadcast to. `None` if they do not fit.
    pub fn broadcast_dims(shapes: &[&[usize]]) -> Option<Vec<usize>> {
        let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
        let mut dims = vec![1; rank];
        for shape in shapes {
            for (have, &want) in dims[rank - shape.len()..].iter_mut().zip(*shape) {
                match (*have, want) {
                    (a, b) if a == b => {}
                    (1, b) => *have = b,
                    (_, 1) => {}
                    _ => return None,
                }
            }
        }
        Some(dims)
    }

    /// Merges neighbouring axes that lie as one in *every* layout, and drops axes of size 1: fewer index operations an element.
    /// All layouts must have the same dims.
    pub(crate) fn merge(layouts: &[Layout]) -> Vec<Layout> {
        let mut merged: Vec<Layout> = layouts.to_vec();
        for layout in &mut merged {
            layout.rank = 0;
            layout.dims = [1; MAX_RANK];
            layout.strides = [0; MAX_RANK];
        }
        for axis in 0..layouts[0].rank {
            let dim = layouts[0].dims[axis];
            if dim == 1 {
                continue;
            }
            let last = merged[0].rank;
            let joins =
                last > 0 && layouts.iter().zip(&merged).all(|(from, to)| Some(to.strides[last - 1]) == from.strides[axis].checked_mul(dim));
            for (from, to) in layouts.iter().zip(&mut merged) {
                let at = if joins { last - 1 } else { last };
                to.dims[at] = if joins { to.dims[at] * dim } else { dim };
                to.strides[at] = from.strides[axis];
                to.rank = at + 1;
            }
        }
        merged
    }

    /// The storage index of every element, row-major.
    pub fn indices(&self) -> Indices {
        Indices { layout: *self, coords: [0; MAX_RANK], next: self.offset, left: self.len() }
    }

    /// The storage index of one element, given by its row-major number.
    pub(crate) fn index_of(&self, mut element: usize) -> usize {
        let mut index = self.offset;
        for axis in (0..self.rank).rev() {
            index += element % self.dims[axis] * self.strides[axis];
            element /= self.dims[axis];
        }
        index
    }
}

/// Iterator of [`Layout::indices`].
#[derive(Debug, Clone)]
pub struct Indices {
    layout: Layout,
    coords: [usize; MAX_RANK],
    next: usize,
    left: usize,
}

impl Iterator for Indices {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let index = self.next;
        for axis in (0..self.layout.rank).rev() {
            self.coords[axis] += 1;
            self.next += self.layout.strides[axis];
            if self.coords[axis] < self.layout.dims[axis] {
                break;
            }
            self.next -= self.coords[axis] * self.layout.strides[axis];
            self.coords[axis] = 0;
        }
        Some(index)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Indices {}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(dims: &[usize]) -> Layout {
        Layout::contiguous(dims).unwrap()
    }

    #[test]
    fn reshape_follows_strides_or_refuses() {
        let t = dense(&[4, 6]).transpose(0, 1).unwrap();
        assert!(t.reshape(&[24]).is_none());
        let split = t.reshape(&[2, 3, 4]).unwrap();
        assert!(split.indices().eq(t.indices()));
        let narrowed = dense(&[4, 6]).narrow(1, 1, 4).unwrap();
        let split = narrowed.reshape(&[2, 2, 2, 2]).unwrap();
        assert!(split.indices().eq(narrowed.indices()));
        assert!(narrowed.reshape(&[16]).is_none());
        let ones = narrowed.reshape(&[1, 4, 1, 4, 1]).unwrap();
        assert!(ones.indices().eq(narrowed.indices()));
        assert!(dense(&[0, 3]).reshape(&[3, 0, 2]).unwrap().is_empty());
        let scalar = dense(&[3]).narrow(0, 2, 1).unwrap().reshape(&[]).unwrap();
        assert_eq!(scalar.indices().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn merge_keeps_the_order_of_elements() {
        let a = dense(&[2, 3, 4, 5]);
        let b = dense(&[3, 1, 5]).broadcast_to(&[2, 3, 4, 5]).unwrap();
        let merged = Layout::merge(&[a, b]);
        assert_eq!(merged[0].dims(), [2, 3, 4, 5]);
        assert_eq!(Layout::merge(&[a])[0].dims(), [120]);
        for (from, to) in [a, b].iter().zip(&merged) {
            assert!(from.indices().eq(to.indices()));
        }
        let c = dense(&[3, 4, 5]).broadcast_to(&[2, 3, 4, 5]).unwrap();
        assert_eq!(Layout::merge(&[a, c])[1].dims(), [2, 60]);
        assert!((0..120).map(|i| c.index_of(i)).eq(c.indices()));
    }

    #[test]
    fn overlap_and_span() {
        assert!(!dense(&[3, 4]).overlaps_itself());
        assert!(dense(&[1, 4]).broadcast_to(&[3, 4]).unwrap().overlaps_itself());
        let t = dense(&[3, 4]).transpose(0, 1).unwrap().narrow(0, 1, 2).unwrap();
        assert!(!t.overlaps_itself());
        assert_eq!(t.span(), 1..11);
        assert_eq!(dense(&[0]).span(), 0..0);
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        assert!(Layout::contiguous(&[usize::MAX, 2]).is_none());
        assert!(Layout::contiguous(&[usize::MAX, 0]).is_none());
        assert!(Layout::contiguous(&[1; 7]).is_none());
        assert!(dense(&[3]).narrow(0, usize::MAX, 2).is_none());
    }
}
