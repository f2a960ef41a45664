//! `pipe graph`: trees, dot and Mermaid.

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  base: { uses: make, with: { value: model } }
  text: { uses: change, inputs: { rows: rows } }
  long: { uses: join, inputs: { rows: text, more: base } }
  pack: { uses: join, inputs: { rows: text, more: base }, needs: [long] }
  last: { uses: join, inputs: { rows: pack, more: base } }
";

#[test]
fn the_tree_shows_every_stage_once() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("graph p.yaml"), @r"
    exit code: 0
    ----- stdout
    rows              make    run
    └─ text           change  pending
       └─ long        join    pending  + base
          └─ pack     join    pending  + base + text
             └─ last  join    pending  + base
    base              make    run
    ----- stderr
    ");
}

#[test]
fn drawing_programs_get_every_connection() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("graph p.yaml --format dot"), @r#"
    exit code: 0
    ----- stdout
    digraph "p" {
      rankdir=LR;
      node [shape=box];
      "rows" [label="rows\nmake"];
      "base" [label="base\nmake"];
      "text" [label="text\nchange"];
      "long" [label="long\njoin"];
      "pack" [label="pack\njoin"];
      "last" [label="last\njoin"];
      "rows" -> "text" [label="rows"];
      "base" -> "long" [label="more"];
      "text" -> "long" [label="rows"];
      "base" -> "pack" [label="more"];
      "text" -> "pack" [label="rows"];
      "long" -> "pack" [style=dashed];
      "base" -> "last" [label="more"];
      "pack" -> "last" [label="rows"];
    }
    ----- stderr
    "#);
    screen!(sandbox.pipe("graph p.yaml --format mermaid"), @r#"
    exit code: 0
    ----- stdout
    flowchart LR
      s0["rows<br/>make"]
      s1["base<br/>make"]
      s2["text<br/>change"]
      s3["long<br/>join"]
      s4["pack<br/>join"]
      s5["last<br/>join"]
      s0 -->|rows| s2
      s1 -->|more| s3
      s2 -->|rows| s3
      s1 -->|more| s4
      s2 -->|rows| s4
      s3 -.-> s4
      s1 -->|more| s5
      s4 -->|rows| s5
    ----- stderr
    "#);
    assert!(!sandbox.path(".pipe").exists(), "drawing needs no store");
}
