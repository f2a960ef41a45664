//! Matrix products: f32 left sides with f32, bf16 or f16 right sides, one stored copy for both directions.
//!
//! ```text
//! forward            y  = x W^T     left x (T, in)          right W transposed
//! backward           dx = dy W      left dy (T, out)        right W
//! weight's gradient  dW = dy^T x    left dy transposed      right x
//! ```
//!
//! A [`Matrix`] is a view of a row-major slice, as it lies or transposed. The right side is copied into panels before it is multiplied, and so is a
//! transposed left one; the copy is where a side is turned and a narrow one widened, exactly: no f32 copy of more than a few MiB of a weight exists at any
//! time. A left side of f32 rows is read where it lies: a copy is bound by the memory, and cost 3 to 8 % of a product.
//!
//! ```text
//! left side: 6 rows at a time    right panels: 16 columns    a tile: 6 x 16 sums in registers, 12 AVX2 registers
//! ```
//!
//! **Order of additions.** The reduced index is cut into equal chunks of at most [`CHUNK_MAX`], by its length alone. A chunk is one chain of fused
//! multiply-adds from zero, and the chunks are added to the output one after another. Panels, slabs, tasks and threads never cut a chain, so they
//! never change a bit; and a sum over a vocabulary of 49,152 keeps six digits, where a single chain would keep four.
//!
//! Not here: batches, bias, activation.

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::dispatch::{self, Body};
use crate::tile::{Chunk, N_COLUMNS, N_ROWS};
use pack::{pack_left, pack_right};
use tile::{Column, Left, Panels, Rows};

mod pack;
pub mod reference;
mod tile;

#[cfg(test)]
mod tests;

/// Elements of the reduced index in one chain: a right panel of this length (24 KiB) stays in the first-level cache. Part of the result's
/// definition.
pub const CHUNK_MAX: usize = 384;
/// Chunks in one slab. With [`SLAB_LEN_MAX`] it bounds the memory of the copies.
const SLAB_CHUNKS: usize = 6;
/// Elements of the reduced index in one slab, at most.
pub const SLAB_INNER_MAX: usize = SLAB_CHUNKS * CHUNK_MAX;
/// Elements of a slab of the right side: 4 MiB.
pub const SLAB_LEN_MAX: usize = 1 << 20;
/// Groups of six rows in one task: at most so many, and so many elements (256 KiB) that they stay in the second-level cache.
const TASK_GROUPS_MAX: usize = 16;
const TASK_LEN_MAX: usize = 1 << 16;
/// With so many groups of six rows or fewer, tasks are columns, and each makes its own right panels: the gradients of an adapter have few rows, and
/// a copy of the whole right side would cost more than the product.
const FEW_GROUPS: usize = 4;

/// The stored elements of a matrix.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// The upper half of single precision.
    Bf16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
}

impl Elements<'_> {
    fn len(&self) -> usize {
        match self {
            Elements::F32(x) => x.len(),
            Elements::Bf16(x) => x.len(),
            Elements::F16(x) => x.len(),
        }
    }
}

impl<'a> From<&'a [f32]> for Elements<'a> {
    fn from(x: &'a [f32]) -> Self {
        Elements::F32(x)
    }
}

/// A side of a product: a row-major slice, as it lies or transposed.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    elements: Elements<'a>,
    /// Length of a stored row.
    row_len: usize,
    n_rows: usize,
    n_columns: usize,
    is_transposed: bool,
}

impl<'a> Matrix<'a> {
    /// The matrix (n_rows, n_columns) that `elements` holds row by row.
    pub fn new(elements: impl Into<Elements<'a>>, n_rows: usize, n_columns: usize) -> Self {
        Matrix::in_rows_of(n_columns, elements, n_rows, n_columns)
    }

    /// The first `n_columns` of each of the rows of `row_len` that `elements` holds.
    pub fn in_rows_of(row_len: usize, elements: impl Into<Elements<'a>>, n_rows: usize, n_columns: usize) -> Self {
        let elements = elements.into();
        assert_eq!(elements.len(), n_rows * row_len, "gemm: elements of a ({n_rows}, {n_columns}) matrix");
        assert!(n_columns <= row_len, "gemm: {n_columns} columns in rows of {row_len}");
        Matrix { elements, row_len, n_rows, n_columns, is_transposed: false }
    }

    /// The same elements with rows and columns exchanged; nothing is copied.
    pub fn transposed(self) -> Self {
        let Matrix { n_rows, n_columns, is_transposed, .. } = self;
        Matrix { n_rows: n_columns, n_columns: n_rows, is_transposed: !is_transposed, ..self }
    }
}

/// What an output's chains begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Zero: the output is overwritten.
    Zero,
    /// The output: the product is added to it, in the same chain.
    Output,
}

/// Room for the copies, kept from product to product: a fresh allocation would be paid in page faults.
#[derive(Debug, Default)]
pub struct Scratch {
    left: Vec<Column>,
    right: Vec<Chunk>,
}

/// `out = left right`, or `out += left right`.
///
/// - left: (M, K), f32; right: (K, N); out: (M, N), row-major
///
/// The same bits as [`reference::multiply`].
pub fn multiply(left: Matrix<'_>, right: Matrix<'_>, out: &mut [f32], start: Start, scratch: &mut Scratch) {
    multiply_into_rows_of(right.n_columns, left, right, out, start, scratch);
}

/// As [`multiply`], into the first N columns of the rows of `row_len` that `out` has.
pub fn multiply_into_rows_of(
    row_len: usize,
    left: Matrix<'_>,
    right: Matrix<'_>,
    out: &mut [f32],
    start: Start,
    scratch: &mut Scratch,
) {
    assert_eq!(left.n_columns, right.n_rows, "gemm: columns of the left side and rows of the right one");
    assert_eq!(out.len(), left.n_rows * row_len, "gemm: length of the output");
    assert!(right.n_columns <= row_len, "gemm: {} columns into rows of {row_len}", right.n_columns);
    if out.is_empty() {
        return;
    }
    let n_inner = left.n_columns;
    if n_inner == 0 && start == Start::Zero {
        out.chunks_exact_mut(row_len).for_each(|row| row[..right.n_columns].fill(0.0));
    }
    let mut out = Output { x: out, row_len };
    let Scratch { left: packed, right: scratch } = scratch;
    for slab in slabs(n_inner) {
        let start = if slab.inner.start == 0 { start } else { Start::Output };
        match left.elements {
            Elements::F32(x) if !left.is_transposed => {
                let rows = Rows::new(x, left.row_len, slab.inner.start);
                multiply_slab(rows, slab, right, out.borrowed(), start, scratch);
            }
            _ => {
                // What is left over from other products is overwritten: the panels have no gaps.
                let n_columns = left.n_rows.div_ceil(N_ROWS) * slab.inner.len();
                packed.resize(packed.len().max(n_columns), [0.0; N_ROWS]);
                let columns = &mut packed[..n_columns];
                pack_left(left, slab.inner.clone(), columns);
                let panels = Panels::new(columns, slab.inner.len());
                multiply_slab(panels, slab, right, out.borrowed(), start, scratch);
            }
        }
    }
}

/// The output, or some rows of it.
struct Output<'a> {
    x: &'a mut [f32],
    row_len: usize,
}

impl<'a> Output<'a> {
    fn n_rows(&self) -> usize {
        self.x.len() / self.row_len
    }

    fn borrowed(&mut self) -> Output<'_> {
        Output { x: self.x, row_len: self.row_len }
    }

    /// Up to `n_rows` rows from the front, which are taken off.
    fn split_off(&mut self, n_rows: usize) -> Output<'a> {
        let n_rows = n_rows.min(self.n_rows());
        let x = self.x.split_off_mut(..n_rows * self.row_len).expect("it has as many rows");
        Output { x, row_len: self.row_len }
    }
}

/// Length of chunks of at most `len_max` that are equal, but for the last; at least 1.
pub fn even_chunk_len(len: usize, len_max: usize) -> usize {
    len.div_ceil(len.div_ceil(len_max).max(1)).max(1)
}

/// Length of a chunk of a reduced index of `n_inner` elements.
fn chunk_len(n_inner: usize) -> usize {
    even_chunk_len(n_inner, CHUNK_MAX)
}

/// The reduced index in slabs of whole chunks.
fn slabs(n_inner: usize) -> impl Iterator<Item = Slab> {
    let chunk_len = chunk_len(n_inner);
    let slab_len = SLAB_CHUNKS * chunk_len;
    (0..n_inner).step_by(slab_len).map(move |start| Slab { inner: start..n_inner.min(start + slab_len), chunk_len })
}

/// A part of the reduced index.
#[derive(Clone)]
struct Slab {
    inner: Range<usize>,
    chunk_len: usize,
}

/// The part of a product that a slab of the reduced dimension makes, a few right panels at a time.
fn multiply_slab(
    left: impl Left,
    slab: Slab,
    right: Matrix<'_>,
    mut out: Output<'_>,
    start: Start,
    scratch: &mut Vec<Chunk>,
) {
    let (n_inner, n_columns) = (slab.inner.len(), right.n_columns);
    let n_panels = n_columns.div_ceil(N_COLUMNS);
    if left.n_groups() <= FEW_GROUPS && n_panels > 1 {
        return multiply_few_rows(left, slab, right, out, start);
    }
    let panels_max = (SLAB_LEN_MAX / (n_inner * N_COLUMNS)).max(1);
    for first_panel in (0..n_panels).step_by(panels_max) {
        let panels = first_panel..n_panels.min(first_panel + panels_max);
        let n_chunks = panels.len() * n_inner;
        scratch.resize(scratch.len().max(n_chunks), [0.0; N_COLUMNS]);
        let packed = &mut scratch[..n_chunks];
        pack_right(right, slab.inner.clone(), panels.start, packed);
        let columns = panels.start * N_COLUMNS..n_columns.min(panels.end * N_COLUMNS);
        let tasks = tasks(left, n_inner, out.borrowed());
        tasks.into_par_iter().for_each(|(left, out)| {
            let (chunk_len, columns) = (slab.chunk_len, columns.clone());
            dispatch::run(Task { left, right: packed, n_inner, chunk_len, out, columns, start });
        });
    }
}

/// As [`multiply_slab`], for an output of few rows.
fn multiply_few_rows(left: impl Left, slab: Slab, right: Matrix<'_>, out: Output<'_>, start: Start) {
    let (n_inner, n_columns) = (slab.inner.len(), right.n_columns);
    let n_rows = out.n_rows();
    let before = &*out.x;
    let strip = |panel: &mut Vec<Chunk>, panel_idx: usize| {
        let columns = panel_idx * N_COLUMNS..n_columns.min((panel_idx + 1) * N_COLUMNS);
        let row_len = columns.len();
        let mut strip = vec![0.0; n_rows * row_len];
        if start == Start::Output {
            for (strip, row) in strip.chunks_exact_mut(row_len).zip(before.chunks_exact(out.row_len)) {
                strip.copy_from_slice(&row[columns.clone()]);
            }
        }
        pack::pack_panel(right, slab.inner.clone(), panel_idx, panel);
        dispatch::run(Task {
            left,
            right: panel,
            n_inner,
            chunk_len: slab.chunk_len,
            out: Output { x: &mut strip, row_len },
            columns: 0..row_len,
            start,
        });
        strip
    };
    let new_panel = || vec![[0.0; N_COLUMNS]; n_inner];
    let strips: Vec<Vec<f32>> = (0..n_columns.div_ceil(N_COLUMNS)).into_par_iter().map_init(new_panel, strip).collect();
    for (panel_idx, strip) in strips.iter().enumerate() {
        let first = panel_idx * N_COLUMNS;
        let width = N_COLUMNS.min(n_columns - first);
        for (strip, row) in strip.chunks_exact(width).zip(out.x.chunks_exact_mut(out.row_len)) {
            row[first..first + width].copy_from_slice(strip);
        }
    }
}

/// Groups of the left side and rows of the output, cut evenly.
fn tasks<L: Left>(left: L, n_inner: usize, mut out: Output<'_>) -> Vec<(L, Output<'_>)> {
    let n_groups = left.n_groups();
    let n_threads = rayon::current_num_threads();
    let groups_per_task = (TASK_LEN_MAX / (N_ROWS * n_inner)).clamp(1, TASK_GROUPS_MAX);
    let n_tasks = n_groups.div_ceil(groups_per_task).next_multiple_of(n_threads).min(n_groups);
    let groups = (0..n_tasks).map(|task| task * n_groups / n_tasks..(task + 1) * n_groups / n_tasks);
    groups.map(|groups| (left.groups(groups.clone()), out.split_off(groups.len() * N_ROWS))).collect()
}

/// Some rows of the output, from `left` and from `right` in panels.
struct Task<'a, L> {
    left: L,
    right: &'a [Chunk],
    /// Indices of the reduced dimension, in both.
    n_inner: usize,
    /// Of them, those of one chain.
    chunk_len: usize,
    out: Output<'a>,
    /// The columns that `right` holds.
    columns: Range<usize>,
    start: Start,
}

impl<L: Left> Body for Task<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Task { left, right, n_inner, chunk_len, out: Output { x: out, row_len }, columns, start } = self;
        for (panel_idx, right) in right.chunks_exact(n_inner).enumerate() {
            let column = columns.start + panel_idx * N_COLUMNS;
            let width = N_COLUMNS.min(columns.end - column);
            // Chunk by chunk: that of the right panel stays in the first-level cache, and so do the rows of the output.
            for first in (0..n_inner).step_by(chunk_len) {
                let inner = first..n_inner.min(first + chunk_len);
                let overwrites = start == Start::Zero && first == 0;
                for (group, out) in out.chunks_mut(N_ROWS * row_len).enumerate() {
                    let tile = left.products(group, inner.clone(), &right[inner.clone()]);
                    tile::write(&tile, out, row_len, column, width, overwrites);
                }
            }
        }
    }
}
