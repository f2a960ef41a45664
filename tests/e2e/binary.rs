//! The real binary: help, version, usage, pipes.

use std::process::Command;

/// `pipe ARGUMENTS` without anything of the surroundings.
fn pipe(arguments: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(arguments.split_whitespace())
        .env_clear()
        .output()
        .expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    let code = output.status.code().expect("it is not killed");
    format!("exit code: {code}\n----- stdout\n{}----- stderr\n{}", text(output.stdout), text(output.stderr))
}

#[test]
fn help() {
    insta::assert_snapshot!(pipe("--help"), @r"
    exit code: 0
    ----- stdout
    A declarative pipeline runner for fine-tuning language models

    Usage: pipe [OPTIONS] <COMMAND>

    Commands:
      run          Run a pipeline: what was made before is reused
      plan         Show what a run would do, and why
      explain      Say why a stage runs or is reused, compared with the last run
      verify       Run stages again and compare: the same bytes, or what differs first
      check        Check pipeline files
      graph        Draw the stages and what flows between them
      stages       List the stage kinds, or describe one
      schema       Print a JSON Schema of pipeline files, for editors
      show         Look into the outputs of a stage
      get          Copy the outputs of a stage out of the store
      logs         Print what a stage said while it ran
      runs         List runs, or show one again
      diff         Compare two runs: settings, facts and outputs
      report       Write a run as one HTML file: what ran, when, and what it gave
      trace        Write a run as a trace for ui.perfetto.dev: what ran beside what
      update       Ask again what names such as `main` stand for, and write the lock file
      bench        Measure this machine, and training on it
      doctor       Look for what can be wrong on this machine
      cache        Look after the store
      completions  Print a script with which a shell completes commands and options
      man          Print the manual page, or write one for each command
      help         Print this message or the help of the given subcommand(s)

    Options:
          --store <DIR>   The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>  When to use colours: auto, always, never
      -h, --help          Print help
      -V, --version       Print version

    Environment: PIPE_STORE, PIPE_THREADS, NO_COLOR, CLICOLOR_FORCE, CI
    Exit codes: 0 ok, 1 a stage failed, 2 pipeline or usage, 3 the lock file does not fit, 4 verify
    found other bytes, 70 a mistake in pipe, 130 interrupted
    ----- stderr
    ");
}

#[test]
fn help_of_run() {
    insta::assert_snapshot!(pipe("run --help"), @r"
    exit code: 0
    ----- stdout
    Run a pipeline: what was made before is reused

    Usage: pipe run [OPTIONS] <FILE>

    Arguments:
      <FILE>  The pipeline file

    Options:
          --profile <NAME>     Lay a profile of the file over it
          --set <KEY=VALUE>    Set a variable or a setting: vars.model=ID, stages.adapter.with.lora.r=8
          --threads <N>        Threads for all stages together [env: PIPE_THREADS] [default: all]
          --locked             Refuse to run where the lock file does not fit the pipeline, and leave it
                               as it is
          --numerics <WHICH>   Reuse artifacts of any compute class, or of this one exactly: any, exact
          --force <STAGE>      Run this stage although it was made before; can be given again
          --until <STAGE>      Make only this stage and what it needs; can be given again
          --from <STAGE>       Make only this stage, what needs it, and what those need; can be given
                               again
          --keep-going         After a failure, go on with the stages that do not need the failed one
          --watch              Run again whenever the pipeline file or a local file that a stage reads
                               changes, until Ctrl-C
          --time-limit <TIME>  Stop as Ctrl-C does after that long: 90s, 30m, 1h30m
          --memory <SIZE>      Memory for all stages together, and for each [default: what is free]
          --no-space-check     Start although the disk will not hold what the run is predicted to write
          --json               Write events as JSON Lines to standard output
          --store <DIR>        The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>       When to use colours: auto, always, never
      -h, --help               Print help
    ----- stderr
    ");
}

#[test]
fn help_of_bench() {
    insta::assert_snapshot!(pipe("bench --help"), @r"
    exit code: 0
    ----- stdout
    Measure this machine, and training on it

    Usage: pipe bench [OPTIONS] <COMMAND>

    Commands:
      peak   Multiply and add as fast as the machine can: its f32 peak, on one thread and on all
      gemm   Multiply with each matrix of a model: forward, gradient in the input, gradient of the
             weight
      train  Take optimizer steps on random tokens, by the code of the stage kind `train`
      help   Print this message or the help of the given subcommand(s)

    Options:
          --store <DIR>   The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>  When to use colours: auto, always, never
      -h, --help          Print help
    ----- stderr
    ");
    insta::assert_snapshot!(pipe("bench peak --help"), @r"
    exit code: 0
    ----- stdout
    Multiply and add as fast as the machine can: its f32 peak, on one thread and on all

    Usage: pipe bench peak [OPTIONS]

    Options:
          --threads <N>   Threads [env: PIPE_THREADS] [default: all]
          --json          Write one JSON object
          --store <DIR>   The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>  When to use colours: auto, always, never
      -h, --help          Print help
    ----- stderr
    ");
    insta::assert_snapshot!(pipe("bench gemm --help"), @r"
    exit code: 0
    ----- stdout
    Multiply with each matrix of a model: forward, gradient in the input, gradient of the weight

    Usage: pipe bench gemm [OPTIONS] --model <DIR>

    Options:
          --model <DIR>      The model: a folder with config.json and *.safetensors
          --length <TOKENS>  Rows that are multiplied with; fewer where the product would be larger than
                             64 MiB [default: 1024]
          --threads <N>      Threads [env: PIPE_THREADS] [default: all]
          --json             Write one JSON object
          --store <DIR>      The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>     When to use colours: auto, always, never
      -h, --help             Print help
    ----- stderr
    ");
    insta::assert_snapshot!(pipe("bench train --help"), @r"
    exit code: 0
    ----- stdout
    Take optimizer steps on random tokens, by the code of the stage kind `train`

    Usage: pipe bench train [OPTIONS] --model <DIR>

    Options:
          --model <DIR>             The model: a folder with config.json and *.safetensors
          --batch <N>               Packs of an optimizer step [default: 4]
          --length <TOKENS>         Tokens of a pack [default: 1024, or what the file of --ids has]
          --steps <N>               Optimizer steps that count [default: 5]
          --lora-r <R>              Rank of a fresh adapter, alpha is twice that [default: 16]
          --target-modules <NAMES>  Modules with an adapter, commas between them, or all-linear
                                    [default: PEFT's for the model]
          --lora-dropout <P>        Probability of dropout on the adapter's input [default: 0]
          --adapter <DIR>           Start from the adapter in this folder
          --full                    Train every weight instead of an adapter
          --documents <TOKENS>      Tokens of a document; documents do not see each other [default: one
                                    document a pack]
          --supervised <SHARE>      Share of the tokens that are supervised, at the end of each document
                                    [default: 1]
          --ids <FILE>              Take packs from a safetensors file: input_ids (N, T), and labels,
                                    position_ids, doc_ids, attention_mask if they are there
          --seed <SEED>             Seed of random tokens, of a fresh adapter and of dropout [default:
                                    42]
          --engine <ENGINE>         native or candle [default: auto, as the stage kind `train`]
          --memory <SIZE>           Most memory to take, such as 900MiB: more is recomputed then
                                    [default: what is free]
          --threads <N>             Threads [env: PIPE_THREADS] [default: all]
          --json                    Write one JSON object
          --store <DIR>             The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>            When to use colours: auto, always, never
      -h, --help                    Print help

    One optimizer step warms up and is not counted; times and rates are medians of the others.
    Exit codes: 0 ok, 1 an optimizer step failed, 2 nothing could be measured, 130 interrupted
    ----- stderr
    ");
}

#[test]
fn help_of_the_others() {
    insta::assert_snapshot!(pipe("plan --help"), @r"
    exit code: 0
    ----- stdout
    Show what a run would do, and why

    Usage: pipe plan [OPTIONS] [FILE]

    Arguments:
      [FILE]  The pipeline file [default: that of the last run]

    Options:
          --profile <NAME>    Lay a profile of the file over it
          --set <KEY=VALUE>   Set a variable or a setting: vars.model=ID, stages.adapter.with.lora.r=8
          --locked            Fail where the lock file does not fit the pipeline
          --numerics <WHICH>  Reuse artifacts of any compute class, or of this one exactly: any, exact
          --until <STAGE>     Only this stage and what it needs; can be given again
          --from <STAGE>      Only this stage, what needs it, and what those need; can be given again
          --why               Say below each stage what changed since the last run
          --json              Write JSON
          --store <DIR>       The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>      When to use colours: auto, always, never
      -h, --help              Print help
    ----- stderr
    ");
    insta::assert_snapshot!(pipe("check --help"), @r"
    exit code: 0
    ----- stdout
    Check pipeline files

    Usage: pipe check [OPTIONS] <FILE>...

    Arguments:
      <FILE>...  The pipeline files

    Options:
          --profile <NAME>   Lay a profile of the file over it
          --set <KEY=VALUE>  Set a variable or a setting: vars.model=ID, stages.adapter.with.lora.r=8
          --json             Write the problems as JSON, one object for each file
          --store <DIR>      The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>     When to use colours: auto, always, never
      -h, --help             Print help
    ----- stderr
    ");
    insta::assert_snapshot!(pipe("graph --help"), @r"
    exit code: 0
    ----- stdout
    Draw the stages and what flows between them

    Usage: pipe graph [OPTIONS] [FILE]

    Arguments:
      [FILE]  The pipeline file [default: that of the last run]

    Options:
          --profile <NAME>   Lay a profile of the file over it
          --set <KEY=VALUE>  Set a variable or a setting: vars.model=ID, stages.adapter.with.lora.r=8
          --format <FORMAT>  text, dot or mermaid [default: text]
          --json             Write JSON
          --store <DIR>      The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>     When to use colours: auto, always, never
      -h, --help             Print help
    ----- stderr
    ");
    insta::assert_snapshot!(pipe("stages --help"), @r"
    exit code: 0
    ----- stdout
    List the stage kinds, or describe one

    Usage: pipe stages [OPTIONS] [KIND]

    Arguments:
      [KIND]  One stage kind

    Options:
          --json          Write JSON
          --store <DIR>   The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>  When to use colours: auto, always, never
      -h, --help          Print help
    ----- stderr
    ");
    insta::assert_snapshot!(pipe("show --help"), @r"
    exit code: 0
    ----- stdout
    Look into the outputs of a stage

    Usage: pipe show [OPTIONS] [FILE] STAGE[.PORT]

    Arguments:
      <STAGE[.PORT]>...  The pipeline file (default: that of the last run), then the stage

    Options:
          --profile <NAME>   Lay a profile of the file over it
          --set <KEY=VALUE>  Set a variable or a setting: vars.model=ID, stages.adapter.with.lora.r=8
      -n, --rows <ROWS>      Rows to show [default: 5]
          --json             Write JSON
          --store <DIR>      The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>     When to use colours: auto, always, never
      -h, --help             Print help
    ----- stderr
    ");
    insta::assert_snapshot!(pipe("report --help"), @r"
    exit code: 0
    ----- stdout
    Write a run as one HTML file: what ran, when, and what it gave

    Usage: pipe report [OPTIONS] [RUN]

    Arguments:
      [RUN]  The id of the run, or how it begins [default: the last run]

    Options:
          --out <FILE>    Where to write it, `-` for standard output [default: report.html in the run's
                          folder]
          --json          Write JSON
          --store <DIR>   The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>  When to use colours: auto, always, never
      -h, --help          Print help
    ----- stderr
    ");
    insta::assert_snapshot!(pipe("update --help"), @r"
    exit code: 0
    ----- stdout
    Ask again what names such as `main` stand for, and write the lock file

    Usage: pipe update [OPTIONS] <FILE>

    Arguments:
      <FILE>  The pipeline file

    Options:
          --profile <NAME>   Lay a profile of the file over it
          --set <KEY=VALUE>  Set a variable or a setting: vars.model=ID, stages.adapter.with.lora.r=8
          --json             Write JSON
          --store <DIR>      The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>     When to use colours: auto, always, never
      -h, --help             Print help
    ----- stderr
    ");
    insta::assert_snapshot!(pipe("cache --help"), @r"
    exit code: 0
    ----- stdout
    Look after the store

    Usage: pipe cache [OPTIONS] <COMMAND>

    Commands:
      path    Print the store's folder
      size    Print how large the store is, by what is in it
      verify  Read every file of the store again; what is corrupt is set aside and made again by the
              next run
      gc      Remove what no lock file, recent run or pin keeps; without --yes only say what would be
              removed
      pin     Keep the artifacts of a run, or of one fingerprint, from gc; without an argument, list the
              pins
      unpin   Remove a pin
      help    Print this message or the help of the given subcommand(s)

    Options:
          --json          Write JSON
          --store <DIR>   The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>  When to use colours: auto, always, never
      -h, --help          Print help
    ----- stderr
    ");
}

#[test]
fn gc_says_what_it_keeps() {
    insta::assert_snapshot!(pipe("cache gc --help"), @r"
    exit code: 0
    ----- stdout
    Remove what no lock file, recent run or pin keeps; without --yes only say what would be removed

    Usage: pipe cache gc [OPTIONS]

    Options:
          --keep-runs <N>    Keep the artifacts of the newest N runs [default: 10]
          --max-size <SIZE>  Remove the longest unused first, and only until the store is no larger than
                             this, such as 20GB
          --yes              Remove it
          --json             Write JSON
          --store <DIR>      The store's folder [env: PIPE_STORE] [default: .pipe]
          --color <WHEN>     When to use colours: auto, always, never
      -h, --help             Print help

    Kept are the artifacts that a lock file beside the pipeline file of any run names, those of the
    newest runs, those that are pinned, and what running pipelines use. Manifests stay: what is removed
    is made again only when a stage that runs needs it.
    ----- stderr
    ");
}

#[test]
fn a_wrong_command_is_a_usage_error() {
    insta::assert_snapshot!(pipe("rum"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error: unrecognized subcommand 'rum'

      tip: some similar subcommands exist: 'runs', 'run'

    Usage: pipe [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn a_missing_file_is_named() {
    insta::assert_snapshot!(pipe("check nowhere.yaml"), @r"
    exit code: 2
    ----- stdout
    error[unreadable-file]: failed to read `nowhere.yaml`: No such file or directory (os error 2)

    nowhere.yaml: 1 problem
    ----- stderr
    ");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(["cache", "path"])
        .env_clear()
        .stdout(writer)
        .output()
        .expect("the binary starts");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
