//! Commands as the user would type them.

use std::path::Path;

use crate::events::RunRequest;

/// The command that runs the same again: `pipe run alpaca.yaml --profile laptop`.
pub fn run_command(request: &RunRequest) -> String {
    let mut words = vec!["pipe".to_string(), "run".to_string(), quote_path(&request.file_as_given)];
    if let Some(profile) = &request.profile {
        words.extend(["--profile".to_string(), quote(profile)]);
    }
    for set in &request.sets {
        words.extend(["--set".to_string(), quote(set)]);
    }
    words.join(" ")
}

/// A path as one word.
pub fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// Text as one word of a POSIX shell.
pub fn quote(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_string()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quote("stages.adapter.with.lora.r=8"), "stages.adapter.with.lora.r=8");
        assert_eq!(quote("vars.text=it's"), r"'vars.text=it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
