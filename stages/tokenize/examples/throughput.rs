//! How fast texts become packs, beside what the `tokenizers` library needs to encode them: one measurement a process, a line of JSON.
//!
//! ```text
//! throughput examples ROWS OUT                       rows with `prompt` and `completion` -> the artifact `examples` in OUT
//! throughput encode MODEL EXAMPLES THREADS           `encode_batch` with offsets of all texts, nothing else
//! throughput stage MODEL EXAMPLES THREADS SETTINGS WORK      the stage, from reading `examples` to the closed `packed.parquet`
//! throughput prepare MODEL ROWS THREADS SETTINGS WORK        both: `examples`, which joins texts as the stage `format` does, and `stage`
//! ```
//!
//! `load_seconds` is the time until the tokenizer is there; `seconds` does not contain it. `encode` holds 50,000 texts at a time, times the
//! call alone and forgets what it returned. `cpu_seconds` is the processor time of the whole process, which says more than the wall where
//! other work goes on. `benches/tokenize/compare.py` starts these in turn.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch, StringArray};
use pipe_contract::{Artifact, ArtifactKind, Context, StageKind, read_yaml};
use pipe_records::{Example, ExamplesForm, ExamplesWriter, PackedReader, examples, open_rows};
use pipe_stage_tokenize::KIND;
use pipe_tokenizer::ModelTokenizer;
use tokenizers::Tokenizer;

/// Texts that `encode` holds at a time.
const TEXTS_AT_A_TIME: usize = 50_000;

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["examples", rows, out] => write_examples(Path::new(rows), Path::new(out)),
        ["encode", model, examples, threads] => {
            on_threads(threads, |_| encode(Path::new(model), &artifact(ArtifactKind::Examples, examples)?))
        }
        ["stage", model, examples, threads, settings, work] => on_threads(threads, |n_threads| {
            let inputs = [
                ("model", artifact(ArtifactKind::Model, model)?),
                ("examples", artifact(ArtifactKind::Examples, examples)?),
            ];
            run_stage(inputs, n_threads, settings, Path::new(work))
        }),
        ["prepare", model, rows, threads, settings, work] => on_threads(threads, |n_threads| {
            let (examples, work) = (Path::new(work).join("examples"), Path::new(work));
            let started = Instant::now();
            write_examples(Path::new(rows), &examples)?;
            let formatting = started.elapsed();
            let examples = Artifact::from_folder(ArtifactKind::Examples, &examples)?;
            let inputs = [("model", artifact(ArtifactKind::Model, model)?), ("examples", examples)];
            let measured = run_stage(inputs, n_threads, settings, work)?;
            Ok(Measured { rest: measured.rest + formatting, ..measured })
        }),
        _ => Err("usage: see the first lines of throughput.rs".into()),
    }
}

fn artifact(kind: ArtifactKind, folder: &str) -> Result<Artifact, Box<dyn Error>> {
    Ok(Artifact::from_folder(kind, Path::new(folder))?)
}

/// Runs `measure` as the runner runs a stage: with the pool of all threads as the current one.
fn on_threads(threads: &str, measure: impl FnOnce(usize) -> Result<Measured, Box<dyn Error>> + Send) -> Done {
    let n_threads: usize = threads.parse()?;
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build_global()?;
    let measured = measure(n_threads)?;
    writeln!(std::io::stdout(), "{}", measured.to_json()?)?;
    Ok(())
}

struct Measured {
    load: Duration,
    rest: Duration,
    n_rows: u64,
    n_tokens: u64,
    /// Tokens of the rows that are in no pack, the `n_lost_tokens` of the stage.
    n_lost_tokens: u64,
}

impl Measured {
    fn to_json(&self) -> Result<String, Box<dyn Error>> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse()?;
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // Fields 14 and 15, of which the second one, the name in brackets, may hold spaces.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 =
            fields.get(11..13).unwrap_or_default().iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(format!(
            "{{\"cpu_seconds\": {:.2}, \"load_seconds\": {:.4}, \"seconds\": {:.4}, \"rows\": {}, \"tokens\": {}, \"lost_tokens\": {}, \"peak_mib\": {:.1}}}",
            ticks as f64 / 100.0,
            self.load.as_secs_f64(),
            self.rest.as_secs_f64(),
            self.n_rows,
            self.n_tokens,
            self.n_lost_tokens,
            peak_kib as f64 / 1024.0,
        ))
    }
}

fn write_examples(rows: &Path, out: &Path) -> Done {
    std::fs::create_dir_all(out)?;
    let mut writer =
        ExamplesWriter::create_with(out, ExamplesForm { is_completion_only: true, ..ExamplesForm::default() })?;
    for batch in open_rows(&Artifact::from_folder(ArtifactKind::Rows, rows)?)? {
        let batch = batch?;
        let (prompts, completions) = (text_column(&batch, "prompt")?, text_column(&batch, "completion")?);
        for (prompt, completion) in prompts.iter().zip(completions) {
            let (prompt, completion) = (prompt.unwrap_or_default(), completion.unwrap_or_default());
            let n_prompt = prompt.chars().count() as u32;
            let n_characters = n_prompt + completion.chars().count() as u32;
            let text = format!("{prompt}{completion}");
            let (prompt, completion) = (0..n_prompt, n_prompt..n_characters);
            writer.write(&Example { text, prompt, completion, ..Example::default() })?;
        }
    }
    writer.finish()?;
    Ok(())
}

fn text_column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b StringArray, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("the rows have no column `{name}`"))?;
    column.as_string_opt().ok_or_else(|| format!("`{name}` is not text"))
}

fn encode(model: &Path, examples: &Artifact) -> Result<Measured, Box<dyn Error>> {
    let started = Instant::now();
    let tokenizer = Tokenizer::from_file(model.join("tokenizer.json")).map_err(|e| e.to_string())?;
    let mut measured =
        Measured { load: started.elapsed(), rest: Duration::ZERO, n_rows: 0, n_tokens: 0, n_lost_tokens: 0 };
    let mut texts: Vec<String> = Vec::new();
    for batch in examples::read_examples(examples)? {
        texts.extend(batch?.into_iter().map(|example| example.text));
        if texts.len() >= TEXTS_AT_A_TIME {
            measured.encode(&tokenizer, std::mem::take(&mut texts))?;
        }
    }
    measured.encode(&tokenizer, texts)?;
    Ok(measured)
}

impl Measured {
    fn encode(&mut self, tokenizer: &Tokenizer, texts: Vec<String>) -> Done {
        self.n_rows += texts.len() as u64;
        let started = Instant::now();
        let encodings = tokenizer.encode_batch(texts, true).map_err(|e| e.to_string())?;
        self.rest += started.elapsed();
        self.n_tokens += encodings.iter().map(|encoding| encoding.len() as u64).sum::<u64>();
        Ok(())
    }
}

fn run_stage(
    inputs: [(&str, Artifact); 2],
    n_threads: usize,
    settings: &str,
    work: &Path,
) -> Result<Measured, Box<dyn Error>> {
    let (stage, _, problems) = read_yaml(settings, |reader| KIND.read(reader));
    if !problems.is_empty() {
        return Err(format!("bad settings: {problems:?}").into());
    }
    let emit = |_| {};
    let mut ctx = Context::new(work, &emit);
    ctx.n_threads = n_threads;
    ctx.inputs.extend(inputs.map(|(port, artifact)| (port.to_string(), artifact)));
    // Once before, so that its time can be told apart: the stage loads it again.
    let started = Instant::now();
    drop(ModelTokenizer::load(ctx.input("model")?)?);
    let load = started.elapsed();
    let started = Instant::now();
    stage.run(&mut ctx)?;
    let rest = started.elapsed().saturating_sub(load);
    let n_rows = examples::read_examples(ctx.input("examples")?)?.num_rows();
    let packed = Artifact::from_folder(ArtifactKind::Packed, &work.join("outputs/packed"))?;
    let info = PackedReader::open(&packed)?.info().clone();
    Ok(Measured {
        load,
        rest,
        n_rows,
        n_tokens: info.n_tokens,
        n_lost_tokens: info.n_truncated_tokens + info.n_dropped_tokens,
    })
}
