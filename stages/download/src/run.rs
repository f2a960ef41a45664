//! Running `download`: names to files, files published by reference.

use std::collections::BTreeMap;
use std::path::Path;

use pipe_contract::{
    Artifact, ArtifactFile, CancelToken, Context, Cpu, ExternalFile, OutputPort, Resolved, Source, Stage, StageError,
    Unit,
};

use pipe_records::bytes;

use crate::error::DownloadError;
use crate::hub::{Cache, Client, Environment, Fetched, RepoFile, Repository, fetch, list_files, resolve_revision};
use crate::hub::{is_commit, offline};
use crate::local::{self, Place};
use crate::select::select;
use crate::settings::{Settings, Wanted};
use crate::summary;

/// The stage with its settings.
pub struct Download {
    /// As read.
    pub settings: Settings,
    /// Where the hub and its cache are.
    pub environment: Environment,
}

impl Stage for Download {
    fn outputs(&self) -> Vec<OutputPort> {
        vec![self.settings.wanted.output()]
    }

    fn cpu(&self) -> Cpu {
        Cpu::One
    }

    fn source(&self, base_dir: &Path) -> Result<Source, StageError> {
        match self.find(base_dir)? {
            Place::Local(path) => {
                let (root, names) = self.local_names(&path)?;
                Ok(Source::Files { root, names })
            }
            Place::Hub(id) => {
                let repository = self.repository(&id);
                Ok(Source::Remote { request: format!("{}/{id}@{}", repository.plural(), self.settings.revision) })
            }
        }
    }

    fn resolve(&self) -> Result<Resolved, StageError> {
        let repository = self.repository(&self.settings.from);
        let revision = &self.settings.revision;
        let cache = Cache::new(&self.environment, &repository);
        if self.environment.is_offline {
            let known = if is_commit(revision) { Some(revision.clone()) } else { cache.read_ref(revision) };
            let missing = format!("the commit of `{revision}` of {}", repository.describe());
            let lacking = || DownloadError::Offline { cache: self.environment.cache.clone(), missing };
            return Ok(Resolved { id: known.ok_or_else(lacking)? });
        }
        let client = Client::new(&self.environment, CancelToken::default(), &|_| ());
        let commit = resolve_revision(&client, &repository, revision)?;
        cache.write_ref(revision, &commit)?;
        Ok(Resolved { id: commit })
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let files = match self.find(&ctx.base_dir)? {
            Place::Local(path) => self.run_local(&path)?,
            Place::Hub(id) => {
                let commit = ctx.resolved.clone().ok_or_else(|| {
                    StageError::user(
                        "unresolved",
                        format!("the revision `{}` was not resolved", self.settings.revision),
                    )
                })?;
                self.run_hub(&self.repository(&id), &commit, ctx)?
            }
        };
        let port = self.settings.wanted.output();
        let artifact = Artifact { kind: port.kind, digest: String::new(), files };
        summary::report(&artifact, ctx)?;
        for (name, file) in artifact.files {
            let digest = (!file.digest.is_empty()).then_some(file.digest);
            ctx.publish_external(ExternalFile { port: port.name.to_string(), name, path: file.path, digest });
        }
        Ok(())
    }
}

type Files = BTreeMap<String, ArtifactFile>;

impl Download {
    fn find(&self, base_dir: &Path) -> Result<Place, DownloadError> {
        local::find(&self.settings.from, base_dir, self.environment.home.as_deref())
    }

    fn repository(&self, id: &str) -> Repository {
        Repository { is_data_set: self.settings.wanted == Wanted::Dataset, id: id.to_string() }
    }

    /// The folder, and the names below it that are wanted. A single file is wanted as it is.
    fn local_names(&self, path: &Path) -> Result<(std::path::PathBuf, Vec<String>), DownloadError> {
        let (root, names) = local::list(path)?;
        if path.is_file() {
            return Ok((root, names));
        }
        let names = select(&self.settings, &format!("`{}`", self.settings.from), &names)?;
        Ok((root, names))
    }

    /// Digests are left to the runner, which remembers them by the file's times.
    fn run_local(&self, path: &Path) -> Result<Files, DownloadError> {
        let (root, names) = self.local_names(path)?;
        let mut files = Files::new();
        for name in names {
            let path = root.join(&name);
            let size_bytes = std::fs::metadata(&path).map_err(DownloadError::io("read", &path))?.len();
            files.insert(name, ArtifactFile { path, size_bytes, digest: String::new() });
        }
        Ok(files)
    }

    fn run_hub(&self, repository: &Repository, commit: &str, ctx: &Context<'_>) -> Result<Files, DownloadError> {
        let warn = |line: String| ctx.warn(line);
        let client = Client::new(&self.environment, ctx.cancel.clone(), &warn);
        let wanted = self.wanted_files(&client, repository, commit)?;
        let total: u64 = wanted.iter().map(|file| file.size_bytes).sum();
        let (mut n_done, mut n_received) = (0, 0);
        let mut files = Files::new();
        for file in wanted {
            let mut on_bytes = |n_bytes: u64| ctx.progress(n_done + n_bytes, total, Unit::Bytes);
            let Fetched { path, blake3, n_received_bytes } = fetch(&client, repository, commit, &file, &mut on_bytes)?;
            n_done += file.size_bytes;
            n_received += n_received_bytes;
            files.insert(file.path, ArtifactFile { path, size_bytes: file.size_bytes, digest: blake3 });
        }
        ctx.progress(total, total, Unit::Bytes);
        let source = if n_received == 0 { "all from the cache".to_string() } else { bytes(n_received) + " received" };
        ctx.log(format!("{} at {commit}: {} files, {}, {source}", repository.describe(), files.len(), bytes(total)));
        Ok(files)
    }

    /// The files to take, from the cached listing of the commit or from the hub.
    fn wanted_files(
        &self,
        client: &Client,
        repository: &Repository,
        commit: &str,
    ) -> Result<Vec<RepoFile>, DownloadError> {
        let cache = Cache::new(&self.environment, repository);
        let place = repository.describe();
        let pick = |listing: Vec<RepoFile>| -> Result<Vec<RepoFile>, DownloadError> {
            let names: Vec<String> = listing.iter().map(|file| file.path.clone()).collect();
            let names = select(&self.settings, &place, &names)?;
            Ok(listing.into_iter().filter(|file| names.contains(&file.path)).collect())
        };
        if let Some(listing) = cache.read_listing(commit) {
            let wanted = pick(listing)?;
            let lacks = |file: &&RepoFile| !cache.blob(&file.etag).exists();
            if let (true, Some(missing)) = (self.environment.is_offline, wanted.iter().find(lacks)) {
                return Err(offline(&cache, repository, commit, &format!("`{}`", missing.path)));
            }
            return Ok(wanted);
        }
        if self.environment.is_offline {
            // Another tool may have left all of it, or a part; a part that does not suffice is what is missing.
            let listing =
                cache.read_snapshot(commit).ok_or_else(|| offline(&cache, repository, commit, "every file"))?;
            return pick(listing).map_err(|error| offline(&cache, repository, commit, &format!("files ({error})")));
        }
        let listing = list_files(client, repository, commit)?;
        cache.write_listing(commit, &listing)?;
        pick(listing)
    }
}
