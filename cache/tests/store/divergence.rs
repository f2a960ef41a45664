use std::fs;

use pipe_cache::ManifestDraft;

use crate::sandbox::*;

#[test]
fn the_first_manifest_stays_and_both_are_kept() {
    let sandbox = Sandbox::new();
    let first = sandbox.publish(FINGERPRINT, &[("a", "one")]);
    let publication = publish(&sandbox.store, FINGERPRINT, &[("a", "two")]).expect("published");
    assert_eq!(publication.manifest, first);
    let divergence = publication.divergence.expect("a divergence");
    assert_eq!(divergence.before, first);
    let other = divergence.now;
    assert_ne!(other.outputs["rows"].digest, first.outputs["rows"].digest);
    assert_eq!(sandbox.store.lookup(FINGERPRINT).expect("looked up"), Some(first));
    assert_eq!(read(&blob(&sandbox.store, "two")), "two");
    assert_eq!(names(&sandbox.in_store("divergences/aa")).len(), 1);
}

#[test]
fn the_same_bytes_again_are_no_divergence() {
    let sandbox = Sandbox::new();
    let first = sandbox.publish(FINGERPRINT, &[("a", "one")]);
    let publication = publish(&sandbox.store, FINGERPRINT, &[("a", "one")]).expect("published");
    assert_eq!((publication.manifest, publication.divergence), (first, None));
}

#[test]
fn a_first_manifest_whose_files_are_gone_makes_way() {
    let sandbox = Sandbox::new();
    let first = sandbox.publish(FINGERPRINT, &[("a", "one")]);
    fs::remove_file(blob(&sandbox.store, "one")).expect("a blob");
    let publication = publish(&sandbox.store, FINGERPRINT, &[("a", "two")]).expect("published");
    let divergence = publication.divergence.expect("a divergence");
    assert_eq!((divergence.before, &divergence.now), (first, &publication.manifest));
    let standing = sandbox.store.lookup(FINGERPRINT).expect("looked up").expect("there");
    assert_eq!(standing, publication.manifest);
    assert_eq!(sandbox.store.missing(&standing).expect("looked at"), []);
}

#[test]
fn a_file_downloaded_again_is_found_at_its_new_place() {
    let sandbox = Sandbox::new();
    let old = sandbox.publish_external(&sandbox.file("old", "bytes"));
    fs::remove_file(sandbox.path("old")).expect("a file");
    assert_eq!(sandbox.store.missing(&old).expect("looked at").len(), 1);

    let attempt = sandbox.store.begin(FINGERPRINT).expect("an attempt");
    let external = vec![external("rows.jsonl", &sandbox.file("new", "bytes"))];
    let publication =
        sandbox.store.publish(attempt, ManifestDraft { external, ..draft(FINGERPRINT) }).expect("published");
    assert_eq!(publication.divergence, None);
    let standing = sandbox.store.lookup(FINGERPRINT).expect("looked up").expect("there");
    assert_eq!(sandbox.store.missing(&standing).expect("looked at"), []);
    assert_eq!(standing.outputs["rows"].digest, old.outputs["rows"].digest);
}
