use std::fs;

use crate::sandbox::*;

/// An artifact's text as a stage in `store` reads it.
fn text(store: &pipe_cache::Store, manifest: &pipe_cache::Manifest) -> String {
    read(store.artifact(manifest, "rows").expect("the port is there").file("a").expect("the file is there"))
}

#[test]
fn what_is_adopted_stands_and_its_files_stay_where_they_are() {
    let (from, to) = (Sandbox::new(), Sandbox::new());
    let manifest = from.publish(FINGERPRINT, &[("a", "one")]);
    to.store.adopt(&manifest, &from.store).expect("adopted");
    let adopted = to.store.lookup(FINGERPRINT).expect("looked up").expect("it stands");
    assert_eq!(adopted.outputs["rows"].digest, manifest.outputs["rows"].digest);
    assert_eq!(to.store.missing(&adopted).expect("looked at"), []);
    assert_eq!(text(&to.store, &adopted), "one");
    assert!(!blob(&to.store, "one").exists(), "it was copied");

    fs::remove_file(blob(&from.store, "one")).expect("a blob");
    assert_eq!(to.store.missing(&adopted).expect("looked at").len(), 1);
}

#[test]
fn a_file_that_is_gone_there_is_gone_here() {
    let (from, to) = (Sandbox::new(), Sandbox::new());
    let manifest = from.publish(FINGERPRINT, &[("a", "one")]);
    fs::remove_file(blob(&from.store, "one")).expect("a blob");
    to.store.adopt(&manifest, &from.store).expect("adopted");
    let adopted = to.store.lookup(FINGERPRINT).expect("looked up").expect("it stands");
    assert_eq!(to.store.missing(&adopted).expect("looked at").len(), 1);
}

#[test]
fn made_again_over_what_was_adopted() {
    let (from, to) = (Sandbox::new(), Sandbox::new());
    let manifest = from.publish(FINGERPRINT, &[("a", "one")]);
    to.store.adopt(&manifest, &from.store).expect("adopted");
    let publication = publish(&to.store, FINGERPRINT, &[("a", "one")]).expect("published");
    assert_eq!(publication.divergence, None);
    let publication = publish(&to.store, FINGERPRINT, &[("a", "two")]).expect("published");
    let divergence = publication.divergence.expect("other bytes");
    assert_eq!(publication.manifest.outputs["rows"].digest, manifest.outputs["rows"].digest);

    // And back: the other bytes are kept in the store where the first ones stand.
    let taken = from.store.take_over(&divergence.now, &to.store).expect("taken over");
    assert_eq!(taken.manifest, manifest);
    let kept = from.store.divergences(FINGERPRINT).expect("listed");
    assert_eq!(kept.iter().map(|other| text(&from.store, other)).collect::<Vec<_>>(), ["two"]);
    assert_eq!(from.store.divergences(FINGERPRINT_2).expect("listed"), []);
}

#[test]
fn what_is_taken_over_may_be_new() {
    let (from, to) = (Sandbox::new(), Sandbox::new());
    let manifest = from.publish(FINGERPRINT, &[("a", "one")]);
    let publication = to.store.take_over(&manifest, &from.store).expect("taken over");
    assert_eq!(publication.divergence, None);
    assert_eq!(publication.manifest, manifest);
    assert_eq!(text(&to.store, &publication.manifest), "one");
    assert!(blob(&to.store, "one").exists());
}
