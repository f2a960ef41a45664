//! Resumable training state: one file, safetensors and a digest, replaced by rename.
//!
//! A BLAKE3 digest over all of it is checked before anything is taken from it: a damaged checkpoint is never gone on from.
//! It holds the value and both moments of every tensor that is trained, and, as JSON in its metadata, the number of optimizer steps
//! taken, the gates' state and the metrics so far. Masks and the order of packs are functions of the step's number, so
//! nothing else is needed to go on with equal bits.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use pipe_llm::LlmError;
use pipe_llm::optimizer::Moments;
use pipe_llm::trainer::{GateState, Trainer};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::metrics::MetricsLine;

const FORMAT_VERSION: u32 = 1;
const FILE: &str = "checkpoint.bin";
/// Bytes of the digest at the end of the file.
const DIGEST_LEN: usize = blake3::OUT_LEN;
const METADATA_KEY: &str = "pipe";

#[derive(Serialize, Deserialize)]
struct Metadata {
    format_version: u32,
    n_done: u64,
    gates: GateState,
    metrics: Vec<MetricsLine>,
}

/// Saves the state of `trainer` in `folder`. A kill at any moment leaves the old checkpoint or the new one.
///
/// # Errors
/// When the file cannot be written.
pub fn save(folder: &Path, trainer: &Trainer, metrics: &[MetricsLine]) -> Result<(), pipe_contract::StageError> {
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for (parameter, moments) in trainer.parameters().iter().zip(&trainer.optimizer.moments) {
        let moment = |values: &Vec<f32>| Tensor::from_vec(values.clone(), parameter.tensor.dims(), &Device::Cpu);
        let parts = [
            ("value", parameter.tensor.to_device(&Device::Cpu)),
            ("first", moment(&moments.first)),
            ("second", moment(&moments.second)),
        ];
        for (part, tensor) in parts {
            tensors.insert(format!("{}.{part}", parameter.name), tensor.map_err(LlmError::from)?);
        }
    }
    let metadata = Metadata {
        format_version: FORMAT_VERSION,
        n_done: trainer.optimizer.n_done,
        gates: trainer.gates,
        metrics: metrics.to_vec(),
    };
    let text = serde_json::to_string(&metadata).expect("plain data can be written");
    let bytes = safetensors::serialize(tensors.iter(), Some(HashMap::from([(METADATA_KEY.to_string(), text)])))
        .map_err(|e| LlmError::Weights { file: FILE.into(), why: e.to_string() })?;
    let digest = blake3::hash(&bytes);
    write_atomically(folder, &[bytes.as_slice(), digest.as_bytes()].concat())?;
    Ok(())
}

fn write_atomically(folder: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let (path, temporary) = (folder.join(FILE), folder.join(format!("{FILE}.tmp")));
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| TrainError::Io { verb: "write", path: path.clone(), source })
}

/// Puts the checkpoint in `folder`, if there is one, into `trainer` and returns its metrics. A checkpoint that cannot be
/// read, or that is not of what is trained here, is reported as `Err(why)` and leaves `trainer` as it was.
pub fn restore(folder: &Path, trainer: &mut Trainer) -> Result<Option<Vec<MetricsLine>>, String> {
    let path: PathBuf = folder.join(FILE);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(bytes) => bytes,
    };
    let (bytes, digest) = bytes.split_at(bytes.len().saturating_sub(DIGEST_LEN));
    if blake3::hash(bytes).as_bytes() != digest {
        return Err("its bytes are damaged".to_string());
    }
    let (_, header) = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let text = header.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)).ok_or("it has no metadata")?;
    let metadata: Metadata = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if metadata.format_version != FORMAT_VERSION || metadata.metrics.len() as u64 != metadata.n_done {
        return Err(format!("its format is {}, not {FORMAT_VERSION}", metadata.format_version));
    }
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| e.to_string())?;
    let (mut values, mut moments) = (Vec::new(), Vec::new());
    for parameter in trainer.parameters() {
        let part = |part: &str| -> Result<&Tensor, String> {
            let name = format!("{}.{part}", parameter.name);
            tensors
                .get(&name)
                .filter(|t| t.dims() == parameter.tensor.dims())
                .ok_or_else(|| format!("`{name}` is missing or of another shape"))
        };
        let host = |tensor: &Tensor| tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(|e| e.to_string());
        moments.push(Moments { first: host(part("first")?)?, second: host(part("second")?)? });
        values.push(part("value")?.to_device(parameter.tensor.device()).map_err(|e| e.to_string())?);
    }
    trainer.set_parameters(values);
    trainer.optimizer.moments = moments;
    trainer.optimizer.n_done = metadata.n_done;
    trainer.gates = metadata.gates;
    Ok(Some(metadata.metrics))
}
