//! Markdown to its fenced blocks.
//!
//! ````text
//! ```yaml mine.yaml    language `yaml`, name `mine.yaml`
//! version: 1           text
//! ```
//! ````
//!
//! Knows only fences of three backticks at the start of a line: another one is an error, not text.

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The first word behind the fence, or nothing.
    pub(crate) language: String,
    /// The second word: the file to save the text as, or `other`.
    pub(crate) name: Option<String>,
    /// Between the fences, with line ends.
    pub(crate) text: String,
    /// Line of the fence that opens it, from 1.
    pub(crate) line: usize,
}

/// The blocks of a document, in order; or the line and what is wrong there.
pub(crate) fn blocks(markdown: &str) -> Result<Vec<Block>, String> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in markdown.lines().enumerate() {
        let number = index + 1;
        if line.trim_start().starts_with("```") && !line.starts_with("```") {
            return Err(format!("{number}: a fence that does not start its line"));
        }
        let fence = line.strip_prefix("```");
        match (fence, &mut open) {
            (None, None) => {}
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (Some(""), Some(_)) => found.extend(open.take()),
            (Some(more), Some(_)) => return Err(format!("{number}: `{more}` behind a fence that should close")),
            (Some(info), None) => {
                let mut words = info.split_whitespace().map(str::to_string);
                let (language, name) = (words.next().unwrap_or_default(), words.next());
                if let Some(word) = words.next() {
                    return Err(format!("{number}: `{word}` is one word too many behind a fence"));
                }
                open = Some(Block { language, name, text: String::new(), line: number });
            }
        }
    }
    match open {
        None => Ok(found),
        Some(block) => Err(format!("{}: a fence that nothing closes", block.line)),
    }
}

#[test]
fn blocks_are_found_with_their_language_and_name() {
    let block = |language: &str, name: Option<&str>, text: &str, line| Block {
        language: language.into(),
        name: name.map(str::to_string),
        text: text.into(),
        line,
    };
    let markdown = "A\n```yaml a.yaml\nb: 1\n\n```\n```\nc\n```\n";
    assert_eq!(blocks(markdown), Ok(vec![block("yaml", Some("a.yaml"), "b: 1\n\n", 2), block("", None, "c\n", 6)]));
    for (markdown, expected) in [
        ("  ```sh\n```", "1: a fence that does not start its line"),
        ("```sh\na\n", "1: a fence that nothing closes"),
        ("```sh\n```sh\n", "2: `sh` behind a fence that should close"),
        ("```sh a b\n```\n", "1: `b` is one word too many behind a fence"),
    ] {
        assert_eq!(blocks(markdown), Err(expected.to_string()), "{markdown}");
    }
}
