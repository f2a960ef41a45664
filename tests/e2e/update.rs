//! `pipe update`: asks again.

use crate::kinds::{n_questions, set_remote};
use crate::sandbox::Sandbox;

#[test]
fn it_asks_again_and_the_next_run_follows() {
    set_remote("moving", "aaaa");
    let sandbox = Sandbox::with_stages(
        "
  rows: { uses: remote, with: { value: moving } }
  same: { uses: remote, with: { value: moving, suffix: x } }
  text: { uses: change, inputs: { rows: rows } }
",
    );
    screen!(sandbox.pipe("update p.yaml"), @r"
    exit code: 0
    ----- stdout
    things/moving@main: aaaa
    1 remote source, 1 changed
    ----- stderr
    ");
    sandbox.outcomes("run p.yaml");
    assert_eq!(n_questions("moving"), 1);
    set_remote("moving", "bbbb");
    screen!(sandbox.pipe("update p.yaml"), @r"
    exit code: 0
    ----- stdout
    things/moving@main: aaaa -> bbbb
    1 remote source, 1 changed
    ----- stderr
    ");
    screen!(sandbox.pipe("update p.yaml"), @r"
    exit code: 0
    ----- stdout
    things/moving@main: bbbb, unchanged
    1 remote source, 0 changed
    ----- stderr
    ");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows ran, same ran, text ran");
    assert_eq!(n_questions("moving"), 3);
}

#[test]
fn an_unknown_name_is_an_error() {
    let sandbox = Sandbox::with_stages("  rows: { uses: remote, with: { value: nobody } }\n");
    screen!(sandbox.pipe("update p.yaml"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    error[not-found]: stage `rows`: there is no `nobody` on the hub
    help: look for its name
    ");
}
