//! What a hub id at a revision stands for, and its files.
//!
//! ```text
//! resolve   main -> 0123...                          the commit
//!           main -> refs/convert/parquet@0123...     where the commit has no data file that we read, but the hub's own
//!                                                    conversion has
//! files     0123... -> listing, README.md -> select -> cache
//! ```

use std::collections::BTreeMap;

use pipe_contract::{ArtifactFile, Context, Unit};

use super::cache::Cache;
use super::client::Client;
use super::listing::{RepoFile, list_files, resolve_revision};
use super::transfer::{Fetched, fetch_all, offline};
use super::{CONVERTED, Repository, is_commit};
use crate::configs::{self, Configuration};
use crate::environment::Environment;
use crate::error::DownloadError;
use crate::net::Net;
use crate::select::{MODEL_FILES, is_data_file, is_part, select};
use crate::settings::{Settings, Wanted};
use crate::summary::arrived;

/// What is wanted of the hub.
pub(crate) struct Hub<'a> {
    settings: &'a Settings,
    environment: &'a Environment,
    repository: Repository,
    cache: Cache,
}

impl<'a> Hub<'a> {
    pub(crate) fn new(settings: &'a Settings, environment: &'a Environment, id: &str) -> Self {
        let repository = Repository { is_data_set: settings.wanted == Wanted::Dataset, id: id.to_string() };
        let cache = Cache::new(environment, &repository);
        Hub { settings, environment, repository, cache }
    }

    /// One line that identifies the question: `datasets/tatsu-lab/alpaca@main`.
    pub(crate) fn request(&self) -> String {
        format!("{}/{}@{}", self.repository.plural(), self.repository.id, self.settings.revision)
    }

    /// The commit, behind `refs/convert/parquet@` where it is one of the hub's conversion instead.
    ///
    /// # Errors
    /// When there is no such repository or revision, or the hub does not answer.
    pub(crate) fn resolve(&self, net: &Net) -> Result<String, DownloadError> {
        let revision = &self.settings.revision;
        if self.environment.is_offline {
            return self.resolve_offline();
        }
        if is_commit(revision) {
            return Ok(revision.clone());
        }
        let client = Client::new(net);
        let commit = resolve_revision(&client, &self.repository, revision)?;
        self.cache.write_ref(revision, &commit)?;
        let may_convert =
            self.settings.wanted == Wanted::Dataset && self.settings.files.is_none() && revision != CONVERTED;
        if !may_convert || self.listing(&client, &commit)?.iter().any(|file| is_data_file(&file.path)) {
            return Ok(commit);
        }
        match resolve_revision(&client, &self.repository, CONVERTED) {
            Ok(converted) => {
                self.cache.write_ref(CONVERTED, &converted)?;
                Ok(format!("{CONVERTED}@{converted}"))
            }
            // Then the commit is what there is, and says which files it has.
            Err(DownloadError::RevisionNotFound { .. }) => Ok(commit),
            Err(error) => Err(error),
        }
    }

    /// From what the cache remembers.
    fn resolve_offline(&self) -> Result<String, DownloadError> {
        let revision = &self.settings.revision;
        let known = if is_commit(revision) { Some(revision.clone()) } else { self.cache.read_ref(revision) };
        let missing = format!("the commit of `{revision}` of {}", self.repository.describe());
        let lacking = || DownloadError::Offline { cache: self.environment.cache.clone(), missing };
        let commit = known.ok_or_else(lacking)?;
        let has_rows = |listing: Vec<RepoFile>| listing.iter().any(|file| is_data_file(&file.path));
        let converted = self.cache.read_ref(CONVERTED).filter(|_| {
            self.settings.wanted == Wanted::Dataset
                && self.settings.files.is_none()
                && self.cache.read_listing(&commit).is_some_and(|listing| !has_rows(listing))
        });
        Ok(converted.map_or(commit, |converted| format!("{CONVERTED}@{converted}")))
    }

    /// The wanted files of what [`Hub::resolve`] gave.
    ///
    /// # Errors
    /// When files are missing, damaged or may not be read.
    pub(crate) fn files(
        &self,
        net: &Net,
        resolved: &str,
        ctx: &Context<'_>,
    ) -> Result<BTreeMap<String, ArtifactFile>, DownloadError> {
        let client = Client::new(net);
        let place = self.repository.describe();
        let commit = match resolved.strip_prefix(CONVERTED).and_then(|rest| rest.strip_prefix('@')) {
            Some(commit) => {
                let revision = &self.settings.revision;
                ctx.log(format!(
                    "{place} has no data file that we read at `{revision}`, so those of `{CONVERTED}` are taken"
                ));
                commit
            }
            None => resolved,
        };
        let wanted = self.wanted(&client, commit)?;
        if let Some(part) = wanted.iter().find(|file| is_part(&file.path)) {
            ctx.warn(format!("{place}: the hub has converted only the first part of the split (`{}`)", part.path));
        }
        let total: u64 = wanted.iter().map(|file| file.size_bytes).sum();
        let on_bytes = |n_bytes: u64| ctx.progress(n_bytes, total, Unit::Bytes);
        let fetched = self.fetch(&client, commit, &wanted, &on_bytes)?;
        ctx.progress(total, total, Unit::Bytes);
        let n_received: u64 = fetched.iter().map(|file| file.n_received_bytes).sum();
        ctx.log(arrived(&format!("{place} at {commit}"), wanted.len(), total, n_received));
        let named = wanted.into_iter().zip(fetched).map(|(file, Fetched { path, blake3, .. })| {
            (file.path, ArtifactFile { path, size_bytes: file.size_bytes, digest: blake3 })
        });
        Ok(named.collect())
    }

    /// The files to take, from the cached listing of the commit or from the hub.
    fn wanted(&self, client: &Client, commit: &str) -> Result<Vec<RepoFile>, DownloadError> {
        let pick = |listing: Vec<RepoFile>| -> Result<Vec<RepoFile>, DownloadError> {
            let configurations = self.configurations(client, commit, &listing)?;
            let names: Vec<String> = listing.iter().map(|file| file.path.clone()).collect();
            let names = select(self.settings, &self.repository.describe(), &names, &configurations)?;
            Ok(listing.into_iter().filter(|file| names.contains(&file.path)).collect())
        };
        let lacking = |missing: &str| offline(&self.cache, &self.repository, commit, missing);
        if !self.environment.is_offline {
            let listing = self.listing(client, commit)?;
            self.note_missing(commit, &listing)?;
            return pick(listing);
        }
        if let Some(listing) = self.cache.read_listing(commit) {
            let wanted = pick(listing)?;
            return match wanted.iter().find(|file| !self.has(commit, file)) {
                Some(missing) => Err(lacking(&format!("`{}`", missing.path))),
                None => Ok(wanted),
            };
        }
        // Another tool may have left all of it, or a part; a part that does not suffice is what is missing.
        let listing = self.cache.read_snapshot(commit).ok_or_else(|| lacking("every file"))?;
        pick(listing).map_err(|error| lacking(&format!("files ({error})")))
    }

    /// What the README of a data set says of its files. It is fetched, kept and checked as they are, but not published.
    fn configurations(
        &self,
        client: &Client,
        commit: &str,
        listing: &[RepoFile],
    ) -> Result<Vec<Configuration>, DownloadError> {
        let readme = listing.iter().find(|file| file.path == configs::README);
        let Some(readme) = readme.filter(|_| configs::matter_to(self.settings)) else { return Ok(Vec::new()) };
        if self.environment.is_offline && !self.has(commit, readme) {
            return Err(offline(&self.cache, &self.repository, commit, &format!("`{}`", configs::README)));
        }
        let fetched = self.fetch(client, commit, std::slice::from_ref(readme), &|_| ())?;
        let path = &fetched[0].path;
        let text = std::fs::read(path).map_err(DownloadError::io("read", path))?;
        configs::read(&self.repository.describe(), &String::from_utf8_lossy(&text))
    }

    fn fetch(
        &self,
        client: &Client,
        commit: &str,
        files: &[RepoFile],
        on_bytes: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Fetched>, DownloadError> {
        fetch_all(client, &self.repository, commit, files, on_bytes).inspect_err(|error| {
            if matches!(error, DownloadError::Corrupt { .. } | DownloadError::EntryNotFound { .. }) {
                // Perhaps it is not the file that is wrong.
                self.cache.forget_listing(commit);
            }
        })
    }

    /// Whether the cache has it.
    fn has(&self, commit: &str, file: &RepoFile) -> bool {
        self.cache.blob(&file.etag).exists() || self.cache.snapshot_file(commit, &file.path).exists()
    }

    /// The files of `commit`, remembered.
    fn listing(&self, client: &Client, commit: &str) -> Result<Vec<RepoFile>, DownloadError> {
        if let Some(listing) = self.cache.read_listing(commit) {
            return Ok(listing);
        }
        let listing = list_files(client, &self.repository, commit)?;
        self.cache.write_listing(commit, &listing)?;
        Ok(listing)
    }

    /// Tells other tools which files of a model they need not ask for.
    fn note_missing(&self, commit: &str, listing: &[RepoFile]) -> Result<(), DownloadError> {
        let is_missing = |name: &&&str| !listing.iter().any(|file| file.path == **name);
        let asked = MODEL_FILES.iter().filter(|_| self.settings.wanted == Wanted::Model).filter(is_missing);
        asked.into_iter().try_for_each(|name| self.cache.note_missing(commit, name))
    }
}
