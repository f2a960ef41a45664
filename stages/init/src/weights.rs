//! Random weights, each tensor from a stream of its own name.
//!
//! Element `i` of tensor NAME is normal number `i` of the stream (seed, "init/NAME"), times `initializer_range`; a norm's
//! weights are 1. So neither threads nor the order of tensors matter, and a tensor is drawn when it is written: one at
//! a time is in memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use half::bf16;
use pipe_kernels::random::Stream;
use rayon::prelude::*;
use safetensors::{Dtype as StoredDtype, View};

use crate::InitError;
use crate::settings::Dtype;

/// Elements that are drawn by one task.
const CHUNK: usize = 1 << 14;

/// How weights are drawn and stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Initializer {
    pub(crate) seed: u64,
    /// Standard deviation.
    pub(crate) range: f32,
    pub(crate) dtype: Dtype,
}

impl Initializer {
    /// Writes a tensor for each name and shape into `path`.
    pub(crate) fn write(self, path: &Path, shapes: Vec<(String, Vec<usize>)>) -> Result<(), InitError> {
        let tensors = shapes.into_iter().map(|(name, shape)| {
            let tensor = Drawn { initializer: self, name: name.clone(), shape };
            (name, tensor)
        });
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(InitError::Weights)
    }

    /// Element `index` of the tensor whose stream is given.
    fn element(self, stream: Option<Stream>, index: usize) -> f32 {
        stream.map_or(1.0, |stream| stream.normal(index as u64) * self.range)
    }
}

/// A tensor that exists while it is written.
struct Drawn {
    initializer: Initializer,
    name: String,
    shape: Vec<usize>,
}

impl Drawn {
    /// Nothing for the weights of a norm, which are the only vectors of a Llama.
    fn stream(&self) -> Option<Stream> {
        (self.shape.len() > 1).then(|| Stream::named(self.initializer.seed, &format!("init/{}", self.name)))
    }

    fn n_bytes_per_element(&self) -> usize {
        match self.initializer.dtype {
            Dtype::Float32 => 4,
            Dtype::Bfloat16 => 2,
        }
    }
}

impl View for Drawn {
    fn dtype(&self) -> StoredDtype {
        match self.initializer.dtype {
            Dtype::Float32 => StoredDtype::F32,
            Dtype::Bfloat16 => StoredDtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let stream = self.stream();
        let n_bytes = self.n_bytes_per_element();
        let mut bytes = vec![0; self.data_len()];
        bytes.par_chunks_mut(CHUNK * n_bytes).enumerate().for_each(|(chunk_idx, chunk)| {
            for (i, element) in chunk.chunks_exact_mut(n_bytes).enumerate() {
                let value = self.initializer.element(stream, chunk_idx * CHUNK + i);
                match self.initializer.dtype {
                    Dtype::Float32 => element.copy_from_slice(&value.to_le_bytes()),
                    Dtype::Bfloat16 => element.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
                }
            }
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.n_bytes_per_element()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(name: &str, shape: &[usize], dtype: Dtype) -> Drawn {
        let initializer = Initializer { seed: 42, range: 0.02, dtype };
        Drawn { initializer, name: name.to_string(), shape: shape.to_vec() }
    }

    fn floats(tensor: &Drawn) -> Vec<f32> {
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    #[test]
    fn weights_have_the_mean_and_deviation_asked_for() {
        let values = floats(&drawn("a.weight", &[300, 400], Dtype::Float32));
        let n = values.len() as f64;
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let deviation = (values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n).sqrt();
        // Four standard errors: 0.02 / sqrt(120,000) = 5.8e-5, and half of that squared for the deviation.
        assert!(mean.abs() < 2.4e-4, "mean {mean}");
        assert!((deviation - 0.02).abs() < 1.7e-4, "deviation {deviation}");
    }

    #[test]
    fn tensors_have_streams_of_their_own_and_norms_are_one() {
        let first = floats(&drawn("a.weight", &[3, 5], Dtype::Float32));
        assert_ne!(first, floats(&drawn("b.weight", &[3, 5], Dtype::Float32)));
        // A longer tensor of the same name begins alike: an element depends on its place only.
        assert_eq!(first, floats(&drawn("a.weight", &[5000, 5], Dtype::Float32))[..15]);
        assert_eq!(floats(&drawn("norm.weight", &[3], Dtype::Float32)), [1.0; 3]);
    }

    #[test]
    fn bfloat16_is_the_rounded_float32() {
        let expected: Vec<u8> = floats(&drawn("a.weight", &[7, 9], Dtype::Float32))
            .into_iter()
            .flat_map(|x| bf16::from_f32(x).to_le_bytes())
            .collect();
        assert_eq!(drawn("a.weight", &[7, 9], Dtype::Bfloat16).data(), expected);
    }
}
