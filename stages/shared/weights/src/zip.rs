//! The directory of a zip archive whose members are stored: where the bytes of each lie in the file.
//!
//! ```text
//! local header, name, extra, DATA | ... | central directory: a record per member | [zip64 end, its locator] | end
//! ```
//!
//! Numbers of sections are of PKWARE's APPNOTE.TXT 6.3.10. Archives of more than 4 GiB are zip64 (4.3.14, 4.5.3).
//!
//! Our own, and not the `zip` crate that is in the tree below candle: what is needed is a place in the file, for a map, and not a reader
//! that unpacks; and an archive that says two things (a name twice, members that overlap, a local header of another name) must be
//! refused, where a general library takes one of them. It deliberately unpacks nothing: PyTorch stores, so that tensors can be mapped.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::error::{Fault, shown};

/// Of a directory: some 170,000 members. A shard of PyTorch's has a member a tensor, hundreds.
const DIRECTORY_BYTES_MAX: u64 = 16 << 20;
/// A comment is at most this long (4.4.12), so the end record begins no earlier.
const COMMENT_BYTES_MAX: u64 = 65_535;
const END_BYTES: u64 = 22;
const LOCATOR_BYTES: u64 = 20;
const END64_BYTES: u64 = 56;
const RECORD_BYTES: usize = 46;
const LOCAL_BYTES: u64 = 30;

/// A stored member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Of its data, in the file.
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// A record of the directory.
struct Record {
    name: String,
    header_offset: u64,
    size: u64,
}

/// Whether the file begins as an archive with a member does.
pub(crate) fn is_archive(beginning: &[u8]) -> bool {
    beginning.starts_with(b"PK\x03\x04")
}

/// The members by name.
///
/// # Errors
/// An archive that is cut off or contradicts itself; one that is packed, encrypted or in several parts.
pub(crate) fn members(file: &File) -> Result<BTreeMap<String, Member>, Fault> {
    let (directory, directory_offset) = read_directory(file)?;
    let mut rest = directory.as_slice();
    let (mut members, mut places) = (BTreeMap::new(), Vec::new());
    while !rest.is_empty() {
        let record = take_record(&mut rest)?;
        let member = locate(file, &record, directory_offset)?;
        places.push((record.header_offset, member.offset + member.size));
        if members.insert(record.name.clone(), member).is_some() {
            return Err(Fault::broken(format!("it has two members called `{}`", shown(&record.name))));
        }
    }
    places.sort_unstable();
    match places.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        true => Err(Fault::broken("members of the archive overlap")),
        false => Ok(members),
    }
}

/// The bytes of the central directory, and where it begins.
fn read_directory(file: &File) -> Result<(Vec<u8>, u64), Fault> {
    let file_size = file.metadata()?.len();
    let tail_size = file_size.min(END_BYTES + COMMENT_BYTES_MAX);
    let tail = read(file, file_size - tail_size, tail_size)?;
    let is_end = |at: &usize| {
        let record = &tail[*at..];
        record.starts_with(b"PK\x05\x06") && u64::from(u16_at(record, 20)) == record.len() as u64 - END_BYTES
    };
    let starts = 0..(tail.len() + 1).saturating_sub(END_BYTES as usize);
    let Some(end_at) = starts.rev().find(is_end) else {
        return Err(Fault::broken("it is cut off: the directory at the end of the archive is missing"));
    };
    let end = &tail[end_at..];
    let end_offset = file_size - tail_size + end_at as u64;
    let (mut n_members, mut size, mut offset) =
        (u64::from(u16_at(end, 10)), u64::from(u32_at(end, 12)), u64::from(u32_at(end, 16)));
    let mut limit = end_offset;
    if n_members == 0xffff || size == 0xffff_ffff || offset == 0xffff_ffff {
        limit = end64_offset(file, end_offset)?;
        let end64 = read(file, limit, END64_BYTES)?;
        if !end64.starts_with(b"PK\x06\x06") {
            return Err(Fault::broken("the zip64 directory of the archive is broken"));
        }
        (n_members, size, offset) = (u64_at(&end64, 32), u64_at(&end64, 40), u64_at(&end64, 48));
    }
    if offset.checked_add(size).is_none_or(|directory_end| directory_end > limit) || size > DIRECTORY_BYTES_MAX {
        return Err(Fault::broken(format!("the directory of the archive claims {size} bytes at {offset}")));
    }
    if n_members.checked_mul(RECORD_BYTES as u64).is_none_or(|least| least > size) {
        return Err(Fault::broken(format!("the directory of the archive claims {n_members} members in {size} bytes")));
    }
    Ok((read(file, offset, size)?, offset))
}

/// Where the zip64 end record lies: its locator stands before the end record.
fn end64_offset(file: &File, end_offset: u64) -> Result<u64, Fault> {
    let broken = || Fault::broken("the zip64 directory of the archive is missing");
    let locator_offset = end_offset.checked_sub(LOCATOR_BYTES).ok_or_else(broken)?;
    let locator = read(file, locator_offset, LOCATOR_BYTES)?;
    let offset = u64_at(&locator, 8);
    let fits = offset.checked_add(END64_BYTES).is_some_and(|end| end <= locator_offset);
    if locator.starts_with(b"PK\x06\x07") && fits { Ok(offset) } else { Err(broken()) }
}

/// Takes a record off the front of the directory (4.3.12).
fn take_record(rest: &mut &[u8]) -> Result<Record, Fault> {
    let record = *rest;
    let broken = || Fault::broken("the directory of the archive is broken");
    if record.len() < RECORD_BYTES || !record.starts_with(b"PK\x01\x02") {
        return Err(broken());
    }
    let [name_size, extra_size, comment_size] = [28, 30, 32].map(|at| usize::from(u16_at(record, at)));
    let extra_at = RECORD_BYTES + name_size;
    let comment_at = extra_at + extra_size;
    *rest = record.get(comment_at + comment_size..).ok_or_else(broken)?;
    let name = String::from_utf8(record[RECORD_BYTES..extra_at].to_vec())
        .map_err(|_| Fault::broken("a name in the archive is not UTF-8"))?;
    let (flags, method, disk) = (u16_at(record, 8), u16_at(record, 10), u16_at(record, 34));
    if flags & 1 != 0 || disk != 0 {
        return Err(Fault::broken(format!("`{}` is encrypted or in another part of the archive", shown(&name))));
    }
    let [packed, size, header_offset] = sizes(record, &record[extra_at..comment_at]).ok_or_else(broken)?;
    if method != 0 {
        return Err(Fault::unsupported(
            format!("`{}` is compressed, but PyTorch stores its members as they are", shown(&name)),
            "was it zipped again? unpack it, or save it once more: `torch.save(torch.load(file, weights_only=True), file)`",
        ));
    }
    if packed != size {
        return Err(broken());
    }
    Ok(Record { name, header_offset, size })
}

/// Packed size, size, and offset of the local header; where one is 0xffffffff it stands in the zip64 extra field, in this order (4.5.3).
fn sizes(record: &[u8], extra: &[u8]) -> Option<[u64; 3]> {
    let mut wide = zip64_field(extra);
    let mut number = |at: usize| match u32_at(record, at) {
        u32::MAX => {
            let (first, rest) = wide.split_at_checked(8)?;
            wide = rest;
            Some(u64_at(first, 0))
        }
        small => Some(u64::from(small)),
    };
    let size = number(24)?;
    let packed = number(20)?;
    Some([packed, size, number(42)?])
}

/// The content of the extra field with id 1, or nothing.
fn zip64_field(mut extra: &[u8]) -> &[u8] {
    while let Some((head, rest)) = extra.split_at_checked(4) {
        let Some((field, rest)) = rest.split_at_checked(usize::from(u16_at(head, 2))) else { break };
        if u16_at(head, 0) == 1 {
            return field;
        }
        extra = rest;
    }
    &[]
}

/// Where a member's data begins: its local header has a name and an extra field of its own length (4.3.7).
fn locate(file: &File, record: &Record, directory_offset: u64) -> Result<Member, Fault> {
    let name = shown(&record.name);
    let outside = || Fault::broken(format!("`{name}` lies outside the archive"));
    let header_end = record.header_offset.checked_add(LOCAL_BYTES).ok_or_else(outside)?;
    if header_end > directory_offset {
        return Err(outside());
    }
    let header = read(file, record.header_offset, LOCAL_BYTES)?;
    let [name_size, extra_size] = [26, 28].map(|at| u64::from(u16_at(&header, at)));
    let offset = header_end + name_size + extra_size;
    if offset.checked_add(record.size).is_none_or(|end| end > directory_offset) {
        return Err(outside());
    }
    let local_name = read(file, header_end, name_size)?;
    if !header.starts_with(b"PK\x03\x04") || local_name != record.name.as_bytes() {
        return Err(Fault::broken(format!("`{name}` is not where the directory of the archive says")));
    }
    Ok(Member { offset, size: record.size })
}

/// `size` bytes at `offset`; the callers have bounded the size.
pub(crate) fn read(file: &File, offset: u64, size: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = vec![0; usize::try_from(size).expect("bounded by the callers")];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
