//! `pipe verify --spot` through the real binary on a tiny training: it passes, and what was changed in the store is named.
#![cfg(feature = "stages")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Optimizer steps 1 to 26; state is kept of 8, 16, 24 and 26.
const PIPELINE: &str = "\
version: 1
name: spot
stages:
  rows: { uses: download, with: { dataset: ./rows.jsonl } }
  text: { uses: format, inputs: { rows: rows }, with: { template: prompt_completion } }
  base:
    uses: init
    inputs: { examples: text }
    with: { vocab_size: 300, config: { hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, max_position_embeddings: 128 } }
  packed: { uses: tokenize, inputs: { examples: text, model: base }, with: { max_length: 64, packing: true } }
  adapter:
    uses: train
    inputs: { data: packed, model: base }
    with:
      lora: { r: 4, lora_dropout: 0.1 }
      per_device_train_batch_size: 4
      learning_rate: 5.0e-3
      max_steps: 26
      save_strategy: steps
      save_steps: 8
      save_total_limit: 9
";

struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let row = |n: u32| {
            let (a, b) = (n * 7 % 91, n * 13 % 83);
            format!("{{\"prompt\": \"add {a} and {b} ->\", \"completion\": \" {}\"}}\n", a + b)
        };
        std::fs::write(folder.path().join("rows.jsonl"), (0..200).map(row).collect::<String>()).expect("a file");
        std::fs::write(folder.path().join("p.yaml"), PIPELINE).expect("a file");
        let project = Project(folder);
        assert_eq!(project.pipe("run p.yaml").0, Some(0));
        project
    }

    /// Exit code and stdout.
    fn pipe(&self, arguments: &str) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_pipe"))
            .current_dir(self.0.path())
            .args(arguments.split_whitespace())
            .env_remove("PIPE_STORE")
            .env_remove("CI")
            .output()
            .expect("pipe starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        eprintln!("pipe {arguments}\n{}", text(output.stderr));
        (output.status.code(), text(output.stdout))
    }

    /// The paths below a folder of the store.
    fn stored(&self, folder: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut pending = vec![self.0.path().join(".pipe").join(folder)];
        while let Some(folder) = pending.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
                if entry.is_dir() { pending.push(entry) } else { files.push(entry) }
            }
        }
        files.sort();
        files
    }
}

/// Other bytes with the size, mode and time that were there: nothing but reading tells.
fn change_in_place(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let metadata = std::fs::metadata(path).expect("a file");
    let mut bytes = std::fs::read(path).expect("a file");
    change(&mut bytes);
    let mut writable = metadata.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut writable, 0o644);
    std::fs::set_permissions(path, writable).expect("ours");
    std::fs::write(path, bytes).expect("writable");
    let file = std::fs::File::options().write(true).open(path).expect("writable");
    file.set_modified(metadata.modified().expect("a time")).expect("ours");
    std::fs::set_permissions(path, metadata.permissions()).expect("ours");
}

#[test]
fn a_run_passes_and_what_was_changed_is_named() {
    let project = Project::new();
    let before = project.stored("checkpoints");
    let (code, out) = project.pipe("verify p.yaml --spot 2 --seed 3");
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(out.matches("run again").count(), 2, "{out}");
    let end = "5 stages: 4 same, 1 spot same\nparts were chosen by --seed 3\n";
    assert!(out.contains("adapter  spot same") && out.ends_with(end), "{out}");
    assert_eq!(project.pipe("verify p.yaml --spot 2 --seed 3").1, out, "the same parts again");
    assert_eq!(project.stored("checkpoints"), before);

    // A training state with another element, and a digest that fits.
    let state = before.iter().find(|path| path.to_string_lossy().contains("step-000000016-")).expect("kept");
    let sound = std::fs::read(state).expect("a file");
    change_in_place(state, |bytes| {
        let end = bytes.len() - 32;
        bytes[end - 4..end].copy_from_slice(&0.5_f32.to_le_bytes());
        let digest = blake3::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(digest.as_bytes());
    });
    let (code, out) = project.pipe("verify p.yaml --stage adapter --spot 99");
    assert_eq!(code, Some(4), "{out}");
    assert!(out.contains("optimizer steps 17 to 20, run again: optimizer step 18: `loss` "), "{out}");
    std::fs::write(state, sound).expect("as it was");

    // A chain in the store that does not follow.
    let is_chain = |path: &&PathBuf| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"chain\":"));
    let blobs = project.stored("blobs");
    let chain = blobs.iter().find(is_chain).expect("a blob");
    change_in_place(chain, |bytes| {
        let digest = b"\"digest\":\"";
        let at = bytes.windows(digest.len()).rposition(|part| part == digest).expect("a digest") + digest.len();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    });
    let (code, out) = project.pipe("verify p.yaml --stage adapter --spot 1 --json");
    assert_eq!(code, Some(4), "{out}");
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let checks = &json["stages"][4]["checks"];
    assert_eq!(json["stages"][4]["result"], "spot-differs");
    assert_eq!(checks[0]["what"], "the chain of 3 links");
    let broken = "the link of optimizer step 26 does not follow from its digest and the link before";
    assert_eq!(checks[0]["difference"], broken);
}
