//! Rules about files: their length, their place, what they may hold.

use std::collections::BTreeSet;

use crate::cargo::crates;
use crate::report;
use crate::tree::{all_files, root, rust_files, text_files};

/// STYLE.md: one idea a file; beyond this it holds two.
const LINES_MAX: usize = 600;
/// The contract must fit into one sitting.
const CONTRACT_LINES_MAX: usize = 600;
/// A clone stays small; larger data is made by a script or read from `PIPE_TEST_DATA`.
const FIXTURE_BYTES_MAX: u64 = 300_000;
/// Where `unsafe` may stand, with its reason beside it.
const UNSAFE_IN: [&str; 3] = ["stages/shared/kernels/", "stages/shared/llm/src/map.rs", "src/main.rs"];

#[test]
fn a_file_has_at_most_600_lines_without_its_tests() {
    let long = |file: &crate::tree::TextFile| {
        let n_lines = file.lines_without_tests().count();
        (n_lines > LINES_MAX && !file.is_test()).then(|| format!("{}: {n_lines} lines", file.path))
    };
    let violations: Vec<String> = rust_files().iter().filter_map(long).collect();
    report("a file of more than 600 lines holds two ideas", &violations);
}

#[test]
fn the_contract_stays_small() {
    let files = rust_files();
    let contract = files.iter().filter(|f| f.path.starts_with("stages/shared/contract/src/"));
    let n_lines: usize = contract.map(|f| f.lines_without_tests().count()).sum();
    assert!(n_lines > 0, "the contract has moved: say where in tests/tidy/files.rs");
    assert!(n_lines < CONTRACT_LINES_MAX, "the contract has {n_lines} lines; it must stay below {CONTRACT_LINES_MAX}");
}

#[test]
fn every_crate_says_what_it_is() {
    let mut violations = Vec::new();
    for package in crates() {
        let lib = package.path("src/lib.rs");
        let text = std::fs::read_to_string(root().join(&lib)).unwrap_or_default();
        if !text.starts_with("//!") {
            violations.push(format!("{lib}: no module docs at its top"));
        }
        if package.name.starts_with("pipe-stage-") && !root().join(package.path("README.md")).exists() {
            violations.push(format!("{}: no such file", package.path("README.md")));
        }
    }
    report("a crate opens with module docs, and a stage crate has a README.md", &violations);
}

#[test]
fn every_rust_file_is_compiled() {
    let files = rust_files();
    let mut declared = BTreeSet::new();
    for file in &files {
        let names = file.text.lines().filter_map(|line| {
            let line = line.trim();
            let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
            line.strip_prefix("mod ")?.split([';', ' ']).next()
        });
        // `a/b.rs` is declared by a file beside it, or by `a.rs`, `a/mod.rs`, ...: the folder's name is enough here.
        let folder = file
            .path
            .trim_end_matches(".rs")
            .trim_end_matches("/mod")
            .trim_end_matches("/lib")
            .trim_end_matches("/main");
        let beside = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for name in names {
            declared.insert(format!("{folder}/{name}"));
            declared.insert(format!("{beside}/{name}"));
        }
    }
    let is_root = |path: &str| {
        let parts: Vec<&str> = path.split('/').collect();
        let [.., folder, name] = parts.as_slice() else { return true };
        matches!(*name, "lib.rs" | "main.rs" | "build.rs")
            || matches!(*folder, "tests" | "benches" | "examples" | "bin")
    };
    let forgotten = files.iter().filter(|f| !is_root(&f.path));
    let forgotten = forgotten.filter(|f| !declared.contains(f.path.trim_end_matches(".rs").trim_end_matches("/mod")));
    let mut violations: Vec<String> = forgotten.map(|f| format!("{}: no `mod` names it", f.path)).collect();
    let manifests = text_files(|path| path.ends_with("Cargo.toml"));
    violations
        .extend(manifests.iter().filter(|m| m.text.contains("autotests")).map(|m| format!("{}: autotests", m.path)));
    report("a file that nothing compiles cannot fail", &violations);
}

#[test]
fn unsafe_code_stays_where_it_is_justified() {
    let mut violations = Vec::new();
    for file in rust_files() {
        let is_allowed = UNSAFE_IN.iter().any(|place| file.path.starts_with(place));
        if is_allowed || file.path.starts_with("tests/tidy/") {
            continue;
        }
        for (number, line) in file.code_lines() {
            let code = line.split("//").next().unwrap_or(line);
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.into_iter().any(|word| word == "unsafe") {
                violations.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    report(
        "`unsafe` only in pipe-kernels, where weights are mapped, and in the first line of the program",
        &violations,
    );
}

#[test]
fn fixtures_are_small() {
    let large = |(path, size): &(String, u64)| (*size > FIXTURE_BYTES_MAX).then(|| format!("{path}: {size} bytes"));
    // The lock file is Cargo's.
    let violations: Vec<String> =
        all_files().iter().filter(|(path, _)| path != "Cargo.lock").filter_map(large).collect();
    report("a file of more than 300 KB is made by a script or read from PIPE_TEST_DATA", &violations);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut violations = Vec::new();
    for file in text_files(|path| path.ends_with(".md")) {
        let folder = root().join(&file.path).parent().expect("a file has a folder").to_path_buf();
        for (index, line) in file.text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target)) {
                let path = target.split('#').next().unwrap_or_default();
                if !path.is_empty() && !path.contains("://") && !folder.join(path).exists() {
                    violations.push(format!("{}:{}: {target}", file.path, index + 1));
                }
            }
        }
    }
    report("a link to a file that does not exist", &violations);
}
