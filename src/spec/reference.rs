//! `STAGE`, `STAGE.OUTPUT`, `STAGE@COMBINATION.OUTPUT`: which stage a text names, and which of its outputs.
//!
//! A combination may hold dots, as in `adapter@lr=0.0001`; the names of stages and outputs hold none.

/// The name of the stage, and what stands behind its dot. `is_stage`: whether a name is one of the pipeline.
pub fn split_reference(text: &str, is_stage: impl Fn(&str) -> bool) -> (&str, Option<&str>) {
    let with_output = if text.contains('@') {
        text.rsplit_once('.').filter(|(name, _)| !is_stage(text) && is_stage(name))
    } else {
        text.split_once('.')
    };
    with_output.map_or((text, None), |(name, output)| (name, Some(output)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_of_a_combination_are_no_output() {
        let is_stage = |name: &str| ["a", "a@lr=0.5", "a@lr=0"].contains(&name);
        for (text, expected) in [
            ("a", ("a", None)),
            ("a.rows", ("a", Some("rows"))),
            ("b.rows", ("b", Some("rows"))),
            ("a@lr=0.5", ("a@lr=0.5", None)),
            ("a@lr=0.5.rows", ("a@lr=0.5", Some("rows"))),
            ("a@lr=0.rows", ("a@lr=0", Some("rows"))),
            ("a@lr=0.7", ("a@lr=0", Some("7"))),
            ("a@lr=1.7", ("a@lr=1.7", None)),
        ] {
            assert_eq!(split_reference(text, is_stage), expected, "{text}");
        }
    }
}
