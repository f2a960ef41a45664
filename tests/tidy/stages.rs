//! Rules about stage kinds: the table in `stages/README.md` is what the registry says; every stage crate has its rooms.

use pipe_contract::{ArtifactKind, StageKind};

use crate::cargo::crates;
use crate::report;
use crate::tree::root;

/// The files of every stage crate; further parts as it needs them.
const ROOMS: [&str; 5] = ["README.md", "src/lib.rs", "src/settings.rs", "src/run.rs", "src/error.rs"];

/// The head of the table in stages/README.md.
const TABLE_HEAD: &str = "| kind | inputs | outputs | what it does |\n|---|---|---|---|\n";

/// `model`, `model?` (may be left out), `data: packed` (a name other than its artifact kind's).
fn port(name: &str, kind: ArtifactKind, is_required: bool) -> String {
    let mark = if is_required { "" } else { "?" };
    if name == kind.name() { format!("{name}{mark}") } else { format!("{name}{mark}: {kind}") }
}

/// The row of the table for `kind`.
fn row(kind: &dyn StageKind) -> String {
    let inputs: Vec<String> = kind.inputs().iter().map(|p| port(p.name, p.kind, p.is_required)).collect();
    let outputs: Vec<String> = kind.outputs().iter().map(|p| port(p.name, p.kind, true)).collect();
    let (inputs, outputs) = match kind.has_declared_ports() {
        true => ("declared".to_string(), "declared".to_string()),
        false => (inputs.join(", "), outputs.join(", ")),
    };
    let link = format!("[{0}]({0}/README.md)", kind.name());
    format!("| {link} | {} | {} | {} |", inputs, outputs, kind.summary())
}

/// `text` with the rows of the table replaced: those that begin with a link.
fn with_rows(text: &str, rows: &[String]) -> String {
    let (before, rest) = text.split_once(TABLE_HEAD).expect("stages/README.md has the table of stage kinds");
    let after = rest.lines().skip_while(|line| line.starts_with("| ["));
    let lines: Vec<&str> = rows.iter().map(String::as_str).chain(after).collect();
    format!("{before}{TABLE_HEAD}{}\n", lines.join("\n"))
}

#[test]
fn the_table_of_stage_kinds_is_the_registry() {
    let path = root().join("stages/README.md");
    let text = std::fs::read_to_string(&path).expect("stages/README.md is committed");
    let rows: Vec<String> = pipe_lm::registry::builtin().kinds().iter().map(|kind| row(*kind)).collect();
    assert!(!rows.is_empty(), "the registry is empty");
    let expected = with_rows(&text, &rows);
    if std::env::var_os("PIPE_UPDATE_VERSIONS").is_some() {
        std::fs::write(&path, expected).expect("the file can be written");
        return;
    }
    assert!(
        text == expected,
        "`just versions` writes the table in stages/README.md, which must be:\n{}\n",
        rows.join("\n")
    );
}

#[test]
fn every_stage_crate_is_a_kind_and_has_its_rooms() {
    let registry = pipe_lm::registry::builtin();
    let mut violations = Vec::new();
    for package in crates() {
        let Some(kind) = package.name.strip_prefix("pipe-stage-") else { continue };
        if registry.get(kind).is_none() {
            violations.push(format!("{}: no kind `{kind}` in the registry", package.folder));
        }
        let missing = ROOMS.iter().filter(|room| !root().join(package.path(room)).exists());
        violations.extend(missing.map(|room| format!("{}: no such file", package.path(room))));
    }
    report("all stage crates have the same rooms", &violations);
}
