//! `stages/versions.lock`: the implementation of every stage kind, as a hash, beside its version.
//!
//! ```text
//! kind      version  hash of its code
//! tokenize  1        5a0c...
//! ```
//!
//! A stage's semantic key holds its version, not its code. So a change of code that changes bytes needs a new version, and
//! nobody remembers that: this test does. The hash covers the crate, the crates of the workspace it is built from, and the
//! packages of `Cargo.lock` they are built from, with their features. Comments, unit tests, and dev-dependencies are left out.
//!
//! `PIPE_UPDATE_VERSIONS=1 cargo test --test tidy` (`just versions`) writes the file. That is the acknowledgement:
//! whoever runs it says that the same key still gives the same bytes, or that the version is a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::cargo::{Crate, crates};
use crate::lockfile::{LockedPackage, locked_packages};
use crate::tree::{TextFile, all_files, root, rust_files};

const FILE: &str = "stages/versions.lock";
const HEAD: &str =
    "# kind, version, hash of its implementation; written by `just versions` (see tests/tidy/versions.rs)\n";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    version: u32,
    hash: String,
}

/// `stage` and every crate of the workspace it is built from, sorted by name.
fn closure<'c>(stage: &'c Crate, all: &'c BTreeMap<String, Crate>) -> Vec<&'c Crate> {
    let mut found: BTreeMap<&str, &Crate> = BTreeMap::new();
    let mut pending = vec![stage];
    while let Some(next) = pending.pop() {
        if found.insert(&next.name, next).is_none() {
            pending.extend(next.dependencies.keys().filter_map(|name| all.get(name)));
        }
    }
    found.into_values().collect()
}

/// The lines of `Cargo.lock` for everything that `names` are built from, sorted.
fn lock_slice(names: impl Iterator<Item = String>, packages: &BTreeMap<String, LockedPackage>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut pending: Vec<String> = names.collect();
    while let Some(name) = pending.pop() {
        // `[workspace.dependencies]` renames one package: `serde_yaml` is `yaml_serde` in the lock file.
        let name =
            if name == "serde_yaml" && !packages.contains_key("serde_yaml") { "yaml_serde".to_string() } else { name };
        let package = packages.get(&name).unwrap_or_else(|| panic!("`{name}` is not in Cargo.lock"));
        if lines.insert(package.line.clone()) {
            pending.extend(package.dependencies.iter().cloned());
        }
    }
    lines
}

/// BLAKE3 over length-prefixed texts, the first 32 hex digits: enough to tell two implementations apart.
fn hash_of(
    stage: &Crate,
    all: &BTreeMap<String, Crate>,
    files: &[TextFile],
    packages: &BTreeMap<String, LockedPackage>,
) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    let members = closure(stage, all);
    for member in &members {
        let sources = member.path("src/");
        for file in files.iter().filter(|f| f.path.starts_with(&sources) && !f.is_test()) {
            add(&file.path);
            let code: Vec<&str> =
                file.code_lines().map(|(_, line)| line).filter(|line| !line.trim().is_empty()).collect();
            add(&code.join("\n"));
        }
    }
    let is_source = |path: &str| members.iter().any(|member| path.starts_with(&member.path("src/")));
    for (path, _) in all_files().iter().filter(|(path, _)| is_source(path) && !path.ends_with(".rs")) {
        add(path);
        add(&blake3::hash(&std::fs::read(root().join(path)).expect("it was just listed")).to_hex());
    }
    let external = || members.iter().flat_map(|m| &m.dependencies).filter(|(name, _)| !all.contains_key(*name));
    let with_features = &all["pipe-lm"].workspace_dependencies;
    for (name, value) in external() {
        add(&format!("{name} {value} {}", with_features.get(name).map_or("", String::as_str)));
    }
    for line in lock_slice(external().map(|(name, _)| name.clone()), packages) {
        add(&line);
    }
    hasher.finalize().to_hex()[..32].to_string()
}

/// Kind -> what the code is now.
fn entries() -> BTreeMap<String, Entry> {
    let all: BTreeMap<String, Crate> = crates().into_iter().map(|c| (c.name.clone(), c)).collect();
    let (files, packages) = (rust_files(), locked_packages());
    let registry = pipe_lm::registry::builtin();
    let entry = |kind: &&dyn pipe_contract::StageKind| {
        let stage = all.get(&format!("pipe-stage-{}", kind.name())).expect("a kind's crate is named after it");
        (kind.name().to_string(), Entry { version: kind.version(), hash: hash_of(stage, &all, &files, &packages) })
    };
    registry.kinds().iter().map(entry).collect()
}

fn read(text: &str) -> BTreeMap<String, Entry> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &str| {
        let [kind, version, hash] = line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        Some((kind.to_string(), Entry { version: version.parse().ok()?, hash: hash.to_string() }))
    };
    lines.filter_map(entry).collect()
}

fn write(entries: &BTreeMap<String, Entry>) -> String {
    let mut text = HEAD.to_string();
    for (kind, Entry { version, hash }) in entries {
        writeln!(text, "{kind:<9} {version} {hash}").expect("writing to a String cannot fail");
    }
    text
}

/// What is wrong with the file, given what the code is now.
fn problems(recorded: &BTreeMap<String, Entry>, now: &BTreeMap<String, Entry>) -> Vec<String> {
    let mut problems = Vec::new();
    for (kind, entry) in now {
        match recorded.get(kind) {
            None => problems.push(format!("`{kind}` is not in {FILE}")),
            Some(old) if old.version > entry.version => {
                problems.push(format!("`{kind}` went back from version {} to {}: old artifacts would be reused", old.version, entry.version));
            }
            Some(old) if old.version != entry.version => {
                problems.push(format!("`{kind}` has version {} in {FILE}, and {} in its code", old.version, entry.version));
            }
            Some(old) if old.hash != entry.hash => problems.push(format!(
                "the implementation of `{kind}` changed: if the same key can now give other bytes, raise the version in \
                 stages/{kind}/src, with one line of reason"
            )),
            Some(_) => {}
        }
    }
    problems.extend(recorded.keys().filter(|kind| !now.contains_key(*kind)).map(|kind| format!("`{kind}` is gone")));
    problems
}

#[test]
fn versions_lock_is_what_the_code_is() {
    let now = entries();
    assert!(!now.is_empty(), "the registry is empty");
    let path = root().join(FILE);
    let recorded = read(&std::fs::read_to_string(&path).unwrap_or_default());
    if std::env::var_os("PIPE_UPDATE_VERSIONS").is_some() {
        let went_back =
            |(kind, entry): &(&String, &Entry)| recorded.get(*kind).is_some_and(|old| old.version > entry.version);
        assert!(!now.iter().any(|entry| went_back(&entry)), "{}", problems(&recorded, &now).join("\n"));
        std::fs::write(&path, write(&now)).expect("the file can be written");
        return;
    }
    let problems = problems(&recorded, &now);
    assert!(problems.is_empty(), "{}\nthen `just versions` acknowledges the change\n", problems.join("\n"));
}

#[test]
fn versions_lock_survives_writing_and_reading() {
    let entry = |version, hash: &str| Entry { version, hash: hash.into() };
    let entries: BTreeMap<String, Entry> =
        [("train".to_string(), entry(3, "ab")), ("init".to_string(), entry(1, "cd"))].into();
    assert_eq!(read(&write(&entries)), entries);
}

#[test]
fn versions_lock_sees_each_kind_of_change() {
    let one = |version, hash: &str| BTreeMap::from([("train".to_string(), Entry { version, hash: hash.into() })]);
    assert_eq!(problems(&one(1, "a"), &one(1, "a")), Vec::<String>::new());
    assert!(problems(&one(1, "a"), &one(1, "b"))[0].contains("raise the version"));
    assert!(problems(&one(1, "a"), &one(2, "b"))[0].contains("has version 1"));
    assert!(problems(&one(2, "a"), &one(1, "a"))[0].contains("went back"));
    assert!(problems(&BTreeMap::new(), &one(1, "a"))[0].contains("is not in"));
    assert!(problems(&one(1, "a"), &BTreeMap::new())[0].contains("is gone"));
}

#[test]
fn versions_hash_covers_shared_crates_and_libraries() {
    let all: BTreeMap<String, Crate> = crates().into_iter().map(|c| (c.name.clone(), c)).collect();
    let (files, packages) = (rust_files(), locked_packages());
    let stage = &all["pipe-stage-tokenize"];
    let names: Vec<&str> = closure(stage, &all).iter().map(|c| c.name.as_str()).collect();
    assert!(
        names.contains(&"pipe-contract") && names.contains(&"pipe-tokenizer") && !names.contains(&"pipe-cache"),
        "{names:?}"
    );
    let base = hash_of(stage, &all, &files, &packages);
    let edited = |path: &str, extra: &str| {
        let edit = |f: &TextFile| TextFile {
            path: f.path.clone(),
            text: if f.path == path { format!("{extra}\n{}", f.text) } else { f.text.clone() },
        };
        hash_of(stage, &all, &files.iter().map(edit).collect::<Vec<_>>(), &packages)
    };
    assert_ne!(edited("stages/shared/tokenizer/src/lib.rs", "fn f() {}"), base, "a shared crate's code counts");
    assert_eq!(edited("stages/shared/tokenizer/src/lib.rs", "// A comment."), base, "a comment does not");
    assert_eq!(edited("cache/src/lib.rs", "fn f() {}"), base, "nor does a crate it is not built from");
    let mut other = packages.clone();
    other.get_mut("tokenizers").expect("it is used").line.push('x');
    assert_ne!(hash_of(stage, &all, &files, &other), base, "a library's version counts");
}
