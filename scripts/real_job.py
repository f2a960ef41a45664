#!/usr/bin/env python3
"""The main job on the real SmolLM2-135M and real Alpaca rows, measured: what CI is too short for.

    python3 scripts/real_job.py DATA SMOLLM2 [--pipe target/debug/pipe]

DATA is the folder that PIPE_TEST_DATA names (its tools serve a hub on loopback), SMOLLM2 a model folder made by its
tools/fetch_smollm2.py. Runs `pipelines/alpaca.yaml --profile laptop` for two optimizer steps, in turn with 2, 1 and 2 threads, in
fresh stores, and fails (exit code 1) unless

- every artifact has the same digest with 1 and with 2 threads,
- training with 2 threads is at least 1.5 times as fast as with 1,
- the largest resident set (VmHWM) stays below 4 GB,
- a second run executes no stage, asks the hub nothing and ends in 50 ms.

Leave the machine alone while it runs: about five minutes on two cores. Needs the standard library only.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ARGUMENTS = ["run", "pipelines/alpaca.yaml", "--profile", "laptop", "--set", "stages.adapter.with.max_steps=2"]
SPEEDUP_MIN = 1.5
MEMORY_MAX_BYTES = 4e9
NO_OP_MAX_S = 0.050


def start_hub(data, work, smollm2):
    tools = data / "tools"
    subprocess.run([sys.executable, tools / "make_hub_tree.py", work / "hub", "--smollm2", smollm2], check=True)
    port_file = work / "hub.json"
    arguments = [sys.executable, tools / "hub_server.py", "--root", work / "hub", "--port-file", port_file]
    subprocess.Popen([*arguments, "--parent-pid", str(os.getpid())], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not port_file.exists():
        time.sleep(0.05)
    return json.loads(port_file.read_text())["hub"]


def run(pipe, work, n_threads, store):
    """Returns wall seconds, the largest resident set in bytes, and what was printed."""
    started = time.monotonic()
    command = [pipe, *ARGUMENTS, "--threads", str(n_threads), "--store", store]
    process = subprocess.Popen(command, cwd=work, stderr=subprocess.PIPE, text=True)
    printed = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{printed}")
    return seconds, usage.ru_maxrss * 1024, printed


def train_seconds(store):
    """Wall time of the stage `adapter` of the newest run that executed it, from the run's events."""
    for events in sorted(store.glob("runs/*/events.jsonl"), reverse=True):
        for line in events.read_text().splitlines():
            text = json.dumps(json.loads(line))
            if '"adapter"' in text and '"ran"' in text and "duration_ms" in text:
                return find(json.loads(line), "duration_ms") / 1000
    sys.exit(f"no event says how long `adapter` took in {store}")


def find(value, name):
    if isinstance(value, dict):
        if name in value:
            return value[name]
        value = list(value.values())
    if isinstance(value, list):
        return next((found for item in value if (found := find(item, name)) is not None), None)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("smollm2", type=Path)
    parser.add_argument("--pipe", type=Path, default=Path("target/debug/pipe"))
    options = parser.parse_args()
    pipe = options.pipe.resolve()
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copytree(Path(__file__).resolve().parent.parent / "pipelines", work / "pipelines")
        os.environ["HF_ENDPOINT"] = start_hub(options.data.resolve(), work, options.smollm2.resolve())
        os.environ["HF_HOME"] = str(work / "hf")
        seconds, outputs = {1: [], 2: []}, []
        for n_threads in (2, 1, 2):
            store = work / f"store-{len(outputs)}"
            (work / "pipelines/alpaca.lock").unlink(missing_ok=True)
            wall, memory, _ = run(pipe, work, n_threads, store)
            seconds[n_threads].append(train_seconds(store))
            outputs.append(json.loads((work / "pipelines/alpaca.lock").read_text())["outputs"])
            print(f"{n_threads} threads: train {seconds[n_threads][-1]:.1f} s, whole run {wall:.1f} s, VmHWM {memory / 1e9:.2f} GB")
            if memory > MEMORY_MAX_BYTES:
                failures.append(f"VmHWM is {memory / 1e9:.2f} GB")
        if not outputs[0] == outputs[1] == outputs[2]:
            failures.append("digests differ between 1 and 2 threads")
        print(f"digests of {len(outputs[0])} manifests: {'equal' if len(set(map(json.dumps, outputs))) == 1 else 'DIFFERENT'}")
        speedup = seconds[1][0] / (sum(seconds[2]) / len(seconds[2]))
        print(f"2 threads are {speedup:.2f} times as fast as 1 in train")
        if speedup < SPEEDUP_MIN:
            failures.append(f"2 threads are only {speedup:.2f} times as fast as 1")
        log = f"{os.environ['HF_ENDPOINT']}/_control/log"
        urllib.request.urlopen(urllib.request.Request(log, method="DELETE"))
        wall, _, printed = run(pipe, work, 2, work / "store-2")
        n_requests = json.load(urllib.request.urlopen(log.replace("/log", "/stats")))["requests"]
        print(f"again: {wall * 1000:.0f} ms, {n_requests} requests, {printed.splitlines()[0]}")
        if wall > NO_OP_MAX_S or n_requests or "all reused" not in printed:
            failures.append("the second run did something")
    for failure in failures:
        print(f"FAILED: {failure}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
