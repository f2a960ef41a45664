//! Bytes to digests: BLAKE3 of a file, and of an artifact's names and files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use blake3::Hasher;
use pipe_contract::ArtifactKind;

/// From this size on a file is mapped and hashed by all threads of the pool; below it, starting them costs more.
pub(crate) const MAP_SIZE_BYTES_MIN: u64 = 4 << 20;

/// Below it a file is read in small pieces.
const SMALL_BYTES_MAX: u64 = 16 << 10;

/// A file's digest and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// BLAKE3 of the bytes, 64 lowercase hex digits.
    pub digest: String,
    /// In bytes.
    pub size_bytes: u64,
}

/// The digest of an artifact: BLAKE3 over its kind and, in name order, the name and digest of each file.
///
/// ```text
/// text("artifact") text(kind) u64(number of files) then per file: text(name) text(digest in hex)
/// text(s) = u64(length in bytes) s        u64 = 8 bytes, little-endian
/// ```
///
/// Every part carries its length, so no two artifacts share an encoding. `files` must come sorted by name, as they do
/// from a `BTreeMap`. Sizes and paths are left out: the digests say all about the bytes.
pub fn artifact_digest<'a>(kind: ArtifactKind, files: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> String {
    let mut hasher = Hasher::new();
    put_text(&mut hasher, "artifact");
    put_text(&mut hasher, kind.name());
    hasher.update(&(files.len() as u64).to_le_bytes());
    for (name, digest) in files {
        put_text(&mut hasher, name);
        put_text(&mut hasher, digest);
    }
    hasher.finalize().to_hex().to_string()
}

/// BLAKE3 of the file at `path` in hex. `size_bytes` chooses how it is read, it does not enter the digest.
pub(crate) fn hash_file(path: &Path, size_bytes: u64) -> io::Result<String> {
    let mut hasher = Hasher::new();
    if size_bytes >= MAP_SIZE_BYTES_MIN {
        hasher.update_mmap_rayon(path)?;
    } else if size_bytes < SMALL_BYTES_MAX {
        hash_small(&mut hasher, File::open(path)?)?;
    } else {
        hasher.update_reader(File::open(path)?)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// As [`Hasher::update_reader`], which clears 64 KiB first and takes longer for that than for a small file.
fn hash_small(hasher: &mut Hasher, mut file: File) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n_read) => drop(hasher.update(&buffer[..n_read])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether `text` is a digest as this crate writes them.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn put_text(hasher: &mut Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222222222222222222222222222";

    #[test]
    fn the_encoding_is_the_documented_one() {
        let mut bytes = Vec::new();
        for part in ["artifact", "rows"] {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes.extend(2_u64.to_le_bytes());
        for part in ["a.jsonl", A, "b/c.jsonl", B] {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part.as_bytes());
        }
        let files = [("a.jsonl", A), ("b/c.jsonl", B)];
        let digest = artifact_digest(ArtifactKind::Rows, files.into_iter());
        assert_eq!(digest, blake3::hash(&bytes).to_hex().to_string());
        assert_eq!(digest, "dbce5f056aef2d0f671d50b29837d105cce11eb757873aa3a5304c78db84108f");
    }

    #[test]
    fn kind_name_and_bytes_each_change_it_and_parts_do_not_run_together() {
        let base = artifact_digest(ArtifactKind::Rows, [("ab", A)].into_iter());
        assert_ne!(base, artifact_digest(ArtifactKind::Examples, [("ab", A)].into_iter()));
        assert_ne!(base, artifact_digest(ArtifactKind::Rows, [("a", A)].into_iter()));
        assert_ne!(base, artifact_digest(ArtifactKind::Rows, [("ab", B)].into_iter()));
        assert_ne!(base, artifact_digest(ArtifactKind::Rows, [("ab", A), ("b", A)].into_iter()));
    }

    #[test]
    fn a_mapped_file_and_a_read_file_have_the_same_digest() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("bytes");
        let bytes: Vec<u8> = (0..=250_u8).cycle().take(MAP_SIZE_BYTES_MIN as usize + 7).collect();
        std::fs::write(&path, &bytes).expect("write");
        let expected = blake3::hash(&bytes).to_hex().to_string();
        assert_eq!(hash_file(&path, bytes.len() as u64).expect("map"), expected);
        assert_eq!(hash_file(&path, SMALL_BYTES_MAX).expect("read"), expected);
        assert_eq!(hash_file(&path, 0).expect("read in small pieces"), expected);
    }
}
