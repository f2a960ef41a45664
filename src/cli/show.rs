//! `pipe show [FILE] STAGE[.PORT]`: looks into what a stage gave with the settings as they are now.

use super::arguments::ShowArguments;
use super::failure::CliError;
use super::session::Session;
use super::target::Target;
use crate::exit_code;

pub(super) fn show(session: &mut Session<'_>, arguments: &ShowArguments) -> Result<u8, CliError> {
    let target = Target::find(session, &arguments.targets, &arguments.overlay)?;
    let name = target.name();
    if arguments.json {
        let object = to_json(&target, arguments.n_rows)?;
        return session.write_json(object).map(|()| exit_code::OK);
    }
    for (position, port) in target.ports.iter().enumerate() {
        let artifact = target.loaded.store.artifact(&target.manifest, port)?;
        if target.ports.len() > 1 {
            let line = format!("{name}.{port} ({})", artifact.kind);
            let gap = if position == 0 { "" } else { "\n" };
            session.write(&format!("{gap}{}\n", session.out_style.bold(&line)))?;
        }
        let kind = target.loaded.pipeline.stages[target.stage].kind;
        let mut text =
            kind.show(port, &artifact, arguments.n_rows).map_err(|error| CliError::of_stage(name, &error))?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        session.write(&session.out_style.learned(&text))?;
    }
    Ok(exit_code::OK)
}

/// What is in each output, and what a person is shown of it.
fn to_json(target: &Target, n_rows: usize) -> Result<serde_json::Value, CliError> {
    let kind = target.loaded.pipeline.stages[target.stage].kind;
    let mut outputs = Vec::new();
    for port in &target.ports {
        let artifact = target.loaded.store.artifact(&target.manifest, port)?;
        let text = kind.show(port, &artifact, n_rows).map_err(|error| CliError::of_stage(target.name(), &error))?;
        let file = |(name, file): (&String, &pipe_contract::ArtifactFile)| serde_json::json!({ "name": name, "size_bytes": file.size_bytes, "digest": file.digest, "path": file.path });
        outputs.push(serde_json::json!({
            "port": port,
            "kind": artifact.kind,
            "digest": artifact.digest,
            "files": artifact.files.iter().map(file).collect::<Vec<_>>(),
            "text": text,
        }));
    }
    Ok(serde_json::json!({
        "stage": target.name(),
        "fingerprint": target.manifest.fingerprint,
        "facts": target.manifest.facts,
        "outputs": outputs,
    }))
}
