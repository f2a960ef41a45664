#!/usr/bin/env python3
"""Write tests/fixtures/weights: weight files as PyTorch and llama.cpp's own writer make them, and the same tensors as safetensors.

    python3 -m venv venv && venv/bin/pip install 'torch==2.15.0' 'safetensors' 'numpy' 'gguf==0.19.0'
    venv/bin/python scripts/make_weights_fixtures.py

views.bin          a state dict with each dtype, and with tensors that are views: transposed, every second column, an offset, two names for
                   one storage, a parameter, a scalar, an empty one; views.safetensors has what they hold
llama.bin          the model of tests/fixtures/parity/llama, as `torch.save(model.state_dict(), ..)` writes it
llama.gguf, qwen2.gguf   the models of tests/fixtures/parity/{llama,qwen2}: float32, and rows of q and k as convert_hf_to_gguf.py orders them
"""

import json
from collections import OrderedDict
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
PARITY = ROOT / "tests" / "fixtures" / "parity"
OUT = ROOT / "tests" / "fixtures" / "weights"

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def state_dict(tensors):
    """As `Module.state_dict()` gives it: an OrderedDict with versions of modules."""
    state = OrderedDict(tensors)
    state._metadata = OrderedDict([("", {"version": 1})])
    return state


def views():
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(4, 6, generator=generator)
    return {
        "float32": matrix,
        "float16": matrix.half(),
        "bfloat16": matrix.bfloat16(),
        "float64": matrix.double(),
        "int64": torch.arange(5),
        "bool": matrix[0] > 0,
        "transposed": matrix.t(),
        "columns": matrix[:, ::2],
        "half_transposed": torch.randn(2, 3, 5, generator=generator).half().permute(2, 0, 1),
        "rows": matrix[1:3],
        "same": matrix,
        "parameter": torch.nn.Parameter(torch.randn(3, generator=generator)),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }


def gguf_name(name):
    top = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
    if name in top:
        return top[name] + ".weight"
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def permuted(tensor, n_heads):
    """LlamaModel.permute of convert_hf_to_gguf.py."""
    rows = tensor.shape[0]
    return tensor.reshape(n_heads, 2, rows // n_heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def write_gguf(family):
    config = json.loads((PARITY / family / "config.json").read_text())
    writer = gguf.GGUFWriter(OUT / f"{family}.gguf", family)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(config["vocab_size"])])
    for name, tensor in load_file(PARITY / family / "model.safetensors").items():
        if family == "llama" and ".q_proj." in name:
            tensor = permuted(tensor, config["num_attention_heads"])
        if family == "llama" and ".k_proj." in name:
            tensor = permuted(tensor, config["num_key_value_heads"])
        writer.add_tensor(gguf_name(name), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    tensors = views()
    torch.save(state_dict(tensors), OUT / "views.bin")
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, OUT / "views.safetensors")
    torch.save(state_dict(load_file(PARITY / "llama" / "model.safetensors")), OUT / "llama.bin")
    for family in ("llama", "qwen2"):
        write_gguf(family)
    for path in sorted(OUT.iterdir()):
        print(f"{path.stat().st_size:8} {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
