//! Environment variables, and the hub they lead to.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use pipe_settings::nearest;

use super::Check;
use crate::cli::env::NAMES;
use crate::cli::session::Session;
use crate::registry::{self, Hub};

/// How long the hub may take to answer: a person waits for it.
const HUB_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn checks(session: &Session<'_>) -> Vec<Check> {
    let mut checks = vec![names(&session.io.environment.pipe_names)];
    // Without the kind, nothing of a run asks the hub.
    if session.registry.get("download").is_some()
        && let Some(hub) = registry::hub()
    {
        checks.push(cache(&hub.cache));
        checks.push(reach(&hub));
    }
    checks
}

/// A misspelled variable is not heard.
fn names(set: &[String]) -> Check {
    let unknown: Vec<&String> = set.iter().filter(|name| !NAMES.contains(&name.as_str())).collect();
    let Some(first) = unknown.first() else {
        let set = if set.is_empty() { "no PIPE_ variable is set".into() } else { set.join(", ") };
        return Check::ok("environment", set);
    };
    let quoted: Vec<String> = unknown.iter().map(|name| format!("`{name}`")).collect();
    let help = match nearest(first, &NAMES) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`pipe --help` names those that are read".into(),
    };
    Check::warning("environment", format!("{}: nothing reads it", quoted.join(", ")), help)
}

fn cache(folder: &Path) -> Check {
    let Some(existing) = folder.ancestors().find(|folder| folder.is_dir()) else {
        return Check::problem(
            "downloads",
            format!("`{}` cannot be made", folder.display()),
            "set HF_HOME to a folder of yours",
        );
    };
    let probe = existing.join(format!(".pipe-doctor-{}", std::process::id()));
    let written = fs::write(&probe, "").and_then(|()| fs::remove_file(&probe));
    match written {
        Ok(()) => Check::ok("downloads", format!("{}, writable", folder.display())),
        Err(error) => {
            let found = format!("`{}` cannot be written: {error}", folder.display());
            Check::problem("downloads", found, "make it writable, or set HF_HOME to a folder of yours")
        }
    }
}

/// Asked for a connection, no more. Being alone is no problem by itself: what was downloaded is there.
fn reach(hub: &Hub) -> Check {
    let credential = if hub.has_credential { "with" } else { "without" };
    let about = format!("{}, {credential} a credential", hub.endpoint);
    if hub.is_offline {
        return Check::ok("hub", format!("{about}; not asked: HF_HUB_OFFLINE is set"));
    }
    let Some(address) = address(&hub.endpoint) else {
        return Check::problem(
            "hub",
            format!("HF_ENDPOINT is `{}`", hub.endpoint),
            "it begins with https:// or http://",
        );
    };
    let (sender, answer) = mpsc::channel();
    // Looking a name up has no time limit of its own.
    std::thread::spawn(move || {
        let found = address.to_socket_addrs().map(|mut found| found.next());
        let connected = found.and_then(|found| {
            let found = found.ok_or_else(|| std::io::Error::other("the name has no address"))?;
            TcpStream::connect_timeout(&found, HUB_TIMEOUT)
        });
        drop(sender.send(connected.map(drop).map_err(|error| error.to_string())));
    });
    let help = "downloads will fail; what is in the cache is used. HF_ENDPOINT names another hub, HTTPS_PROXY a proxy";
    match answer.recv_timeout(HUB_TIMEOUT) {
        Ok(Ok(())) => Check::ok("hub", format!("{about}, reachable")),
        Ok(Err(error)) => Check::warning("hub", format!("{about}, not reachable: {error}"), help),
        Err(_) => Check::warning("hub", format!("{about}, no answer within {} s", HUB_TIMEOUT.as_secs()), help),
    }
}

/// `HOST:PORT` of an address.
fn address(endpoint: &str) -> Option<String> {
    let (rest, port) = match (endpoint.strip_prefix("https://"), endpoint.strip_prefix("http://")) {
        (Some(rest), _) => (rest, 443),
        (None, Some(rest)) => (rest, 80),
        (None, None) => return None,
    };
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(if has_port { host.to_string() } else { format!("{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_an_endpoint() {
        let table = [
            ("https://huggingface.co", Some("huggingface.co:443")),
            ("http://localhost:8000/hub", Some("localhost:8000")),
            ("http://hub/", Some("hub:80")),
            ("hub", None),
            ("https://", None),
        ];
        for (endpoint, expected) in table {
            assert_eq!(address(endpoint).as_deref(), expected, "{endpoint}");
        }
    }

    #[test]
    fn a_misspelled_variable_is_named_with_the_one_that_was_meant() {
        assert_eq!(names(&["PIPE_STORE".into()]), Check::ok("environment", "PIPE_STORE"));
        let expected = Check::warning("environment", "`PIPE_THREAD`: nothing reads it", "did you mean `PIPE_THREADS`?");
        assert_eq!(names(&["PIPE_THREAD".into(), "PIPE_STORE".into()]), expected);
    }
}
