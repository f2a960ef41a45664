//! `pipe run FILE --watch`: runs again whenever the pipeline file changes, or a local file that a stage reads.
//!
//! ```text
//! look --> run --> look again until something differs, and then until nothing does --> run ...
//! ```
//!
//! It looks at names, sizes, times and inodes of a short list of files a few times a second, instead of being told by the system: changes
//! made on another machine of a network file system are told to nobody, and an editor may replace a file by renaming another one.
//! No content is read.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pipe_contract::{Source, Stage};

use super::arguments::RunArguments;
use super::failure::CliError;
use super::run::{self, Means};
use super::session::Session;
use crate::exit_code;
use crate::report::numbers::plural;
use crate::spec::Pipeline;

/// How often it looks: soon enough for whoever has just saved a file, and nothing beside a run.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);

/// Editors write a file in several steps, and a checkout writes several files.
const SETTLE_INTERVAL: Duration = Duration::from_millis(100);

/// Runs until the user stops it: code 130 where that cut a run off.
pub(super) fn watch(session: &mut Session<'_>, arguments: &RunArguments, means: &Means) -> Result<u8, CliError> {
    (session.io.catch_signals)(&session.io.cancel);
    let file = session.io.current_dir.join(&arguments.file);
    loop {
        // Looked at before it is read: what is edited from here on is a change.
        let stamp = stamp_of(&file);
        session.begin = Instant::now();
        let mut watched = Watched { file: file.clone(), base_dir: PathBuf::new(), stages: Vec::new() };
        let loaded = run::load(session, arguments);
        if let Ok((_, loaded)) = &loaded {
            watched.add(&loaded.pipeline);
        }
        let mut seen = watched.look();
        seen.files.insert(file.clone(), stamp);
        match loaded.and_then(|(request, loaded)| run::run_loaded(session, arguments, means, &request, loaded)) {
            Ok(code) if session.io.cancel.is_cancelled() => return Ok(code),
            Ok(_) => {}
            Err(CliError::ReaderGone) => return Err(CliError::ReaderGone),
            Err(error) => session.tell(&error.render(session.err_style)),
        }
        let others = match seen.files.len() - 1 {
            0 => String::new(),
            n => format!(" and {}", plural(n, "other file")),
        };
        let line = format!("watching {}{others}; Ctrl-C ends", arguments.file.display());
        session.tell(&format!("{}\n", session.err_style.dim(&line)));
        let Some(changed) = wait_for_change(session, &watched, &seen) else { return Ok(exit_code::OK) };
        let shown = changed.strip_prefix(&session.io.current_dir).unwrap_or(&changed).display();
        let line = format!("\n{shown} changed");
        session.tell(&format!("{}\n", session.err_style.dim(&line)));
    }
}

/// A path that is not as it was seen, once nothing changes any more; `None` where the user stops it.
fn wait_for_change(session: &mut Session<'_>, watched: &Watched, seen: &Look) -> Option<PathBuf> {
    loop {
        let mut now = watched.look();
        if let Some(changed) = now.first_difference(seen) {
            let changed = changed.to_path_buf();
            loop {
                (session.io.pause)(SETTLE_INTERVAL);
                let later = watched.look();
                if later == now {
                    return Some(changed);
                }
                now = later;
            }
        }
        (session.io.pause)(LOOK_INTERVAL);
        if session.io.cancel.is_cancelled() {
            return None;
        }
    }
}

/// What is looked at.
struct Watched {
    file: PathBuf,
    base_dir: PathBuf,
    stages: Vec<Arc<dyn Stage>>,
}

/// How it was.
#[derive(Default, PartialEq)]
struct Look {
    files: BTreeMap<PathBuf, Option<Stamp>>,
    /// Stages whose source is not there, by position, and what they say.
    missing: BTreeMap<usize, String>,
}

#[derive(PartialEq)]
struct Stamp {
    size_bytes: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Watched {
    /// The stages that read local files, or would.
    fn add(&mut self, pipeline: &Pipeline) {
        self.base_dir.clone_from(&pipeline.base_dir);
        let reads = |stage: &Arc<dyn Stage>| {
            !matches!(stage.source(&pipeline.base_dir), Ok(Source::Computed | Source::Remote { .. }))
        };
        self.stages.extend(pipeline.stages.iter().map(|spec| spec.stage.clone()).filter(reads));
    }

    /// Which files there are is asked each time: one may be new.
    fn look(&self) -> Look {
        let mut look = Look::default();
        look.files.insert(self.file.clone(), stamp_of(&self.file));
        for (position, stage) in self.stages.iter().enumerate() {
            match stage.source(&self.base_dir) {
                Ok(Source::Files { root, names }) => {
                    let paths = names.iter().map(|name| root.join(name));
                    look.files.extend(paths.map(|path| {
                        let stamp = stamp_of(&path);
                        (path, stamp)
                    }));
                }
                Ok(Source::Computed | Source::Remote { .. }) => {}
                Err(error) => drop(look.missing.insert(position, error.chain())),
            }
        }
        look
    }
}

impl Look {
    /// A path that is new, gone or changed since `before`.
    fn first_difference<'l>(&'l self, before: &'l Look) -> Option<&'l Path> {
        let is_other = |path: &&PathBuf| self.files.get(*path) != before.files.get(*path);
        let differing = self.files.keys().chain(before.files.keys()).find(is_other);
        // A source that is not there has no path of its own: the first file stands for it.
        let other_missing = (self.missing != before.missing).then(|| self.files.keys().next()).flatten();
        differing.or(other_missing).map(PathBuf::as_path)
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { size_bytes: metadata.len(), modified: metadata.modified().ok(), inode: inode(&metadata) })
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}
