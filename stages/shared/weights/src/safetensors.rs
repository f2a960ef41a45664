//! The head of a `*.safetensors` file to the entries of its tensors.
//!
//! The file begins with the length of its head (8 bytes, little endian) and the head, a JSON object; the data is what follows:
//! <https://github.com/huggingface/safetensors>. Tensors that overlap, leave gaps or have a size that is not that of their shape are
//! refused by the library's own checks.

use std::fs::File;
use std::io::Read as _;

use safetensors::tensor::Metadata;

use crate::entry::TensorEntry;
use crate::error::Fault;

/// The largest head: the limit of the safetensors library.
const HEAD_BYTES_MAX: u64 = 100_000_000;

/// Names and entries. `file_idx`: for the entries.
pub(crate) fn entries(mut file: File, file_idx: usize) -> Result<Vec<(String, TensorEntry)>, Fault> {
    let file_size = file.metadata()?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let head_size = u64::from_le_bytes(length);
    if head_size > file_size - 8 || head_size > HEAD_BYTES_MAX {
        let why = format!("its header claims {head_size} bytes of {file_size}: it is cut off, or not safetensors");
        return Err(Fault::broken(why));
    }
    let mut head = vec![0; usize::try_from(head_size).expect("no larger than the limit")];
    file.read_exact(&mut head)?;
    let metadata: Metadata =
        serde_json::from_slice(&head).map_err(|e| Fault::broken(format!("its header is broken: {e}")))?;
    let begin = 8 + head_size;
    let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (start, end) = info.data_offsets;
        if end as u64 > file_size - begin {
            return Err(Fault::broken(format!("it is cut off: `{name}` ends beyond its {file_size} bytes")));
        }
        let (dtype, shape) = (info.dtype, info.shape.clone());
        let entry = TensorEntry {
            dtype,
            shape,
            size_bytes: end - start,
            file_idx,
            offset: begin + start as u64,
            view: None,
            is_one_more: false,
        };
        Ok((name, entry))
    };
    metadata.tensors().into_iter().map(entry).collect()
}
