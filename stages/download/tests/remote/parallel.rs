//! Several files, and several ranges of one file, at once.

use std::fs;

use pipe_contract::Stage as _;

use crate::support::{Hub, LARGE_SIZE_BYTES, N_SMALL_FILES, Options, Outcome};

const BIG: &str = "{ model: acme/big }";
/// As many connections as one stage opens.
const CONNECTIONS_MAX: usize = 8;

fn hub(test: &str, server: &'static [&'static str]) -> Option<Hub> {
    Hub::start_with(test, Options { server, has_large_models: true })
}

fn assert_right(hub: &Hub, outcome: &Outcome) {
    assert!(hub.bytes_of(outcome, "model.safetensors") == hub.served("models/acme/big/model.safetensors"));
    let total = (LARGE_SIZE_BYTES + hub.served("models/acme/big/config.json").len()) as u64;
    assert_eq!(outcome.progress().last(), Some(&(total, total)));
    assert!(outcome.progress().iter().all(|(done, of)| *of == total && done <= of));
}

/// How many bytes were sent more than once, or not at all.
fn n_repeated(spans: &[(u64, u64)]) -> i64 {
    spans.iter().map(|(_, sent)| *sent as i64).sum::<i64>() - LARGE_SIZE_BYTES as i64
}

#[test]
fn a_large_file_comes_in_ranges_over_several_connections() {
    let Some(hub) = hub("a_large_file_comes_in_ranges_over_several_connections", &[]) else { return };
    // Each range takes half a second, so that they are seen side by side.
    hub.fault("kind=slow&rate=16000000&origin=cdn&times=-1");
    let outcome = hub.download(BIG, &[]);
    assert_right(&hub, &outcome);
    let mut spans = hub.spans(LARGE_SIZE_BYTES);
    spans.sort_unstable();
    assert!(spans.len() >= 4, "{spans:?}");
    assert_eq!(n_repeated(&spans), 0, "{spans:?}");
    assert!(spans.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0), "{spans:?}");
    // The signed address is asked for once, not for each range.
    assert_eq!(hub.log().iter().filter(|line| line.contains("/model.safetensors")).count(), 1);
    assert!(outcome.progress().windows(2).all(|pair| pair[0].0 <= pair[1].0), "progress went back");
    let n_at_once = n_connections_at_once(&hub, "cdn");
    assert!((2..=CONNECTIONS_MAX).contains(&n_at_once), "{n_at_once}");
}

#[test]
fn a_range_that_breaks_off_goes_on_where_it_ended() {
    let Some(hub) = hub("a_range_that_breaks_off_goes_on_where_it_ended", &[]) else { return };
    hub.fault("kind=truncate&bytes=1000000&origin=cdn&times=3");
    let outcome = hub.download(BIG, &[]);
    assert_right(&hub, &outcome);
    let spans = hub.spans(LARGE_SIZE_BYTES);
    assert_eq!(n_repeated(&spans), 0, "{spans:?}");
    assert_eq!(spans.iter().filter(|(_, sent)| *sent == 1_000_000).count(), 3, "{spans:?}");
}

#[test]
fn a_range_that_arrives_damaged_is_found() {
    let Some(hub) = hub("a_range_that_arrives_damaged_is_found", &[]) else { return };
    hub.fault("kind=corrupt&origin=cdn&after=2");
    let outcome = hub.download(BIG, &[]);
    assert_right(&hub, &outcome);
    assert!(outcome.warnings()[0].contains("arrived damaged"), "{:?}", outcome.warnings());
}

#[test]
fn a_server_that_ignores_ranges_gives_the_file_over_one_connection() {
    let Some(hub) = hub("a_server_that_ignores_ranges_gives_the_file", &[]) else { return };
    hub.fault("kind=norange&origin=cdn&times=-1");
    let outcome = hub.download(BIG, &[]);
    assert_right(&hub, &outcome);
    assert_eq!(hub.spans(LARGE_SIZE_BYTES), [(0, LARGE_SIZE_BYTES as u64)]);
    assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
}

#[test]
fn a_server_that_gives_up_ranges_half_way_is_followed() {
    let Some(hub) = hub("a_server_that_gives_up_ranges_half_way_is_followed", &[]) else { return };
    hub.fault("kind=norange&origin=cdn&times=-1&after=1");
    assert_right(&hub, &hub.download(BIG, &[]));
}

#[test]
fn an_address_that_expires_between_ranges_is_asked_for_again() {
    let Some(hub) = hub("an_address_that_expires_between_ranges", &["--cdn-ttl", "1"]) else { return };
    // Two seconds pass in the first range; then it breaks off, and its address has expired.
    hub.fault("kind=slow&rate=2000000&origin=cdn&times=1");
    hub.fault("kind=truncate&bytes=5000000&origin=cdn&times=1");
    let outcome = hub.download(BIG, &[]);
    assert_right(&hub, &outcome);
    assert_eq!(hub.log().iter().filter(|line| line.contains("/model.safetensors")).count(), 2);
    assert_eq!(outcome.warnings().len(), 1, "an expired address is no trouble: {:?}", outcome.warnings());
}

#[test]
fn what_an_interrupted_download_has_left_is_kept() {
    let Some(hub) = hub("what_an_interrupted_download_has_left_is_kept", &[]) else { return };
    // Slow enough that the interruption comes in the middle.
    hub.fault("kind=slow&rate=8000000&origin=cdn&times=-1");
    let commit = hub.stage(BIG, &[]).resolve().unwrap().id;
    let outcome = hub.run_cancelled(BIG, &commit, 3_000_000);
    assert!(outcome.result.as_ref().unwrap_err().is_cancelled);
    let blobs = fs::read_dir(hub.cache().join("models--acme--big/blobs")).unwrap();
    let is_incomplete = |path: &std::path::PathBuf| path.extension().is_some_and(|ending| ending == "incomplete");
    let left = blobs.map(|entry| entry.unwrap().path()).find(is_incomplete).expect("something has arrived");
    let left = fs::read(left).unwrap();
    // Without holes: the length of the file is how far it came.
    assert!(left.len() >= 2_900_000 && hub.served("models/acme/big/model.safetensors").starts_with(&left));

    // The hub notices a moment later that nobody listens any more.
    while hub.requests("cdn").len() < 4 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    hub.control("DELETE", "fault");
    hub.control("DELETE", "log");
    let outcome = hub.run_resolved(BIG, &commit, &[]);
    assert_right(&hub, &outcome);
    let mut spans = hub.spans(LARGE_SIZE_BYTES);
    spans.sort_unstable();
    assert_eq!(spans[0].0, left.len() as u64, "{spans:?}");
    assert_eq!(n_repeated(&spans), -(left.len() as i64), "{spans:?}");
}

#[test]
fn many_small_files_come_at_once_over_a_bounded_number_of_connections() {
    let Some(hub) = hub("many_small_files_come_at_once", &[]) else { return };
    hub.fault("kind=delay&ms=500&path=/resolve/&times=-1");
    let outcome = hub.download("{ model: acme/many, files: \"*.json\" }", &[]);
    assert_eq!(outcome.files().len(), N_SMALL_FILES);
    for file in outcome.files() {
        assert_eq!(fs::read(&file.path).unwrap(), hub.served(&format!("models/acme/many/{}", file.name)));
    }
    let n_at_once = n_connections_at_once(&hub, "hub");
    assert!((2..=CONNECTIONS_MAX).contains(&n_at_once), "{n_at_once}");
}

#[test]
fn one_file_that_fails_ends_the_others_and_is_the_one_named() {
    let Some(hub) = hub("one_file_that_fails_ends_the_others", &[]) else { return };
    hub.fault("kind=status&status=404&error_code=EntryNotFound&path=/part-03&times=-1");
    let error = hub.download("{ model: acme/many, files: \"*.json\" }", &[]).error();
    assert!(error.starts_with("entry-not-found: ") && error.contains("part-03.json"), "{error}");
}

#[test]
fn the_same_file_under_two_names_is_fetched_once() {
    let Some(hub) = hub("the_same_file_under_two_names_is_fetched_once", &[]) else { return };
    let outcome = hub.download("{ model: acme/twice, files: \"*.safetensors\" }", &[]);
    assert_eq!(outcome.files().len(), 2);
    assert_eq!(outcome.files()[0].path, outcome.files()[1].path);
    assert_eq!(hub.requests("cdn").len(), 1);
}

/// The most requests of an origin that were answered at the same time.
fn n_connections_at_once(hub: &Hub, origin: &str) -> usize {
    let spans: Vec<(f64, f64)> = hub
        .requests(origin)
        .iter()
        .map(|request| {
            let begin = request["t"].as_f64().unwrap();
            (begin, begin + request["ms"].as_f64().unwrap() / 1000.0)
        })
        .collect();
    let at = |time: f64| spans.iter().filter(|(begin, end)| *begin <= time && time < *end).count();
    spans.iter().map(|(begin, _)| at(*begin)).max().unwrap_or(0)
}
