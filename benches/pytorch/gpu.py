#!/usr/bin/env python3
"""Training on a GPU: `pipe bench train` beside PyTorch + PEFT, in turn, on one card.

    python3 gpu.py --pipe ../../target/release/pipe        # a build with --features cuda

Models have random weights, ids are random, so nothing is downloaded. First both sides take one optimizer step on the same ids, without
dropout and with an adapter whose B is not zero: loss and gradient norm must agree within 1e-3 (relative). Then each is measured `--rounds`
times in turn, every time in a process of its own. PyTorch is measured in float32 and in bfloat16, with its largest micro-batch.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import inputs

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-3
SHAPES = {"smollm2": inputs.SMOLLM2, "tinyllama": inputs.TINYLLAMA, "xgen": inputs.XGEN}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipe", type=Path, required=True, help="the binary, built with --features cuda")
    parser.add_argument("--shapes", default="smollm2", help="of " + ",".join(SHAPES))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="optimizer steps that count, in each round")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="of PyTorch")
    parser.add_argument("--work", type=Path, default=Path("gpu-bench"))
    args = parser.parse_args()
    args.pipe = args.pipe.resolve()
    for name in args.shapes.split(","):
        measure(args, name)


def measure(args, name):
    folder, ids, adapter = (args.work / part for part in (name, f"{name}.safetensors", f"{name}-adapter"))
    inputs.random_model(folder, SHAPES[name])
    inputs.random_ids(ids, SHAPES[name]["vocab_size"], 4 * args.batch, args.length)
    if not adapter.exists():
        inputs.adapter(adapter, folder, ["q_proj", "v_proj"], 16)

    ours = pipe(args, folder, ids, 1, ["--adapter", adapter])
    theirs = torch(args, folder, ids, "float32", n_steps=0, adapter=str(adapter), lora_dropout=0.0)
    for what in ("loss", "grad_norm"):
        difference = abs(ours[what] / theirs[what] - 1)
        print(f"{name}: {what} {ours[what]:.6f}, PyTorch's {theirs[what]:.6f}, relative difference {difference:.1e}", flush=True)
        if not difference < TOLERANCE:
            sys.exit(f"{name}: they do not compute the same")

    rates = {}
    for _ in range(args.rounds):
        result = pipe(args, folder, ids, args.steps, ["--lora-r", "16", "--lora-dropout", "0.05"])
        rates.setdefault(f"pipe ({result['compute_class']})", []).append(result["tokens_per_second"])
        parts = result["parts_seconds"]
        for dtype in args.dtypes.split(","):
            result = torch(args, folder, ids, dtype, n_steps=args.steps)
            rates.setdefault(f"PyTorch, {dtype}", []).append(
                statistics.median(n / seconds for n, seconds in zip(result["n_tokens"], result["seconds"]))
            )
    for who, each in rates.items():
        print(f"{name}: {who}: {statistics.median(each):,.0f} tokens/s ({min(each):,.0f} to {max(each):,.0f})", flush=True)
    print(f"{name}: pipe's seconds by part of an optimizer step: " + json.dumps({k: round(v, 4) for k, v in parts.items()}), flush=True)


def pipe(args, folder, ids, n_steps, more):
    command = [args.pipe, "bench", "train", "--model", folder, "--ids", ids, "--batch", args.batch, "--steps", n_steps, "--json", *more]
    return last_line([str(part) for part in command])


def torch(args, folder, ids, dtype, **more):
    request = {"model": str(folder), "ids": str(ids), "batch": args.batch, "micro_batch": args.batch, "device": "cuda", "dtype": dtype, **more}
    return last_line([sys.executable, str(HERE / "measure.py"), json.dumps(request)])


def last_line(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
