#!/usr/bin/env python3
"""Load what `pipe` exported in transformers and PEFT, as somebody else would: no trust_remote_code, nothing of pipe.

    python3 -m venv venv && venv/bin/pip install 'torch==2.15.0' 'transformers==5.23.0' 'peft==0.21.2'
    venv/bin/python scripts/check_export.py BASE_DIR RELEASED_DIR [TOKENIZER_DIR]

BASE_DIR holds the model that was trained on (safetensors or pickles), RELEASED_DIR the folders `adapter` and `merged`, TOKENIZER_DIR a
tokenizer that both must equal. Fails (exit code 1) when one of them does not load, when the merged model's logits differ from those of base and
adapter by more than 1e-4, when the adapter changes nothing, or when the tokenizers differ on a text.
scripts/check_peft.py compares these logits with ours. Run by hand: PyTorch is no dependency of the tests.
"""

import random
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

LOGITS_MAX = 1e-4
EFFECT_MIN = 1e-6  # An adapter that was not applied differs by 0; one of two optimizer steps by little.
TEXTS = [
    "Below is an instruction that describes a task.\n\n### Instruction:\nName three colours.\n\n### Response:",
    "def f(x):\n\treturn\t\tx" + " " * 40 + "# end\n\n\n",
    "Grüße, 你好 😀👩‍👩‍👧 \u00a0 naïve café!",
    "",
]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def logits_of(model, input_ids):
    with torch.no_grad():
        return model(input_ids, use_cache=False).logits[0]


def check_tokenizers(folders, failures):
    tokenizers = {str(folder): AutoTokenizer.from_pretrained(folder) for folder in folders}
    generator = random.Random(3)
    texts = TEXTS + ["".join(generator.choice(" \t\nabcé你😀.,'s") for _ in range(40)) for _ in range(200)]
    (first_name, first), *others = tokenizers.items()
    print(f"tokenizer: {type(first).__name__}, {len(first)} tokens, eos {first.eos_token_id}, {len(texts)} texts")
    for name, other in others:
        for text in texts:
            ids = first(text)["input_ids"]
            if ids != other(text)["input_ids"] or other.decode(ids) != text:
                failures.append(f"`{first_name}` and `{name}` differ on {text!r}")
                break


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    base_dir, released = map(Path, sys.argv[1:3])
    failures = []
    check_tokenizers([*map(Path, sys.argv[3:]), released / "adapter", released / "merged"], failures)

    base = load(base_dir)
    generator = torch.Generator().manual_seed(5)
    input_ids = torch.randint(0, base.config.vocab_size, (1, 64), generator=generator)
    base_logits = logits_of(base, input_ids)
    adapted_logits = logits_of(PeftModel.from_pretrained(base, released / "adapter").eval(), input_ids)
    merged_logits = logits_of(load(released / "merged"), input_ids)
    difference = (merged_logits - adapted_logits).abs().max().item()
    effect = (adapted_logits - base_logits).abs().max().item()
    largest = adapted_logits.abs().max().item()
    print(f"merged: largest difference from base and adapter {difference:.2e} (at most {LOGITS_MAX:.0e}), largest logit {largest:.1f}")
    print(f"adapter: largest difference from the base {effect:.2e} (more than {EFFECT_MIN:.0e})")
    if not difference <= LOGITS_MAX:
        failures.append("the merged model differs from base and adapter")
    if not effect > EFFECT_MIN:
        failures.append("the adapter changes nothing")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
