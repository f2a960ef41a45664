//! A value for each variable of a matrix, and what an instance is called by it.

use std::fmt::Write as _;

use super::super::node::{Body, Node, Scalar};

/// A longer name is cut and ends with a digest: with a stage's name before it, and `.log` behind it, it is still a file name.
const NAME_LENGTH_MAX: usize = 120;
/// Hex digits of that digest.
const N_DIGITS: usize = 12;

/// A value of one variable.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) variable: String,
    pub(super) value: Node,
    /// The value as text; two with the same text are the same.
    pub(super) text: String,
}

impl Choice {
    /// `value`: a scalar, or unknown.
    pub(super) fn new(variable: &str, value: Node) -> Self {
        let text = match &value.body {
            Body::Scalar(Scalar::String(text)) => text.clone(),
            Body::Scalar(Scalar::Number(number)) => number.to_string(),
            Body::Scalar(Scalar::Bool(value)) => value.to_string(),
            _ => String::new(),
        };
        Choice { variable: variable.into(), value, text }
    }
}

/// Choices in the order in which variables are declared. A variable that only some combinations have is absent in others.
#[derive(Clone, Debug, Default)]
pub(super) struct Combination {
    pub(super) choices: Vec<Choice>,
}

impl Combination {
    pub(super) fn get(&self, variable: &str) -> Option<&Choice> {
        self.choices.iter().find(|choice| choice.variable == variable)
    }

    /// Whether each of `choices` is among its own.
    pub(super) fn has_all(&self, choices: &[Choice]) -> bool {
        choices.iter().all(|choice| self.get(&choice.variable).is_some_and(|own| own.text == choice.text))
    }

    /// The choices of some variables.
    pub(super) fn of(&self, is_wanted: impl Fn(&str) -> bool) -> Combination {
        let wanted = self.choices.iter().filter(|choice| is_wanted(&choice.variable));
        Combination { choices: wanted.cloned().collect() }
    }

    /// `lr=0.0001,r=8`, for messages.
    pub(super) fn shown(&self) -> String {
        let pairs: Vec<String> =
            self.choices.iter().map(|choice| format!("{}={}", choice.variable, choice.text)).collect();
        pairs.join(",")
    }

    /// The same as a part of a file name: other characters than letters, digits and `._+-` are written as `%2F` is.
    pub(super) fn name(&self) -> String {
        let pairs: Vec<String> =
            self.choices.iter().map(|choice| format!("{}={}", choice.variable, escaped(&choice.text))).collect();
        let name = pairs.join(",");
        if name.len() <= NAME_LENGTH_MAX {
            return name;
        }
        let digest = blake3::hash(name.as_bytes()).to_hex();
        // All of it is ASCII.
        format!("{}~{}", &name[..NAME_LENGTH_MAX - N_DIGITS - 1], &digest[..N_DIGITS])
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._+-".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("to a String");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::super::node::Span;
    use super::*;

    fn combination(pairs: &[(&str, &str)]) -> Combination {
        let choice = |&(variable, yaml): &(&str, &str)| {
            let value = serde_yaml::from_str(yaml).expect("the test's YAML parses");
            Choice::new(variable, Node::from_value(Span::default(), value))
        };
        Combination { choices: pairs.iter().map(choice).collect() }
    }

    #[test]
    fn names_are_safe_and_tell_values_apart() {
        for (pairs, name) in [
            (vec![("lr", "1e-4"), ("r", "8")], "lr=0.0001,r=8"),
            (vec![("lr", "1e-10"), ("bf16", "true")], "lr=1e-10,bf16=true"),
            (vec![("model", "karpathy/stories260K")], "model=karpathy%2Fstories260K"),
            (vec![("model", "karpathy%2Fstories260K")], "model=karpathy%252Fstories260K"),
            (vec![("text", "a b@c,d=e.f")], "text=a%20b%40c%2Cd%3De.f"),
            (vec![("text", "é")], "text=%C3%A9"),
            (vec![("text", "''")], "text="),
        ] {
            assert_eq!(combination(&pairs).name(), name);
        }
    }

    #[test]
    fn long_names_are_cut_and_still_differ() {
        let name = |last: &str| combination(&[("prompt", &("word ".repeat(80) + last))]).name();
        assert_eq!(name("a").len(), NAME_LENGTH_MAX);
        assert_ne!(name("a"), name("b"));
        assert_eq!(name("a"), name("a"));
    }
}
