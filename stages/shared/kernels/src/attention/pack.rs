//! One head of one document, laid out for the tiles.
//!
//! A head's rows lie far apart in a (T, heads, D) slice. Here they become panels of 16 columns, so that the right side of a tile product is read
//! from front to back:
//!
//! ```text
//! token panels    16 tokens wide, one chunk per channel    right side of q k^T and dO v^T
//! channel panels  16 channels wide, one chunk per token    right side of p v, ds k, p^T dO, ds^T q
//! ```
//!
//! Missing tokens and channels of a last panel are zero.

use crate::tile::{Chunk, N_COLUMNS, N_ROWS};
use std::ops::Range;

/// A head's place in a (T, heads, D) slice.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) x: &'a [f32],
    pub(super) n_heads: usize,
    pub(super) head: usize,
    pub(super) head_dim: usize,
}

impl<'a> Head<'a> {
    /// The channels at `token`: (D).
    #[inline(always)]
    pub(super) fn row(self, token: usize) -> &'a [f32] {
        let start = (token * self.n_heads + self.head) * self.head_dim;
        &self.x[start..start + self.head_dim]
    }

    /// The channels of six tokens from `first` on, `zeros` from row `n_rows` on.
    #[inline(always)]
    pub(super) fn six_rows(self, first: usize, n_rows: usize, zeros: &'a [f32]) -> [&'a [f32]; N_ROWS] {
        // Written out: from_fn would be a call.
        [
            self.row_or(first, n_rows > 0, zeros),
            self.row_or(first + 1, n_rows > 1, zeros),
            self.row_or(first + 2, n_rows > 2, zeros),
            self.row_or(first + 3, n_rows > 3, zeros),
            self.row_or(first + 4, n_rows > 4, zeros),
            self.row_or(first + 5, n_rows > 5, zeros),
        ]
    }

    #[inline(always)]
    fn row_or(self, token: usize, exists: bool, zeros: &'a [f32]) -> &'a [f32] {
        if exists { self.row(token) } else { zeros }
    }

    /// Chunk `panel * D + channel` holds one channel of 16 tokens; `panels` is filled and has [`n_token_chunks`] of them.
    #[inline(always)]
    pub(super) fn fill_token_panels(self, tokens: Range<usize>, panels: &mut [Chunk]) {
        for (panel, chunks) in panels.chunks_exact_mut(self.head_dim).enumerate() {
            let first = tokens.start + panel * N_COLUMNS;
            if first + N_COLUMNS <= tokens.end {
                let (blocks, tail) = chunks.as_chunks_mut::<N_COLUMNS>();
                for (i, block) in blocks.iter_mut().enumerate() {
                    let mut rows = [[0.0; N_COLUMNS]; N_COLUMNS];
                    for (column, row) in rows.iter_mut().enumerate() {
                        *row = self.row(first + column).as_chunks().0[i];
                    }
                    turn(&rows, block);
                }
                for (channel, chunk) in (blocks.len() * N_COLUMNS..).zip(tail) {
                    for (column, x) in chunk.iter_mut().enumerate() {
                        *x = self.row(first + column)[channel];
                    }
                }
            } else {
                chunks.fill([0.0; N_COLUMNS]);
                for (column, token) in (first..tokens.end).enumerate() {
                    for (chunk, x) in chunks.iter_mut().zip(self.row(token)) {
                        chunk[column] = *x;
                    }
                }
            }
        }
    }

    /// Chunk `panel * n_rows + token` holds 16 channels of one token, and there are [`n_channel_panels`] panels. `panels` is filled; rows behind
    /// the last token are zero.
    #[inline(always)]
    pub(super) fn fill_channel_panels(self, tokens: Range<usize>, n_rows: usize, panels: &mut [Chunk]) {
        // Token by token: a row is read once, in one piece.
        for (i, token) in tokens.clone().enumerate() {
            let (chunks, tail) = self.row(token).as_chunks::<N_COLUMNS>();
            for (panel, chunk) in chunks.iter().enumerate() {
                panels[panel * n_rows + i] = *chunk;
            }
            if !tail.is_empty() {
                panels[chunks.len() * n_rows + i] = crate::lanes::padded(tail, 0.0);
            }
        }
        for panel in panels.chunks_exact_mut(n_rows) {
            panel[tokens.len()..].fill([0.0; N_COLUMNS]);
        }
    }
}

/// Rows to columns.
#[inline(always)]
fn turn(rows: &[Chunk; N_COLUMNS], columns: &mut [Chunk; N_COLUMNS]) {
    for row in 0..N_COLUMNS {
        for column in 0..N_COLUMNS {
            columns[column][row] = rows[row][column];
        }
    }
}

/// Chunks of all token panels of a head.
pub(super) fn n_token_chunks(n_tokens: usize, head_dim: usize) -> usize {
    n_tokens.div_ceil(N_COLUMNS) * head_dim
}

/// Panels of 16 channels in a head.
pub(super) fn n_channel_panels(head_dim: usize) -> usize {
    head_dim.div_ceil(N_COLUMNS)
}

/// Cuts a (T, row_len) slice at the starts of documents and after every `block_len` tokens of a document: (document index, tokens
/// from the document's start, rows).
pub(super) fn cut_blocks<'a>(
    mut x: &'a mut [f32],
    documents: &[Range<usize>],
    block_len: usize,
    row_len: usize,
) -> Vec<(usize, Range<usize>, &'a mut [f32])> {
    let mut blocks = Vec::new();
    for (document_idx, document) in documents.iter().enumerate() {
        for start in (0..document.len()).step_by(block_len) {
            let tokens = start..document.len().min(start + block_len);
            let (rows, rest) = x.split_at_mut(tokens.len() * row_len);
            blocks.push((document_idx, tokens, rows));
            x = rest;
        }
    }
    blocks
}

/// The rows of one head in one document, each of D channels.
pub(super) type Rows<'a> = Vec<&'a mut [f32]>;

/// Sorts the rows of a (T, heads, D) slice: at `document_idx * heads + head` those of a head in a document.
pub(super) fn rows_by_head<'a>(
    mut x: &'a mut [f32],
    documents: &[Range<usize>],
    n_heads: usize,
    head_dim: usize,
) -> Vec<Rows<'a>> {
    let mut heads: Vec<Rows<'a>> = Vec::with_capacity(documents.len() * n_heads);
    for document in documents {
        let first = heads.len();
        heads.extend((0..n_heads).map(|_| Vec::with_capacity(document.len())));
        for _ in document.clone() {
            for rows in &mut heads[first..] {
                rows.push(x.split_off_mut(..head_dim).expect("the lengths were checked"));
            }
        }
    }
    heads
}
