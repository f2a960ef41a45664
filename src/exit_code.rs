//! What the exit status of `pipe` says. Scripts rely on these numbers, so they never change their meaning.

/// Everything asked for was done.
pub const OK: u8 = 0;
/// A stage failed. What finished before it is kept.
pub const STAGE_FAILED: u8 = 1;
/// The pipeline file, the command line, the lock file or the store cannot be used: nothing was run.
pub const PIPELINE: u8 = 2;
/// The lock file does not fit the pipeline (`--locked`), or `pipe verify` has nothing to compare with.
pub const LOCK_DRIFT: u8 = 3;
/// `pipe verify` found other bytes.
pub const VERIFY_DIFFERS: u8 = 4;
/// A mistake in `pipe` itself, such as a panic in a stage (`EX_SOFTWARE` of sysexits.h).
pub const BUG: u8 = 70;
/// Interrupted by Ctrl-C, SIGTERM or `--time-limit` (128 + SIGINT, as shells report it).
pub const INTERRUPTED: u8 = 130;
