//! `pipe check FILE...`: reads pipeline files and reports all that is wrong with them. Touches neither store nor network.

use super::arguments::CheckArguments;
use super::failure::CliError;
use super::session::{Request, Session};
use crate::diagnostic::Diagnostics;
use crate::exit_code;
use crate::report::numbers::plural;

pub(super) fn check(session: &mut Session<'_>, arguments: &CheckArguments) -> Result<u8, CliError> {
    let mut code = exit_code::OK;
    for file in &arguments.files {
        let (problems, n_stages) = match session.load_pipeline(&Request::new(file, &arguments.overlay)) {
            Ok(pipeline) => (Diagnostics::default(), pipeline.stages.len()),
            Err(CliError::Unusable(problems)) => (problems, 0),
            Err(error) => return Err(error),
        };
        if !problems.is_empty() {
            code = exit_code::PIPELINE;
        }
        let text = if arguments.json {
            let mut json = problems.to_json();
            json["file"] = file.display().to_string().into();
            format!("{json}\n")
        } else if problems.is_empty() {
            format!("{}: {}, no problems\n", file.display(), plural(n_stages, "stage"))
        } else {
            let screen = problems.render(session.out_style.colour());
            format!("{screen}\n{}: {}\n", file.display(), plural(problems.len(), "problem"))
        };
        session.write(&text)?;
    }
    Ok(code)
}
