use std::fs;

use pipe_cache::{Manifest, ManifestDraft, Store};

use crate::sandbox::*;

fn publish_on(store: &Store, class: &str, fingerprint: &str, text: &str) -> Manifest {
    let attempt = attempt(store, fingerprint, &[("a", text)]).expect("an attempt");
    let draft = ManifestDraft { compute_class: Some(class.into()), ..draft(fingerprint) };
    store.publish(attempt, draft).expect("published").manifest
}

#[test]
fn a_manifest_of_any_class_is_found_and_the_first_one_wins() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.store.lookup_semantic(SEMANTIC_KEY).expect("looked up"), None);
    let gpu = publish_on(&sandbox.store, "sm_90", FINGERPRINT_2, "gpu");
    publish_on(&sandbox.store, "cpu", FINGERPRINT, "cpu");
    assert_eq!(sandbox.reopen().lookup_semantic(SEMANTIC_KEY).expect("looked up"), Some(gpu));
    assert_eq!(sandbox.store.lookup_semantic(FINGERPRINT).expect("looked up"), None);
}

#[test]
fn the_index_may_be_deleted_at_any_time() {
    let sandbox = Sandbox::new();
    let gpu = publish_on(&sandbox.store, "sm_90", FINGERPRINT_2, "gpu");
    sandbox.store.memo_put("datasets/tatsu-lab/alpaca@main", "0123").expect("noted");
    fs::remove_dir_all(sandbox.in_store("idx")).expect("an index");
    assert_eq!(sandbox.store.lookup_semantic(SEMANTIC_KEY).expect("looked up"), Some(gpu.clone()));
    assert_eq!(sandbox.store.memo_get("datasets/tatsu-lab/alpaca@main"), None);
    fs::remove_dir_all(sandbox.in_store("idx")).expect("an index");
    publish_on(&sandbox.store, "cpu", FINGERPRINT, "cpu");
    let found = sandbox.store.lookup_semantic(SEMANTIC_KEY).expect("looked up");
    assert!(found.is_some_and(|manifest| manifest.semantic_key == SEMANTIC_KEY));
}

#[test]
fn an_index_that_lies_is_not_believed() {
    let sandbox = Sandbox::new();
    let mine = publish_on(&sandbox.store, "cpu", FINGERPRINT, "cpu");
    assert!(sandbox.store.lookup_semantic(SEMANTIC_KEY).expect("looked up").is_some());
    let list = sandbox.in_store("idx/semantic/bb").join(FINGERPRINT_2);
    write(&list, &format!("../../FORMAT\n{FINGERPRINT_2}\n{FINGERPRINT}\n"));
    assert_eq!(sandbox.store.lookup_semantic(FINGERPRINT_2).expect("looked up"), None);
    fs::remove_file(sandbox.in_store("manifests/aa").join(FINGERPRINT)).expect("a manifest");
    assert_eq!(sandbox.store.lookup_semantic(&mine.semantic_key).expect("looked up"), None);
}

#[test]
fn notes_are_kept_by_name() {
    let sandbox = Sandbox::new();
    let store = &sandbox.store;
    assert_eq!(store.memo_get("a@main"), None);
    store.memo_put("a@main", "1").expect("noted");
    store.memo_put("a@v2", "2").expect("noted");
    store.memo_put("a@main", "3").expect("noted");
    assert_eq!(sandbox.reopen().memo_get("a@main").as_deref(), Some("3"));
    assert_eq!(store.memo_get("a@v2").as_deref(), Some("2"));
    for name in names(&sandbox.in_store("idx/memo")) {
        write(&sandbox.in_store("idx/memo").join(name), "{\"format_version\":1,");
    }
    assert_eq!(store.memo_get("a@main"), None, "half a note is none");
}
