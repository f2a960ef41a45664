#!/usr/bin/env python3
"""Compares the files that `pipe` takes by the `configs` of a data set's README with those that Hugging Face `datasets` takes.

    check_configs.py PIPE [N]    PIPE is the binary; N random READMEs beside the written ones (200)

Run by hand, with a Python that has datasets: each README is put into the same small local folder, and both are asked for
the files of a configuration and split. Compared are files of rows: `datasets` also takes pictures and `*.md`. Where it
refuses, `pipe` must, too, but where `data_dir` is set: `datasets` then looks for the form of the files in the wrong folder.
What only `pipe` refuses is listed with its reason, and must be one of REFUSED. Ends with 1 where they differ otherwise.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import datasets  # noqa: E402
import pyarrow  # noqa: E402
import pyarrow.parquet  # noqa: E402

datasets.utils.logging.set_verbosity_error()

NAMES = """
.hidden/a.jsonl README.md __extra/a.jsonl config.json data/a-1.jsonl data/a-2.jsonl data/b.csv data/deep/c.jsonl
data/train-00000-of-00001.jsonl math/hard.tsv math/test/t.jsonl math/train.jsonl math/train.parquet more/a.json
more/test.json more/x/y/z.json notes.md pictures/a.png plain.txt
""".split()

# What `pipe` refuses where `datasets` does not: mixed forms and options of its readers fail there later or not at all, and a
# split is checked there when it is read.
REFUSED = ("unread-files", "unread-option", "no-match")

ONE = "configs:\n- config_name: x\n  data_files: "
TWO = """configs:
- config_name: a
  data_files: data/a-1.jsonl
- config_name: %s
  data_files:
  - split: test
    path: data/a-2.jsonl
  - split: train
    path: [data/deep/*, more/*.json]
"""

ROWS = {"parquet", "arrow", "json", "jsonl", "csv", "tsv", "txt"}

# README, name, split.
CASES = [
    (ONE + pattern, None, "train")
    for pattern in """data/a-1.jsonl|data/*.jsonl|data/deep/**|data/**/*.jsonl|'**/a-[13].jsonl'|'**/*.jsonl'
    |[data/a-2.jsonl, 'data/a-?.jsonl']|[nothing/*, data/b.csv]|'**/a.jsonl'|'__*/*.jsonl'|'.*/*'|'*.json'|config.json
    |math/train.p*|more/**|more/x/**/z.json|'more/*/*/*'|'[!dm]*'|nothing.csv|data|../x|'data/**.jsonl'|data/*
    |[]|{ train: data/b.csv }|[{ split: train }]|[{ split: train, path: data/b.csv }, { split: train, path: more/a.json }]
    |[{ split: a-b, path: data/b.csv }]|[{ split: train, path: [data/b.csv] }, { split: test.v_1, path: '**/b.csv' }]""".split("|")
]
CASES += [
    (TWO % "b", None, "train"),
    (TWO % "b", "a", "train"),
    (TWO % "b", "b", "train"),
    (TWO % "b", "b", "test"),
    (TWO % "b", "c", "train"),
    (TWO % "default", None, "train"),
    (TWO % "b\n  default: true", None, "test"),
    ((TWO % "default").replace("name: a", "name: a\n  default: true"), None, "test"),
    (ONE.replace("x", "x\n  data_dir: more") + "'*'", None, "train"),
    (ONE.replace("x", "x\n  data_dir: more") + "x/**", None, "train"),
    ("configs:\n- config_name: x\n  data_dir: more", None, "test"),
    ("configs:\n- config_name: x\n  data_dir: data", None, "train"),
    ("configs:\n- config_name: 'x'\n  data_files: data/b.csv\n  sep: ','", None, "train"),
    ("license: mit", None, "train"),
]


def random_case(rng):
    folders = ["data", "more", "math", "*", "**", "x", "[a-m]*", "[!dm]*", "?ore"]
    files = ["**", "*", "a-?.jsonl", "*.json", "*.jsonl", "?*.j*", "t*t*", "[!t]*.json*", "train.[jp]*", "*.csv", "z.json"]
    patterns = [
        "/".join([rng.choice(folders) for _ in range(rng.randint(0, 2))] + [rng.choice(files)])
        for _ in range(rng.randint(1, 2))
    ]
    folder = rng.choice(["", "", "", "\n  data_dir: more", "\n  data_dir: data"])
    return f"configs:\n- config_name: x{folder}\n  data_files: {patterns!r}", None, "train"


def write_tree(folder):
    for name in NAMES:
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if name.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), path)
            continue
        row = {".csv": "text\na\n", ".tsv": "text\na\n", ".txt": "a\n"}.get(os.path.splitext(name)[1], '{"text": "a"}\n')
        with open(path, "w", encoding="utf-8") as file:
            file.write(row)


def of_datasets(folder, name, split, cache):
    """The files, or the error."""
    try:
        builder = datasets.load_dataset_builder(folder, name=name, cache_dir=cache)
        files = builder.config.data_files[split]
    except Exception as error:  # Whatever it is: it refuses.
        return None, f"{type(error).__name__}: {error}".split("\n")[0]
    # Rows come in the order of names here, and no file twice.
    names = {os.path.relpath(file, folder) for file in files}
    return sorted(name for name in names if name.rsplit(".", 1)[-1] in ROWS), ""


def of_pipe(pipe, folder, name, split, scratch):
    """The files, or the slug of the error."""
    pipeline = os.path.join(scratch, "pipe.yaml")
    named = f", name: {name}" if name else ""
    with open(pipeline, "w", encoding="utf-8") as file:
        file.write(f"version: 1\nstages:\n  rows:\n    uses: download\n    with: {{ dataset: '{folder}', split: {split}{named} }}\n")
    ran = subprocess.run([pipe, "run", pipeline], cwd=scratch, capture_output=True, text=True)
    if ran.returncode != 0:
        said = ran.stdout + ran.stderr
        return None, said[said.index("error[") + 6 :].split("]")[0] if "error[" in said else said
    shutil.rmtree(os.path.join(scratch, "out"), ignore_errors=True)
    subprocess.run([pipe, "get", pipeline, "rows", "--to", "out"], cwd=scratch, capture_output=True, check=True)
    out = os.path.join(scratch, "out", "rows")
    found = [os.path.relpath(os.path.join(at, name), out) for at, _, names in os.walk(out) for name in names]
    return sorted(found), ""


def main():
    pipe = os.path.abspath(sys.argv[1])
    rng = random.Random(1)
    cases = CASES + [random_case(rng) for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 200)]
    counts = {"same files": 0, "both refuse": 0, "only pipe refuses": 0, "only datasets refuses": 0, "differ": 0}
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(os.path.realpath(scratch), "set")
        write_tree(folder)
        for block, name, split in cases:
            with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as file:
                file.write(f"---\n{block}\n---\n# It\n")
            expected, why = of_datasets(folder, name, split, os.path.join(scratch, "cache"))
            found, slug = of_pipe(pipe, folder, name, split, scratch)
            if expected and found == expected:
                verdict = "same files"
            elif not expected and found is None:
                verdict = "both refuse"
            elif found is None and slug in REFUSED:
                verdict = "only pipe refuses"
            elif expected is None and "data_dir" in block and why.startswith(("DataFilesNotFoundError", "FileNotFoundError")):
                verdict = "only datasets refuses"
            else:
                verdict = "differ"
            counts[verdict] += 1
            if verdict not in ("same files", "both refuse"):
                print(f"{verdict}: {block!r} {name} {split}\n  datasets {expected} {why}\n  pipe     {found} {slug}")
    print(counts)
    return 1 if counts["differ"] else 0


if __name__ == "__main__":
    sys.exit(main())
