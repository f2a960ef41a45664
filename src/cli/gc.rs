//! `pipe cache gc`: removes what no root keeps; without `--yes` it says what it would remove.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pipe_cache::{GcPlan, RemovalKind, Removed, SizeOf, Store};

use super::arguments::GcArguments;
use super::cache::{Answer, size_to_json};
use super::failure::CliError;
use super::session::Session;
use crate::diagnostic::Diagnostic;
use crate::exit_code;
use crate::report::numbers::{bytes, plural};
use crate::roots::{FoundRoots, find_roots};
use crate::spec::parse_memory;

/// How many of the largest files are named.
const N_NAMED: usize = 5;

pub(super) fn gc(session: &mut Session<'_>, arguments: &GcArguments, answer: Answer) -> Result<u8, CliError> {
    let max_bytes = arguments.max_size.as_deref().map(read_size).transpose()?;
    if session.open_store_to_read()?.is_absent() && answer == Answer::Text {
        let line = format!("there is no store in {}\n", session.store_as_given.display());
        session.write(&line)?;
        return Ok(exit_code::OK);
    }
    let needs_use = max_bytes.is_some();
    let (found, plan, removed) = if arguments.yes {
        let store = Store::open(&session.store_dir())?;
        // Before the roots are read: what becomes one from here on is held.
        let gc = store.begin_gc()?;
        let found = find_roots(&store, arguments.keep_runs, needs_use)?;
        let plan = store.plan_gc(&found.roots, max_bytes)?;
        let removed = gc.remove(&plan)?;
        (found, plan, Some(removed))
    } else {
        let store = session.open_store_to_read()?;
        let found = find_roots(&store, arguments.keep_runs, needs_use)?;
        let plan = store.plan_gc(&found.roots, max_bytes)?;
        (found, plan, None)
    };
    if answer == Answer::Json {
        return session.write_json(to_json(&found, &plan, removed.as_ref())).map(|()| exit_code::OK);
    }
    let text = match &removed {
        Some(removed) => show_removed(&found, &plan, removed, max_bytes),
        None => show_plan(&found, &plan, max_bytes),
    };
    session.write(&text)?;
    Ok(exit_code::OK)
}

fn read_size(text: &str) -> Result<u64, CliError> {
    parse_memory(text).ok_or_else(|| {
        let message = format!("--max-size is `{text}`, but must be a size with a unit");
        Diagnostic::new("bad-size", message).help("write `20GB` or `512MiB`").into()
    })
}

fn show_plan(found: &FoundRoots, plan: &GcPlan, max_bytes: Option<u64>) -> String {
    let mut sizes: BTreeMap<RemovalKind, SizeOf> = BTreeMap::new();
    for removal in &plan.removals {
        let size = sizes.entry(removal.kind).or_default();
        size.n_files += removal.size.n_files;
        size.size_bytes += removal.size.size_bytes;
    }
    let mut text = sizes_as_lines("would remove", &sizes);
    let mut largest: Vec<_> = plan.removals.iter().filter(|removal| removal.what.is_some()).collect();
    largest.sort_by(|a, b| (b.size.size_bytes, &a.path).cmp(&(a.size.size_bytes, &b.path)));
    for removal in largest.iter().take(N_NAMED) {
        let what = removal.what.as_deref().unwrap_or_default();
        writeln!(text, "{:12}  {:>9}    {what}", "", bytes(removal.size.size_bytes)).expect("to a String");
    }
    if largest.len() > N_NAMED {
        writeln!(text, "{:12}  {:9}    and {} more", "", "", largest.len() - N_NAMED).expect("to a String");
    }
    text.push_str(&show_kept(found, plan, max_bytes));
    let end = if sizes.is_empty() { "there is nothing to remove\n" } else { "nothing was removed: --yes removes it\n" };
    text.push_str(end);
    text
}

fn show_removed(found: &FoundRoots, plan: &GcPlan, removed: &Removed, max_bytes: Option<u64>) -> String {
    let mut text = sizes_as_lines("removed", &removed.sizes);
    if removed.spared.n_files > 0 {
        let n = plural(usize::try_from(removed.spared.n_files).unwrap_or(usize::MAX), "file");
        writeln!(text, "left alone    {n} that a pipeline uses by now").expect("to a String");
    }
    text.push_str(&show_kept(found, plan, max_bytes));
    if removed.sizes.is_empty() {
        text.push_str("there was nothing to remove\n");
    }
    text
}

fn sizes_as_lines(verb: &str, sizes: &BTreeMap<RemovalKind, SizeOf>) -> String {
    let mut text = String::new();
    for (kind, size) in sizes.iter().rev() {
        let what = match kind {
            RemovalKind::Blob => "of artifacts",
            RemovalKind::Checkpoint => "of training state",
            RemovalKind::SetAside => "that `verify` set aside",
        };
        writeln!(text, "{verb:<12}  {:>9}  {} {what}", bytes(size.size_bytes), n_files(*size)).expect("to a String");
    }
    text
}

fn show_kept(found: &FoundRoots, plan: &GcPlan, max_bytes: Option<u64>) -> String {
    let reasons = [
        plural(found.lock_files.len(), "lock file"),
        plural(found.n_runs, "run"),
        plural(plan.n_pins, "pin"),
        plural(plan.n_holds, "running pipeline"),
    ];
    let mut text = format!(
        "{:<12}  {:>9}  {} of artifacts: {}\n",
        "kept",
        bytes(plan.kept.size_bytes),
        n_files(plan.kept),
        reasons.join(", ")
    );
    if let Some(max_bytes) = max_bytes.filter(|max_bytes| plan.held_bytes > *max_bytes) {
        let (held, max) = (bytes(plan.held_bytes), bytes(max_bytes));
        writeln!(text, "the store then holds {held}, more than {max}: the rest is kept").expect("to a String");
    }
    text
}

fn n_files(size: SizeOf) -> String {
    plural(usize::try_from(size.n_files).unwrap_or(usize::MAX), "file")
}

/// `removed` is null where nothing was to be removed yet.
fn to_json(found: &FoundRoots, plan: &GcPlan, removed: Option<&Removed>) -> serde_json::Value {
    let word = |kind: &RemovalKind| match kind {
        RemovalKind::Blob => "artifacts",
        RemovalKind::Checkpoint => "training_state",
        RemovalKind::SetAside => "set_aside",
    };
    let removal = |removal: &pipe_cache::Removal| {
        let mut json = size_to_json(removal.size);
        json["kind"] = word(&removal.kind).into();
        json["path"] = removal.path.display().to_string().into();
        json["what"] = removal.what.clone().into();
        json
    };
    let removed = removed.map(|removed| {
        let sizes = removed.sizes.iter().map(|(kind, size)| (word(kind).to_string(), size_to_json(*size)));
        let sizes: serde_json::Map<String, serde_json::Value> = sizes.collect();
        serde_json::json!({ "sizes": sizes, "spared": size_to_json(removed.spared) })
    });
    serde_json::json!({
        "removals": plan.removals.iter().map(removal).collect::<Vec<_>>(),
        "removed": removed,
        "kept": size_to_json(plan.kept),
        "held_bytes": plan.held_bytes,
        "roots": {
            "n_lock_files": found.lock_files.len(),
            "n_runs": found.n_runs,
            "n_pins": plan.n_pins,
            "n_holds": plan.n_holds,
        },
    })
}
