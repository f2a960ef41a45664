//! Running `format`: record batches in parallel, a few at a time, written in their order.

use std::fmt::Write as _;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema};
use pipe_contract::{
    Artifact, ArtifactKind, Context, OutputPort, Problem, ProblemKind, Source, Stage, StageError, Unit,
};
use pipe_records::examples::{form, is_pretokenized, pretokenized_writer, read_examples, read_pretokenized};
use pipe_records::show::{SHOW_WIDTH, masked, type_name, wrap};
use pipe_records::{Example, ExamplesForm, ExamplesWriter, RecordsError, RowReader, open_rows};
use rayon::prelude::*;

use crate::error::FormatError;
use crate::pretokenized;
use crate::settings::{ColumnNames, OwnTemplate, Settings};
use crate::template::Template;
use crate::templated::{FormattedRow, Formatter};

/// The stage with its settings.
pub struct Format {
    /// As read.
    pub settings: Settings,
}

impl Stage for Format {
    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort { name: "examples", kind: ArtifactKind::Examples }]
    }

    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        let (template, has_model) = (self.settings.template, connected.contains(&"model"));
        let problem = |message: String, help: &str| Problem {
            path: vec!["template".to_string()],
            at_key: false,
            kind: ProblemKind::Unsupported,
            message,
            help: Some(help.to_string()),
        };
        match template {
            Template::Chat if !has_model => vec![problem(
                "template `chat` needs the port `model`, whose template and special tokens it takes".to_string(),
                "connect it: `inputs: { rows: ..., model: ... }`",
            )],
            Template::Chat | Template::Jinja => Vec::new(),
            _ if has_model => vec![problem(
                format!("template `{}` has no use for the port `model`", template.name()),
                "leave it out; `chat` and `jinja` take it",
            )],
            _ => Vec::new(),
        }
    }

    fn source(&self, base_dir: &Path) -> Result<Source, StageError> {
        let Some(OwnTemplate::File(name)) = &self.settings.templated.own else { return Ok(Source::Computed) };
        let path = base_dir.join(name);
        if let Err(error) = std::fs::metadata(&path) {
            return Err(FormatError::TemplateFile { path: name.clone(), source: error }.into());
        }
        Ok(Source::Files { root: base_dir.to_path_buf(), names: vec![name.clone()] })
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let rows = open_rows(ctx.input("rows")?)?;
        if rows.num_rows() == 0 {
            return Err(FormatError::NoRows.into());
        }
        match self.settings.template {
            Template::Pretokenized => pass_on_tokens(rows, ctx),
            Template::Chat | Template::Jinja => self.write_templated(rows, ctx),
            template => write_texts(rows, template, &self.settings.columns, ctx),
        }
    }
}

impl Format {
    fn write_templated(&self, rows: RowReader, ctx: &Context<'_>) -> Result<(), StageError> {
        let formatter = Formatter::new(&self.settings, &rows.schema(), ctx.inputs.get("model"), &ctx.base_dir)?;
        let mut writer = ExamplesWriter::create_with(&ctx.output_dir("examples")?, formatter.form())?;
        let (mut n_empty, mut n_turns, mut n_changed, mut first_changed) = (0, 0, 0, None);
        let n_rows = rows.num_rows();
        let format = |first_row: u64, batch: &RecordBatch| {
            let row = |index: usize| formatter.format(batch, index, first_row + index as u64);
            (0..batch.num_rows()).map(row).collect::<Result<Vec<FormattedRow>, FormatError>>()
        };
        let mut row = 0_u64;
        for_batches_in_order(rows, n_rows, ctx, format, |formatted: Vec<FormattedRow>| {
            for FormattedRow { example, n_changed_turns } in formatted {
                n_empty += u64::from(example.completion.is_empty());
                n_turns += example.marks.assistant.len() as u64;
                n_changed += n_changed_turns;
                first_changed = first_changed.or((n_changed_turns > 0).then_some(row));
                row += 1;
                writer.write(&example)?;
            }
            Ok(())
        })?;
        ctx.fact("rows", writer.finish()?.to_string());
        if formatter.form().has_turns {
            ctx.fact("turns of the assistant", n_turns.to_string());
        }
        if n_empty > 0 {
            ctx.fact("empty completions", n_empty.to_string());
            ctx.warn(format!("{n_empty} of {n_rows} rows have no answer at their end: they are prompts only"));
        }
        if let Some(row) = first_changed {
            ctx.fact("turns changed", n_changed.to_string());
            ctx.warn(format!(
                "the template leaves something out of {n_changed} answers, such as their thinking: they are not learned as turns of the \
                 assistant; the first is in row {row}"
            ));
        }
        Ok(())
    }
}

/// The first `n_rows` examples for `pipe show`: spans, then the text wrapped at 50 columns, with what the assistant
/// says in brackets, or the completion where only that is learned; none where all is.
///
/// # Errors
/// When the artifact cannot be read.
pub fn show(artifact: &Artifact, n_rows: usize) -> Result<String, FormatError> {
    let mut text = String::new();
    if is_pretokenized(artifact)? {
        let rows = read_pretokenized(artifact)?.flat_map(split_rows).take(n_rows);
        for (index, row) in rows.enumerate() {
            let row = row?;
            writeln!(text, "row {index}: {} tokens", row.input_ids.len()).expect("writing to a String cannot fail");
            indent(&mut text, &format!("{:?}", row.input_ids));
        }
        return Ok(text);
    }
    let form = form(artifact)?;
    for (index, example) in read_examples(artifact)?.flat_map(split_rows).take(n_rows).enumerate() {
        let Example { text: of_row, prompt, completion, marks } = example?;
        let spans =
            format!("prompt {}..{}, completion {}..{}", prompt.start, prompt.end, completion.start, completion.end);
        write!(text, "row {index}: {spans}").expect("writing to a String cannot fail");
        if form.has_turns {
            write!(text, ", turns {}", marks.assistant.len()).expect("as above");
        }
        text.push('\n');
        let learned = match (form.has_turns, form.is_completion_only) {
            (true, _) => marks.assistant,
            (false, true) => vec![completion],
            (false, false) => Vec::new(),
        };
        indent(&mut text, &masked(&of_row, &learned));
    }
    Ok(text)
}

fn indent(text: &mut String, paragraph: &str) {
    for line in wrap(paragraph, SHOW_WIDTH) {
        writeln!(text, "  {line}").expect("writing to a String cannot fail");
    }
    text.push('\n');
}

fn split_rows<T>(batch: Result<Vec<T>, RecordsError>) -> Vec<Result<T, RecordsError>> {
    match batch {
        Ok(rows) => rows.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }
}

/// What a batch became.
struct Formatted {
    examples: Vec<Example>,
    n_empty: u64,
    n_replaced: u64,
    first_replaced: Option<u64>,
}

fn write_texts(rows: RowReader, template: Template, names: &ColumnNames, ctx: &Context<'_>) -> Result<(), StageError> {
    let schema = rows.schema();
    let columns = text_columns(&schema, template, names)?;
    // A column that the template makes may be there already; one that is not text cannot be compared.
    let old_text = schema
        .field_with_name(&names.text)
        .ok()
        .filter(|field| template.replaces_text() && *field.data_type() == DataType::Utf8)
        .map(|field| field.name().as_str());
    let folder = ctx.output_dir("examples")?;
    let mut writer = match template {
        Template::PromptCompletion => {
            ExamplesWriter::create_with(&folder, ExamplesForm { is_completion_only: true, ..ExamplesForm::default() })?
        }
        _ => ExamplesWriter::create(&folder)?,
    };
    let (mut n_empty, mut n_replaced, mut first_replaced) = (0, 0, None);
    let n_rows = rows.num_rows();
    let format = |first_row: u64, batch: &RecordBatch| format_batch(batch, template, &columns, old_text, first_row);
    for_batches_in_order(rows, n_rows, ctx, format, |formatted: Formatted| {
        n_empty += formatted.n_empty;
        n_replaced += formatted.n_replaced;
        first_replaced = first_replaced.or(formatted.first_replaced);
        formatted.examples.iter().try_for_each(|example| writer.write(example))
    })?;
    let n_rows = writer.finish()?;
    ctx.fact("rows", n_rows.to_string());
    if n_empty > 0 {
        ctx.fact("empty completions", n_empty.to_string());
        ctx.warn(format!("{n_empty} of {n_rows} rows have an empty completion"));
    }
    if let Some(name) = old_text {
        ctx.fact("texts replaced", n_replaced.to_string());
        match first_replaced {
            None => ctx.log(format!("column `{name}` equals the template in all {n_rows} rows")),
            Some(row) => {
                ctx.log(format!(
                    "column `{name}` was replaced: {n_replaced} of {n_rows} rows differ, the first is row {row}"
                ));
            }
        }
    }
    Ok(())
}

fn pass_on_tokens(rows: RowReader, ctx: &Context<'_>) -> Result<(), StageError> {
    let with_columns = pretokenized::optional_columns(&rows.schema())?;
    let mut writer = pretokenized_writer(&ctx.output_dir("examples")?, &with_columns)?;
    let n_rows = rows.num_rows();
    let convert = |first_row: u64, batch: &RecordBatch| pretokenized::convert(batch, &with_columns, first_row);
    for_batches_in_order(rows, n_rows, ctx, convert, |batch: RecordBatch| writer.write(&batch))?;
    ctx.fact("rows", writer.finish()?.to_string());
    Ok(())
}

/// `work(first row, batch)` in parallel, `take(result)` one after another in the order of the rows. The error of the
/// earliest row wins, so that a message does not depend on threads.
fn for_batches_in_order<T: Send>(
    mut batches: RowReader,
    n_rows: u64,
    ctx: &Context<'_>,
    work: impl Fn(u64, &RecordBatch) -> Result<T, FormatError> + Sync,
    mut take: impl FnMut(T) -> Result<(), RecordsError>,
) -> Result<(), StageError> {
    // Two batches for each thread: enough to keep them busy, and memory stays small.
    let n_batches = 2 * rayon::current_num_threads();
    let mut n_done = 0;
    loop {
        ctx.check_cancelled()?;
        let mut chunk: Vec<(u64, RecordBatch)> = Vec::with_capacity(n_batches);
        let mut first_row = n_done;
        for batch in batches.by_ref().take(n_batches) {
            let batch = batch?;
            let n_rows_here = batch.num_rows() as u64;
            chunk.push((first_row, batch));
            first_row += n_rows_here;
        }
        if chunk.is_empty() {
            return Ok(());
        }
        let results: Vec<Result<T, FormatError>> =
            chunk.par_iter().map(|(first_row, batch)| work(*first_row, batch)).collect();
        for result in results {
            take(result?)?;
        }
        n_done = first_row;
        ctx.progress(n_done, n_rows, Unit::Rows);
    }
}

/// The columns that the template reads, checked to be text.
fn text_columns(rows: &Schema, template: Template, names: &ColumnNames) -> Result<Vec<String>, FormatError> {
    let column = |field: &str| match field {
        "instruction" => &names.instruction,
        "input" => &names.input,
        "output" => &names.output,
        "prompt" => &names.prompt,
        "completion" => &names.completion,
        _ => &names.text,
    };
    let columns: Vec<String> = template.fields().iter().map(|field| column(field).clone()).collect();
    for (field, column) in template.fields().iter().zip(&columns) {
        let Some((_, there)) = rows.column_with_name(column) else {
            let found: Vec<String> = rows.fields().iter().map(|field| field.name().clone()).collect();
            let free: Vec<&str> = found.iter().filter(|name| !columns.contains(name)).map(String::as_str).collect();
            let nearest = pipe_settings::nearest(column, &free).map(str::to_string);
            let (template, column) = (template.name(), column.clone());
            return Err(FormatError::MissingColumn { template, field, column, found, nearest });
        };
        if *there.data_type() != DataType::Utf8 {
            return Err(FormatError::WrongType {
                template: template.name(),
                column: column.clone(),
                found: type_name(there.data_type()),
                expected: "text",
            });
        }
    }
    Ok(columns)
}

fn format_batch(
    batch: &RecordBatch,
    template: Template,
    columns: &[String],
    old_text: Option<&str>,
    first_row: u64,
) -> Result<Formatted, FormatError> {
    let text = |name: &str| -> &StringArray {
        batch.column_by_name(name).expect("the columns were checked against the schema of all rows").as_string()
    };
    let fields: Vec<&StringArray> = columns.iter().map(|name| text(name)).collect();
    let old_text = old_text.map(text);
    let mut formatted = Formatted { examples: Vec::new(), n_empty: 0, n_replaced: 0, first_replaced: None };
    for index in 0..batch.num_rows() {
        let row = first_row + index as u64;
        if let Some(position) = fields.iter().position(|field| field.is_null(index)) {
            let help = "write an empty text into the cell, or remove the row from the data";
            return Err(FormatError::NullCell { column: columns[position].clone(), row, help });
        }
        let cells: Vec<&str> = fields.iter().map(|field| field.value(index)).collect();
        let example = template.example(&cells, row)?;
        formatted.n_empty += u64::from(example.completion.is_empty());
        if old_text.is_some_and(|old| old.is_null(index) || old.value(index) != example.text) {
            formatted.n_replaced += 1;
            formatted.first_replaced = formatted.first_replaced.or(Some(row));
        }
        formatted.examples.push(example);
    }
    Ok(formatted)
}
