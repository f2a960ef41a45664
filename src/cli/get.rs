//! `pipe get [FILE] STAGE[.PORT] --to DIR`: copies what a stage gave out of the store. A file that is there already with other bytes
//! is named and left alone.

use std::fmt::Write as _;

use super::arguments::GetArguments;
use super::failure::CliError;
use super::session::Session;
use super::target::Target;
use crate::exit_code;
use crate::report::numbers::plural;

pub(super) fn get(session: &mut Session<'_>, arguments: &GetArguments) -> Result<u8, CliError> {
    let target = Target::find(session, &arguments.targets, &arguments.overlay)?;
    let (mut n_written, mut n_unchanged) = (0, 0);
    let mut left_alone = Vec::new();
    for port in &target.ports {
        // One port that was named lies in the folder itself, several have a folder each, as below `to:`.
        let to = if target.is_one_port { arguments.to.clone() } else { arguments.to.join(port) };
        let artifact = &target.manifest.outputs[port];
        let restored = target.loaded.store.restore(artifact, &session.io.current_dir.join(&to), None)?;
        n_written += restored.written.len();
        n_unchanged += restored.unchanged.len();
        left_alone.extend(restored.edited);
    }
    let mut text = String::new();
    for path in &left_alone {
        let shown = path.strip_prefix(&session.io.current_dir).unwrap_or(path).display();
        writeln!(text, "`{shown}` has other bytes: it is left as it is").expect("to a String");
    }
    let unchanged = if n_unchanged > 0 { format!(", {n_unchanged} there already") } else { String::new() };
    let to = arguments.to.display();
    writeln!(text, "{} written to {to}{unchanged}", plural(n_written, "file")).expect("to a String");
    session.write(&text)?;
    Ok(if left_alone.is_empty() { exit_code::OK } else { exit_code::STAGE_FAILED })
}
