//! A pipeline file to a checked [`Pipeline`], or to all that is wrong with it.
//!
//! ```text
//! text --parse--> nodes with places --document--> layers merged, ${{ }} replaced --matrix--> instances --stage_text--> keys, types
//!                                                                                                  |
//!           Pipeline <--order-- stages in order <--wire-- ports connected <--kind-- settings read by stage kinds
//! ```
//!
//! ```yaml
//! version: 1
//! vars: { max_length: 1024 }
//! stages:
//!   text:   { uses: format, inputs: { rows: dataset }, with: { template: alpaca } }
//!   packed: { uses: tokenize, inputs: { examples: text.examples }, with: { max_length: "${{ vars.max_length }}" } }
//! ```
//!
//! Each step goes on after a problem as far as it can, so that one pass reports everything; what depends on something
//! that is already reported stays silent.
//!
//! It deliberately does not touch inputs, the store or the network: a pipeline can be checked anywhere.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pipe_cache::NameMap;
use pipe_contract::{ArtifactKind, KeySettings, Output, ReadSetting, Stage, StageKind};

use crate::diagnostic::{Diagnostic, Diagnostics, Location};
use crate::registry::Registry;

mod document;
mod duration;
mod expression;
mod findings;
mod keys;
mod kind;
mod matrix;
mod node;
mod order;
mod parse;
mod places;
mod pools;
mod ports;
mod reference;
mod resources;
mod restrict;
mod set;
mod stage_text;
mod tries;
mod vars;
mod wire;

pub(crate) use document::{PROFILE_KEYS, TOP_KEYS};
pub use duration::{DURATION_FORM, parse_duration};
pub use order::{Cycles, sort_stages};
pub(crate) use places::normalize;
pub use reference::split_reference;
pub use resources::parse_memory;
pub(crate) use resources::{COUNT_MAX, KEYS as RESOURCE_KEYS, UNITS as MEMORY_UNITS};
pub(crate) use stage_text::STAGE_KEYS;

/// What is laid over the file.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The profile of the file to lay over it.
    pub profile: Option<String>,
    /// `--set` arguments, laid over that in their order: `stages.adapter.with.lora.r=8`; the value is read as YAML.
    pub sets: Vec<String>,
}

/// A pipeline in which every name is resolved and every setting is read.
#[derive(Debug)]
pub struct Pipeline {
    /// The file as it was named.
    pub path: PathBuf,
    /// Its folder, absolute: relative paths in settings start here.
    pub base_dir: PathBuf,
    /// `name:`, or the file's name without its ending.
    pub name: String,
    /// `numerics:`, where the file has it.
    pub numerics: Option<Numerics>,
    /// `pools:`, in file order.
    pub pools: Vec<Pool>,
    /// In file order; those that the profile adds come last.
    pub stages: Vec<StageSpec>,
    /// Every stage after those it waits for; in file order among equals.
    pub order: Vec<usize>,
    /// Whether stages of the file were left out.
    pub is_part: bool,
}

/// A pool of `pools:`: something the file names, of which stages take some and there is so much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its key.
    pub name: String,
    /// How much there is, at least 1.
    pub size: usize,
}

/// Which artifacts may be reused: those of the same compute class, or those of any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the line above says it")]
pub enum Numerics {
    Exact,
    Any,
}

/// A stage with its settings read and its inputs connected.
#[derive(Clone)]
pub struct StageSpec {
    /// Its key in `stages:`; of an instance, `@` and its combination behind that: `adapter@lr=0.0001,r=8`.
    pub name: String,
    /// What `uses:` selects.
    pub kind: &'static dyn StageKind,
    /// The kind with the settings of this stage.
    pub stage: Arc<dyn Stage>,
    /// The settings that determine its bytes, without defaults.
    pub key_settings: KeySettings,
    /// Every setting as its kind read it, defaults too: for reports.
    pub settings: Vec<ReadSetting>,
    /// Where settings are written, by their keys below `with:` with dots between them: values, and the keys of mappings.
    pub setting_locations: NameMap<Location>,
    /// Port to what feeds it. Every required port is there.
    pub inputs: NameMap<InputRef>,
    /// What it gives, by its kind and settings or as the file declares.
    pub outputs: Vec<Output>,
    /// The stages of `needs:`, by position, each once; those of `inputs` are not repeated here.
    pub needs: Vec<usize>,
    /// What it wishes for.
    pub resources: Resources,
    /// How long it may take, and how often it is tried.
    pub tries: Tries,
    /// Where its outputs are copied to: as written, relative to the current folder.
    pub to: Option<PathBuf>,
    /// Of its name.
    pub location: Location,
}

impl StageSpec {
    /// Its key in `stages:`, which instances of a matrix share.
    pub fn declared_name(&self) -> &str {
        self.name.split_once('@').map_or(&self.name, |(declared, _)| declared)
    }

    /// The stages it waits for, by position: those of its inputs, then those of `needs:`. One may come twice.
    pub fn waits_for(&self) -> impl Iterator<Item = usize> {
        self.inputs.values().map(|input| input.stage).chain(self.needs.iter().copied())
    }
}

impl fmt::Debug for StageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageSpec")
            .field("name", &self.name)
            .field("kind", &self.kind.name())
            .field("key_settings", &self.key_settings)
            .field("inputs", &self.inputs)
            .field("needs", &self.needs)
            .finish_non_exhaustive()
    }
}

/// An output of a stage, connected to a port that takes its artifact kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRef {
    /// Position in [`Pipeline::stages`].
    pub stage: usize,
    /// The output port.
    pub port: String,
    /// What flows.
    pub kind: ArtifactKind,
}

/// `resources:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Threads; `None` leaves it to the stage kind.
    pub cpu: Option<usize>,
    /// Memory to reserve; `None` reserves nothing.
    pub memory_bytes: Option<u64>,
    /// GPUs; a wish.
    pub gpu: usize,
    /// How much of which pool, by its position in [`Pipeline::pools`]; each once, none of nothing.
    pub pools: Vec<(usize, usize)>,
}

/// `timeout:` and `retries:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// How long each try may take.
    pub timeout: Option<Timeout>,
    /// How many further tries there are after a failure.
    pub n_retries: usize,
    /// How long the first of them waits.
    pub delay: Duration,
}

/// `timeout:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// As the user wrote it.
    pub text: String,
    /// How long that is.
    pub limit: Duration,
}

/// Reads and checks the pipeline file at `path`.
///
/// # Errors
/// All problems of the file, its profile and the `--set` arguments.
pub fn load(path: &Path, options: &LoadOptions, registry: &Registry) -> Result<Pipeline, Diagnostics> {
    let unreadable =
        |why: String| Diagnostic::new("unreadable-file", format!("failed to read `{}`: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| unreadable(format!("it is not UTF-8 (at byte {})", error.utf8_error().valid_up_to())))?;
    load_text(path, text, options, registry)
}

/// Like [`load`], with the file's content given; `path` names it in messages.
///
/// # Errors
/// As [`load`].
pub fn load_text(
    path: &Path,
    text: impl Into<Arc<str>>,
    options: &LoadOptions,
    registry: &Registry,
) -> Result<Pipeline, Diagnostics> {
    let text: Arc<str> = text.into();
    let text = text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), Arc::from);
    let mut findings = findings::Findings::default();
    let source = findings.add_source(&path.display().to_string(), text.clone());
    let document = parse::parse(&text, parse::Place::File(source), &mut findings)
        .and_then(|file| document::read(file, options, &mut findings));
    let Some(document) = document else { return Err(findings.into_diagnostics()) };
    let mut stages = Vec::with_capacity(document.stages.len());
    for entry in document.stages {
        let mut written = stage_text::read(entry, &document.pools, &mut findings);
        let built = kind::build(&mut written, registry, &mut findings);
        stages.push(wire::Part { written, built });
    }
    let wired = wire::wire(stages, &mut findings);
    findings.merge_instances();
    match wired {
        Some((stages, order)) if findings.is_empty() => Ok(Pipeline {
            path: path.to_path_buf(),
            base_dir: base_dir(path),
            name: document.name.unwrap_or_else(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned()),
            numerics: document.numerics,
            pools: document.pools.into_pools(),
            stages,
            order,
            is_part: false,
        }),
        _ => Err(findings.into_diagnostics()),
    }
}

fn base_dir(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf())
}
