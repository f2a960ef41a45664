"""The same DAG for each runner: stage i makes one small file; it needs stage i - 1, and every tenth the one ten before.

    s0 -> s1 -> ... -> s9
    s0 -> s10 -> s11 -> ... -> s19
          s10 -> s20 -> ...
"""

import json
import pathlib

def need(number):
    """The stage that a stage waits for; none for the first."""
    if number == 0:
        return None
    return number - 1 if number % 10 else number - 10


def write_pipe(folder, n_stages, tag=""):
    lines = ["version: 1", "stages:"]
    for number in range(n_stages):
        script = f'echo {number} {tag} > \\"$0\\"'
        lines += [
            f"  s{number}:",
            "    uses: command",
            "    outputs: { o: file }",
            f'    with: {{ run: [/bin/sh, -c, "{script}", "${{{{ outputs.o }}}}"] }}',
        ]
        if need(number) is not None:
            lines.append(f"    inputs: {{ i: s{need(number)} }}")
    (folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")


def write_ninja(folder, n_stages):
    lines = ["rule make", "  command = echo $number > $out"]
    for number in range(n_stages):
        before = f" s{need(number)}" if need(number) is not None else ""
        lines += [f"build s{number}: make{before}", f"  number = {number}"]
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")


def write_snakemake(folder, n_stages):
    outputs = ", ".join(f'"s{number}"' for number in range(n_stages))
    lines = ["rule all:", f"    input: {outputs}"]
    for number in range(n_stages):
        lines += [f"rule r{number}:"]
        if need(number) is not None:
            lines.append(f'    input: "s{need(number)}"')
        lines += [f'    output: "s{number}"', f'    shell: "echo {number} > {{output}}"']
    (folder / "Snakefile").write_text("\n".join(lines) + "\n")


def write_dvc(folder, n_stages):
    stages = {}
    for number in range(n_stages):
        stage = {"cmd": f"echo {number} > s{number}", "outs": [f"s{number}"]}
        if need(number) is not None:
            stage["deps"] = [f"s{need(number)}"]
        stages[f"r{number}"] = stage
    # JSON is YAML.
    pathlib.Path(folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
