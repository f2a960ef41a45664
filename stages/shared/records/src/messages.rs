//! The messages of Arrow's files, one at a time, and what they claim compared with what is there.
//!
//! ```text
//! FFFFFFFF | length | metadata: lengths of columns, places of buffers, codec | body: the buffers
//! FFFFFFFF 00000000                                                            the end
//!
//! a compressed buffer   how long it was, i64 | an LZ4 frame or zstd frames
//!                       -1                   | the bytes as they were
//! ```
//!
//! arrow-ipc decodes them: it believes these numbers, so that a flipped bit would let it take more memory than there is, or
//! look behind the end of a body. Source: Arrow's columnar format, "Encapsulated message format" and "Buffer compression".
//!
//! It deliberately decodes nothing.

use std::io::Read;

use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow_ipc::convert::MessageBuffer;
use arrow_ipc::{CompressionType, RecordBatch};

/// Before the length of a message, since Arrow 0.15.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Taken at once for a body; what is longer grows as it arrives.
const BODY_BYTES_AT_FIRST: usize = 1 << 20;
/// Of the length of a compressed buffer.
const PREFIX_BYTES: usize = 8;
const NOT_COMPRESSED: i64 = -1;
/// LZ4: a byte adds at most 255 to the length of a match (LZ4 Block Format, "Match length").
const LZ4_RATIO_MAX: u64 = 255;
/// Zstandard: a block has 3 bytes of head and one more, and gives at most 128 KiB (RFC 8878, 3.1.1.2).
const ZSTD_RATIO_MAX: u64 = (128 << 10) / 4;

/// One message.
pub(crate) struct Message {
    metadata: MessageBuffer,
    pub(crate) body: Buffer,
}

impl Message {
    /// The next message of `bytes`; `None` at the mark of the end.
    ///
    /// # Errors
    /// Where `bytes` end before the mark, or hold something else.
    pub(crate) fn read(bytes: &mut impl Read) -> Result<Option<Message>, ArrowError> {
        let first: [u8; 4] = number(bytes)?;
        let length = if first == CONTINUATION { number(bytes)? } else { first };
        let length = i32::from_le_bytes(length);
        if length == 0 {
            // Without the mark before it, it may as well be a hole of zeros.
            return if first == CONTINUATION { Ok(None) } else { Err(cut_off()) };
        }
        let length = u64::try_from(length).map_err(|_| damaged(format!("a message of {length} bytes")))?;
        let metadata = MessageBuffer::try_new(exactly(bytes, length)?.into())?;
        let length = metadata.as_ref().bodyLength();
        let length = u64::try_from(length).map_err(|_| damaged(format!("a body of {length} bytes")))?;
        Ok(Some(Message { metadata, body: exactly(bytes, length)?.into() }))
    }

    pub(crate) fn head(&self) -> arrow_ipc::Message<'_> {
        self.metadata.as_ref()
    }

    /// Whether `batch`, which this message has in its head, can be what its body holds.
    ///
    /// # Errors
    /// Names the column or buffer that cannot be.
    pub(crate) fn check(&self, batch: &RecordBatch<'_>) -> Result<(), ArrowError> {
        for (index, column) in batch.nodes().into_iter().flatten().enumerate() {
            let (length, n_nulls) = (column.length(), column.null_count());
            if i32::try_from(length).is_err() || !(0..=length).contains(&n_nulls) {
                return Err(damaged(format!("column {index} has {length} values, {n_nulls} of them null")));
            }
        }
        let codec = batch.compression().map(|compression| compression.codec());
        for (index, buffer) in batch.buffers().into_iter().flatten().enumerate() {
            let bytes = self.slice(buffer.offset(), buffer.length()).ok_or_else(|| {
                let n_bytes = self.body.len();
                let (offset, length) = (buffer.offset(), buffer.length());
                damaged(format!("buffer {index} has {length} bytes from byte {offset} on, in a body of {n_bytes}"))
            })?;
            if let (Some(codec), false) = (codec, bytes.is_empty()) {
                check_length(bytes, codec).map_err(|problem| damaged(format!("buffer {index} {problem}")))?;
            }
        }
        Ok(())
    }

    fn slice(&self, offset: i64, length: i64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.body.get(start..start.checked_add(usize::try_from(length).ok()?)?)
    }
}

/// Whether a compressed buffer can become as long as it says.
fn check_length(bytes: &[u8], codec: CompressionType) -> Result<(), String> {
    let Some((prefix, compressed)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(format!("has {} bytes, too few for the length before what is compressed", bytes.len()));
    };
    let length = i64::from_le_bytes(*prefix);
    if length == NOT_COMPRESSED {
        return Ok(());
    }
    let ratio_max = if codec == CompressionType::ZSTD { ZSTD_RATIO_MAX } else { LZ4_RATIO_MAX };
    let length_max = (compressed.len() as u64).saturating_mul(ratio_max);
    let claim = || format!("claims to have had {length} bytes, and has {} compressed ones", compressed.len());
    let length = u64::try_from(length).ok().filter(|length| *length <= length_max).ok_or_else(claim)?;
    // The decoder takes it at once, and would end the process where there is not so much.
    let is_had = usize::try_from(length).is_ok_and(|length| Vec::<u8>::new().try_reserve_exact(length).is_ok());
    if is_had { Ok(()) } else { Err(format!("{}: there is not so much memory", claim())) }
}

fn number(bytes: &mut impl Read) -> Result<[u8; 4], ArrowError> {
    exactly(bytes, 4)?.try_into().map_err(|_| cut_off())
}

fn exactly(bytes: &mut impl Read, length: u64) -> Result<Vec<u8>, ArrowError> {
    let at_first = usize::try_from(length).unwrap_or(usize::MAX).min(BODY_BYTES_AT_FIRST);
    let mut taken = Vec::with_capacity(at_first);
    bytes.take(length).read_to_end(&mut taken)?;
    if taken.len() as u64 == length { Ok(taken) } else { Err(cut_off()) }
}

fn damaged(problem: String) -> ArrowError {
    ArrowError::IpcError(format!("{problem}: it is damaged"))
}

pub(crate) fn cut_off() -> ArrowError {
    ArrowError::IpcError("it has no mark of its end: it was cut off, or is still being written".into())
}
