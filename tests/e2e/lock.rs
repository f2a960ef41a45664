//! The lock file: names are resolved once.

use std::fs;

use crate::kinds::{n_questions, set_remote};
use crate::sandbox::Sandbox;

fn sandbox(name: &str) -> Sandbox {
    set_remote(name, "c0ffee");
    Sandbox::with_stages(&format!("  rows: {{ uses: remote, with: {{ value: {name} }} }}\n"))
}

#[test]
fn a_name_is_resolved_once() {
    let sandbox = sandbox("once");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows ran");
    set_remote("once", "decade");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused");
    assert_eq!(n_questions("once"), 1);
    insta::assert_snapshot!(sandbox.read("p.lock"), @r#"
    {
      "format_version": 1,
      "outputs": {
        "f8d5cd4d1067b40f7144aa1011322ba0c0172a47c0963ac930030b7a9dbaab1e": {
          "rows": "582728390ab1a298a0a676b8f394a659b34a908218e7515debbe1cd0ab0cfc99"
        }
      },
      "resolved": {
        "things/once@main": "c0ffee"
      }
    }
    "#);
}

#[test]
fn the_lock_file_alone_is_enough() {
    let sandbox = sandbox("lock-alone");
    sandbox.outcomes("run p.yaml");
    fs::remove_dir_all(sandbox.path(".pipe")).expect("a store can be removed");
    set_remote("lock-alone", "decade");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows ran");
    assert_eq!(n_questions("lock-alone"), 1);
    assert_eq!(fs::read_to_string(&sandbox.blobs()[0]).expect("a blob"), "lock-alone at c0ffee");
}

#[test]
fn the_store_alone_is_enough_and_writes_the_lock_file_again() {
    let sandbox = sandbox("store-alone");
    sandbox.outcomes("run p.yaml");
    let before = sandbox.read("p.lock");
    fs::remove_file(sandbox.path("p.lock")).expect("a lock file can be removed");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused");
    assert_eq!((n_questions("store-alone"), sandbox.read("p.lock")), (1, before));
}

#[test]
fn it_is_not_written_when_nothing_changed() {
    let sandbox = sandbox("not-written");
    sandbox.outcomes("run p.yaml");
    let modified = || fs::metadata(sandbox.path("p.lock")).expect("it is there").modified().expect("a time");
    let before = modified();
    sandbox.outcomes("run p.yaml");
    assert_eq!(modified(), before);
}

#[test]
fn a_merge_conflict_in_it_is_named() {
    let sandbox = sandbox("conflict");
    sandbox.write("p.lock", "<<<<<<< HEAD\n");
    screen!(sandbox.pipe("run p.yaml"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[lock-file]: the lock file `[dir]/p.lock` cannot be read: expected value at line 1 column 1
    help: repair it, or delete it: `pipe update FILE` asks for every revision again and writes it
    ");
}

#[test]
fn a_newer_one_is_left_alone() {
    let sandbox = sandbox("newer");
    sandbox.write("p.lock", "{\"format_version\": 99}");
    let output = sandbox.pipe("run p.yaml --threads 1");
    assert_eq!(output.code, 0);
    assert!(output.err.contains("warning: `[dir]/p.lock` is of another version of pipe"), "{}", output.err);
    assert_eq!(sandbox.read("p.lock"), "{\"format_version\": 99}");
}
