#!/usr/bin/env python3
"""Write tests/fixtures/generation/*.json: what transformers' greedy search gives for ten prompts, for our engine to match.

    python3 -m venv venv && venv/bin/pip install 'torch==2.15.0' 'transformers==5.23.0'
    venv/bin/python scripts/make_generation_fixtures.py --stories260K DIR --smollm2 DIR     # folders of the two models

`llama` is the random model of tests/fixtures/parity/llama, on random ids; the other two continue ten beginnings of texts. float32,
eager attention. A file has the ids of each prompt and the new ids, without the id that ended them.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "fixtures" / "generation"
BEGINNINGS = [
    "Once upon a time, there was a little girl named",
    "Tom had a red ball. He",
    "The dog ran to the park and",
    "One day, a big bear",
    "Lily and Ben went to the beach. They saw",
    "The sun was hot, so the cat",
    "Mom said, \"Please",
    "There was a tree with",
    "Sam was sad because",
    "\"What is that?\" asked the",
]


def random_prompts(vocab_size):
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(3, vocab_size, (length,), generator=generator).tolist() for length in range(1, 11)]


def greedy(model, prompt, max_new_tokens):
    ids = torch.tensor([prompt])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_new_tokens)
    new = out[0, len(prompt) :].tolist()
    eos = model.generation_config.eos_token_id
    ends = eos if isinstance(eos, list) else [eos]
    return new[:-1] if new and new[-1] in ends else new


def make(name, folder, max_new_tokens, prompts_of):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    prompts = prompts_of(model)
    eos = model.generation_config.eos_token_id
    result = {
        "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "max_new_tokens": max_new_tokens,
        "eos_ids": eos if isinstance(eos, list) else [eos], "prompts": prompts,
        "greedy": [greedy(model, prompt, max_new_tokens) for prompt in prompts],
    }  # fmt: skip
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(result) + "\n")
    print(f"{path.relative_to(ROOT)}: {sum(map(len, result['greedy']))} new ids of {len(prompts)} prompts")


def tokenized(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return lambda _: [tokenizer(text).input_ids for text in BEGINNINGS]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories260K", type=Path)
    parser.add_argument("--smollm2", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    make("llama", ROOT / "tests/fixtures/parity/llama", 30, lambda model: random_prompts(model.config.vocab_size))
    for name in ["stories260K", "smollm2"]:
        folder = getattr(arguments, name)
        if folder is not None:
            make(name, folder, 64 if name == "stories260K" else 24, tokenized(folder))


if __name__ == "__main__":
    main()
