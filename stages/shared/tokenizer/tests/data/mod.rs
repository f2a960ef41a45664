//! The texts of the test data, for tests that compare tokenizers on all of them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use arrow::array::AsArray as _;
use pipe_contract::{Artifact, ArtifactKind};
use pipe_records::open_rows;

/// The folder of the test data, or a line on stderr that says which test was skipped.
pub(crate) fn test_data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        writeln!(std::io::stderr(), "SKIPPED {test}: PIPE_TEST_DATA is not set").expect("stderr can be written to");
    }
    folder
}

/// Calls `visit` with every cell of the rows and every line of the other files.
pub(crate) fn each_text(data: &Path, mut visit: impl FnMut(&str)) {
    for name in ["alpaca_small_hf", "alpaca_en_demo_hf"] {
        let rows = Artifact::from_folder(ArtifactKind::Rows, &data.join("data").join(name)).unwrap();
        for batch in open_rows(&rows).unwrap() {
            for column in batch.unwrap().columns() {
                let texts = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).unwrap();
                texts.as_string::<i32>().iter().flatten().for_each(&mut visit);
            }
        }
    }
    let is_text =
        |path: &PathBuf| path.extension().is_some_and(|e| ["json", "jsonl", "txt"].contains(&e.to_str().unwrap()));
    let files = std::fs::read_dir(data.join("data")).unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(is_text) {
        // Lines of a file of JSON have its escapes and indentation in them: more to get right.
        std::fs::read_to_string(path).unwrap().split_inclusive('\n').for_each(&mut visit);
    }
}
