//! What a report shows of examples: how many there are, and the first of them.

use pipe_contract::figures::{Facts, Sample, Samples, Table};
use pipe_contract::{Artifact, Figure, StageError};
use pipe_records::examples::{is_completion_only, is_pretokenized, read_examples, read_pretokenized};
use pipe_records::show::{CELL_LENGTH, cut};
use pipe_records::{Example, thousands};

/// Examples in a report.
const N_SHOWN: usize = 2;
/// Token ids of a pretokenized row in a report.
const N_IDS: usize = 24;

/// Facts, and the first examples: prompt and completion where there are prompts, else the text.
///
/// # Errors
/// When the artifact cannot be read.
pub fn figures(artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
    if is_pretokenized(artifact)? {
        return pretokenized(artifact);
    }
    let reader = read_examples(artifact)?;
    let n_rows = reader.num_rows();
    let mut shown: Vec<Example> = Vec::new();
    for batch in reader {
        shown.extend(batch?);
        if shown.len() >= N_SHOWN {
            break;
        }
    }
    shown.truncate(N_SHOWN);
    let learned = if is_completion_only(artifact)? { "the completions" } else { "all tokens" };
    let facts =
        [("examples", thousands(n_rows)), ("what is learned, where `tokenize` does not say", learned.to_string())];
    let title = "The first examples".to_string();
    let has_prompts = shown.iter().any(|example| !example.prompt.is_empty());
    let first = if has_prompts {
        Figure::Samples(Samples { title, samples: shown.iter().map(sample).collect() })
    } else {
        let rows = shown.iter().map(|example| vec![cut(&example.text, CELL_LENGTH)]).collect();
        Figure::Table(Table { title, columns: vec!["text".to_string()], rows })
    };
    Ok(vec![Figure::Facts(named("Examples", &facts)), first])
}

fn sample(example: &Example) -> Sample {
    let part = |range: &std::ops::Range<u32>| {
        let length = range.end.saturating_sub(range.start) as usize;
        let part: String = example.text.chars().skip(range.start as usize).take(length).collect();
        cut(&part, CELL_LENGTH)
    };
    Sample { prompt: part(&example.prompt), answers: vec![("completion".to_string(), part(&example.completion))] }
}

fn pretokenized(artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
    let mut reader = read_pretokenized(artifact)?;
    let facts = [("pretokenized rows", thousands(reader.num_rows()))];
    let first = reader.next().transpose()?.unwrap_or_default();
    let row = |(index, ids): (usize, &[u32])| {
        let more = if ids.len() > N_IDS { ", \u{2026}" } else { "" };
        let shown: Vec<String> = ids.iter().take(N_IDS).map(u32::to_string).collect();
        vec![index.to_string(), thousands(ids.len() as u64), shown.join(", ") + more]
    };
    let rows = first.iter().take(N_SHOWN).map(|row| row.input_ids.as_slice()).enumerate().map(row).collect();
    let columns = ["row", "tokens", "input_ids"].map(str::to_string).to_vec();
    let table = Table { title: "The first rows".to_string(), columns, rows };
    Ok(vec![Figure::Facts(named("Examples", &facts)), Figure::Table(table)])
}

fn named(title: &str, facts: &[(&str, String)]) -> Facts {
    let facts = facts.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
    Facts { title: title.to_string(), facts }
}
