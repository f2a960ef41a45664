//! `matrix:`: stages with a value for each combination of variables.

use crate::sandbox::Sandbox;

/// `rows` and `text` are before the first use, `tuned` uses a variable, `told` and `last` follow from it.
const STAGES: &str = "
  rows:  { uses: make, with: { value: hello } }
  text:  { uses: change, inputs: { rows: rows }, with: { suffix: '!' } }
  tuned: { uses: change, inputs: { rows: text }, with: { suffix: ' ${{ matrix.lr }}' } }
  told:  { uses: change, inputs: { rows: tuned.rows }, with: { suffix: ' said' }, to: 'out/${{ matrix.lr }}' }
";

fn sandbox(matrix: &str, stages: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    write(&sandbox, matrix, stages);
    sandbox
}

fn write(sandbox: &Sandbox, matrix: &str, stages: &str) {
    sandbox.write("p.yaml", &format!("version: 1\nmatrix: {matrix}\nstages:\n{stages}"));
}

#[test]
fn what_is_before_the_first_use_runs_once_and_a_new_value_runs_what_is_new() {
    let sandbox = sandbox("{ lr: [1e-4, 2e-4] }", STAGES);
    screen!(sandbox.pipe("plan p.yaml"), @r"
    exit code: 0
    ----- stdout
    rows             make    run      never made with these settings and inputs
    text             change  pending  depends on what `rows` gives
    tuned@lr=0.0001  change  pending  depends on what `text` gives
    tuned@lr=0.0002  change  pending  depends on what `text` gives
    told@lr=0.0001   change  pending  depends on what `tuned@lr=0.0001` gives
    told@lr=0.0002   change  pending  depends on what `tuned@lr=0.0002` gives
    6 stages: 1 run, 5 pending
    how long this takes and how much it adds to the store is not known: none of it ran here before
    ----- stderr
    ");
    assert_eq!(
        sandbox.outcomes("run p.yaml"),
        "rows ran, text ran, told@lr=0.0001 ran, told@lr=0.0002 ran, tuned@lr=0.0001 ran, tuned@lr=0.0002 ran"
    );
    assert_eq!(sandbox.read("out/0.0002/rows/value.txt"), "hello! 0.0002 said");
    write(&sandbox, "{ lr: [5e-5, 2e-4, 1e-4] }", STAGES);
    assert_eq!(
        sandbox.outcomes("run p.yaml"),
        "rows reused, text reused, told@lr=0.00005 ran, told@lr=0.0001 reused, told@lr=0.0002 reused, \
         tuned@lr=0.00005 ran, tuned@lr=0.0001 reused, tuned@lr=0.0002 reused"
    );
}

#[test]
fn a_diamond_over_two_variables_joins_equal_combinations() {
    let sandbox = sandbox(
        "{ lr: [1, 2], r: [8, 16], exclude: [{ lr: 2, r: 16 }] }",
        "
  left:  { uses: make, with: { value: 'lr ${{ matrix.lr }} ' } }
  right: { uses: make, with: { value: 'r ${{ matrix.r }}' } }
  both:  { uses: join, inputs: { rows: left, more: right } }
",
    );
    assert_eq!(
        sandbox.outcomes("run p.yaml"),
        "both@lr=1,r=16 ran, both@lr=1,r=8 ran, both@lr=2,r=8 ran, left@lr=1 ran, left@lr=2 ran, \
         right@r=16 ran, right@r=8 ran"
    );
    assert_eq!(sandbox.pipe("show both@lr=1,r=16").out, "rows, 5 rows: lr 1 r 16\n");
}

#[test]
fn one_instance_is_named_and_a_stage_stands_for_all() {
    let stages = "
  tuned: { uses: make, with: { value: 'lr ${{ matrix.lr }}' } }
  best:  { uses: change, inputs: { rows: 'tuned@lr=0.5.rows' } }
";
    let sandbox = sandbox("{ lr: [0.5, 1] }", stages);
    assert_eq!(sandbox.outcomes("run p.yaml --until tuned"), "tuned@lr=0.5 ran, tuned@lr=1 ran");
    assert_eq!(sandbox.outcomes("run p.yaml"), "best ran, tuned@lr=0.5 reused, tuned@lr=1 reused");
    let forced = "best reused, tuned@lr=0.5 ran, tuned@lr=1 ran";
    assert_eq!(sandbox.outcomes("run p.yaml --force tuned"), forced);
    assert_eq!(sandbox.outcomes("run p.yaml --until tuned@lr=1"), "tuned@lr=1 reused");
    assert_eq!(sandbox.pipe("verify --stage tuned").code, 0);
    assert_eq!(sandbox.pipe("show p.yaml tuned@lr=0.5.rows").out, "rows, 5 rows: lr 0.5\n");
    assert_eq!(sandbox.pipe("get p.yaml tuned@lr=1 --to got").code, 0);
    screen!(sandbox.pipe("show p.yaml tuned"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[several-instances]: `tuned` stands for 2 stages, one for each combination of its matrix
    help: name one: `tuned@lr=0.5`, `tuned@lr=1`
    ");
    screen!(sandbox.pipe("explain p.yaml tuned@lr=1"), @r"
    exit code: 0
    ----- stdout
    tuned@lr=1    make    reuse
                  nothing in its key changed since run [run]
    ----- stderr
    ");
    screen!(sandbox.pipe("run p.yaml --until tuned@lr=2"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-stage]: `[dir]/p.yaml` has no stage `tuned@lr=2`
    help: did you mean `tuned@lr=1`?
    ");
}

#[test]
fn logs_of_an_instance() {
    let sandbox =
        sandbox("{ lr: [0.5, 1] }", "  tuned: { uses: make, with: { value: 'lr ${{ matrix.lr }}', label: l } }\n");
    sandbox.behave("l", "fail");
    assert_eq!(sandbox.pipe("run p.yaml --threads 1 --keep-going").code, 1);
    let output = sandbox.pipe("logs tuned@lr=0.5");
    assert!(output.out.starts_with("reading row 1\n"), "{}", output.err);
    screen!(sandbox.pipe("logs tuned"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[several-instances]: `tuned` stands for 2 stages, one for each combination of its matrix
    help: name one: `tuned@lr=0.5`, `tuned@lr=1`
    ");
    assert_eq!(sandbox.pipe("report --out r.html").code, 0);
    assert!(sandbox.read("r.html").contains("tuned@lr=0.5"));
}

#[test]
fn a_stage_has_a_matrix_of_its_own() {
    let sandbox = Sandbox::with_stages(
        "
  rows:  { uses: make, with: { value: hello } }
  tuned:
    uses: change
    matrix: { include: [{ lr: 1, note: low }, { lr: 9, note: high }] }
    inputs: { rows: rows }
    with: { suffix: ' ${{ matrix.note }}' }
  told:  { uses: change, inputs: { rows: tuned }, with: { suffix: ' at ${{ matrix.lr }}' } }
",
    );
    assert_eq!(sandbox.pipe("run p.yaml").code, 0);
    assert_eq!(sandbox.pipe("show told@lr=9,note=high").out, "rows, 5 rows: hello high at 9\n");
    let outcomes = sandbox.outcomes("run p.yaml --set stages.told.with.suffix=other");
    assert!(outcomes.starts_with("rows reused, told@lr=1,note=low ran, told@lr=9,note=high ran, tuned"), "{outcomes}");
    assert!(outcomes.ends_with("tuned@lr=1,note=low reused, tuned@lr=9,note=high reused"), "{outcomes}");
}
