//! `pipe schema`: the form of pipeline files, for editors.

use super::failure::CliError;
use super::session::Session;
use crate::exit_code;
use crate::schema::schema;

pub(super) fn schema_of_files(session: &mut Session<'_>) -> Result<u8, CliError> {
    let schema = serde_json::to_string_pretty(&schema(session.registry)).expect("plain data with text keys");
    session.write(&format!("{schema}\n"))?;
    Ok(exit_code::OK)
}
