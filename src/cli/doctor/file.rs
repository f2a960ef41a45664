//! A pipeline file, and the lock file beside it.

use std::path::Path;

use super::Check;
use crate::cli::arguments::Overlay;
use crate::cli::failure::CliError;
use crate::cli::session::{Request, Session};
use crate::lockfile::LockFile;
use crate::report::numbers::plural;

pub(super) fn checks(session: &Session<'_>, file: &Path, overlay: &Overlay) -> Vec<Check> {
    let shown = file.display();
    let pipeline = match session.load_pipeline(&Request::new(file, overlay)) {
        Ok(pipeline) => pipeline,
        Err(error) => {
            let n = match error {
                CliError::Unusable(problems) => plural(problems.len(), "problem"),
                _ => "problems".into(),
            };
            return vec![Check::problem(
                "pipeline",
                format!("`{shown}` has {n}"),
                format!("`pipe check {shown}` shows them"),
            )];
        }
    };
    let path = LockFile::path_beside(&pipeline.path);
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let help = "run it, and commit the lock file: others then get the same revisions";
    let lock = match LockFile::load(&path) {
        Err(error) => Check::problem("lock file", crate::error::chain(&error), "repair it, or remove it and run again"),
        Ok(lock) if lock.is_foreign() => Check::warning(
            "lock file",
            format!("`{name}` is of another version of pipe: it is not used"),
            "use that version, or remove it",
        ),
        Ok(_) if !path.exists() => Check::warning("lock file", format!("`{name}` is not there"), help),
        Ok(lock) if !lock.has_outputs() => Check::warning("lock file", format!("`{name}` is of no complete run"), help),
        Ok(_) => Check::ok("lock file", name),
    };
    vec![Check::ok("pipeline", format!("{shown}, {}", plural(pipeline.stages.len(), "stage"))), lock]
}
