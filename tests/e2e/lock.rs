//! The lock file: names are resolved once.

use std::fs;

use std::collections::HashSet;

use pipe_lm::lockfile::LockFile;

use crate::kinds::{n_questions, set_remote};
use crate::sandbox::Sandbox;
use crate::simulated_disk::{Forgets, SimulatedDisk, State, materialize};

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

/// What a power cut leaves of a lock file that is written, before `save` returned and after: its text, `None` where it is
/// not there.
fn texts_after_power_cut(before: Option<&str>, forgets: Forgets) -> [HashSet<Option<String>>; 2] {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("p.lock");
    before.inspect(|text| fs::write(&path, text).expect("writable"));
    let disk = SimulatedDisk::new(folder.path(), forgets);
    let mut lock = LockFile::load(&path).expect("it reads");
    // More than a sector of 512 bytes.
    for number in 0..30 {
        lock.resolve(&format!("datasets/{number}@main"), "dce01c9b08f87459cf36a430d809084718273017");
    }
    assert!(lock.save_on(&*disk).expect("it is written"));
    let written = disk.now();
    let mut texts = [HashSet::new(), HashSet::new()];
    let mut n_states = 0;
    for moment in disk.moments() {
        let (states, is_all) = disk.crash_states(moment, 2000);
        assert!(is_all);
        n_states += states.len();
        texts[usize::from(moment >= written)].extend(states.iter().map(text_of_lock));
    }
    eprintln!("{forgets:?} forgotten, {} before: {n_states} states", before.map_or("nothing", |_| "a lock file"));
    texts
}

fn text_of_lock(state: &State) -> Option<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    materialize(state, folder.path());
    fs::read_to_string(folder.path().join("p.lock")).ok()
}

#[test]
fn a_power_cut_leaves_the_old_text_or_the_new() {
    let old = "{ \"format_version\": 1, \"resolved\": { \"models/b@main\": \"22\" } }";
    for before in [None, Some(old)] {
        let [during, after] = texts_after_power_cut(before, Forgets::Nothing);
        assert_eq!(during.len(), 2, "{during:?}");
        assert!(during.contains(&before.map(str::to_string)), "the old text");
        let new = after.iter().next().cloned().flatten().expect("it is there");
        assert!(after.len() == 1 && during.contains(&Some(new.clone())), "{after:?}");
        serde_json::from_str::<serde_json::Value>(&new).expect("the new text");
    }
    // The search finds what it should.
    assert!(texts_after_power_cut(Some(old), Forgets::FileSyncs)[0].len() > 2, "a torn file");
    assert!(texts_after_power_cut(Some(old), Forgets::FolderSyncs)[1].len() > 1, "the old text after it was written");
}
