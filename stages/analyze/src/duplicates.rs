//! Texts that occurred before: to the character, or but for case, punctuation and white space; and texts of another artifact that are here.
//!
//! ```text
//! row 0  "Add 2 and 2."     exact      normalized "add 2 and 2"
//! row 1  "Add 2 and 2."     repeats 0
//! row 2  "add 2, and 2!"               repeats 0
//! ```
//!
//! Rows are compared by 128 bits of BLAKE3, 20 bytes a row in memory: among five million texts the chance of one false match is below 1e-25.
//! It deliberately finds no rewording: that is for `prepare`.

use pipe_records::Example;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How many rows are listed.
const N_LISTED: usize = 10;

/// Rows whose text occurred before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Duplicates {
    /// Rows that repeat an earlier one.
    pub(crate) n_duplicates: u64,
    /// The first few of them.
    pub(crate) first: Vec<Repeat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Repeat {
    /// The row, from 0.
    pub(crate) row: u32,
    /// The first row with the same text; in an [`Overlap`] that of the examples.
    pub(crate) same_as_row: u32,
}

/// Rows of the port `test` that are among the examples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Overlap {
    /// Rows of `test`.
    pub(crate) n_test_rows: u64,
    /// The whole text is there, to the character.
    pub(crate) exact: Duplicates,
    /// Those whose text is there but for case, punctuation and white space.
    pub(crate) normalized: Duplicates,
    /// Those whose prompt alone, normalized, is there, with another completion.
    pub(crate) prompt: Duplicates,
}

type Digest = [u8; 16];

/// What a row is compared by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digests {
    exact: Digest,
    normalized: Digest,
    /// Of the normalized prompt; nothing where it has no letter or digit.
    prompt: Option<Digest>,
}

impl Digests {
    pub(crate) fn of(example: &Example) -> Self {
        let prompt = normalized(example.part(example.prompt.clone()));
        Digests {
            exact: digest(&example.text),
            normalized: digest(&normalized(&example.text)),
            prompt: (!prompt.is_empty()).then(|| digest(&prompt)),
        }
    }
}

fn digest(text: &str) -> Digest {
    let mut digest = [0; 16];
    blake3::Hasher::new().update(text.as_bytes()).finalize_xof().fill(&mut digest);
    digest
}

/// Letters and digits in lower case; whatever lies between them is one space.
fn normalized(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut has_gap = false;
    for c in text.chars() {
        if !c.is_alphanumeric() {
            has_gap = true;
            continue;
        }
        if has_gap && !kept.is_empty() {
            kept.push(' ');
        }
        has_gap = false;
        if c.is_ascii() { kept.push(c.to_ascii_lowercase()) } else { kept.extend(c.to_lowercase()) }
    }
    kept
}

/// Digests of rows, sorted: equal ones stand together, the earliest row first.
struct Index(Vec<(Digest, u32)>);

impl Index {
    fn new(mut rows: Vec<(Digest, u32)>) -> Self {
        rows.par_sort_unstable();
        Index(rows)
    }

    /// The first row with this digest.
    fn first(&self, digest: &Digest) -> Option<u32> {
        let place = self.0.partition_point(|(other, _)| other < digest);
        self.0.get(place).filter(|(other, _)| other == digest).map(|(_, row)| *row)
    }

    /// Every row that has an earlier one, in order.
    fn repeats(&self) -> Vec<Repeat> {
        let mut repeats: Vec<Repeat> = Vec::new();
        for same in self.0.chunk_by(|a, b| a.0 == b.0) {
            repeats.extend(same[1..].iter().map(|(_, row)| Repeat { row: *row, same_as_row: same[0].1 }));
        }
        repeats.par_sort_unstable_by_key(|repeat| repeat.row);
        repeats
    }
}

/// Takes the rows one by one.
#[derive(Default)]
pub(crate) struct DuplicateFinder {
    exact: Vec<(Digest, u32)>,
    normalized: Vec<(Digest, u32)>,
    /// Filled where test rows are to come.
    prompts: Option<Vec<(Digest, u32)>>,
}

impl DuplicateFinder {
    /// `with_test`: rows of the port `test` will be compared.
    pub(crate) fn new(with_test: bool) -> Self {
        DuplicateFinder { prompts: with_test.then(Vec::new), ..DuplicateFinder::default() }
    }

    /// The next row; rows in order.
    pub(crate) fn push(&mut self, row: u32, digests: &Digests) {
        self.exact.push((digests.exact, row));
        self.normalized.push((digests.normalized, row));
        if let (Some(prompts), Some(prompt)) = (&mut self.prompts, digests.prompt) {
            prompts.push((prompt, row));
        }
    }

    /// What was found, ready to compare other rows.
    pub(crate) fn finish(self) -> Known {
        let (exact, normalized) = (Index::new(self.exact), Index::new(self.normalized));
        let repeats = exact.repeats();
        let is_exact = |repeat: &Repeat| repeats.binary_search_by_key(&repeat.row, |other| other.row).is_ok();
        let mut near = normalized.repeats();
        near.retain(|repeat| !is_exact(repeat));
        let prompts = self.prompts.map_or_else(|| Index(Vec::new()), Index::new);
        Known { duplicates: listed(&repeats), near_duplicates: listed(&near), exact, normalized, prompts }
    }
}

fn listed(repeats: &[Repeat]) -> Duplicates {
    Duplicates { n_duplicates: repeats.len() as u64, first: repeats.iter().copied().take(N_LISTED).collect() }
}

/// All examples.
pub(crate) struct Known {
    /// To the character.
    pub(crate) duplicates: Duplicates,
    /// But for case, punctuation and white space, those of `duplicates` not among them.
    pub(crate) near_duplicates: Duplicates,
    exact: Index,
    normalized: Index,
    prompts: Index,
}

impl Known {
    /// Counts a row of `test` where it is here: as one thing only, the closest.
    pub(crate) fn compare(&self, row: u32, digests: &Digests, overlap: &mut Overlap) {
        overlap.n_test_rows += 1;
        let prompt = || digests.prompt.and_then(|digest| self.prompts.first(&digest));
        let (found, same_as_row) = if let Some(same) = self.exact.first(&digests.exact) {
            (&mut overlap.exact, same)
        } else if let Some(same) = self.normalized.first(&digests.normalized) {
            (&mut overlap.normalized, same)
        } else if let Some(same) = prompt() {
            (&mut overlap.prompt, same)
        } else {
            return;
        };
        found.n_duplicates += 1;
        if found.first.len() < N_LISTED {
            found.first.push(Repeat { row, same_as_row });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(prompt: &str, completion: &str) -> Digests {
        let (n_prompt, n_completion) = (prompt.chars().count() as u32, completion.chars().count() as u32);
        let text = format!("{prompt}{completion}");
        let (prompt, completion) = (0..n_prompt, n_prompt..n_prompt + n_completion);
        Digests::of(&Example { text, prompt, completion, ..Example::default() })
    }

    fn known<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Known {
        let mut finder = DuplicateFinder::new(true);
        for (row, (prompt, completion)) in (0..).zip(texts) {
            finder.push(row, &digests(prompt, completion));
        }
        finder.finish()
    }

    fn repeats<const N: usize>(rows: [(u32, u32); N]) -> Duplicates {
        listed(&rows.map(|(row, same_as_row)| Repeat { row, same_as_row }))
    }

    #[test]
    fn each_repeat_counts_and_names_the_first() {
        let known = known(["a", "b", "a", "c", "a a", "b", "a"].map(|text| ("", text)));
        assert_eq!(known.duplicates, repeats([(2, 0), (5, 1), (6, 0)]));
        assert_eq!(known.near_duplicates, repeats([]));
    }

    #[test]
    fn case_punctuation_and_white_space_make_near_duplicates() {
        assert_eq!(normalized("  Ünï-code: 你好\n\t(2) "), "ünï code 你好 2");
        assert_eq!(normalized("...\n"), "");
        let known = known(["Add 2 and 2.", "add 2, and 2!", "Add 2 and 2.", "Add 22"].map(|text| ("", text)));
        assert_eq!((known.duplicates, known.near_duplicates), (repeats([(2, 0)]), repeats([(1, 0)])));
    }

    #[test]
    fn a_test_row_counts_once_as_the_closest() {
        let known = known([("What is 2+2?", " 4"), ("Who?", " Me"), ("Who?", " Me")]);
        let mut overlap = Overlap::default();
        let test = [("Who?", " Me"), ("what is 2 + 2", " 4."), ("Who?", " You"), ("Why?", " So"), ("?", " x")];
        for (row, (prompt, completion)) in (0..).zip(test) {
            known.compare(row, &digests(prompt, completion), &mut overlap);
        }
        let expected = Overlap {
            n_test_rows: 5,
            exact: repeats([(0, 1)]),
            normalized: repeats([(1, 0)]),
            prompt: repeats([(2, 1)]),
        };
        assert_eq!(overlap, expected);
    }
}
