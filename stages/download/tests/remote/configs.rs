//! The `configs` of a data set's README on the hub: fetched, checked and kept as other files, and not published.

use std::fs;
use std::path::PathBuf;

use crate::support::{Hub, Outcome};

const OFFLINE: [(&str, &str); 1] = [("HF_HUB_OFFLINE", "1")];

const README: &str = "---
license: mit
configs:
- config_name: main
  default: true
  data_files:
  - split: train
    path: rows/a.jsonl
  - split: test
    path: [rows/b*, \"**/c.jsonl\"]
- config_name: socratic
  data_dir: rows
  data_files: b.jsonl
---
# Rows
";

/// A data set whose names say nothing.
fn add_rows(hub: &Hub, id: &str, readme: Option<&str>) -> PathBuf {
    let folder = hub.folder().join("root/datasets").join(id);
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for name in ["rows/a.jsonl", "rows/b.jsonl", "rows/deep/c.jsonl"] {
        write(name, &format!("{{\"text\": \"{name}\"}}\n"));
    }
    if let Some(readme) = readme {
        write("README.md", readme);
    }
    folder
}

fn names(outcome: &Outcome) -> Vec<&str> {
    outcome.files().iter().map(|file| file.name.as_str()).collect()
}

#[test]
fn a_readme_says_which_files_are_meant() {
    let Some(hub) = Hub::start("a_readme_says_which_files_are_meant") else { return };
    add_rows(&hub, "acme/named", Some(README));
    let train = hub.download("{ dataset: acme/named }", &[]);
    assert_eq!(names(&train), ["rows/a.jsonl"]);
    let asked = |hub: &Hub| hub.log().iter().filter(|line| line.contains("/README.md")).count();
    assert_eq!(asked(&hub), 1, "{:?}", hub.log());
    let test = hub.download("{ dataset: acme/named, split: test }", &[]);
    assert_eq!(names(&test), ["rows/b.jsonl", "rows/deep/c.jsonl"]);
    assert_eq!(names(&hub.download("{ dataset: acme/named, name: socratic }", &[])), ["rows/b.jsonl"]);
    assert_eq!(asked(&hub), 1, "it is in the cache");
    // It lies where huggingface_hub has it.
    let snapshot = hub.cache().join("datasets--acme--named/snapshots").join(&train.commit);
    assert_eq!(fs::read_to_string(snapshot.join("README.md")).unwrap(), README);

    // `files` and `ignore_patterns` are the user's.
    assert_eq!(names(&hub.download("{ dataset: acme/named, files: rows/deep/ }", &[])), ["rows/deep/c.jsonl"]);
    let ignoring = hub.download("{ dataset: acme/named, split: test, ignore_patterns: \"*/c.*\" }", &[]);
    assert_eq!(names(&ignoring), ["rows/b.jsonl"]);

    hub.control("DELETE", "log");
    let offline = hub.download("{ dataset: acme/named, split: test }", &OFFLINE);
    assert_eq!((offline.digests(), &offline.commit), (test.digests(), &test.commit));
    assert_eq!(hub.log(), Vec::<String>::new());
    fs::remove_file(fs::canonicalize(snapshot.join("README.md")).unwrap()).unwrap();
    let error = hub.download("{ dataset: acme/named }", &OFFLINE).error();
    assert!(error.starts_with("offline: ") && error.contains("lacks `README.md` of data set `acme/named`"), "{error}");
}

#[test]
fn a_choice_that_is_not_there_is_told_with_those_that_are() {
    let Some(hub) = Hub::start("a_choice_that_is_not_there_is_told") else { return };
    let folder = add_rows(&hub, "acme/named", Some(README));
    let outcome = hub.download("{ dataset: acme/named, name: socrates }", &[]);
    let told = "unknown-configuration: data set `acme/named` has no configuration `socrates`; its configurations are `main`, `socratic`";
    assert_eq!(outcome.error(), told);
    assert_eq!(outcome.help(), "did you mean `socratic`?");
    let outcome = hub.download("{ dataset: acme/named, split: dev }", &[]);
    let told = "no-split: data set `acme/named` has no split `dev` in the configuration `main`; its splits are `train`, `test`";
    assert_eq!(outcome.error(), told);

    let readme =
        |change: &dyn Fn(String) -> String| fs::write(folder.join("README.md"), change(README.into())).unwrap();
    readme(&|text| text.replace("  default: true\n", ""));
    let outcome = hub.download("{ dataset: acme/named }", &[]);
    let told = "several-configurations: data set `acme/named` has several configurations, and its README.md says of none that it is the default: `main`, `socratic`";
    assert_eq!((outcome.error().as_str(), outcome.help().as_str()), (told, "choose one with `name:`"));
    readme(&|text| text.replace("rows/a.jsonl", "rows/x*.jsonl"));
    let outcome = hub.download("{ dataset: acme/named }", &[]);
    let told = "no-match: data set `acme/named` has no data file that its README.md promises for the split `train` of the configuration `main` (`rows/x*.jsonl`); its data files are `rows/a.jsonl`, `rows/b.jsonl`, `rows/deep/c.jsonl`";
    assert_eq!(outcome.error(), told);
    readme(&|text| text.replace("rows/a.jsonl", "../a.jsonl"));
    let outcome = hub.download("{ dataset: acme/named }", &[]);
    let told = "bad-readme: the README.md of data set `acme/named` cannot be used: of the configuration `main` `../a.jsonl` is outside of the data set, and only its own files are taken";
    assert_eq!(outcome.error(), told);
    assert!(outcome.help().contains("datasets-manual-configuration"), "{}", outcome.help());
    readme(&|text| text.replace("  default: true\n", "  default: true\n  sep: ;\n"));
    let told = "unread-option: the README.md of data set `acme/named` has the configuration `main` read with `sep: ;`, which is not done here";
    assert_eq!(hub.download("{ dataset: acme/named }", &[]).error(), told);
}

#[test]
fn a_readme_that_arrives_damaged_is_fetched_again() {
    let Some(hub) = Hub::start("a_readme_that_arrives_damaged_is_fetched_again") else { return };
    add_rows(&hub, "acme/named", Some(README));
    hub.fault("kind=corrupt&path=README&times=1");
    assert_eq!(names(&hub.download("{ dataset: acme/named, name: socratic }", &[])), ["rows/b.jsonl"]);
    let folder = hub.folder().join("root/datasets/acme/named");
    fs::write(folder.join("README.md"), README.replace("# Rows", "# More")).unwrap();
    hub.fault("kind=corrupt&path=README&times=2");
    let error = hub.download("{ dataset: acme/named }", &[]).error();
    assert!(error.starts_with("corrupt-download: `README.md` arrived damaged twice"), "{error}");
}

#[test]
fn without_configs_it_is_as_without_a_readme() {
    let Some(hub) = Hub::start("without_configs_it_is_as_without_a_readme") else { return };
    let all = ["rows/a.jsonl", "rows/b.jsonl", "rows/deep/c.jsonl"];
    for (id, readme) in [("acme/plain", Some("---\nlicense: mit\n---\n# Rows\n")), ("acme/bare", None)] {
        add_rows(&hub, id, readme);
        assert_eq!(names(&hub.download(&format!("{{ dataset: {id} }}"), &[])), all);
        assert_eq!(names(&hub.download(&format!("{{ dataset: {id}, name: rows }}"), &[])), all);
    }
}
