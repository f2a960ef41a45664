//! What the stage kinds of these tests show in a report: one figure of each sort, made from the text of an artifact.

use pipe_contract::Figure;
use pipe_contract::figures::{Chart, Facts, Mark, Sample, Samples, Series, Table, Threshold};

/// Figures of `text`.
pub(crate) fn of(text: &str) -> Vec<Figure> {
    let codes: Vec<(f64, f64)> =
        text.chars().zip(0..).map(|(c, at)| (f64::from(at), f64::from(u32::from(c)))).collect();
    let half: Vec<(f64, f64)> = codes.iter().map(|(at, code)| (*at, code / 2.0)).collect();
    let line = Chart {
        title: "Code points".into(),
        x_label: "position (characters)".into(),
        y_label: "code point".into(),
        mark: Mark::Line,
        series: vec![
            Series { name: "whole".into(), points: codes.clone() },
            Series { name: "half".into(), points: half },
        ],
        threshold: None,
        caption: format!("of {text}"),
    };
    let bars = Chart {
        title: "Heights".into(),
        mark: Mark::Bars { width: 1.0 },
        series: vec![Series { name: "height".into(), points: codes }],
        threshold: Some(Threshold { x: 3.0, label: "threshold 3".into() }),
        caption: String::new(),
        ..line.clone()
    };
    let answers = [("expected", text.to_uppercase()), ("base", text.into()), ("with adapter", text.to_uppercase())];
    let answers = answers.map(|(who, answer)| (who.to_string(), answer)).to_vec();
    vec![
        Figure::Facts(Facts {
            title: "Text".into(),
            facts: vec![
                ("begins with".into(), text.chars().take(3).collect()),
                ("characters".into(), text.chars().count().to_string()),
            ],
        }),
        Figure::Chart(line),
        Figure::Chart(bars),
        Figure::Table(Table {
            title: "Words".into(),
            columns: vec!["word".into(), "length (characters)".into()],
            rows: text.split_whitespace().map(|word| vec![word.into(), word.chars().count().to_string()]).collect(),
        }),
        Figure::Samples(Samples {
            title: "Upper case".into(),
            samples: vec![Sample { prompt: format!("say it louder: {text}"), answers }],
        }),
    ]
}
