//! Collects problems during a pass, and the texts they point into.

use std::collections::HashSet;
use std::sync::Arc;

use super::node::{Node, Span, Use};
use crate::diagnostic::{Diagnostic, Diagnostics, Location, SourceText};

/// Names beyond this many are not listed in a help line.
const LISTED_MAX: usize = 12;

/// The problems so far.
#[derive(Default)]
pub(super) struct Findings {
    sources: Vec<SourceText>,
    list: Vec<Diagnostic>,
}

impl Findings {
    /// Adds a text; its number is what [`Span::source`] says.
    pub(super) fn add_source(&mut self, name: &str, text: impl Into<Arc<str>>) -> u32 {
        self.sources.push(SourceText { name: name.into(), text: text.into() });
        u32::try_from(self.sources.len() - 1).expect("sources are a file and arguments")
    }

    /// Reports a problem at `span`.
    pub(super) fn error(&mut self, slug: &'static str, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        let diagnostic = Diagnostic::new(slug, message).at(self.location(span));
        self.push(diagnostic)
    }

    /// Reports a problem with the value `node`, saying where it is used if it was written somewhere else.
    pub(super) fn error_at_value(
        &mut self,
        slug: &'static str,
        node: &Node,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.error_at_use(slug, node.span, node.used.as_deref(), message)
    }

    /// Reports a problem at `span` and notes the `${{ }}` that took the value from there.
    pub(super) fn error_at_use(
        &mut self,
        slug: &'static str,
        span: Span,
        used: Option<&Use>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let mut diagnostic = Diagnostic::new(slug, message).at(self.location(span));
        if let Some(used) = used {
            diagnostic.notes.push(format!("used as `{}` at {}", used.expression, self.location(used.span)));
        }
        self.push(diagnostic)
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        self.list.push(diagnostic);
        self.list.last_mut().expect("just pushed")
    }

    /// Keeps one of the problems that instances of a stage have in common.
    pub(super) fn merge_instances(&mut self) {
        let mut seen = HashSet::new();
        self.list.retain(|one| {
            let place = one.location.as_ref().map(ToString::to_string);
            seen.insert((one.slug, place, without_combinations(&one.message), one.notes.len()))
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn into_diagnostics(self) -> Diagnostics {
        Diagnostics::new(self.list, self.sources)
    }

    pub(super) fn location(&self, span: Span) -> Location {
        let file: Arc<str> = self.sources[span.source as usize].name.clone();
        Location { file, line: span.line as usize, column: span.column as usize, length: span.length as usize }
    }

    /// `line 12`, or the argument.
    pub(super) fn place(&self, span: Span) -> String {
        let location = self.location(span);
        if location.is_argument() { format!("`{}`", location.file) } else { format!("line {}", span.line) }
    }

    /// Like [`Findings::narrow`], for the first `part` that follows `before`.
    pub(super) fn narrow_after(&self, span: Span, before: &str, part: &str) -> Span {
        let found = self.narrow(span, &format!("{before}{part}"));
        let skipped = count(before.chars().count());
        if found == span {
            span
        } else {
            Span { column: found.column + skipped, length: found.length - skipped, ..found }
        }
    }

    /// Reads through the source, so only for what is reported. The part of `span` that reads `part`, if it is found in the source as it stands; else all of it.
    pub(super) fn narrow(&self, span: Span, part: &str) -> Span {
        let text = &self.sources[span.source as usize].text;
        let Some(line) = text.lines().nth(span.line as usize - 1) else { return span };
        let marked: String = line.chars().skip(span.column as usize - 1).take(span.length as usize).collect();
        match marked.find(part) {
            Some(at) => Span {
                column: span.column + count(marked[..at].chars().count()),
                length: count(part.chars().count()),
                ..span
            },
            None => span,
        }
    }
}

/// A message in which names of instances are names of stages: what stands from `@` to the next backtick is left out.
fn without_combinations(message: &str) -> String {
    let mut parts = message.split('@');
    let mut text = parts.next().unwrap_or_default().to_string();
    parts.for_each(|part| text.push_str(part.find('`').map_or(part, |end| &part[end..])));
    text
}

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("a part of a line whose length is a u32")
}

/// `did you mean ...?` or, where no name is near, which names there are.
pub(super) fn nearest_or_list(wrong: &str, names: &[&str], what: &str) -> String {
    match pipe_settings::nearest(wrong, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => format!("there are no {what}"),
        None => format!("the {what} are {}", listed(names)),
    }
}

/// "`a`, `b`", cut after some.
pub(super) fn listed(names: &[&str]) -> String {
    let mut text = names.iter().take(LISTED_MAX).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED_MAX {
        text.push_str(&format!(" and {} more", names.len() - LISTED_MAX));
    }
    text
}
