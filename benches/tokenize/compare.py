"""Texts to packs: the stage `tokenize` beside the `tokenizers` library alone, and beside TRL's own preparation of the same rows.

    python3 compare.py --source DIR --model DIR [--rows 50000,5000000] [--trl PYTHON] [--runs 5]

Builds `throughput` (an example of the stage's crate, release), makes the rows, measures all sides in turn, prints a table, and ends with 1 where a limit is
missed. `--source`: Parquet files with Alpaca's columns. `--model`: a folder with `tokenizer.json` and `tokenizer_config.json`. `--trl`: a Python
that has trl; without it that side is left out. README.md says what is compared.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LIBRARY_SHARE = 0.9
TRL_TIMES = 5.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, type=pathlib.Path)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--rows", default="50000", help="row counts, with commas")
    parser.add_argument("--runs", default=5, type=int, help="measurements of each side")
    parser.add_argument("--threads", default=os.cpu_count(), type=int)
    parser.add_argument("--max-length", default=1024, type=int)
    parser.add_argument("--strategy", default="bfd", help="packing_strategy of the stage; TRL has bfd, bfd_split and wrapped")
    parser.add_argument("--trl", help="a Python with trl")
    parser.add_argument("--trl-rows-max", default=200_000, type=int, help="TRL is left out above this many rows")
    parser.add_argument("--work", type=pathlib.Path, help="where rows and packs go; a temporary folder")
    parser.add_argument("--throughput", type=pathlib.Path, help="the example, built before")
    args = parser.parse_args()
    program = args.throughput or build()
    print_machine(args)
    with tempfile.TemporaryDirectory(prefix="bench_tokenize.", dir=args.work) as folder:
        model = prepare_model(args.model, pathlib.Path(folder))
        missed = [m for n in args.rows.split(",") for m in compare(args, program, model, int(n), pathlib.Path(folder))]
    for line in missed:
        print(f"MISSED: {line}")
    sys.exit(bool(missed))


def build():
    command = ["cargo", "build", "--release", "-p", "pipe-stage-tokenize", "--example", "throughput"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return pathlib.Path(target) / "release/examples/throughput"


def print_machine(args):
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    lock = (ROOT / "Cargo.lock").read_text().split("[[package]]")
    library = next(p.split('version = "')[1].split('"')[0] for p in lock if 'name = "tokenizers"' in p)
    load = os.getloadavg()[0]
    print(f"{cpu}, {args.threads} threads, load {load:.2f} at the start; tokenizers {library}; max_length {args.max_length}, {args.strategy}")


def prepare_model(source, folder):
    """The tokenizer with a `config.json`, which the stage asks for and a folder of tokenizers may lack."""
    model = folder / "model"
    model.mkdir()
    for file in source.glob("*.json"):
        shutil.copyfile(file, model / file.name)
    if not (model / "config.json").exists():
        vocabulary = json.loads((model / "tokenizer.json").read_text())
        ids = list(vocabulary["model"]["vocab"].values()) + [token["id"] for token in vocabulary["added_tokens"]]
        (model / "config.json").write_text(json.dumps({"vocab_size": max(ids) + 1}))
    return model


def compare(args, program, model, n_rows, folder):
    rows, examples, work = folder / "rows", folder / "examples", folder / "work"
    settings = f"{{ max_length: {args.max_length}, packing: true, packing_strategy: {args.strategy} }}"
    subprocess.run([sys.executable if not args.trl else args.trl, HERE / "make_rows.py", args.source, str(n_rows), rows], check=True)
    subprocess.run([program, "examples", rows, examples], check=True)
    sides = {
        "library": [program, "encode", model, examples, str(args.threads)],
        "stage": [program, "stage", model, examples, str(args.threads), settings, work],
    }
    if args.trl and n_rows <= args.trl_rows_max:
        sides["prepare"] = [program, "prepare", model, rows, str(args.threads), settings, work]
        sides["trl"] = [args.trl, HERE / "trl_prepare.py", rows, model, str(args.max_length), args.strategy, str(args.threads)]
    measured = {side: [] for side in sides}
    for _ in range(args.runs):
        for side, command in sides.items():
            shutil.rmtree(work, ignore_errors=True)
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            measured[side].append(json.loads(out.splitlines()[-1]))
    for path in (rows, examples, work):
        shutil.rmtree(path, ignore_errors=True)
    return print_table(n_rows, measured)


NAMES = {
    "library": "encode_batch with offsets, tokenizers alone",
    "stage": "tokenize + pack, the stage",
    "prepare": "rows to packs, pipe",
    "trl": "rows to packs, TRL",
}


def print_table(n_rows, measured):
    print(f"\n{n_rows:,} rows, medians of {len(measured['stage'])}\n")
    print(f"| {'':<43} | seconds | rows/s | tokens | CPU s | peak MiB |\n|{'-' * 45}|--:|--:|--:|--:|--:|")
    seconds = {}
    for side, runs in measured.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in ("seconds", "cpu_seconds", "peak_mib")}
        seconds[side] = middle["seconds"]
        print(
            f"| {NAMES[side]:<43} | {middle['seconds']:.2f} | {n_rows / middle['seconds']:,.0f} | {runs[0]['tokens']:,} "
            f"| {middle['cpu_seconds']:.1f} | {middle['peak_mib']:,.0f} |"
        )
    ratio = seconds["library"] / seconds["stage"]
    print(f"\nthe stage's rate is {ratio:.2f} of encode_batch's (at least {LIBRARY_SHARE})")
    missed = [f"{n_rows:,} rows: {ratio:.2f} of encode_batch"] if ratio < LIBRARY_SHARE else []
    if "trl" in seconds:
        times = seconds["trl"] / seconds["prepare"]
        versions = ", ".join(f"{name} {version}" for name, version in measured["trl"][0]["versions"].items())
        print(f"rows to packs {times:.1f} times as fast as TRL (at least {TRL_TIMES:.0f}); {versions}")
        missed += [f"{n_rows:,} rows: {times:.1f} times TRL"] if times < TRL_TIMES else []
    return missed


if __name__ == "__main__":
    main()
