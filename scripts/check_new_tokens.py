#!/usr/bin/env python3
"""Load an adapter with new tokens as its user would: PEFT's AutoPeftModelForCausalLM on the base as it was before `extend`.

    python3 -m venv venv && venv/bin/pip install 'torch==2.15.0' 'transformers==5.23.0' 'peft==0.21.2'
    venv/bin/python scripts/check_new_tokens.py BASE_DIR RELEASED_DIR

BASE_DIR holds the model that `extend` read, RELEASED_DIR the folders `adapter` and `merged` that `export` wrote. Where the new tokens do not
fit into the base's rows, PEFT adds as many as the adapter's tokenizer has tokens, filled with what transformers fills them with: what the
adapter carries must not depend on that.

Fails (exit code 1) when a tensor of the adapter is missing or unexpected, when a new token is not one id in both tokenizers or is special in
one and not in the other, when the logits of base and adapter differ from the merged model's by more than 1e-4 on a text with every new
token, or when a new token's row is what it was in the base. Run by hand: PyTorch is no dependency of the tests.
"""

import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

LOGITS_MAX = 1e-4


def load_as_user(adapter_dir, base_dir):
    """The adapter on its base, which the exported config names where it is on the hub. Returns the model and what PEFT warned of."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shutil.copytree(adapter_dir, folder, dirs_exist_ok=True)
        path = Path(folder) / "adapter_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "base_model_name_or_path": str(base_dir)}))
        model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return model, [str(w.message) for w in caught if "keys" in str(w.message)]


def check_tokenizers(ids, adapter_dir, merged_dir, failures):
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (adapter_dir, merged_dir)]
    tokens = tokenizers[0].convert_ids_to_tokens(ids)
    for tokenizer in tokenizers:
        for token, token_id in zip(tokens, ids):
            found = tokenizer(token, add_special_tokens=False)["input_ids"]
            if token_id not in found or tokenizer.decode([token_id]).strip() != token:
                failures.append(f"`{token}` is {found} in {tokenizer.name_or_path}, not {token_id}")
        special = [t for t in tokens if t in tokenizer.all_special_tokens]
        hidden = [t for t, i in zip(tokens, ids) if tokenizer.decode([i], skip_special_tokens=True) == ""]
        print(f"tokenizer: {len(tokenizer)} tokens; new: {', '.join(tokens)}; special: {', '.join(special) or 'none'}")
        if special != hidden:
            failures.append(f"listed as special: {special}; hidden by skip_special_tokens: {hidden}")
    return tokenizers[0], tokens


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    base_dir, released = map(Path, sys.argv[1:])
    failures = []
    indices = json.loads((released / "adapter" / "adapter_config.json").read_text())["trainable_token_indices"]
    ids = sorted({i for listed in indices.values() for i in listed})
    tokenizer, tokens = check_tokenizers(ids, released / "adapter", released / "merged", failures)

    base = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    old_rows = base.get_input_embeddings().weight.detach()
    model, complaints = load_as_user(released / "adapter", base_dir)
    merged = AutoModelForCausalLM.from_pretrained(released / "merged", dtype=torch.float32, attn_implementation="eager").eval()
    n_rows = [m.get_input_embeddings().weight.shape[0] for m in (base, model, merged)]
    print(f"rows: {n_rows[0]} in the base, {n_rows[1]} under PEFT, {n_rows[2]} merged")
    failures += complaints
    if n_rows[1] != n_rows[2]:
        failures.append("PEFT has other rows than the merged model")

    input_ids = torch.tensor([ids + tokenizer("and some words " + " ".join(tokens))["input_ids"]])
    with torch.no_grad():
        ours, theirs = (m(input_ids, use_cache=False).logits[0] for m in (merged, model))
    difference = (ours - theirs).abs().max().item()
    print(f"logits: {tuple(theirs.shape)}, largest difference {difference:.2e} (at most {LOGITS_MAX:.0e})")
    if not difference <= LOGITS_MAX:
        failures.append("base and adapter under PEFT do not compute what the merged model does")
    rows = load_file(released / "adapter" / "adapter_model.safetensors")
    embedded = next(rows[name] for name in rows if "token_adapter" in name and "lm_head" not in name)
    order = next(listed for name, listed in indices.items() if name != "lm_head")
    for token_id, row in zip(order, embedded):
        if token_id < len(old_rows) and torch.equal(row, old_rows[token_id]):
            failures.append(f"the row of token {token_id} is what it was")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
