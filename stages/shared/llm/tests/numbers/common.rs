//! Parity folders (see scripts/make_parity_fixtures.py) as engines, adapters and sequences.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use pipe_llm::adapter::Adapter;
use pipe_llm::weights::{self, WeightFiles};
use pipe_llm::{CandleEngine, Engine, LoraConfig, ModelConfig, NativeEngine, Program, Sequence};

/// Relative difference of two tensors: `|a - b| / |b|` in the L2 norm.
pub(crate) fn relative_difference(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |t: Tensor| -> f64 {
        t.to_dtype(DType::F64).and_then(|t| t.sqr()?.sum_all()?.to_scalar::<f64>()).expect("a finite tensor").sqrt()
    };
    let a = a.to_dtype(DType::F64).expect("cast");
    let b = b.to_dtype(DType::F64).expect("cast");
    let size = norm(b.clone());
    let difference = norm((a - b).expect("same shape"));
    if size == 0.0 { difference } else { difference / size }
}

/// Largest absolute difference.
pub(crate) fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    let difference =
        (a.to_dtype(DType::F64).expect("cast") - b.to_dtype(DType::F64).expect("cast")).expect("same shape");
    difference.abs().and_then(|d| d.max_all()?.to_scalar::<f64>()).expect("not empty")
}

/// The models of this repository's own fixtures.
pub(crate) const FAMILIES: [&str; 10] =
    ["llama", "qwen2", "llama3", "mistral", "qwen2_window", "qwen3", "phi3", "gemma2", "gemma3", "gpt2"];

/// Tokens that adapters in tests have rows of: below every vocabulary, and two of them common.
pub(crate) const TOKENS: [u32; 4] = [49, 7, 40, 22];

/// The folders of this repository's own fixtures.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/fixtures/parity")
}

/// The folder of larger test data, or a loud skip.
pub(crate) fn test_data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        writeln!(std::io::stderr(), "SKIPPED {test}: PIPE_TEST_DATA is not set").expect("stderr can be written");
    }
    folder
}

/// One parity folder.
pub(crate) struct Parity {
    pub(crate) folder: PathBuf,
    pub(crate) config: ModelConfig,
    pub(crate) expected: HashMap<String, Tensor>,
    io: HashMap<String, Tensor>,
}

impl Parity {
    pub(crate) fn open(folder: PathBuf) -> Self {
        let text = std::fs::read_to_string(folder.join("config.json")).expect("config.json");
        let load = |name: &str| candle_core::safetensors::load(folder.join(name), &Device::Cpu).expect("safetensors");
        let (expected, io) = (load("expected.safetensors"), load("io.safetensors"));
        Parity { config: ModelConfig::from_json(&text).expect("a supported config"), folder, expected, io }
    }

    pub(crate) fn lora_config(&self, adapter: &str) -> LoraConfig {
        let path = self.folder.join(adapter).join("adapter_config.json");
        LoraConfig::from_json(&std::fs::read_to_string(path).expect("adapter_config.json"))
            .expect("a supported adapter")
    }

    /// With the modules of `adapter`.
    pub(crate) fn program(&self) -> Program {
        self.program_of("adapter")
    }

    /// With the modules and the tokens of an adapter.
    pub(crate) fn program_of(&self, adapter: &str) -> Program {
        Program::for_adapter(&self.config, Some(&self.lora_config(adapter))).expect("targets")
    }

    pub(crate) fn engine(&self, dtype: DType) -> CandleEngine {
        self.engine_for(self.program(), dtype)
    }

    pub(crate) fn engine_for(&self, program: Program, dtype: DType) -> CandleEngine {
        let path = self.folder.join("model.safetensors");
        let files = WeightFiles::open(vec![("model.safetensors".into(), path)]).expect("readable");
        let weights = weights::load(&program, &files, &Device::Cpu).expect("weights");
        CandleEngine::new(program, weights, self.config.max_positions, Device::Cpu, dtype).expect("an engine")
    }

    pub(crate) fn native_for(&self, program: Program) -> NativeEngine {
        let path = self.folder.join("model.safetensors");
        let files = WeightFiles::open(vec![("model.safetensors".into(), path)]).expect("readable");
        let weights = weights::map(&program, &files).expect("weights");
        NativeEngine::new(program, weights, self.config.max_positions).expect("an engine")
    }

    /// Both engines for one program.
    pub(crate) fn engines_for(&self, program: &Program) -> [(&'static str, Engine); 2] {
        let candle = self.engine_for(program.clone(), DType::F32);
        [("candle", candle.into()), ("native", self.native_for(program.clone()).into())]
    }

    pub(crate) fn adapter(&self, name: &str, engine: &CandleEngine) -> Adapter {
        self.adapter_for(name, engine.program())
    }

    pub(crate) fn adapter_for(&self, name: &str, program: &Program) -> Adapter {
        let weights = self.folder.join(name).join("adapter_model.safetensors");
        Adapter::load(self.lora_config(name), &weights, program, &Device::Cpu).expect("an adapter that fits")
    }

    /// The two sequences of a batch.
    pub(crate) fn batch(&self, batch_idx: usize, is_packed: bool) -> Vec<Sequence> {
        (0..2).map(|row| self.sequence(batch_idx, row, is_packed)).collect()
    }

    fn sequence(&self, batch_idx: usize, row: usize, is_packed: bool) -> Sequence {
        let column = |name: &str| -> Vec<i64> {
            self.io[name].get(batch_idx).and_then(|t| t.get(row)?.to_vec1()).expect("a row of a batch")
        };
        let as_u32 =
            |values: Vec<i64>| -> Vec<u32> { values.into_iter().map(|v| u32::try_from(v).expect("an id")).collect() };
        let as_i32 =
            |values: Vec<i64>| -> Vec<i32> { values.into_iter().map(|v| i32::try_from(v).expect("a label")).collect() };
        let ids = as_u32(column("input_ids"));
        let (labels, positions, documents) = if is_packed {
            (column("packed_labels"), as_u32(column("position_ids")), as_u32(column("doc_ids")))
        } else {
            (column("labels"), (0..ids.len() as u32).collect(), vec![0; ids.len()])
        };
        Sequence::new(&self.config, &ids, &as_i32(labels), &positions, &documents).expect("a sequence the model takes")
    }
}

/// The documents of a sequence, each a sequence of its own; dropout sees the same examples and positions.
pub(crate) fn documents_of(sequence: &Sequence) -> Vec<Sequence> {
    let part = |document: &std::ops::Range<usize>| {
        let rows = sequence.supervised.iter().zip(&sequence.targets);
        let inside = rows.filter(|(row, _)| document.contains(&(**row as usize)));
        let (supervised, targets) = inside.map(|(row, target)| (row - document.start as u32, *target)).unzip();
        Sequence {
            input_ids: sequence.input_ids[document.clone()].to_vec(),
            position_ids: sequence.position_ids[document.clone()].to_vec(),
            example_ids: sequence.example_ids[document.clone()].to_vec(),
            documents: std::iter::once(0..document.len()).collect(),
            supervised,
            targets,
        }
    };
    sequence.documents.iter().map(part).collect()
}
