//! `${{ NAME }}` in a text: where it begins and ends. What a name stands for is said elsewhere: `vars`, `matrix`.

pub(super) const OPEN: &str = "${{";
pub(super) const CLOSE: &str = "}}";

/// What variables of a matrix begin with.
pub(super) const MATRIX: &str = "matrix.";

pub(super) enum Piece<'t> {
    Text(&'t str),
    /// As written with its brackets, and what is between them.
    Expression(&'t str, &'t str),
}

/// `None` where an expression is not closed.
pub(super) fn split(text: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(OPEN) {
        let length = rest[open..].find(CLOSE)? + CLOSE.len();
        if open > 0 {
            pieces.push(Piece::Text(&rest[..open]));
        }
        let written = &rest[open..open + length];
        pieces.push(Piece::Expression(written, written[OPEN.len()..written.len() - CLOSE.len()].trim()));
        rest = &rest[open + length..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Some(pieces)
}
