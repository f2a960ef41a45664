//! `pipe stages`: the table of kinds.

use crate::sandbox::Sandbox;

#[test]
fn the_table_and_one_kind() {
    let sandbox = Sandbox::new();
    screen!(sandbox.pipe("stages"), @r"
    exit code: 0
    ----- stdout
    make     -> rows               writes a value
    change   rows -> rows          changes a text
    grow     rows -> rows          extends a text
    join     rows, more? -> rows   joins two texts
    meet     -> rows               waits for another stage
    files    -> rows               copies a file
    refer    -> rows               refers to a file
    remote   -> rows               fetches a file
    classy   -> rows               computes
    command  declared -> declared  a program of yours: any inputs -> the outputs you declare
    ----- stderr
    ");
    screen!(sandbox.pipe("stages join"), @r"
    exit code: 0
    ----- stdout
    join, version 1: joins two texts
      input    rows: rows
      input    more: rows, optional
      output   rows: rows
      setting  value: text
      setting  suffix: text
      setting  first: a whole number from 0 to 100
      setting  room: text
      setting  class: text; default fake-1
      setting  label: text
    ----- stderr
    ");
    screen!(sandbox.pipe("stages command"), @r"
    exit code: 0
    ----- stdout
    command, version 1: a program of yours: any inputs -> the outputs you declare
      inputs and outputs as the pipeline file declares them
      setting  run: a list of texts
      setting  sources: a list of texts
      setting  env: a mapping of names to texts
      setting  secrets: a list of texts
      setting  sandbox: none, strict; default none
    ----- stderr
    ");
    screen!(sandbox.pipe("stages joint"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-kind]: there is no stage kind `joint`
    help: did you mean `join`?
    ");
}
