//! `pipe get [FILE] STAGE[.PORT] --to DIR`: copies what a stage gave out of the store. A file that is there already with other bytes
//! is named and left alone.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::arguments::GetArguments;
use super::failure::CliError;
use super::session::Session;
use super::target::Target;
use crate::exit_code;
use crate::report::numbers::plural;

pub(super) fn get(session: &mut Session<'_>, arguments: &GetArguments) -> Result<u8, CliError> {
    let target = Target::find(session, &arguments.targets, &arguments.overlay)?;
    let (mut written, mut unchanged, mut left_alone) = (Vec::new(), Vec::new(), Vec::new());
    for port in &target.ports {
        // One port that was named lies in the folder itself, several have a folder each, as below `to:`.
        let to = if target.is_one_port { arguments.to.clone() } else { arguments.to.join(port) };
        let artifact = &target.manifest.outputs[port];
        let restored = target.loaded.store.restore(artifact, &session.io.current_dir.join(&to), None)?;
        written.extend(restored.written);
        unchanged.extend(restored.unchanged);
        left_alone.extend(restored.edited);
    }
    let code = if left_alone.is_empty() { exit_code::OK } else { exit_code::STAGE_FAILED };
    let shown = |path: &PathBuf| path.strip_prefix(&session.io.current_dir).unwrap_or(path).to_path_buf();
    if arguments.json {
        let [written, unchanged, left_alone] =
            [written, unchanged, left_alone].map(|paths| paths.iter().map(shown).collect::<Vec<_>>());
        let object = serde_json::json!({
            "to": arguments.to, "written": written, "unchanged": unchanged, "left_alone": left_alone,
        });
        return session.write_json(object).map(|()| code);
    }
    let mut text = String::new();
    for path in &left_alone {
        let shown = shown(path).display().to_string();
        writeln!(text, "`{shown}` has other bytes: it is left as it is").expect("to a String");
    }
    let n_unchanged = unchanged.len();
    let unchanged = if n_unchanged > 0 { format!(", {n_unchanged} there already") } else { String::new() };
    let to = arguments.to.display();
    writeln!(text, "{} written to {to}{unchanged}", plural(written.len(), "file")).expect("to a String");
    session.write(&text)?;
    Ok(code)
}
