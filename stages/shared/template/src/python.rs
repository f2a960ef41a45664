//! What Jinja2 templates take from Python and minijinja does not have, or has in another way.
//!
//! ```text
//! {{ 1e16 }}  {{ tools | tojson }}          1e+16  [{"name": "f", "x": [1, 2.0]}]
//! {{ 'a' is sequence }}  {{ ' a\x1f'.strip() }}     True  a
//! ```
//!
//! `tojson` is `json.dumps(x, ensure_ascii=False)` with `indent`, `separators` and `sort_keys`, without HTML escapes.

use std::borrow::Cow;
use std::fmt::Write as _;

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::marks;

/// Filters, tests, methods and the way values are printed.
pub(crate) fn install(environment: &mut Environment<'static>) {
    environment.set_formatter(write_value);
    environment.set_unknown_method_callback(method);
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: &Value| text_of(value).into_owned());
    environment
        .add_filter("trim", |value: &Value, chars: Option<&str>| strip(&text_of(value), chars, BOTH).to_string());
    for name in ["escape", "e"] {
        environment.add_filter(name, |value: &Value| escaped(&text_of(value)));
    }
    // Source: jinja2/tests.py. Whatever has a length and items; whatever `iter` takes.
    environment.add_test("sequence", |value: &Value| {
        let kind = value.kind();
        matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
    });
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
}

fn write_value(output: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    Ok(output.write_str(&text_of(value))?)
}

/// `str(value)`.
fn text_of(value: &Value) -> Cow<'_, str> {
    match (value.as_str(), float(value)) {
        (Some(text), _) => Cow::Borrowed(text),
        (None, Some(number)) => Cow::Owned(float_text(number)),
        (None, None) => Cow::Owned(value.to_string()),
    }
}

/// As markupsafe writes it.
fn escaped(text: &str) -> String {
    let pairs = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ("\"", "&#34;")];
    pairs.into_iter().fold(text.to_string(), |text, (character, entity)| text.replace(character, entity))
}

fn float(value: &Value) -> Option<f64> {
    let is_float = value.kind() == ValueKind::Number && !value.is_integer();
    is_float.then(|| f64::try_from(value.clone()).ok()).flatten()
}

/// `repr(number)`: the shortest digits that read back as the number, with an exponent below 1e-4 and from 1e16.
fn float_text(number: f64) -> String {
    if !number.is_finite() {
        return match number.is_nan() {
            true => "nan".to_string(),
            false => if number > 0.0 { "inf" } else { "-inf" }.to_string(),
        };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("it is a whole number");
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// How `json.dumps` writes.
struct Json {
    ensure_ascii: bool,
    sort_keys: bool,
    /// What one level adds in front of a line; without it all is one line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
}

fn tojson(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = kwargs.get("indent")?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match (indent.as_str(), indent.as_usize()) {
            (Some(text), _) => text.to_string(),
            (None, Some(n_spaces)) if n_spaces <= 64 => " ".repeat(n_spaces),
            _ => return Err(invalid("`indent` must be text or a number up to 64".to_string())),
        }),
    };
    let separators: Option<Value> = kwargs.get("separators")?;
    let (item_separator, key_separator) = match separators.filter(|separators| !separators.is_none()) {
        None => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
        Some(separators) => {
            let parts: Vec<String> = separators.try_iter()?.map(|part| part.to_string()).collect();
            let [item, key] = parts.as_slice() else {
                return Err(invalid("`separators` must be two texts".to_string()));
            };
            (item.clone(), key.clone())
        }
    };
    let json = Json {
        ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        item_separator,
        key_separator,
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    json.write(&mut out, value, 0)?;
    Ok(out)
}

impl Json {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number_text(value)),
            ValueKind::String => self.write_text(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_container(out, ['[', ']'], items.len(), depth, |out, index| {
                    self.write(out, &items[index], depth + 1)
                })?;
            }
            ValueKind::Map => {
                let object = value.as_object().ok_or_else(|| invalid("a map that cannot be read".to_string()))?;
                let mut pairs: Vec<(Value, Value)> = object.try_iter_pairs().into_iter().flatten().collect();
                if self.sort_keys {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.write_container(out, ['{', '}'], pairs.len(), depth, |out, index| {
                    let (key, value) = &pairs[index];
                    self.write_text(out, &key_text(key)?);
                    out.push_str(&self.key_separator);
                    self.write(out, value, depth + 1)
                })?;
            }
            kind => return Err(invalid(format!("{kind} cannot be written as JSON"))),
        }
        Ok(())
    }

    fn write_container(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        n_items: usize,
        depth: usize,
        mut write_item: impl FnMut(&mut String, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for index in 0..n_items {
            if index > 0 {
                out.push_str(&self.item_separator);
            }
            self.break_line(out, depth + 1);
            write_item(out, index)?;
        }
        if n_items > 0 {
            self.break_line(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn break_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    }

    fn write_text(&self, out: &mut String, text: &str) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                // Marks are no part of the text.
                _ if character < ' ' || (self.ensure_ascii && character > '~' && !marks::is_reserved(character)) => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail");
                    }
                }
                _ => out.push(character),
            }
        }
        out.push('"');
    }
}

fn number_text(value: &Value) -> String {
    match float(value) {
        None => value.to_string(),
        Some(number) if number.is_nan() => "NaN".to_string(),
        Some(number) if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_string(),
        Some(number) => float_text(number),
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.to_string()),
        ValueKind::None => Ok("null".to_string()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_string()),
        ValueKind::Number => Ok(number_text(key)),
        kind => Err(invalid(format!("{kind} cannot be a key in JSON"))),
    }
}

/// Methods of texts that the compatibility layer lacks, or that differ in what white space is; the others are its own.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, name, args) };
    let chars = |args: &[Value]| -> Result<Option<String>, Error> {
        let (chars,): (Option<Value>,) = from_args(args)?;
        Ok(chars.filter(|chars| !chars.is_none()).map(|chars| chars.to_string()))
    };
    Ok(match name {
        "strip" => Value::from(strip(text, chars(args)?.as_deref(), BOTH)),
        "lstrip" => Value::from(strip(text, chars(args)?.as_deref(), [true, false])),
        "rstrip" => Value::from(strip(text, chars(args)?.as_deref(), [false, true])),
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = text.split_once(separator).unwrap_or((text, ""));
            let found = if text.contains(separator) { separator } else { "" };
            Value::from(Tuple::from([Value::from(before), Value::from(found), Value::from(after)]))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = text.rsplit_once(separator).unwrap_or(("", text));
            let found = if text.contains(separator) { separator } else { "" };
            Value::from(Tuple::from([Value::from(before), Value::from(found), Value::from(after)]))
        }
        "rsplit" => {
            let (separator, n_splits_max): (&str, Option<i64>) = from_args(args)?;
            let n_parts_max =
                n_splits_max.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n.saturating_add(1));
            let mut parts: Vec<&str> = text.rsplitn(n_parts_max, separator).collect();
            parts.reverse();
            parts.into_iter().map(Value::from).collect()
        }
        "splitlines" if args.is_empty() => lines(text).into_iter().map(Value::from).collect(),
        _ => return unknown_method_callback(state, value, name, args),
    })
}

/// Both ends, for [`strip`].
const BOTH: [bool; 2] = [true, true];

/// `str.strip`: without these characters, or else white space, at its start and its end as `at` says.
fn strip<'t>(text: &'t str, chars: Option<&str>, [at_start, at_end]: [bool; 2]) -> &'t str {
    let goes = |character: char| match chars {
        Some(chars) => chars.contains(character),
        None => is_space(character),
    };
    let text = if at_start { text.trim_start_matches(goes) } else { text };
    if at_end { text.trim_end_matches(goes) } else { text }
}

/// `str.isspace` of one character: Unicode's white space and the four separators of ASCII.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// `str.splitlines()`.
fn lines(text: &str) -> Vec<&str> {
    let is_end = |character: char| {
        matches!(character, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(is_end) {
        let (line, end) = rest.split_at(at);
        lines.push(line);
        let n_bytes = if end.starts_with("\r\n") { 2 } else { end.chars().next().map_or(0, char::len_utf8) };
        rest = &end[n_bytes..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn invalid(detail: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases = [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (-2.5e300, "-2.5e+300"),
            (123456.789, "123456.789"),
            (-0.0, "-0.0"),
        ];
        for (number, expected) in cases {
            assert_eq!(float_text(number), expected);
        }
    }

    #[test]
    fn lines_end_where_python_ends_them() {
        assert_eq!(lines("a\r\nb\u{b}c\u{2028}\n\nd\n"), ["a", "b", "c", "", "", "d"]);
        assert_eq!(strip(" \u{1f}a b\u{85}", None, BOTH), "a b");
        assert_eq!(strip("xxaxx", Some("x"), [false, true]), "xxa");
    }
}
