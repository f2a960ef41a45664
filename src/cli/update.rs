//! `pipe update FILE`: asks again what mutable names stand for, and writes the lock file. Runs nothing.

use std::collections::BTreeSet;

use pipe_contract::Source;

use super::arguments::UpdateArguments;
use super::failure::CliError;
use super::session::{Request, Session};
use crate::exit_code;
use crate::report::numbers::plural;

pub(super) fn update(session: &mut Session<'_>, arguments: &UpdateArguments) -> Result<u8, CliError> {
    let mut loaded = session.load(&Request::new(&arguments.file, &arguments.overlay), None)?;
    let mut asked = BTreeSet::new();
    let mut n_changed = 0;
    let mut sources = Vec::new();
    for stage in &loaded.pipeline.stages {
        let of_stage = |error| CliError::of_stage(&stage.name, &error);
        let Source::Remote { request } = stage.stage.source(&loaded.pipeline.base_dir).map_err(of_stage)? else {
            continue;
        };
        if !asked.insert(request.clone()) {
            continue;
        }
        let id = stage.stage.resolve().map_err(of_stage)?.id;
        loaded.store.memo_put(&request, &id)?;
        let before = loaded.lock.resolve(&request, &id);
        if arguments.json {
            sources.push(serde_json::json!({ "request": request, "id": id, "before": before }));
            continue;
        }
        let line = match before {
            Some(before) if before == id => format!("{request}: {id}, unchanged\n"),
            Some(before) => {
                n_changed += 1;
                format!("{request}: {before} -> {id}\n")
            }
            None => {
                n_changed += 1;
                format!("{request}: {id}\n")
            }
        };
        session.write(&line)?;
    }
    loaded.lock.save()?;
    if arguments.json {
        return session.write_json(serde_json::json!({ "sources": sources })).map(|()| exit_code::OK);
    }
    session.write(&format!("{}, {n_changed} changed\n", plural(asked.len(), "remote source")))?;
    Ok(exit_code::OK)
}
