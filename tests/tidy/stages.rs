//! Rules about stage kinds: the table in `stages/README.md` is what the registry says; every stage crate has its rooms.

use pipe_contract::{ArtifactKind, StageKind};

use crate::cargo::crates;
use crate::report;
use crate::tree::root;

/// The files of every stage crate; further parts as it needs them.
const ROOMS: [&str; 5] = ["README.md", "src/lib.rs", "src/settings.rs", "src/run.rs", "src/error.rs"];

/// `model`, `model?` (may be left out), `data: packed` (a name other than its artifact kind's).
fn port(name: &str, kind: ArtifactKind, is_required: bool) -> String {
    let mark = if is_required { "" } else { "?" };
    if name == kind.name() { format!("{name}{mark}") } else { format!("{name}{mark}: {kind}") }
}

/// The row of the table for `kind`.
fn row(kind: &dyn StageKind) -> String {
    let inputs: Vec<String> = kind.inputs().iter().map(|p| port(p.name, p.kind, p.is_required)).collect();
    let outputs: Vec<String> = kind.outputs().iter().map(|p| port(p.name, p.kind, true)).collect();
    let link = format!("[{0}]({0}/README.md)", kind.name());
    format!("| {link} | {} | {} | {} |", inputs.join(", "), outputs.join(", "), kind.summary())
}

#[test]
fn the_table_of_stage_kinds_is_the_registry() {
    let text = std::fs::read_to_string(root().join("stages/README.md")).expect("stages/README.md is committed");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| [")).collect();
    let expected: Vec<String> = pipe_lm::registry::builtin().kinds().iter().map(|kind| row(*kind)).collect();
    assert!(!expected.is_empty(), "the registry is empty");
    assert_eq!(rows, expected, "the rows of the table in stages/README.md must be:\n{}\n", expected.join("\n"));
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
