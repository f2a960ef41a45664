//! Repositories: what is found, under which revision, in which layout of the cache, and what is said where it is not.

use std::fs;
use std::path::Path;

use crate::support::{Hub, skip_without_test_data};
use pipe_contract::{Source, Stage as _};

#[test]
fn real_files_arrive_in_the_layout_of_huggingface_hub_and_are_not_asked_for_again() {
    let Some(data) = skip_without_test_data("real_files_arrive_in_the_layout_of_huggingface_hub") else { return };
    let hub = Hub::of_real_files(&data);
    let model = hub.download("{ model: karpathy/stories260K }", &[]);
    let names: Vec<&str> = model.files().iter().map(|file| file.name.as_str()).collect();
    let expected = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected);
    let repository = hub.cache().join("models--karpathy--stories260K");
    let commit = fs::read_to_string(repository.join("refs/main")).unwrap();
    for file in model.files() {
        let bytes = fs::read(data.join("models/stories260K").join(&file.name)).unwrap();
        assert_eq!(fs::read(&file.path).unwrap(), bytes, "{}", file.name);
        assert_eq!(file.digest.as_deref(), Some(blake3::hash(&bytes).to_hex().as_str()));
        let link = fs::read_link(repository.join("snapshots").join(&commit).join(&file.name)).unwrap();
        let etag = file.path.file_name().unwrap();
        assert_eq!(link, Path::new("../../blobs").join(etag));
        assert_eq!(file.path, fs::canonicalize(repository.join("blobs").join(etag)).unwrap());
    }
    assert_eq!(model.fact("architecture").as_deref(), Some("LlamaForCausalLM"));

    let rows = hub.download("{ dataset: tatsu-lab/alpaca }", &[]);
    assert_eq!(rows.fact("num_rows").as_deref(), Some("2,000"));
    let features = "instruction: string, input: string, output: string, text: string";
    assert_eq!(rows.fact("features").as_deref(), Some(features));
    let names: Vec<&str> = rows.files().iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| name.starts_with("data/train-0000")), "{names:?}");

    hub.control("DELETE", "log");
    let again = hub.run_resolved("{ dataset: tatsu-lab/alpaca }", &rows.commit, &[]);
    assert_eq!(again.digests(), rows.digests());
    assert_eq!(hub.log(), Vec::<String>::new());
}

#[test]
fn a_damaged_body_is_downloaded_again_once() {
    let Some(hub) = Hub::start("a_damaged_body_is_downloaded_again_once") else { return };
    hub.fault("kind=corrupt&origin=cdn");
    let outcome = hub.download("{ model: acme/tiny }", &[]);
    assert_eq!(hub.bytes_of(&outcome, "model.safetensors"), hub.weights());
    assert!(outcome.warnings()[0].starts_with("`model.safetensors` arrived damaged: its SHA-256 is "));

    hub.fault("kind=corrupt&path=config.json&times=-1");
    let error = hub.download("{ model: acme/other }", &[]).error();
    assert!(error.starts_with("corrupt-download: `config.json` arrived damaged twice: expected git SHA-1 "), "{error}");
    let expected = error.split_ascii_whitespace().find(|word| word.len() == 41).unwrap().trim_end_matches(',');
    for name in [expected.to_string(), format!("{expected}.incomplete")] {
        let blob = hub.cache().join("models--acme--other/blobs").join(name);
        assert!(!blob.exists(), "a damaged file must not stay in the cache");
    }
}

#[test]
fn a_file_that_another_process_left_half_goes_on() {
    let Some(hub) = Hub::start("a_file_that_another_process_left_half_goes_on") else { return };
    let etag = hub.sha256_of_weights();
    let blobs = hub.cache().join("models--acme--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{etag}.incomplete")), &hub.weights()[..123_456]).unwrap();
    let outcome = hub.download("{ model: acme/tiny }", &[]);
    assert_eq!(hub.bytes_of(&outcome, "model.safetensors"), hub.weights());
    let requests = hub.requests("cdn");
    assert_eq!((requests.len(), requests[0]["range"].as_str()), (1, Some("bytes=123456-")));
}

#[test]
fn gated_and_private_repositories_say_what_to_do() {
    let Some(hub) = Hub::start("gated_and_private_repositories_say_what_to_do") else { return };
    let gated = "{ model: acme/gated }";
    let outcome = hub.download(gated, &[]);
    assert_eq!(outcome.error(), "gated: model `acme/gated` is gated: it needs an account");
    let help = outcome.help();
    assert!(help.contains("/acme/gated, then set HF_TOKEN") && help.contains("/settings/tokens"), "{help}");

    let outcome = hub.download(gated, &[("HF_TOKEN", "hf_bob")]);
    assert_eq!(outcome.error(), "gated: model `acme/gated` is gated: your account has no access to it");

    let outcome = hub.download(gated, &[("HF_TOKEN", "hf_alice")]);
    assert_eq!(hub.bytes_of(&outcome, "model.safetensors"), hub.weights());
    assert!(!format!("{:?}", hub.stage(gated, &[("HF_TOKEN", "hf_alice")]).environment).contains("hf_alice"));
    // The address of the bytes is on another origin, which must not see the credential.
    assert_eq!(hub.control("GET", "stats")["auth_to_cdn"], 0);
    assert!(hub.requests("hub").iter().all(|request| request["auth"] != serde_json::Value::Null));

    let error = hub.download("{ model: acme/secret }", &[]).error();
    assert!(
        error.starts_with("repository-not-found: model `acme/secret` was not found on http://127.0.0.1"),
        "{error}"
    );
    let error = hub.download("{ model: acme/secret }", &[("HF_TOKEN", "hf_wrong")]).error();
    assert!(error.starts_with("unauthorised: "), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let Some(hub) = Hub::start("what_is_missing_is_named") else { return };
    let error = |settings: &str| hub.download(settings, &[("HF_TOKEN", "hf_alice")]).error();
    let found = error("{ model: acme/none }");
    assert!(found.starts_with("repository-not-found: model `acme/none` was not found on "), "{found}");
    let found = error("{ dataset: acme/rows, revision: v9 }");
    assert_eq!(found, "revision-not-found: data set `acme/rows` has no revision `v9`");
    let found = error("{ dataset: acme/rows, split: dev }");
    assert_eq!(
        found,
        "no-split: data set `acme/rows` has no data file of the split `dev`; its data files are `data/test.jsonl`, `data/train.jsonl`"
    );
    let found = error("{ model: acme/tiny, files: [\"*.gguf\"] }");
    assert!(found.starts_with("no-match: no file of model `acme/tiny` matches `*.gguf`; its files are "), "{found}");
    let found = error("{ adapter: acme/pickle }");
    assert!(found.starts_with("only-pickle: "), "{found}");
    let pickle = hub.download("{ model: acme/pickle }", &[]);
    assert_eq!(hub.bytes_of(&pickle, "pytorch_model.bin"), b"PK");
}

#[test]
fn what_to_do_is_said_with_each_error() {
    let Some(hub) = Hub::start("what_to_do_is_said_with_each_error") else { return };
    for (settings, token, slug, help) in [
        ("{ model: acme/none }", "", "repository-not-found", "check the name; for a private repository set HF_TOKEN"),
        ("{ model: acme/none }", "hf_alice", "repository-not-found", "the account of HF_TOKEN may see it"),
        ("{ model: acme/secret }", "hf_bob", "repository-not-found", "the account of HF_TOKEN may see it"),
        ("{ model: acme/gated }", "hf_bob", "gated", "ask for access at http://"),
        ("{ model: acme/tiny, revision: v9 }", "hf_alice", "revision-not-found", "without `revision` it is `main`"),
        ("{ model: acme/tiny, files: nothing.bin }", "", "no-match", "`files`"),
    ] {
        let outcome = hub.download(settings, &[("HF_TOKEN", token)]);
        assert!(outcome.error().starts_with(&format!("{slug}: ")), "{settings}: {}", outcome.error());
        assert!(outcome.help().contains(help), "{settings}: {}", outcome.help());
    }
    hub.fault("kind=status&status=404&error_code=EntryNotFound&path=/resolve/.*/config.json&times=-1");
    let outcome = hub.download("{ model: acme/tiny }", &[]);
    assert!(outcome.error().starts_with("entry-not-found: model `acme/tiny` has no file `"), "{}", outcome.error());
    assert!(outcome.help().contains("run it again"), "{}", outcome.help());
}

#[test]
fn patterns_are_those_of_huggingface_hub() {
    let Some(hub) = Hub::start("patterns_are_those_of_huggingface_hub") else { return };
    for (settings, expected) in [
        ("{ model: acme/tiny, files: \"tokenizer*\" }", &["tokenizer.json", "tokenizer_config.json"][..]),
        (
            "{ model: acme/tiny, files: [\"[ct]o*g.json\", \"*.md\"] }",
            &["README.md", "config.json", "tokenizer_config.json"],
        ),
        ("{ model: acme/tiny, files: \"*.json\", ignore_patterns: \"tokenizer*\" }", &["config.json"]),
        ("{ dataset: acme/rows, files: data/ }", &["data/test.jsonl", "data/train.jsonl"]),
    ] {
        let outcome = hub.download(settings, &[]);
        let names: Vec<&str> = outcome.files().iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, expected, "{settings}");
    }
}

/// A data set with nothing that we read, which the hub has converted; its rows are those of a real shard.
fn add_converted(hub: &Hub, data: &Path, files: &[&str]) {
    let root = hub.folder().join("root/datasets/acme");
    fs::create_dir_all(root.join("zipped")).unwrap();
    fs::write(root.join("zipped/data.zip"), b"PK").unwrap();
    let shards = fs::read_dir(data.join("data/alpaca_small_hf/data")).unwrap();
    let shard = shards.map(|entry| entry.unwrap().path()).min().unwrap();
    for file in files {
        let path = root.join("zipped@refs%2Fconvert%2Fparquet").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(&shard, path).unwrap();
    }
}

#[test]
fn the_hubs_conversion_is_taken_where_there_is_nothing_else() {
    let test = "the_hubs_conversion_is_taken_where_there_is_nothing_else";
    let Some(data) = skip_without_test_data(test) else { return };
    let Some(hub) = Hub::start(test) else { return };
    let dataset = "{ dataset: acme/zipped }";
    fs::create_dir_all(hub.folder().join("root/datasets/acme/zipped")).unwrap();
    fs::write(hub.folder().join("root/datasets/acme/zipped/data.zip"), b"PK").unwrap();
    let error = hub.download(dataset, &[]).error();
    assert!(error.starts_with("no-split: "), "without a conversion: {error}");

    add_converted(
        &hub,
        &data,
        &["default/train/0000.parquet", "default/test/0000.parquet", "extra/partial-train/0000.parquet"],
    );
    let taken = hub.download(dataset, &[]);
    let commit = taken.commit.strip_prefix("refs/convert/parquet@").expect("the lock file says what it is");
    assert_eq!(taken.files()[0].name, "default/train/0000.parquet");
    let told =
        "data set `acme/zipped` has no data file that we read at `main`, so those of `refs/convert/parquet` are taken";
    assert!(taken.logs().contains(&told), "{:?}", taken.logs());

    // By its own name it is the same.
    let named = hub.download("{ dataset: acme/zipped, revision: refs/convert/parquet }", &[]);
    assert_eq!((named.digests(), named.commit.as_str()), (taken.digests(), commit));
    let split = hub.download("{ dataset: acme/zipped, split: test }", &[]);
    assert_eq!(split.files()[0].name, "default/test/0000.parquet");
    let part = hub.download("{ dataset: acme/zipped, config: extra }", &[]);
    assert_eq!(part.files()[0].name, "extra/partial-train/0000.parquet");
    assert!(part.warnings()[0].contains("only the first part of the split"), "{:?}", part.warnings());
    let error = hub.download("{ dataset: acme/zipped, split: dev }", &[]).error();
    assert!(error.starts_with("no-split: ") && error.contains("`default/test/0000.parquet`"), "{error}");

    hub.control("DELETE", "log");
    let offline = hub.download(dataset, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!((offline.digests(), &offline.commit), (taken.digests(), &taken.commit));
    assert_eq!(hub.log(), Vec::<String>::new());
}

#[test]
fn files_that_a_model_has_not_are_noted_for_other_tools() {
    let Some(hub) = Hub::start("files_that_a_model_has_not_are_noted") else { return };
    let outcome = hub.download("{ model: acme/tiny }", &[]);
    let repository = hub.cache().join("models--acme--tiny");
    let noted = |name: &str| repository.join(".no_exist").join(&outcome.commit).join(name).is_file();
    assert!(noted("generation_config.json") && noted("chat_template.jinja"));
    assert!(!noted("config.json") && !noted("tokenizer.json"));
    let tag = fs::read_to_string(hub.cache().join("CACHEDIR.TAG")).unwrap();
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55\n"), "{tag}");
}

#[test]
fn without_links_a_snapshot_holds_copies() {
    let Some(hub) = Hub::start("without_links_a_snapshot_holds_copies") else { return };
    let copies = [("HF_HUB_DISABLE_SYMLINKS", "1")];
    let outcome = hub.download("{ model: acme/tiny }", &copies);
    let snapshot = hub.cache().join("models--acme--tiny/snapshots").join(&outcome.commit);
    let config = fs::symlink_metadata(snapshot.join("config.json")).unwrap();
    assert!(config.is_file(), "{config:?}");
    assert_eq!(hub.download("{ model: acme/tiny }", &copies).digests(), outcome.digests());
}

#[test]
fn another_revision_and_a_renamed_repository() {
    let Some(hub) = Hub::start("another_revision_and_a_renamed_repository") else { return };
    let main = hub.download("{ model: acme/tiny }", &[]);
    let renamed = hub.download("{ model: acme/old }", &[]);
    assert_eq!((renamed.digests(), &renamed.commit), (main.digests(), &main.commit));
    assert_eq!(renamed.warnings(), ["model `acme/old` is called `acme/tiny` now"]);
    let pull_request = hub.download("{ model: acme/tiny, revision: refs/pr/1 }", &[]);
    assert_ne!(pull_request.commit, main.commit);
    let kept = fs::read_to_string(hub.cache().join("models--acme--tiny/refs/refs/pr/1")).unwrap();
    assert_eq!(kept, pull_request.commit);
    let by_commit = hub.download(&format!("{{ model: acme/tiny, revision: {} }}", main.commit), &[]);
    assert_eq!(by_commit.digests(), main.digests());
}

#[test]
fn offline_uses_the_cache_and_names_what_it_lacks() {
    let Some(hub) = Hub::start("offline_uses_the_cache_and_names_what_it_lacks") else { return };
    let offline = [("HF_HUB_OFFLINE", "1")];
    let error = hub.download("{ model: acme/tiny }", &offline).error();
    assert!(error.starts_with("offline: HF_HUB_OFFLINE is set and the Hugging Face cache"), "{error}");
    assert!(error.ends_with("lacks the commit of `main` of model `acme/tiny`"), "{error}");

    let online = hub.download("{ model: acme/tiny }", &[]);
    hub.control("DELETE", "log");
    assert_eq!(hub.download("{ model: acme/tiny }", &offline).digests(), online.digests());

    // Without the listing it is as an older tool has left it.
    let repository = hub.cache().join("models--acme--tiny");
    fs::remove_dir_all(repository.join("trees")).unwrap();
    assert_eq!(hub.download("{ model: acme/tiny }", &offline).digests(), online.digests());

    fs::remove_file(repository.join("snapshots").join(&online.commit).join("config.json")).unwrap();
    let error = hub.download("{ model: acme/tiny }", &offline).error();
    assert!(error.contains("it has no `config.json`"), "{error}");
    assert_eq!(hub.log(), Vec::<String>::new());
}

#[test]
fn a_damaged_blob_of_the_cache_is_healed() {
    let Some(hub) = Hub::start("a_damaged_blob_of_the_cache_is_healed") else { return };
    let first = hub.download("{ model: acme/tiny }", &[]);
    let weights = first.files().iter().find(|file| file.name == "model.safetensors").unwrap().path.clone();
    let mut damaged = hub.weights();
    damaged[200_000] ^= 1;
    fs::write(&weights, damaged).unwrap();
    let error = hub.download("{ model: acme/tiny }", &[("HF_HUB_OFFLINE", "1")]).error();
    assert!(error.contains("lacks an undamaged `model.safetensors`"), "{error}");
    let healed = hub.download("{ model: acme/tiny }", &[]);
    assert_eq!(healed.digests(), first.digests());
    assert!(healed.warnings()[0].starts_with("`model.safetensors` is damaged in the cache"), "{:?}", healed.warnings());
}

#[test]
fn the_request_names_the_repository_and_a_commit_needs_no_question() {
    let Some(hub) = Hub::start("the_request_names_the_repository") else { return };
    let stage = hub.stage("{ dataset: acme/rows }", &[]);
    let request = "datasets/acme/rows@main".to_string();
    assert_eq!(stage.source(hub.folder()).unwrap(), Source::Remote { request });
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let stage = hub.stage(&format!("{{ dataset: acme/rows, revision: {commit} }}"), &[]);
    assert_eq!(stage.resolve().unwrap().id, commit);
    assert_eq!(hub.log(), Vec::<String>::new());
}

#[test]
fn an_interruption_ends_it() {
    let Some(hub) = Hub::start("an_interruption_ends_it") else { return };
    let commit = hub.stage("{ model: acme/tiny }", &[]).resolve().unwrap().id;
    let outcome = hub.run_cancelled("{ model: acme/tiny }", &commit, 0);
    assert!(outcome.result.unwrap_err().is_cancelled);
}

#[test]
fn an_endpoint_that_does_not_answer_is_named() {
    let Some(hub) = Hub::start("an_endpoint_that_does_not_answer_is_named") else { return };
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let outcome = hub.download("{ model: acme/tiny }", &[("HF_ENDPOINT", &endpoint)]);
    let error = outcome.error();
    assert!(error.starts_with(&format!("network: failed to reach {endpoint}: ")), "{error}");
    assert!(outcome.help().contains("HF_ENDPOINT"), "{}", outcome.help());
}
