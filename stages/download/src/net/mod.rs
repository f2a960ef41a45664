//! HTTP as downloads need it: one GET at a time, trouble waited out, a file in parallel ranges, checksums on the way.
//!
//! ```text
//! Net        environment, connections, cancellation, warnings           attempts, pauses, Retry-After
//! agent      proxies, certificate authorities, time limits
//! transfer   one file: resume -> ranges -> checksums -> rename
//! ```
//!
//! It knows nothing of the hub, of S3 or of where files end up. It deliberately sends nothing but questions.

pub(crate) mod address;
mod agent;
pub(crate) mod checksum;
mod crc;
mod lock;
mod ranges;
mod retry_after;
pub(crate) mod transfer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pipe_contract::CancelToken;
use ureq::http::HeaderMap;

pub(crate) use lock::lock;
pub(crate) use retry_after::retry_after;

use crate::environment::Environment;
use crate::error::DownloadError;

/// Attempts in a row that bring nothing, as many as huggingface_hub makes.
const ATTEMPTS_MAX: u32 = 5;
/// Attempts in all for one request, however much each brings.
const ATTEMPTS_TOTAL_MAX: u32 = 50;
/// The longest pause of our own choice.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// A server that asks for a longer pause gets an error instead: the user should know.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// What every request shares.
pub(crate) struct Net<'a> {
    pub(crate) environment: &'a Environment,
    agents: agent::Agents,
    cancel: CancelToken,
    /// Set where one of several downloads has failed: the others need not go on.
    is_stopped: AtomicBool,
    warn: &'a (dyn Fn(String) + Sync),
}

/// An answer, its body not yet read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: ureq::Body,
}

impl Answer {
    /// The text of a header; `None` where it is missing or not ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Whether the headers say how the bytes of the body are counted. Where they do not, the body may be one that was packed
    /// unasked (ureq unpacks gzip and takes the length away), so that ranges in the headers are not those of the bytes.
    pub(crate) fn is_counted(&self) -> bool {
        ["content-length", "transfer-encoding"].iter().any(|name| self.header(name).is_some())
    }

    /// Reads the short body of an answer that is not wanted, so that its connection can be used again.
    pub(crate) fn drain(mut self) {
        const BYTES_MAX: u64 = 1 << 14;
        let length = self.header("content-length").and_then(|length| length.parse().ok());
        if length.is_some_and(|length: u64| length <= BYTES_MAX) {
            let _ = self.body.with_config().limit(BYTES_MAX).read_to_vec();
        }
    }
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

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    /// The headers of the answer alone.
    Head,
}

/// How long a request may be silent: before its answer, and between two pieces of it.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// `HF_HUB_ETAG_TIMEOUT`: questions about files.
    Question,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: the files themselves.
    File,
}

impl<'a> Net<'a> {
    /// `warn` gets a line for each attempt that failed and is made again.
    ///
    /// # Errors
    /// `Certificates` or `Proxy` for settings of the environment that cannot be used.
    pub(crate) fn new(
        environment: &'a Environment,
        cancel: CancelToken,
        warn: &'a (dyn Fn(String) + Sync),
    ) -> Result<Self, DownloadError> {
        let agents = agent::Agents::new(environment)?;
        Ok(Net { environment, agents, cancel, is_stopped: AtomicBool::new(false), warn })
    }

    /// Returns an error if the user interrupted, or another download of the same stage failed.
    pub(crate) fn check_cancelled(&self) -> Result<(), DownloadError> {
        let is_stopped = self.is_stopped.load(Ordering::Relaxed) || self.cancel.is_cancelled();
        if is_stopped { Err(DownloadError::Cancelled) } else { Ok(()) }
    }

    /// Ends the other downloads soon.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Says something that the user should know.
    pub(crate) fn warn(&self, line: String) {
        (self.warn)(line);
    }

    /// One GET of `address`, whatever its status; no redirect is followed.
    pub(crate) fn get(&self, address: &str, headers: &[(&str, String)], patience: Patience) -> Result<Answer, Failure> {
        self.send(Method::Get, address, headers, patience)
    }

    /// One request, likewise.
    pub(crate) fn send(
        &self,
        method: Method,
        address: &str,
        headers: &[(&str, String)],
        patience: Patience,
    ) -> Result<Answer, Failure> {
        let agent = self.agents.of(address, patience);
        let request = match method {
            Method::Get => agent.get(address),
            Method::Head => agent.head(address),
        };
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        let response = request.call().map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Rustls(_) | ureq::Error::Tls(_) => {
                Failure::Final(network(address, &error))
            }
            // What rustls finds wrong with a certificate comes as an error of the connection.
            ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
                Failure::Final(network(address, &io))
            }
            error => Failure::passing(network(address, &error)),
        })?;
        let (parts, body) = response.into_parts();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
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
            let doubled = self.environment.first_pause * 2_u32.pow(n_in_row - 1);
            let pause = wait.unwrap_or(doubled.min(PAUSE_MAX));
            if n_in_row >= ATTEMPTS_MAX || n_attempts >= ATTEMPTS_TOTAL_MAX || pause > RETRY_AFTER_MAX {
                return Err(error);
            }
            self.warn(format!("{error}; trying again in {:.1} s", pause.as_secs_f64()));
            self.pause(pause)?;
        }
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

/// The error of a connection to `address` that failed.
pub(crate) fn network(address: &str, problem: &dyn std::fmt::Display) -> DownloadError {
    DownloadError::Network { endpoint: address::origin_text(address), problem: problem.to_string() }
}

/// The text of a header; `None` where it is missing or not ASCII.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
