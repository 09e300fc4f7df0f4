//! The `gemm` crate behind a safe door: one product of two strided matrices, on the calling thread.

/// A matrix inside a slice: where it begins and how it steps, in elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) base: usize,
    pub(crate) row: usize,
    pub(crate) col: usize,
}

impl Matrix {
    /// The matrix from row `row`, column `col` on.
    pub(crate) fn at(self, row: usize, col: usize) -> Self {
        Matrix { base: self.base + row * self.row + col * self.col, ..self }
    }

    /// Rows for columns.
    pub(crate) fn transposed(self) -> Self {
        Matrix { row: self.col, col: self.row, ..self }
    }

    /// The elements that `rows` x `cols` of it reach, none of them 0. Panics if they are not all there.
    fn part<'a>(&self, storage: &'a [f32], rows: usize, cols: usize) -> &'a [f32] {
        &storage[self.base..][..(rows - 1) * self.row + (cols - 1) * self.col + 1]
    }
}

/// Where a product goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// `out = lhs * rhs`
    Replace,
    /// `out += lhs * rhs`
    Add,
}

/// A row-major block of the output, `stride` elements from row to row.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    data: *mut f32,
    rows: usize,
    cols: usize,
    stride: usize,
    life: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: a block is an exclusive borrow of the elements it covers, like `&mut [f32]`, which is `Send`.
unsafe impl Send for Block<'_> {}

impl<'a> Block<'a> {
    /// The whole of a slice as rows of `cols`.
    pub(crate) fn new(out: &'a mut [f32], cols: usize) -> Self {
        let rows = out.len().checked_div(cols).unwrap_or(0);
        Block { data: out.as_mut_ptr(), rows, cols, stride: cols, life: std::marker::PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// One row of it.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: the row lies within the elements that the block borrows exclusively, and `self` stays borrowed with it.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride), self.cols) }
    }

    /// Disjoint blocks of at most `rows` x `cols` that cover it, row by row of blocks, each with the place of its first element.
    pub(crate) fn split(self, rows: usize, cols: usize) -> Vec<(usize, usize, Block<'a>)> {
        let mut blocks = Vec::new();
        for row in (0..self.rows).step_by(rows) {
            for col in (0..self.cols).step_by(cols) {
                // In bounds: `row < self.rows` and `col < self.cols`.
                let data = self.data.wrapping_add(row * self.stride + col);
                let (rows, cols) = (rows.min(self.rows - row), cols.min(self.cols - col));
                blocks.push((row, col, Block { data, rows, cols, ..self }));
            }
        }
        blocks
    }
}

/// `out = lhs * rhs` or `out += lhs * rhs`, with `k` the axis that is summed over.
pub(crate) fn gemm(out: &mut Block, k: usize, lhs: &[f32], left: Matrix, rhs: &[f32], right: Matrix, store: Store) {
    if out.rows == 0 || out.cols == 0 {
        return;
    }
    // With k = 0 the crate reads neither operand.
    let (left_part, right_part) = if k == 0 { (&[][..], &[][..]) } else { (left.part(lhs, out.rows, k), right.part(rhs, k, out.cols)) };
    // SAFETY: `part` has checked that both operands lie within their slices. `out` covers rows x cols elements that it borrows
    // exclusively (`new` from a slice of that size, `split` into disjoint ones), so no operand aliases them.
    unsafe {
        gemm::gemm(
            out.rows,
            out.cols,
            k,
            out.data,
            1,
            out.stride as isize,
            store == Store::Add,
            left_part.as_ptr(),
            left.col as isize,
            left.row as isize,
            right_part.as_ptr(),
            right.col as isize,
            right.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_and_accumulate() {
        let lhs: Vec<f32> = (0..15).map(|i| i as f32).collect();
        let rhs: Vec<f32> = (0..21).map(|i| (i % 4) as f32).collect();
        let mut out = vec![1.0; 35];
        let left = Matrix { base: 0, row: 3, col: 1 };
        let right = Matrix { base: 0, row: 1, col: 3 }; // 7 x 3 in memory
        for (row, col, mut block) in Block::new(&mut out, 7).split(2, 3) {
            gemm(&mut block, 3, &lhs, left.at(row, 0), &rhs, right.at(0, col), Store::Add);
        }
        for (i, value) in out.iter().enumerate() {
            let sum: f32 = (0..3).map(|l| lhs[i / 7 * 3 + l] * rhs[i % 7 * 3 + l]).sum();
            assert_eq!(*value, 1.0 + sum);
        }
        gemm(&mut Block::new(&mut out, 7), 0, &[], left, &[], right.transposed(), Store::Replace);
        assert_eq!(out, [0.0; 35]);
    }
}
