//! The arguments of `pipe bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
pub(in crate::cli) struct BenchArguments {
    #[command(subcommand)]
    pub(in crate::cli) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BenchCommand {
    /// Multiply and add as fast as the machine can: its f32 peak, on one thread and on all
    Peak(BenchPeakArguments),
    /// Multiply with each matrix of a model: forward, gradient in the input, gradient of the weight
    Gemm(BenchGemmArguments),
    /// Take optimizer steps on random tokens, by the code of the stage kind `train`
    Train(Box<BenchTrainArguments>),
}

/// How every measurement runs.
#[derive(Args, Debug)]
pub(in crate::cli) struct BenchOptions {
    /// Threads [env: PIPE_THREADS] [default: all]
    #[arg(long, value_name = "N")]
    pub(in crate::cli) threads: Option<String>,
    /// Write one JSON object
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct BenchPeakArguments {
    #[command(flatten)]
    pub(in crate::cli) options: BenchOptions,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct BenchGemmArguments {
    /// The model: a folder with config.json and *.safetensors
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) model: PathBuf,
    /// Rows that are multiplied with; fewer where the product would be larger than 64 MiB
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(in crate::cli) length: u32,
    #[command(flatten)]
    pub(in crate::cli) options: BenchOptions,
}

#[derive(Args, Debug)]
#[command(
    after_help = "One optimizer step warms up and is not counted; times and rates are medians of the others.\nExit codes: 0 ok, 1 an optimizer step failed, 2 nothing could be measured, 130 interrupted"
)]
pub(in crate::cli) struct BenchTrainArguments {
    /// The model: a folder with config.json and *.safetensors
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) model: PathBuf,
    /// Packs of an optimizer step
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(in crate::cli) batch: u64,
    /// Tokens of a pack [default: 1024, or what the file of --ids has]
    #[arg(long, value_name = "TOKENS")]
    pub(in crate::cli) length: Option<usize>,
    /// Optimizer steps that count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) steps: u16,
    /// Rank of a fresh adapter, alpha is twice that [default: 16]
    #[arg(long, value_name = "R", conflicts_with = "full")]
    pub(in crate::cli) lora_r: Option<u64>,
    /// Modules with an adapter, commas between them, or all-linear [default: PEFT's for the model]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "full")]
    pub(in crate::cli) target_modules: Option<Vec<String>>,
    /// Probability of dropout on the adapter's input [default: 0]
    #[arg(long, value_name = "P", conflicts_with = "full")]
    pub(in crate::cli) lora_dropout: Option<f64>,
    /// Start from the adapter in this folder
    #[arg(long, value_name = "DIR", conflicts_with = "full")]
    pub(in crate::cli) adapter: Option<PathBuf>,
    /// Train every weight instead of an adapter
    #[arg(long)]
    pub(in crate::cli) full: bool,
    /// Tokens of a document; documents do not see each other [default: one document a pack]
    #[arg(long, value_name = "TOKENS")]
    pub(in crate::cli) documents: Option<usize>,
    /// Share of the tokens that are supervised, at the end of each document [default: 1]
    #[arg(long, value_name = "SHARE")]
    pub(in crate::cli) supervised: Option<f64>,
    /// Take packs from a safetensors file: input_ids (N, T), and labels, position_ids, doc_ids, attention_mask if they are there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["documents", "supervised"])]
    pub(in crate::cli) ids: Option<PathBuf>,
    /// Seed of random tokens, of a fresh adapter and of dropout
    #[arg(long, value_name = "SEED", default_value_t = 42)]
    pub(in crate::cli) seed: u64,
    /// native or candle [default: auto, as the stage kind `train`]
    #[arg(long, value_name = "ENGINE")]
    pub(in crate::cli) engine: Option<String>,
    /// Most memory to take, such as 900MiB: more is recomputed then [default: what is free]
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) memory: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) options: BenchOptions,
}
