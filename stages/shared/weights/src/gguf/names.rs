//! Names of llama.cpp and of Hugging Face, a table per family.
//!
//! ```text
//! blk.3.attn_q.weight   ->  model.layers.3.self_attn.q_proj.weight      a Llama
//! blk.3.ffn_norm.weight ->  model.layers.3.pre_feedforward_layernorm.weight     a Gemma, which has two norms there
//! blk.3.attn_qkv.bias   ->  transformer.h.3.attn.c_attn.bias            a GPT-2
//! ```
//!
//! After gguf-py's constants.py and tensor_mapping.py.

use super::Family;
use crate::error::{Fault, shown};

/// Names without `.weight` and `.bias`.
type Table = &'static [(&'static str, &'static str)];

struct Names {
    whole: Table,
    /// What stands before the number of a layer.
    layers: &'static str,
    /// Behind the number.
    layer: &'static [Table],
}

const OUTSIDE: Table = &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

const ATTENTION: Table = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
];

const MLP: Table = &[("ffn_gate", "mlp.gate_proj"), ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj")];

const LLAMA: Names = Names {
    whole: OUTSIDE,
    layers: "model.layers",
    layer: &[ATTENTION, &[("ffn_norm", "post_attention_layernorm")], MLP],
};

const GEMMA: Names = Names {
    whole: OUTSIDE,
    layers: "model.layers",
    layer: &[
        ATTENTION,
        &[
            ("post_attention_norm", "post_attention_layernorm"),
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ],
        MLP,
    ],
};

const PHI3: Names = Names {
    whole: OUTSIDE,
    layers: "model.layers",
    layer: &[&[
        ("attn_norm", "input_layernorm"),
        ("attn_qkv", "self_attn.qkv_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up", "mlp.gate_up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ]],
};

const GPT2: Names = Names {
    whole: &[
        ("token_embd", "transformer.wte"),
        ("position_embd", "transformer.wpe"),
        ("output_norm", "transformer.ln_f"),
        ("output", "lm_head"),
    ],
    layers: "transformer.h",
    layer: &[&[
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ]],
};

impl Family {
    fn names(self) -> &'static Names {
        match self {
            Family::Llama | Family::Qwen2 | Family::Qwen3 => &LLAMA,
            Family::Phi3 => &PHI3,
            Family::Gemma2 | Family::Gemma3 => &GEMMA,
            Family::Gpt2 => &GPT2,
        }
    }

    /// Hugging Face's name of a tensor.
    pub(crate) fn hugging_face_name(self, name: &str) -> Result<String, Fault> {
        self.translated(name).ok_or_else(|| {
            let why = format!("it has the tensor `{}`, which has no name in Hugging Face's models", shown(name));
            Fault::unsupported(why, "use the model's safetensors")
        })
    }

    fn translated(self, name: &str) -> Option<String> {
        let names = self.names();
        let (module, kind) = name.rsplit_once('.').filter(|(_, kind)| ["weight", "bias"].contains(kind))?;
        let find =
            |table: Table, module: &str| table.iter().find(|(ours, _)| *ours == module).map(|(_, theirs)| *theirs);
        let Some(layer) = module.strip_prefix("blk.") else {
            return Some(format!("{}.{kind}", find(names.whole, module)?));
        };
        let (layer, module) = layer.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        let module = names.layer.iter().find_map(|table| find(table, module))?;
        Some(format!("{}.{layer}.{module}.{kind}", names.layers))
    }
}
