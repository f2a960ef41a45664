//! The arguments as the user writes them: each command here, but those of `bench` and `cache`, which have commands of their own.

pub(crate) mod bench;
mod cache;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use bench::BenchArguments;
pub(super) use cache::{CacheArguments, CacheCommand, GcArguments, PinArguments, UnpinArguments};

/// A declarative pipeline runner for fine-tuning language models.
#[derive(Debug, Parser)]
#[command(
    name = "pipe",
    version,
    max_term_width = 100,
    after_help = "Environment: PIPE_STORE, PIPE_THREADS, NO_COLOR, CLICOLOR_FORCE, CI\nExit codes: 0 ok, 1 a stage failed, 2 pipeline or usage, 3 the lock file does not fit, 4 verify found other bytes, 70 a mistake in pipe, 130 interrupted"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
    /// The store's folder [env: PIPE_STORE] [default: .pipe]
    #[arg(long, global = true, display_order = 900, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// When to use colours
    #[arg(
        long,
        global = true,
        display_order = 901,
        value_name = "WHEN",
        hide_possible_values = true,
        help = "When to use colours: auto, always, never"
    )]
    pub(super) color: Option<ColorChoice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorChoice {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a pipeline: what was made before is reused
    Run(RunArguments),
    /// Show what a run would do, and why
    Plan(PlanArguments),
    /// Say why a stage runs or is reused, compared with the last run
    Explain(ExplainArguments),
    /// Run stages again and compare: the same bytes, or what differs first
    Verify(VerifyArguments),
    /// Check pipeline files
    Check(CheckArguments),
    /// Draw the stages and what flows between them
    Graph(GraphArguments),
    /// List the stage kinds, or describe one
    Stages(StagesArguments),
    /// Print a JSON Schema of pipeline files, for editors
    Schema,
    /// Look into the outputs of a stage
    Show(ShowArguments),
    /// Copy the outputs of a stage out of the store
    Get(GetArguments),
    /// Print what a stage said while it ran
    Logs(LogsArguments),
    /// List runs, or show one again
    Runs(RunsArguments),
    /// Compare two runs: settings, facts and outputs
    Diff(DiffArguments),
    /// Write a run as one HTML file: what ran, when, and what it gave
    Report(ReportArguments),
    /// Write a run as a trace for ui.perfetto.dev: what ran beside what
    Trace(TraceArguments),
    /// Ask again what names such as `main` stand for, and write the lock file
    Update(UpdateArguments),
    /// Measure this machine, and training on it
    Bench(BenchArguments),
    /// Look for what can be wrong on this machine
    Doctor(DoctorArguments),
    /// Look after the store
    Cache(CacheArguments),
    /// Print a script with which a shell completes commands and options
    Completions(CompletionsArguments),
    /// Print the manual page, or write one for each command
    Man(ManArguments),
}

/// What is laid over a pipeline file.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Overlay {
    /// Lay a profile of the file over it
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Option<String>,
    /// Set a variable or a setting: vars.model=ID, stages.adapter.with.lora.r=8
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) sets: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum NumericsChoice {
    Exact,
    Any,
}

#[derive(Args, Debug)]
pub(super) struct RunArguments {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) overlay: Overlay,
    /// Threads for all stages together [env: PIPE_THREADS] [default: all]
    #[arg(long, value_name = "N")]
    pub(super) threads: Option<String>,
    /// Refuse to run where the lock file does not fit the pipeline, and leave it as it is
    #[arg(long)]
    pub(super) locked: bool,
    /// Reuse artifacts of any compute class, or of this one exactly: any, exact
    #[arg(long, value_name = "WHICH", hide_possible_values = true)]
    pub(super) numerics: Option<NumericsChoice>,
    /// Run this stage although it was made before; can be given again
    #[arg(long, value_name = "STAGE")]
    pub(super) force: Vec<String>,
    /// Make only this stage and what it needs; can be given again
    #[arg(long, value_name = "STAGE")]
    pub(super) until: Vec<String>,
    /// Make only this stage, what needs it, and what those need; can be given again
    #[arg(long, value_name = "STAGE")]
    pub(super) from: Vec<String>,
    /// After a failure, go on with the stages that do not need the failed one
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Run again whenever the pipeline file or a local file that a stage reads changes, until Ctrl-C
    #[arg(long, conflicts_with_all = ["force", "time_limit"])]
    pub(super) watch: bool,
    /// Stop as Ctrl-C does after that long: 90s, 30m, 1h30m
    #[arg(long, value_name = "TIME")]
    pub(super) time_limit: Option<String>,
    /// Memory for all stages together, and for each [default: what is free]
    #[arg(long, value_name = "SIZE")]
    pub(super) memory: Option<String>,
    /// Start although the disk will not hold what the run is predicted to write
    #[arg(long)]
    pub(super) no_space_check: bool,
    /// Write events as JSON Lines to standard output
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct PlanArguments {
    /// The pipeline file [default: that of the last run]
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) overlay: Overlay,
    /// Fail where the lock file does not fit the pipeline
    #[arg(long)]
    pub(super) locked: bool,
    /// Reuse artifacts of any compute class, or of this one exactly: any, exact
    #[arg(long, value_name = "WHICH", hide_possible_values = true)]
    pub(super) numerics: Option<NumericsChoice>,
    /// Only this stage and what it needs; can be given again
    #[arg(long, value_name = "STAGE")]
    pub(super) until: Vec<String>,
    /// Only this stage, what needs it, and what those need; can be given again
    #[arg(long, value_name = "STAGE")]
    pub(super) from: Vec<String>,
    /// Say below each stage what changed since the last run
    #[arg(long)]
    pub(super) why: bool,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ExplainArguments {
    /// The pipeline file (default: that of the last run), then the stage
    #[arg(value_name = "STAGE", num_args = 1..=2, required = true)]
    pub(super) targets: Vec<String>,
    #[command(flatten)]
    pub(super) overlay: Overlay,
    /// Reuse artifacts of any compute class, or of this one exactly: any, exact
    #[arg(long, value_name = "WHICH", hide_possible_values = true)]
    pub(super) numerics: Option<NumericsChoice>,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Stages run in a store of their own; what stands is not touched, and other bytes are kept beside it.\nExit codes: 0 all the same, 1 a stage failed, 2 pipeline or usage, 3 nothing to compare with, 4 something differs, 130 interrupted"
)]
pub(super) struct VerifyArguments {
    /// The pipeline file [default: that of the last run]
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) overlay: Overlay,
    /// Verify this stage alone, on the inputs that stand; can be given again [default: all stages]
    #[arg(long, value_name = "STAGE")]
    pub(super) stage: Vec<String>,
    /// Of training, run up to that many parts between checkpoints again instead of all of it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(super) spot: Option<u64>,
    /// Choose the same parts as an earlier --spot [default: by the last run]
    #[arg(long, value_name = "N", requires = "spot")]
    pub(super) seed: Option<u64>,
    /// Threads for all stages together [env: PIPE_THREADS] [default: all]
    #[arg(long, value_name = "N")]
    pub(super) threads: Option<String>,
    /// Stop as Ctrl-C does after that long: 90s, 30m, 1h30m
    #[arg(long, value_name = "TIME")]
    pub(super) time_limit: Option<String>,
    /// Memory for all stages together, and for each [default: what is free]
    #[arg(long, value_name = "SIZE")]
    pub(super) memory: Option<String>,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Write JUnit XML to this file, a test case per stage
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct CheckArguments {
    /// The pipeline files
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) overlay: Overlay,
    /// Write the problems as JSON, one object for each file
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum GraphFormat {
    Text,
    Dot,
    Mermaid,
}

#[derive(Args, Debug)]
pub(super) struct GraphArguments {
    /// The pipeline file [default: that of the last run]
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) overlay: Overlay,
    /// text, dot or mermaid
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    pub(super) format: GraphFormat,
    /// Write JSON
    #[arg(long, conflicts_with = "format")]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct StagesArguments {
    /// One stage kind
    #[arg(value_name = "KIND")]
    pub(super) kind: Option<String>,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
#[command(override_usage = "pipe show [OPTIONS] [FILE] STAGE[.PORT]")]
pub(super) struct ShowArguments {
    /// The pipeline file (default: that of the last run), then the stage
    #[arg(value_name = "STAGE[.PORT]", num_args = 1..=2, required = true)]
    pub(super) targets: Vec<String>,
    #[command(flatten)]
    pub(super) overlay: Overlay,
    /// Rows to show
    #[arg(short = 'n', long = "rows", value_name = "ROWS", default_value_t = 5)]
    pub(super) n_rows: usize,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
#[command(override_usage = "pipe get [OPTIONS] --to <DIR> [FILE] STAGE[.PORT]")]
pub(super) struct GetArguments {
    /// The pipeline file (default: that of the last run), then the stage
    #[arg(value_name = "STAGE[.PORT]", num_args = 1..=2, required = true)]
    pub(super) targets: Vec<String>,
    #[command(flatten)]
    pub(super) overlay: Overlay,
    /// The folder to copy into; all outputs have a folder each, one that is named has none
    #[arg(long, value_name = "DIR")]
    pub(super) to: PathBuf,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct LogsArguments {
    /// The stage
    #[arg(value_name = "STAGE")]
    pub(super) stage: String,
    /// The run: its id, or how it begins [default: the last that has a log of the stage]
    #[arg(long, value_name = "RUN")]
    pub(super) run: Option<String>,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct RunsArguments {
    /// Show this run: its id, or how it begins
    #[arg(value_name = "RUN")]
    pub(super) run: Option<String>,
    /// Runs to list, the newest
    #[arg(short = 'n', long = "runs", value_name = "RUNS", default_value_t = 20)]
    pub(super) n_runs: usize,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct DiffArguments {
    /// The runs: ids, or how they begin [default: the one before the last, and the last]
    #[arg(value_name = "RUN", num_args = 0..=2)]
    pub(super) runs: Vec<String>,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ReportArguments {
    /// The id of the run, or how it begins [default: the last run]
    #[arg(value_name = "RUN")]
    pub(super) run: Option<String>,
    /// Where to write it, `-` for standard output [default: report.html in the run's folder]
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct TraceArguments {
    /// The id of the run, or how it begins [default: the last run]
    #[arg(value_name = "RUN")]
    pub(super) run: Option<String>,
    /// Where to write it, `-` for standard output [default: trace.json in the run's folder]
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Say as JSON where it is
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DoctorDevice {
    Cuda,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 nothing is a problem, 1 something is, 2 what `--device` asks for is not there.\nIt asks the hub for a connection, unless HF_HUB_OFFLINE is set."
)]
pub(super) struct DoctorArguments {
    /// A pipeline file to look at as well
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) overlay: Overlay,
    /// Look only at this device: whether it can be used, and whether it computes what the CPU does: cuda
    #[arg(long, value_name = "DEVICE", hide_possible_values = true)]
    pub(super) device: Option<DoctorDevice>,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct CompletionsArguments {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    pub(super) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManArguments {
    /// Write a page for each command into this folder
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct UpdateArguments {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) overlay: Overlay,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}
