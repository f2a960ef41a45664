#!/usr/bin/env python3
"""Write tests/fixtures/weights: weight files as PyTorch and llama.cpp's own writer make them, and the same tensors as safetensors.

    python3 -m venv venv && venv/bin/pip install 'torch==2.15.0' 'safetensors' 'numpy' 'gguf==0.19.0' 'transformers==5.23.0'
    venv/bin/python scripts/make_weights_fixtures.py

views.bin          a state dict with each dtype, and with tensors that are views: transposed, every second column, an offset, two names for
                   one storage, a parameter, a scalar, an empty one; views.safetensors has what they hold
llama.bin          the model of tests/fixtures/parity/llama, as `torch.save(model.state_dict(), ..)` writes it
*.gguf             the models of tests/fixtures/parity of those names, with gguf-py's names, and changed as llama.cpp's convert_hf_to_gguf.py
                   changes them: rows of q and k of a Llama in another order, matrices of a GPT-2 transposed, norms of a Gemma one more; all float32

Each GGUF is opened with transformers too, where it supports the architecture as the converter writes it, and must give the same tensors.
"""

import json
import math
from collections import OrderedDict
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

ROOT = Path(__file__).resolve().parent.parent
PARITY = ROOT / "tests" / "fixtures" / "parity"
OUT = ROOT / "tests" / "fixtures" / "weights"

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


FAMILIES = {
    "llama": "llama",
    "llama3": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gpt2": "gpt2",
}
CONV1D = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")


def permuted(tensor, n_heads):
    """LlamaModel.permute of convert_hf_to_gguf.py."""
    rows = tensor.shape[0]
    return tensor.reshape(n_heads, 2, rows // n_heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def converted(architecture, config, name, tensor):
    """What modify_tensors of convert_hf_to_gguf.py makes of a tensor."""
    if architecture == "llama" and ".q_proj." in name:
        return permuted(tensor, config["num_attention_heads"])
    if architecture == "llama" and ".k_proj." in name:
        return permuted(tensor, config["num_key_value_heads"])
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    if architecture == "gpt2" and name.endswith(CONV1D):
        return tensor.T
    return tensor


def llama3_factors(config):
    """generate_extra_tensors of LlamaModel."""
    rope, dim = config["rope_parameters"], config["head_dim"]
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    original = rope["original_max_position_embeddings"]
    factors = []
    for freq in 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)):
        wavelength = 2 * math.pi / float(freq)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(factors, dtype=torch.float32)


def add_metadata(writer, architecture, config):
    """set_gguf_parameters of the family's class."""
    if architecture == "gpt2":
        writer.add_block_count(config["n_layer"])
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(config["n_embd"])
        # As the converter does, though this model's MLP is narrower.
        writer.add_feed_forward_length(4 * config["n_embd"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    rope = config["rope_parameters"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if "head_dim" in config and architecture != "phi3":
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if architecture == "llama":
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(config["head_dim"])
    if architecture == "phi3":
        scale = config["max_position_embeddings"] / rope["original_max_position_embeddings"]
        channels = int(rope["partial_rotary_factor"] * config["hidden_size"]) // config["num_attention_heads"]
        writer.add_rope_dimension_count(channels)
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(rope["original_max_position_embeddings"])))
    if architecture in ("phi3", "gemma2", "gemma3"):
        writer.add_sliding_window(config["sliding_window"])
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
        return
    full = rope.get("full_attention", rope)
    if full["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(full["factor"])
    writer.add_rope_freq_base(full["rope_theta"])
    if "sliding_attention" in rope:
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])


def write_gguf(family):
    architecture = FAMILIES[family]
    config = json.loads((PARITY / family / "config.json").read_text())
    path = OUT / f"{family}.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    add_metadata(writer, architecture, config)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(config["vocab_size"])])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.get("num_hidden_layers", config.get("n_layer")))
    tensors = load_file(PARITY / family / "model.safetensors")
    for name, tensor in tensors.items():
        ours = names.get_name(name, try_suffixes=(".weight", ".bias"))
        tensor = converted(architecture, config, name, tensor).contiguous()
        writer.add_tensor(ours, tensor.numpy())
    if family == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config).numpy())
    if family == "phi3":
        for name in ("long", "short"):
            factors = torch.tensor(config["rope_parameters"][f"{name}_factor"], dtype=torch.float32)
            writer.add_tensor(f"rope_factors_{name}.weight", factors.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    compare_with_transformers(path, family, tensors)


def compare_with_transformers(path, family, expected):
    """What transformers reads of the file is what the model has: exactly, and norms of a Gemma up to half a step of a float32 at 1."""
    config = AutoConfig.from_pretrained(PARITY / family)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    if family == "mistral":
        # It looks for names by the type of the model, and gguf-py has none for a Mistral.
        empty.config.model_type = "llama"
    read = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=empty)["tensors"]
    largest = 0.0
    for name, tensor in expected.items():
        other = read[name] if name in read else read[name.removeprefix("transformer.")]
        difference = (other.float() - tensor).abs().max().item()
        is_added = family.startswith("gemma") and name.endswith("norm.weight")
        assert difference <= (2.0**-24 if is_added else 0), f"{family}: {name} differs by {difference}"
        largest = max(largest, difference)
    print(f"{path.name}: transformers reads the same {len(expected)} tensors, largest difference {largest:.1e}")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    tensors = views()
    torch.save(state_dict(tensors), OUT / "views.bin")
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, OUT / "views.safetensors")
    torch.save(state_dict(load_file(PARITY / "llama" / "model.safetensors")), OUT / "llama.bin")
    for family in FAMILIES:
        write_gguf(family)
    for path in sorted(OUT.iterdir()):
        print(f"{path.stat().st_size:8} {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
