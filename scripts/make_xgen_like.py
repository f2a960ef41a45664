#!/usr/bin/env python3
"""Write a tiny model that lies on the hub exactly as Salesforce/xgen-7b-8k-base does: fp32 pickle shards, and no tokenizer.json.

    scripts/make_xgen_like.py FOLDER

FOLDER gets config.json (the real one's fields, tiny sizes, all 51,200 rows), generation_config.json, tokenizer_config.json,
tokenization_xgen.py (a harmless stand-in that nothing may run), pytorch_model-0000{1,2,3}-of-00003.bin and their index; some 7 MB, the
same bytes every time. Serve it with tools/hub_server.py as ROOT/models/Salesforce/xgen-7b-8k-base.

Standard library only: the pickles are written as `torch.save` writes them (zip of stored members, each storage at a multiple of 64 bytes,
pickle protocol 2 with persistent ids), by classes that only bear the names of torch's. `torch.load(file, weights_only=True)` reads them.
"""

import array
import collections
import io
import json
import pickle
import random
import sys
import types
import zipfile
from pathlib import Path

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "hidden_act": "silu",
    "hidden_size": 16,
    "initializer_range": 0.02,
    "intermediate_size": 44,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.29.2",
    "use_cache": True,
    "vocab_size": 51200,
}
GENERATION_CONFIG = {
    "_from_model_config": True,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "pad_token_id": 0,
    "transformers_version": "4.29.2",
}
TOKENIZER_CONFIG = {
    "add_eos_token": False,
    "add_special_tokens": True,
    "auto_map": {"AutoTokenizer": ["tokenization_xgen.XgenTokenizer", None]},
    "clean_up_tokenization_spaces": True,
    "model_max_length": 8192,
    "pad_token": None,
    "tokenizer_class": "XgenTokenizer",
}
CODE = 'raise RuntimeError("code from the hub was run")\n'
STANDARD_DEVIATION = 0.2
ALIGNMENT = 64


class Tensor:
    """A tensor of random float32 numbers, pickled as torch's own is."""

    def __init__(self, key, shape, values):
        self.key, self.shape, self.values = key, shape, values

    def __reduce__(self):
        strides, step = [], 1
        for size in reversed(self.shape):
            strides.insert(0, step)
            step *= size
        hooks = collections.OrderedDict()
        return torch_utils._rebuild_tensor_v2, (Storage(self), 0, tuple(self.shape), tuple(strides), False, hooks)


class Storage:
    """What a tensor has its numbers in: kept outside the pickle."""

    def __init__(self, tensor):
        self.tensor = tensor


def torch_function(module, name):
    """A function that is only a name: nobody calls it here."""

    def function(*_):
        raise NotImplementedError

    function.__module__, function.__name__, function.__qualname__ = module.__name__, name, name
    setattr(module, name, function)


torch = types.ModuleType("torch")
torch_utils = types.ModuleType("torch._utils")
torch_function(torch_utils, "_rebuild_tensor_v2")
torch_function(torch, "FloatStorage")


class Pickler(pickle.Pickler):
    """Storages are written as persistent ids: ("storage", type, key, location, number of elements)."""

    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", torch.FloatStorage, obj.tensor.key, "cpu", len(obj.tensor.values))
        return None


def add(archive, name, data):
    """A stored member whose data begins at a multiple of 64 bytes: torch fills up with an extra field `FB`."""
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    begin = archive.fp.tell() + 30 + len(name.encode()) + 4
    padding = -begin % ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    archive.writestr(info, data)


def save(tensors, path):
    """As `torch.save(tensors, path)`."""
    modules = {"torch": torch, "torch._utils": torch_utils}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        pickled = io.BytesIO()
        Pickler(pickled, protocol=2).dump(tensors)
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
    folder = path.stem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        add(archive, f"{folder}/data.pkl", pickled.getvalue())
        add(archive, f"{folder}/byteorder", b"little")
        for tensor in tensors.values():
            add(archive, f"{folder}/data/{tensor.key}", tensor.values.tobytes())
        add(archive, f"{folder}/version", b"3\n")


def shapes():
    """Names and shapes of each shard."""
    hidden, inner, vocab = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["vocab_size"]
    attention = {f"self_attn.{name}_proj": [hidden, hidden] for name in "qkvo"}
    mlp = {"mlp.gate_proj": [inner, hidden], "mlp.up_proj": [inner, hidden], "mlp.down_proj": [hidden, inner]}
    norms = {"input_layernorm": [hidden], "post_attention_layernorm": [hidden]}
    shards = [{"model.embed_tokens.weight": [vocab, hidden]}]
    for layer in range(CONFIG["num_hidden_layers"]):
        modules = {**attention, **mlp, **norms}
        shards.append({f"model.layers.{layer}.{name}.weight": shape for name, shape in modules.items()})
    shards[-1].update({"model.norm.weight": [hidden], "lm_head.weight": [vocab, hidden]})
    return shards


def values(generator, name, shape):
    """Around 1 for norms, around 0 else."""
    n_values = 1
    for size in shape:
        n_values *= size
    center = 1.0 if "norm" in name else 0.0
    numbers = array.array("f", (center + generator.gauss(0.0, STANDARD_DEVIATION) for _ in range(n_values)))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(7)
    shards, weight_map, total_size = shapes(), {}, 0
    for shard_idx, shard in enumerate(shards):
        file = f"pytorch_model-{shard_idx + 1:05}-of-{len(shards):05}.bin"
        tensors = {}
        for key, (name, shape) in enumerate(shard.items()):
            tensors[name] = Tensor(str(key), shape, values(generator, name, shape))
            weight_map[name] = file
            total_size += 4 * len(tensors[name].values)
        save(tensors, folder / file)
    texts = {
        "config.json": CONFIG,
        "generation_config.json": GENERATION_CONFIG,
        "tokenizer_config.json": TOKENIZER_CONFIG,
        "pytorch_model.bin.index.json": {"metadata": {"total_size": total_size}, "weight_map": weight_map},
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "tokenization_xgen.py").write_text(CODE)


if __name__ == "__main__":
    main()
