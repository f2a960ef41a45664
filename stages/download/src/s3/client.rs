//! Requests to the store: signed where there are keys, and what its answers mean.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Object;
use super::listing::{parse_page, text_of};
use super::sign::{Request, Signer};
use crate::error::DownloadError;
use crate::net::address::{encode, origin_text};
use crate::net::checksum::{Algorithm, Promise, hex, is_hex};
use crate::net::transfer::{Range, Remote};
use crate::net::{Answer, Failure, Method, Net, Patience, network, retry_after};

/// Asks one bucket.
pub(super) struct Client<'a> {
    pub(super) net: &'a Net<'a>,
    bucket: &'a str,
    /// Where the bucket is, as far as is known.
    region: Mutex<String>,
    /// For messages.
    origin: String,
}

/// What the store says of an object without giving it.
pub(super) struct Head {
    pub(super) object: Object,
    pub(super) promises: Vec<Promise>,
}

impl<'a> Client<'a> {
    pub(super) fn new(net: &'a Net<'a>, bucket: &'a str) -> Self {
        let aws = &net.environment.aws;
        let origin = aws.endpoint.as_deref().map_or_else(|| "Amazon S3".to_string(), origin_text);
        Client { net, bucket, region: Mutex::new(aws.region.clone()), origin }
    }

    /// Size, etag, version and checksums of the object `key`.
    pub(super) fn head(&self, key: &str) -> Result<Head, DownloadError> {
        self.net.retrying(|| {
            let mode = [("x-amz-checksum-mode", "ENABLED".to_string())];
            let answer = self.send(Method::Head, key, "", &mode, Patience::Question)?;
            let length = answer.header("content-length").and_then(|length| length.parse().ok());
            let (Some(size_bytes), Some(etag)) = (length, answer.header("etag")) else {
                let problem = "it has no etag, or no size as where it is stored with `Content-Encoding: gzip`";
                return Err(Failure::passing(self.problem(key, problem)));
            };
            let version = answer.header("x-amz-version-id").filter(|version| *version != "null");
            let object = Object {
                key: key.to_string(),
                size_bytes,
                etag: etag.trim_matches('"').to_string(),
                version: version.map(str::to_string),
            };
            let promises = promises_of(self.bucket, &object, &answer);
            Ok(Head { object, promises })
        })
    }

    /// All objects whose keys begin with `prefix`, sorted by key.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Object>, DownloadError> {
        let mut objects = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut query = Vec::new();
            query.extend(next.iter().map(|next| format!("continuation-token={}", encode(next, ""))));
            query.extend(["encoding-type=url".to_string(), "list-type=2".to_string()]);
            query.push(format!("prefix={}", encode(prefix, "")));
            let query = query.join("&");
            let page = self.net.retrying(|| {
                let mut answer = self.send(Method::Get, "", &query, &[], Patience::Question)?;
                let text = answer.body.with_config().limit(64 << 20).read_to_string();
                let text = text.map_err(|error| Failure::passing(network(&self.address("").0, &error)))?;
                parse_page(&text).map_err(|problem| Failure::passing(self.problem(prefix, &problem)))
            })?;
            objects.extend(page.objects);
            match page.next {
                Some(following) if next.as_ref() != Some(&following) => next = Some(following),
                _ => break,
            }
        }
        objects.sort_by(|a: &Object, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// The error of an object that is no longer what was listed.
    pub(super) fn changed(&self, key: &str) -> DownloadError {
        let address = format!("s3://{}/{key}", self.bucket);
        DownloadError::Changed { address, problem: "its etag or size is another one".to_string() }
    }

    /// One request, signed where there are keys: an answer with status 200 or 206. In another region than was thought, it is
    /// made once more there.
    fn send(
        &self,
        method: Method,
        key: &str,
        query: &str,
        headers: &[(&str, String)],
        patience: Patience,
    ) -> Result<Answer, Failure> {
        for is_last in [false, true] {
            let mut answer = self.send_to_region(method, key, query, headers, patience)?;
            if matches!(answer.status, 200 | 206) {
                return Ok(answer);
            }
            let region = answer.header("x-amz-bucket-region").map(str::to_string);
            let mut known = self.region.lock().unwrap_or_else(PoisonError::into_inner);
            if let (false, 301 | 307 | 400 | 403, Some(region)) = (is_last, answer.status, region)
                && *known != region
            {
                *known = region;
                continue;
            }
            drop(known);
            return Err(self.refused(&mut answer, key));
        }
        unreachable!("the last of the two attempts returns")
    }

    fn send_to_region(
        &self,
        method: Method,
        key: &str,
        query: &str,
        headers: &[(&str, String)],
        patience: Patience,
    ) -> Result<Answer, Failure> {
        let aws = &self.net.environment.aws;
        let (origin, path) = self.address(key);
        let mut all = headers.to_vec();
        if let Some((id, secret)) = &aws.keys {
            let host = origin.split_once("://").map_or(origin.as_str(), |(_, host)| host);
            let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let region = self.region.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let signer = Signer { id, secret, session: aws.session.as_deref(), region: &region, unix_time };
            let name = if method == Method::Head { "HEAD" } else { "GET" };
            all.extend(signer.sign(&Request { method: name, host, path: &path, query, headers }));
        }
        let mark = if query.is_empty() { "" } else { "?" };
        self.net.send(method, &format!("{origin}{path}{mark}{query}"), &all, patience)
    }

    /// `(https://host, /path)` of an object; of the bucket for an empty key.
    fn address(&self, key: &str) -> (String, String) {
        let (bucket, key) = (self.bucket, encode(key, "/"));
        if let Some(endpoint) = &self.net.environment.aws.endpoint {
            return (endpoint.clone(), format!("/{bucket}/{key}"));
        }
        let region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        // A name with a dot would not match the certificate.
        if bucket.contains('.') {
            return (format!("https://s3.{region}.amazonaws.com"), format!("/{bucket}/{key}"));
        }
        (format!("https://{bucket}.s3.{region}.amazonaws.com"), format!("/{key}"))
    }

    /// The error of a status that is no success, with the code that the store gives in XML.
    fn refused(&self, answer: &mut Answer, key: &str) -> Failure {
        let text = answer.body.with_config().limit(1 << 16).read_to_string().unwrap_or_default();
        let code = text_of(&text, "Code").unwrap_or_default();
        let address = format!("s3://{}/{key}", self.bucket);
        match answer.status {
            412 => Failure::Final(self.changed(key)),
            status @ (408 | 429 | 500..=599) => {
                let error = DownloadError::Refused { address, status, code };
                Failure::Passing { error, wait: retry_after(&answer.headers), made_progress: false }
            }
            status => Failure::Final(DownloadError::Refused { address, status, code }),
        }
    }

    fn problem(&self, key: &str, problem: &str) -> DownloadError {
        let (endpoint, path) = (self.origin.clone(), format!("s3://{}/{key}", self.bucket));
        DownloadError::BadAnswer { endpoint, path, problem: problem.to_string() }
    }
}

/// The bytes of an object that must still be the one that was listed.
pub(super) struct ObjectFile<'a> {
    pub(super) client: &'a Client<'a>,
    pub(super) object: &'a Object,
}

impl Remote for ObjectFile<'_> {
    fn get(&self, range: Range) -> Result<Answer, Failure> {
        let mut headers = vec![("if-match", format!("\"{}\"", self.object.etag))];
        headers.extend(range.header().map(|range| ("range", range)));
        let version = self.object.version.as_ref();
        let query = version.map_or_else(String::new, |version| format!("versionId={}", encode(version, "")));
        self.client.send(Method::Get, &self.object.key, &query, &headers, Patience::File)
    }

    fn origin(&self) -> &str {
        &self.client.origin
    }
}

/// The checksums of the whole object in an answer to HEAD. A composite one (`...-3`) is of its parts, which are not known.
fn promises_of(bucket: &str, object: &Object, answer: &Answer) -> Vec<Promise> {
    let is_encrypted = answer.header("x-amz-server-side-encryption").is_some_and(|by| by.starts_with("aws:kms"))
        || answer.header("x-amz-server-side-encryption-customer-algorithm").is_some();
    let mut promises = if is_encrypted { Vec::new() } else { promises_of_etag(bucket, object) };
    let is_composite = answer.header("x-amz-checksum-type") == Some("COMPOSITE");
    for (name, algorithm, n_bytes) in [
        ("x-amz-checksum-sha256", Algorithm::Sha256, 32),
        ("x-amz-checksum-sha1", Algorithm::Sha1, 20),
        ("x-amz-checksum-crc64nvme", Algorithm::Crc64Nvme, 8),
        ("x-amz-checksum-crc32c", Algorithm::Crc32c, 4),
        ("x-amz-checksum-crc32", Algorithm::Crc32, 4),
    ] {
        let value = answer.header(name).filter(|_| !is_composite).and_then(from_base64);
        promises.extend(value.filter(|value| value.len() == n_bytes).map(|v| Promise::new(algorithm, &hex(&v))));
    }
    promises
}

/// An etag of 32 hex digits is the MD5 of an object that was uploaded in one part, but in a directory bucket.
pub(super) fn promises_of_etag(bucket: &str, object: &Object) -> Vec<Promise> {
    let is_md5 = object.etag.len() == 32 && is_hex(&object.etag) && !bucket.ends_with("--x-s3");
    if is_md5 { vec![Promise::new(Algorithm::Md5, &object.etag)] } else { Vec::new() }
}

/// Bytes of standard Base64 (RFC 4648, section 4).
fn from_base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut n_bits) = (Vec::new(), 0_u32, 0);
    for digit in text.trim_end_matches('=').chars() {
        bits = (bits << 6 | u32::try_from(DIGITS.find(digit)?).ok()?) & 0xFFFF;
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits & 0xFF) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        // RFC 4648, section 10.
        for (text, expected) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(from_base64(text).as_deref(), Some(expected.as_bytes()));
        }
        assert_eq!(from_base64("a-3"), None);
    }

    #[test]
    fn an_etag_is_an_md5_only_where_it_can_be() {
        let object = |etag: &str| Object { key: "k".into(), size_bytes: 0, etag: etag.into(), version: None };
        let md5 = "25f9e794323b453885f5181f1b624d0b";
        assert_eq!(promises_of_etag("b", &object(md5)), [Promise::new(Algorithm::Md5, md5)]);
        assert_eq!(promises_of_etag("b", &object(&format!("{md5}-3"))), []);
        assert_eq!(promises_of_etag("b--use1-az4--x-s3", &object(md5)), []);
    }
}
