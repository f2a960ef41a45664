//! The ops, one file each: forward, backward, and a plain version of both in tensor operations.
//!
//! On the CPU in f32 an op calls `pipe-kernels` on slices. Everywhere else (CUDA, f64 in tests) it runs its plain
//! version, which is also what the fast one is compared with, and which candle's autograd can differentiate.
//!
//! Shapes: T tokens of one sequence, C channels, H query heads, H_kv key and value heads, D channels of a head.
//! No op has a batch dimension: sequences have different documents, and rows of a matrix product are rows.

pub mod attention;
pub mod dropout;
pub mod embedding;
pub mod frequencies;
pub mod gated_mlp;
pub mod gelu;
pub mod head;
pub mod layer_norm;
pub mod linear;
pub mod rms_norm;
pub mod rope;
pub mod slice;
pub mod softcap;
pub mod tokens;

use std::cell::OnceCell;
use std::ops::Deref;

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor};

/// What `cell` holds; the first time, what `make` makes for it.
pub(crate) fn once<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(made) => Ok(made),
        None => {
            let made = make()?;
            Ok(cell.get_or_init(|| made))
        }
    }
}

/// The logistic function, in tensor operations.
pub(crate) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// Whether the kernels on slices can take this tensor.
pub(crate) fn is_fast(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32
}

/// The elements of a contiguous f32 tensor on the CPU, borrowed. `G`: candle's guard of the storage.
pub(crate) struct CpuSlice<G> {
    storage: G,
    start: usize,
    len: usize,
}

/// Borrows the elements of `tensor`. Fails where it is elsewhere, of another dtype or not contiguous.
pub(crate) fn cpu_slice(tensor: &Tensor) -> Result<CpuSlice<impl Deref<Target = Storage> + use<'_>>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a kernel needs a contiguous tensor, this one has strides {:?}", layout.stride())
    };
    if !matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))) {
        candle_core::bail!(
            "a kernel needs an f32 tensor on the CPU, this one is {:?} on {:?}",
            tensor.dtype(),
            tensor.device()
        )
    }
    Ok(CpuSlice { storage, start, len: end - start })
}

impl<G: Deref<Target = Storage>> Deref for CpuSlice<G> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(data)) => &data[self.start..self.start + self.len],
            _ => unreachable!("checked when it was made"),
        }
    }
}

/// A tensor of the values a kernel has written.
pub(crate) fn from_cpu(values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}
