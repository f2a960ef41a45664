#!/usr/bin/env python3
"""`pipe bench train` beside PyTorch + PEFT: the same model, the same ids, on the same machine, in turn.

    python3 compare.py --pipe ../../target/release/pipe --model SMOLLM2 --rows qv,all-linear,full

For each row of the table:

1. check     loss and gradient norm of one optimizer step, without dropout, differ by less than 1e-3 (relative), or the row is refused;
2. search    PyTorch with each micro-batch x mode (and layout), one optimizer step to warm up and one that counts;
3. measure   its fastest and its smallest setting in turn with ours, `--rounds` times `--steps` optimizer steps that count.

Every measurement is a process of its own, ours too; memory is the largest resident set of each (VmHWM). What was measured is kept in
WORK/measured.json, so a run that was stopped goes on where it was; delete the file to measure anew. README.md has the rest.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import inputs

HERE = Path(__file__).resolve().parent
MODES = ["plain", "chunked", "checkpointing", "both", "compile"]
TOLERANCE = 1e-3  # As issue 4 asks: float32 on both sides, other orders of additions.
Q_AND_V = ["q_proj", "v_proj"]
# Title, what is trained, targets, layouts of PyTorch, where rows come from.
ROWS = {
    "qv": ("full causal rows, LoRA on q and v", "lora", Q_AND_V, ["rows"], "random"),
    "all-linear": ("full causal rows, LoRA on all linear modules", "lora", ["all-linear"], ["rows"], "random"),
    "full": ("full causal rows, full fine-tuning", "full", [], ["rows"], "random"),
    "real": ("real Alpaca rows, LoRA on q and v", "lora", Q_AND_V, ["packed", "padded"], "alpaca"),
    "stories": ("stories260K, LoRA on q and v", "lora", Q_AND_V, ["rows"], "random"),
    "tinyllama": ("1.1B (TinyLlama's shape, random weights), LoRA on q and v", "lora", Q_AND_V, ["rows"], "random"),
}  # fmt: skip


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipe", type=Path, required=True, help="the binary, built with --release")
    parser.add_argument("--model", type=Path, required=True, help="a model folder: SmolLM2-135M for the figures of the README")
    parser.add_argument("--rows", default="qv,all-linear,full", help="of " + ",".join(ROWS))
    parser.add_argument("--alpaca", type=Path, help="folder of Parquet files with a column `text`, for the row `real`")
    parser.add_argument("--stories", type=Path, help="a model folder, for the row `stories`")
    parser.add_argument("--batch", type=int, default=4, help="rows of an optimizer step (`tinyllama`: always 1)")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a row (`stories`: at most 512)")
    parser.add_argument("--lora-r", type=int, default=16)
    parser.add_argument("--lora-dropout", type=float, default=0.05)
    parser.add_argument("--micro-batches", default="1,2,4", help="of PyTorch")
    parser.add_argument("--modes", default=",".join(MODES), help="of PyTorch")
    parser.add_argument("--rounds", type=int, default=5, help="each side in turn, so often")
    parser.add_argument("--steps", type=int, default=1, help="optimizer steps that count, in each round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--engine", help="of pipe: native or candle")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds for one measurement")
    parser.add_argument("--work", type=Path, default=Path("pytorch-bench"), help="for ids, models and what was measured")
    args = parser.parse_args()
    args.pipe, args.model = args.pipe.resolve(), args.model.resolve()
    return args


def main():
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    lines = [bench.row(name) for name in args.rows.split(",")]
    print(bench.table(lines))


class Bench:
    def __init__(self, args):
        self.args = args
        self.path = args.work / "measured.json"
        self.measured = json.loads(self.path.read_text()) if self.path.exists() else {}
        names = ("model", "batch", "length", "lora_r", "lora_dropout", "threads", "engine", "steps")
        arguments = {name: str(getattr(args, name)) for name in names}
        if self.measured.setdefault("arguments", arguments) != arguments:
            sys.exit(f"compare.py: {self.path} was measured with {self.measured['arguments']}: name another --work")
        self.peak = self.once("peak", lambda: self.pipe(["peak", "--threads", str(args.threads)]))

    # A row

    def row(self, name):
        title, method, targets, layouts, source = ROWS[name]
        model, length, batch = self.place(name)
        ids, check_ids = self.ids(name, model, length, batch, source)
        say(f"{title}: {batch} rows of {length} tokens an optimizer step")
        common = {
            "model": str(model), "method": method, "target_modules": targets, "lora_r": self.args.lora_r, "threads": self.args.threads,
        }  # fmt: skip
        self.check(name, common, check_ids, layouts)
        common |= {"ids": str(ids), "batch": batch, "lora_dropout": self.args.lora_dropout}
        settings = self.search(name, common, layouts)
        if not settings:
            sys.exit(f"compare.py: no setting of PyTorch did an optimizer step on `{name}`")
        rate = lambda key: settings[key]["n_tokens"][0] / settings[key]["seconds"][0]
        fastest = max(settings, key=rate)
        smallest = min(settings, key=lambda key: settings[key]["peak_rss_mib"])
        sides = {"ours": None} | {key: json.loads(key) for key in dict.fromkeys([fastest, smallest])}
        results = {side: [] for side in sides}
        for round_idx in range(self.args.rounds):
            for side, setting in sides.items():
                key = f"{name} round {round_idx} of {self.args.steps} {side}"
                request = common | {"n_steps": self.args.steps} | (setting or {})
                work = (lambda r=request: self.ours(r)) if setting is None else (lambda r=request: self.theirs(r))
                results[side].append(self.once(key, work))
        return title, summary(results["ours"]), (fastest, summary(results[fastest])), (smallest, summary(results[smallest]))

    def place(self, name):
        """Model folder, tokens of a row, rows of an optimizer step."""
        args = self.args
        if name == "stories":
            if not args.stories:
                sys.exit("compare.py: the row `stories` needs --stories DIR")
            return args.stories, min(args.length, 512), args.batch
        if name == "tinyllama":
            folder = args.work / "tinyllama"
            inputs.random_model(folder, inputs.TINYLLAMA)
            return folder, args.length, 1
        return args.model, args.length, args.batch

    def ids(self, name, model, length, batch, source):
        """Files of rows: for measuring, and one row for the check."""
        n_rows = batch * (1 + self.args.steps)
        path = self.args.work / f"{name}-{length}-{n_rows}.safetensors"
        check = self.args.work / f"{name}-check-{length}.safetensors"
        if source == "alpaca":
            if not self.args.alpaca:
                sys.exit("compare.py: the row `real` needs --alpaca DIR")
            found = inputs.alpaca_ids(path, model, self.args.alpaca, length)
            say(f"{found[0]} documents in {found[1]} rows")
            return path, path
        vocab_size = json.loads((model / "config.json").read_text())["vocab_size"]
        inputs.random_ids(path, vocab_size, n_rows, length)
        inputs.random_ids(check, vocab_size, 1, length)
        return path, check

    def check(self, name, common, ids, layouts):
        """Both sides compute the same thing."""
        adapter = None
        if common["method"] == "lora":
            adapter = self.args.work / f"{name}-adapter"
            if not adapter.exists():
                inputs.adapter(adapter, common["model"], common["target_modules"], common["lora_r"])
        request = common | {"ids": str(ids), "batch": 1, "lora_dropout": 0.0, "adapter": adapter and str(adapter)}
        ours = self.once(f"{name} check ours", lambda: self.ours(request | {"n_steps": 1}))
        for layout in layouts:
            for mode in ("plain", "chunked"):
                setting = {"layout": layout, "mode": mode, "micro_batch": 1, "n_steps": 0}
                theirs = self.once(f"{name} check {layout} {mode}", lambda: self.theirs(request | setting))
                for field in ("loss", "grad_norm"):
                    difference = abs(ours[field] / theirs[field] - 1)
                    say(f"check, {layout}, {mode}: {field} {ours[field]:.6f} and {theirs[field]:.6f}, differ by {difference:.1e}")
                    if not difference < TOLERANCE:
                        sys.exit(f"compare.py: `{name}`: the two sides do not compute the same {field}")

    def search(self, name, common, layouts):
        """What PyTorch does with each setting, by the setting as JSON; what fails or is killed is said and left out."""
        found = {}
        for layout in layouts:
            for micro_batch in map(int, self.args.micro_batches.split(",")):
                if micro_batch > common["batch"]:
                    continue
                for mode in self.args.modes.split(","):
                    setting = {"layout": layout, "micro_batch": micro_batch, "mode": mode}
                    result = self.once(
                        f"{name} search {json.dumps(setting)}", lambda: self.theirs(common | setting | {"n_steps": 1}, may_fail=True)
                    )
                    if "error" not in result:
                        found[json.dumps(setting)] = result
        return found

    # A measurement

    def once(self, key, work):
        """What `work` measures, or did in an earlier run of the same arguments."""
        if key in self.measured:
            return self.measured[key]
        result = work()
        self.measured[key] = result
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self.measured, indent=1) + "\n")
        beside.replace(self.path)
        say(f"{key}: {describe(result)}")
        return result

    def ours(self, request):
        arguments = [
            "train", "--model", request["model"], "--ids", request["ids"], "--batch", str(request["batch"]), "--steps", str(request["n_steps"]),
            "--threads", str(request["threads"]),
        ]  # fmt: skip
        if request["method"] == "full":
            arguments.append("--full")
        else:
            arguments += ["--lora-dropout", str(request["lora_dropout"])]
            if request.get("adapter"):
                arguments += ["--adapter", request["adapter"]]
            else:
                arguments += ["--lora-r", str(request["lora_r"]), "--target-modules", ",".join(request["target_modules"])]
        if self.args.engine:
            arguments += ["--engine", self.args.engine]
        return self.pipe(arguments)

    def pipe(self, arguments):
        command = [str(self.args.pipe), "bench", *arguments, "--json"]
        process = subprocess.run(command, capture_output=True, text=True, timeout=self.args.timeout)
        if process.returncode != 0:
            sys.exit(f"compare.py: {' '.join(command)} failed:\n{process.stderr}")
        return json.loads(process.stdout)

    def theirs(self, request, may_fail=False):
        command = [sys.executable, str(HERE / "measure.py"), json.dumps(request)]
        environment = os.environ | {"OMP_NUM_THREADS": str(request["threads"])}
        try:
            process = subprocess.run(command, capture_output=True, text=True, timeout=self.args.timeout, env=environment)
            error = None if process.returncode == 0 else f"exit code {process.returncode}: {process.stderr[-500:]}"
        except subprocess.TimeoutExpired:
            error = f"no result in {self.args.timeout} s"
        if error is None:
            return json.loads(process.stdout.splitlines()[-1])
        if not may_fail:
            sys.exit(f"compare.py: measure.py failed: {error}")
        return {"error": error}

    # The table

    def table(self, lines):
        peak = self.peak["peak_gflops"]
        cpu, memory = machine()
        of = lambda part: f"{part['rate']:,.1f} tokens/s, {part['mib']:,.0f} MiB"
        text = [
            f"Measured {datetime.date.today()} on {cpu}, {self.args.threads} threads, {memory:.0f} GB of memory, f32 peak {peak:.0f} GFLOP/s, "
            f"{platform.system()} {platform.release()}; {self.version()}, torch {version('torch')}, transformers {version('transformers')}, "
            f"peft {version('peft')}, Python {platform.python_version()}. {self.args.rounds} rounds of {self.args.steps}, medians.",
            "",
            "| what | pipe | of the peak | PyTorch, fastest | PyTorch, smallest | faster than fastest | memory of fastest | faster than smallest | memory of smallest |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for title, ours, (fastest, fast), (smallest, small) in lines:
            text.append(
                f"| {title} | {of(ours)} | {100 * ours['share']:.0f} % | {of(fast)} ({setting_name(fastest)}) | {of(small)} ({setting_name(smallest)}) "
                f"| {ours['rate'] / fast['rate']:.2f} x | {ours['mib'] / fast['mib']:.2f} x | {ours['rate'] / small['rate']:.2f} x "
                f"| {ours['mib'] / small['mib']:.2f} x |"
            )
        return "\n".join(text)

    def version(self):
        return subprocess.run([str(self.args.pipe), "--version"], capture_output=True, text=True, check=True).stdout.strip()


def summary(results):
    """Median rate, largest memory, median share of the peak where it is known."""
    rates = [rate for result in results for rate in rates_of(result)]
    shares = [result["share_of_peak"] for result in results if "share_of_peak" in result]
    return {
        "rate": statistics.median(rates), "mib": max(result["peak_rss_mib"] for result in results),
        "share": statistics.median(shares) if shares else None,
    }  # fmt: skip


def rates_of(result):
    if "tokens_per_second" in result:
        return [result["tokens_per_second"]]
    return [n / seconds for n, seconds in zip(result["n_tokens"], result["seconds"])]


def describe(result):
    if "error" in result:
        return "failed: " + result["error"].strip().splitlines()[-1]
    if "registers_gflops" in result:
        return f"{result['peak_gflops']:.1f} GFLOP/s"
    rates = rates_of(result)
    rate = f"{statistics.median(rates):.1f} tokens/s" if rates else f"loss {result['loss']:.4f}"
    return f"{rate}, {result['peak_rss_mib']:.0f} MiB"


def setting_name(key):
    setting = json.loads(key)
    mode = {"plain": "", "chunked": ", chunked loss", "both": ", chunked loss and checkpointing"}.get(setting["mode"], ", " + setting["mode"])
    layout = "" if setting["layout"] == "rows" else f"{setting['layout']}, "
    return f"{layout}micro-batch {setting['micro_batch']}{mode}"


def machine():
    """Name of the processor and memory in GB."""
    name, memory = platform.processor() or platform.machine(), 0.0
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            memory = int(line.split()[1]) * 1024 / 1e9
    return name, memory


def say(line):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
