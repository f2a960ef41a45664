//! Rotary positions (arXiv 2104.09864, eq. 34), paired as Hugging Face does: channel i with i + F, F being half of the channels that turn.
//!
//! `y_i = x_i cos(p f_i) - x_{i+F} sin(p f_i)`, `y_{i+F} = x_{i+F} cos(p f_i) + x_i sin(p f_i)`, with the frequencies f of
//! [`super::frequencies`]; the channels from 2F on stay. Its backward is the same by the negative angle.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;

use candle_core::{Device, Result, Tensor};
use pipe_kernels::rope as kernel;

use super::frequencies::frequencies;
use super::{cpu_slice, from_cpu, is_fast, once};
use crate::config::Rope;

/// Cosines and sines of every position.
pub struct RopeTable {
    kernel: kernel::Table,
    head_dim: usize,
    /// Documents longer than the first take their rows from the second on: LongRoPE's other frequencies.
    long: Option<(usize, u32)>,
}

impl RopeTable {
    /// Positions 0..n_positions of heads of `head_dim` channels, in f32 as transformers computes them.
    pub fn new(rope: &Rope, head_dim: usize, n_positions: usize) -> Self {
        let of = frequencies(rope);
        let table =
            |frequencies: &[f32]| kernel::Table::from_frequencies(n_positions, frequencies, of.attention_factor as f32);
        let mut kernel = table(&of.usual);
        let mut long = None;
        if let Some((longest, frequencies)) = &of.of_long_documents
            && *longest < n_positions
        {
            kernel.append(table(frequencies));
            long = Some((*longest, n_positions as u32));
        }
        RopeTable { kernel, head_dim, long }
    }

    /// Cosines and sines as the kernels take them.
    pub(crate) fn kernel(&self) -> &kernel::Table {
        &self.kernel
    }

    /// How many numbers it holds.
    pub(crate) fn n_elements(&self) -> usize {
        2 * self.kernel.cos.len()
    }

    /// Tokens of the longest document that takes the usual frequencies, where longer ones take others.
    pub fn longest_usual(&self) -> Option<usize> {
        self.long.map(|(longest, _)| longest)
    }

    /// The table's row of each token: (T) for position_ids (T). A document counts as long by its last position, as if it were alone in transformers.
    pub fn rows<'a>(&self, position_ids: &'a [u32], documents: &[Range<usize>]) -> Cow<'a, [u32]> {
        let Some((longest, first_row)) = self.long else { return Cow::Borrowed(position_ids) };
        let mut rows = position_ids.to_vec();
        for document in documents {
            if position_ids[document.end - 1] as usize >= longest {
                rows[document.clone()].iter_mut().for_each(|row| *row += first_row);
            }
        }
        Cow::Owned(rows)
    }

    fn gathered(&self, values: &[f32], rows: &[u32], like: &Tensor) -> Result<Tensor> {
        let n = self.kernel.n_frequencies;
        let gathered: Vec<f32> =
            rows.iter().flat_map(|&row| values[row as usize * n..(row as usize + 1) * n].iter().copied()).collect();
        // (T, 1, F): the same for every head.
        Tensor::from_vec(gathered, (rows.len(), 1, n), &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())
    }
}

/// The positions of a sequence. Where rotating is done in tensor operations, their cosines and sines go to the device once.
pub struct Positions<'a> {
    table: &'a RopeTable,
    /// (T).
    rows: Cow<'a, [u32]>,
    cos_sin: OnceCell<(Tensor, Tensor)>,
}

impl<'a> Positions<'a> {
    /// `ids`: (T), each below the table's positions; `documents`: as in [`crate::Sequence`].
    pub fn new(table: &'a RopeTable, ids: &'a [u32], documents: &[Range<usize>]) -> Self {
        Positions { table, rows: table.rows(ids, documents), cos_sin: OnceCell::new() }
    }

    /// Both (T, 1, F), in the dtype and on the device of the first tensor that was rotated.
    fn cos_sin(&self, like: &Tensor) -> Result<&(Tensor, Tensor)> {
        let rows = |values| self.table.gathered(values, &self.rows, like);
        once(&self.cos_sin, || Ok((rows(&self.table.kernel.cos)?, rows(&self.table.kernel.sin)?)))
    }
}

/// Which way to rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The forward pass.
    Forward,
    /// The backward pass: by the negative angle.
    Backward,
}

/// x: (T, n_heads D). Returns the same shape.
pub fn rotate(x: &Tensor, n_heads: usize, positions: &Positions<'_>, direction: Direction) -> Result<Tensor> {
    if !is_fast(x) {
        return plain(x, n_heads, positions, direction);
    }
    let Positions { table, rows, .. } = positions;
    let mut y = cpu_slice(x)?.to_vec();
    match direction {
        Direction::Forward => kernel::rotate(&mut y, n_heads, table.head_dim, &table.kernel, rows),
        Direction::Backward => kernel::rotate_back(&mut y, n_heads, table.head_dim, &table.kernel, rows),
    }
    from_cpu(y, x.dims())
}

/// [`rotate`] in tensor operations.
pub fn plain(x: &Tensor, n_heads: usize, positions: &Positions<'_>, direction: Direction) -> Result<Tensor> {
    let (n_tokens, width) = x.dims2()?;
    let (n, head_dim) = (positions.table.kernel.n_frequencies, positions.table.head_dim);
    let heads = x.reshape((n_tokens, n_heads, head_dim))?;
    let (first, second) = (heads.narrow(2, 0, n)?, heads.narrow(2, n, n)?);
    let (cos, sin) = positions.cos_sin(x)?;
    let (first_sin, second_sin) = (first.broadcast_mul(sin)?, second.broadcast_mul(sin)?);
    let (first_cos, second_cos) = (first.broadcast_mul(cos)?, second.broadcast_mul(cos)?);
    let (first, second) = match direction {
        Direction::Forward => ((first_cos - second_sin)?, (second_cos + first_sin)?),
        Direction::Backward => ((first_cos + second_sin)?, (second_cos - first_sin)?),
    };
    let mut parts = vec![first, second];
    if 2 * n < head_dim {
        parts.push(heads.narrow(2, 2 * n, head_dim - 2 * n)?);
    }
    Tensor::cat(&parts, 2)?.reshape((n_tokens, width))
}
