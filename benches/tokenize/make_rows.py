"""Writes N rows with `prompt` and `completion`: real ones, repeated with a running number in front.

    python3 make_rows.py SOURCE N OUT

SOURCE: a folder of Parquet files with the columns of Alpaca (`instruction`, `input`, `output`). OUT: a folder, which gets Parquet files of
500,000 rows. The number makes every prompt another text, so that nothing is a duplicate of anything.
"""

import pathlib
import sys

ROWS_A_FILE = 500_000
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{number}. {instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{number}. {instruction}\n\n### Response:\n"
)


def main():
    import pyarrow as pa
    import pyarrow.parquet as pq

    if len(sys.argv) != 4:
        sys.exit(__doc__)
    source, n_rows, out = pathlib.Path(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    files = sorted(source.rglob("*.parquet"))
    if not files:
        sys.exit(f"make_rows.py: no Parquet files in {source}")
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    out.mkdir(parents=True, exist_ok=True)
    for start in range(0, n_rows, ROWS_A_FILE):
        numbers = range(start, min(start + ROWS_A_FILE, n_rows))
        prompts = [prompt(number, rows[number % len(rows)]) for number in numbers]
        completions = [rows[number % len(rows)]["output"] for number in numbers]
        table = pa.table({"prompt": pa.array(prompts, pa.string()), "completion": pa.array(completions, pa.string())})
        pq.write_table(table, out / f"rows-{start // ROWS_A_FILE:05}.parquet", compression="zstd")


def prompt(number, row):
    template = WITH_INPUT if row["input"] else WITHOUT_INPUT
    return template.format(number=number, instruction=row["instruction"], input=row["input"])


if __name__ == "__main__":
    main()
