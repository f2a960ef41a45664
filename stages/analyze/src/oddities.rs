//! Rows that are unlike the others, by measures that need no judgement.
//!
//! ```text
//! tokens_per_character    characters that a tokenizer does not know cost several tokens each
//! repetition              the share of a text's windows of 16 bytes that are in it before: loops of a broken generator
//! control_characters      U+0000 to U+001F without tab and line ends, U+007F to U+009F
//! replacement_characters  U+FFFD: what a wrong decoding left
//! nearly_empty            a text of less than 3 letters or digits
//! empty_completion        nothing to learn but the end
//! wordless_completion     a completion without a letter or digit
//! completion_is_prompt    the prompt, given back
//! ```
//!
//! It deliberately judges nothing: what is odd may be right.

use pipe_records::Example;
use serde::{Deserialize, Serialize};

/// How many rows of each oddity, and how many of the longest, are kept.
const N_LISTED: usize = 5;
/// How many of the longest rows are kept.
const N_LONGEST: usize = 10;
/// Characters of a row that are kept, to recognize it by.
const N_START: usize = 60;
/// Bytes of a window that may come again.
const WINDOW: usize = 16;
/// Windows below which a share says little.
const N_WINDOWS_MIN: usize = 64;
/// A text whose windows are repeated in at least this share counts.
const REPEATED_SHARE: f64 = 0.5;
/// Characters below which tokens per character say little.
const N_CHARACTERS_MIN: u32 = 32;
/// A text with more tokens per character counts.
const TOKENS_PER_CHARACTER: f64 = 1.0;
/// Letters and digits of a text that is not nearly empty.
const N_WORDLY_MIN: usize = 3;

/// A kind of oddity. A row has a value for it or has not; the larger, the odder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    TokensPerCharacter,
    Repetition,
    ControlCharacters,
    ReplacementCharacters,
    NearlyEmpty,
    EmptyCompletion,
    WordlessCompletion,
    CompletionIsPrompt,
}

impl Kind {
    pub(crate) const ALL: [Kind; 8] = [
        Kind::TokensPerCharacter,
        Kind::Repetition,
        Kind::ControlCharacters,
        Kind::ReplacementCharacters,
        Kind::NearlyEmpty,
        Kind::EmptyCompletion,
        Kind::WordlessCompletion,
        Kind::CompletionIsPrompt,
    ];

    /// As a person reads it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Kind::TokensPerCharacter => "more than one token a character",
            Kind::Repetition => "at least half of it is there before",
            Kind::ControlCharacters => "control characters",
            Kind::ReplacementCharacters => "replacement characters (U+FFFD)",
            Kind::NearlyEmpty => "nearly empty",
            Kind::EmptyCompletion => "empty completion",
            Kind::WordlessCompletion => "completion without letter or digit",
            Kind::CompletionIsPrompt => "completion is the prompt",
        }
    }

    /// Whether a row with this value counts as odd; below it the row is at most the oddest of all.
    fn counts(self, value: f64) -> bool {
        match self {
            Kind::TokensPerCharacter => value > TOKENS_PER_CHARACTER,
            Kind::Repetition => value >= REPEATED_SHARE,
            _ => true,
        }
    }
}

/// The values of a row, by [`Kind::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Values([Option<f64>; Kind::ALL.len()]);

impl Values {
    /// Measures a row of `n_characters`, and `n_tokens` where a model counts them.
    pub(crate) fn of(example: &Example, n_characters: u32, n_tokens: Option<u32>) -> Self {
        let text = example.text.as_str();
        let count = |is_wanted: fn(char) -> bool| text.chars().filter(|c| is_wanted(*c)).count();
        let some = |n: usize| (n > 0).then_some(n as f64);
        let is_control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
        let n_wordly = count(char::is_alphanumeric);
        let completion = example.part(example.completion.clone()).trim();
        let prompt = example.part(example.prompt.clone()).trim();
        let flag = |is_so: bool| is_so.then_some(1.0);
        let value = |kind: Kind| match kind {
            Kind::TokensPerCharacter => n_tokens
                .filter(|_| n_characters >= N_CHARACTERS_MIN)
                .map(|n_tokens| f64::from(n_tokens) / f64::from(n_characters)),
            Kind::Repetition => repeated_share(text.as_bytes()),
            Kind::ControlCharacters => some(count(is_control)),
            Kind::ReplacementCharacters => some(count(|c| c == char::REPLACEMENT_CHARACTER)),
            Kind::NearlyEmpty => (n_wordly < N_WORDLY_MIN).then(|| (N_WORDLY_MIN - n_wordly) as f64),
            Kind::EmptyCompletion => flag(completion.is_empty()),
            Kind::WordlessCompletion => flag(!completion.is_empty() && !completion.contains(char::is_alphanumeric)),
            Kind::CompletionIsPrompt => flag(!completion.is_empty() && completion == prompt),
        };
        Values(Kind::ALL.map(value))
    }
}

/// The share of windows that are equal to an earlier one; nothing for a short text.
fn repeated_share(bytes: &[u8]) -> Option<f64> {
    let mut windows: Vec<u128> = bytes
        .windows(WINDOW)
        .map(|window| u128::from_le_bytes(window.try_into().expect("a window has 16 bytes")))
        .collect();
    let n_windows = windows.len();
    if n_windows < N_WINDOWS_MIN {
        return None;
    }
    windows.sort_unstable();
    windows.dedup();
    Some((n_windows - windows.len()) as f64 / n_windows as f64)
}

/// A row that is listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    /// From 0.
    pub(crate) row: u32,
    pub(crate) value: f64,
    /// The first characters of its text; control characters are written as `\u{1b}`.
    pub(crate) start: String,
}

/// An oddity and its rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Oddity {
    pub(crate) oddity: Kind,
    pub(crate) n_rows: u64,
    /// The oddest, the oddest first.
    pub(crate) rows: Vec<Listed>,
}

/// The rows of the largest values, the earlier row first where they are equal.
#[derive(Clone, Debug)]
struct Largest {
    n_most: usize,
    rows: Vec<Listed>,
}

impl Largest {
    fn new(n_most: usize) -> Self {
        Largest { n_most, rows: Vec::new() }
    }

    /// The next row; rows come in order.
    fn push(&mut self, row: u32, value: f64, text: &str) {
        if self.rows.len() == self.n_most && self.rows[self.n_most - 1].value >= value {
            return;
        }
        let place = self.rows.partition_point(|listed| listed.value >= value);
        self.rows.insert(place, Listed { row, value, start: start_of(text) });
        self.rows.truncate(self.n_most);
    }
}

/// Takes the rows one by one.
pub(crate) struct OddityFinder {
    oddities: Vec<(Kind, u64, Largest)>,
    longest: Largest,
}

impl OddityFinder {
    pub(crate) fn new() -> Self {
        let empty = |kind| (kind, 0, Largest::new(N_LISTED));
        OddityFinder { oddities: Kind::ALL.map(empty).to_vec(), longest: Largest::new(N_LONGEST) }
    }

    /// The next row; `length`: in the unit of the analysis.
    pub(crate) fn push(&mut self, row: u32, text: &str, length: u32, values: &Values) {
        self.longest.push(row, length.into(), text);
        for ((kind, n_rows, largest), value) in self.oddities.iter_mut().zip(values.0) {
            if let Some(value) = value.filter(|value| kind.counts(*value)) {
                *n_rows += 1;
                largest.push(row, value, text);
            }
        }
    }

    /// The longest rows, and the oddities that occurred.
    pub(crate) fn finish(self) -> (Vec<Listed>, Vec<Oddity>) {
        let found = self.oddities.into_iter().filter(|(_, n_rows, _)| *n_rows > 0);
        let oddities = found.map(|(oddity, n_rows, largest)| Oddity { oddity, n_rows, rows: largest.rows });
        (self.longest.rows, oddities.collect())
    }
}

/// The first characters on one line: line ends and control characters are escaped.
fn start_of(text: &str) -> String {
    let mut start = String::new();
    for c in text.chars().take(N_START) {
        if c.is_control() { start.extend(c.escape_default()) } else { start.push(c) }
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(prompt: &str, completion: &str) -> Example {
        let (n_prompt, n_completion) = (prompt.chars().count() as u32, completion.chars().count() as u32);
        Example {
            text: format!("{prompt}{completion}"),
            prompt: 0..n_prompt,
            completion: n_prompt..n_prompt + n_completion,
            ..Example::default()
        }
    }

    fn kinds(example: &Example, n_tokens: Option<u32>) -> Vec<Kind> {
        let values = Values::of(example, example.text.chars().count() as u32, n_tokens);
        let found = Kind::ALL.into_iter().zip(values.0).filter(|(kind, value)| value.is_some_and(|v| kind.counts(v)));
        found.map(|(kind, _)| kind).collect()
    }

    #[test]
    fn each_oddity_is_found_and_an_ordinary_row_has_none() {
        let long = "The quick brown fox jumps over the lazy dog, and then it sleeps until noon in the warm sun of May.";
        assert_eq!(kinds(&example(long, " It does."), Some(30)), []);
        assert_eq!(kinds(&example(long, " It does."), Some(500)), [Kind::TokensPerCharacter]);
        assert_eq!(kinds(&example(&"I am a loop. ".repeat(20), " Yes."), None), [Kind::Repetition]);
        assert_eq!(kinds(&example("a bell\u{7}\tand", " more\n"), None), [Kind::ControlCharacters]);
        assert_eq!(kinds(&example("caf\u{fffd}", " ok"), None), [Kind::ReplacementCharacters]);
        assert_eq!(kinds(&example("a", " b"), None), [Kind::NearlyEmpty]);
        assert_eq!(kinds(&example("question", " \n"), None), [Kind::EmptyCompletion]);
        assert_eq!(kinds(&example("question", " ..."), None), [Kind::WordlessCompletion]);
        assert_eq!(kinds(&example("again", " again"), None), [Kind::CompletionIsPrompt]);
        assert_eq!(kinds(&example("你好吗", "很好"), None), []);
    }

    #[test]
    fn the_share_counts_windows_that_were_there_before() {
        let once: Vec<u8> = (0..100).collect();
        assert_eq!(repeated_share(&once), Some(0.0));
        // 185 windows of 200 bytes: the 85 that lie in the second half whole are repeated.
        assert_eq!(repeated_share(&once.repeat(2)), Some(85.0 / 185.0));
        assert_eq!(repeated_share(&[7; 60]), None);
    }

    #[test]
    fn the_largest_values_are_kept_and_the_earlier_row_goes_first() {
        let mut finder = OddityFinder::new();
        for row in 0..100u32 {
            let values = Values::of(&example("again", "again"), 10, None);
            finder.push(row, "x\ny\u{1b}", row * 37 % 50, &values);
        }
        let (longest, oddities) = finder.finish();
        let lengths: Vec<f64> = longest.iter().map(|listed| listed.value).collect();
        assert_eq!(lengths, [49.0, 49.0, 48.0, 48.0, 47.0, 47.0, 46.0, 46.0, 45.0, 45.0]);
        assert!(longest.chunks(2).all(|pair| pair[0].row + 50 == pair[1].row));
        assert_eq!(longest[0].start, "x\\ny\\u{1b}");
        assert_eq!((oddities.len(), oddities[0].oddity, oddities[0].n_rows), (1, Kind::CompletionIsPrompt, 100));
        assert_eq!(oddities[0].rows.iter().map(|listed| listed.row).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
