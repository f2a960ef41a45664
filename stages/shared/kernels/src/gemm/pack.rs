//! Copies of the two sides, in panels, widened to f32.
//!
//! ```text
//! left, rows 0..6 of (M, K)         right, columns 0..16 of (K, N)
//!   k = 0: a00 a10 a20 .. a50         k = 0: b00 b01 b02 .. b0f
//!   k = 1: a01 a11 a21 .. a51         k = 1: b10 b11 b12 .. b1f
//! ```
//!
//! Rows and columns that a last panel has too many are zero.

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use super::tile::Column;
use super::{Elements, Matrix};
use crate::dispatch::{self, Body};
use crate::tile::{Chunk, N_COLUMNS, N_ROWS};

/// An element that is widened exactly.
trait Element: Copy + Sync {
    fn widened(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn widened(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widened(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Element for f16 {
    /// Without the table or the instruction of the `half` crate, so that it is vectorized with the loop around it.
    #[inline(always)]
    fn widened(self) -> f32 {
        /// 2^112: f16 has 15 as the bias of its exponent, f32 has 127.
        const REBIAS: f32 = f32::from_bits((112 + 127) << 23);
        let bits = u32::from(self.to_bits());
        let (sign, magnitude) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
        // The product is exact and turns subnormal numbers into normal ones.
        let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
        let special = magnitude | 0x7f80_0000;
        let is_special = magnitude >= 0x0f80_0000;
        f32::from_bits(sign | if is_special { special } else { finite })
    }
}

/// Panels of 6 rows over the indices `inner` of the reduced dimension, into `panels`: (ceil(M / 6), inner) columns.
pub(super) fn pack_left(left: Matrix<'_>, inner: Range<usize>, panels: &mut [Column]) {
    match left.elements {
        Elements::F32(x) => pack_left_from(x, left, inner, panels),
        Elements::Bf16(x) => pack_left_from(x, left, inner, panels),
        Elements::F16(x) => pack_left_from(x, left, inner, panels),
    }
}

fn pack_left_from<E: Element>(x: &[E], left: Matrix<'_>, inner: Range<usize>, panels: &mut [Column]) {
    panels.par_chunks_mut(inner.len()).enumerate().with_min_len(4).for_each(|(panel_idx, panel)| {
        let first = panel_idx * N_ROWS;
        let n_lines = N_ROWS.min(left.n_rows - first);
        let lines = Lines { x, row_len: left.row_len, first, n_lines, inner: inner.clone() };
        if left.is_transposed {
            dispatch::run(Straight { lines, panel });
        } else {
            dispatch::run(Turned { lines, panel });
        }
    });
}

/// Panels of 16 columns, from panel `first_panel` on, over the indices `inner`, into `panels`: (panels, inner) chunks.
pub(super) fn pack_right(right: Matrix<'_>, inner: Range<usize>, first_panel: usize, panels: &mut [Chunk]) {
    match right.elements {
        Elements::F32(x) => pack_right_from(x, right, inner, first_panel, panels),
        Elements::Bf16(x) => pack_right_from(x, right, inner, first_panel, panels),
        Elements::F16(x) => pack_right_from(x, right, inner, first_panel, panels),
    }
}

fn pack_right_from<E: Element>(
    x: &[E],
    right: Matrix<'_>,
    inner: Range<usize>,
    first_panel: usize,
    panels: &mut [Chunk],
) {
    panels.par_chunks_mut(inner.len()).enumerate().with_min_len(2).for_each(|(panel_idx, panel)| {
        pack_panel_from(x, right, inner.clone(), first_panel + panel_idx, panel);
    });
}

/// One panel of [`pack_right`], in this thread.
pub(super) fn pack_panel(right: Matrix<'_>, inner: Range<usize>, panel_idx: usize, panel: &mut [Chunk]) {
    match right.elements {
        Elements::F32(x) => pack_panel_from(x, right, inner, panel_idx, panel),
        Elements::Bf16(x) => pack_panel_from(x, right, inner, panel_idx, panel),
        Elements::F16(x) => pack_panel_from(x, right, inner, panel_idx, panel),
    }
}

fn pack_panel_from<E: Element>(x: &[E], right: Matrix<'_>, inner: Range<usize>, panel_idx: usize, panel: &mut [Chunk]) {
    let first = panel_idx * N_COLUMNS;
    let n_lines = N_COLUMNS.min(right.n_columns - first);
    let lines = Lines { x, row_len: right.row_len, first, n_lines, inner };
    if right.is_transposed {
        dispatch::run(Turned { lines, panel });
    } else {
        dispatch::run(Straight { lines, panel });
    }
}

/// What a panel is made of: `n_lines` lines of the matrix from `first` on, at the indices `inner` of the reduced dimension.
struct Lines<'a, E> {
    x: &'a [E],
    row_len: usize,
    first: usize,
    n_lines: usize,
    inner: Range<usize>,
}

/// The lines are stored columns: an index of the reduced dimension is a stored row, and a panel takes `N` neighbours of it.
struct Straight<'a, E, const N: usize> {
    lines: Lines<'a, E>,
    panel: &'a mut [[f32; N]],
}

impl<E: Element, const N: usize> Body for Straight<'_, E, N> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Lines { x, row_len, first, n_lines, inner } = self.lines;
        let rows = x[inner.start * row_len..inner.end * row_len].chunks_exact(row_len);
        if n_lines == N {
            for (out, row) in self.panel.iter_mut().zip(rows) {
                let from: &[E; N] = row[first..].first_chunk().expect("the panel's lines lie in the matrix");
                for i in 0..N {
                    out[i] = from[i].widened();
                }
            }
        } else {
            for (out, row) in self.panel.iter_mut().zip(rows) {
                *out = [0.0; N];
                for (out, x) in out.iter_mut().zip(&row[first..first + n_lines]) {
                    *out = x.widened();
                }
            }
        }
    }
}

/// The lines are stored rows: `N` of them are read side by side and turned.
struct Turned<'a, E, const N: usize> {
    lines: Lines<'a, E>,
    panel: &'a mut [[f32; N]],
}

/// Elements of each line that are turned at once.
const TURNED_LEN: usize = 8;

impl<E: Element, const N: usize> Body for Turned<'_, E, N> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Lines { x, row_len, first, n_lines, inner } = self.lines;
        let line = |i: usize| {
            let start = (first + i.min(n_lines - 1)) * row_len;
            &x[start + inner.start..start + inner.end]
        };
        // A line that the matrix does not have repeats the last one, and is cleared below.
        let lines: [&[E]; N] = std::array::from_fn(line);
        let blocks = self.panel.chunks_mut(TURNED_LEN);
        for (block_idx, block) in blocks.enumerate() {
            let from = block_idx * TURNED_LEN;
            if let Ok(block) = <&mut [[f32; N]; TURNED_LEN]>::try_from(&mut *block) {
                for i in 0..N {
                    let line: &[E; TURNED_LEN] =
                        lines[i][from..].first_chunk().expect("lines are as long as the panel");
                    for k in 0..TURNED_LEN {
                        block[k][i] = line[k].widened();
                    }
                }
            } else {
                for (k, out) in block.iter_mut().enumerate() {
                    for i in 0..N {
                        out[i] = lines[i][from + k].widened();
                    }
                }
            }
        }
        if n_lines < N {
            self.panel.iter_mut().for_each(|out| out[n_lines..].fill(0.0));
        }
    }
}
