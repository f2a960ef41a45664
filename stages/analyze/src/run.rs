//! The stage: one pass over the examples, then the files.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use pipe_contract::{
    Artifact, ArtifactKind, Context, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind, Unit,
};
use pipe_records::examples::{is_pretokenized, read_examples};
use pipe_records::files::FORMAT_VERSION_KEY;
use pipe_records::{Example, RecordsError, parquet_writer, thousands};
use pipe_tokenizer::ModelTokenizer;
use rayon::prelude::*;

use crate::AnalyzeError;
use crate::chart::{PICTURE, PNG_FILE, SVG_FILE, default_title, histogram};
use crate::duplicates::{DuplicateFinder, Duplicates};
use crate::histogram::Histogram;
use crate::settings::{LengthUnit, Settings};
use crate::statistics::Statistics;
use crate::summary::{FORMAT_VERSION, SUMMARY_FILE, Summary};

/// A row per example.
const LENGTHS_FILE: &str = "lengths.parquet";

/// The kind, for the runner's registry.
pub static KIND: AnalyzeKind = AnalyzeKind;

/// `uses: analyze`.
pub struct AnalyzeKind;

impl StageKind for AnalyzeKind {
    fn name(&self) -> &'static str {
        "analyze"
    }

    fn summary(&self) -> &'static str {
        "examples -> lengths in characters and tokens, a histogram, duplicates"
    }

    fn version(&self) -> u32 {
        2 // 1: the first; 2: the histogram is drawn by `pipe-plot`.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[
            InputPort { name: "examples", kind: ArtifactKind::Examples, is_required: true },
            InputPort { name: "model", kind: ArtifactKind::Model, is_required: false },
        ]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[OutputPort { name: "lengths", kind: ArtifactKind::Lengths }]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(Analyze { settings: Settings::read(reader) })
    }

    fn show(&self, _port: &str, artifact: &Artifact, _n_rows: usize) -> Result<String, StageError> {
        let summary = Summary::read(artifact)?;
        let mut lines = summary.table();
        lines.push(String::new());
        lines.push(summary.duplicates_line());
        for name in [PNG_FILE, SVG_FILE] {
            lines.push(format!("{name:<14} {}", artifact.file(name)?.display()));
        }
        Ok(lines.join("\n") + "\n")
    }

    fn figures(&self, _port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        let summary = Summary::read(artifact)?;
        let title = default_title(&summary);
        Ok(vec![
            Figure::Chart(histogram(&summary, &title)),
            Figure::Table(summary.statistics()),
            Figure::Facts(summary.repeats()),
        ])
    }
}

struct Analyze {
    settings: Settings,
}

impl Stage for Analyze {
    fn outputs(&self) -> Vec<OutputPort> {
        KIND.outputs().to_vec()
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let tokenizer = ctx.inputs.get("model").map(ModelTokenizer::load).transpose()?;
        if tokenizer.is_none() && self.settings.unit == LengthUnit::Tokens {
            return Err(AnalyzeError::TokensWithoutModel.into());
        }
        if is_pretokenized(ctx.input("examples")?)? {
            return Err(AnalyzeError::Pretokenized.into());
        }
        let (lengths, duplicates) = measure(ctx, tokenizer.as_ref())?;
        let summary = self.summarize(&lengths, duplicates)?;

        let folder = ctx.output_dir("lengths")?;
        write_lengths(&folder.join(LENGTHS_FILE), &lengths)?;
        let path = folder.join(SUMMARY_FILE);
        std::fs::write(&path, summary.to_json()).map_err(|e| StageError::io("write", &path, e))?;
        let title = self.settings.title.clone().unwrap_or_else(|| default_title(&summary));
        pipe_plot::draw_files(&folder, PICTURE, &histogram(&summary, &title)).map_err(AnalyzeError::Chart)?;
        report(ctx, &summary);
        Ok(())
    }
}

/// Per row, in order.
#[derive(Default)]
struct Lengths {
    characters: Vec<u32>,
    /// Where there is a model.
    tokens: Option<Vec<u32>>,
}

impl Analyze {
    fn summarize(&self, lengths: &Lengths, duplicates: Duplicates) -> Result<Summary, AnalyzeError> {
        let Settings { threshold, unit, bins, .. } = self.settings;
        let of_unit = match (unit, &lengths.tokens) {
            (LengthUnit::Tokens, Some(tokens)) => tokens,
            _ => &lengths.characters,
        };
        Ok(Summary {
            format_version: FORMAT_VERSION,
            n_rows: lengths.characters.len() as u64,
            threshold,
            unit: unit.name().to_string(),
            characters: Statistics::of(&lengths.characters, threshold).ok_or(AnalyzeError::NoRows)?,
            tokens: lengths.tokens.as_ref().and_then(|tokens| Statistics::of(tokens, threshold)),
            duplicates,
            histogram: Histogram::of(of_unit, bins).ok_or(AnalyzeError::NoRows)?,
        })
    }
}

/// One example, measured.
struct Measured {
    n_characters: u32,
    n_tokens: Option<u32>,
    digest: blake3::Hash,
}

/// Tokens are counted as the tokenizer gives them: with what it adds in front, without the end that `tokenize` appends.
fn measure(ctx: &Context<'_>, tokenizer: Option<&ModelTokenizer>) -> Result<(Lengths, Duplicates), StageError> {
    let mut lengths = Lengths { characters: Vec::new(), tokens: tokenizer.map(|_| Vec::new()) };
    let mut finder = DuplicateFinder::default();
    let reader = read_examples(ctx.input("examples")?)?;
    let n_rows = reader.num_rows();
    for batch in reader {
        ctx.check_cancelled()?;
        let measured: Vec<Result<Measured, _>> = batch?.par_iter().map(|row| measure_row(row, tokenizer)).collect();
        for row in measured {
            let row_idx = u32::try_from(lengths.characters.len()).map_err(|_| AnalyzeError::TooManyRows)?;
            let row = row.map_err(|source| AnalyzeError::Row { row: row_idx.into(), source })?;
            lengths.characters.push(row.n_characters);
            if let (Some(tokens), Some(n_tokens)) = (&mut lengths.tokens, row.n_tokens) {
                tokens.push(n_tokens);
            }
            finder.push(row_idx, row.digest);
        }
        ctx.progress(lengths.characters.len() as u64, n_rows, Unit::Rows);
    }
    Ok((lengths, finder.finish()))
}

fn measure_row(row: &Example, tokenizer: Option<&ModelTokenizer>) -> Result<Measured, pipe_tokenizer::TokenizerError> {
    let n_characters = row.text.chars().count() as u32;
    let n_tokens = tokenizer.map(|t| t.encode(&row.text)).transpose()?.map(|encoded| encoded.ids.len() as u32);
    Ok(Measured { n_characters, n_tokens, digest: blake3::hash(row.text.as_bytes()) })
}

fn write_lengths(path: &Path, lengths: &Lengths) -> Result<(), RecordsError> {
    let column = |name: &str| Field::new(name, DataType::UInt32, false);
    let mut fields = vec![column("row"), column("characters")];
    let n_rows = lengths.characters.len() as u32;
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(0..n_rows)),
        Arc::new(UInt32Array::from(lengths.characters.clone())),
    ];
    if let Some(tokens) = &lengths.tokens {
        fields.push(column("tokens"));
        columns.push(Arc::new(UInt32Array::from(tokens.clone())));
    }
    let metadata = HashMap::from([(FORMAT_VERSION_KEY.to_string(), FORMAT_VERSION.to_string())]);
    let schema = Arc::new(Schema::new(fields).with_metadata(metadata));
    let mut writer = parquet_writer(path, schema.clone())?;
    writer.write(&RecordBatch::try_new(schema, columns)?)?;
    writer.finish()?;
    Ok(())
}

fn report(ctx: &Context<'_>, summary: &Summary) {
    for line in summary.table() {
        ctx.log(line);
    }
    ctx.log(summary.duplicates_line());
    let statistics = summary.of_unit();
    ctx.fact("rows", thousands(summary.n_rows));
    ctx.fact(format!("median {}", summary.unit), thousands(statistics.median() as u64));
    let share = statistics.share_above_threshold * 100.0;
    ctx.fact(format!("above {}", thousands(summary.threshold.into())), format!("{share:.1} %"));
    ctx.fact("duplicates", thousands(summary.duplicates.n_duplicates));
}
