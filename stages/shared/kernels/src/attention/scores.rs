//! What lies between a product of a query with a key and the softmax.

use super::BLOCK_LEN;
use crate::math::{exp_of_nonpositive, tanh};

/// How scores are made, and which of them count: `s = scale q k`, then `cap tanh(s / cap)`, of the last `window` keys.
///
/// ```text
///           keys          window 2
///           0 1 2 3
///         0 x . . .
/// queries 1 x x . .
///         2 . x x .
///         3 . . x x
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Factor of every product: positive, usually `1 / sqrt(D)`.
    pub scale: f32,
    /// The largest score there can be (Gemma 2: arXiv 2408.00118, section 2.1), positive.
    pub cap: Option<f32>,
    /// Keys that a query sees, itself among them (sliding window: Beltagy et al., arXiv 2004.05150): at least 1.
    pub window: Option<usize>,
}

impl Scores {
    /// Scores that are only scaled.
    pub fn scaled(scale: f32) -> Self {
        Self { scale, cap: None, window: None }
    }

    pub(super) fn check(&self) {
        let Self { scale, cap, window } = *self;
        assert!(scale > 0.0, "attention: scale {scale} is not positive");
        assert!(cap.is_none_or(|cap| cap > 0.0), "attention: cap {cap:?} is not positive");
        assert!(window.is_none_or(|window| window > 0), "attention: a window of 0 hides every key");
    }

    /// The first key that a query sees; both are counted from the document's start.
    #[inline(always)]
    pub(super) fn first_key(&self, query: usize) -> usize {
        self.window.map_or(0, |window| (query + 1).saturating_sub(window))
    }

    /// Blocks of keys that a block of queries sees, its own among them.
    pub(super) fn n_key_blocks_max(&self) -> usize {
        // The nearest two tokens of blocks `n` apart lie `n BLOCK_LEN - (BLOCK_LEN - 1)` apart.
        self.window.map_or(usize::MAX, |window| window.saturating_add(BLOCK_LEN - 2) / BLOCK_LEN + 1)
    }

    /// What a number of [`Self::capped`] is multiplied by before the softmax.
    #[inline(always)]
    pub(super) fn softmax_scale(&self) -> f32 {
        if self.cap.is_some() { 1.0 } else { self.scale }
    }

    /// A product as the softmax takes it, but for [`Self::softmax_scale`].
    #[inline(always)]
    pub(super) fn capped(&self, product: f32) -> f32 {
        match self.cap {
            None => product,
            Some(cap) => cap * tanh(product * (self.scale / cap)),
        }
    }

    /// The probability that a product stands for, and what the loss's gradient in it, less `delta`, is multiplied by to be one in the product.
    #[inline(always)]
    pub(super) fn probability_and_slope(&self, product: f32, log_sum_exp: f32) -> (f32, f32) {
        match self.cap {
            None => (exp_of_nonpositive(product.mul_add(self.scale, -log_sum_exp)), self.scale),
            Some(cap) => {
                let t = tanh(product * (self.scale / cap));
                // tanh' = 1 - tanh^2.
                (exp_of_nonpositive(t.mul_add(cap, -log_sum_exp)), self.scale * t.mul_add(-t, 1.0))
            }
        }
    }
}
