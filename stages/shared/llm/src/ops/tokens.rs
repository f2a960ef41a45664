//! Rows of tokens that an adapter has its own of, in the place of those of a frozen matrix over the vocabulary.
//!
//! ```text
//! W' = W with rows R at the ids         W: (V, C), frozen    R: (n, C), trained
//! lookup     y_t = W'[id_t]             d_R[j] = sum of d_y_t over the tokens t that are ids[j]
//! head       l = x W'^T                 d_x = d_l W'         d_R = (columns of d_l at the ids)^T x
//! ```
//!
//! As `TrainableTokensLayer` of PEFT (`peft/tuners/trainable_tokens/layer.py`), which copies W for it; here W stays as it is: rows are
//! looked up in both, and columns of the logits are replaced.

use candle_core::{DType, Device, Result, Tensor};

use super::embedding::scaled;

/// The rows of one matrix.
#[derive(Clone, Debug)]
pub struct TokenRows {
    ids: Vec<u32>,
    /// (n, C) in the dtype of the arithmetic.
    rows: Tensor,
}

impl TokenRows {
    /// `rows`: (n, C) for the n `ids`, each once; used in `dtype`.
    pub fn new(ids: &[u32], rows: &Tensor, dtype: DType) -> Result<Self> {
        Ok(TokenRows { ids: ids.to_vec(), rows: rows.to_dtype(dtype)? })
    }

    /// Where the tokens with rows stand in `ids`, and which row each has.
    fn places(&self, ids: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let row = |id: &u32| self.ids.iter().position(|own| own == id);
        let found = ids.iter().enumerate().filter_map(|(token, id)| Some((token as u32, row(id)? as u32)));
        found.unzip()
    }

    /// y: (T, C), the rows of W at `ids`. Returns those of W'.
    pub fn lookup(&self, y: &Tensor, ids: &[u32]) -> Result<Tensor> {
        let (tokens, rows) = self.places(ids);
        if tokens.is_empty() {
            return Ok(y.clone());
        }
        let mut sources: Vec<u32> = (0..ids.len() as u32).collect();
        for (token, row) in tokens.into_iter().zip(rows) {
            sources[token as usize] = ids.len() as u32 + row;
        }
        let sources = Tensor::new(sources.as_slice(), y.device())?;
        Tensor::cat(&[y, &self.rows], 0)?.index_select(&sources, 0)
    }

    /// d_y: (T, C) to d_R (n, C); `ids` and `scale` as in [`super::embedding`].
    pub fn lookup_gradient(&self, d_y: &Tensor, ids: &[u32], scale: Option<f64>) -> Result<Tensor> {
        let zeros = Tensor::zeros(self.rows.dims(), d_y.dtype(), d_y.device())?;
        let (tokens, rows) = self.places(ids);
        if tokens.is_empty() {
            return Ok(zeros);
        }
        let on_device = |index: Vec<u32>| Tensor::new(index.as_slice(), d_y.device());
        scaled(zeros.index_add(&on_device(rows)?, &d_y.index_select(&on_device(tokens)?, 0)?, 0)?, scale)
    }

    /// x: (N, C), logits: (N, V) = x W^T. Returns x W'^T.
    pub fn logits(&self, x: &Tensor, logits: &Tensor) -> Result<Tensor> {
        let columns = x.matmul(&self.rows.t()?)?;
        logits.scatter(&self.columns(columns.dim(0)?, x.device())?, &columns, 1)
    }

    /// d_l: (N, V). Returns it with zeros at the ids, which is for W, and its columns there (N, n), which are for R.
    pub fn split(&self, d_logits: &Tensor) -> Result<(Tensor, Tensor)> {
        let ids = Tensor::new(self.ids.as_slice(), d_logits.device())?;
        let own = d_logits.index_select(&ids, 1)?;
        let rest = d_logits.scatter(&self.columns(own.dim(0)?, d_logits.device())?, &own.zeros_like()?, 1)?;
        Ok((rest, own))
    }

    /// Of the columns that [`TokenRows::split`] returns: their part of d_x, (N, C).
    pub fn d_x(&self, d_columns: &Tensor) -> Result<Tensor> {
        d_columns.matmul(&self.rows)
    }

    /// Of the same columns, and x (N, C): d_R, (n, C).
    pub fn head_gradient(d_columns: &Tensor, x: &Tensor) -> Result<Tensor> {
        d_columns.t()?.matmul(x)
    }

    /// The ids in each of `n` rows, (N, n).
    fn columns(&self, n: usize, device: &Device) -> Result<Tensor> {
        Tensor::new(self.ids.as_slice(), device)?.unsqueeze(0)?.broadcast_as((n, self.ids.len()))?.contiguous()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5 tokens of 2 channels, of which 3 and 1 have rows.
    fn matrices() -> Result<(Tensor, TokenRows, Tensor)> {
        let device = Device::Cpu;
        let weight = Tensor::new(&[[0.5f64, 1.0], [2.0, 3.0], [4.0, -5.0], [6.0, 7.0], [8.0, 9.0]], &device)?;
        let rows = Tensor::new(&[[-1.0f32, 0.25], [0.125, -2.0]], &device)?;
        let replaced = Tensor::new(&[[0.5f64, 1.0], [0.125, -2.0], [4.0, -5.0], [-1.0, 0.25], [8.0, 9.0]], &device)?;
        Ok((weight, TokenRows::new(&[3, 1], &rows, DType::F64)?, replaced))
    }

    #[test]
    fn it_is_the_matrix_with_its_rows_replaced() -> Result<()> {
        let (weight, tokens, replaced) = matrices()?;
        for ids in [vec![1, 0, 3, 3, 4], vec![0, 2]] {
            let index = Tensor::new(ids.as_slice(), &Device::Cpu)?;
            let found = tokens.lookup(&weight.index_select(&index, 0)?, &ids)?;
            assert_eq!(found.to_vec2::<f64>()?, replaced.index_select(&index, 0)?.to_vec2::<f64>()?);
        }
        let x = Tensor::new(&[[1.0f64, 2.0], [-3.0, 0.5], [0.0, 1.0]], &Device::Cpu)?;
        let found = tokens.logits(&x, &x.matmul(&weight.t()?)?)?;
        assert_eq!(found.to_vec2::<f64>()?, x.matmul(&replaced.t()?)?.to_vec2::<f64>()?);
        Ok(())
    }

    #[test]
    fn gradients_go_to_the_rows_that_were_read() -> Result<()> {
        let (weight, tokens, replaced) = matrices()?;
        let d_y = Tensor::new(&[[1.0f64, 2.0], [4.0, 8.0], [16.0, 32.0]], &Device::Cpu)?;
        let d_rows = tokens.lookup_gradient(&d_y, &[3, 0, 3], Some(0.5))?;
        assert_eq!(d_rows.to_vec2::<f64>()?, [[8.5, 17.0], [0.0, 0.0]]);
        assert_eq!(tokens.lookup_gradient(&d_y, &[0, 2, 4], None)?.to_vec2::<f64>()?, [[0.0; 2]; 2]);

        let d_logits = Tensor::new(&[[1.0f64, 2.0, 3.0, 4.0, 5.0], [-1.0, 0.5, 2.0, -4.0, 1.0]], &Device::Cpu)?;
        let x = Tensor::new(&[[1.0f64, 2.0], [3.0, -1.0]], &Device::Cpu)?;
        let (rest, own) = tokens.split(&d_logits)?;
        let d_x = (rest.matmul(&weight)? + tokens.d_x(&own)?)?;
        assert_eq!(d_x.to_vec2::<f64>()?, d_logits.matmul(&replaced)?.to_vec2::<f64>()?);
        let whole = d_logits.t()?.matmul(&x)?.to_vec2::<f64>()?;
        assert_eq!(TokenRows::head_gradient(&own, &x)?.to_vec2::<f64>()?, [whole[3].clone(), whole[1].clone()]);
        Ok(())
    }
}
