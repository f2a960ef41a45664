//! One file behind an `https://` address.
//!
//! ```text
//! sha256: given       resolved to `sha256:<hex>` without asking; what comes must have it
//! sha256: not given   fetched once, resolved to the SHA-256 of what came; the lock file keeps it, and later runs demand it
//! ```
//!
//! The bytes lie in `XDG_CACHE_HOME/pipe/web/<sha256>/<name>`. Until the SHA-256 is known, ranges are asked for only on
//! condition (`If-Range`) that the file has not changed meanwhile. No credential is ever sent.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pipe_contract::ArtifactFile;
use sha2::Digest as _;

use crate::environment::Environment;
use crate::error::DownloadError;
use crate::net::address::{Origin, follow, origin_text, shown};
use crate::net::checksum::{Algorithm, Checksums, Promise, hex};
use crate::net::transfer::{Range, Remote, Transfer, hash_file};
use crate::net::{Answer, Failure, Net, Patience, lock, retry_after};

const REDIRECTS_MAX: u32 = 10;
/// What an id begins with.
const ID: &str = "sha256:";

/// A file behind an address.
pub(crate) struct Web<'a> {
    environment: &'a Environment,
    address: &'a str,
    /// As set.
    sha256: Option<&'a str>,
}

impl<'a> Web<'a> {
    pub(crate) fn new(environment: &'a Environment, address: &'a str, sha256: Option<&'a str>) -> Self {
        Web { environment, address, sha256 }
    }

    /// One line that identifies the question, for the lock file and the log: with the checksum, as another one is another
    /// question, and without what may be secret in an address, of which a checksum stands for the rest.
    pub(crate) fn request(&self) -> String {
        let shown = shown(self.address);
        match self.sha256 {
            Some(sha256) => format!("{shown}#sha256={sha256}"),
            None if shown == self.address => shown,
            None => format!("{shown}#address={}", &hex(&sha2::Sha256::digest(self.address))[..16]),
        }
    }

    /// `sha256:<hex>`: as set, or of what the address gives now.
    ///
    /// # Errors
    /// When the address does not answer, or the network may not be used.
    pub(crate) fn resolve(&self, net: &Net) -> Result<String, DownloadError> {
        if let Some(sha256) = self.sha256 {
            return Ok(format!("{ID}{sha256}"));
        }
        self.refuse_offline()?;
        let folder = self.environment.other_cache.join("web");
        fs::create_dir_all(&folder).map_err(DownloadError::io("create", &folder))?;
        let name = hex(&sha2::Sha256::digest(self.address));
        let _lock = lock(net, &folder.join(format!("{name}.lock")))?;
        let incomplete = folder.join(format!("{name}.incomplete"));
        // Who knows what it is the beginning of.
        let _ = fs::remove_file(&incomplete);
        let promises = [Promise { algorithm: Algorithm::Sha256, expected: None }];
        let arrived = self.transfer(net, &promises, &incomplete, &mut |_| ())?;
        let sha256 = arrived.found.sha256.expect("it was asked for");
        let path = self.path(&sha256);
        place(&incomplete, &path)?;
        Ok(format!("{ID}{sha256}"))
    }

    /// The file, which has the SHA-256 in `resolved`.
    ///
    /// # Errors
    /// `OtherContent` where the address gives something else.
    pub(crate) fn file(
        &self,
        net: &Net,
        resolved: &str,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(String, ArtifactFile), DownloadError> {
        let sha256 = resolved.strip_prefix(ID).unwrap_or(resolved);
        let path = self.path(sha256);
        let folder = path.parent().expect("it is in the folder of its checksum");
        fs::create_dir_all(folder).map_err(DownloadError::io("create", folder))?;
        let _lock = lock(net, &folder.join(".lock"))?;
        let promises = [Promise::new(Algorithm::Sha256, sha256)];
        let file = |size_bytes, digest| (self.name(), ArtifactFile { path: path.clone(), size_bytes, digest });
        if let Some((size_bytes, blake3)) = check(net, &path, &promises, on_bytes)? {
            return Ok(file(size_bytes, blake3));
        }
        self.refuse_offline()?;
        let incomplete = folder.join(".incomplete");
        let arrived = self.transfer(net, &promises, &incomplete, on_bytes).map_err(|error| match error {
            DownloadError::Corrupt { expected, found, .. } => {
                DownloadError::OtherContent { address: shown(self.address), expected, found }
            }
            other => other,
        })?;
        place(&incomplete, &path)?;
        Ok(file(arrived.size_bytes, arrived.found.blake3))
    }

    fn transfer(
        &self,
        net: &Net,
        promises: &[Promise],
        incomplete: &Path,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<crate::net::transfer::Arrived, DownloadError> {
        let remote = WebFile {
            net,
            address: self.address,
            origin: origin_text(self.address),
            is_known: promises.iter().any(|promise| promise.expected.is_some()),
            version: Mutex::default(),
        };
        let transfer = Transfer { net, remote: &remote, name: &self.name(), size_bytes: None, promises, incomplete };
        transfer.run(on_bytes)
    }

    /// The last part of the path, as far as it can be a name.
    fn name(&self) -> String {
        let path = shown(self.address);
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_good = |c: char| c.is_ascii_alphanumeric() || "._-+%".contains(c);
        let name: String = name.chars().map(|c| if is_good(c) { c } else { '_' }).collect();
        match name.trim_start_matches('.') {
            "" => "download".to_string(),
            name => name.to_string(),
        }
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.environment.other_cache.join("web").join(sha256).join(self.name())
    }

    fn refuse_offline(&self) -> Result<(), DownloadError> {
        if !self.environment.is_offline {
            return Ok(());
        }
        let (cache, missing) = (self.environment.other_cache.clone(), format!("`{}`", shown(self.address)));
        Err(DownloadError::Offline { cache, missing })
    }
}

/// Moves a file that is whole to where it belongs.
pub(crate) fn place(incomplete: &Path, path: &Path) -> Result<(), DownloadError> {
    let folder = path.parent().expect("a file of the cache is in a folder");
    fs::create_dir_all(folder).map_err(DownloadError::io("create", folder))?;
    fs::rename(incomplete, path).map_err(DownloadError::io("write", path))
}

/// Size and BLAKE3 of the file at `path` if it is there and keeps the promises.
pub(crate) fn check(
    net: &Net,
    path: &Path,
    promises: &[Promise],
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Option<(u64, String)>, DownloadError> {
    let Ok(mut opened) = File::open(path) else { return Ok(None) };
    let mut checksums = Checksums::new(promises, 0);
    let size_bytes = hash_file(net, &mut opened, path, &mut checksums, on_bytes)?;
    let found = checksums.finish();
    Ok(found.broken.is_none().then_some((size_bytes, found.blake3)))
}

struct WebFile<'a> {
    net: &'a Net<'a>,
    address: &'a str,
    origin: String,
    /// Whether its checksum is known, so that a mixture of two versions is noticed.
    is_known: bool,
    /// What the first answer called its version: a strong etag, or a date.
    version: Mutex<Option<String>>,
}

impl Remote for WebFile<'_> {
    fn get(&self, range: Range) -> Result<Answer, Failure> {
        let version = self.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut headers = Vec::new();
        if let Some(value) = range.header().filter(|_| self.is_known || version.is_some() || range.begin == 0) {
            headers.push(("Range", value));
            headers.extend(version.map(|version| ("If-Range", version)));
        }
        let answer = match self.follow(&headers) {
            // Nothing is missing, or the file has become shorter: the checksum of the whole will tell.
            Err(Failure::Final(DownloadError::Refused { status: 416, .. })) if range.begin > 0 => self.follow(&[])?,
            other => other?,
        };
        let etag = answer.header("etag").filter(|etag| etag.starts_with('"'));
        let version = etag.or_else(|| answer.header("last-modified")).map(str::to_string);
        if !self.is_known {
            self.version
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(|| version.unwrap_or_default());
        }
        Ok(answer)
    }

    fn origin(&self) -> &str {
        &self.origin
    }
}

impl WebFile<'_> {
    fn follow(&self, headers: &[(&str, String)]) -> Result<Answer, Failure> {
        let mut address = self.address.to_string();
        let bad = |problem: &str| {
            let (endpoint, path) = (self.origin.clone(), shown(self.address));
            Failure::Final(DownloadError::BadAnswer { endpoint, path, problem: problem.to_string() })
        };
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.net.get(&address, headers, Patience::File)?;
            match answer.status {
                200 | 206 => return Ok(answer),
                301 | 302 | 303 | 307 | 308 => {}
                _ => return Err(refused(&answer, &shown(self.address))),
            }
            let target = answer.header("location").and_then(|to| follow(&address, to));
            let target = target.ok_or_else(|| bad("a redirect to nowhere"))?;
            if Origin::of(&address).is_secure() && !Origin::of(&target).is_secure() {
                return Err(bad("a redirect from https to http"));
            }
            address = target;
        }
        Err(bad("more redirects than make sense"))
    }
}

/// The error of a status that is no success.
pub(crate) fn refused(answer: &Answer, address: &str) -> Failure {
    let code = answer.header("x-amz-error-code").unwrap_or_default().to_string();
    let error = DownloadError::Refused { address: address.to_string(), status: answer.status, code };
    match answer.status {
        408 | 429 | 500..=599 => Failure::Passing { error, wait: retry_after(&answer.headers), made_progress: false },
        _ => Failure::Final(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_by_the_last_part_of_its_path() {
        let environment = Environment::read(|_| None);
        let name = |address: &str| Web::new(&environment, address, None).name();
        assert_eq!(name("https://h/a/rows.jsonl?download=1"), "rows.jsonl");
        assert_eq!(name("https://h/a/.."), "download");
        assert_eq!(name("https://h/"), "download");
        assert_eq!(name("https://h/.x(y"), "x_y");
    }

    #[test]
    fn a_checksum_that_is_set_needs_no_question() {
        let environment = Environment::read(|_| None);
        let net = Net::new(&environment, pipe_contract::CancelToken::default(), &|_| ()).unwrap();
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let web = Web::new(&environment, "https://nowhere.invalid/x", Some(sha256));
        assert_eq!(web.resolve(&net).unwrap(), format!("sha256:{sha256}"));
        assert_eq!(web.request(), format!("https://nowhere.invalid/x#sha256={sha256}"));
    }

    #[test]
    fn a_question_has_no_secret_and_is_another_for_another_address() {
        let environment = Environment::read(|_| None);
        let request = |address: &str| Web::new(&environment, address, None).request();
        assert_eq!(request("https://h/x.csv"), "https://h/x.csv");
        let signed = request("https://me:pass@h/x.csv?signature=secret");
        assert!(signed.starts_with("https://h/x.csv#address=") && signed.len() == 40, "{signed}");
        assert_ne!(signed, request("https://h/x.csv?signature=other"));
    }
}
