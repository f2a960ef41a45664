use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use pipe_cache::{CacheError, Manifest, ManifestArtifact, Restored};

use crate::sandbox::*;

fn rows(manifest: &Manifest) -> &ManifestArtifact {
    &manifest.outputs["rows"]
}

fn paths(sandbox: &Sandbox, names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| sandbox.path("out").join(name)).collect()
}

#[test]
fn files_are_written_once_and_not_read_again() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.publish(FINGERPRINT, &[("a", "1"), ("more/b", "2")]);
    let to = sandbox.path("out");
    let first = sandbox.store.restore(rows(&manifest), &to, None).expect("restored");
    assert_eq!(first, Restored { written: paths(&sandbox, &["a", "more/b"]), ..Restored::default() });
    assert_eq!(read(&to.join("more/b")), "2");
    assert_eq!(names(&to), ["a", "more"], "no temporary file stays");

    let store = sandbox.reopen();
    let again = store.restore(rows(&manifest), &to, Some(rows(&manifest))).expect("restored");
    assert_eq!(again, Restored { unchanged: paths(&sandbox, &["a", "more/b"]), ..Restored::default() });
    assert_eq!(store.n_files_read(), 0, "what restore wrote is known without reading it");
}

#[test]
fn what_a_kill_left_half_copied_is_removed_and_nothing_else() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.publish(FINGERPRINT, &[("a", "1"), ("more/b", "2")]);
    let to = sandbox.path("out");
    fs::create_dir_all(to.join("more")).expect("a folder");
    for name in [".pipe-0123456789abcdef", "more/.pipe-fedcba9876543210", ".pipe-notes", "notes"] {
        fs::write(to.join(name), "half").expect("writable");
    }
    sandbox.store.restore(rows(&manifest), &to, None).expect("restored");
    assert_eq!(names(&to), [".pipe-notes", "a", "more", "notes"]);
    assert_eq!(names(&to.join("more")), ["b"]);
}

#[test]
fn a_user_may_write_to_a_restored_file_without_changing_the_store() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.publish(FINGERPRINT, &[("a", "bytes")]);
    let to = sandbox.path("out");
    sandbox.store.restore(rows(&manifest), &to, None).expect("restored");
    let target = fs::metadata(to.join("a")).expect("a file");
    assert_eq!(target.nlink(), 1, "never a hard link");
    assert_ne!(target.mtime(), 1, "a user sees when it was made");
    fs::write(to.join("a"), "mine!").expect("writable");
    assert_eq!(read(&blob(&sandbox.store, "bytes")), "bytes");
    assert_eq!(sandbox.store.missing(&manifest).expect("looked at"), []);
}

#[test]
fn the_bytes_of_any_earlier_artifact_are_written_over() {
    let sandbox = Sandbox::new();
    let of = |fingerprint: &str, text: &str| sandbox.publish(fingerprint, &[("a", text), ("b", text)]);
    let (old, half, new) = (of(FINGERPRINT, "1"), of(&"b".repeat(64), "2"), of(&"c".repeat(64), "3"));
    let to = sandbox.path("out");
    sandbox.store.restore(rows(&old), &to, None).expect("restored");
    // Killed after one file of two.
    fs::write(to.join("a"), "2").expect("writable");
    let restored = sandbox.store.restore_over(rows(&new), &to, &[rows(&old), rows(&half)]).expect("restored");
    assert_eq!(restored.written, paths(&sandbox, &["a", "b"]));
    assert_eq!((read(&to.join("a")), read(&to.join("b"))), ("3".into(), "3".into()));
}

#[test]
fn a_deleted_file_comes_back() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.publish(FINGERPRINT, &[("a", "1"), ("b", "2")]);
    let to = sandbox.path("out");
    sandbox.store.restore(rows(&manifest), &to, None).expect("restored");
    fs::remove_file(to.join("a")).expect("a file");
    let restored = sandbox.store.restore(rows(&manifest), &to, Some(rows(&manifest))).expect("restored");
    assert_eq!((restored.written, restored.unchanged), (paths(&sandbox, &["a"]), paths(&sandbox, &["b"])));
}

#[test]
fn an_edited_file_is_named_and_left_alone() {
    let sandbox = Sandbox::new();
    let old = sandbox.publish(FINGERPRINT, &[("a", "1"), ("b", "2")]);
    let new = sandbox.publish(FINGERPRINT_2, &[("a", "3"), ("b", "4")]);
    let to = sandbox.path("out");
    sandbox.store.restore(rows(&old), &to, None).expect("restored");
    fs::write(to.join("a"), "x").expect("an edit");
    let restored = sandbox.store.restore(rows(&new), &to, Some(rows(&old))).expect("restored");
    assert_eq!(
        restored,
        Restored { written: paths(&sandbox, &["b"]), edited: paths(&sandbox, &["a"]), ..Restored::default() }
    );
    assert_eq!((read(&to.join("a")), read(&to.join("b"))), ("x".into(), "4".into()));
}

#[test]
fn without_a_previous_artifact_nothing_is_replaced() {
    let sandbox = Sandbox::new();
    let old = sandbox.publish(FINGERPRINT, &[("a", "1"), ("b", "same")]);
    let new = sandbox.publish(FINGERPRINT_2, &[("a", "3"), ("b", "same")]);
    let to = sandbox.path("out");
    sandbox.store.restore(rows(&old), &to, None).expect("restored");
    let restored = sandbox.store.restore(rows(&new), &to, None).expect("restored");
    assert_eq!((restored.edited, restored.unchanged), (paths(&sandbox, &["a"]), paths(&sandbox, &["b"])));
    assert_eq!(read(&to.join("a")), "1");
}

#[test]
fn folders_and_links_of_the_user_are_edits() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.publish(FINGERPRINT, &[("a", "1"), ("b", "2"), ("c/d", "3")]);
    let to = sandbox.path("out");
    fs::create_dir_all(to.join("a")).expect("a folder");
    std::os::unix::fs::symlink(sandbox.path("nowhere"), to.join("b")).expect("a link");
    write(&to.join("c"), "a file where a folder should be");
    let restored = sandbox.store.restore(rows(&manifest), &to, None).expect("restored");
    assert_eq!(restored, Restored { edited: paths(&sandbox, &["a", "b", "c/d"]), ..Restored::default() });
}

#[test]
fn files_that_only_the_previous_artifact_had_are_named() {
    let sandbox = Sandbox::new();
    let old = sandbox.publish(FINGERPRINT, &[("a", "1"), ("shard-2", "2"), ("shard-3", "3")]);
    let new = sandbox.publish(FINGERPRINT_2, &[("a", "1")]);
    let to = sandbox.path("out");
    sandbox.store.restore(rows(&old), &to, None).expect("restored");
    fs::write(to.join("shard-3"), "edited").expect("an edit");
    let restored = sandbox.store.restore(rows(&new), &to, Some(rows(&old))).expect("restored");
    assert_eq!((restored.stale, restored.edited), (paths(&sandbox, &["shard-2"]), vec![]));
}

#[test]
fn what_the_store_lost_is_an_error_and_writes_nothing() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.publish(FINGERPRINT, &[("a", "bytes")]);
    write_in_place(&blob(&sandbox.store, "bytes"), "other");
    let error = sandbox.store.restore(rows(&manifest), &sandbox.path("out"), None).expect_err("the blob is damaged");
    assert!(matches!(error, CacheError::Gone { .. }), "{error}");
    assert_eq!(names(&sandbox.path("out")), Vec::<String>::new());
}

#[test]
fn an_external_file_is_copied_too() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.publish_external(&sandbox.file("rows", "bytes"));
    sandbox.store.restore(rows(&manifest), &sandbox.path("out"), None).expect("restored");
    assert_eq!(read(&sandbox.path("out/rows.jsonl")), "bytes");
}
