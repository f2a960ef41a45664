//! The section of one stage: how it went, what it gave, and all that determined it.

use std::fmt::Write as _;

use pipe_contract::Figure;
use serde_json::Value;

use super::data::{MadeData, ReportData, StageData};
use super::markup::{anchor, badge, escape, time};
use super::{figure, rates};
use crate::events::{Failure, SettingRecord};
use crate::report::numbers::{bytes, count, plural};
use crate::report::shell;
use crate::schedule::Outcome;

/// Lines of the log that stand beside a failure.
const N_LAST_LINES: usize = 12;

/// A `section` element.
pub(super) fn render(stage: &StageData, data: &ReportData) -> String {
    let (name, id) = (escape(&stage.name), anchor(&stage.name));
    let mut html = format!(
        "<section class=\"stage\" id=\"{id}\" aria-labelledby=\"{id}-name\">\n\
         <header><h3 id=\"{id}-name\">{name}</h3><span class=\"kind\">{}</span>{}<span class=\"took\">{}</span></header>\n",
        escape(&stage.kind),
        badge(stage.outcome),
        took(stage)
    );
    if let Some(failure) = &stage.failure {
        html.push_str(&failed(stage, failure, data));
    }
    for failed_try in &stage.failed_tries {
        writeln!(html, "<p class=\"note\">{}</p>", escape(failed_try)).expect("to a String");
    }
    for warning in &stage.warnings {
        writeln!(html, "<p class=\"warning\"><strong>Warning</strong> {}</p>", escape(warning)).expect("to a String");
    }
    for note in &stage.notes {
        writeln!(html, "<p class=\"note\">{}</p>", escape(note)).expect("to a String");
    }
    let facts = facts(stage);
    if !facts.is_empty() {
        html.push_str(&figure::fact_list(&facts));
    }
    for (to, n_left) in &stage.placed {
        let left = match n_left {
            0 => String::new(),
            n => format!(", but for {} there that this store did not write", plural(*n, "file")),
        };
        writeln!(html, "<p>Its outputs are copied to <code>{}</code>{left}.</p>", escape(&to.to_string_lossy()))
            .expect("to a String");
    }
    for (_, figures) in stage.made.iter().flat_map(|made| &made.figures) {
        html.push_str(&figure::render_all(figures));
    }
    html.push_str(&rates::render(stage));
    html.push_str("<div class=\"more\">\n");
    html.push_str(&settings(stage));
    html.push_str(&origins(stage));
    html.push_str(&log(stage));
    html.push_str("</div>\n</section>\n");
    html
}

/// The facts of the stage that its figures do not say again.
fn facts(stage: &StageData) -> Vec<(String, String)> {
    let figures = stage.made.iter().flat_map(|made| &made.figures).flat_map(|(_, figures)| figures);
    let said: Vec<&(String, String)> = figures
        .filter_map(|figure| match figure {
            Figure::Facts(facts) => Some(&facts.facts),
            _ => None,
        })
        .flatten()
        .collect();
    stage.facts.iter().filter(|fact| !said.contains(fact)).cloned().collect()
}

/// `2 min 03 s on 2 threads`, or when it was made.
fn took(stage: &StageData) -> String {
    if let (Some(duration), true) = (stage.duration(), stage.started_at.is_some()) {
        let gpus = if stage.n_gpus > 0 { format!(" and {}", plural(stage.n_gpus, "GPU")) } else { String::new() };
        return format!("{} on {}{gpus}", time(duration), plural(stage.n_threads, "thread"));
    }
    match stage.made.as_ref().and_then(|made| made.made_in.as_ref()) {
        Some((run_id, duration)) => format!("made in run {} in {}", escape(run_id), time(*duration)),
        None => String::new(),
    }
}

fn failed(stage: &StageData, failure: &Failure, data: &ReportData) -> String {
    if stage.outcome != Some(Outcome::Failed) {
        return format!("<p class=\"note\">{}</p>\n", escape(&failure.message));
    }
    let mut html = format!(
        "<div class=\"failure\"><p><strong>error[{}]</strong> {}</p>",
        escape(&failure.slug),
        escape(&failure.message)
    );
    if let Some(help) = &failure.help {
        write!(html, "<p><strong>help</strong> {}</p>", escape(help)).expect("to a String");
    }
    if !stage.log.is_empty() {
        let first = stage.log.len().saturating_sub(N_LAST_LINES);
        let lines: Vec<String> = stage.log.iter().skip(first).map(|line| escape(line)).collect();
        write!(html, "<p>Its last lines:</p><pre>{}</pre>", lines.join("\n")).expect("to a String");
    }
    if stage.checkpoint.is_some() {
        html.push_str("<p>Its state at the last checkpoint is kept.</p>");
    }
    writeln!(html, "<p>Go on with <code>{}</code></p></div>", escape(&shell::run_command(&data.request)))
        .expect("to a String");
    html
}

fn settings(stage: &StageData) -> String {
    let Some(spec) = stage.spec.as_ref().filter(|spec| !spec.settings.is_empty()) else { return String::new() };
    let n_given = spec.settings.iter().filter(|setting| setting.is_given).count();
    let mut html = format!(
        "<details><summary>Settings <small>{}, {n_given} given</small></summary><div class=\"scroll\"><table class=\"settings\">\
         <caption class=\"unseen\">Settings of {}</caption>\
         <thead><tr><th scope=\"col\">setting</th><th scope=\"col\">value</th><th scope=\"col\">from</th></tr></thead><tbody>",
        spec.settings.len(),
        escape(&stage.name)
    );
    for SettingRecord { name, value, is_given } in &spec.settings {
        let (class, from) = match (is_given, value.is_null()) {
            (true, _) => ("given", "pipeline"),
            (false, false) => ("default", "default"),
            (false, true) => ("default", "not set"),
        };
        write!(
            html,
            "<tr class=\"{class}\"><th scope=\"row\"><code>{}</code></th><td><code>{}</code></td><td>{from}</td></tr>",
            escape(name),
            escape(&setting_value(value))
        )
        .expect("to a String");
    }
    html.push_str("</tbody></table></div></details>\n");
    html
}

/// As it would be written in a pipeline file.
fn setting_value(value: &Value) -> String {
    match value {
        Value::Null => "\u{2013}".to_string(),
        Value::String(text) if text.is_empty() => "''".to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(setting_value).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Inputs, outputs, and the keys they have.
fn origins(stage: &StageData) -> String {
    let Some(made) = &stage.made else { return String::new() };
    let MadeData { manifest, preimage, .. } = made;
    let mut html = String::from("<details><summary>Digests <small>inputs, outputs, keys</small></summary>");
    let from = |port: &str| stage.spec.as_ref().and_then(|spec| spec.inputs.get(port)).cloned().unwrap_or_default();
    let inputs = preimage.get("inputs").and_then(Value::as_object);
    let rows: Vec<[String; 4]> = inputs
        .into_iter()
        .flatten()
        .map(|(port, input)| {
            let text = |name: &str| input.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
            [port.clone(), from(port), text("kind"), text("digest")]
        })
        .collect();
    html.push_str(&digest_table("Inputs", ["port", "from", "kind", "digest"], &rows));
    let mut rows = Vec::new();
    for (port, artifact) in &manifest.outputs {
        let size: u64 = artifact.files.values().map(|file| file.size_bytes).sum();
        let n_files = plural(artifact.files.len(), "file");
        rows.push([
            port.clone(),
            format!("{n_files}, {}", bytes(size)),
            artifact.kind.to_string(),
            artifact.digest.clone(),
        ]);
        let files = artifact.files.iter();
        rows.extend(files.map(|(name, file)| {
            [String::new(), name.clone(), format!("{} B", count(file.size_bytes)), file.digest.clone()]
        }));
    }
    html.push_str(&digest_table("Outputs", ["port", "holds", "kind or size", "digest"], &rows));
    html.push_str(&keys(made));
    html.push_str("</details>\n");
    html
}

fn digest_table(title: &str, columns: [&str; 4], rows: &[[String; 4]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head: String = columns.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    let row = |[port, what, kind, digest]: &[String; 4]| {
        let [port, what, kind, digest] = [port, what, kind, digest].map(|text| escape(text));
        format!("<tr><td>{port}</td><td>{what}</td><td>{kind}</td><td><code class=\"digest\">{digest}</code></td></tr>")
    };
    let body: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\"><table><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
}

fn keys(made: &MadeData) -> String {
    let manifest = &made.manifest;
    let mut rows = vec![
        ("stage kind", format!("{}, version {}", manifest.kind, manifest.kind_version)),
        ("semantic key", manifest.semantic_key.clone()),
        ("fingerprint", manifest.fingerprint.clone()),
        (
            "compute class",
            manifest.compute_class.clone().unwrap_or_else(|| "any: the bytes do not depend on it".into()),
        ),
    ];
    rows.extend(manifest.resolved.clone().map(|id| ("resolved to", id)));
    let files = made.preimage.get("source").and_then(|source| source.get("files")).and_then(Value::as_object);
    let files: Vec<(&String, &str)> =
        files.into_iter().flatten().filter_map(|(name, digest)| Some((name, digest.as_str()?))).collect();
    let row = |(name, value): &(&str, String)| {
        format!("<tr><th scope=\"row\">{name}</th><td><code class=\"digest\">{}</code></td></tr>", escape(value))
    };
    let mut body: String = rows.iter().map(row).collect();
    for (name, digest) in files {
        write!(
            body,
            "<tr><th scope=\"row\">source {}</th><td><code class=\"digest\">{}</code></td></tr>",
            escape(name),
            escape(digest)
        )
        .expect("to a String");
    }
    format!("<div class=\"scroll\"><table><caption>Keys</caption><tbody>{body}</tbody></table></div>")
}

fn log(stage: &StageData) -> String {
    if stage.log.is_empty() {
        return String::new();
    }
    let n_lines = stage.log.len() + stage.n_log_lines_left_out;
    let left_out = match stage.n_log_lines_left_out {
        0 => String::new(),
        n => format!("<p class=\"note\">The first {} are left out.</p>", plural(n, "line")),
    };
    let lines: Vec<String> = stage.log.iter().map(|line| escape(line)).collect();
    format!(
        "<details><summary>Log <small>{}</small></summary>{left_out}<pre>{}</pre></details>\n",
        plural(n_lines, "line"),
        lines.join("\n")
    )
}
