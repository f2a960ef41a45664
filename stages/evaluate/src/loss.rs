//! The loss of every document, each alone and without dropout.
//!
//! ```text
//! documents of 3, 9 and 1 supervised tokens, sums of losses 6.0, 13.5 and 0.5
//! loss = (6.0 + 13.5 + 0.5) / (3 + 9 + 1) = 1.538          a long document counts more than a short one
//! perplexity = exp(loss) = 4.657
//! ```
//!
//! Never a mean of means: those of the documents are 2.0, 1.5 and 0.5, and their mean, 1.333, is no loss of any text.

use pipe_contract::StageError;
use pipe_llm::{Adapter, CandleEngine};

use crate::error::EvaluateError;
use crate::items::Item;

/// The sum of the losses of each item's supervised tokens, in nats; nothing for an item without one. `check` is called
/// before each document, with its number of tokens.
///
/// # Errors
/// What `check` returns; a loss that is not finite; a failing tensor operation.
pub fn loss_sums(
    engine: &CandleEngine,
    adapter: Option<&Adapter>,
    items: &[Item],
    mut check: impl FnMut(usize) -> Result<(), StageError>,
) -> Result<Vec<Option<f64>>, StageError> {
    let mut sums = Vec::with_capacity(items.len());
    for item in items {
        let Some(sequence) = &item.sequence else {
            sums.push(None);
            continue;
        };
        check(sequence.len())?;
        let loss = engine.loss(adapter, sequence)?;
        if !loss.is_finite() {
            let of = if adapter.is_some() { "with the adapter" } else { "of the base" };
            return Err(EvaluateError::NotFinite { row: item.row, loss, of }.into());
        }
        sums.push(Some(loss));
    }
    Ok(sums)
}

/// Supervised tokens of an item.
pub fn n_supervised(item: &Item) -> usize {
    item.sequence.as_ref().map_or(0, |sequence| sequence.targets.len())
}

/// The mean over all supervised tokens, and its exponential.
pub fn loss_and_perplexity(sums: &[Option<f64>], n_supervised_tokens: usize) -> (f64, f64) {
    let loss = sums.iter().flatten().sum::<f64>() / n_supervised_tokens as f64;
    (loss, libm::exp(loss).min(f64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_weighed_and_not_documents() {
        let (loss, perplexity) = loss_and_perplexity(&[Some(6.0), None, Some(13.5), Some(0.5)], 13);
        assert_eq!(loss, 20.0 / 13.0);
        assert!((perplexity - 4.657).abs() < 1e-3, "{perplexity}");
    }
}
