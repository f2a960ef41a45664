//! What a run says when it is done: facts, and what was lost or is unusual.

use pipe_contract::Context;
use pipe_records::{PackedInfo, Packing, thousands};

use crate::run::Tally;
use crate::wrapped::WrappedCounts;

/// Facts and lines of a run.
pub(crate) fn report(ctx: &Context<'_>, info: &PackedInfo, tally: &Tally) {
    ctx.fact("packs", thousands(info.n_packs));
    ctx.fact("documents", thousands(info.n_documents));
    ctx.fact("tokens", thousands(info.n_tokens));
    ctx.fact("supervised tokens", thousands(info.n_supervised_tokens));
    ctx.fact("fill", format!("{:.1} %", info.fill * 100.0));
    match &tally.wrapped {
        Some(wrapped) => report_wrapped(ctx, info, wrapped),
        None if info.packing_strategy == Packing::BfdSplit => report_split(ctx, info, tally),
        None if info.n_truncated_documents > 0 => {
            ctx.fact("truncated documents", thousands(info.n_truncated_documents));
            ctx.fact("truncated tokens", thousands(info.n_truncated_tokens));
        }
        None => {}
    }
    if info.n_dropped_documents > 0 {
        ctx.fact("dropped documents", thousands(info.n_dropped_documents));
        ctx.fact("dropped tokens", thousands(info.n_dropped_tokens));
    }
    if tally.n_dropped_as_too_long > 0 {
        let n = thousands(tally.n_dropped_as_too_long);
        ctx.log(format!("documents longer than `max_length` ({}) and left out: {n}", info.max_length));
    }
    let n_unlearnable = info.n_dropped_documents - tally.n_dropped_as_too_long;
    if n_unlearnable > 0 && tally.wrapped.is_none() {
        let n = thousands(n_unlearnable);
        let what = if tally.n_pieces > 0 { "documents or pieces of them" } else { "documents" };
        ctx.warn(format!("{what} left out because nothing in them is supervised: {n}"));
    }
    if tally.n_boundary > 0 {
        let n = thousands(tally.n_boundary);
        ctx.log(format!("documents with a token across the start of the completion, which counts as completion: {n}"));
    }
    if tally.n_special_words > 0 {
        let (n, n_rows) = (thousands(tally.n_special_words), thousands(tally.n_rows));
        ctx.warn(format!(
            "{n} of {n_rows} texts have the words of a special token, which are ordinary characters here: where a template \
             wrote them, connect `model` to `format` as well"
        ));
    }
}

fn report_split(ctx: &Context<'_>, info: &PackedInfo, tally: &Tally) {
    if tally.n_pieces > 0 {
        ctx.fact("split documents", thousands(info.n_truncated_documents));
        ctx.fact("pieces", thousands(tally.n_pieces));
    }
}

fn report_wrapped(ctx: &Context<'_>, info: &PackedInfo, wrapped: &WrappedCounts) {
    ctx.fact("cut documents", thousands(info.n_truncated_documents));
    ctx.warn(format!(
        "documents see each other (`packing_strategy: wrapped`): {} of {} packs hold tokens of several documents, and {} of {} \
         documents are cut where a pack ends",
        thousands(wrapped.n_shared_packs),
        thousands(info.n_packs),
        thousands(info.n_truncated_documents),
        thousands(info.n_documents),
    ));
    if wrapped.n_dropped_packs > 0 {
        ctx.warn(format!(
            "packs left out because nothing in them is supervised: {}, with {} tokens",
            thousands(wrapped.n_dropped_packs),
            thousands(info.n_truncated_tokens)
        ));
    }
}
