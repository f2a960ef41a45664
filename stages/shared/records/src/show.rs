//! Rows as text for people: each column as `name: value`, wrapped at 50 columns.

use std::fmt::Write as _;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::RecordsError;

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

/// `text` in lines of at most `width` terminal columns, broken at spaces where there are any; its own line ends stay.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    text.lines().flat_map(|line| wrap_line(line, width)).collect()
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
    fn wide_characters_count_as_two_columns() {
        assert_eq!(wrap("漢字漢字", 4), ["漢字", "漢字"]);
    }
}
