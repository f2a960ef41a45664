//! A folder to train in: a tiny Llama, packs, and a stage that is run as the runner runs it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pipe_contract::{
    Artifact, ArtifactKind, CancelToken, Context, SpotCheck, StageError, StageEvent, StageKind, read_yaml,
};
use pipe_records::packed::{Pack, PackedCounts, PackedWriter};
use pipe_stage_train::KIND;

const T: usize = 32;

pub(crate) struct Work {
    pub(crate) folder: tempfile::TempDir,
}

/// What a run left: its outputs' bytes, the log, the error.
pub(crate) struct Ran {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) log: Vec<String>,
    pub(crate) result: Result<(), StageError>,
}

impl Work {
    pub(crate) fn new() -> Self {
        Work { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn model() -> Artifact {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity/llama");
        let mut artifact = Artifact::from_folder(ArtifactKind::Model, &fixture).expect("the fixture");
        artifact.files.retain(|name, _| name == "config.json" || name == "model.safetensors");
        artifact
    }

    /// Ten packs of two documents each; every third token is not supervised.
    pub(crate) fn packs(&self, is_supervised: bool) -> Artifact {
        self.packs_of(&format!("packed-{is_supervised}"), 0..10, is_supervised)
    }

    /// Packs that the ten are not.
    pub(crate) fn eval_packs(&self) -> Artifact {
        self.packs_of("eval", 20..23, true)
    }

    fn packs_of(&self, name: &str, indices: Range<u32>, is_supervised: bool) -> Artifact {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut writer = PackedWriter::create(&folder, T as u64, 128).expect("a writer");
        for index in indices {
            let input_ids: Vec<u32> = (0..T as u32).map(|t| (t * 7 + index * 13 + t * t * index) % 128).collect();
            let label = |(t, id): (usize, &u32)| if is_supervised && t % 3 != 0 { *id as i32 } else { -100 };
            let labels = input_ids.iter().enumerate().map(label).collect();
            let position_ids = (0..20).chain(0..12).collect();
            let doc_ids = [vec![2 * index; 20], vec![2 * index + 1; 12]].concat();
            writer.write(&Pack { input_ids, labels, position_ids, doc_ids }).expect("a pack");
        }
        writer.finish(PackedCounts { n_documents: 20, ..PackedCounts::default() }).expect("finished");
        Artifact::from_folder(ArtifactKind::Packed, &folder).expect("an artifact")
    }

    /// Runs with outputs and checkpoints called `name`; interrupted after so many optimizer steps.
    pub(crate) fn run(&self, name: &str, with: &str, inputs: &[(&str, Artifact)], stop_after: Option<usize>) -> Ran {
        let n_left = AtomicUsize::new(stop_after.unwrap_or(usize::MAX));
        let is_over = |event: &StageEvent| match event {
            StageEvent::Log { line } if line.starts_with("step ") => n_left.fetch_sub(1, Ordering::Relaxed) == 1,
            _ => false,
        };
        self.run_until(name, name, with, inputs, &is_over)
    }

    /// The same with checkpoints called `trajectory`; interrupted once `is_over` says so of an event.
    pub(crate) fn run_until(
        &self,
        name: &str,
        trajectory: &str,
        with: &str,
        inputs: &[(&str, Artifact)],
        is_over: &(dyn Fn(&StageEvent) -> bool + Sync),
    ) -> Ran {
        let (stage, _, problems) = read_yaml(with, |reader| KIND.read(reader));
        assert_eq!(problems, []);
        let (log, cancel) = (Mutex::new(Vec::new()), CancelToken::default());
        let emit = |event: StageEvent| {
            if is_over(&event) {
                cancel.cancel();
            }
            if let StageEvent::Log { line } | StageEvent::Warning { line } = event {
                log.lock().expect("not poisoned").push(line);
            }
        };
        let folder = self.folder.path().join(name);
        let mut ctx = Context::new(&folder, &emit);
        ctx.cancel = cancel.clone();
        ctx.checkpoint_dir = self.checkpoint_dir(trajectory);
        ctx.inputs = inputs.iter().map(|(port, artifact)| (port.to_string(), artifact.clone())).collect();
        let result = stage.run(&mut ctx);
        Ran { files: files_below(&folder.join("outputs")), log: log.into_inner().expect("not poisoned"), result }
    }

    /// Spot-checks the outputs called `name` with the checkpoints called `trajectory`, which it leaves as they are.
    pub(crate) fn spot(
        &self,
        name: &str,
        trajectory: &str,
        with: &str,
        inputs: &[(&str, Artifact)],
        n_parts: usize,
    ) -> Result<Vec<SpotCheck>, StageError> {
        let (stage, _, problems) = read_yaml(with, |reader| KIND.read(reader));
        assert_eq!(problems, []);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut ctx = Context::new(folder.path(), &|_| {});
        ctx.checkpoint_dir = self.checkpoint_dir(trajectory);
        ctx.inputs = inputs.iter().map(|(port, artifact)| (port.to_string(), artifact.clone())).collect();
        let artifact = |kind: ArtifactKind| {
            let folder = self.folder.path().join(name).join("outputs").join(kind.name());
            folder.exists().then(|| Artifact::from_folder(kind, &folder).expect("an artifact"))
        };
        let kinds = [ArtifactKind::Adapter, ArtifactKind::Model, ArtifactKind::Metrics];
        let outputs = kinds
            .iter()
            .filter_map(|&kind| Some((kind.name().to_string(), artifact(kind)?)))
            .collect::<BTreeMap<_, _>>();
        let before = files_below(&self.checkpoint_dir(trajectory));
        let checks = stage.spot_check(&ctx, &outputs, n_parts, 7);
        assert_eq!(files_below(&self.checkpoint_dir(trajectory)), before, "what is kept stays as it is");
        checks.map(|checks| checks.expect("training can be spot-checked"))
    }

    pub(crate) fn inputs(&self) -> Vec<(&'static str, Artifact)> {
        vec![("data", self.packs(true)), ("model", Self::model())]
    }

    pub(crate) fn inputs_with_eval(&self) -> Vec<(&'static str, Artifact)> {
        [self.inputs(), vec![("eval", self.eval_packs())]].concat()
    }

    pub(crate) fn checkpoint_dir(&self, trajectory: &str) -> PathBuf {
        self.folder.path().join("checkpoint").join(trajectory)
    }

    /// Names of the checkpoints, oldest first, without the digest in them.
    pub(crate) fn checkpoints(&self, trajectory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.checkpoint_dir(trajectory)).expect("it was made");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name().into_string();
        let mut names: Vec<String> = entries.map(|entry| name(entry).expect("text")[..14].to_string()).collect();
        names.sort();
        names
    }

    pub(crate) fn adapter_of(&self, name: &str) -> Artifact {
        Artifact::from_folder(ArtifactKind::Adapter, &self.folder.path().join(name).join("outputs/adapter"))
            .expect("an adapter")
    }
}

fn files_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending: Vec<PathBuf> = vec![folder.to_path_buf()];
    while let Some(current) = pending.pop() {
        for entry in std::fs::read_dir(&current).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below").to_string_lossy().into_owned();
                files.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

/// Three epochs of three optimizer steps.
pub(crate) const WITH: &str = "{ lora: { r: 4, lora_dropout: 0.1 }, per_device_train_batch_size: 4, learning_rate: 0.01, num_train_epochs: 3, logging_steps: 1 }";

/// The same number of them, for the weights.
pub(crate) const FULL: &str = "{ method: full, freeze: [model.embed_tokens, '*.mlp'], per_device_train_batch_size: 4, learning_rate: 0.01, num_train_epochs: 3, logging_steps: 1 }";

/// The lines of a file of JSON.
pub(crate) fn lines(ran: &Ran, name: &str) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(&ran.files[name]).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Of every optimizer step.
pub(crate) fn losses(ran: &Ran) -> Vec<f64> {
    lines(ran, "metrics/metrics.jsonl").iter().filter_map(|line| line["loss"].as_f64()).collect()
}

/// Of every evaluation, with its optimizer step.
pub(crate) fn eval_losses(ran: &Ran) -> Vec<(u64, f64)> {
    let pair = |line: &serde_json::Value| Some((line["step"].as_u64()?, line["eval_loss"].as_f64()?));
    lines(ran, "metrics/metrics.jsonl").iter().filter_map(pair).collect()
}

impl Ran {
    /// It ended well.
    pub(crate) fn well(self) -> Self {
        self.result.as_ref().expect("a run");
        self
    }

    /// Panics unless a line of the log has `part`.
    pub(crate) fn assert_says(&self, part: &str) {
        assert!(self.log.iter().any(|line| line.contains(part)), "`{part}` is not in {:#?}", self.log);
    }
}
