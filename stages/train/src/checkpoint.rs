//! Checkpoints: training state in files, from which a run goes on with equal bits.
//!
//! ```text
//! checkpoints/<trajectory>/step-000000040-1f3a9c2e5b7d8046.bin      optimizer steps taken, digest of their learning rates
//!   8 bytes     length of the head, little-endian
//!   head        JSON: optimizer steps, gates, losses, chain, the best so far; names and sizes of the tensors
//!   tensors     f32, little-endian
//!   32 bytes    BLAKE3 of all before
//! ```
//!
//! A trajectory is shared by runs that differ in their number of optimizer steps only. One goes on from the state of another
//! where that is what it would have come to itself: where every optimizer step taken had the learning rate that it would
//! have given it. With a constant rate that is always so; `linear` and `cosine` stretch over all optimizer steps, so that
//! only what lies in the same warmup is shared. The digest of the rates is in the name: states of different runs lie beside
//! each other, and a directory listing says which one fits.
//!
//! A file is written in the scratch folder and renamed: a kill at any moment leaves it complete or leaves it out. The digest
//! is checked before anything is taken from a file; one that is damaged is named, and the next older one is tried.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use pipe_llm::optimizer::Moments;
use pipe_llm::schedule::{Schedule, ScheduleType};
use pipe_llm::trainer::{GateState, Trainer};
use serde::{Deserialize, Serialize};

use crate::chain::Link;
use crate::error::TrainError;
use crate::metrics::History;
use crate::state::{Best, CHUNK, Progress, bytes, set_values, tensors};

const FORMAT_VERSION: u32 = 2;
const EXTENSION: &str = "bin";
/// What there is of each parameter, in the order of [`tensors`].
const PARTS: [&str; 3] = ["value", "first", "second"];

#[derive(Serialize, Deserialize)]
struct Head {
    format_version: u32,
    n_done: u64,
    gates: GateState,
    history: History,
    links: Vec<Link>,
    best: Option<BestHead>,
    /// Name and number of elements, in the order of the file.
    tensors: Vec<(String, usize)>,
}

/// The best so far; its values are `NAME.best`, or those of the state where it is that.
#[derive(Serialize, Deserialize)]
struct BestHead {
    step: u64,
    eval_loss: f64,
}

/// The checkpoints of one run, in the folder of its trajectory.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    scratch: PathBuf,
    schedule: Schedule,
    n_kept: usize,
}

/// What was found to go on from.
#[derive(Debug, Default)]
pub struct Found {
    /// What the run knew there; `None` starts anew. The trainer's own state is in the trainer.
    pub progress: Option<Progress>,
    /// What cannot be used, and why: damage.
    pub warnings: Vec<String>,
    /// Why what is there is not for this run.
    pub notes: Vec<String>,
}

/// A checkpoint by its name.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Optimizer steps taken.
    pub n_done: u64,
    rates: String,
    path: PathBuf,
}

impl Checkpoints {
    /// In `folder`, which is made when needed; the last `n_kept` are kept. `scratch` is on the same file system.
    pub fn new(folder: PathBuf, scratch: PathBuf, schedule: Schedule, n_kept: usize) -> Self {
        Checkpoints { folder, scratch, schedule, n_kept }
    }

    /// Saves the state of `trainer`, and removes what it replaces.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, trainer: &Trainer, progress: &Progress) -> Result<(), TrainError> {
        let n_done = trainer.optimizer.n_done;
        let path = self.folder.join(self.name(n_done));
        let temporary = self.scratch.join("checkpoint.tmp");
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.scratch)?;
            std::fs::create_dir_all(&self.folder)?;
            let mut file = Digesting::new(BufWriter::new(File::create(&temporary)?));
            write_state(&mut file, trainer, progress)?;
            let digest = file.hasher.finalize();
            file.inner.write_all(digest.as_bytes())?;
            file.inner.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_data()?;
            std::fs::rename(&temporary, &path)?;
            // The folder may be new itself, and so may be the one it lies in.
            self.folder.ancestors().take(3).try_for_each(|folder| File::open(folder)?.sync_all())
        };
        write().map_err(|source| TrainError::Io { verb: "write", path: path.clone(), source })?;
        self.remove_older(n_done);
        Ok(())
    }

    /// Of this run's states up to `n_done` optimizer steps those beyond the newest that are kept. Those of other runs stay.
    fn remove_older(&self, n_done: u64) {
        let ours = self.entries().into_iter().filter(|entry| entry.n_done <= n_done && self.fits(entry));
        for entry in ours.skip(self.n_kept) {
            // It is scratch; the next time it is tried again.
            let _ = std::fs::remove_file(entry.path);
        }
    }

    /// Puts the newest state that this run would have come to itself, if there is one, into `trainer`.
    pub fn restore(&self, trainer: &mut Trainer) -> Found {
        let mut found = Found::default();
        let (mut beyond, mut other) = (None, None);
        for entry in self.entries() {
            let step = entry.n_done;
            if step > self.schedule.n_steps {
                beyond.get_or_insert(step);
                continue;
            }
            if !self.fits(&entry) {
                other.get_or_insert(step);
                continue;
            }
            match entry.load(trainer) {
                Ok(progress) => {
                    found.progress = Some(progress);
                    break;
                }
                Err(why) => {
                    found.warnings.push(format!("the checkpoint of optimizer step {step} cannot be used: {why}"));
                }
            }
        }
        let n_steps = self.schedule.n_steps;
        found.notes.extend(beyond.map(|step| {
            format!("the checkpoint of optimizer step {step} is not used: this run has {n_steps} optimizer steps")
        }));
        found.notes.extend(other.map(|step| {
            let name = ScheduleType::NAMES.iter().find(|(_, named)| *named == self.schedule.schedule_type);
            let (name, _) = name.expect("every type has a name");
            format!(
                "the checkpoint of optimizer step {step} is not used: it came to be with other learning rates, as with \
                 `lr_scheduler_type: {name}` they depend on the number of optimizer steps, {n_steps} in this run"
            )
        }));
        found
    }

    /// The states that this run would have come to itself, oldest first.
    pub fn kept(&self) -> Vec<Entry> {
        let mut kept = self.entries();
        kept.retain(|entry| entry.n_done <= self.schedule.n_steps && self.fits(entry));
        kept.reverse();
        kept
    }

    fn fits(&self, entry: &Entry) -> bool {
        entry.rates == self.rates(entry.n_done)
    }

    fn name(&self, n_done: u64) -> String {
        format!("step-{n_done:09}-{}.{EXTENSION}", self.rates(n_done))
    }

    /// A digest of the learning rates of the first `n_done` optimizer steps, to the bit.
    fn rates(&self, n_done: u64) -> String {
        let mut hasher = blake3::Hasher::new();
        for step_idx in 0..n_done {
            hasher.update(&self.schedule.learning_rate(step_idx).to_bits().to_le_bytes());
        }
        hasher.finalize().to_hex()[..16].to_string()
    }

    /// What lies in the folder, newest first; none where it cannot be read.
    fn entries(&self) -> Vec<Entry> {
        let files = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut entries: Vec<Entry> = files.filter_map(|file| entry(&file.path())).collect();
        entries.sort_by(|a, b| b.n_done.cmp(&a.n_done).then(a.rates.cmp(&b.rates)));
        entries
    }
}

fn entry(path: &Path) -> Option<Entry> {
    let name = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let (n_done, rates) = name.strip_prefix("step-")?.split_once('-')?;
    Some(Entry { n_done: n_done.parse().ok()?, rates: rates.into(), path: path.into() })
}

fn write_state(file: &mut impl Write, trainer: &Trainer, progress: &Progress) -> std::io::Result<()> {
    let n_done = trainer.optimizer.n_done;
    let best_values = progress.best.as_ref().filter(|best| best.step != n_done).map(|best| &best.values);
    let sizes = sizes(trainer);
    let sized = |part: &'static str| move |(name, n): &(String, usize)| (format!("{name}.{part}"), *n);
    let state = sizes.iter().flat_map(|size| PARTS.map(|part| sized(part)(size)));
    let best = sizes.iter().filter(|_| best_values.is_some()).map(sized("best"));
    let head = Head {
        format_version: FORMAT_VERSION,
        n_done,
        gates: trainer.gates,
        history: progress.history.clone(),
        links: progress.links.clone(),
        best: progress.best.as_ref().map(|best| BestHead { step: best.step, eval_loss: best.eval_loss }),
        tensors: state.chain(best).collect(),
    };
    let head = serde_json::to_vec(&head).expect("plain data can be written");
    file.write_all(&(head.len() as u64).to_le_bytes())?;
    file.write_all(&head)?;
    for (_, values) in tensors(trainer) {
        write_values(file, &values.map_err(std::io::Error::other)?)?;
    }
    best_values.into_iter().flatten().try_for_each(|values| write_values(file, values))
}

fn write_values(file: &mut impl Write, values: &[f32]) -> std::io::Result<()> {
    values.chunks(CHUNK).try_for_each(|chunk| file.write_all(&bytes(chunk)))
}

/// Name and number of elements of each parameter.
fn sizes(trainer: &Trainer) -> Vec<(String, usize)> {
    trainer.parameters().into_iter().map(|parameter| (parameter.name, parameter.tensor.elem_count())).collect()
}

impl Entry {
    /// Reads all of the file and puts it into `trainer`, or says why not and leaves `trainer` as it was.
    pub(crate) fn load(&self, trainer: &mut Trainer) -> Result<Progress, String> {
        let (head, tensors) = self.read()?;
        take(head, tensors, trainer)
    }

    /// The first tensor of the file that is not as in `trainer`, with the first element that differs.
    pub(crate) fn first_difference(&self, trainer: &Trainer) -> Result<Option<String>, String> {
        let (head, kept) = self.read()?;
        for ((name, own), (kept_name, kept)) in
            tensors(trainer).zip(head.tensors.iter().map(|(name, _)| name).zip(kept))
        {
            let own = own.map_err(|e| e.to_string())?;
            if name != *kept_name || own.len() != kept.len() {
                return Ok(Some(format!("`{name}` is missing or of another shape")));
            }
            let differs = |(own, kept): (&f32, &f32)| own.to_bits() != kept.to_bits();
            if let Some(at) = own.iter().zip(&kept).position(differs) {
                return Ok(Some(format!("tensor `{name}` at [{at}]: {} -> {}", kept[at], own[at])));
            }
        }
        Ok(None)
    }

    fn read(&self) -> Result<(Head, Vec<Vec<f32>>), String> {
        let file = File::open(&self.path).map_err(|e| e.to_string())?;
        let size = file.metadata().map_err(|e| e.to_string())?.len();
        let mut file = Digesting::new(BufReader::new(file));
        let (head, tensors) = read_state(&mut file, size).map_err(|_| DAMAGED)?;
        let mut digest = [0; blake3::OUT_LEN];
        let computed = file.hasher.finalize();
        file.inner.read_exact(&mut digest).map_err(|_| DAMAGED)?;
        if computed == digest { Ok((head, tensors)) } else { Err(DAMAGED.into()) }
    }
}

const DAMAGED: &str = "its bytes are damaged";

/// Nothing is believed of a length before it is compared with the file's `size`.
fn read_state(file: &mut impl Read, size: u64) -> std::io::Result<(Head, Vec<Vec<f32>>)> {
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let too_long = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut left = size.checked_sub(8).and_then(|left| left.checked_sub(length)).ok_or_else(too_long)?;
    let mut head = vec![0; length as usize];
    file.read_exact(&mut head)?;
    let head: Head = serde_json::from_slice(&head)?;
    let mut tensors = Vec::with_capacity(head.tensors.len());
    for (_, n_elements) in &head.tensors {
        let n_bytes = (*n_elements as u64).checked_mul(4).ok_or_else(too_long)?;
        left = left.checked_sub(n_bytes).ok_or_else(too_long)?;
        tensors.push(read_values(file, *n_elements)?);
    }
    Ok((head, tensors))
}

fn read_values(file: &mut impl Read, n_elements: usize) -> std::io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(n_elements);
    let mut chunk = [0; 4 * CHUNK];
    while values.len() < n_elements {
        let part = &mut chunk[..4 * CHUNK.min(n_elements - values.len())];
        file.read_exact(part)?;
        let elements = part.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        values.extend(elements);
    }
    Ok(values)
}

/// Puts a state into `trainer` if it is one of what is trained there.
fn take(head: Head, tensors: Vec<Vec<f32>>, trainer: &mut Trainer) -> Result<Progress, String> {
    if head.format_version != FORMAT_VERSION {
        return Err(format!("its format is {}, not {FORMAT_VERSION}", head.format_version));
    }
    if head.history.steps.len() as u64 != head.n_done {
        return Err(format!("it has the losses of {} optimizer steps, not {}", head.history.steps.len(), head.n_done));
    }
    let mut named = head.tensors.iter().zip(tensors);
    let mut next = |name: String, n_elements: usize| match named.next() {
        Some(((found, _), values)) if *found == name && values.len() == n_elements => Ok(values),
        _ => Err(format!("`{name}` is missing or of another shape")),
    };
    let sizes = sizes(trainer);
    let (mut values, mut moments) = (Vec::new(), Vec::new());
    for (name, n_elements) in &sizes {
        let [value, first, second] = PARTS.map(|part| next(format!("{name}.{part}"), *n_elements));
        values.push(value?);
        moments.push(Moments { first: first?, second: second? });
    }
    let best = match head.best {
        None => None,
        Some(BestHead { step, eval_loss }) if step == head.n_done => {
            Some(Best { step, eval_loss, values: values.clone() })
        }
        Some(BestHead { step, eval_loss }) => {
            let values = sizes.iter().map(|(name, n_elements)| next(format!("{name}.best"), *n_elements));
            Some(Best { step, eval_loss, values: values.collect::<Result<_, _>>()? })
        }
    };
    set_values(trainer, values).map_err(|e| e.to_string())?;
    trainer.optimizer.moments = moments;
    trainer.optimizer.n_done = head.n_done;
    trainer.gates = head.gates;
    Ok(Progress { history: head.history, links: head.links, best })
}

/// A file, and the digest of what went through it.
struct Digesting<F> {
    inner: F,
    hasher: blake3::Hasher,
}

impl<F> Digesting<F> {
    fn new(inner: F) -> Self {
        Digesting { inner, hasher: blake3::Hasher::new() }
    }
}

impl<F: Write> Write for Digesting<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<F: Read> Read for Digesting<F> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }
}
