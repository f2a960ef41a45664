//! What each packing strategy would waste, before anything is packed: the counts of `packed.json` that `tokenize` would write.
//!
//! ```text
//! documents of 1,500, 300 and 200 tokens, max_length 1024
//!
//!            packs   fill      tokens cut   empty places
//! none           3   49.6 %           476          1,548     the places are padding where a batch pads to max_length
//! bfd            2   74.4 %           476            524
//! bfd_split      2   97.7 %             0             48     the piece of 476 tokens shares a pack with 300 and 200
//! wrapped        2   97.7 %             0             48     and documents see each other
//! ```
//!
//! Documents are those of `tokenize` with its other settings at their defaults: the end appended where the model has one, the completion
//! alone supervised where the examples say so, long documents truncated. A document without a token to learn is left out. Memory is 8 bytes
//! a document.

use pipe_records::packed::NOT_SUPERVISED;
use pipe_records::packing::{best_fit_decreasing, first_fit};
use pipe_records::{PackedCounts, Packing};
use pipe_tokenizer::Document;
use serde::{Deserialize, Serialize};

/// What a strategy would make of the examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Estimate {
    pub(crate) packing_strategy: Packing,
    pub(crate) n_packs: u64,
    /// In the packs.
    pub(crate) n_documents: u64,
    /// In the packs.
    pub(crate) n_tokens: u64,
    pub(crate) n_truncated_documents: u64,
    pub(crate) n_truncated_tokens: u64,
    pub(crate) n_dropped_documents: u64,
    pub(crate) n_dropped_tokens: u64,
    /// `n_packs * max_length - n_tokens`.
    pub(crate) n_empty_places: u64,
    /// `n_tokens / (n_packs * max_length)`, 0 to 1.
    pub(crate) fill: f64,
}

/// Every strategy on the same examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Estimates {
    /// Most tokens of a pack.
    pub(crate) max_length: u32,
    pub(crate) strategies: Vec<Estimate>,
}

/// Takes the documents one by one.
pub(crate) struct Estimator {
    max_length: u32,
    /// Documents with a token to learn among their first `max_length`: their length, cut there.
    cut: Vec<u32>,
    truncate: PackedCounts,
    /// What is left of long documents, and the short ones whole, where something of it is learned.
    rests: Vec<u32>,
    n_full_pieces: u64,
    split: PackedCounts,
    wrapped: Stream,
}

impl Estimator {
    pub(crate) fn new(max_length: u32) -> Self {
        Estimator {
            max_length,
            cut: Vec::new(),
            truncate: PackedCounts::default(),
            rests: Vec::new(),
            n_full_pieces: 0,
            split: PackedCounts::default(),
            wrapped: Stream { max_length: max_length as usize, ..Stream::default() },
        }
    }

    /// The next document.
    pub(crate) fn push(&mut self, document: &Document) {
        self.truncate(&document.labels);
        self.split(&document.labels);
        self.wrapped.push(&document.labels);
    }

    fn truncate(&mut self, labels: &[i32]) {
        let kept = &labels[..labels.len().min(self.max_length as usize)];
        if !is_learned(kept) {
            self.truncate.n_dropped_documents += 1;
            self.truncate.n_dropped_tokens += labels.len() as u64;
            return;
        }
        self.truncate.n_documents += 1;
        self.truncate.n_truncated_documents += u64::from(kept.len() < labels.len());
        self.truncate.n_truncated_tokens += (labels.len() - kept.len()) as u64;
        self.cut.push(kept.len() as u32);
    }

    fn split(&mut self, labels: &[i32]) {
        let max_length = self.max_length as usize;
        let mut n_kept = 0;
        for piece in labels.chunks(max_length) {
            if !is_learned(piece) {
                self.split.n_dropped_documents += 1;
                self.split.n_dropped_tokens += piece.len() as u64;
                continue;
            }
            n_kept += 1;
            if piece.len() == max_length {
                self.n_full_pieces += 1;
            } else {
                self.rests.push(piece.len() as u32);
            }
        }
        self.split.n_dropped_documents += u64::from(labels.is_empty());
        self.split.n_documents += n_kept;
        self.split.n_truncated_documents += u64::from(labels.len() > max_length && n_kept > 0);
    }

    /// All strategies, in the order of [`Packing::ALL`].
    pub(crate) fn finish(self) -> Estimates {
        let max_length = self.max_length;
        let estimate = |packing_strategy: Packing, n_packs: u64, n_tokens: u64, counts: PackedCounts| {
            let n_places = n_packs * u64::from(max_length);
            Estimate {
                packing_strategy,
                n_packs,
                n_documents: counts.n_documents,
                n_tokens,
                n_truncated_documents: counts.n_truncated_documents,
                n_truncated_tokens: counts.n_truncated_tokens,
                n_dropped_documents: counts.n_dropped_documents,
                n_dropped_tokens: counts.n_dropped_tokens,
                n_empty_places: n_places - n_tokens,
                fill: if n_places == 0 { 0.0 } else { n_tokens as f64 / n_places as f64 },
            }
        };
        let sum = |lengths: &[u32]| lengths.iter().map(|length| u64::from(*length)).sum::<u64>();
        let of = |strategy| match strategy {
            Packing::None => estimate(strategy, self.cut.len() as u64, sum(&self.cut), self.truncate),
            Packing::Bfd => {
                let packs = best_fit_decreasing(&self.cut, max_length);
                estimate(strategy, packs.len() as u64, sum(&self.cut), self.truncate)
            }
            Packing::FirstFit => {
                let packs = first_fit(&self.cut, max_length);
                estimate(strategy, packs.len() as u64, sum(&self.cut), self.truncate)
            }
            Packing::BfdSplit => {
                // A full piece has a pack for itself.
                let n_packs = best_fit_decreasing(&self.rests, max_length).len() as u64 + self.n_full_pieces;
                let n_tokens = sum(&self.rests) + self.n_full_pieces * u64::from(max_length);
                estimate(strategy, n_packs, n_tokens, self.split)
            }
            Packing::Wrapped => {
                let stream = self.wrapped.clone().finish();
                estimate(strategy, stream.n_packs, stream.n_tokens, stream.counts)
            }
        };
        Estimates { max_length, strategies: Packing::ALL.map(of).to_vec() }
    }
}

/// Whether a label stands behind another token.
fn is_learned(labels: &[i32]) -> bool {
    labels.iter().skip(1).any(|label| *label != NOT_SUPERVISED)
}

/// Documents end to end, cut every `max_length` tokens.
#[derive(Clone, Debug, Default)]
struct Stream {
    max_length: usize,
    /// Tokens of the pack that is open.
    n_open: usize,
    is_learned: bool,
    /// Documents that ended in it and are not counted.
    n_new: u64,
    n_packs: u64,
    n_tokens: u64,
    counts: PackedCounts,
}

impl Stream {
    fn push(&mut self, labels: &[i32]) {
        let (mut start, mut is_counted) = (0, false);
        while start < labels.len() {
            let end = labels.len().min(start + self.max_length - self.n_open);
            // The first token of a pack has nothing before it.
            let first = start + usize::from(self.n_open == 0);
            self.is_learned |= labels[first.min(end)..end].iter().any(|label| *label != NOT_SUPERVISED);
            self.n_open += end - start;
            self.counts.n_truncated_documents += u64::from(start == 0 && end < labels.len());
            let ends_here = end == labels.len();
            self.n_new += u64::from(ends_here && !is_counted);
            if self.n_open == self.max_length && self.close() && !ends_here && !is_counted {
                self.counts.n_documents += 1;
                is_counted = true;
            }
            start = end;
        }
    }

    fn finish(mut self) -> Self {
        if self.n_open > 0 {
            self.close();
        }
        self
    }

    /// Whether the pack stays.
    fn close(&mut self) -> bool {
        let (n_tokens, n_new) = (std::mem::take(&mut self.n_open) as u64, std::mem::take(&mut self.n_new));
        if !std::mem::take(&mut self.is_learned) {
            self.counts.n_truncated_tokens += n_tokens;
            self.counts.n_dropped_documents += n_new;
            return false;
        }
        self.n_packs += 1;
        self.n_tokens += n_tokens;
        self.counts.n_documents += n_new;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents of these lengths; the labels of the first `n_prompt` tokens of each are out.
    fn estimates(lengths: &[usize], max_length: u32, n_prompt: usize) -> Vec<Estimate> {
        let mut estimator = Estimator::new(max_length);
        for length in lengths {
            let label = |i: usize| if i < n_prompt { NOT_SUPERVISED } else { 1 };
            estimator.push(&Document { ids: vec![1; *length], labels: (0..*length).map(label).collect() });
        }
        estimator.finish().strategies
    }

    fn of(estimates: &[Estimate], packing: Packing) -> &Estimate {
        estimates.iter().find(|estimate| estimate.packing_strategy == packing).unwrap()
    }

    #[test]
    fn the_example_of_the_documentation() {
        let estimates = estimates(&[1500, 300, 200], 1024, 0);
        let shown: Vec<_> = estimates
            .iter()
            .map(|e| (e.packing_strategy.name(), e.n_packs, e.n_truncated_tokens, e.n_empty_places))
            .collect();
        assert_eq!(
            shown,
            [
                ("none", 3, 476, 1548),
                ("bfd", 2, 476, 524),
                ("bfd_split", 2, 0, 48),
                ("first_fit", 2, 476, 524),
                ("wrapped", 2, 0, 48)
            ]
        );
        assert_eq!(of(&estimates, Packing::None).fill, 1524.0 / 3072.0);
        assert_eq!(of(&estimates, Packing::BfdSplit).n_documents, 4);
    }

    #[test]
    fn what_is_not_learned_is_left_out_and_counted() {
        // 12 tokens of which the first 9 are prompt: cut at 4 nothing is learned, of three pieces only the last.
        let estimates = estimates(&[12, 10], 4, 9);
        let none = of(&estimates, Packing::None);
        assert_eq!((none.n_packs, none.n_dropped_documents, none.n_dropped_tokens), (0, 2, 22));
        let split = of(&estimates, Packing::BfdSplit);
        assert_eq!(
            (split.n_packs, split.n_documents, split.n_dropped_documents, split.n_dropped_tokens),
            (2, 2, 4, 16)
        );
        let wrapped = of(&estimates, Packing::Wrapped);
        assert_eq!((wrapped.n_tokens + wrapped.n_truncated_tokens, wrapped.n_documents), (22, 2));
    }

    #[test]
    fn no_token_goes_uncounted() {
        for max_length in [1, 2, 3, 7, 64] {
            for n_prompt in [0, 1, 5] {
                let lengths: Vec<usize> = (0..200).map(|i| 1 + i * 7919 % 23).collect();
                let n_all = lengths.iter().sum::<usize>() as u64;
                for e in estimates(&lengths, max_length, n_prompt) {
                    assert_eq!(e.n_tokens + e.n_truncated_tokens + e.n_dropped_tokens, n_all, "{max_length} {e:?}");
                    assert_eq!(e.n_empty_places, e.n_packs * u64::from(max_length) - e.n_tokens);
                }
            }
        }
    }
}
