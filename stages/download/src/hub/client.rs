//! One GET on the hub: redirects followed by hand, the credential kept at home, trouble waited out a few times.
//!
//! The credential goes to the endpoint's origin only: a large file is answered by a redirect to another origin, which must
//! not see it. Trouble that may pass (no connection, a cut body, HTTP 408, 429, 5xx, an expired address) is tried again up
//! to [`ATTEMPTS_MAX`] times without progress, after `Retry-After` or a doubling pause.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pipe_contract::CancelToken;
use ureq::http::{HeaderMap, Uri};

use super::{Environment, Repository};
use crate::error::DownloadError;

/// Attempts in a row that bring nothing, as many as huggingface_hub makes.
const ATTEMPTS_MAX: u32 = 5;
/// Attempts in all for one file, however much each brings.
const ATTEMPTS_TOTAL_MAX: u32 = 50;
/// The hub needs one redirect, or two for a repository that was renamed.
const REDIRECTS_MAX: u32 = 8;
/// The first pause; doubled each time up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// A server that asks for a longer pause gets an error instead: the user should know.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// Asks the hub.
pub(crate) struct Client<'a> {
    environment: &'a Environment,
    agent: ureq::Agent,
    cancel: CancelToken,
    warn: &'a (dyn Fn(String) + Sync),
}

/// An answer with status 200 or 206, its body not yet read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: ureq::Body,
}

/// Why one attempt failed.
pub(crate) enum Failure {
    /// It may go better next time; `made_progress` starts the count anew.
    Passing {
        error: DownloadError,
        wait: Option<Duration>,
        made_progress: bool,
    },
    Final(DownloadError),
}

impl From<DownloadError> for Failure {
    fn from(error: DownloadError) -> Self {
        Failure::Final(error)
    }
}

impl Failure {
    pub(crate) fn passing(error: DownloadError) -> Self {
        Failure::Passing { error, wait: None, made_progress: false }
    }
}

impl<'a> Client<'a> {
    /// `warn` gets a line for each attempt that failed and is made again.
    pub(crate) fn new(environment: &'a Environment, cancel: CancelToken, warn: &'a (dyn Fn(String) + Sync)) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(environment.read_timeout_s)))
            .build();
        Client { environment, agent: ureq::Agent::new_with_config(config), cancel, warn }
    }

    pub(crate) fn environment(&self) -> &Environment {
        self.environment
    }

    /// Returns an error if the user interrupted.
    pub(crate) fn check_cancelled(&self) -> Result<(), DownloadError> {
        if self.cancel.is_cancelled() { Err(DownloadError::Cancelled) } else { Ok(()) }
    }

    /// Says something that the user should know.
    pub(crate) fn warn(&self, line: String) {
        (self.warn)(line);
    }

    /// The JSON at `path` of the endpoint (or at a whole address), with the headers of the answer.
    pub(crate) fn get_json<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        repository: &Repository,
        revision: &str,
    ) -> Result<(T, HeaderMap), DownloadError> {
        self.retrying(|| {
            let mut answer = self.get(path, None, repository, revision)?;
            // 256 MiB: a page of a listing has at most a thousand files.
            let text = answer.body.with_config().limit(256 << 20).read_to_string();
            let text = text.map_err(|error| Failure::passing(self.network(&error)))?;
            let value = serde_json::from_str(&text).map_err(|error| DownloadError::BadAnswer {
                endpoint: self.environment.endpoint.clone(),
                path: path.to_string(),
                problem: error.to_string(),
            })?;
            Ok((value, answer.headers))
        })
    }

    /// Makes attempts until one succeeds or fails for good.
    pub(crate) fn retrying<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, DownloadError> {
        let (mut n_in_row, mut n_attempts) = (0, 0);
        loop {
            self.check_cancelled()?;
            let (error, wait, made_progress) = match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { error, wait, made_progress }) => (error, wait, made_progress),
            };
            n_attempts += 1;
            n_in_row = if made_progress { 1 } else { n_in_row + 1 };
            let doubled = PAUSE_FIRST * 2_u32.pow(n_in_row - 1);
            let pause = wait.unwrap_or(doubled.min(PAUSE_MAX));
            if n_in_row >= ATTEMPTS_MAX || n_attempts >= ATTEMPTS_TOTAL_MAX || pause > RETRY_AFTER_MAX {
                return Err(error);
            }
            (self.warn)(format!("{error}; trying again in {:.1} s", pause.as_secs_f64()));
            self.pause(pause)?;
        }
    }

    /// One GET, redirects followed. `from`: the first byte wanted, for the rest of a file.
    pub(crate) fn get(
        &self,
        path: &str,
        from: Option<u64>,
        repository: &Repository,
        revision: &str,
    ) -> Result<Answer, Failure> {
        let endpoint = &self.environment.endpoint;
        let home = Origin::of(endpoint);
        let mut address = if path.starts_with('/') { format!("{endpoint}{path}") } else { path.to_string() };
        for _ in 0..=REDIRECTS_MAX {
            let origin = Origin::of(&address);
            let is_home = origin == home;
            let mut request = self.agent.get(&address);
            if let (true, Some(credential)) = (is_home, &self.environment.credential) {
                request = request.header("Authorization", format!("Bearer {credential}"));
            }
            if let Some(from) = from {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| match error {
                ureq::Error::BadUri(_) | ureq::Error::Http(_) => Failure::Final(self.network(&error)),
                error => Failure::passing(self.network(&error)),
            })?;
            let (parts, body) = response.into_parts();
            let status = parts.status.as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                let question = Question { repository, revision, path, is_home };
                return self.judge(Answer { status, headers: parts.headers, body }, &question);
            }
            let target = header(&parts.headers, "location").and_then(|to| follow(&address, to));
            let Some(target) = target else { return Err(self.bad_answer(path, "a redirect to nowhere").into()) };
            if origin.is_secure() && !Origin::of(&target).is_secure() {
                return Err(self.bad_answer(path, "a redirect from https to http").into());
            }
            address = target;
        }
        Err(self.bad_answer(path, "more redirects than make sense").into())
    }

    /// An answer to read, or what its status means. The hub says it in `X-Error-Code`.
    fn judge(&self, answer: Answer, question: &Question) -> Result<Answer, Failure> {
        let Question { repository, revision, path, is_home } = *question;
        let status = answer.status;
        if matches!(status, 200 | 206) {
            return Ok(answer);
        }
        let (endpoint, is_signed_in) = (self.environment.endpoint.clone(), self.environment.credential.is_some());
        let repository = repository.describe();
        let wait = header(&answer.headers, "retry-after").and_then(|text| retry_after(text, &answer.headers));
        let status_error = DownloadError::Status {
            endpoint: endpoint.clone(),
            status,
            path: path.to_string(),
            retry_after_s: wait.map(|wait| wait.as_secs()),
        };
        Err(Failure::Final(match (status, header(&answer.headers, "x-error-code").unwrap_or_default()) {
            (_, "GatedRepo") => DownloadError::Gated { repository, endpoint, is_signed_in },
            (_, "RevisionNotFound") => DownloadError::RevisionNotFound { repository, revision: revision.to_string() },
            (_, "EntryNotFound") => DownloadError::EntryNotFound { repository, file: path.to_string() },
            (401, "RepoNotFound") if is_signed_in => DownloadError::Unauthorised { repository, endpoint, status },
            (_, "RepoNotFound") => DownloadError::RepositoryNotFound { repository, endpoint, is_signed_in },
            // The hub answers 401 for what does not exist where nobody is signed in.
            (401, _) if is_home && !is_signed_in => {
                DownloadError::RepositoryNotFound { repository, endpoint, is_signed_in }
            }
            (401 | 403, _) if is_home => DownloadError::Unauthorised { repository, endpoint, status },
            (404, _) if is_home => DownloadError::RepositoryNotFound { repository, endpoint, is_signed_in },
            // Elsewhere 403 is an address that has expired: the hub gives a fresh one.
            (403 | 408 | 429 | 500..=599, _) => {
                return Err(Failure::Passing { error: status_error, wait, made_progress: false });
            }
            _ => status_error,
        }))
    }

    /// The error of a connection that failed.
    pub(crate) fn network(&self, error: &dyn std::fmt::Display) -> DownloadError {
        DownloadError::Network { endpoint: self.environment.endpoint.clone(), problem: error.to_string() }
    }

    fn bad_answer(&self, path: &str, problem: &str) -> DownloadError {
        let (endpoint, path) = (self.environment.endpoint.clone(), path.to_string());
        DownloadError::BadAnswer { endpoint, path, problem: problem.to_string() }
    }

    /// Sleeps in short pieces, so that an interruption ends it.
    pub(crate) fn pause(&self, duration: Duration) -> Result<(), DownloadError> {
        const PIECE: Duration = Duration::from_millis(50);
        let mut left = duration;
        while !left.is_zero() {
            self.check_cancelled()?;
            std::thread::sleep(left.min(PIECE));
            left = left.saturating_sub(PIECE);
        }
        Ok(())
    }
}

/// What was asked, for the error.
#[derive(Clone, Copy)]
struct Question<'a> {
    repository: &'a Repository,
    revision: &'a str,
    path: &'a str,
    /// Whether the endpoint itself answered.
    is_home: bool,
}

/// Scheme, host and port: what a credential may be sent to.
#[derive(PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn of(address: &str) -> Self {
        let uri: Uri = address.parse().unwrap_or_default();
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Origin { host: uri.host().unwrap_or_default().to_ascii_lowercase(), scheme, port }
    }

    fn is_secure(&self) -> bool {
        self.scheme == "https"
    }
}

/// The address that a `Location` of the answer from `address` means.
fn follow(address: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_string());
    }
    let uri: Uri = address.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let (folder, _) = uri.path().rsplit_once('/')?;
    Some(format!("{scheme}://{authority}{folder}/{location}"))
}

pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Seconds, or a date, compared with the server's own clock where it tells.
fn retry_after(text: &str, headers: &HeaderMap) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = header(headers, "date").and_then(unix_time).or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(now.as_secs()).ok()
    })?;
    Some(Duration::from_secs(u64::try_from(unix_time(text)? - now).unwrap_or(0)))
}

/// Seconds since 1970 of `Wed, 21 Oct 2015 07:28:00 GMT` (RFC 9110, section 5.6.7).
fn unix_time(text: &str) -> Option<i64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut parts = text.split_ascii_whitespace().skip(1);
    let day: i64 = parts.next()?.parse().ok()?;
    let month = i64::try_from(MONTHS.find(parts.next()?)? / 3 + 1).ok()?;
    let year: i64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Days of the proleptic Gregorian calendar: years that begin in March put the leap day last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http() {
        assert_eq!(unix_time("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(unix_time("Wed, 21 Oct 2015 07:28:00 GMT"), Some(1_445_412_480));
        assert_eq!(unix_time("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        assert_eq!(unix_time("soon"), None);
    }

    #[test]
    fn redirects_are_relative_to_where_they_come_from() {
        let to = |location: &str| follow("https://h:8/a/b?c=1", location);
        assert_eq!(to("/x?y").as_deref(), Some("https://h:8/x?y"));
        assert_eq!(to("x").as_deref(), Some("https://h:8/a/x"));
        assert_eq!(to("//cdn/x").as_deref(), Some("https://cdn/x"));
        assert_eq!(to("http://o/x").as_deref(), Some("http://o/x"));
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let same = |a: &str, b: &str| Origin::of(a) == Origin::of(b);
        assert!(same("https://H.co", "https://h.co:443/x"));
        assert!(!same("https://h.co", "http://h.co"));
        assert!(!same("http://h.co:1", "http://h.co:2"));
        assert!(!same("https://h.co", "https://h.co.evil"));
        // What stands before `@` is a user's name, not the host.
        assert!(!same("https://h.co", "https://h.co@evil/x"));
    }
}
