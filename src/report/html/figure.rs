//! What a stage kind shows of an artifact, as HTML: tables, facts and samples here, charts in [`super::chart`].

use std::fmt::Write as _;

use pipe_contract::Figure;
use pipe_contract::figures::{Facts, Sample, Samples, Table};

use super::chart;
use super::markup::{escape, value};

/// Rows of a table that are shown; a report is not a data file.
const N_ROWS_MAX: usize = 200;
/// Samples that are shown without a click.
const N_OPEN_SAMPLES: usize = 6;
/// What the base is measured against, by the name that stages give it.
const EXPECTED: &str = "expected";

/// The figures of one output: charts side by side, the rest below each other, in the order of the stage kind.
pub(super) fn render_all(figures: &[Figure]) -> String {
    let mut html = String::new();
    for group in figures.chunk_by(|a, b| is_chart(a) && is_chart(b)) {
        let shown: String = group.iter().map(render).collect();
        if is_chart(&group[0]) {
            write!(html, "<div class=\"charts\">{shown}</div>").expect("to a String");
        } else {
            html.push_str(&shown);
        }
    }
    html
}

fn is_chart(figure: &Figure) -> bool {
    matches!(figure, Figure::Chart(_))
}

fn render(figure: &Figure) -> String {
    match figure {
        Figure::Chart(chart) => chart::render(chart),
        Figure::Table(table) => render_table(table),
        Figure::Facts(facts) => render_facts(facts),
        Figure::Samples(samples) => render_samples(samples),
    }
}

fn render_table(table: &Table) -> String {
    // A column of numbers is read from its right end.
    let is_number = |text: &str| text.chars().any(|c| c.is_ascii_digit()) && !text.chars().any(|c| c.is_alphabetic());
    let classes: Vec<&str> = (0..table.columns.len())
        .map(|column| table.rows.iter().all(|row| row.get(column).is_none_or(|cell| is_number(cell))))
        .map(|is_numeric| if is_numeric && !table.rows.is_empty() { " class=\"num\"" } else { "" })
        .collect();
    let class = |column: usize| classes.get(column).copied().unwrap_or_default();
    let mut html = format!("<div class=\"scroll\"><table><caption>{}</caption><thead><tr>", escape(&table.title));
    for (column, name) in table.columns.iter().enumerate() {
        write!(html, "<th scope=\"col\"{}>{}</th>", class(column), escape(name)).expect("to a String");
    }
    html.push_str("</tr></thead><tbody>");
    for row in table.rows.iter().take(N_ROWS_MAX) {
        html.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            write!(html, "<td{}>{}</td>", class(column), value(cell)).expect("to a String");
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>\n");
    if table.rows.len() > N_ROWS_MAX {
        let n_more = table.rows.len() - N_ROWS_MAX;
        writeln!(html, "<p class=\"note\">{n_more} more rows are not shown.</p>").expect("to a String");
    }
    html
}

fn render_facts(facts: &Facts) -> String {
    format!("<h4>{}</h4>\n{}", escape(&facts.title), fact_list(&facts.facts))
}

/// Names with values.
pub(super) fn fact_list(facts: &[(String, String)]) -> String {
    let entry =
        |(name, shown): &(String, String)| format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), value(shown));
    format!("<dl class=\"facts\">{}</dl>\n", facts.iter().map(entry).collect::<String>())
}

fn render_samples(samples: &Samples) -> String {
    let mut html = format!("<h4>{}</h4>\n", escape(&samples.title));
    let (open, folded) = samples.samples.split_at(samples.samples.len().min(N_OPEN_SAMPLES));
    html.push_str(&sample_list(open));
    if !folded.is_empty() {
        writeln!(html, "<details><summary>{} more samples</summary>{}</details>", folded.len(), sample_list(folded))
            .expect("to a String");
    }
    html
}

fn sample_list(samples: &[Sample]) -> String {
    format!("<ol class=\"samples\">{}</ol>\n", samples.iter().map(render_sample).collect::<String>())
}

fn render_sample(sample: &Sample) -> String {
    let expected = sample.answers.iter().find(|(who, _)| who == EXPECTED).map(|(_, text)| text.trim());
    let mut html = format!(
        "<li><div class=\"prompt\"><span class=\"who\">prompt</span><pre dir=\"auto\">{}</pre></div><div class=\"answers\">",
        escape(&sample.prompt)
    );
    for (who, text) in &sample.answers {
        let verdict = match expected {
            Some(expected) if who != EXPECTED && text.trim() == expected => {
                " <span class=\"same\">\u{2713} as expected</span>"
            }
            Some(_) if who != EXPECTED => " <span class=\"other\">\u{2260} expected</span>",
            _ => "",
        };
        let shown = if text.is_empty() { "<i>nothing</i>".to_string() } else { escape(text) };
        write!(html, "<div><span class=\"who\">{}{verdict}</span><pre dir=\"auto\">{shown}</pre></div>", escape(who))
            .expect("to a String");
    }
    html.push_str("</div></li>");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_says_who_is_right() {
        let answers = [("expected", "b a"), ("base", "a <b"), ("with adapter", "b a\n")];
        let answers = answers.map(|(who, text)| (who.to_string(), text.to_string())).to_vec();
        let html = render_sample(&Sample { prompt: "reverse: a b".into(), answers });
        assert!(
            html.contains("base <span class=\"other\">\u{2260} expected</span></span><pre dir=\"auto\">a &lt;b</pre>"),
            "{html}"
        );
        assert!(html.contains("with adapter <span class=\"same\">\u{2713} as expected</span>"), "{html}");
        assert!(html.contains("expected</span><pre dir=\"auto\">b a</pre>"), "{html}");
    }

    #[test]
    fn columns_of_numbers_stand_right() {
        let rows = [["median", "1,024", "3.5 %"], ["longest", "9", "-"]];
        let html = render_table(&Table {
            title: "Lengths".into(),
            columns: ["", "characters", "share"].map(String::from).to_vec(),
            rows: rows.iter().map(|row| row.map(String::from).to_vec()).collect(),
        });
        assert!(html.contains("<caption>Lengths</caption>"), "{html}");
        assert!(html.contains("<td>median</td><td class=\"num\">1,024</td><td>3.5 %</td>"), "{html}");
    }

    #[test]
    fn charts_share_a_row() {
        let table = || Figure::Table(Table { title: String::new(), columns: vec![], rows: vec![] });
        let chart = || {
            Figure::Chart(pipe_contract::figures::Chart {
                title: "Loss".into(),
                x_label: "optimizer step".into(),
                y_label: "loss (nats)".into(),
                mark: pipe_contract::figures::Mark::Line,
                series: vec![],
                threshold: None,
                caption: String::new(),
            })
        };
        let html = render_all(&[chart(), chart(), table(), chart()]);
        assert_eq!(html.matches("<div class=\"charts\">").count(), 2, "{html}");
        assert!(html.contains("There is nothing to draw"), "{html}");
    }
}
