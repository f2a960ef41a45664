//! Questions to the hub, and files from it: redirects followed by hand, the credential kept at home.
//!
//! ```text
//! /api/models/ID/...        JSON from the endpoint; 307 to another ID where the repository was renamed
//! /ID/resolve/COMMIT/PATH   the bytes, or 302 to a signed address of another origin, which must not see the credential
//! ```
//!
//! A signed address is kept for the ranges of its file, and asked for anew when it has expired.

use std::sync::{Mutex, PoisonError};

use super::Repository;
use super::listing::{RepoFile, file_address};
use crate::error::DownloadError;
use crate::net::address::{Origin, follow, origin_text};
use crate::net::checksum::is_hex;
use crate::net::transfer::{Range, Remote};
use crate::net::{Answer, Failure, Net, Patience, retry_after};

/// The hub needs one redirect, or two for a repository that was renamed.
const REDIRECTS_MAX: u32 = 8;

/// Asks the hub.
pub(crate) struct Client<'a> {
    pub(crate) net: &'a Net<'a>,
    /// For messages: the endpoint without user and password.
    origin: String,
    home: Origin,
    /// New names of repositories that were told already.
    renamed: Mutex<Vec<String>>,
}

/// What is asked, for the error.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) revision: &'a str,
    /// A path of the endpoint, or a whole address.
    pub(crate) path: &'a str,
    /// For a file: its etag by the listing.
    pub(crate) etag: Option<&'a str>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(net: &'a Net<'a>) -> Self {
        let endpoint = &net.environment.endpoint;
        Client { net, origin: origin_text(endpoint), home: Origin::of(endpoint), renamed: Mutex::default() }
    }

    /// The endpoint, for messages.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The JSON that answers `question`. `examine` may refuse it with a reason, and sees the answer's headers.
    pub(crate) fn get_json<T: serde::de::DeserializeOwned, U>(
        &self,
        question: &Question,
        examine: impl Fn(T, &ureq::http::HeaderMap) -> Result<U, String>,
    ) -> Result<U, DownloadError> {
        let bad = |problem: String| Failure::passing(self.bad_answer(question.path, &problem));
        self.net.retrying(|| {
            let (mut answer, _) = self.get(question, None, Patience::Question)?;
            // 256 MiB: a page of a listing has at most a thousand files.
            let text = answer.body.with_config().limit(256 << 20).read_to_string();
            let text = text.map_err(|error| Failure::passing(self.network(&error)))?;
            let value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
            examine(value, &answer.headers).map_err(bad)
        })
    }

    /// One GET, redirects followed: an answer with status 200 or 206, and the address that gave it.
    fn get(&self, question: &Question, range: Option<Range>, patience: Patience) -> Result<(Answer, String), Failure> {
        let path = question.path;
        let endpoint = &self.net.environment.endpoint;
        let mut address = if path.starts_with('/') { format!("{endpoint}{path}") } else { path.to_string() };
        for _ in 0..=REDIRECTS_MAX {
            let origin = Origin::of(&address);
            let answer = self.get_at(&address, range, patience)?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok((self.judge(answer, question, origin == self.home)?, address));
            }
            if origin == self.home {
                self.refuse_other_file(&answer, question)?;
            }
            let target = answer.header("location").and_then(|to| follow(&address, to));
            // A header may be lost on the way, so it is asked again.
            let Some(target) = target else {
                return Err(Failure::passing(self.bad_answer(path, "a redirect to nowhere")));
            };
            if origin.is_secure() && !Origin::of(&target).is_secure() {
                return Err(self.bad_answer(path, "a redirect from https to http").into());
            }
            self.tell_new_name(question, &target);
            address = target;
            answer.drain();
        }
        Err(self.bad_answer(path, "more redirects than make sense").into())
    }

    /// One GET of an address, with the credential if it is the endpoint's.
    fn get_at(&self, address: &str, range: Option<Range>, patience: Patience) -> Result<Answer, Failure> {
        let mut headers = Vec::new();
        if let (true, Some(credential)) = (Origin::of(address) == self.home, &self.net.environment.credential) {
            headers.push(("Authorization", format!("Bearer {credential}")));
        }
        if let Some(range) = range.and_then(Range::header) {
            headers.push(("Range", range));
        }
        self.net.get(address, &headers, patience)
    }

    /// An answer to read, or what its status means. The hub says it in `X-Error-Code`.
    fn judge(&self, answer: Answer, question: &Question, is_home: bool) -> Result<Answer, Failure> {
        let status = answer.status;
        if matches!(status, 200 | 206) {
            if is_home {
                self.refuse_other_file(&answer, question)?;
            }
            return Ok(answer);
        }
        let Question { repository, revision, path, .. } = *question;
        let (endpoint, is_signed_in) = (self.origin.clone(), self.net.environment.credential.is_some());
        let repository = repository.describe();
        let wait = retry_after(&answer.headers);
        let status_error = DownloadError::Status {
            endpoint: endpoint.clone(),
            status,
            path: path.to_string(),
            retry_after_s: wait.map(|wait| wait.as_secs()),
        };
        Err(Failure::Final(match (status, answer.header("x-error-code").unwrap_or_default()) {
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

    /// The hub says which file it is about to give: a listing that went wrong on its way is noticed before the bytes come.
    fn refuse_other_file(&self, answer: &Answer, question: &Question) -> Result<(), Failure> {
        let Some(wanted) = question.etag else { return Ok(()) };
        let other = |problem: String| Err(Failure::passing(self.bad_answer(question.path, &problem)));
        if let Some(commit) = answer.header("x-repo-commit").filter(|commit| *commit != question.revision) {
            return other(format!("it is of the commit {commit}"));
        }
        let etag = answer.header("x-linked-etag").or_else(|| answer.header("etag")).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        if etag != wanted && etag.len() == wanted.len() && is_hex(etag) {
            return other(format!("its etag is {etag}, but {wanted} in the listing"));
        }
        Ok(())
    }

    /// Warns once where a redirect leads to the same thing of a repository with another name.
    fn tell_new_name(&self, question: &Question, target: &str) {
        let old = &question.repository.id;
        let Some((front, back)) = question.path.split_once(&format!("/{old}/")) else { return };
        let target = target.strip_prefix(self.net.environment.endpoint.as_str()).unwrap_or(target);
        let new = target.strip_prefix(front).and_then(|rest| rest.strip_suffix(back));
        let Some(new) = new.map(|new| new.trim_matches('/')).filter(|new| crate::local::is_hub_id(new)) else { return };
        let mut renamed = self.renamed.lock().unwrap_or_else(PoisonError::into_inner);
        if new != old && !renamed.iter().any(|told| told == new) {
            renamed.push(new.to_string());
            self.net.warn(format!("{} is called `{new}` now", question.repository.describe()));
        }
    }

    /// The error of a connection that failed.
    fn network(&self, error: &dyn std::fmt::Display) -> DownloadError {
        DownloadError::Network { endpoint: self.origin.clone(), problem: error.to_string() }
    }

    pub(crate) fn bad_answer(&self, path: &str, problem: &str) -> DownloadError {
        let (endpoint, path) = (self.origin.clone(), path.to_string());
        DownloadError::BadAnswer { endpoint, path, problem: problem.to_string() }
    }
}

/// One file of a commit.
pub(crate) struct HubFile<'a> {
    client: &'a Client<'a>,
    repository: &'a Repository,
    commit: &'a str,
    file: &'a RepoFile,
    path: String,
    /// The signed address that the hub gave for it last.
    signed: Mutex<Option<String>>,
}

impl<'a> HubFile<'a> {
    pub(crate) fn new(client: &'a Client<'a>, repository: &'a Repository, commit: &'a str, file: &'a RepoFile) -> Self {
        let path = file_address(repository, commit, &file.path);
        HubFile { client, repository, commit, file, path, signed: Mutex::default() }
    }

    fn signed(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remote for HubFile<'_> {
    fn get(&self, range: Range) -> Result<Answer, Failure> {
        let known = self.signed().clone();
        if let Some(address) = known {
            let answer = self.client.get_at(&address, Some(range), Patience::File)?;
            if matches!(answer.status, 200 | 206) {
                return Ok(answer);
            }
            answer.drain();
            // It has expired, or its server is in trouble: the hub is asked for another.
            self.signed().take_if(|signed| *signed == address);
        }
        let (repository, revision, etag) = (self.repository, self.commit, Some(self.file.etag.as_str()));
        let question = Question { repository, revision, path: &self.path, etag };
        let (answer, address) = self.client.get(&question, Some(range), Patience::File)?;
        if Origin::of(&address) != self.client.home {
            *self.signed() = Some(address);
        }
        Ok(answer)
    }

    fn origin(&self) -> &str {
        self.client.origin()
    }
}
