//! `pipe cache path | size | verify`: looks after the store. `gc` and `pin` have files of their own.

use std::fmt::Write as _;

use pipe_cache::{CorruptionKind, SizeOf, Store, StoreSize};
use serde_json::json;

use super::arguments::{CacheArguments, CacheCommand};
use super::failure::CliError;
use super::session::Session;
use super::{gc, pin};
use crate::exit_code;
use crate::report::numbers::{bytes, plural};

pub(super) fn cache(session: &mut Session<'_>, arguments: &CacheArguments) -> Result<u8, CliError> {
    let answer = if arguments.json { Answer::Json } else { Answer::Text };
    match &arguments.command {
        CacheCommand::Path => path(session, answer),
        CacheCommand::Size => size(session, answer),
        CacheCommand::Verify => verify(session, answer),
        CacheCommand::Gc(arguments) => gc::gc(session, arguments, answer),
        CacheCommand::Pin(arguments) => pin::pin(session, arguments, answer),
        CacheCommand::Unpin(arguments) => pin::unpin(session, arguments, answer),
    }
}

/// For whom a command answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A person.
    Text,
    /// A program.
    Json,
}

pub(super) fn size_to_json(size: SizeOf) -> serde_json::Value {
    json!({ "n_files": size.n_files, "size_bytes": size.size_bytes })
}

/// Does not make the store.
fn path(session: &mut Session<'_>, answer: Answer) -> Result<u8, CliError> {
    let dir = session.store_dir();
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    if answer == Answer::Json {
        return session.write_json(json!({ "path": dir })).map(|()| exit_code::OK);
    }
    session.write(&format!("{}\n", dir.display()))?;
    Ok(exit_code::OK)
}

fn size(session: &mut Session<'_>, answer: Answer) -> Result<u8, CliError> {
    let size = session.open_store_to_read()?.size()?;
    if answer == Answer::Json {
        return session.write_json(store_size_to_json(&size)).map(|()| exit_code::OK);
    }
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

fn verify(session: &mut Session<'_>, answer: Answer) -> Result<u8, CliError> {
    let store = session.open_store_to_read()?;
    if answer == Answer::Json {
        return verify_to_json(session, &store);
    }
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

fn store_size_to_json(size: &StoreSize) -> serde_json::Value {
    json!({
        "blobs": size_to_json(size.blobs),
        "manifests": size_to_json(size.manifests),
        "checkpoints": size_to_json(size.checkpoints),
        "runs": size_to_json(size.runs),
        "other": size_to_json(size.other),
        "held_bytes": size.held_bytes(),
        "external": size_to_json(size.external),
    })
}

fn verify_to_json(session: &mut Session<'_>, store: &Store) -> Result<u8, CliError> {
    let corruptions = if store.is_absent() { Vec::new() } else { store.verify()? };
    let corrupt = corruptions.iter().map(|corruption| {
        let (kind, found) = match &corruption.kind {
            CorruptionKind::Blob { found, .. } => ("blob", Some(found)),
            CorruptionKind::Manifest => ("manifest", None),
        };
        json!({ "kind": kind, "path": corruption.path, "found": found, "set_aside": corruption.set_aside })
    });
    let corrupt: Vec<serde_json::Value> = corrupt.collect();
    let code = if corrupt.is_empty() { exit_code::OK } else { exit_code::STAGE_FAILED };
    session.write_json(json!({ "corrupt": corrupt, "external": size_to_json(store.size()?.external) }))?;
    Ok(code)
}
