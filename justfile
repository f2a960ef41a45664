# The developer's commands. `just` lists them; each is one line that can also be typed.

# What is here
default:
    @just --list --unsorted

# Before each commit: formatting, lints, rules, and the runner's own tests (a minute once built)
check: fmt lint tidy quick

# Formats everything
fmt:
    cargo fmt --all

# Lints, with warnings as errors
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# The rules that neither rustfmt nor clippy knows: imports, length, words, the stage table, versions.lock
tidy:
    cargo test --test tidy --test pipelines

# The runner alone, without the stage crates: about 50 crates instead of 180
quick:
    cargo test -p pipe-lm -p pipe-cache -p pipe-contract -p pipe-settings -p pipe-stage-command --no-default-features

# All tests; with PIPE_TEST_DATA set, those on real data too
test:
    cargo test --workspace

# Counts the kernels' instructions under valgrind and compares; `just instructions --update` writes the table
instructions *arguments:
    scripts/count_instructions.py {{arguments}}

# What CI runs, from formatting to a fresh quickstart
ci:
    .ci/run

# Command one of the README
quickstart:
    cargo run -- run pipelines/quickstart.yaml

# Rewrites stages/versions.lock, which acknowledges changed implementations (read stages/README.md first), and its README's table
versions:
    PIPE_UPDATE_VERSIONS=1 cargo test --test tidy -- versions_lock_is the_table_of

# Rewrites the quickstart's rows, the parity fixtures and the goldens of templates; PYTHON must have the packages that the scripts name
fixtures PYTHON="python3":
    python3 pipelines/quickstart/make_rows.py
    {{PYTHON}} scripts/make_parity_fixtures.py
    {{PYTHON}} scripts/make_template_goldens.py

# Loads an exported adapter in the real PEFT and compares its logits with ours
peft ADAPTER BASE LOGITS PYTHON="python3":
    {{PYTHON}} scripts/check_peft.py {{ADAPTER}} {{BASE}} {{LOGITS}}

# The main job on the real SmolLM2-135M: digests and speed with 1 and 2 threads, memory, the second run (five quiet minutes)
real DATA SMOLLM2:
    cargo build
    PIPE_SMOLLM2={{SMOLLM2}} cargo test --workspace --test numbers -- --ignored smollm2
    python3 scripts/real_job.py {{DATA}} {{SMOLLM2}}

# Measures the runner against its limits, and DVC, Snakemake and ninja where they are installed, on a quiet machine; ARGUMENTS: see benches/runner/README.md
bench *ARGUMENTS:
    cargo build --release
    python3 benches/runner/bench.py --pipe target/release/pipe {{ARGUMENTS}}

# Measures PyTorch + PEFT and ours in turn on a quiet machine; PYTHON must have benches/pytorch/requirements.txt; ARGUMENTS: see its README
bench-pytorch MODEL PYTHON="python3" *ARGUMENTS:
    cargo build --release
    {{PYTHON}} benches/pytorch/compare.py --pipe target/release/pipe --model {{MODEL}} {{ARGUMENTS}}

# On a machine with an NVIDIA GPU: parity with the CPU, then training beside PyTorch + PEFT on the same card
bench-gpu PYTHON="python3" *ARGUMENTS:
    cargo build --release --features cuda
    target/release/pipe doctor --device cuda
    {{PYTHON}} benches/pytorch/gpu.py --pipe target/release/pipe {{ARGUMENTS}}

# How long runs take beside the shortest possible: 1,000 seeded graphs, and all of up to 7 stages (a minute or two)
makespan:
    cargo test --workspace --test makespan -- --include-ignored --nocapture

# Runs that are killed at 500 points of a pipeline of commands and 25 of the quickstart, against undisturbed ones (an hour)
kill SEED="1" *ARGUMENTS:
    PIPE_SEED={{SEED}} cargo test --workspace --test kill -- --ignored --nocapture --test-threads 1 {{ARGUMENTS}}

# Training that is killed and interrupted at random for some minutes, against an undisturbed run
resume SEED="100":
    PIPE_SEED={{SEED}} cargo test --workspace --test resume -- --ignored --nocapture
