//! A tensor of a weight file: what it is and how it lies there.
//!
//! ```text
//! in place  offset, then every element in the order of the shape: it can be mapped where it lies
//! view      sizes and strides over a run of elements: read, and gathered into the order of the shape
//! one more  every element has 1 added: read, and 1 subtracted
//! ```
//!
//! A transposed tensor of a pickle is a view; so are q and k of a Llama and the matrices of a GPT-2 in a GGUF. The norms of a Gemma in a GGUF are
//! one more than the model's.

use safetensors::Dtype;

/// Where a tensor lies, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// As stored.
    pub dtype: Dtype,
    /// In elements, outermost first.
    pub shape: Vec<usize>,
    /// Size of its elements, in bytes.
    pub size_bytes: usize,
    /// Which of the files it lies in.
    pub file_idx: usize,
    /// Of its first byte in the file.
    pub offset: u64,
    /// How it is gathered; `None` where it lies in the order of its shape.
    pub(crate) view: Option<View>,
    /// Whether the file has `x + 1` for every element x. Then the dtype is F32.
    pub(crate) is_one_more: bool,
}

/// Elements of a run of memory in another order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// In elements, outermost first. Their product is that of the tensor's shape, but there may be more of them.
    pub(crate) sizes: Vec<usize>,
    /// From an element to the next along each size, in elements.
    pub(crate) strides: Vec<usize>,
}

impl TensorEntry {
    /// Whether its bytes can be used where they lie: in the order of its shape, each as the model means it.
    pub fn is_in_place(&self) -> bool {
        self.view.is_none() && !self.is_one_more
    }

    /// What `span`, the bytes from its first element to its last, means: its elements in the order of its shape.
    pub(crate) fn decode(&self, span: Vec<u8>) -> Vec<u8> {
        let mut bytes = match &self.view {
            None => span,
            Some(view) => view.gather(&span, width(self.dtype)),
        };
        if self.is_one_more {
            for element in bytes.as_chunks_mut().0 {
                *element = (f32::from_le_bytes(*element) - 1.0).to_le_bytes();
            }
        }
        bytes
    }

    /// Bytes from its first element to its last.
    pub(crate) fn span_bytes(&self) -> usize {
        match &self.view {
            None => self.size_bytes,
            Some(view) => view.span().expect("checked when the file was opened") * width(self.dtype),
        }
    }
}

impl View {
    /// Elements from the first to the last, both included; `None` where no memory is that large.
    pub(crate) fn span(&self) -> Option<usize> {
        if self.sizes.contains(&0) {
            return Some(0);
        }
        let reach = |sum: usize, (size, stride): (&usize, &usize)| sum.checked_add((size - 1).checked_mul(*stride)?);
        self.sizes.iter().zip(&self.strides).try_fold(0, reach)?.checked_add(1)
    }

    /// Whether the elements lie in the order of the sizes, without gaps.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.sizes.iter().zip(&self.strides).rev().all(|(size, stride)| {
            // Along a size of 1 nothing is ever stepped.
            let fits = *size == 1 || *stride == expected;
            expected *= size;
            fits
        })
    }

    /// The elements of `span`, `width` bytes each, in the order of the sizes.
    pub(crate) fn gather(&self, span: &[u8], width: usize) -> Vec<u8> {
        let n_elements: usize = self.sizes.iter().product();
        let mut gathered = Vec::with_capacity(n_elements * width);
        // What lies in one piece along the innermost size is copied in one piece.
        let n_outer = self.sizes.len().saturating_sub(1);
        let (n_inner, step) = match (self.sizes.last(), self.strides.last()) {
            (Some(size), Some(stride)) => (*size, *stride),
            _ => (1, 1),
        };
        let mut index = vec![0; n_outer];
        let mut at = 0;
        while gathered.len() < n_elements * width {
            if step == 1 {
                gathered.extend_from_slice(&span[at * width..(at + n_inner) * width]);
            } else {
                (0..n_inner).map(|i| (at + i * step) * width).for_each(|b| gathered.extend(&span[b..b + width]));
            }
            for axis in (0..n_outer).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.sizes[axis] {
                    break;
                }
                at -= self.sizes[axis] * self.strides[axis];
                index[axis] = 0;
            }
        }
        gathered
    }
}

/// Bytes of an element. The formats here hold no dtype of less than a byte but by name, which nothing reads.
pub(crate) fn width(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(sizes: &[usize], strides: &[usize]) -> Vec<u8> {
        let view = View { sizes: sizes.to_vec(), strides: strides.to_vec() };
        let span: Vec<u8> = (0..view.span().unwrap() as u8).flat_map(|i| [i, 100 + i]).collect();
        let gathered = view.gather(&span, 2);
        assert!(gathered.chunks(2).all(|element| element[1] == 100 + element[0]));
        gathered.chunks(2).map(|element| element[0]).collect()
    }

    #[test]
    fn a_view_is_gathered_in_the_order_of_its_sizes() {
        assert_eq!(gather(&[2, 3], &[3, 1]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(gather(&[3, 2], &[1, 3]), [0, 3, 1, 4, 2, 5], "transposed");
        assert_eq!(gather(&[2, 2], &[4, 1]), [0, 1, 4, 5], "the left half of a matrix of four columns");
        assert_eq!(gather(&[2, 2, 2], &[1, 4, 2]), [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(gather(&[3], &[2]), [0, 2, 4]);
        assert_eq!(gather(&[], &[]), [0], "a scalar");
        assert_eq!(gather(&[3, 0], &[1, 1]), [0; 0]);
    }

    #[test]
    fn a_size_of_one_may_have_any_stride() {
        let is_contiguous = |sizes: &[usize], strides: &[usize]| {
            View { sizes: sizes.to_vec(), strides: strides.to_vec() }.is_contiguous()
        };
        assert!(is_contiguous(&[2, 1, 3], &[3, 77, 1]));
        assert!(is_contiguous(&[], &[]));
        assert!(!is_contiguous(&[3, 2], &[1, 3]));
        assert!(!is_contiguous(&[2, 2], &[4, 1]));
    }
}
