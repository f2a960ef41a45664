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


def wall_ms(command, folder):
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
    """Milliseconds per stage of runs in which each is executed, and what the machine itself takes: a spawn, and a sync
    of a small file on the same disk. The folders of the store are there: a first run makes them."""
    folder = work / "tiny"
    folder.mkdir()
    command = [pipe, "run", "--threads", "1", "pipeline.yaml"]
    graphs.write_pipe(folder, n_before, "first")
    run(command, folder)
    times = {"one sync": [], "spawn of the command": [], "executed tiny stage": [], "runner": []}
    for number in range(n_runs):
        graphs.write_pipe(folder, n_stages, f"run-{number}-")
        times["one sync"].append(sync_ms(folder))
        times["spawn of the command"].append(spawn_ms(folder))
        times["executed tiny stage"].append(wall_ms(command, folder) / n_stages)
        rest = times["executed tiny stage"][-1] - times["spawn of the command"][-1] - 4 * times["one sync"][-1]
        times["runner"].append(rest)
    return times


def sync_ms(folder, n=100):
    begin = time.perf_counter()
    for number in range(n):
        with open(folder / f"sync-{number}", "wb") as file:
            file.write(b"a few bytes")
            file.flush()
            os.fdatasync(file.fileno())
    return (time.perf_counter() - begin) * 1e3 / n


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
