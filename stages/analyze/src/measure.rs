//! One pass over the examples: what each row is, measured on all threads and taken in order.

use pipe_contract::{Artifact, Context, StageError, Unit};
use pipe_records::Example;
use pipe_records::examples::{is_completion_only, read_examples};
use pipe_tokenizer::{Document, ModelTokenizer, Rules, Supervised, TokenizerError};
use rayon::prelude::*;

use crate::AnalyzeError;
use crate::duplicates::{Digests, DuplicateFinder, Known, Overlap};
use crate::oddities::{Listed, Oddity, OddityFinder, Values};
use crate::packing::{Estimates, Estimator};
use crate::settings::Settings;

/// What the pass found.
pub(crate) struct Measured {
    /// Per row.
    pub(crate) characters: Vec<u32>,
    /// Per row, where there is a model.
    pub(crate) tokens: Option<Vec<u32>>,
    /// Where there is a model.
    pub(crate) packing: Option<Estimates>,
    pub(crate) longest: Vec<Listed>,
    pub(crate) oddities: Vec<Oddity>,
    pub(crate) known: Known,
}

/// One example, measured.
struct Row {
    n_characters: u32,
    /// Where there is a model: its tokens, and what `tokenize` makes of it.
    tokens: Option<(u32, Document)>,
    digests: Digests,
    values: Values,
}

/// Tokens are counted as the tokenizer gives them: with what it adds in front, without the end that `tokenize` appends. Documents, for
/// packing, have that end.
pub(crate) fn measure(
    ctx: &Context<'_>,
    tokenizer: Option<&ModelTokenizer>,
    settings: &Settings,
) -> Result<Measured, StageError> {
    let examples = ctx.input("examples")?;
    let supervised = if is_completion_only(examples)? { Supervised::Completion } else { Supervised::Everything };
    let encoder = tokenizer.map(|tokenizer| {
        let eos_id = tokenizer.eos_id();
        (tokenizer, Rules { eos_id, append_eos: eos_id.is_some(), supervised })
    });
    let (mut characters, mut tokens) = (Vec::new(), tokenizer.map(|_| Vec::new()));
    let mut estimator = tokenizer.map(|_| Estimator::new(settings.max_length));
    let mut duplicates = DuplicateFinder::new(ctx.inputs.contains_key("test"));
    let mut oddities = OddityFinder::new();
    let reader = read_examples(examples)?;
    let n_rows = reader.num_rows();
    for batch in reader {
        ctx.check_cancelled()?;
        let batch = batch?;
        let measured: Vec<Result<Row, _>> = batch.par_iter().map(|example| measure_row(example, encoder)).collect();
        for (example, row) in batch.iter().zip(measured) {
            let row_idx = u32::try_from(characters.len()).map_err(|_| AnalyzeError::TooManyRows)?;
            let row = row.map_err(|source| AnalyzeError::Row { row: row_idx.into(), source })?;
            characters.push(row.n_characters);
            let mut length = row.n_characters;
            if let (Some(tokens), Some(estimator), Some((n_tokens, document))) =
                (&mut tokens, &mut estimator, row.tokens)
            {
                length = n_tokens;
                tokens.push(n_tokens);
                estimator.push(&document);
            }
            duplicates.push(row_idx, &row.digests);
            oddities.push(row_idx, &example.text, length, &row.values);
        }
        ctx.progress(characters.len() as u64, n_rows, Unit::Rows);
    }
    let (longest, oddities) = oddities.finish();
    let packing = estimator.map(Estimator::finish);
    Ok(Measured { characters, tokens, packing, longest, oddities, known: duplicates.finish() })
}

fn measure_row(example: &Example, encoder: Option<(&ModelTokenizer, Rules)>) -> Result<Row, TokenizerError> {
    let n_characters = example.text.chars().count() as u32;
    let tokens = match encoder {
        None => None,
        Some((tokenizer, rules)) => {
            let encoded = tokenizer.encode_example(example)?;
            let n_tokens = encoded.ids.len() as u32;
            Some((n_tokens, Document::new(encoded, example, rules).0))
        }
    };
    let values = Values::of(example, n_characters, tokens.as_ref().map(|(n_tokens, _)| *n_tokens));
    Ok(Row { n_characters, tokens, digests: Digests::of(example), values })
}

/// What of `test` is among the examples; memory is a batch.
pub(crate) fn compare(ctx: &Context<'_>, test: &Artifact, known: &Known) -> Result<Overlap, StageError> {
    let mut overlap = Overlap::default();
    let reader = read_examples(test)?;
    let n_rows = reader.num_rows();
    for batch in reader {
        ctx.check_cancelled()?;
        let digests: Vec<Digests> = batch?.par_iter().map(Digests::of).collect();
        for digests in digests {
            let row = u32::try_from(overlap.n_test_rows).map_err(|_| AnalyzeError::TooManyRows)?;
            known.compare(row, &digests, &mut overlap);
        }
        ctx.progress(overlap.n_test_rows, n_rows, Unit::Rows);
    }
    Ok(overlap)
}
