//! The stage: one pass over the examples, one over `test` where there is one, then the files.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use pipe_contract::{
    Artifact, ArtifactKind, Context, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind,
};
use pipe_records::examples::is_pretokenized;
use pipe_records::files::FORMAT_VERSION_KEY;
use pipe_records::{RecordsError, parquet_writer, thousands};
use pipe_tokenizer::ModelTokenizer;

use crate::AnalyzeError;
use crate::chart::{PICTURE, PNG_FILE, SVG_FILE, default_title, histogram};
use crate::duplicates::Overlap;
use crate::histogram::Histogram;
use crate::measure::{Measured, compare, measure};
use crate::settings::{LengthUnit, Settings};
use crate::statistics::Statistics;
use crate::summary::{FORMAT_VERSION, SUMMARY_FILE, Summary};

/// A row per example.
const LENGTHS_FILE: &str = "lengths.parquet";
/// Version of its columns.
const LENGTHS_FORMAT_VERSION: u32 = 1;

/// The kind, for the runner's registry.
pub static KIND: AnalyzeKind = AnalyzeKind;

/// `uses: analyze`.
pub struct AnalyzeKind;

impl StageKind for AnalyzeKind {
    fn name(&self) -> &'static str {
        "analyze"
    }

    fn summary(&self) -> &'static str {
        "examples -> lengths, a histogram, duplicates, what packing would waste, rows to look at"
    }

    fn version(&self) -> u32 {
        3 // 2: the histogram is drawn by `pipe-plot`; 3: packing, long and odd rows, near duplicates, overlap.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[
            InputPort { name: "examples", kind: ArtifactKind::Examples, is_required: true },
            InputPort { name: "model", kind: ArtifactKind::Model, is_required: false },
            InputPort { name: "test", kind: ArtifactKind::Examples, is_required: false },
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
        let mut lines = summary.lines();
        lines.push(String::new());
        for name in [PNG_FILE, SVG_FILE] {
            lines.push(format!("{name:<14} {}", artifact.file(name)?.display()));
        }
        Ok(lines.join("\n") + "\n")
    }

    fn figures(&self, _port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        let summary = Summary::read(artifact)?;
        let title = default_title(&summary);
        let mut figures = vec![Figure::Chart(histogram(&summary, &title)), Figure::Table(summary.statistics())];
        figures.extend(summary.packing_table().map(Figure::Table));
        figures.push(Figure::Facts(summary.repeats()));
        figures.extend(summary.overlap_facts().map(Figure::Facts));
        figures.push(Figure::Table(summary.longest_table()));
        figures.extend(summary.oddity_table().map(Figure::Table));
        Ok(figures)
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
        if ctx.inputs.get("test").map(is_pretokenized).transpose()? == Some(true) {
            return Err(AnalyzeError::PretokenizedTest.into());
        }
        let measured = measure(ctx, tokenizer.as_ref(), &self.settings)?;
        let overlap = ctx.inputs.get("test").map(|test| compare(ctx, test, &measured.known)).transpose()?;
        let summary = self.summarize(&measured, overlap)?;

        let folder = ctx.output_dir("lengths")?;
        write_lengths(&folder.join(LENGTHS_FILE), &measured)?;
        let path = folder.join(SUMMARY_FILE);
        std::fs::write(&path, summary.to_json()).map_err(|e| StageError::io("write", &path, e))?;
        let title = self.settings.title.clone().unwrap_or_else(|| default_title(&summary));
        pipe_plot::draw_files(&folder, PICTURE, &histogram(&summary, &title)).map_err(AnalyzeError::Chart)?;
        report(ctx, &summary);
        Ok(())
    }
}

impl Analyze {
    fn summarize(&self, measured: &Measured, overlap: Option<Overlap>) -> Result<Summary, AnalyzeError> {
        let Settings { threshold, unit, bins, .. } = self.settings;
        let of_unit = match (unit, &measured.tokens) {
            (LengthUnit::Tokens, Some(tokens)) => tokens,
            _ => &measured.characters,
        };
        Ok(Summary {
            format_version: FORMAT_VERSION,
            n_rows: measured.characters.len() as u64,
            threshold,
            unit: unit.name().to_string(),
            characters: Statistics::of(&measured.characters, threshold).ok_or(AnalyzeError::NoRows)?,
            tokens: measured.tokens.as_ref().and_then(|tokens| Statistics::of(tokens, threshold)),
            packing: measured.packing.clone(),
            longest: measured.longest.clone(),
            oddities: measured.oddities.clone(),
            duplicates: measured.known.duplicates.clone(),
            near_duplicates: measured.known.near_duplicates.clone(),
            overlap,
            histogram: Histogram::of(of_unit, bins).ok_or(AnalyzeError::NoRows)?,
        })
    }
}

fn write_lengths(path: &Path, lengths: &Measured) -> Result<(), RecordsError> {
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
    let metadata = HashMap::from([(FORMAT_VERSION_KEY.to_string(), LENGTHS_FORMAT_VERSION.to_string())]);
    let schema = Arc::new(Schema::new(fields).with_metadata(metadata));
    let mut writer = parquet_writer(path, schema.clone())?;
    writer.write(&RecordBatch::try_new(schema, columns)?)?;
    writer.finish()?;
    Ok(())
}

fn report(ctx: &Context<'_>, summary: &Summary) {
    for line in summary.lines() {
        ctx.log(line);
    }
    let statistics = summary.of_unit();
    ctx.fact("rows", thousands(summary.n_rows));
    ctx.fact(format!("median {}", summary.unit), thousands(statistics.median() as u64));
    let share = statistics.share_above_threshold * 100.0;
    ctx.fact(format!("above {}", thousands(summary.threshold.into())), format!("{share:.1} %"));
    ctx.fact("duplicates", thousands(summary.duplicates.n_duplicates));
    ctx.fact("near duplicates", thousands(summary.near_duplicates.n_duplicates));
    if let Some(overlap) = &summary.overlap {
        let n_same = overlap.exact.n_duplicates + overlap.normalized.n_duplicates;
        ctx.fact("test rows in the examples", thousands(n_same));
        if n_same > 0 {
            let n_rows = thousands(overlap.n_test_rows);
            ctx.warn(format!("{} of the {n_rows} test rows are among the examples", thousands(n_same)));
        }
    }
}
