//! Rows as text for people: each column as `name: value`, wrapped at 50 columns; and as a table for a report.

use std::fmt::Write as _;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use pipe_contract::figures::Table;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::{RecordsError, RowReader};

/// Characters of a cell in a report: enough for a paragraph.
pub const CELL_LENGTH: usize = 600;

/// Terminal columns of a wrapped line: what `textwrap.fill(text, width=50)` gives.
pub const SHOW_WIDTH: usize = 50;

/// The first `n_rows` rows of `batches`.
///
/// # Errors
/// Those of `batches`.
pub fn show_rows(
    batches: impl Iterator<Item = Result<RecordBatch, RecordsError>>,
    n_rows: usize,
) -> Result<String, RecordsError> {
    let mut text = String::new();
    let mut n_shown = 0;
    for batch in batches {
        let batch = batch?;
        let options = FormatOptions::default().with_null("(null)");
        let formatters: Vec<ArrayFormatter> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            if n_shown == n_rows {
                return Ok(text);
            }
            writeln!(text, "row {n_shown}").expect("writing to a String cannot fail");
            for (field, formatter) in batch.schema().fields().iter().zip(&formatters) {
                let value = formatter.value(row).to_string();
                for line in wrap(&format!("{}: {value}", field.name()), SHOW_WIDTH) {
                    writeln!(text, "  {line}").expect("writing to a String cannot fail");
                }
            }
            text.push('\n');
            n_shown += 1;
        }
    }
    Ok(text)
}

/// The first `n_rows` rows of `batches` as a table for a report: a column each, its type in the head, cells cut at
/// [`CELL_LENGTH`] characters.
///
/// # Errors
/// Those of `batches`.
pub fn table_of_rows(rows: RowReader, title: &str, n_rows: usize) -> Result<Table, RecordsError> {
    let head = |field: &FieldRef| format!("{} ({})", field.name(), type_name(field.data_type()));
    let columns = rows.schema().fields().iter().map(head).collect();
    let mut cells: Vec<Vec<String>> = Vec::new();
    for batch in rows {
        let batch = batch?;
        let options = FormatOptions::default().with_null("(null)");
        let formatters: Vec<ArrayFormatter> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            if cells.len() == n_rows {
                return Ok(Table { title: title.to_string(), columns, rows: cells });
            }
            cells
                .push(formatters.iter().map(|formatter| cut(&formatter.value(row).to_string(), CELL_LENGTH)).collect());
        }
    }
    Ok(Table { title: title.to_string(), columns, rows: cells })
}

/// Opens what is learned, in text for `pipe show`, which draws it in colour where there is any.
pub const MASK_OPEN: char = '\u{27e6}';
/// Closes it.
pub const MASK_CLOSE: char = '\u{27e7}';

/// `text` with ⟦ and ⟧ around `spans` (characters, rising and apart); its own such brackets become escapes.
pub fn masked(text: &str, spans: &[Range<u32>]) -> String {
    let mut masked = String::with_capacity(text.len() + 6 * spans.len());
    let mut spans = spans.iter().filter(|span| !span.is_empty()).peekable();
    for (at, character) in (0u32..).zip(text.chars()) {
        masked.extend(spans.peek().filter(|span| span.start == at).map(|_| MASK_OPEN));
        match character {
            MASK_OPEN | MASK_CLOSE => masked.extend(character.escape_unicode()),
            _ => masked.push(character),
        }
        masked.extend(spans.next_if(|span| span.end == at + 1).map(|_| MASK_CLOSE));
    }
    masked
}

/// At most `n_characters` of `text`, with a mark where something was left out.
pub fn cut(text: &str, n_characters: usize) -> String {
    match text.char_indices().nth(n_characters) {
        None => text.to_string(),
        Some((end, _)) => format!("{}\u{2026}", &text[..end]),
    }
}

/// `text` in lines of at most `width` terminal columns, broken at spaces where there are any; its own line ends stay, other
/// control characters become escapes as in [`escape_controls`].
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    text.lines().flat_map(|line| wrap_line(&escape_controls(line), width)).collect()
}

/// `text`, wrapped at [`SHOW_WIDTH`] columns behind `indent`, without the white space at its ends; at most `n_lines_max` lines,
/// and then a mark.
pub fn paragraph(text: &str, indent: &str, n_lines_max: usize) -> String {
    let lines = wrap(text.trim(), SHOW_WIDTH);
    let mut paragraph = String::new();
    for line in lines.iter().take(n_lines_max) {
        writeln!(paragraph, "{indent}{line}").expect("writing to a String cannot fail");
    }
    match lines.len().saturating_sub(n_lines_max) {
        _ if lines.is_empty() => writeln!(paragraph, "{indent}(nothing)").expect("as above"),
        0 => {}
        n_hidden => writeln!(paragraph, "{indent}... ({n_hidden} more lines)").expect("as above"),
    }
    paragraph
}

/// `text` without what a terminal would obey: control characters but line breaks (`\n`, `\r\n`) and tabs, and the
/// characters that reorder text (U+202A to U+202E, U+2066 to U+2069), become escapes such as `\u{1b}`.
pub fn escape_controls(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let is_kept = match character {
            '\n' | '\t' => true,
            '\r' => characters.peek() == Some(&'\n'),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
            _ => !character.is_control(),
        };
        if is_kept {
            escaped.push(character);
        } else {
            escaped.extend(character.escape_unicode());
        }
    }
    escaped
}

fn wrap_line(line: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for (index, word) in line.split(' ').enumerate() {
        if index > 0 {
            if current.width() + 1 + word.width() <= width {
                current.push(' ');
            } else {
                lines.push(std::mem::take(&mut current));
            }
        }
        for character in word.chars() {
            if current.width() + character.width().unwrap_or(0) > width && !current.is_empty() {
                lines.push(std::mem::take(&mut current));
            }
            current.push(character);
        }
    }
    lines.push(current);
    lines
}

/// The name Hugging Face data sets give a type: `string`, `int64`, `list<string>`, `{role: string}`.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::Utf8View => "string".to_string(),
        DataType::LargeUtf8 => "large_string".to_string(),
        DataType::Boolean => "bool".to_string(),
        DataType::List(item) | DataType::LargeList(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let named = fields.iter().map(|f| format!("{}: {}", f.name(), type_name(f.data_type())));
            format!("{{{}}}", named.collect::<Vec<_>>().join(", "))
        }
        other => format!("{other}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_only_then_inside_words() {
        assert_eq!(wrap("aaa bb cccc", 6), ["aaa bb", "cccc"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("a\n\n    b", 6), ["a", "", "    b"]);
    }

    #[test]
    fn a_paragraph_is_indented_and_bounded() {
        assert_eq!(paragraph(" a\n\nb \n", "  ", 3), "  a\n  \n  b\n");
        assert_eq!(paragraph("a\nb\nc\nd", "> ", 2), "> a\n> b\n> ... (2 more lines)\n");
        assert_eq!(paragraph(" \n\n", "  ", 2), "  (nothing)\n");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(wrap("a\u{1b}[31mb", 50), ["a\\u{1b}[31mb"]);
        assert_eq!(wrap("a\rb\r\nc\td\u{9b}\u{7f}", 50), ["a\\u{d}b", "c\td\\u{9b}\\u{7f}"]);
        assert_eq!(wrap("\u{202e}x\u{2066}y\u{2069}é漢", 50), ["\\u{202e}x\\u{2066}y\\u{2069}é漢"]);
        assert_eq!(escape_controls("a\r\nb\nc\r"), "a\r\nb\nc\\u{d}");
        // An escape counts with its own width.
        assert_eq!(wrap("\u{1b}\u{1b}", 6), ["\\u{1b}", "\\u{1b}"]);
    }

    #[test]
    fn what_is_learned_stands_in_brackets() {
        assert_eq!(masked("é ab\nc", &[0..1, 2..2, 3..6]), "⟦é⟧ a⟦b\nc⟧");
        assert_eq!(masked("a⟦b", &[1..2, 2..3]), "a⟦\\u{27e6}⟧⟦b⟧");
        assert_eq!(masked("", &[]), "");
    }

    #[test]
    fn wide_characters_count_as_two_columns() {
        assert_eq!(wrap("漢字漢字", 4), ["漢字", "漢字"]);
    }
}
