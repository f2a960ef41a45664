//! Every fault of the stand-in hub (`tools/hub_server.md` in PIPE_TEST_DATA), on both of its origins: it ends in the right
//! bytes or in an error that says why, within a time limit; the credential stays at home, and no byte comes twice that need not.

use std::time::{Duration, Instant};

use crate::support::{Hub, Options, Outcome, WEIGHTS_SIZE_BYTES};

/// What one request may be silent for in these tests.
const VARIABLES: [(&str, &str); 3] =
    [("HF_TOKEN", "hf_alice"), ("HF_HUB_DOWNLOAD_TIMEOUT", "1"), ("HF_HUB_ETAG_TIMEOUT", "1")];
/// For what ends without waiting; the machine may be busy.
const SOON: Duration = Duration::from_secs(10);
/// For five attempts that are silent for a second each.
const FIVE_TIMES: Duration = Duration::from_secs(15);
const MODEL: &str = "{ model: acme/tiny }";

/// Downloads acme/tiny while the hub has the `faults`, and checks what holds however it ends.
fn download(hub: &Hub, faults: &[&str], limit: Duration) -> Outcome {
    for fault in faults {
        hub.fault(fault);
    }
    let began = Instant::now();
    let outcome = hub.download(MODEL, &VARIABLES);
    let elapsed = began.elapsed();
    assert!(elapsed < limit, "{faults:?}: {elapsed:?} of {limit:?}");
    assert_eq!(hub.control("GET", "stats")["auth_to_cdn"], 0, "{faults:?}: the credential went to another origin");
    assert!(hub.requests("hub").iter().all(|request| request["auth"] == true), "{faults:?}");
    assert!(!outcome.everything_said().contains("hf_alice"), "{faults:?}: {}", outcome.everything_said());
    outcome
}

/// It must end in the right bytes.
fn right(hub: &Hub, faults: &[&str]) -> Outcome {
    let outcome = download(hub, faults, SOON);
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        let expected = hub.served(&format!("models/acme/tiny/{name}"));
        assert!(hub.bytes_of(&outcome, name) == expected, "{faults:?}: {name}");
    }
    let (done, total) = *outcome.progress().last().unwrap();
    assert_eq!(done, total);
    outcome
}

/// It must end in an error that begins with `slug`, and what has arrived must go on when the trouble is over.
fn wrong(hub: &Hub, faults: &[&str], slug: &str, limit: Duration) -> Outcome {
    let outcome = download(hub, faults, limit);
    let error = outcome.error();
    assert!(error.starts_with(&format!("{slug}: ")), "{faults:?}: {error}");
    assert!(!outcome.help().is_empty(), "{faults:?}: {error} does not say what to do");
    hub.control("DELETE", "fault");
    right(hub, &[]);
    outcome
}

/// Runs `body` with a hub of its own, or skips.
fn with_hub(test: &str, body: impl FnOnce(&Hub)) {
    if let Some(hub) = Hub::start(test) {
        body(&hub);
    }
}

#[test]
fn a_pause_in_seconds_is_kept() {
    with_hub("a_pause_in_seconds_is_kept", |hub| {
        let began = Instant::now();
        let outcome = right(hub, &["kind=status&status=503&retry_after=1&path=/revision/"]);
        assert!(began.elapsed() >= Duration::from_secs(1), "it was asked to wait a second");
        // The question is asked before there is anybody to warn.
        assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
    });
}

#[test]
fn a_pause_as_a_date_is_kept() {
    with_hub("a_pause_as_a_date_is_kept", |hub| {
        let began = Instant::now();
        let outcome = right(hub, &["kind=status&status=429&retry_after=date:2&path=/tree/"]);
        assert!(began.elapsed() >= Duration::from_secs(1), "a date has whole seconds");
        assert!(
            outcome.warnings()[0].contains("answered HTTP 429 for `/api/models/acme/tiny/tree/"),
            "{:?}",
            outcome.warnings()
        );
    });
}

#[test]
fn a_pause_of_hours_is_not_waited_for() {
    with_hub("a_pause_of_hours_is_not_waited_for", |hub| {
        let outcome = wrong(hub, &["kind=status&status=429&retry_after=7200&times=-1"], "hub-status", SOON);
        assert!(outcome.error().ends_with("and asks to wait 7200 s"), "{}", outcome.error());
        assert!(outcome.help().contains("HF_TOKEN"), "{}", outcome.help());
    });
}

#[test]
fn trouble_of_the_hub_itself_passes() {
    with_hub("trouble_of_the_hub_itself_passes", |hub| {
        right(hub, &["kind=status&status=500&path=/api/&times=3", "kind=status&status=504&path=/resolve/&times=3"]);
    });
}

#[test]
fn trouble_of_the_other_origin_passes() {
    with_hub("trouble_of_the_other_origin_passes", |hub| {
        right(hub, &["kind=status&status=503&origin=cdn&times=3"]);
    });
}

#[test]
fn trouble_that_does_not_pass_is_named() {
    with_hub("trouble_that_does_not_pass_is_named", |hub| {
        let outcome = wrong(hub, &["kind=status&status=503&times=-1&path=/tree/"], "hub-status", SOON);
        assert!(outcome.error().contains("answered HTTP 503 for `/api/models/acme/tiny/tree/"), "{}", outcome.error());
    });
}

#[test]
fn an_answer_that_is_cut_off_is_asked_for_again() {
    with_hub("an_answer_that_is_cut_off_is_asked_for_again", |hub| {
        right(
            hub,
            &["kind=truncate&bytes=10&path=/api/&times=2", "kind=truncate&bytes=1&path=/resolve/.*config&times=2"],
        );
    });
}

#[test]
fn a_file_that_is_cut_off_goes_on_at_the_very_byte() {
    with_hub("a_file_that_is_cut_off_goes_on_at_the_very_byte", |hub| {
        right(hub, &["kind=truncate&bytes=100000&origin=cdn", "kind=truncate&bytes=50000&origin=cdn&after=1"]);
        assert_eq!(
            hub.spans(WEIGHTS_SIZE_BYTES),
            [(0, 100_000), (100_000, 50_000), (150_000, WEIGHTS_SIZE_BYTES as u64 - 150_000)]
        );
    });
}

#[test]
fn a_reset_at_once_is_tried_again() {
    with_hub("a_reset_at_once_is_tried_again", |hub| {
        right(
            hub,
            &["kind=reset&path=/api/&times=2", "kind=reset&path=/resolve/&times=2", "kind=reset&origin=cdn&times=2"],
        );
    });
}

#[test]
fn a_reset_inside_a_file_goes_on_where_it_ended() {
    with_hub("a_reset_inside_a_file_goes_on_where_it_ended", |hub| {
        right(hub, &["kind=reset&bytes=200000&origin=cdn"]);
        let spans = hub.spans(WEIGHTS_SIZE_BYTES);
        // What the reset threw away on this side has to come again; what was read has not.
        assert!(spans.len() == 2 && (1..=200_000).contains(&spans[1].0), "{spans:?}");
        assert_eq!(spans[1].0 + spans[1].1, WEIGHTS_SIZE_BYTES as u64);
    });
}

#[test]
fn a_reset_inside_an_answer_is_tried_again() {
    with_hub("a_reset_inside_an_answer_is_tried_again", |hub| {
        right(hub, &["kind=reset&bytes=20&path=/api/&times=2", "kind=reset&bytes=1&path=/resolve/.*config&times=1"]);
    });
}

#[test]
fn a_connection_without_an_answer_is_tried_again() {
    with_hub("a_connection_without_an_answer_is_tried_again", |hub| {
        right(
            hub,
            &["kind=drop&path=/api/&times=2", "kind=drop&path=/resolve/&times=2", "kind=drop&origin=cdn&times=2"],
        );
    });
}

#[test]
fn connections_that_are_always_dropped_are_named() {
    with_hub("connections_that_are_always_dropped_are_named", |hub| {
        wrong(hub, &["kind=drop&origin=cdn&times=-1"], "network", SOON);
    });
}

#[test]
fn a_silence_inside_a_file_ends_the_connection_not_the_download() {
    with_hub("a_silence_inside_a_file_ends_the_connection", |hub| {
        right(hub, &["kind=stall&bytes=1000&ms=4000&origin=cdn"]);
        assert_eq!(hub.spans(WEIGHTS_SIZE_BYTES).last(), Some(&(1000, WEIGHTS_SIZE_BYTES as u64 - 1000)));
    });
}

#[test]
fn a_silence_inside_an_answer_is_not_waited_for() {
    with_hub("a_silence_inside_an_answer_is_not_waited_for", |hub| {
        right(hub, &["kind=stall&bytes=10&ms=4000&path=/api/"]);
    });
}

#[test]
fn a_silence_that_comes_back_is_named() {
    with_hub("a_silence_that_comes_back_is_named", |hub| {
        let outcome = wrong(hub, &["kind=stall&bytes=0&ms=3000&origin=cdn&times=-1"], "network", FIVE_TIMES);
        assert!(outcome.error().contains("timeout"), "{}", outcome.error());
    });
}

#[test]
fn a_short_delay_is_no_trouble() {
    with_hub("a_short_delay_is_no_trouble", |hub| {
        let outcome = right(hub, &["kind=delay&ms=300&origin=*&times=-1"]);
        assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
    });
}

#[test]
fn a_long_delay_is_tried_again() {
    with_hub("a_long_delay_is_tried_again", |hub| {
        let outcome = right(hub, &["kind=delay&ms=3000&origin=cdn"]);
        assert!(outcome.warnings()[0].contains("timeout"), "{:?}", outcome.warnings());
    });
}

#[test]
fn a_hub_that_is_always_late_is_named() {
    with_hub("a_hub_that_is_always_late_is_named", |hub| {
        wrong(hub, &["kind=delay&ms=2500&times=-1"], "network", FIVE_TIMES);
    });
}

#[test]
fn slow_is_not_silent() {
    with_hub("slow_is_not_silent", |hub| {
        let outcome = right(hub, &["kind=slow&rate=200000&origin=cdn"]);
        assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
        assert_eq!(hub.spans(WEIGHTS_SIZE_BYTES), [(0, WEIGHTS_SIZE_BYTES as u64)]);
    });
}

#[test]
fn a_trickle_is_given_up() {
    with_hub("a_trickle_is_given_up", |hub| {
        let outcome = wrong(hub, &["kind=slow&rate=20&origin=cdn&times=-1"], "network", FIVE_TIMES);
        assert!(outcome.error().contains("fewer than 100 bytes a second"), "{}", outcome.error());
    });
}

#[test]
fn a_flipped_bit_in_a_large_file_is_found() {
    with_hub("a_flipped_bit_in_a_large_file_is_found", |hub| {
        let outcome = right(hub, &["kind=corrupt&origin=cdn"]);
        assert!(outcome.warnings()[0].starts_with("`model.safetensors` arrived damaged: its SHA-256 is "));
    });
}

#[test]
fn a_flipped_bit_in_a_small_file_is_found() {
    with_hub("a_flipped_bit_in_a_small_file_is_found", |hub| {
        let outcome = right(hub, &["kind=corrupt&path=/resolve/.*/config.json"]);
        assert!(outcome.warnings()[0].starts_with("`config.json` arrived damaged: its git SHA-1 is "));
    });
}

#[test]
fn bits_that_always_flip_are_named() {
    with_hub("bits_that_always_flip_are_named", |hub| {
        let outcome = wrong(hub, &["kind=corrupt&origin=cdn&times=-1"], "corrupt-download", SOON);
        assert!(outcome.error().contains("`model.safetensors` arrived damaged twice: expected SHA-256 "));
    });
}

#[test]
fn a_flipped_bit_in_a_commit_or_listing_gives_no_wrong_file() {
    with_hub("a_flipped_bit_in_a_commit_or_listing_gives_no_wrong_file", |hub| {
        // Wherever it is: in a path, a size, a checksum or the JSON between them.
        for offset in [2, 40, 75, 120, 200, 260, 300] {
            std::fs::remove_dir_all(hub.cache()).ok();
            let fault = format!("kind=corrupt&path=/api/.*/(revision|tree)/&times=2&offset={offset}");
            let outcome = download(hub, &[&fault], SOON);
            hub.control("DELETE", "fault");
            if outcome.result.is_err() {
                let slug = outcome.error();
                let known = [
                    "bad-answer",
                    "corrupt-download",
                    "entry-not-found",
                    "incomplete",
                    "network",
                    "revision-not-found",
                ];
                assert!(known.iter().any(|known| slug.starts_with(&format!("{known}: "))), "{offset}: {slug}");
            } else {
                assert!(hub.bytes_of(&outcome, "model.safetensors") == hub.weights(), "{offset}");
            }
        }
    });
}

#[test]
fn a_server_without_ranges_starts_the_file_anew() {
    with_hub("a_server_without_ranges_starts_the_file_anew", |hub| {
        right(hub, &["kind=truncate&bytes=100000&origin=cdn", "kind=norange&origin=cdn&times=-1"]);
        let requests = hub.requests("cdn");
        assert_eq!((requests.len(), requests[1]["status"].as_u64()), (2, Some(200)));
    });
}

#[test]
fn an_answer_without_a_length_is_read_to_its_end() {
    with_hub("an_answer_without_a_length_is_read_to_its_end", |hub| {
        let outcome = right(hub, &["kind=chunked&origin=*&times=-1"]);
        assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
    });
}

#[test]
fn an_answer_without_a_length_that_is_cut_off_goes_on() {
    with_hub("an_answer_without_a_length_that_is_cut_off_goes_on", |hub| {
        right(hub, &["kind=chunked&origin=cdn&times=-1", "kind=truncate&bytes=100000&origin=cdn"]);
        assert_eq!(hub.spans(WEIGHTS_SIZE_BYTES)[1].0, 100_000);
    });
}

#[test]
fn headers_that_are_left_out_are_not_needed() {
    with_hub("headers_that_are_left_out_are_not_needed", |hub| {
        for name in ["ETag", "X-Linked-ETag", "X-Linked-Size", "X-Repo-Commit", "Accept-Ranges", "Content-Type"] {
            std::fs::remove_dir_all(hub.cache()).ok();
            right(hub, &[&format!("kind=header&name={name}&origin=*&times=-1")]);
            hub.control("DELETE", "fault");
        }
        // A file ends with its last byte, though nobody says so; an answer in JSON may go on for ever.
        std::fs::remove_dir_all(hub.cache()).ok();
        right(hub, &["kind=header&name=Content-Length&path=/resolve/|/_cdn/&origin=*&times=-1"]);
        hub.control("DELETE", "fault");
        std::fs::remove_dir_all(hub.cache()).ok();
        wrong(hub, &["kind=header&name=Content-Length&path=/api/&times=-1"], "network", FIVE_TIMES);
    });
}

#[test]
fn an_answer_that_does_not_say_which_range_it_is_is_not_trusted() {
    with_hub("an_answer_that_does_not_say_which_range_it_is", |hub| {
        let cut = "kind=truncate&bytes=100000&origin=cdn";
        right(hub, &[cut, "kind=header&name=Content-Range&origin=cdn&after=1"]);
        std::fs::remove_dir_all(hub.cache()).unwrap();
        right(hub, &[cut, "kind=header&name=Content-Range&value=bytes%205-9/10&origin=cdn&after=1"]);
    });
}

#[test]
fn headers_of_another_file_are_noticed() {
    with_hub("headers_of_another_file_are_noticed", |hub| {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let fault = format!("kind=header&name=X-Repo-Commit&value={commit}&path=/resolve/.*/config.json");
        let outcome = right(hub, &[&fault]);
        assert!(outcome.warnings()[0].contains(&format!("it is of the commit {commit}")), "{:?}", outcome.warnings());
        std::fs::remove_dir_all(hub.cache()).unwrap();
        let fault = format!("kind=header&name=X-Linked-ETag&value={}&path=/resolve/.*/model", "0".repeat(64));
        let outcome = right(hub, &[&fault]);
        assert!(outcome.warnings()[0].contains("in the listing"), "{:?}", outcome.warnings());
    });
}

#[test]
fn pages_that_go_round_in_a_circle_end() {
    with_hub("pages_that_go_round_in_a_circle_end", |hub| {
        let link = "%3C/api/models/acme/tiny/tree/main%3E%3B%20rel%3D%22next%22";
        wrong(hub, &[&format!("kind=header&name=Link&value={link}&path=/tree/&times=-1")], "bad-answer", SOON);
    });
}

#[test]
fn a_redirect_to_nowhere_is_asked_for_again() {
    with_hub("a_redirect_to_nowhere_is_asked_for_again", |hub| {
        right(hub, &["kind=header&name=Location&path=/resolve/.*/model&times=1"]);
    });
}

#[test]
fn an_expired_address_is_looked_up_again() {
    with_hub("an_expired_address_is_looked_up_again", |hub| {
        right(hub, &["kind=expire&origin=cdn&times=2"]);
        let lookups = hub.log().into_iter().filter(|line| line.contains("/model.safetensors"));
        assert_eq!(lookups.count(), 3);
    });
}

#[test]
fn addresses_that_have_always_expired_are_named() {
    with_hub("addresses_that_have_always_expired_are_named", |hub| {
        let outcome = wrong(hub, &["kind=expire&origin=cdn&times=-1"], "hub-status", SOON);
        assert!(outcome.error().contains("HTTP 403"), "{}", outcome.error());
    });
}

#[test]
fn a_page_in_place_of_an_answer_is_none() {
    with_hub("a_page_in_place_of_an_answer_is_none", |hub| {
        right(hub, &["kind=html&path=/api/"]);
        std::fs::remove_dir_all(hub.cache()).unwrap();
        let outcome = wrong(hub, &["kind=html&times=-1"], "bad-answer", SOON);
        assert!(outcome.help().contains("sign-in page"), "{}", outcome.help());
    });
}

#[test]
fn a_page_in_place_of_a_file_is_none() {
    with_hub("a_page_in_place_of_a_file_is_none", |hub| {
        let outcome = right(hub, &["kind=html&origin=cdn"]);
        assert!(outcome.warnings()[0].contains("it is a page (text/html)"), "{:?}", outcome.warnings());
        std::fs::remove_dir_all(hub.cache()).unwrap();
        wrong(hub, &["kind=html&origin=cdn&times=-1"], "bad-answer", SOON);
    });
}

#[test]
fn a_hub_with_a_rate_limit_is_waited_for() {
    let options = Options { server: &["--rate-limit", "4/1"], ..Options::default() };
    let Some(hub) = Hub::start_with("a_hub_with_a_rate_limit_is_waited_for", options) else { return };
    let outcome = right(&hub, &[]);
    assert!(outcome.warnings().iter().any(|line| line.contains("HTTP 429")), "{:?}", outcome.warnings());
}

#[test]
fn pages_compression_and_cached_answers_change_nothing() {
    let options = Options { server: &["--page", "2", "--gzip", "--resolve-cache"], ..Options::default() };
    let Some(hub) = Hub::start_with("pages_compression_and_cached_answers_change_nothing", options) else { return };
    let outcome = right(&hub, &["kind=truncate&bytes=100000&origin=cdn"]);
    assert_eq!(outcome.files().len(), 4);
    let rows = hub.download("{ dataset: acme/rows, split: test }", &[]);
    assert_eq!(rows.fact("num_rows").as_deref(), Some("2"));
}
