//! Time and memory of `prepare` on millions of rows: real ones repeated, each with a running number.
//!
//! ```sh
//! cargo run --release -p pipe-stage-prepare --example many_rows -- make 5000000 FOLDER REAL_ROWS   # rows of a folder, repeated
//! cargo run --release -p pipe-stage-prepare --example many_rows -- run FOLDER '{ deduplicate: near, shuffle: true }'
//! ```
//!
//! `make` writes `FOLDER/rows.parquet` with the columns `instruction`, `input`, `output` of the real rows and `n`. The number is also
//! the last word of `instruction`. With `make-unlike` it is in each word of `instruction` and `output`, so that no two rows are
//! similar: what finds no near duplicate compares most.

#![expect(clippy::print_stdout, reason = "a program whose purpose is to print")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use pipe_contract::{Artifact, ArtifactKind, Context, StageEvent, StageKind as _, read_yaml};
use pipe_records::{open_rows, parquet_writer};
use pipe_stage_prepare::KIND;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["make", n_rows, folder, real] => make(n_rows.parse()?, Path::new(folder), Path::new(real), false),
        ["make-unlike", n_rows, folder, real] => make(n_rows.parse()?, Path::new(folder), Path::new(real), true),
        ["run", folder, settings] => run(Path::new(folder), settings),
        _ => Err("usage: make[-unlike] ROWS FOLDER REAL_ROWS | run FOLDER SETTINGS".into()),
    }
}

fn make(n_rows: usize, folder: &Path, real: &Path, is_unlike: bool) -> Result<(), Failure> {
    let rows = open_rows(&Artifact::from_folder(ArtifactKind::Rows, real)?)?;
    let schema = rows.schema();
    let batches = rows.collect::<Result<Vec<RecordBatch>, _>>()?;
    let rows = concat_batches(&schema, &batches)?;
    let column =
        |name: &str| rows.column_by_name(name).ok_or("the rows lack a column of Alpaca").map(|c| c.as_string::<i32>());
    let (instruction, input, output) = (column("instruction")?, column("input")?, column("output")?);
    std::fs::create_dir_all(folder)?;
    let mut writer = None;
    for first in (0..n_rows).step_by(1024) {
        let numbers = first..n_rows.min(first + 1024);
        let cell = |column: &StringArray, n: usize| column.value(n % rows.num_rows()).to_string();
        let of = |column: &StringArray, change: &dyn Fn(String, usize) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(numbers.clone().map(|n| change(cell(column, n), n))))
        };
        let unlike =
            |text: String, n: usize| text.split(' ').map(|word| format!("{word}{n}")).collect::<Vec<_>>().join(" ");
        let numbered = |text: String, n: usize| if is_unlike { unlike(text, n) } else { format!("{text} {n}") };
        let plain = |text: String, n: usize| if is_unlike { unlike(text, n) } else { text };
        let n: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.clone().map(|n| n as i64)));
        let columns = [
            ("n", n),
            ("instruction", of(instruction, &numbered)),
            ("input", of(input, &|text, _| text)),
            ("output", of(output, &plain)),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))?;
        if writer.is_none() {
            writer = Some(parquet_writer(&folder.join("rows.parquet"), batch.schema())?);
        }
        writer.as_mut().expect("it was just made").write(&batch)?;
    }
    let n_rows = writer.ok_or("no rows were asked for")?.finish()?;
    println!("{n_rows} rows in {}", folder.display());
    Ok(())
}

fn run(folder: &Path, settings: &str) -> Result<(), Failure> {
    let (stage, _, problems) = read_yaml(settings, |reader| KIND.read(reader));
    if !problems.is_empty() {
        return Err(format!("{problems:?}").into());
    }
    let work = tempfile::tempdir_in(folder)?;
    let emit = |event: StageEvent| {
        if let StageEvent::Fact { name, value } = event {
            println!("{name}: {value}");
        }
    };
    let mut ctx = Context::new(work.path(), &emit);
    let file = folder.join("rows.parquet");
    let rows = tempfile::tempdir_in(folder)?;
    std::os::unix::fs::symlink(std::fs::canonicalize(file)?, rows.path().join("rows.parquet"))?;
    ctx.inputs.insert("rows".to_string(), Artifact::from_folder(ArtifactKind::Rows, rows.path())?);
    let start = Instant::now();
    stage.run(&mut ctx)?;
    println!("{:.1} s on {} threads", start.elapsed().as_secs_f64(), rayon::current_num_threads());
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: unknown"));
    Ok(())
}
