//! The examples that training did not see: what scores and samples are made of.
//!
//! ```text
//! examples   a b c d e f      training   b x e
//! unseen     a c d f          left out   2         with `n_max` = 3: a c d
//! ```
//!
//! Two texts are the same if all their characters are. It deliberately finds no near-duplicates.

use std::collections::HashSet;

use pipe_contract::Artifact;

use crate::examples::read_examples;
use crate::{Example, RecordsError};

/// What of an example must not be in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The whole text.
    Text,
    /// The text before the completion, whatever follows it.
    Prompt,
}

impl Compared {
    fn digest(self, example: &Example) -> blake3::Hash {
        let text = match self {
            Compared::Text => &example.text,
            Compared::Prompt => example.part(0..example.completion.start),
        };
        blake3::hash(text.as_bytes())
    }
}

/// The first examples that are not in training.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Row (counted from 0) and example, in the order of the file.
    pub examples: Vec<(u64, Example)>,
    /// How many of all rows are in training.
    pub n_left_out: u64,
    /// All rows.
    pub n_rows: u64,
}

/// The first `n_max` examples (all, where it is absent) that `training` does not have. Memory: those, and 32 bytes per
/// example of `training`.
///
/// # Errors
/// When an artifact is missing its file, unreadable or pretokenized (`MissingColumn`).
pub fn unseen(
    examples: &Artifact,
    training: Option<&Artifact>,
    compared: Compared,
    n_max: Option<u64>,
) -> Result<Unseen, RecordsError> {
    let mut seen = HashSet::new();
    for batch in training.map(read_examples).transpose()?.into_iter().flatten() {
        seen.extend(batch?.iter().map(|example| compared.digest(example)));
    }
    let mut unseen = Unseen::default();
    for batch in read_examples(examples)? {
        for example in batch? {
            if seen.contains(&compared.digest(&example)) {
                unseen.n_left_out += 1;
            } else if n_max.is_none_or(|n_max| (unseen.examples.len() as u64) < n_max) {
                unseen.examples.push((unseen.n_rows, example));
            }
            unseen.n_rows += 1;
        }
    }
    Ok(unseen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExamplesWriter;
    use pipe_contract::ArtifactKind;

    /// Prompt and completion of each example.
    fn examples(rows: &[(&str, &str)]) -> (tempfile::TempDir, Artifact) {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ExamplesWriter::create(folder.path()).unwrap();
        for (prompt, completion) in rows {
            let (prompt_end, end) =
                (prompt.chars().count() as u32, (prompt.chars().count() + completion.chars().count()) as u32);
            let text = format!("{prompt}{completion}");
            writer
                .write(&Example { text, prompt: 0..prompt_end, completion: prompt_end..end, ..Example::default() })
                .unwrap();
        }
        writer.finish().unwrap();
        let artifact = Artifact::from_folder(ArtifactKind::Examples, folder.path()).unwrap();
        (folder, artifact)
    }

    fn rows(found: &Unseen) -> Vec<u64> {
        found.examples.iter().map(|(row, _)| *row).collect()
    }

    #[test]
    fn what_training_saw_is_left_out_and_counted() {
        let (_a, all) = examples(&[("é 1", "a"), ("2", "b"), ("3", "c"), ("4", "d")]);
        let (_b, training) = examples(&[("2", "b"), ("é 1", "x"), ("9", "c")]);
        let by_text = unseen(&all, Some(&training), Compared::Text, None).unwrap();
        assert_eq!((rows(&by_text), by_text.n_left_out, by_text.n_rows), (vec![0, 2, 3], 1, 4));
        let by_prompt = unseen(&all, Some(&training), Compared::Prompt, None).unwrap();
        assert_eq!((rows(&by_prompt), by_prompt.n_left_out), (vec![2, 3], 2));
        let first = unseen(&all, Some(&training), Compared::Text, Some(2)).unwrap();
        assert_eq!((rows(&first), first.n_left_out), (vec![0, 2], 1));
        let itself = unseen(&all, Some(&all), Compared::Text, None).unwrap();
        assert_eq!((itself.examples.len(), itself.n_left_out), (0, 4));
        assert_eq!(rows(&unseen(&all, None, Compared::Text, Some(9)).unwrap()), [0, 1, 2, 3]);
    }

    #[test]
    fn a_part_of_a_text_is_counted_in_characters() {
        let example = Example { text: "é漢b".into(), prompt: 0..1, completion: 1..3, ..Example::default() };
        assert_eq!((example.part(0..1), example.part(1..3), example.part(3..3)), ("é", "漢b", ""));
    }
}
