//! `pipe cache path | size | verify`: looks after the store. `gc` and `pin` have files of their own.

use std::fmt::Write as _;

use pipe_cache::CorruptionKind;

use super::arguments::{CacheArguments, CacheCommand};
use super::failure::CliError;
use super::session::Session;
use super::{gc, pin};
use crate::exit_code;
use crate::report::numbers::{bytes, plural};

pub(super) fn cache(session: &mut Session<'_>, arguments: &CacheArguments) -> Result<u8, CliError> {
    match &arguments.command {
        CacheCommand::Path => path(session),
        CacheCommand::Size => size(session),
        CacheCommand::Verify => verify(session),
        CacheCommand::Gc(arguments) => gc::gc(session, arguments),
        CacheCommand::Pin(arguments) => pin::pin(session, arguments),
        CacheCommand::Unpin(arguments) => pin::unpin(session, arguments),
    }
}

/// Does not make the store.
fn path(session: &mut Session<'_>) -> Result<u8, CliError> {
    let dir = session.store_dir();
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    session.write(&format!("{}\n", dir.display()))?;
    Ok(exit_code::OK)
}

fn size(session: &mut Session<'_>) -> Result<u8, CliError> {
    let size = session.open_store_to_read()?.size()?;
    let parts = [
        ("blobs", size.blobs),
        ("manifests", size.manifests),
        ("checkpoints", size.checkpoints),
        ("runs", size.runs),
        ("other", size.other),
    ];
    let mut text = String::new();
    for (name, part) in parts {
        let n_files = plural(usize::try_from(part.n_files).unwrap_or(usize::MAX), "file");
        writeln!(text, "{name:<11}  {:>9}  {n_files}", bytes(part.size_bytes)).expect("to a String");
    }
    writeln!(text, "{:<11}  {:>9}", "in all", bytes(size.held_bytes())).expect("to a String");
    if size.external.n_files > 0 {
        let n_files = plural(usize::try_from(size.external.n_files).unwrap_or(usize::MAX), "file");
        let external = bytes(size.external.size_bytes);
        writeln!(text, "{:<11}  {external:>9}  {n_files} elsewhere, such as the Hugging Face cache", "referred to")
            .expect("to a String");
    }
    session.write(&text)?;
    Ok(exit_code::OK)
}

fn verify(session: &mut Session<'_>) -> Result<u8, CliError> {
    let store = session.open_store_to_read()?;
    if store.is_absent() {
        let line = format!("there is no store in {}\n", session.store_as_given.display());
        session.write(&line)?;
        return Ok(exit_code::OK);
    }
    let corruptions = store.verify()?;
    let mut text = String::new();
    for corruption in &corruptions {
        let what = match &corruption.kind {
            CorruptionKind::Blob { found, .. } => format!("its bytes have the digest {found}"),
            CorruptionKind::Manifest => "its checksum does not hold".to_string(),
        };
        writeln!(text, "{}: {what}; set aside", corruption.path.display()).expect("to a String");
    }
    if corruptions.is_empty() {
        text.push_str("every file that the store holds has the bytes it should have\n");
    } else {
        let n = plural(corruptions.len(), "corrupt file");
        writeln!(text, "{n}; the next run makes again what it needs of them").expect("to a String");
    }
    // Those a run looks at itself, before it uses them.
    let n_referred = usize::try_from(store.size()?.external.n_files).unwrap_or(usize::MAX);
    if n_referred > 0 {
        writeln!(text, "not read: {} elsewhere that the store refers to", plural(n_referred, "file"))
            .expect("to a String");
    }
    session.write(&text)?;
    Ok(if corruptions.is_empty() { exit_code::OK } else { exit_code::STAGE_FAILED })
}
