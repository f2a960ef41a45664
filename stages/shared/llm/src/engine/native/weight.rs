//! The weights as a pass reads them: slices in the dtype they have on disk.

use std::ops::Deref;

use candle_core::{CpuStorage, DType, Storage, Tensor};
use pipe_kernels::gemm::{Elements, Matrix};

use crate::error::LlmError;
use crate::map::MappedTensor;
use crate::ops::linear::widen;

/// A weight of the engine.
pub enum Weight {
    /// In memory: what is trained, and vectors, in f32.
    Tensor(Tensor),
    /// Frozen, in its file.
    Mapped(MappedTensor),
}

impl Weight {
    /// As the engine keeps it: vectors and what is trained in f32, frozen matrices as they are stored.
    pub(super) fn prepare(self, is_trained: bool) -> Result<Self, LlmError> {
        let is_vector = self.shape().len() == 1;
        if !(is_trained || is_vector) {
            return Ok(self);
        }
        Ok(Weight::Tensor(widen(&self.to_tensor()?, DType::F32)?.contiguous()?))
    }

    /// As it is stored.
    pub(super) fn dtype(&self) -> DType {
        match self {
            Weight::Tensor(tensor) => tensor.dtype(),
            Weight::Mapped(mapped) => match mapped.elements() {
                Elements::F32(_) => DType::F32,
                Elements::Bf16(_) => DType::BF16,
                Elements::F16(_) => DType::F16,
            },
        }
    }

    /// Bytes that lie in a mapped file.
    pub(super) fn mapped_bytes(&self) -> u64 {
        match self {
            Weight::Tensor(_) => 0,
            Weight::Mapped(mapped) => mapped.size_bytes() as u64,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Weight::Tensor(tensor) => tensor.dims(),
            Weight::Mapped(mapped) => mapped.shape(),
        }
    }

    /// A tensor with its elements as stored.
    pub(super) fn to_tensor(&self) -> Result<Tensor, LlmError> {
        match self {
            Weight::Tensor(tensor) => Ok(tensor.clone()),
            Weight::Mapped(mapped) => mapped.to_tensor(),
        }
    }

    /// A view that holds it in place while a pass reads it.
    pub(super) fn view(&self) -> View<'_> {
        match self {
            Weight::Mapped(mapped) => View::Mapped(mapped),
            Weight::Tensor(tensor) => View::of(tensor),
        }
    }
}

/// The elements of a weight, borrowed.
pub(super) enum View<'w> {
    Mapped(&'w MappedTensor),
    /// `storage` is candle's guard: nobody writes while it lives.
    Stored {
        storage: Box<dyn Deref<Target = Storage> + Sync + 'w>,
        start: usize,
        shape: &'w [usize],
    },
}

impl<'w> View<'w> {
    /// A contiguous tensor on the CPU.
    pub(super) fn of(tensor: &'w Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        let (start, _) = layout.contiguous_offsets().expect("weights and adapters are contiguous");
        View::Stored { storage: Box::new(storage), start, shape: tensor.dims() }
    }

    pub(super) fn elements(&self) -> Elements<'_> {
        match self {
            View::Mapped(mapped) => mapped.elements(),
            View::Stored { storage, start, shape } => {
                let range = *start..start + shape.iter().product::<usize>();
                match &***storage {
                    Storage::Cpu(CpuStorage::F32(x)) => Elements::F32(&x[range]),
                    Storage::Cpu(CpuStorage::BF16(x)) => Elements::Bf16(&x[range]),
                    Storage::Cpu(CpuStorage::F16(x)) => Elements::F16(&x[range]),
                    _ => unreachable!("the engine was made of f32, bf16 and f16 weights on the CPU"),
                }
            }
        }
    }

    /// (out, in), as stored.
    pub(super) fn matrix(&self) -> Matrix<'_> {
        let shape = match self {
            View::Mapped(mapped) => mapped.shape(),
            View::Stored { shape, .. } => shape,
        };
        Matrix::new(self.elements(), shape[0], shape[1])
    }

    /// A weight that [`Weight::prepare`] made f32.
    pub(super) fn f32(&self) -> &[f32] {
        match self.elements() {
            Elements::F32(x) => x,
            _ => unreachable!("vectors and trained weights are f32"),
        }
    }

    /// Row `row` of a matrix of `y.len()` columns, widened.
    pub(super) fn copy_row(&self, row: usize, y: &mut [f32]) {
        let range = row * y.len()..(row + 1) * y.len();
        match self.elements() {
            Elements::F32(x) => y.copy_from_slice(&x[range]),
            Elements::Bf16(x) => y.iter_mut().zip(&x[range]).for_each(|(y, x)| *y = x.to_f32()),
            Elements::F16(x) => y.iter_mut().zip(&x[range]).for_each(|(y, x)| *y = x.to_f32()),
        }
    }
}
