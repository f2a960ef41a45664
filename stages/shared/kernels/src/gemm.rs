//! Matrix products: f32 left sides with f32, bf16 or f16 right sides, one stored copy for both directions.
//!
//! ```text
//! forward            y  = x W^T     left x (T, in)          right W transposed
//! backward           dx = dy W      left dy (T, out)        right W
//! weight's gradient  dW = dy^T x    left dy transposed      right x
//! ```
//!
//! A [`Matrix`] is a view of a row-major slice, as it lies or transposed. Both sides are copied into panels before they are multiplied, and
//! the copy is where a transposed side is turned and a narrow one widened, exactly: no f32 copy of more than a few MiB of a weight exists at any time.
//!
//! ```text
//! left panels: 6 rows    right panels: 16 columns    a tile: 6 x 16 sums in registers, 12 AVX2 registers
//! ```
//!
//! **Order of additions.** The reduced index is cut into equal chunks of at most [`CHUNK_MAX`], by its length alone. A chunk is one chain of fused
//! multiply-adds from zero, and the chunks are added to the output one after another. Panels, slabs, tasks and threads never cut a chain, so they
//! never change a bit; and a sum over a vocabulary of 49,152 keeps six digits, where a single chain would keep four.
//!
//! Not here: batches, bias, activation; products with few rows are correct but not split over columns.

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::dispatch::{self, Body};
use pack::{pack_left, pack_right};
use tile::{Chunk, Column, N_COLUMNS, N_ROWS, multiply_tile};

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
/// Left panels of one task: 48 rows.
const TASK_PANELS: usize = 8;
/// With so many left panels or fewer, tasks are columns, and each makes its own right panels: the gradients of an adapter have few rows, and
/// a copy of the whole right side would cost more than the product.
const FEW_PANELS: usize = 4;

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
        let elements = elements.into();
        assert_eq!(elements.len(), n_rows * n_columns, "gemm: elements of a ({n_rows}, {n_columns}) matrix");
        Matrix { elements, row_len: n_columns, n_rows, n_columns, is_transposed: false }
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

/// A left side in panels, for several products with the same one.
#[derive(Debug, Default)]
pub struct PackedLeft {
    /// Slab after slab; in it panel after panel; in it [`N_ROWS`] rows for each index of the slab.
    columns: Vec<Column>,
    n_rows: usize,
    n_inner: usize,
}

impl PackedLeft {
    /// Copies `left`, (M, K), over what was here.
    pub fn pack(&mut self, left: Matrix<'_>) {
        (self.n_rows, self.n_inner) = (left.n_rows, left.n_columns);
        let n_panels = left.n_rows.div_ceil(N_ROWS);
        self.columns.resize(n_panels * self.n_inner, [0.0; N_ROWS]);
        for slab in slabs(self.n_inner) {
            let panels = slab.inner.start * n_panels..slab.inner.end * n_panels;
            pack_left(left, slab.inner, &mut self.columns[panels]);
        }
    }
}

/// `out = left right`, or `out += left right`.
///
/// - left: (M, K), f32; right: (K, N); out: (M, N), row-major
///
/// The same bits as [`reference::multiply`].
pub fn multiply(left: Matrix<'_>, right: Matrix<'_>, out: &mut [f32], start: Start, scratch: &mut Scratch) {
    check(left.n_rows, left.n_columns, right, out);
    let n_panels = left.n_rows.div_ceil(N_ROWS);
    let mut packed = std::mem::take(&mut scratch.left);
    let n_inner = left.n_columns;
    if n_inner == 0 && start == Start::Zero {
        out.fill(0.0);
    }
    for slab in slabs(n_inner) {
        // What is left over from other products is overwritten: the panels have no gaps.
        let n_columns = n_panels * slab.inner.len();
        packed.resize(packed.len().max(n_columns), [0.0; N_ROWS]);
        let panels = &mut packed[..n_columns];
        pack_left(left, slab.inner.clone(), panels);
        let start = if slab.inner.start == 0 { start } else { Start::Output };
        multiply_slab(panels, slab, right, out, start, &mut scratch.right);
    }
    scratch.left = packed;
}

/// As [`multiply`], with a left side that is in panels already.
pub fn multiply_packed(left: &PackedLeft, right: Matrix<'_>, out: &mut [f32], start: Start, scratch: &mut Scratch) {
    check(left.n_rows, left.n_inner, right, out);
    let n_panels = left.n_rows.div_ceil(N_ROWS);
    if left.n_inner == 0 && start == Start::Zero {
        out.fill(0.0);
    }
    for slab in slabs(left.n_inner) {
        let panels = &left.columns[slab.inner.start * n_panels..slab.inner.end * n_panels];
        let start = if slab.inner.start == 0 { start } else { Start::Output };
        multiply_slab(panels, slab, right, out, start, &mut scratch.right);
    }
}

fn check(n_rows: usize, n_inner: usize, right: Matrix<'_>, out: &[f32]) {
    assert_eq!(n_inner, right.n_rows, "gemm: columns of the left side and rows of the right one");
    assert_eq!(out.len(), n_rows * right.n_columns, "gemm: length of the output");
}

/// Length of a chunk of a reduced index of `n_inner` elements: equal ones, but for the last.
fn chunk_len(n_inner: usize) -> usize {
    n_inner.div_ceil(n_inner.div_ceil(CHUNK_MAX).max(1)).max(1)
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
    left: &[Column],
    slab: Slab,
    right: Matrix<'_>,
    out: &mut [f32],
    start: Start,
    scratch: &mut Vec<Chunk>,
) {
    let (n_inner, n_columns) = (slab.inner.len(), right.n_columns);
    let n_panels = n_columns.div_ceil(N_COLUMNS);
    if left.len() <= FEW_PANELS * n_inner && n_panels > 1 {
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
        let tasks = tasks(left, n_inner, out, n_columns);
        tasks.into_par_iter().for_each(|(left, out)| {
            let (chunk_len, columns) = (slab.chunk_len, columns.clone());
            dispatch::run(Task { left, right: packed, n_inner, chunk_len, out, n_columns, columns, start });
        });
    }
}

/// As [`multiply_slab`], for an output of few rows.
fn multiply_few_rows(left: &[Column], slab: Slab, right: Matrix<'_>, out: &mut [f32], start: Start) {
    let (n_inner, n_columns) = (slab.inner.len(), right.n_columns);
    let n_rows = out.len() / n_columns;
    let out_before = &*out;
    let strip = |panel: &mut Vec<Chunk>, panel_idx: usize| {
        let columns = panel_idx * N_COLUMNS..n_columns.min((panel_idx + 1) * N_COLUMNS);
        let mut strip = vec![0.0; n_rows * columns.len()];
        if start == Start::Output {
            for (strip, row) in strip.chunks_exact_mut(columns.len()).zip(out_before.chunks_exact(n_columns)) {
                strip.copy_from_slice(&row[columns.clone()]);
            }
        }
        pack::pack_panel(right, slab.inner.clone(), panel_idx, panel);
        let width = columns.len();
        dispatch::run(Task {
            left,
            right: panel,
            n_inner,
            chunk_len: slab.chunk_len,
            out: &mut strip,
            n_columns: width,
            columns: 0..width,
            start,
        });
        strip
    };
    let new_panel = || vec![[0.0; N_COLUMNS]; n_inner];
    let strips: Vec<Vec<f32>> = (0..n_columns.div_ceil(N_COLUMNS)).into_par_iter().map_init(new_panel, strip).collect();
    for (panel_idx, strip) in strips.iter().enumerate() {
        let first = panel_idx * N_COLUMNS;
        let width = N_COLUMNS.min(n_columns - first);
        for (strip, row) in strip.chunks_exact(width).zip(out.chunks_exact_mut(n_columns)) {
            row[first..first + width].copy_from_slice(strip);
        }
    }
}

/// Left panels and rows of the output, cut evenly.
fn tasks<'l, 'o>(
    left: &'l [Column],
    n_inner: usize,
    mut out: &'o mut [f32],
    n_columns: usize,
) -> Vec<(&'l [Column], &'o mut [f32])> {
    let n_panels = left.len() / n_inner;
    let n_threads = rayon::current_num_threads();
    let n_tasks = n_panels.div_ceil(TASK_PANELS).next_multiple_of(n_threads).min(n_panels);
    let mut tasks = Vec::with_capacity(n_tasks);
    for task in 0..n_tasks {
        let panels = task * n_panels / n_tasks..(task + 1) * n_panels / n_tasks;
        let (rows, rest) = out.split_at_mut(out.len().min(panels.len() * N_ROWS * n_columns));
        tasks.push((&left[panels.start * n_inner..panels.end * n_inner], rows));
        out = rest;
    }
    tasks
}

/// Some rows of the output, from `left` in panels and `right` in panels.
struct Task<'a> {
    left: &'a [Column],
    right: &'a [Chunk],
    /// Indices of the reduced dimension, in both.
    n_inner: usize,
    /// Of them, those of one chain.
    chunk_len: usize,
    /// (rows, n_columns)
    out: &'a mut [f32],
    n_columns: usize,
    /// The columns that `right` holds.
    columns: Range<usize>,
    start: Start,
}

impl Body for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Task { left, right, n_inner, chunk_len, out, n_columns, columns, start } = self;
        for first in (0..n_inner).step_by(chunk_len) {
            let inner = first..n_inner.min(first + chunk_len);
            let overwrites = start == Start::Zero && first == 0;
            for (panel_idx, right) in right.chunks_exact(n_inner).enumerate() {
                let column = columns.start + panel_idx * N_COLUMNS;
                let width = N_COLUMNS.min(columns.end - column);
                let rows = out.chunks_mut(N_ROWS * n_columns);
                for (left, out) in left.chunks_exact(n_inner).zip(rows) {
                    let (left, right) = (&left[inner.clone()], &right[inner.clone()]);
                    multiply_tile(left, right, out, n_columns, column, width, overwrites);
                }
            }
        }
    }
}
