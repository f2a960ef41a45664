//! The arguments of `pipe cache`.

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
pub(in crate::cli) struct CacheArguments {
    #[command(subcommand)]
    pub(in crate::cli) command: CacheCommand,
    /// Write JSON
    #[arg(long, global = true)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CacheCommand {
    /// Print the store's folder
    Path,
    /// Print how large the store is, by what is in it
    Size,
    /// Read every file of the store again; what is corrupt is set aside and made again by the next run
    Verify,
    /// Remove what no lock file, recent run or pin keeps; without --yes only say what would be removed
    Gc(GcArguments),
    /// Keep the artifacts of a run, or of one fingerprint, from gc; without an argument, list the pins
    Pin(PinArguments),
    /// Remove a pin
    Unpin(UnpinArguments),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Kept are the artifacts that a lock file beside the pipeline file of any run names, those of the newest runs, those that are \
                  pinned, and what running pipelines use. Manifests stay: what is removed is made again only when a stage that runs needs it."
)]
pub(in crate::cli) struct GcArguments {
    /// Keep the artifacts of the newest N runs
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(in crate::cli) keep_runs: usize,
    /// Remove the longest unused first, and only until the store is no larger than this, such as 20GB
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) max_size: Option<String>,
    /// Remove it
    #[arg(long)]
    pub(in crate::cli) yes: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct PinArguments {
    /// The id of the run, or the fingerprint, or how it begins
    #[arg(value_name = "RUN|FINGERPRINT")]
    pub(in crate::cli) target: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct UnpinArguments {
    /// What was pinned, or how it begins
    #[arg(value_name = "RUN|FINGERPRINT")]
    pub(in crate::cli) target: String,
}
