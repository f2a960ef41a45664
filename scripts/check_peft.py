#!/usr/bin/env python3
"""Load an adapter that `pipe` exported in the real PEFT, and compare the logits there with ours.

    python3 -m venv venv && venv/bin/pip install 'torch==2.15.0' 'transformers==5.23.0' 'peft==0.21.2'
    venv/bin/python scripts/check_peft.py ADAPTER_DIR BASE_DIR LOGITS.safetensors

ADAPTER_DIR holds adapter_config.json and adapter_model.safetensors, BASE_DIR the model it was trained on.
LOGITS.safetensors holds what `pipe` computed with the adapter: `input_ids` (1, T) int64 and `logits` (T, V) float32.

Fails (exit code 1) when PEFT misses a key or finds one it does not expect, when a loaded tensor differs from the file,
when the logits differ from ours by more than 3e-5, or when the adapter changes the base's logits by less than 1e-3.
Run by hand: PyTorch is no dependency of the tests.
"""

import sys
from pathlib import Path

import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

LOGITS_MAX = 3e-5  # Three times the reference's own float32 error on models of this kind.
EFFECT_MIN = 1e-3  # An adapter that was not applied differs by 0.


def load_base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def logits_of(model, input_ids):
    with torch.no_grad():
        return model(input_ids, use_cache=False).logits[0]


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    adapter_dir, base_dir, logits_file = map(Path, sys.argv[1:])
    ours = load_file(logits_file)
    input_ids, our_logits = ours["input_ids"], ours["logits"]
    failures = []

    model = load_base(base_dir)
    base_logits = logits_of(model, input_ids)
    config = PeftConfig.from_pretrained(str(adapter_dir))
    config.inference_mode = True
    tensors = load_file(adapter_dir / "adapter_model.safetensors")
    model = get_peft_model(model, config).eval()
    wanted = set(get_peft_model_state_dict(model))
    missing, unexpected = wanted - set(tensors), set(tensors) - wanted
    result = set_peft_model_state_dict(model, tensors)
    # The same again as PEFT itself reports it; it names the keys of the base too.
    missing |= {key.replace(".default", "") for key in result.missing_keys if "lora_" in key}
    unexpected |= set(result.unexpected_keys)
    print(f"keys: {len(tensors)} in the file, {len(missing)} missing, {len(unexpected)} unexpected")
    failures += [f"missing key `{key}`" for key in sorted(missing)] + [f"unexpected key `{key}`" for key in sorted(unexpected)]
    for name, loaded in get_peft_model_state_dict(model).items():
        if name in tensors and not torch.equal(loaded, tensors[name]):
            failures.append(f"`{name}` was not loaded as it is in the file")

    peft_logits = logits_of(model, input_ids)
    if our_logits.shape != peft_logits.shape:
        sys.exit(f"error: our logits have shape {tuple(our_logits.shape)}, PEFT's {tuple(peft_logits.shape)}")
    difference = (our_logits - peft_logits).abs().max().item()
    effect = (peft_logits - base_logits).abs().max().item()
    print(f"logits: {tuple(peft_logits.shape)}, largest difference from ours {difference:.2e} (at most {LOGITS_MAX:.0e})")
    print(f"effect: largest difference from the base's {effect:.2e} (more than {EFFECT_MIN:.0e})")
    if not difference <= LOGITS_MAX:
        failures.append("the logits differ from ours")
    if not effect > EFFECT_MIN:
        failures.append("the adapter does not change the base's logits")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
