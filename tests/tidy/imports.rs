//! The import rule: the runner knows the contract, a stage knows the contract, and nobody else knows anybody.

use crate::cargo::{Crate, crates};
use crate::report;
use crate::tree::{root, rust_files};

/// Crates of the workspace that a crate may use: what is not listed here, it may not. `pipe-stage-*`: see [`stage_may_use`].
const MAY_USE: [(&str, &[&str]); 13] = [
    ("pipe-figures", &[]),
    ("pipe-plot", &["pipe-figures"]),
    ("pipe-settings", &[]),
    ("pipe-contract", &["pipe-figures", "pipe-settings"]),
    ("pipe-cache", &["pipe-contract"]),
    ("pipe-kernels", &[]),
    ("pipe-weights", &["pipe-contract"]),
    ("pipe-llm", &["pipe-contract", "pipe-kernels", "pipe-weights"]),
    ("pipe-records", &["pipe-contract", "pipe-weights"]),
    ("pipe-template", &["pipe-contract", "pipe-weights"]),
    ("pipe-tokenizer", &["pipe-contract", "pipe-records", "pipe-weights"]),
    // Of records only with its feature `forms`, which the runner turns on with its feature `stages`.
    ("pipe-difference", &["pipe-contract", "pipe-records"]),
    ("pipe-lm", &["pipe-cache", "pipe-contract", "pipe-difference", "pipe-settings", "pipe-stage-"]),
];

/// The stages that compute with weights; the others see files and records only.
const STAGES_WITH_WEIGHTS: [&str; 6] = [
    "pipe-stage-init",
    "pipe-stage-extend",
    "pipe-stage-train",
    "pipe-stage-evaluate",
    "pipe-stage-generate",
    "pipe-stage-export",
];

/// Heavy libraries, and the only crates that may name them.
const HEAVY: [(&str, &[&str]); 7] = [
    ("candle-", &["pipe-llm", "pipe-stage-init", "pipe-stage-train", "pipe-stage-export"]),
    (
        "arrow",
        &[
            "pipe-records",
            "pipe-difference",
            "pipe-stage-prepare",
            "pipe-stage-format",
            "pipe-stage-analyze",
            "pipe-stage-tokenize",
            "pipe-stage-train",
        ],
    ),
    ("parquet", &["pipe-records"]),
    ("tokenizers", &["pipe-tokenizer", "pipe-stage-init"]),
    ("plotters", &["pipe-plot"]),
    ("minijinja", &["pipe-template"]),
    ("ureq", &["pipe-stage-download"]),
];

/// Built with the runner alone too, so it may use nothing that takes long to build.
const LIGHT_STAGE: &str = "pipe-stage-command";

fn stage_may_use(stage: &str) -> Vec<&'static str> {
    if stage == LIGHT_STAGE {
        return vec!["pipe-contract", "pipe-settings"];
    }
    let mut allowed =
        vec!["pipe-contract", "pipe-plot", "pipe-settings", "pipe-records", "pipe-template", "pipe-tokenizer"];
    if STAGES_WITH_WEIGHTS.contains(&stage) {
        allowed.extend(["pipe-kernels", "pipe-llm", "pipe-weights"]);
    }
    allowed
}

fn may_use(name: &str) -> Vec<&'static str> {
    match MAY_USE.iter().find(|(listed, _)| *listed == name) {
        Some((_, allowed)) => allowed.to_vec(),
        None if name.starts_with("pipe-stage-") => stage_may_use(name),
        None => panic!("`{name}` is a new crate: say in tests/tidy/imports.rs what it may use"),
    }
}

/// The dependencies of `package` on crates of the workspace that the table does not allow. `prefix-` allows a family.
fn forbidden(package: &Crate, is_dev: bool) -> Vec<String> {
    let allowed = may_use(&package.name);
    let is_allowed = |name: &str| allowed.iter().any(|a| *a == name || (a.ends_with('-') && name.starts_with(a)));
    let names = if is_dev { &package.dev_dependencies } else { &package.dependencies };
    let ours = names.keys().filter(|name| name.starts_with("pipe-") && !is_allowed(name));
    ours.map(|name| format!("{}: depends on `{name}`", package.path("Cargo.toml"))).collect()
}

#[test]
fn a_crate_uses_only_what_the_import_rule_allows() {
    let crates = crates();
    assert!(crates.len() >= 15, "found {} crates only: the reader of Cargo.toml is broken", crates.len());
    let violations: Vec<String> = crates.iter().flat_map(|c| forbidden(c, false)).collect();
    report(
        "a stage knows the contract and the crates in stages/shared; nobody knows a stage or the store but the runner",
        &violations,
    );
}

#[test]
fn tests_of_a_stage_know_no_other_stage() {
    let violations: Vec<String> =
        crates().iter().filter(|c| c.name.starts_with("pipe-stage-")).flat_map(|c| forbidden(c, true)).collect();
    report("a stage is tested with files, not with another stage", &violations);
}

#[test]
fn heavy_libraries_stay_in_their_crates() {
    let mut violations = Vec::new();
    for package in crates() {
        for (library, owners) in HEAVY {
            let is_it = |name: &String| *name == library || (library.ends_with('-') && name.starts_with(library));
            let names = package.dependencies.keys().filter(|name| is_it(name));
            if !owners.contains(&package.name.as_str()) {
                violations.extend(names.map(|name| format!("{}: depends on `{name}`", package.path("Cargo.toml"))));
            }
        }
    }
    report("the runner builds without them, and a stage builds with what it needs", &violations);
}

#[test]
fn only_the_registry_names_stage_crates() {
    let (crates, mut violations) = (crates(), Vec::new());
    for file in rust_files() {
        let own = crates.iter().find(|c| c.owns(&file.path)).map_or_else(String::new, |c| c.name.replace('-', "_"));
        if file.path == "src/registry.rs" || file.path.starts_with("tests/") {
            continue;
        }
        for (number, line) in file.code_lines() {
            if line.contains("pipe_stage_") && (own.is_empty() || !line.contains(&own)) {
                violations.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    report("the runner reaches stages through `registry.rs`, a stage reaches none", &violations);
}

#[test]
fn a_module_of_the_runner_imports_only_modules_above_it() {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).expect("the runner is a library");
    let names = lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    let order: Vec<&str> = names.collect();
    let place = |name: &str| order.iter().position(|module| *module == name);
    let mut violations = Vec::new();
    for file in rust_files() {
        let module = file.path.strip_prefix("src/").and_then(|rest| rest.split(['/', '.']).next());
        let Some(own) = module.and_then(place) else { continue };
        for (number, line) in file.code_lines() {
            for rest in line.split("crate::").skip(1) {
                let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                if place(name).is_some_and(|other| other > own) {
                    violations.push(format!("{}:{number}: `{}` is above `{name}` in lib.rs", file.path, order[own]));
                }
            }
        }
    }
    assert!(order.len() > 2, "no modules found in src/lib.rs");
    report("the order of the modules in src/lib.rs is the data path", &violations);
}
