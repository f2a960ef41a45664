//! Packs as text: a bar per pack with its documents to scale, and the text of the first one with what is learned in brackets.

use std::fmt::Write as _;

use pipe_contract::{Artifact, StageError};
use pipe_records::packed::{NOT_SUPERVISED, document_starts};
use pipe_records::show::{SHOW_WIDTH, masked, wrap};
use pipe_records::{Pack, PackedReader, thousands};

use crate::preview::{self, PreviewDocument};

/// Width of the bar of a full pack, in characters.
const BAR_WIDTH: usize = 64;
/// Tokens of the first pack that are listed.
const N_LISTED: usize = 48;
/// Tokens per line of the list.
const PER_LINE: usize = 8;

/// The first `n_packs` packs of `artifact`.
pub(crate) fn show_packs(artifact: &Artifact, n_packs: usize) -> Result<String, StageError> {
    let reader = PackedReader::open(artifact)?;
    let info = reader.info();
    let mut text = format!(
        "{} packs of at most {} tokens: {} documents, {} tokens, {} supervised, fill {:.1} %\n",
        thousands(info.n_packs),
        thousands(info.max_length),
        thousands(info.n_documents),
        thousands(info.n_tokens),
        thousands(info.n_supervised_tokens),
        info.fill * 100.0,
    );
    let strategy = info.packing_strategy;
    let seen = if strategy.is_contaminating() { ": documents see each other" } else { "" };
    writeln!(text, "packing: {}{seen}", strategy.name()).expect("writing to a String cannot fail");
    if info.n_truncated_documents + info.n_dropped_documents > 0 {
        writeln!(
            text,
            "documents cut: {} ({} tokens lost), left out: {} ({} tokens)",
            thousands(info.n_truncated_documents),
            thousands(info.n_truncated_tokens),
            thousands(info.n_dropped_documents),
            thousands(info.n_dropped_tokens),
        )
        .expect("as above");
    }
    text.push('\n');
    for index in 0..n_packs.min(reader.n_packs()) {
        let pack = reader.pack(index)?;
        draw_pack(&mut text, index, &pack, info.max_length as usize);
    }
    if n_packs > 0 && reader.n_packs() > 0 {
        match preview::read(artifact)?.and_then(|preview| preview.packs.into_iter().next()) {
            Some(documents) => write_text(&mut text, &documents),
            None => list_tokens(&mut text, &reader.pack(0)?),
        }
    }
    Ok(text)
}

/// A bar: `#` supervised, `-` not, `|` at the end of each document, spaces for what is free.
fn draw_pack(text: &mut String, index: usize, pack: &Pack, max_length: usize) {
    let n_tokens = pack.input_ids.len();
    let scale = max_length.max(1) as f64 / BAR_WIDTH as f64;
    let starts: Vec<usize> = document_starts(pack).collect();
    let bar: String = (0..BAR_WIDTH)
        .map(|cell| {
            let tokens = (cell as f64 * scale) as usize..(((cell + 1) as f64 * scale) as usize).max(1);
            draw_cell(pack, &starts, tokens.start..tokens.end.max(tokens.start + 1).min(n_tokens))
        })
        .collect();
    writeln!(text, "pack {index:<6} [{bar}] {n_tokens} tokens").expect("writing to a String cannot fail");
    let ends = starts.iter().skip(1).copied().chain([n_tokens]);
    let documents: Vec<String> =
        starts.iter().zip(ends).map(|(start, end)| format!("{} ({})", pack.doc_ids[*start], end - start)).collect();
    let shown = documents.len().min(6);
    let more = if documents.len() > shown { format!(", and {} more", documents.len() - shown) } else { String::new() };
    writeln!(text, "  documents (tokens): {}{more}", documents[..shown].join(", ")).expect("as above");
}

/// `starts`: where documents start, rising.
fn draw_cell(pack: &Pack, starts: &[usize], tokens: std::ops::Range<usize>) -> char {
    if tokens.is_empty() {
        return ' ';
    }
    let is_end = |i: usize| i + 1 == pack.input_ids.len() || starts.binary_search(&(i + 1)).is_ok();
    let ends_document = tokens.clone().any(is_end);
    let n_supervised = pack.labels[tokens.clone()].iter().filter(|label| **label != NOT_SUPERVISED).count();
    match (ends_document, n_supervised * 2 >= tokens.len()) {
        (true, _) => '|',
        (false, true) => '#',
        (false, false) => '-',
    }
}

/// Each document of a pack, what is learned of it in brackets.
fn write_text(text: &mut String, documents: &[PreviewDocument]) {
    writeln!(text, "\nthe text of pack 0 (\u{27e6}learned\u{27e7})").expect("writing to a String cannot fail");
    for document in documents {
        writeln!(text, "document {}", document.doc_id).expect("as above");
        let (mut whole, mut learned, mut at) = (String::new(), Vec::new(), 0);
        for piece in &document.pieces {
            let end = at + piece.text.chars().count() as u32;
            learned.extend(piece.is_learned.then_some(at..end));
            whole.push_str(&piece.text);
            at = end;
        }
        for line in wrap(&masked(&whole, &learned), SHOW_WIDTH) {
            writeln!(text, "  {line}").expect("as above");
        }
    }
}

fn list_tokens(text: &mut String, pack: &Pack) {
    let n_listed = pack.input_ids.len().min(N_LISTED);
    writeln!(text, "\nthe first {n_listed} tokens of pack 0 (* supervised)").expect("as above");
    for start in (0..n_listed).step_by(PER_LINE) {
        for i in start..(start + PER_LINE).min(n_listed) {
            let mark = if pack.labels[i] == NOT_SUPERVISED { ' ' } else { '*' };
            write!(text, "{:>7}{mark}", pack.input_ids[i]).expect("as above");
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learned_of_a_document_stands_in_brackets() {
        let piece = |text: &str, is_learned| preview::Piece { text: text.to_string(), is_learned };
        let pieces = vec![piece("<s> Q: hi\nA:", false), piece(" yö</s>", true), piece("\n", false)];
        let mut text = String::new();
        write_text(&mut text, &[PreviewDocument { doc_id: 4, pieces }]);
        assert_eq!(text, "\nthe text of pack 0 (⟦learned⟧)\ndocument 4\n  <s> Q: hi\n  A:⟦ yö</s>⟧\n");
    }

    #[test]
    fn a_pack_is_drawn_to_scale() {
        let pack = Pack {
            input_ids: (0..48).collect(),
            labels: (0..48).map(|i| if i < 16 { NOT_SUPERVISED } else { i }).collect(),
            position_ids: (0..32).chain(0..16).collect(),
            doc_ids: (0..48).map(|i| if i < 32 { 7 } else { 2 }).collect(),
        };
        let mut text = String::new();
        draw_pack(&mut text, 0, &pack, 64);
        let bar = format!("{}{}|{}|{}", "-".repeat(16), "#".repeat(15), "#".repeat(15), " ".repeat(16));
        assert_eq!(text, format!("pack 0      [{bar}] 48 tokens\n  documents (tokens): 7 (32), 2 (16)\n"));
    }
}
