//! A tile of the output, from rows or from panels of the left side.

use crate::tile::{Chunk, N_COLUMNS, N_ROWS, Tile, ZEROS, add_outer, add_rows};
use std::ops::Range;

/// 6 neighbouring rows of the left side at one index.
pub(super) type Column = [f32; N_ROWS];

/// The left side of a slab, in groups of six rows.
pub(super) trait Left: Copy + Send + Sync {
    /// Groups, the last of which may have fewer rows.
    fn n_groups(self) -> usize;

    /// Some of the groups.
    fn groups(self, groups: Range<usize>) -> Self;

    /// At `[r][c]` the sum over the indices `inner` of the slab of `left[r][i] * right[i - inner.start][c]`, a chain in the order of `i`.
    fn products(self, group: usize, inner: Range<usize>, right: &[Chunk]) -> Tile;
}

/// Rows where they lie.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    x: &'a [f32],
    row_len: usize,
    /// The slab's place in a row.
    first_inner: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(x: &'a [f32], row_len: usize, first_inner: usize) -> Self {
        Rows { x, row_len, first_inner }
    }
}

impl Left for Rows<'_> {
    fn n_groups(self) -> usize {
        self.x.len().div_ceil(N_ROWS * self.row_len)
    }

    fn groups(self, groups: Range<usize>) -> Self {
        let group_len = N_ROWS * self.row_len;
        Rows { x: &self.x[groups.start * group_len..self.x.len().min(groups.end * group_len)], ..self }
    }

    #[inline(always)]
    fn products(self, group: usize, inner: Range<usize>, right: &[Chunk]) -> Tile {
        let rows = &self.x[group * N_ROWS * self.row_len..];
        let inner = self.first_inner + inner.start..self.first_inner + inner.end;
        // A row that the last group does not have repeats the first one; nobody reads its sums.
        let row = |r: usize| -> &[f32] {
            let start = if (r + 1) * self.row_len <= rows.len() { r * self.row_len } else { 0 };
            &rows[start + inner.start..start + inner.end]
        };
        let mut tile = ZEROS;
        add_rows(&mut tile, [row(0), row(1), row(2), row(3), row(4), row(5)], right);
        tile
    }
}

/// Panels: six rows side by side, index by index.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    columns: &'a [Column],
    n_inner: usize,
}

impl<'a> Panels<'a> {
    /// `n_inner`: columns of a panel.
    pub(super) fn new(columns: &'a [Column], n_inner: usize) -> Self {
        Panels { columns, n_inner }
    }
}

impl Left for Panels<'_> {
    fn n_groups(self) -> usize {
        self.columns.len() / self.n_inner
    }

    fn groups(self, groups: Range<usize>) -> Self {
        Panels { columns: &self.columns[groups.start * self.n_inner..groups.end * self.n_inner], ..self }
    }

    #[inline(always)]
    fn products(self, group: usize, inner: Range<usize>, right: &[Chunk]) -> Tile {
        let left = &self.columns[group * self.n_inner..][inner];
        let mut tile = ZEROS;
        for (left, right) in left.iter().zip(right) {
            add_outer(&mut tile, *left, right);
        }
        tile
    }
}

/// Writes a tile into rows of the output: `out` holds six or fewer rows of `row_len`; from `column` on, `width` of them. The sums are added to it, or put
/// in its place.
#[inline(always)]
pub(super) fn write(tile: &Tile, out: &mut [f32], row_len: usize, column: usize, width: usize, overwrites: bool) {
    if width == N_COLUMNS && out.len() == N_ROWS * row_len {
        // With constant lengths the tile goes from registers to memory.
        for (row, sums) in tile.iter().enumerate() {
            let out: &mut Chunk = out[row * row_len + column..].first_chunk_mut().expect("a whole tile has 16 columns");
            store(out, sums, overwrites);
        }
    } else {
        for (row, sums) in out.chunks_exact_mut(row_len).zip(tile) {
            store(&mut row[column..column + width], &sums[..width], overwrites);
        }
    }
}

#[inline(always)]
fn store(out: &mut [f32], sums: &[f32], overwrites: bool) {
    if overwrites {
        out.copy_from_slice(sums);
    } else {
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
    }
}
