#!/usr/bin/env python3
"""Counts the instructions of every kernel under valgrind and compares them with the committed table.

    scripts/count_instructions.py             compare; exit code 1 if a count is more than 3 % away
    scripts/count_instructions.py --update    write what is counted into the table

The cases are those of stages/shared/kernels/examples/instructions.rs, each run alone on one thread; what is counted is the second run of the
kernel. The counts belong to a version of rustc and an instruction set, and the table has a block for each. Where it has none for what runs
here there is nothing to compare: the script says so and succeeds, except that a toolchain pinned by number must have its block.

Needs cargo and valgrind, x86-64 or aarch64. Not counted: caches, time, other threads. tests/speed.rs of the crate measures time.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "stages/shared/kernels/instructions.json"
# What the number of a call's arguments, an allocator or a C library's memcpy may change. The kernels' own counts do not vary.
TOLERANCE = 0.03
UPDATE = "scripts/count_instructions.py --update"


def fail(message):
    sys.exit(f"count_instructions: {message}")


def rustc_version():
    """`1.95.0` of `rustc 1.95.0 (59807616e 2026-04-14)`."""
    return subprocess.run(["rustc", "--version"], cwd=ROOT, check=True, text=True, capture_output=True).stdout.split()[1]


def pinned_toolchain():
    """The toolchain's number if rust-toolchain.toml gives one, None for a channel that moves."""
    channel = re.search(r'^channel = "(.*)"', (ROOT / "rust-toolchain.toml").read_text(), re.MULTILINE)
    return channel[1] if channel and channel[1][0].isdigit() else None


def build():
    """The path of the program that runs the cases. In the dev profile: the kernels are optimised there as they ship."""
    # The whole workspace's features, so that what `cargo test --workspace` built is used again.
    command = ["cargo", "build", "--workspace", "--example", "instructions", "--message-format=json-render-diagnostics"]
    lines = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()
    programs = [message["executable"] for message in map(json.loads, lines) if message.get("executable")]
    return programs[-1] if programs else fail("cargo built no program")


def count(program, case):
    """The instruction set that a case ran with under valgrind, and how many instructions it took."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "callgrind.out"
        options = ["--collect-atstart=no", "--toggle-collect=*counted_section*", f"--callgrind-out-file={out}"]
        command = ["valgrind", "-q", "--tool=callgrind", *options, program, case]
        run = subprocess.run(command, text=True, capture_output=True, check=False)
        if run.returncode != 0:
            fail(f"{case} failed under valgrind:\n{run.stderr}")
        total = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
    if not total or total[1] == "0":
        fail(f"valgrind counted nothing for {case}")
    return run.stdout.strip(), int(total[1])


def compare(key, counts, expected):
    """Prints the table of counts; fails with all that differ."""
    wrong = []
    for case in sorted(counts.keys() | expected.keys()):
        old, new = expected.get(case), counts.get(case)
        if old is None or new is None:
            wrong.append(f"{case}: {'is not in the table' if old is None else 'is in the table and not in the program'}")
            continue
        change = new / old - 1
        print(f"{case:36} {new:>12,} {change:+8.2%}")
        if abs(change) > TOLERANCE:
            wrong.append(f"{case}: {new:,} instructions, {old:,} in the table ({change:+.1%})")
    if wrong:
        listed = "\n  ".join(wrong)
        fail(f"{key}:\n  {listed}\nIf this is meant, `{UPDATE}` writes the table; say in the commit why and what it does to the time")
    print(f"{len(counts)} kernels within {TOLERANCE:.0%} of the table ({key})")


def main():
    if sys.argv[1:] not in ([], ["--update"]):
        fail(f"unknown argument; {UPDATE} is all there is")
    program = build()
    cases = subprocess.run([program], check=True, text=True, capture_output=True).stdout.split()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(cases, pool.map(lambda case: count(program, case), cases)))
    instruction_set = results[cases[0]][0]
    key = f"rustc {rustc_version()}, {instruction_set}"
    counts = {case: n for case, (_, n) in results.items()}
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    if sys.argv[1:]:
        table[key] = counts
        TABLE.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n")
        print(f"wrote {len(counts)} counts for {key}")
    elif key in table:
        compare(key, counts, table[key])
    elif (pinned := pinned_toolchain()) and not any(known.startswith(f"rustc {pinned}") for known in table):
        fail(f"the table has no counts for the pinned toolchain {pinned}: run {UPDATE}")
    else:
        known = "; ".join(sorted(table)) or "nothing"
        print(f"LEFT OUT: instruction counts are not compared. The table has {known}; here it is {key}. {UPDATE} adds it", file=sys.stderr)


if __name__ == "__main__":
    main()
