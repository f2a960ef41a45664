//! Two results side by side: what differs between them, file by file, down to the first tensor, column or byte.
//!
//! How files of a form are compared, the registry knows; here are ports and names.

use std::collections::BTreeSet;

use pipe_cache::{CacheError, Manifest, Store};
use pipe_contract::Artifact;
use serde::Serialize;

use crate::registry::Registry;

/// A file of an output that differs, or that one side lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDifference {
    /// The output port.
    pub port: String,
    /// Its name inside the artifact; none where only digests of whole artifacts are known.
    pub file: Option<String>,
    /// What differs, as a line without period.
    pub what: String,
}

impl FileDifference {
    /// Of an output whose bytes of before are not there.
    pub fn of_digests(port: &str, before: Option<&str>, now: &str) -> Self {
        let before = before.map_or("none", short);
        let what = format!("digest {before} -> {}; the bytes of before are not there to compare", short(now));
        FileDifference { port: port.to_string(), file: None, what }
    }

    /// `adapter/adapter_model.safetensors: ...`
    pub fn text(&self) -> String {
        match &self.file {
            Some(file) => format!("{}/{file}: {}", self.port, self.what),
            None => format!("{}: {}", self.port, self.what),
        }
    }
}

/// What differs between two manifests, each with the store that has its files.
///
/// # Errors
/// When a store cannot be read.
pub fn compare(
    registry: &Registry,
    (store, before): (&Store, &Manifest),
    (store_now, now): (&Store, &Manifest),
) -> Result<Vec<FileDifference>, CacheError> {
    let mut differences = Vec::new();
    let ports: BTreeSet<&String> = before.outputs.keys().chain(now.outputs.keys()).collect();
    for port in ports {
        match (before.outputs.get(port), now.outputs.get(port)) {
            (Some(old), Some(new)) if old.digest == new.digest => {}
            (Some(_), Some(_)) => {
                let (old, new) = (store.artifact(before, port)?, store_now.artifact(now, port)?);
                differences.extend(compare_artifacts(registry, port, &old, &new));
            }
            (old, _) => {
                let what = if old.is_some() { "it is not there any more" } else { "it was not there before" };
                differences.push(FileDifference { port: port.clone(), file: None, what: what.into() });
            }
        }
    }
    Ok(differences)
}

fn compare_artifacts(registry: &Registry, port: &str, before: &Artifact, now: &Artifact) -> Vec<FileDifference> {
    let mut differences = Vec::new();
    let mut differs = |file: &str, what: String| {
        differences.push(FileDifference { port: port.to_string(), file: Some(file.to_string()), what });
    };
    if before.kind != now.kind {
        differs("", format!("its artifact kind {} -> {}", before.kind, now.kind));
    }
    let names: BTreeSet<&String> = before.files.keys().chain(now.files.keys()).collect();
    for name in names {
        match (before.files.get(name), now.files.get(name)) {
            (Some(old), Some(new)) if old.digest == new.digest => {}
            (Some(old), Some(new)) => {
                let found = registry.first_difference(name, &old.path, &new.path);
                let by_digest = || format!("digest {} -> {}", short(&old.digest), short(&new.digest));
                differs(
                    name,
                    match found {
                        Ok(Some(what)) => what,
                        Ok(None) => by_digest(),
                        Err(error) => format!("{}; {}", by_digest(), error.chain()),
                    },
                );
            }
            (Some(_), None) => differs(name, "the file is not there any more".into()),
            (None, _) => differs(name, "the file was not there before".into()),
        }
    }
    differences
}

/// Enough of a digest to tell two apart.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
