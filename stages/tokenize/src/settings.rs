//! The settings of `tokenize`.

use pipe_contract::{KeyValue, ProblemKind, Reader};
pub use pipe_records::Packing;

/// What happens to a document of more than `max_length` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// Its first `max_length` tokens stay, the rest is counted. With [`Packing::BfdSplit`] and [`Packing::Wrapped`] the rest stays too.
    Truncate,
    /// It is left out and counted.
    Drop,
    /// The stage stops and names it.
    Error,
}

/// `with:` of a `tokenize` stage, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most tokens of a pack, and of a document in it; 1 to 1,048,576.
    pub max_length: usize,
    /// How documents share a pack.
    pub packing: Packing,
    /// Whether the end-of-sequence id is appended where it is absent.
    pub append_eos: bool,
    /// Whether only the completion is supervised; `None`: as the examples say.
    pub completion_only_loss: Option<bool>,
    /// Whether only what the assistant says is supervised.
    pub assistant_only_loss: bool,
    /// What happens to long documents.
    pub truncation: Truncation,
    /// A setting that is not at its default and that only examples of text have a use for. By value, not by whether it was
    /// written: a default written down means what leaving it out means.
    pub only_for_text: Option<&'static str>,
}

impl Settings {
    /// Reads `with:`; the defaults are TRL's.
    pub fn read(reader: &mut Reader) -> Self {
        let max_length = reader.integer("max_length", 1024, 1..=1_048_576) as usize;
        let wants_packing = reader.bool("packing", false);
        let strategy = match reader.choice("packing_strategy", "bfd", &["bfd", "bfd_split", "first_fit", "wrapped"]) {
            "bfd_split" => Packing::BfdSplit,
            "first_fit" => Packing::FirstFit,
            "wrapped" => Packing::Wrapped,
            _ => Packing::Bfd,
        };
        let append_eos = reader.bool("append_eos", true);
        let completion_only_loss = read_completion_only_loss(reader);
        let assistant_only_loss = reader.bool("assistant_only_loss", false);
        let truncation = match reader.choice("truncation", "truncate", &["truncate", "drop", "error"]) {
            "drop" => Truncation::Drop,
            "error" => Truncation::Error,
            _ => Truncation::Truncate,
        };
        let is_changed = [
            ("completion_only_loss", completion_only_loss.is_some()),
            ("assistant_only_loss", assistant_only_loss),
            ("append_eos", !append_eos),
            ("truncation", truncation != Truncation::Truncate),
        ];
        let only_for_text = is_changed.into_iter().find(|(_, is_changed)| *is_changed).map(|(name, _)| name);
        check_strategy(reader, strategy, wants_packing, truncation);
        let packing = if wants_packing { strategy } else { Packing::None };
        Settings {
            max_length,
            packing,
            append_eos,
            completion_only_loss,
            assistant_only_loss,
            truncation,
            only_for_text,
        }
    }
}

/// What a strategy cannot be combined with.
fn check_strategy(reader: &mut Reader, strategy: Packing, wants_packing: bool, truncation: Truncation) {
    let name = strategy.name();
    if strategy != Packing::Bfd && !wants_packing {
        let message = format!("`packing_strategy` is `{name}`, but `packing` is `false`");
        let help = "set `packing: true`, or leave the strategy out";
        reader.problem("packing_strategy", ProblemKind::Unsupported, message, Some(help.to_string()));
        return;
    }
    let goes_on = match strategy {
        Packing::Wrapped => "a long document goes on in the next pack",
        Packing::BfdSplit => "a long document is split",
        Packing::None | Packing::Bfd | Packing::FirstFit => return,
    };
    if truncation != Truncation::Truncate {
        let message = format!("`truncation` has no use with `packing_strategy: {name}`, where {goes_on}");
        reader.problem("truncation", ProblemKind::Unsupported, message, Some("leave it out".to_string()));
    }
}

/// Absent means "as the examples say", which is another value than `false`: so both enter the key when given.
fn read_completion_only_loss(reader: &mut Reader) -> Option<bool> {
    let is_given = reader.has("completion_only_loss");
    let value = reader.bool("completion_only_loss", false);
    is_given.then(|| {
        reader.record_key("completion_only_loss", KeyValue::Bool(value));
        value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> (Settings, Vec<String>, Vec<&'static str>) {
        let (settings, key, problems) = pipe_contract::read_yaml(yaml, Settings::read);
        (settings, key.keys().cloned().collect(), problems.iter().map(|p| p.kind.slug()).collect())
    }

    #[test]
    fn defaults_are_not_in_the_key() {
        let written = "{ max_length: 1024, packing: false, packing_strategy: bfd, append_eos: true, completion_only_loss: null, assistant_only_loss: false, truncation: truncate }";
        let (settings, key, problems) = read("{}");
        let (of_written, ..) = read(written);
        assert_eq!(of_written, settings);
        assert_eq!((read(written).1, read(written).2), (key.clone(), problems.clone()));
        assert_eq!((settings.completion_only_loss, settings.packing), (None, Packing::None));
        assert!(key.is_empty() && problems.is_empty());
    }

    #[test]
    fn an_explicit_false_differs_from_as_the_examples_say() {
        let (settings, key, _) = read("{ completion_only_loss: false }");
        assert_eq!((settings.completion_only_loss, key), (Some(false), vec!["completion_only_loss".to_string()]));
    }

    #[test]
    fn a_strategy_wants_packing_and_is_in_the_key() {
        for (name, packing) in
            [("wrapped", Packing::Wrapped), ("bfd_split", Packing::BfdSplit), ("first_fit", Packing::FirstFit)]
        {
            let (settings, key, problems) = read(&format!("{{ packing: true, packing_strategy: {name} }}"));
            assert_eq!(settings.packing, packing);
            assert_eq!((key, problems), (vec!["packing".to_string(), "packing_strategy".to_string()], vec![]));
            for alone in ["", "packing: false, "] {
                let yaml = format!("{{ {alone}packing_strategy: {name} }}");
                assert_eq!(read(&yaml).2, ["unsupported-setting"], "{yaml}");
            }
        }
    }

    #[test]
    fn a_strategy_that_loses_nothing_takes_no_truncation() {
        let problems = |name: &str| read(&format!("{{ packing: true, packing_strategy: {name}, truncation: drop }}")).2;
        assert_eq!(problems("wrapped"), ["unsupported-setting"]);
        assert_eq!(problems("bfd_split"), ["unsupported-setting"]);
        assert!(problems("first_fit").is_empty() && problems("bfd").is_empty());
    }

    #[test]
    fn every_problem_is_reported() {
        let (_, _, problems) = read("{ max_length: 0, packing_strategy: wrap, truncation: split, pad: true }");
        assert_eq!(problems, ["out-of-range", "out-of-range", "out-of-range", "unknown-setting"]);
    }
}
