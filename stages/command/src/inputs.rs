//! The inputs of a command as files with names.
//!
//! ```text
//! blobs/ab/ab12...  <--  scratch/inputs/PORT/NAME      a link per file: blobs have no names, and nothing is copied
//! ```
//!
//! A port stands for its folder; for the file itself where the artifact is one file. A port that nothing mentions is not laid
//! out. A blob belongs to whoever made it, so a command that wrote through a link has failed.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use pipe_contract::{Artifact, ArtifactKind, Context};

use crate::error::CommandError;

/// The inputs of a command that is about to run.
pub(crate) struct Inputs {
    /// Port to what stands for it.
    pub(crate) paths: Vec<(String, PathBuf)>,
    files: Vec<InputFile>,
}

struct InputFile {
    port: String,
    name: String,
    path: PathBuf,
    before: Look,
}

/// What writing to a file changes.
#[derive(PartialEq)]
struct Look {
    ino: u64,
    size_bytes: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Look {
    fn of(metadata: &Metadata) -> Self {
        Look {
            ino: metadata.ino(),
            size_bytes: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Inputs {
    /// Lays links out below `folder`, for the ports that `is_mentioned`.
    pub(crate) fn lay_out(
        ctx: &Context<'_>,
        folder: &Path,
        is_mentioned: impl Fn(&str) -> bool,
    ) -> Result<Self, CommandError> {
        let mut inputs = Inputs { paths: Vec::new(), files: Vec::new() };
        for (port, artifact) in ctx.inputs.iter().filter(|(port, _)| is_mentioned(port)) {
            inputs.add(port, artifact, &folder.join(port))?;
        }
        Ok(inputs)
    }

    fn add(&mut self, port: &str, artifact: &Artifact, folder: &Path) -> Result<(), CommandError> {
        std::fs::create_dir_all(folder).map_err(CommandError::io("create", folder))?;
        for (name, file) in &artifact.files {
            let link = folder.join(name);
            if let Some(parent) = link.parent().filter(|parent| *parent != folder) {
                std::fs::create_dir_all(parent).map_err(CommandError::io("create", parent))?;
            }
            let metadata = std::fs::metadata(&file.path).map_err(CommandError::io("read", &file.path))?;
            symlink(&file.path, &link).map_err(CommandError::io("create", &link))?;
            self.files.push(InputFile {
                port: port.into(),
                name: name.clone(),
                path: file.path.clone(),
                before: Look::of(&metadata),
            });
        }
        let only = artifact.files.keys().next().filter(|_| artifact.kind == ArtifactKind::File);
        self.paths.push((port.into(), only.map_or_else(|| folder.to_path_buf(), |name| folder.join(name))));
        Ok(())
    }

    /// The files that the links lead to.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Refuses a command that wrote to one of them.
    pub(crate) fn check_unchanged(&self) -> Result<(), CommandError> {
        let is_as_before =
            |file: &&InputFile| std::fs::metadata(&file.path).is_ok_and(|now| Look::of(&now) == file.before);
        match self.files.iter().find(|file| !is_as_before(file)) {
            Some(file) => Err(CommandError::InputChanged { port: file.port.clone(), file: file.name.clone() }),
            None => Ok(()),
        }
    }
}
