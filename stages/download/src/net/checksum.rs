//! The checksums of one pass over a file: those that somebody promised, and BLAKE3 for the store.
//!
//! ```text
//! hub   etag of 64 hex digits   SHA-256 of a large file
//!       etag of 40              SHA-1 of a git blob: sha1("blob SIZE\0" + bytes)
//! https `sha256:`               SHA-256
//! S3    etag of 32              MD5; x-amz-checksum-*: SHA-256, SHA-1, CRC-32, CRC-32C, CRC-64/NVME
//! ```

use std::io::Read;

use sha2::Digest as _;

use super::crc::{CRC32, CRC32C, CRC64_NVME, Crc};

/// How a checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sha256,
    Sha1,
    /// Of a git blob: it begins with the file's size.
    GitSha1,
    Md5,
    Crc32,
    Crc32c,
    Crc64Nvme,
}

impl Algorithm {
    /// For messages.
    fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha1 => "SHA-1",
            Algorithm::GitSha1 => "git SHA-1",
            Algorithm::Md5 => "MD5",
            Algorithm::Crc32 => "CRC-32",
            Algorithm::Crc32c => "CRC-32C",
            Algorithm::Crc64Nvme => "CRC-64/NVME",
        }
    }
}

/// A checksum that a file must have, or is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) algorithm: Algorithm,
    /// Lowercase hex; `None` to find it.
    pub(crate) expected: Option<String>,
}

impl Promise {
    pub(crate) fn new(algorithm: Algorithm, expected: &str) -> Self {
        Promise { algorithm, expected: Some(expected.to_ascii_lowercase()) }
    }

    /// What an etag of the hub promises; nothing where it is no checksum that we know.
    pub(crate) fn of_hub(etag: &str) -> Vec<Promise> {
        match (etag.len(), is_hex(etag)) {
            (64, true) => vec![Promise::new(Algorithm::Sha256, etag)],
            (40, true) => vec![Promise::new(Algorithm::GitSha1, etag)],
            _ => Vec::new(),
        }
    }
}

/// Hashes bytes as they come.
pub(crate) struct Checksums {
    promised: Vec<(Promise, Hasher)>,
    blake3: blake3::Hasher,
}

enum Hasher {
    Sha256(sha2::Sha256),
    Sha1(sha1::Sha1),
    Md5(md5::Md5),
    Crc(Crc),
}

impl Hasher {
    fn new(algorithm: Algorithm, size_bytes: u64) -> Self {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha1 => Hasher::Sha1(sha1::Sha1::new()),
            Algorithm::GitSha1 => Hasher::Sha1(sha1::Sha1::new_with_prefix(format!("blob {size_bytes}\0"))),
            Algorithm::Md5 => Hasher::Md5(md5::Md5::new()),
            Algorithm::Crc32 => Hasher::Crc(Crc::new(&CRC32)),
            Algorithm::Crc32c => Hasher::Crc(Crc::new(&CRC32C)),
            Algorithm::Crc64Nvme => Hasher::Crc(Crc::new(&CRC64_NVME)),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(sha256) => sha256.update(bytes),
            Hasher::Sha1(sha1) => sha1.update(bytes),
            Hasher::Md5(md5) => md5.update(bytes),
            Hasher::Crc(crc) => crc.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Hasher::Sha256(sha256) => hex(&sha256.finalize()),
            Hasher::Sha1(sha1) => hex(&sha1.finalize()),
            Hasher::Md5(md5) => hex(&md5.finalize()),
            Hasher::Crc(crc) => crc.finish(),
        }
    }
}

/// What a pass over a file found.
pub(crate) struct Found {
    /// BLAKE3 in hex.
    pub(crate) blake3: String,
    /// SHA-256 in hex, where it was promised or asked for.
    pub(crate) sha256: Option<String>,
    /// The first promise that was not kept.
    pub(crate) broken: Option<Broken>,
}

/// A promise that was not kept.
pub(crate) struct Broken {
    pub(crate) algorithm: &'static str,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl Checksums {
    /// For a file of `size_bytes`, which only the SHA-1 of a git blob depends on.
    pub(crate) fn new(promises: &[Promise], size_bytes: u64) -> Self {
        let hasher = |promise: &Promise| (promise.clone(), Hasher::new(promise.algorithm, size_bytes));
        Checksums { promised: promises.iter().map(hasher).collect(), blake3: blake3::Hasher::new() }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for (_, hasher) in &mut self.promised {
            hasher.update(bytes);
        }
        self.blake3.update(bytes);
    }

    /// Takes in all that `reader` has. `between` is asked after each piece whether to go on. Returns the number of bytes.
    pub(crate) fn update_from<E: From<std::io::Error>>(
        &mut self,
        reader: &mut impl Read,
        mut between: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut buffer = vec![0; 1 << 18];
        let mut n_bytes = 0;
        loop {
            let n = reader.read(&mut buffer)?;
            if n == 0 {
                return Ok(n_bytes);
            }
            self.update(&buffer[..n]);
            n_bytes += n as u64;
            between(n)?;
        }
    }

    pub(crate) fn finish(self) -> Found {
        let mut found = Found { blake3: self.blake3.finalize().to_hex().to_string(), sha256: None, broken: None };
        for (promise, hasher) in self.promised {
            let value = hasher.finish();
            if promise.algorithm == Algorithm::Sha256 {
                found.sha256 = Some(value.clone());
            }
            let expected = promise.expected.filter(|expected| *expected != value);
            if let (None, Some(expected)) = (&found.broken, expected) {
                found.broken = Some(Broken { algorithm: promise.algorithm.name(), expected, found: value });
            }
        }
        found
    }
}

/// Whether `text` has nothing but lowercase hex digits.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(promises: &[Promise], bytes: &[u8]) -> Option<(&'static str, String)> {
        let mut checksums = Checksums::new(promises, bytes.len() as u64);
        checksums.update(bytes);
        checksums.finish().broken.map(|broken| (broken.algorithm, broken.found))
    }

    #[test]
    fn the_length_of_the_etag_says_which() {
        // `git hash-object` of a file with `hello\n`; `sha256sum` of the same.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for (etag, name) in [(git, "git SHA-1"), (sha256, "SHA-256")] {
            let promises = Promise::of_hub(etag);
            assert_eq!(broken(&promises, b"hello\n"), None);
            assert_eq!(broken(&promises, b"hallo\n").unwrap().0, name);
        }
        assert_eq!(Promise::of_hub("W/x"), []);
    }

    #[test]
    fn every_algorithm_gives_its_published_check_value() {
        // Of the nine digits: RFC 3720 and the catalogue of CRCs for the CRCs, `md5sum` and `sha1sum` for the others.
        for (algorithm, expected) in [
            (Algorithm::Crc32, "cbf43926"),
            (Algorithm::Crc32c, "e3069283"),
            (Algorithm::Crc64Nvme, "ae8b14860a799888"),
            (Algorithm::Md5, "25f9e794323b453885f5181f1b624d0b"),
            (Algorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
        ] {
            assert_eq!(broken(&[Promise::new(algorithm, expected)], b"123456789"), None, "{algorithm:?}");
        }
    }

    #[test]
    fn a_sha_256_is_found_where_none_is_known() {
        let mut checksums = Checksums::new(&[Promise { algorithm: Algorithm::Sha256, expected: None }], 0);
        checksums.update(b"hello\n");
        let found = checksums.finish();
        assert!(found.broken.is_none() && found.sha256.unwrap().starts_with("5891b5b5"));
    }
}
