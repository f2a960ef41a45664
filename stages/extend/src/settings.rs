//! The settings of `extend`: the argument of transformers' `add_tokens`, and its name for special tokens.

use std::collections::BTreeSet;

use pipe_contract::{ProblemKind, Reader};

/// Settings as resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Made of any text that has them, in the order of their ids.
    pub new_tokens: Vec<String>,
    /// Made where a template writes them only; their ids come behind the others.
    pub special_tokens: Vec<String>,
    /// What their rows begin with.
    pub first_rows: FirstRows,
}

/// What the row of a new token begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRows {
    /// The mean of the rows of all tokens that there were.
    Mean,
    /// The mean of the rows of the tokens that its text was before.
    Pieces,
}

/// Reads the `with:` block.
pub fn read(reader: &mut Reader) -> Settings {
    let new_tokens = reader.text_list("new_tokens").unwrap_or_default();
    let special_tokens = reader.text_list("additional_special_tokens").unwrap_or_default();
    let first_rows = match reader.choice("embedding_init", "mean", &["mean", "pieces"]) {
        "pieces" => FirstRows::Pieces,
        _ => FirstRows::Mean,
    };
    let mut seen = BTreeSet::new();
    for (name, token) in new_tokens
        .iter()
        .map(|token| ("new_tokens", token))
        .chain(special_tokens.iter().map(|token| ("additional_special_tokens", token)))
    {
        if token.is_empty() || !seen.insert(token) {
            let what = if token.is_empty() { "an empty text" } else { "twice" };
            let message = format!("`{name}` has `{token}` {what}");
            reader.problem(name, ProblemKind::OutOfRange, message, Some("take it off the list".into()));
        }
    }
    if seen.is_empty() {
        let message = "there are no new tokens: `new_tokens` and `additional_special_tokens` are both empty";
        reader.problem(
            "new_tokens",
            ProblemKind::MissingSetting,
            message,
            Some("list some, or remove the stage".into()),
        );
    }
    Settings { new_tokens, special_tokens, first_rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_named_once_and_at_least_one() {
        let problems = |yaml: &str| {
            let (_, _, problems) = pipe_contract::read_yaml(yaml, read);
            problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>()
        };
        assert_eq!(problems("{ new_tokens: [a, b], additional_special_tokens: [c] }"), Vec::<String>::new());
        assert!(problems("{}")[0].contains("no new tokens"));
        assert!(problems("{ new_tokens: [a, a] }")[0].contains("twice"));
        assert!(problems("{ new_tokens: [a], additional_special_tokens: [a] }")[0].contains("additional_special"));
        assert!(problems("{ new_tokens: [''] }")[0].contains("empty"));
    }

    #[test]
    fn the_order_of_tokens_is_that_of_their_ids_and_so_in_the_key() {
        let key = |yaml: &str| pipe_contract::read_yaml(yaml, read).1;
        assert_ne!(key("{ new_tokens: [a, b] }"), key("{ new_tokens: [b, a] }"));
        assert_ne!(key("{ new_tokens: [a] }"), key("{ additional_special_tokens: [a] }"));
        assert_eq!(key("{ new_tokens: [a], embedding_init: mean }"), key("{ new_tokens: [a] }"));
    }
}
