use std::sync::{Arc, Mutex};

use pipe_cache::{CacheError, Store};

use crate::crash::{Operation, Recorder};
use crate::sandbox::*;

#[test]
fn a_new_store_says_what_it_is_and_stays_out_of_repositories() {
    let sandbox = Sandbox::new();
    assert_eq!(read(&sandbox.in_store("FORMAT")), "pipe-store 1\n");
    assert_eq!(read(&sandbox.in_store(".gitignore")), "*\n");
    assert_eq!(names(sandbox.store.root()), [".gitignore", "FORMAT"]);
}

#[test]
fn opening_an_existing_store_changes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.publish(FINGERPRINT, &[("a", "1")]);
    let operations: Arc<Mutex<Vec<Operation>>> = Arc::default();
    sandbox.reopen_on(Arc::new(Recorder(operations.clone()))).expect("opened");
    assert_eq!(*operations.lock().expect("one thread"), []);
}

#[test]
fn looking_into_a_store_makes_nothing() {
    let sandbox = Sandbox::new();
    let absent = Store::open_to_read(&sandbox.path("absent")).expect("an empty store");
    assert!(absent.is_absent());
    assert_eq!(absent.lookup(FINGERPRINT).expect("looked up"), None);
    assert_eq!(absent.lookup_semantic(FINGERPRINT).expect("looked up"), None);
    assert_eq!(absent.size().expect("counted").held_bytes(), 0);
    write(&sandbox.path("a"), "bytes");
    absent.digest_file(&sandbox.path("a")).expect("read");
    assert!(!sandbox.path("absent").exists());

    let manifest = sandbox.publish(FINGERPRINT, &[("a", "1")]);
    let present = Store::open_to_read(sandbox.store.root()).expect("opened");
    assert!(!present.is_absent());
    assert_eq!(present.lookup(FINGERPRINT).expect("looked up"), Some(manifest.clone()));
    // A store whose index cannot be written, not even by root.
    std::fs::remove_dir_all(sandbox.in_store("idx")).expect("the index may be deleted");
    write(&sandbox.in_store("idx"), "");
    assert_eq!(present.lookup_semantic(&manifest.semantic_key).expect("looked up"), Some(manifest));
}

#[test]
fn a_folder_of_the_user_is_not_made_a_store() {
    let sandbox = Sandbox::new();
    write(&sandbox.path("project/notes.txt"), "mine");
    let error = Store::open(&sandbox.path("project")).expect_err("it holds other things");
    assert!(matches!(error, CacheError::NotAStore { .. }), "{error}");
    assert_eq!(names(&sandbox.path("project")), ["notes.txt"]);
}

#[test]
fn an_empty_folder_and_a_beginning_are_made_a_store() {
    let sandbox = Sandbox::new();
    write(&sandbox.path("begun/FORMAT-0123"), "pipe-");
    write(&sandbox.path("begun/.gitignore"), "*");
    std::fs::create_dir(sandbox.path("empty")).expect("a folder");
    for name in ["begun", "empty"] {
        Store::open(&sandbox.path(name)).expect("opened");
        assert_eq!(read(&sandbox.path(name).join("FORMAT")), "pipe-store 1\n");
    }
}

#[test]
fn a_store_of_another_version_is_refused() {
    let sandbox = Sandbox::new();
    write(&sandbox.in_store("FORMAT"), "pipe-store 2\n");
    let error = Store::open(sandbox.store.root()).expect_err("another version").to_string();
    assert!(error.contains("has format `pipe-store 2`, and this pipe reads `pipe-store 1`"), "{error}");
}

#[test]
fn runs_are_listed_oldest_first() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.store.latest_run().expect("listed"), None);
    for id in ["20250102-1", "20250101-9", "20250103-0"] {
        write(&sandbox.store.run_dir(id).join("events.jsonl"), "");
    }
    assert_eq!(sandbox.store.list_runs().expect("listed"), ["20250101-9", "20250102-1", "20250103-0"]);
    assert_eq!(sandbox.store.latest_run().expect("listed").as_deref(), Some("20250103-0"));
}

#[test]
fn lock_files_of_killed_processes_go_away_and_held_ones_stay() {
    let sandbox = Sandbox::new();
    let held = sandbox.store.stage_lock(FINGERPRINT, &mut |_| {}).expect("free");
    write(&sandbox.in_store("locks/of-a-killed-process.commit"), "1");
    sandbox.reopen();
    assert_eq!(names(&sandbox.in_store("locks")), [FINGERPRINT]);
    drop(held);
    assert_eq!(names(&sandbox.in_store("locks")), [""; 0]);
}
