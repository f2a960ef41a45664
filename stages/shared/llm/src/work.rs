//! How much arithmetic an optimizer step asks for: the written formula behind `share_of_peak`.
//!
//! ```text
//! matrices   2 x elements forward, 2 more where the gradient in the input is wanted, 2 more where the matrix is trained;
//!            per token; 4 in all for a frozen matrix between adapters, 6 for one that is trained
//! head       the same for the head's matrix, per supervised token only
//! attention  visible pairs x heads x channels x 2 for each product: 2 products forward, 5 backward
//! adapter    r x (in + out) x 2, three times: forward, gradients of A and B, gradient in the input
//! ```
//!
//! A visible pair is a token and one before it, or itself, in the same document and within the window, if there is one. Only what the mathematics asks for counts: work
//! that an engine does twice to save memory is not in it, nor work below the lowest adapter, which has no use. Norms,
//! gates, rotations, softmax, dropout, biases and the optimizer are not counted at all, as is usual: together they are a few
//! operations per value.

use crate::program::{Op, Program, WeightIdx};
use crate::sequence::Sequence;

/// Floating point operations, by part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Linear modules.
    pub matrices: f64,
    /// Logits of supervised tokens.
    pub head: f64,
    /// Scores and their products with values.
    pub attention: f64,
    /// LoRA's own products.
    pub adapter: f64,
}

impl Work {
    /// Of an optimizer step over `sequences`, with `lora_rank` where an adapter is trained.
    pub fn new(program: &Program, lora_rank: Option<usize>, sequences: &[Sequence]) -> Self {
        let n_tokens: usize = sequences.iter().map(Sequence::len).sum();
        let n_supervised: usize = sequences.iter().map(|sequence| sequence.targets.len()).sum();
        let lengths: Vec<usize> = sequences.iter().flat_map(|s| &s.documents).map(|document| document.len()).collect();
        let needs_gradient = program.liveness().needs_gradient;
        let passes = |input: usize, weight: WeightIdx| {
            let n_passes = 1 + usize::from(needs_gradient[input]) + usize::from(program.parameter_of(weight).is_some());
            2.0 * n_passes as f64 * program.weights[weight].n_elements() as f64
        };
        let heads = program.config.n_heads * program.config.head_dim;
        let mut work = Work::default();
        for op in &program.ops {
            match *op {
                Op::Linear { input, weight, adapted, .. } => {
                    work.matrices += passes(input, weight) * n_tokens as f64;
                    if let (Some(rank), Some(module_idx)) = (lora_rank, adapted) {
                        let module = &program.adapted[module_idx];
                        // h = x A^T and h B^T; dB = dy^T h, dh = dy B, dA = dh^T x; dx = dh A where it is wanted.
                        let products = 3 * module.n_out + (2 + usize::from(needs_gradient[input])) * module.n_in;
                        work.adapter += (2 * rank * products * n_tokens) as f64;
                    }
                }
                Op::Head { input, weight, .. } => work.head += passes(input, weight) * n_supervised as f64,
                Op::Attention { scores, output, .. } => {
                    let n_pairs: usize = lengths.iter().map(|&length| n_visible_pairs(length, scores.window)).sum();
                    let n_products = if needs_gradient[output] { 7.0 } else { 2.0 };
                    work.attention += n_products * 2.0 * (n_pairs * heads) as f64;
                }
                Op::Embedding { .. }
                | Op::RmsNorm { .. }
                | Op::LayerNorm { .. }
                | Op::Slice { .. }
                | Op::Rope { .. }
                | Op::GatedMlp { .. }
                | Op::Gelu { .. }
                | Op::Residual { .. } => {}
            }
        }
        work
    }

    /// All parts together.
    pub fn total(&self) -> f64 {
        self.matrices + self.head + self.attention + self.adapter
    }
}

/// Of a document: its first `window` tokens see one more each, the others as many as the window has.
fn n_visible_pairs(length: usize, window: Option<usize>) -> usize {
    let window = window.map_or(length, |window| window.min(length));
    window * (window + 1) / 2 + (length - window) * window
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    /// SmolLM2-135M.
    fn config() -> ModelConfig {
        ModelConfig::from_json(
            r#"{"architectures":["LlamaForCausalLM"],"hidden_size":576,"intermediate_size":1536,"num_hidden_layers":30,
            "num_attention_heads":9,"num_key_value_heads":3,"vocab_size":49152,"max_position_embeddings":8192,
            "tie_word_embeddings":true}"#,
        )
        .expect("valid")
    }

    fn targets(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_string()).collect()
    }

    #[test]
    fn the_formula_on_smollm2() {
        let config = config();
        let ids: Vec<u32> = (0..1024).collect();
        let sequence = [Sequence::plain(&config, &ids).expect("valid")];
        let program = Program::new(&config, &targets(&["q_proj", "v_proj"])).expect("targets");
        let work = Work::new(&program, Some(16), &sequence);
        let per_token = |flops: f64| flops / 1024.0 / 1e6;
        // A layer has 576 x (576 + 192 + 192 + 576 + 3 x 1536) elements. The first layer's q, k and v need no gradient below.
        let (layers, unused) = (30.0 * 3_538_944.0, 576.0 * (576.0 + 192.0 + 192.0));
        assert_eq!(per_token(work.matrices), (4.0 * layers - 2.0 * unused) / 1e6);
        // The last token has no target.
        assert_eq!(work.head, 4.0 * 49_152.0 * 576.0 * 1023.0);
        assert_eq!(per_token(work.attention), 14.0 * 30.0 * 576.0 * 512.5 / 1e6);
        // 4 x 134.5 M + attention = 662 M, and LoRA's own 5 M.
        let lora = 30.0 * 96.0 * (576.0 + 576.0 + 576.0 + 192.0) - 2.0 * 32.0 * 576.0;
        assert_eq!(per_token(work.adapter), lora / 1e6);
        assert!((per_token(work.total()) - 666.2).abs() < 0.05, "{}", per_token(work.total()));
    }

    #[test]
    fn documents_and_labels_save_work_and_full_training_costs_half_more() {
        let config = config();
        let n = 64;
        let ids: Vec<u32> = (0..n).collect();
        let positions: Vec<u32> = (0..n).map(|i| i % 16).collect();
        let documents: Vec<u32> = (0..n).map(|i| i / 16).collect();
        let labels: Vec<i32> = (0..n as i32).map(|i| if i % 16 < 8 { -100 } else { i }).collect();
        let apart = [Sequence::new(&config, &ids, &labels, &positions, &documents).expect("valid")];
        let whole = [Sequence::plain(&config, &ids).expect("valid")];
        let full = Program::full(&config, &[]).expect("nothing frozen");
        let (apart, whole) = (Work::new(&full, None, &apart), Work::new(&full, None, &whole));
        assert_eq!(apart.attention / whole.attention, (4.0 * 16.0 * 17.0) / (64.0 * 65.0));
        assert_eq!(apart.head, 6.0 * 49_152.0 * 576.0 * 32.0);
        assert_eq!(apart.matrices, 6.0 * 30.0 * 3_538_944.0 * 64.0);
        assert_eq!((apart.matrices, apart.adapter), (whole.matrices, 0.0));
    }

    #[test]
    fn nothing_is_counted_below_the_lowest_adapter() {
        let config = config();
        let sequence = [Sequence::plain(&config, &[1, 2, 3]).expect("valid")];
        let top = Program::new(&config, &targets(&["layers.29.mlp.down_proj"])).expect("a target");
        let work = Work::new(&top, Some(16), &sequence);
        // Forward only, and the gradient in the gated MLP's output is not wanted either.
        assert_eq!(work.matrices, 2.0 * 30.0 * 3_538_944.0 * 3.0);
        assert_eq!(work.attention, 2.0 * 2.0 * 30.0 * 576.0 * 6.0);
    }

    #[test]
    fn a_window_leaves_pairs_out() {
        for (length, window) in [(1, None), (7, None), (7, Some(1)), (7, Some(3)), (7, Some(7)), (7, Some(9))] {
            let is_visible = |query: usize, key: usize| key <= query && window.is_none_or(|w| query - key < w);
            let pairs = (0..length).flat_map(|query| (0..length).map(move |key| (query, key)));
            assert_eq!(n_visible_pairs(length, window), pairs.filter(|&(q, k)| is_visible(q, k)).count());
        }
    }
}
