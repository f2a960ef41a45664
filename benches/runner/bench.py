#!/usr/bin/env python3
"""Measures the runner, and other runners on the same graphs in turn; fails where a figure misses its limit.

Standard library only. README.md beside it says how to install the others, and what each line means.
"""

import argparse
import datetime
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

import figures
import graphs


class Runner:
    """A program that makes a graph: how to write it, how to run it, where."""

    def __init__(self, name, program, write, command, prepare=None):
        self.name, self.program, self.write, self.command, self.prepare = name, program, write, command, prepare

    def version(self):
        done = subprocess.run([self.program, "--version"], capture_output=True, text=True)
        return (done.stdout or done.stderr).strip().splitlines()[0]


def find_runners(arguments):
    pipe = str(pathlib.Path(arguments.pipe).absolute())
    runners = [Runner("pipe", pipe, graphs.write_pipe, [pipe, "run", "pipeline.yaml"])]
    others = [
        ("ninja", graphs.write_ninja, ["-j2"], None),
        ("snakemake", graphs.write_snakemake, ["--cores", "2", "--quiet", "all"], None),
        ("dvc", graphs.write_dvc, ["repro", "--quiet"], ["init", "--no-scm", "--quiet"]),
    ]
    missing = []
    path = os.pathsep.join(filter(None, [arguments.others, os.environ.get("PATH", "")]))
    for name, write, words, prepare in others:
        program = shutil.which(name, path=path)
        if program is None:
            missing.append(name)
            continue
        runners.append(Runner(name, program, write, [program, *words], prepare and [program, *prepare]))
    return runners, missing, shutil.which("b3sum", path=path)


def noop(arguments, runners, n_stages, work):
    """Milliseconds of runs with nothing to do, by runner; in turn, so that what disturbs disturbs all."""
    folders = {}
    for runner in runners:
        if runner.name in ("dvc", "snakemake") and n_stages > arguments.others_max:
            continue
        folder = work / f"{runner.name}-{n_stages}"
        folder.mkdir()
        runner.write(folder, n_stages)
        for command in filter(None, [runner.prepare, runner.command]):
            figures.run(command, folder)
        folders[runner.name] = folder
    times = {name: [] for name in folders}
    for _ in range(arguments.runs):
        for runner in runners:
            if runner.name in folders:
                times[runner.name].append(figures.wall_ms(runner.command, folders[runner.name]))
    return times


def show(what, unit, values, limit=None):
    """One row; returns whether the limit is missed."""
    if not isinstance(values, list):
        values = [values]
    median = statistics.median(values)
    is_missed = limit is not None and median > limit
    word = "" if limit is None else f"<= {limit:g}" + ("  MISSED" if is_missed else "")
    print(f"{what:<44} {median:>10.2f} {min(values):>10.2f} {max(values):>10.2f} {unit:<6} {word}", flush=True)
    return is_missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipe", default="target/release/pipe", help="the program to measure")
    parser.add_argument("--runs", type=int, default=11, help="runs per figure")
    parser.add_argument("--stages", default="1,100,1000,10000", help="sizes of the graphs")
    parser.add_argument("--others", help="a folder with dvc, snakemake, ninja or b3sum, besides PATH")
    parser.add_argument("--others-max", type=int, default=1000, help="largest graph for dvc and snakemake")
    parser.add_argument("--bytes", type=int, default=2 << 30, help="size of the large input")
    parser.add_argument("--work", help="folder to work in, on the disk to measure (default: a temporary one)")
    arguments = parser.parse_args()

    runners, missing, b3sum = find_runners(arguments)
    pipe = runners[0].program
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.2f}")
    print(", ".join(f"{runner.name}: {runner.version()}" for runner in runners))
    print(f"not installed: {', '.join(missing) or 'none'}{'' if b3sum else '; b3sum is not installed either'}")
    print(f"{arguments.runs} runs each\n")
    print(f"{'':<44} {'median':>10} {'min':>10} {'max':>10}        limit")
    missed = []

    def row(what, unit, values, limit=None):
        if show(what, unit, values, limit):
            missed.append(what)

    limits = {100: 12, 1000: 50, 10000: 300}
    with tempfile.TemporaryDirectory(dir=arguments.work, ignore_cleanup_errors=True) as work:
        work = pathlib.Path(work)
        row("/bin/true", "ms", [figures.wall_ms(["/bin/true"], work) for _ in range(arguments.runs)])
        row("pipe --version", "ms", [figures.wall_ms([pipe, "--version"], work) for _ in range(arguments.runs)], 5)
        main_job = figures.main_job(pipe, arguments.runs, work)
        if main_job:
            row("no-op, main job: pipe", "ms", main_job, 12)
        else:
            print("no-op, main job: not measured, PIPE_TEST_DATA is not set")
        for n_stages in map(int, arguments.stages.split(",")):
            for name, times in noop(arguments, runners, n_stages, work).items():
                row(f"no-op, {n_stages} stages: {name}", "ms", times, limits.get(n_stages) if name == "pipe" else None)
            plan = figures.peak_mb([pipe, "plan", "pipeline.yaml"], work / f"pipe-{n_stages}")
            row(f"peak memory, plan of {n_stages} stages: pipe", "MB", plan, 50 if n_stages == 10000 else None)
        tiny = figures.tiny_stages(pipe, work, min(arguments.runs, 5))
        for what in ("spawn of the command", "executed tiny stage", "its syncs"):
            row(what, "ms", tiny[what])
        row("  of it the runner, less spawn and syncs", "ms", tiny["runner"], 0.5)
        large = figures.large_input(pipe, work, arguments.bytes)
        row("bytes read of an unchanged large input", "B", large["bytes_read"], 0)
        row("touched large input: re-hashed (times read)", "", large["times_read"], 1)
        row("touched large input: stages that ran", "", large["n_ran"], 0)
        row("touched large input: run", "ms", large["touched_ms"])
        if b3sum:
            hashing = figures.b3sum(b3sum, large["file"], 3)
            row("b3sum of the large input", "ms", hashing)
            # 90 % of its speed: 1 / 0.9 of its time, and what a run with nothing to do takes.
            row("hashing, time beside b3sum", "x", large["touched_ms"] / statistics.median(hashing), 1 / 0.9)
    if missed:
        sys.exit(f"\nmissed: {'; '.join(missed)}")
    print("\nevery limit is kept")


if __name__ == "__main__":
    main()
