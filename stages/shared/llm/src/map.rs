//! Weights in their files: mapped, not read, so the system may drop pages of a frozen model and fetch them again.
//!
//! The one file of this crate with `unsafe`: a map is only sound while nobody changes the file. Models are artifacts of a store that never
//! writes to a file it has published, and that is what the callers map.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bytemuck::{Pod, try_cast_slice};
use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use pipe_kernels::gemm::Elements;

use crate::error::LlmError;

/// A file in memory.
#[derive(Clone, Debug)]
pub struct MappedFile(Arc<Mmap>);

impl MappedFile {
    /// Maps a file that nobody changes.
    ///
    /// # Errors
    /// When it cannot be opened or mapped.
    #[expect(unsafe_code, reason = "a map is a promise about a file, which no type can make")]
    pub fn open(path: &Path) -> Result<Self, LlmError> {
        let io = |e| LlmError::io("map", path, e);
        let file = File::open(path).map_err(io)?;
        // SAFETY: the files of a published artifact are never written again (ARCHITECTURE.md, the store), and the map is read-only.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(MappedFile(Arc::new(map)))
    }

    /// The tensor of `shape` whose little-endian elements begin at `offset`; `None` where they are not aligned to their size, or end
    /// beyond the file, or are of a dtype that no kernel takes.
    pub fn tensor(&self, offset: usize, dtype: DType, shape: &[usize]) -> Option<MappedTensor> {
        let mapped = MappedTensor { file: self.clone(), offset, dtype, shape: shape.to_vec() };
        let size_bytes = mapped.size_bytes();
        let fits = offset.checked_add(size_bytes).is_some_and(|end| end <= self.0.len());
        let is_known = cfg!(target_endian = "little") && matches!(dtype, DType::F32 | DType::BF16 | DType::F16);
        (fits && is_known && (self.0[offset..].as_ptr() as usize).is_multiple_of(dtype.size_in_bytes()))
            .then_some(mapped)
    }
}

/// A tensor in a mapped file.
#[derive(Clone, Debug)]
pub struct MappedTensor {
    file: MappedFile,
    offset: usize,
    dtype: DType,
    shape: Vec<usize>,
}

impl MappedTensor {
    /// Rows and columns, or the length of a vector.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Size of its elements in the file.
    pub fn size_bytes(&self) -> usize {
        self.n_elements() * self.dtype.size_in_bytes()
    }

    fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn cast<T: Pod>(&self) -> &[T] {
        let bytes = &self.file.0[self.offset..self.offset + self.n_elements() * size_of::<T>()];
        try_cast_slice(bytes).expect("alignment and length were checked when it was made")
    }

    /// Its elements, where they lie.
    pub fn elements(&self) -> Elements<'_> {
        match self.dtype {
            DType::F32 => Elements::F32(self.cast()),
            DType::BF16 => Elements::Bf16(self.cast()),
            DType::F16 => Elements::F16(self.cast()),
            _ => unreachable!("checked when it was made"),
        }
    }

    /// A copy in memory.
    ///
    /// # Errors
    /// When the tensor cannot be made.
    pub fn to_tensor(&self) -> Result<Tensor, LlmError> {
        Ok(match self.elements() {
            Elements::F32(x) => Tensor::from_slice(x, self.shape.as_slice(), &Device::Cpu),
            Elements::Bf16(x) => Tensor::from_slice(x, self.shape.as_slice(), &Device::Cpu),
            Elements::F16(x) => Tensor::from_slice(x, self.shape.as_slice(), &Device::Cpu),
        }?)
    }
}
