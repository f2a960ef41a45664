//! A run that the disk will not hold does not begin: what is missing, whose bytes they are, and what to do.

use super::failure::CliError;
use super::session::Session;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::history::History;
use crate::plan::{Plan, Planner};
use crate::predict::predict_sizes;
use crate::report::numbers;
use crate::room::{Shortage, find_shortages, free_bytes};

/// # Errors
/// Every disk that is too small for what is known of the run.
pub(super) fn check(
    session: &Session<'_>,
    planner: &Planner<'_>,
    plan: &Plan,
    history: &History,
) -> Result<(), CliError> {
    let sizes = predict_sizes(planner, plan, history)?;
    let pretended = session.io.environment.pretended_free_bytes;
    let free = |folder: &std::path::Path| pretended.or_else(|| free_bytes(folder));
    let shortages = find_shortages(planner, &sizes, &session.store_as_given, &free);
    if shortages.is_empty() {
        return Ok(());
    }
    let gc = format!("`pipe cache gc{}`", session.store_option());
    Err(Diagnostics::new(shortages.iter().map(|shortage| describe(shortage, &gc)).collect(), Vec::new()).into())
}

fn describe(shortage: &Shortage, gc: &str) -> Diagnostic {
    let message = format!(
        "the disk of `{}` has {} free, but this run will write about {} to it, and {} are kept free",
        shortage.folder.display(),
        numbers::bytes(shortage.free_bytes),
        numbers::bytes(shortage.needed_bytes),
        numbers::bytes(shortage.reserve_bytes),
    );
    let largest: Vec<String> =
        shortage.largest.iter().map(|(stage, bytes)| format!("`{stage}` {}", numbers::bytes(*bytes))).collect();
    let help =
        format!("{gc} says what can be removed, `--store DIR` is for another disk, `--no-space-check` runs anyway");
    Diagnostic::new("disk-space", message).note(format!("most of it: {}", largest.join(", "))).help(help)
}
