//! What a report shows of packs: the counts, and how full the first ones are.

use pipe_contract::figures::{Chart, Facts, Mark, Series};
use pipe_contract::{Artifact, Figure, StageError};
use pipe_records::packed::{PACKS_PER_GROUP, n_learned};
use pipe_records::{PackedInfo, PackedReader, thousands};

/// Packs in the chart: one row group, which is all that has to be decoded.
const N_SHOWN: usize = PACKS_PER_GROUP;

/// Facts and a chart.
pub(crate) fn figures(artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
    let reader = PackedReader::open(artifact)?;
    let info = reader.info();
    let mut tokens = Vec::new();
    let mut supervised = Vec::new();
    for index in 0..N_SHOWN.min(reader.n_packs()) {
        let pack = reader.pack(index)?;
        // Packs are counted from 1, and a bar stands around its number.
        let x = index as f64 + 0.5;
        tokens.push((x, pack.input_ids.len() as f64));
        supervised.push((x, n_learned(&pack) as f64));
    }
    let chart = Chart {
        title: format!("Tokens of the first {} packs", tokens.len()),
        x_label: "pack".to_string(),
        y_label: "tokens".to_string(),
        mark: Mark::Bars { width: 1.0 },
        series: vec![
            Series { name: "tokens".to_string(), points: tokens },
            Series { name: "of them supervised".to_string(), points: supervised },
        ],
        threshold: None,
        caption: format!(
            "at most {} tokens a pack, fill of all packs {}",
            thousands(info.max_length),
            percent(info.fill)
        ),
    };
    Ok(vec![Figure::Facts(facts(info)), Figure::Chart(chart)])
}

fn facts(info: &PackedInfo) -> Facts {
    let share = |n: u64, of: u64| percent(n as f64 / of.max(1) as f64);
    let strategy = info.packing_strategy;
    let seen = if strategy.is_contaminating() { ": documents see each other" } else { "" };
    let mut facts = vec![
        ("packing", format!("{}{seen}", strategy.name())),
        ("packs", thousands(info.n_packs)),
        ("most tokens of a pack", thousands(info.max_length)),
        ("documents", thousands(info.n_documents)),
        ("documents per pack", format!("{:.2}", info.n_documents as f64 / info.n_packs.max(1) as f64)),
        ("tokens", thousands(info.n_tokens)),
        (
            "supervised tokens",
            format!("{} ({})", thousands(info.n_supervised_tokens), share(info.n_supervised_tokens, info.n_tokens)),
        ),
        ("fill", percent(info.fill)),
    ];
    if info.n_truncated_documents > 0 {
        let lost =
            format!("{} ({} tokens lost)", thousands(info.n_truncated_documents), thousands(info.n_truncated_tokens));
        facts.push(("documents cut", lost));
    }
    if info.n_dropped_documents > 0 {
        let lost = format!("{} ({} tokens)", thousands(info.n_dropped_documents), thousands(info.n_dropped_tokens));
        facts.push(("documents left out", lost));
    }
    let facts = facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    Facts { title: "Packs".to_string(), facts }
}

/// `97.5 %`.
fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
