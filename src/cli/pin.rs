//! `pipe cache pin` and `unpin`: what `pipe cache gc` keeps whatever happens.

use std::fmt::Write as _;

use pipe_cache::Store;
use pipe_settings::nearest;
use serde_json::json;

use super::arguments::{PinArguments, UnpinArguments};
use super::cache::Answer;
use super::failure::CliError;
use super::session::Session;
use crate::diagnostic::Diagnostic;
use crate::exit_code;
use crate::record::RunRecord;
use crate::report::numbers::{bytes, plural};

pub(super) fn pin(session: &mut Session<'_>, arguments: &PinArguments, answer: Answer) -> Result<u8, CliError> {
    let store = session.open_store_to_read()?;
    let Some(target) = &arguments.target else { return list(session, &store, answer) };
    let runs = store.list_runs()?;
    let names: Vec<String> = runs.iter().cloned().chain(store.fingerprints()?).collect();
    let name = find(&names, target, "run or fingerprint")?;
    let fingerprints = if runs.contains(name) {
        let record = RunRecord::read(&store, name).ok_or_else(|| session.unreadable_run(name))?;
        record.stages.into_iter().filter_map(|stage| stage.fingerprint).collect()
    } else {
        vec![name.clone()]
    };
    if fingerprints.is_empty() {
        return Err(Diagnostic::new("nothing-to-pin", format!("run `{name}` made nothing")).into());
    }
    let store = Store::open(&session.store_dir())?;
    store.pin(name, &fingerprints.iter().map(String::as_str).collect::<Vec<_>>())?;
    if answer == Answer::Json {
        return session.write_json(to_json(&store, name, &fingerprints)?).map(|()| exit_code::OK);
    }
    let mut text = format!("pinned {name}: {}\n", describe(&store, &fingerprints)?);
    let mut n_gone = 0;
    for fingerprint in &fingerprints {
        // After it was pinned: what is there now stays.
        let manifest = store.lookup(fingerprint)?;
        let is_whole =
            manifest.map(|manifest| store.missing(&manifest)).transpose()?.is_some_and(|gone| gone.is_empty());
        n_gone += usize::from(!is_whole);
    }
    if n_gone > 0 {
        let n = plural(n_gone, "result");
        writeln!(text, "files of {n} are gone; the next run that needs them makes them").expect("to a String");
    }
    session.write(&text)?;
    Ok(exit_code::OK)
}

pub(super) fn unpin(session: &mut Session<'_>, arguments: &UnpinArguments, answer: Answer) -> Result<u8, CliError> {
    let pins = session.open_store_to_read()?.pins()?;
    let names: Vec<String> = pins.into_iter().map(|pin| pin.name).collect();
    let name = find(&names, &arguments.target, "pin")?;
    Store::open(&session.store_dir())?.unpin(name)?;
    if answer == Answer::Json {
        return session.write_json(json!({ "unpinned": name })).map(|()| exit_code::OK);
    }
    session.write(&format!("unpinned {name}\n"))?;
    Ok(exit_code::OK)
}

fn list(session: &mut Session<'_>, store: &Store, answer: Answer) -> Result<u8, CliError> {
    if answer == Answer::Json {
        let pins = store.pins()?;
        let pins: Result<Vec<_>, CliError> =
            pins.iter().map(|pin| to_json(store, &pin.name, &pin.fingerprints)).collect();
        return session.write_json(json!({ "pins": pins? })).map(|()| exit_code::OK);
    }
    let mut text = String::new();
    for pin in store.pins()? {
        writeln!(text, "{}  {}", pin.name, describe(store, &pin.fingerprints)?).expect("to a String");
    }
    if text.is_empty() {
        text.push_str("there are no pins\n");
    }
    session.write(&text)?;
    Ok(exit_code::OK)
}

fn to_json(store: &Store, name: &str, fingerprints: &[String]) -> Result<serde_json::Value, CliError> {
    let size_bytes = stored_bytes(store, fingerprints)?;
    Ok(json!({ "pin": name, "fingerprints": fingerprints, "size_bytes": size_bytes }))
}

/// `3 results, 1.2 MB`.
fn describe(store: &Store, fingerprints: &[String]) -> Result<String, CliError> {
    Ok(format!("{}, {}", plural(fingerprints.len(), "result"), bytes(stored_bytes(store, fingerprints)?)))
}

/// What the store only refers to counts nothing.
fn stored_bytes(store: &Store, fingerprints: &[String]) -> Result<u64, CliError> {
    let mut size_bytes = 0;
    for fingerprint in fingerprints {
        let manifest = store.lookup(fingerprint)?;
        let artifacts = manifest.iter().flat_map(|manifest| manifest.outputs.values());
        let files = artifacts.flat_map(|artifact| artifact.files.values());
        size_bytes += files.filter(|file| file.external.is_none()).map(|file| file.size_bytes).sum::<u64>();
    }
    Ok(size_bytes)
}

/// The only name that begins so.
fn find<'a>(names: &'a [String], wanted: &str, what: &str) -> Result<&'a String, CliError> {
    let found: Vec<&String> = names.iter().filter(|name| name.starts_with(wanted)).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut diagnostic = Diagnostic::new("unknown-pin", format!("no {what} begins with `{wanted}`"));
            if let Some(near) = nearest(wanted, &names) {
                diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
            }
            Err(diagnostic.into())
        }
        [first, second, ..] => {
            let message =
                format!("{} begin with `{wanted}`, such as `{first}` and `{second}`", plural(found.len(), what));
            Err(Diagnostic::new("ambiguous-pin", message).into())
        }
    }
}
