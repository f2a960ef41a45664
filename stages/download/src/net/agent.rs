//! Connections: through which proxy, trusting whom, and how long they may be silent.
//!
//! ```text
//! https://host   HTTPS_PROXY, else ALL_PROXY, unless NO_PROXY names the host
//! http://host    HTTP_PROXY, else ALL_PROXY, likewise
//! trust          REQUESTS_CA_BUNDLE, else CURL_CA_BUNDLE, else SSL_CERT_FILE, else Mozilla's list
//! ```
//!
//! The variables mean what they mean to `requests` and `httpx`, below huggingface_hub; a bundle replaces the list. A proxy
//! is asked for a tunnel (`CONNECT`) for both schemes, so it sees no path and no credential.

use std::path::Path;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy};

use super::Patience;
use super::address::Origin;
use crate::environment::{Environment, ProxySettings};
use crate::error::DownloadError;

/// As many as download at once.
const IDLE_CONNECTIONS_MAX: usize = super::transfer::CONNECTIONS_MAX;

/// One agent for each way to a server.
pub(crate) struct Agents {
    direct: Pair,
    /// For `http://` and `https://`.
    proxied: [Option<Pair>; 2],
    settings: ProxySettings,
}

/// For questions and for files: they differ in their time limits.
struct Pair {
    question: Agent,
    file: Agent,
}

impl Agents {
    /// # Errors
    /// `Certificates` for a bundle that cannot be read, `Proxy` for an address that is none.
    pub(crate) fn new(environment: &Environment) -> Result<Self, DownloadError> {
        let roots = match &environment.certificates {
            Some((variable, path)) => read_certificates(variable, path)?,
            None => RootCerts::WebPki,
        };
        let pair = |proxy: Option<Proxy>| {
            let agent = |seconds: u64| {
                let limit = Some(Duration::from_secs(seconds));
                let config = Agent::config_builder()
                    .http_status_as_error(false)
                    .max_redirects(0)
                    .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
                    .accept_encoding("identity")
                    .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
                    .proxy(proxy.clone())
                    .tls_config(TlsConfig::builder().root_certs(roots.clone()).build())
                    .timeout_connect(limit)
                    .timeout_recv_response(limit)
                    .timeout_per_read(limit)
                    .build();
                Agent::new_with_config(config)
            };
            Pair { question: agent(environment.etag_timeout_s), file: agent(environment.read_timeout_s) }
        };
        let settings = environment.proxies.clone();
        let proxied = |found: &Option<(String, String)>| -> Result<Option<Pair>, DownloadError> {
            let Some((variable, address)) = found else { return Ok(None) };
            let proxy = Proxy::new(address).map_err(|_| DownloadError::Proxy { variable: variable.clone() })?;
            Ok(Some(pair(Some(proxy))))
        };
        let proxied = [proxied(&settings.http)?, proxied(&settings.https)?];
        Ok(Agents { direct: pair(None), proxied, settings })
    }

    /// The agent that reaches `address`.
    pub(crate) fn of(&self, address: &str, patience: Patience) -> &Agent {
        let origin = Origin::of(address);
        let proxied = self.proxied[usize::from(origin.is_secure())].as_ref();
        let pair = proxied.filter(|_| !self.settings.is_direct(&origin)).unwrap_or(&self.direct);
        match patience {
            Patience::Question => &pair.question,
            Patience::File => &pair.file,
        }
    }
}

/// The certificates in a PEM file, or in the files of a folder.
fn read_certificates(variable: &str, path: &Path) -> Result<RootCerts, DownloadError> {
    let problem = |problem: String| DownloadError::Certificates {
        variable: variable.to_string(),
        path: path.to_path_buf(),
        problem,
    };
    let files = if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|error| problem(error.to_string()))?;
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|file| file.is_file()).collect()
    } else {
        vec![path.to_path_buf()]
    };
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for file in files {
        let text = std::fs::read(&file).map_err(|error| problem(error.to_string()))?;
        certificates.extend(parse_pem(&text).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        }));
    }
    if certificates.is_empty() {
        return Err(problem("it holds no certificate in PEM form".to_string()));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
