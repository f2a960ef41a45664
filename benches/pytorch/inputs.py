"""What both sides are measured on: token ids as a file, models of a shape, an adapter with values.

    python3 inputs.py tinyllama FOLDER      # 2.2 GB: the shape of TinyLlama 1.1B with random weights
    python3 inputs.py xgen FOLDER           # 13.8 GB: the shape of XGen 7B
"""

import json
import math
import random
import sys
from pathlib import Path

TINYLLAMA = dict(
    hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4, vocab_size=32000,
    max_position_embeddings=2048, rms_norm_eps=1e-5, tie_word_embeddings=False,
)  # fmt: skip

# SmolLM2-135M's.
SMOLLM2 = dict(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, vocab_size=49152,
    max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=100000.0, tie_word_embeddings=True,
)  # fmt: skip

XGEN = dict(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32, vocab_size=51200,
    max_position_embeddings=8192, rms_norm_eps=1e-6, tie_word_embeddings=False,
)  # fmt: skip


def random_ids(path, vocab_size, n_rows, length, seed=1):
    """Full causal rows of random ids, every token supervised."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab_size, (n_rows, length), generator=generator)
    positions = torch.arange(length).repeat(n_rows, 1)
    documents = torch.arange(n_rows)[:, None].repeat(1, length)
    save_file({"input_ids": ids, "labels": ids.clone(), "position_ids": positions, "doc_ids": documents}, path)


def alpaca_ids(path, model, folder, length, seed=1):
    """The texts of `folder` (Parquet files with a column `text`), each with an end-of-sequence id, packed best-fit decreasing into rows of at
    most `length` tokens, documents apart, every token supervised. Returns how many documents and rows there are."""
    import pyarrow.parquet as parquet
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    end = json.loads((Path(model) / "config.json").read_text())["eos_token_id"]
    texts = [text for file in sorted(Path(folder).rglob("*.parquet")) for text in parquet.read_table(file)["text"].to_pylist()]
    documents = [(encoding.ids + [end])[:length] for encoding in tokenizer.encode_batch(texts)]
    rows = best_fit(documents, length)
    random.Random(seed).shuffle(rows)
    names = ("input_ids", "labels", "position_ids", "doc_ids", "attention_mask")
    columns = {name: torch.zeros(len(rows), length, dtype=torch.int64) for name in names}
    columns["labels"].fill_(-100)
    doc_id = 0
    for row, members in enumerate(rows):
        begin = 0
        for ids in members:
            place = slice(begin, begin + len(ids))
            columns["input_ids"][row, place] = columns["labels"][row, place] = torch.tensor(ids)
            columns["position_ids"][row, place] = torch.arange(len(ids))
            columns["doc_ids"][row, place] = doc_id
            columns["attention_mask"][row, place] = 1
            begin += len(ids)
            doc_id += 1
    save_file(columns, path)
    return len(documents), len(rows)


def best_fit(documents, length):
    """Rows of documents: the longest first, each into the row where the least room stays."""
    rows, rooms = [], []
    for ids in sorted(documents, key=len, reverse=True):
        fitting = [row for row, room in enumerate(rooms) if room >= len(ids)]
        if fitting:
            row = min(fitting, key=lambda row: rooms[row])
        else:
            row = len(rows)
            rows.append([])
            rooms.append(length)
        rows[row].append(ids)
        rooms[row] -= len(ids)
    return rows


def random_model(folder, shape, seed=1):
    """A Llama of a shape with random weights in bf16, as Hugging Face lays it out: a file per layer, so that one layer is in memory at a time."""
    import torch
    from safetensors.torch import save_file

    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rope_theta": 10000.0, "torch_dtype": "bfloat16",
        "bos_token_id": 1, "eos_token_id": 2, **shape,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    hidden, mlp, vocab = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    kv = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    n_layers = shape["num_hidden_layers"]
    generator = torch.Generator().manual_seed(seed)
    matrix = lambda rows, columns: (torch.randn(rows, columns, generator=generator) / math.sqrt(columns)).to(torch.bfloat16)
    ones = lambda: torch.ones(hidden, dtype=torch.bfloat16)
    places, size_bytes = {}, 0

    def save(file_idx, tensors):
        nonlocal size_bytes
        name = f"model-{file_idx + 1:05}-of-{n_layers + 1:05}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(tensors, name))
        size_bytes += sum(tensor.nbytes for tensor in tensors.values())

    around = {"model.embed_tokens.weight": matrix(vocab, hidden), "model.norm.weight": ones()}
    if not shape["tie_word_embeddings"]:
        around["lm_head.weight"] = matrix(vocab, hidden)
    save(n_layers, around)
    for layer in range(n_layers):
        at = f"model.layers.{layer}."
        tensors = {f"{at}{name}.weight": ones() for name in ("input_layernorm", "post_attention_layernorm")}
        for name, rows, columns in [
            ("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", kv, hidden), ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, hidden), ("mlp.gate_proj", mlp, hidden), ("mlp.up_proj", mlp, hidden), ("mlp.down_proj", hidden, mlp),
        ]:  # fmt: skip
            tensors[f"{at}{name}.weight"] = matrix(rows, columns)
        save(layer, tensors)
    index.write_text(json.dumps({"metadata": {"total_size": size_bytes}, "weight_map": places}, indent=1) + "\n")


def adapter(folder, model, targets, lora_r, seed=1):
    """A PEFT adapter whose B is not zero, so that a wrong A, B or scale shows in loss and gradients."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    transformers.logging.set_verbosity_error()
    torch.manual_seed(seed)
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    targets = "all-linear" if targets == ["all-linear"] else targets
    lora = LoraConfig(r=lora_r, lora_alpha=2 * lora_r, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    peft = get_peft_model(base, lora)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape))
    peft.save_pretrained(folder)


if __name__ == "__main__":
    random_model(sys.argv[2], {"smollm2": SMOLLM2, "tinyllama": TINYLLAMA, "xgen": XGEN}[sys.argv[1]])
