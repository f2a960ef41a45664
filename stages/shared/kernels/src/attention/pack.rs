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

use super::tile::{Chunk, N_COLUMNS, N_ROWS};
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
        std::array::from_fn(|row| if row < n_rows { self.row(first + row) } else { zeros })
    }

    /// Chunk `panel * D + channel` holds one channel of 16 tokens.
    pub(super) fn token_panels(self, tokens: Range<usize>) -> Vec<Chunk> {
        let n_panels = tokens.len().div_ceil(N_COLUMNS);
        let mut panels = vec![[0.0; N_COLUMNS]; n_panels * self.head_dim];
        for (i, token) in tokens.enumerate() {
            let panel = &mut panels[i / N_COLUMNS * self.head_dim..][..self.head_dim];
            for (chunk, x) in panel.iter_mut().zip(self.row(token)) {
                chunk[i % N_COLUMNS] = *x;
            }
        }
        panels
    }

    /// Chunk `panel * n_tokens + token` holds 16 channels of one token; `panels` is filled and has `n_panels * n_tokens` chunks.
    #[inline(always)]
    pub(super) fn fill_channel_panels(self, tokens: Range<usize>, panels: &mut [Chunk]) {
        let n_tokens = tokens.len();
        for (i, token) in tokens.enumerate() {
            let (chunks, tail) = self.row(token).as_chunks::<N_COLUMNS>();
            for (panel, chunk) in chunks.iter().enumerate() {
                panels[panel * n_tokens + i] = *chunk;
            }
            if !tail.is_empty() {
                panels[chunks.len() * n_tokens + i] = crate::lanes::padded(tail, 0.0);
            }
        }
    }

    /// As [`Self::fill_channel_panels`], in a fresh vector.
    pub(super) fn channel_panels(self, tokens: Range<usize>) -> Vec<Chunk> {
        let mut panels = vec![[0.0; N_COLUMNS]; n_channel_panels(self.head_dim) * tokens.len()];
        self.fill_channel_panels(tokens, &mut panels);
        panels
    }
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
