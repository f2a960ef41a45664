//! The checksums of one pass over a file: the one that the hub names, and BLAKE3 for the store.
//!
//! The hub's etag says which it is: 64 hex digits are the SHA-256 of a large file, 40 are the SHA-1 of a git blob,
//! `sha1("blob SIZE\0" + bytes)`.

use std::io::Read;

use sha2::Digest as _;

/// Hashes bytes as they come.
pub(crate) struct Checksums {
    named: Named,
    blake3: blake3::Hasher,
}

enum Named {
    Sha256(sha2::Sha256),
    GitSha1(sha1::Sha1),
    /// The etag is no checksum that we know.
    None,
}

impl Checksums {
    /// For a file of `size_bytes` with `etag`.
    pub(crate) fn new(etag: &str, size_bytes: u64) -> Self {
        let named = match (etag.len(), super::is_hex(etag)) {
            (64, true) => Named::Sha256(sha2::Sha256::new()),
            (40, true) => {
                let mut sha1 = sha1::Sha1::new();
                sha1.update(format!("blob {size_bytes}\0"));
                Named::GitSha1(sha1)
            }
            _ => Named::None,
        };
        Checksums { named, blake3: blake3::Hasher::new() }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match &mut self.named {
            Named::Sha256(sha256) => sha256.update(bytes),
            Named::GitSha1(sha1) => sha1.update(bytes),
            Named::None => {}
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

    /// `(algorithm, checksum as the hub names it, BLAKE3)`; without a known algorithm the checksum is empty.
    pub(crate) fn finish(self) -> (&'static str, String, String) {
        let blake3 = self.blake3.finalize().to_hex().to_string();
        match self.named {
            Named::Sha256(sha256) => ("SHA-256", hex(&sha256.finalize()), blake3),
            Named::GitSha1(sha1) => ("git SHA-1", hex(&sha1.finalize()), blake3),
            Named::None => ("", String::new(), blake3),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(etag: &str, bytes: &[u8]) -> (&'static str, String) {
        let mut checksums = Checksums::new(etag, bytes.len() as u64);
        checksums.update(bytes);
        let (algorithm, checksum, _) = checksums.finish();
        (algorithm, checksum)
    }

    #[test]
    fn the_length_of_the_etag_says_which() {
        // `git hash-object` of a file with `hello\n`; `sha256sum` of the same.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(named(git, b"hello\n"), ("git SHA-1", git.to_string()));
        assert_eq!(named(sha256, b"hello\n"), ("SHA-256", sha256.to_string()));
        assert_eq!(named("W/x", b"hello\n"), ("", String::new()));
    }
}
