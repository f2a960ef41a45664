"""What is measured: times, memory, system calls."""

import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

import graphs

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def run(command, folder, **options):
    """Runs it; what it says is shown only where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{command} failed in {folder}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


def wall_ms(command, folder, environment=None):
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    took_ms = (time.perf_counter() - begin) * 1e3
    if done.returncode:
        sys.exit(f"{command} failed in {folder}")
    return took_ms


def peak_mb(command, folder):
    """VmHWM, as the kernel reports it to the parent, in 10^6 bytes."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} failed in {folder}")
    return usage.ru_maxrss * 1024 / 1e6


def main_job(pipe, n_runs, work):
    """The no-op of pipelines/alpaca.yaml against the stand-in for the Hub; None without test data."""
    data = os.environ.get("PIPE_TEST_DATA")
    if not data:
        return None
    tools, hub, port_file = pathlib.Path(data) / "tools", work / "hub", work / "hub.json"
    run([sys.executable, tools / "make_hub_tree.py", hub], work)
    server = subprocess.Popen(
        [sys.executable, tools / "hub_server.py", "--root", hub, "--port-file", port_file],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not port_file.exists() or not port_file.read_text().rstrip().endswith("}"):
            if server.poll() is not None:
                sys.exit("the stand-in for the Hub ended")
            time.sleep(0.05)
        url = re.search(r'"hub":\s*"([^"]+)"', port_file.read_text())[1]
        os.environ.update(HF_ENDPOINT=url, HF_HOME=str(work / "hub-cache"))
        folder = work / "alpaca"
        folder.mkdir()
        (folder / "alpaca.yaml").write_text((REPOSITORY / "pipelines/alpaca.yaml").read_text())
        command = [pipe, "run", "alpaca.yaml"]
        for setting in ("vars.model=karpathy/stories260K", "vars.max_length=512"):
            command += ["--set", setting]
        run(command, folder)
        return [wall_ms(command, folder) for _ in range(n_runs)]
    finally:
        server.terminate()
        server.wait()


def tiny_stages(pipe, work, n_runs, n_stages=200, n_before=1000):
    """Milliseconds per stage of runs in which each is executed, and what of it is not the runner's: the spawn of a command, and waiting
    for the disk in syncs, taken in the same run. The folders of the store are there: a first run makes them."""
    folder = work / "tiny"
    folder.mkdir()
    command = [pipe, "run", "--threads", "1", "pipeline.yaml"]
    graphs.write_pipe(folder, n_before, "first")
    run(command, folder)
    timer, log = folder / "syncs.so", folder / "syncs.log"
    run(["cc", "-O2", "-shared", "-fPIC", "-o", timer, REPOSITORY / "benches/runner/syncs.c", "-ldl"], folder)
    environment = {**os.environ, "LD_PRELOAD": str(timer), "SYNCS_LOG": str(log)}
    times = {"executed tiny stage": [], "spawn of the command": [], "its syncs": [], "runner": []}
    for number in range(n_runs):
        graphs.write_pipe(folder, n_stages, f"run-{number}-")
        log.unlink(missing_ok=True)
        times["spawn of the command"].append(spawn_ms(folder))
        times["executed tiny stage"].append(wall_ms(command, folder, environment) / n_stages)
        # A line of each process that ended.
        n_calls, total_ns = (sum(map(int, column)) for column in zip(*map(str.split, log.read_text().splitlines())))
        # Beside those of the stages: the lock file, and a new folder of the store now and then.
        if not 4 * n_stages <= n_calls <= 4 * n_stages + 100:
            sys.exit(f"{n_calls} syncs for {n_stages} stages")
        times["its syncs"].append(total_ns / 1e6 / n_stages)
        times["runner"].append(
            times["executed tiny stage"][-1] - times["spawn of the command"][-1] - times["its syncs"][-1]
        )
    return times


def spawn_ms(folder, n=100):
    """One /bin/sh that writes a file, as each stage is."""
    return statistics.median(wall_ms(["/bin/sh", "-c", 'echo 1 > "$0"', "spawned"], folder) for _ in range(n))


def large_input(pipe, work, size_bytes):
    """A large local file: read once, then never, then once after `touch`. By strace, where it is installed."""
    folder = work / "large"
    folder.mkdir()
    file = folder / "rows.jsonl"
    row = b'{"instruction": "' + b"a" * 1000 + b'", "input": "", "output": "b"}\n'
    with open(file, "wb") as out:
        while out.tell() < size_bytes:
            out.write(row * 4096)
    (folder / "pipeline.yaml").write_text("version: 1\nstages:\n  rows: { uses: download, with: { dataset: ./rows.jsonl } }\n")
    # The memo believes only what was last written two seconds before it is read.
    os.utime(file, (1e9, 1e9))
    command = [pipe, "run", "pipeline.yaml"]
    run(command, folder)
    unchanged = trace(command, folder, file)
    os.utime(file, (1.1e9, 1.1e9))
    begin = time.perf_counter()
    done = run(command, folder)
    touched_ms = (time.perf_counter() - begin) * 1e3
    os.utime(file, (1.2e9, 1.2e9))
    touched = trace(command, folder, file)
    n_ran = 0 if "reused" in done.stderr else 1
    return {
        "file": file,
        "bytes_read": unchanged * size_bytes,
        "times_read": touched,
        "n_ran": n_ran,
        "touched_ms": touched_ms,
    }


def trace(command, folder, file):
    """How often a file is opened: who never opens it reads no byte of it."""
    log = folder / "strace.log"
    try:
        run(["strace", "-f", "-e", "trace=openat,open", "-o", log, *command], folder)
    except FileNotFoundError:
        sys.exit("strace is not installed")
    return log.read_text().count(f'/{file.name}"')


def b3sum(program, file, n_runs):
    return [wall_ms([program, str(file)], file.parent) for _ in range(n_runs)]
