//! Causal attention inside documents, without the matrix of scores.
//!
//! A pack of T tokens holds documents one after another; a token sees itself and the earlier tokens of its own document:
//!
//! ```text
//!             keys
//!           a a a b b
//!         a x . . . .
//! queries a x x . . .       documents: [0..3, 3..5]
//!         a x x x . .
//!         b . . . x .
//!         b . . . x x
//! ```
//!
//! For each head, `o = softmax(scale q k^T) v` over the crosses, and nothing is computed for most of the dots. Query head `h` reads key and value
//! head `h / (n_heads / n_kv_heads)` (grouped queries: Ainslie et al., arXiv 2305.13245).
//!
//! The forward keeps one number per row and head, the log-sum-exp, from which the backward computes the probabilities again, block by
//! block (Dao, FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2). Memory is O(T).
//!
//! Blocks of [`BLOCK_LEN`] tokens are counted from the start of a document. So a document's results do not depend on its place in the pack or
//! on its neighbours, to the bit. [`Scores`] says what lies between a product and the softmax: a scale, maybe a cap, maybe a window that hides earlier
//! keys; blocks of keys that a window hides cost nothing. No bias, no dropout of probabilities.

use std::ops::Range;

mod backward;
mod extend;
mod forward;
mod pack;
pub mod reference;
mod room;
mod scores;
mod tile;

#[cfg(test)]
mod tests;

pub use backward::backward;
pub use extend::extend;
pub use forward::forward;
pub use scores::Scores;

/// Tokens of a block of queries or keys. Part of the result's definition: the running softmax is rescaled once per block.
pub const BLOCK_LEN: usize = 96;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// T: tokens of all documents together.
    pub n_tokens: usize,
    /// H: query heads, a multiple of `n_kv_heads`.
    pub n_heads: usize,
    /// Key and value heads, at least 1.
    pub n_kv_heads: usize,
    /// D: channels of a head, at least 1.
    pub head_dim: usize,
}

impl Shape {
    /// Elements of q, o and their gradients: (T, H, D).
    pub fn n_query_elements(&self) -> usize {
        self.n_tokens * self.n_heads * self.head_dim
    }

    /// Elements of k, v and their gradients: (T, H_kv, D).
    pub fn n_key_elements(&self) -> usize {
        self.n_tokens * self.n_kv_heads * self.head_dim
    }

    /// Query heads that share a key head.
    fn n_group_heads(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Fails unless the shape holds together and the documents cover `0..T` in order.
    fn check(&self, documents: &[Range<usize>], scores: &Scores) {
        assert!(self.n_kv_heads > 0 && self.head_dim > 0, "attention: no heads or no channels");
        assert!(self.n_heads.is_multiple_of(self.n_kv_heads), "attention: n_heads is no multiple of n_kv_heads");
        scores.check();
        let mut covered = 0;
        for document in documents {
            assert!(
                document.start == covered && document.end > covered,
                "attention: documents do not follow each other"
            );
            covered = document.end;
        }
        assert_eq!(covered, self.n_tokens, "attention: documents do not cover the tokens");
    }
}

/// Elements that a [`forward`] and a [`backward`] of these documents leave for the next calls, on the current number of threads: panels and
/// sums of 16 columns.
pub fn n_kept_elements(shape: Shape, documents: &[Range<usize>]) -> usize {
    let (backward, n_pieces) = backward::n_chunks(shape, documents);
    // One of the backward's pieces is the forward's, grown.
    crate::tile::N_COLUMNS * (backward.max(forward::n_chunks(shape, documents)) + (n_pieces - 1) * backward)
}

/// Fails unless `x` has `len` elements.
#[track_caller]
fn check_len(name: &str, x: &[f32], len: usize) {
    assert_eq!(x.len(), len, "attention: length of {name}");
}
