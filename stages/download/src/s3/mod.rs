//! Objects of Amazon S3, or of a store that speaks its API.
//!
//! ```text
//! s3://bucket/rows.jsonl        one object
//! s3://bucket/models/mine/      what is below it, chosen as in a local folder
//! s3://bucket/rows/*.parquet    what matches: `*` stays in its folder, `**` is any folders
//! ```
//!
//! Resolved to a checksum of the listing (keys, sizes, etags, versions), which the cache keeps; each object is asked for on
//! condition (`If-Match`) that it is still the one that was listed. Bytes lie in `XDG_CACHE_HOME/pipe/s3/objects`, checked
//! by size, by the checksums that the store has (SHA-256, SHA-1, CRC-32, CRC-32C, CRC-64/NVME of the whole object), and by
//! the etag where that is an MD5. It deliberately knows keys from the environment only, and uploads nothing.

mod client;
mod listing;
mod sign;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use pipe_contract::{ArtifactFile, Context, Unit};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::environment::Environment;
use crate::error::DownloadError;
use crate::glob::{is_pattern, matches_path, split_pattern};
use crate::hub::{is_safe, write_atomically};
use crate::net::checksum::hex;
use crate::net::transfer::Transfer;
use crate::net::{Net, lock};
use crate::select::select;
use crate::settings::Settings;
use crate::summary::arrived;
use crate::web::{check, place};
use client::{Client, ObjectFile};

const LISTING_FORMAT_VERSION: u32 = 1;
/// What an id begins with.
const ID: &str = "s3:";

/// An object as it was listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Object {
    key: String,
    size_bytes: u64,
    /// As the store has it, without quotes.
    etag: String,
    /// Of a single object in a bucket that keeps versions.
    version: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    format_version: u32,
    objects: Vec<Object>,
}

/// What an `s3://` address stands for.
pub(crate) struct S3<'a> {
    settings: &'a Settings,
    environment: &'a Environment,
    bucket: &'a str,
    /// Key, prefix or pattern.
    path: &'a str,
}

impl<'a> S3<'a> {
    /// # Errors
    /// `NotAName` where no bucket is named.
    pub(crate) fn new(settings: &'a Settings, environment: &'a Environment) -> Result<Self, DownloadError> {
        let (bucket, path) = split(&settings.from)?;
        Ok(S3 { settings, environment, bucket, path })
    }

    /// One line that identifies the question. The endpoint is in it: another store is another question.
    pub(crate) fn request(&self) -> String {
        match &self.environment.aws.endpoint {
            Some(endpoint) => format!("{}@{}", self.settings.from, crate::net::address::origin_text(endpoint)),
            None => self.settings.from.clone(),
        }
    }

    /// `s3:` and a SHA-256 of the listing.
    ///
    /// # Errors
    /// When the store does not answer or refuses, or the network may not be used.
    pub(crate) fn resolve(&self, net: &Net) -> Result<String, DownloadError> {
        self.refuse_offline("the listing")?;
        let objects = self.list(&Client::new(net, self.bucket))?;
        let id = id_of(&objects);
        self.remember(&id, objects)?;
        Ok(id)
    }

    /// The wanted objects of what [`S3::resolve`] gave.
    ///
    /// # Errors
    /// `Changed` where the store has other objects by now.
    pub(crate) fn files(
        &self,
        net: &Net,
        resolved: &str,
        ctx: &Context<'_>,
    ) -> Result<BTreeMap<String, ArtifactFile>, DownloadError> {
        let client = Client::new(net, self.bucket);
        let wanted = self.wanted(self.objects(&client, resolved)?)?;
        let total: u64 = wanted.iter().map(|(_, object)| object.size_bytes).sum();
        let (mut n_done, mut n_received, mut files) = (0, 0, BTreeMap::new());
        for (name, object) in wanted {
            let on_bytes = &mut |n_bytes: u64| ctx.progress(n_done + n_bytes, total, Unit::Bytes);
            let (file, n_received_bytes) = self.fetch(&client, &object, on_bytes)?;
            n_done += object.size_bytes;
            n_received += n_received_bytes;
            files.insert(name, file);
        }
        ctx.progress(total, total, Unit::Bytes);
        ctx.log(arrived(&self.settings.from, files.len(), total, n_received));
        Ok(files)
    }

    /// All objects that the address stands for.
    fn list(&self, client: &Client) -> Result<Vec<Object>, DownloadError> {
        let is_one = !is_pattern(self.path) && !self.path.ends_with('/') && !self.path.is_empty();
        if is_one {
            return Ok(vec![client.head(self.path)?.object]);
        }
        let pattern = is_pattern(self.path).then_some(self.path);
        let prefix = pattern.map_or(self.path, |pattern| &pattern[..pattern.find(['*', '?', '[']).unwrap_or(0)]);
        let mut objects = client.list(prefix)?;
        // Stores of files have objects of no bytes for folders.
        objects.retain(|object| !object.key.ends_with('/') && pattern.is_none_or(|p| matches_path(p, &object.key)));
        if objects.is_empty() {
            let place = format!("the bucket `{}`", self.bucket);
            return Err(DownloadError::NoMatch { place, patterns: vec![self.path.to_string()], found: Vec::new() });
        }
        Ok(objects)
    }

    /// The objects behind an id: remembered, or listed again if they are still the same.
    fn objects(&self, client: &Client, resolved: &str) -> Result<Vec<Object>, DownloadError> {
        let known = fs::read(self.listing(resolved)).ok();
        let known = known.and_then(|text| serde_json::from_slice::<Listing>(&text).ok());
        let is_known =
            |listing: &Listing| listing.format_version == LISTING_FORMAT_VERSION && id_of(&listing.objects) == resolved;
        if let Some(listing) = known.filter(is_known) {
            return Ok(listing.objects);
        }
        self.refuse_offline("the listing")?;
        let objects = self.list(client)?;
        if id_of(&objects) != resolved {
            let problem = "it has other objects now".to_string();
            return Err(DownloadError::Changed { address: self.settings.from.clone(), problem });
        }
        self.remember(resolved, objects.clone())?;
        Ok(objects)
    }

    fn remember(&self, id: &str, objects: Vec<Object>) -> Result<(), DownloadError> {
        let listing = Listing { format_version: LISTING_FORMAT_VERSION, objects };
        write_atomically(&self.listing(id), &serde_json::to_vec(&listing).expect("names and numbers serialize"))
    }

    /// The objects to take with their names in the artifact: below the folder that the address names.
    fn wanted(&self, objects: Vec<Object>) -> Result<Vec<(String, Object)>, DownloadError> {
        let folder = if is_pattern(self.path) {
            split_pattern(self.path).0
        } else if self.path.ends_with('/') || self.path.is_empty() {
            self.path.trim_end_matches('/')
        } else {
            self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
        };
        let name_of = |object: &Object| {
            object.key.strip_prefix(folder).unwrap_or(&object.key).trim_start_matches('/').to_string()
        };
        let mut named: Vec<(String, Object)> = objects.into_iter().map(|object| (name_of(&object), object)).collect();
        if let Some((name, _)) = named.iter().find(|(name, _)| !is_safe(name)) {
            let (endpoint, path) = (self.settings.from.clone(), name.clone());
            return Err(DownloadError::BadAnswer {
                endpoint,
                path,
                problem: "it cannot be the name of a file".to_string(),
            });
        }
        let is_folder = !is_pattern(self.path) && (self.path.ends_with('/') || self.path.is_empty());
        if is_folder {
            let names: Vec<String> = named.iter().map(|(name, _)| name.clone()).collect();
            let chosen = select(self.settings, &format!("`{}`", self.settings.from), &names, &[])?;
            named.retain(|(name, _)| chosen.contains(name));
        }
        named.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(named)
    }

    /// Brings an object into the cache if it is not there, and checks it. Also the number of bytes received.
    fn fetch(
        &self,
        client: &Client,
        object: &Object,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(ArtifactFile, u64), DownloadError> {
        let folder = self.object_folder(object);
        let name = object.key.rsplit('/').next().unwrap_or_default();
        let path = folder.join(name);
        fs::create_dir_all(&folder).map_err(DownloadError::io("create", &folder))?;
        let _lock = lock(client.net, &folder.join(".lock"))?;
        let etag = client::promises_of_etag(self.bucket, object);
        if let Some((size_bytes, digest)) = check(client.net, &path, &etag, on_bytes)?
            && size_bytes == object.size_bytes
        {
            return Ok((ArtifactFile { path, size_bytes, digest }, 0));
        }
        self.refuse_offline(&format!("`{}`", object.key))?;
        let head = client.head(&object.key)?;
        if (&head.object.etag, head.object.size_bytes) != (&object.etag, object.size_bytes) {
            return Err(client.changed(&object.key));
        }
        let incomplete = folder.join(".incomplete");
        let transfer = Transfer {
            net: client.net,
            remote: &ObjectFile { client, object },
            name: &object.key,
            size_bytes: Some(object.size_bytes),
            promises: &head.promises,
            incomplete: &incomplete,
        };
        let arrived = transfer.run(on_bytes)?;
        place(&incomplete, &path)?;
        let file = ArtifactFile { path, size_bytes: arrived.size_bytes, digest: arrived.found.blake3 };
        Ok((file, arrived.n_received_bytes))
    }

    fn listing(&self, id: &str) -> PathBuf {
        let name = id.strip_prefix(ID).unwrap_or(id);
        self.environment.other_cache.join("s3/listings").join(format!("{name}.json"))
    }

    /// One folder for each state that an object had.
    fn object_folder(&self, object: &Object) -> PathBuf {
        let endpoint = self.environment.aws.endpoint.as_deref().unwrap_or_default();
        let Object { key, size_bytes, etag, version } = object;
        let all = serde_json::json!([endpoint, self.bucket, key, size_bytes, etag, version]).to_string();
        self.environment.other_cache.join("s3/objects").join(hex(&sha2::Sha256::digest(all)))
    }

    fn refuse_offline(&self, what: &str) -> Result<(), DownloadError> {
        if !self.environment.is_offline {
            return Ok(());
        }
        let (cache, missing) = (self.environment.other_cache.clone(), format!("{what} of `{}`", self.settings.from));
        Err(DownloadError::Offline { cache, missing })
    }
}

/// `(bucket, key, prefix or pattern)` of `s3://bucket/path`.
fn split(address: &str) -> Result<(&str, &str), DownloadError> {
    let rest = address.strip_prefix("s3://").unwrap_or(address);
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if bucket.is_empty() || !bucket.chars().all(is_name) {
        return Err(DownloadError::NotAName { from: address.to_string() });
    }
    Ok((bucket, path))
}

fn id_of(objects: &[Object]) -> String {
    let text = serde_json::to_vec(objects).expect("names and numbers serialize");
    format!("{ID}{}", hex(&sha2::Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_what_is_below_it() {
        assert_eq!(split("s3://b/a/b.jsonl").unwrap(), ("b", "a/b.jsonl"));
        assert_eq!(split("s3://b").unwrap(), ("b", ""));
        assert!(matches!(split("s3:///x"), Err(DownloadError::NotAName { .. })));
        assert!(matches!(split("s3://a b/x"), Err(DownloadError::NotAName { .. })));
    }

    #[test]
    fn the_id_changes_with_any_object() {
        let object = Object { key: "k".into(), size_bytes: 1, etag: "e".into(), version: None };
        let base = id_of(std::slice::from_ref(&object));
        assert!(base.starts_with("s3:") && base.len() == 67, "{base}");
        for other in [
            Object { key: "l".into(), ..object.clone() },
            Object { size_bytes: 2, ..object.clone() },
            Object { etag: "f".into(), ..object.clone() },
            Object { version: Some("v".into()), ..object.clone() },
        ] {
            assert_ne!(id_of(&[other]), base);
        }
    }
}
