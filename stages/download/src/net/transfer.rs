//! One file over the network: resumed, in parallel ranges where it is large, its checksums from the same pass.
//!
//! ```text
//! X.incomplete there? hash it -> ask for the first range -> 206: eight connections, ranges in order  (see `ranges`)
//!                                                        -> 200: the whole file over one connection
//!              -> checksums right? the caller renames it -> wrong? once more from the first byte
//! ```
//!
//! `X.incomplete` is always the beginning of the file, without holes. So its length is all that a later process needs to
//! know, killed whenever; and a huggingface_hub that resumes (before 1.0, under the same name) may go on with ours, and we
//! with theirs. What a foreign hand may have put there is found by the checksums.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::checksum::{Broken, Checksums, Found, Promise};
use super::{Answer, Failure, Net, network, ranges};
use crate::error::DownloadError;

/// Connections of one stage, all files together.
pub(crate) const CONNECTIONS_MAX: usize = 8;
/// Bytes of one range. Large beside the price of a request, small beside what a killed process may lose.
pub(super) const RANGE_BYTES: u64 = 8 << 20;
/// What is at least left to fetch for more than one connection to be worth it.
pub(crate) const PARALLEL_BYTES_MIN: u64 = 2 * RANGE_BYTES;
/// Slower than this over the whole of a time limit, a connection counts as stalled. cargo has 10.
const SLOW_BYTES_PER_S: u64 = 100;
const BUFFER_BYTES: usize = 1 << 17;

/// Bytes of a file: from `begin` to before `end`, or to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) begin: u64,
    pub(crate) end: Option<u64>,
}

impl Range {
    /// The value of the header `Range`; `None` for the whole file.
    pub(crate) fn header(self) -> Option<String> {
        match self.end {
            Some(end) => Some(format!("bytes={}-{}", self.begin, end - 1)),
            None => (self.begin > 0).then(|| format!("bytes={}-", self.begin)),
        }
    }
}

/// Where the bytes of a file come from.
pub(crate) trait Remote: Sync {
    /// Asks for a range. The answer has status 200 (the whole file) or 206.
    fn get(&self, range: Range) -> Result<Answer, Failure>;

    /// For messages: `https://host`.
    fn origin(&self) -> &str;
}

/// A file to fetch.
pub(crate) struct Transfer<'a> {
    pub(crate) net: &'a Net<'a>,
    pub(crate) remote: &'a dyn Remote,
    /// For messages.
    pub(crate) name: &'a str,
    /// `None` where only the server knows.
    pub(crate) size_bytes: Option<u64>,
    pub(crate) promises: &'a [Promise],
    /// Where it grows.
    pub(crate) incomplete: &'a Path,
}

/// A file that has arrived and is what was promised. It lies at `Transfer::incomplete`, synced.
pub(crate) struct Arrived {
    pub(crate) found: Found,
    pub(crate) size_bytes: u64,
    /// Bytes that came over the network.
    pub(crate) n_received_bytes: u64,
}

/// What has arrived so far.
pub(super) struct Partial {
    file: File,
    pub(super) n_bytes: u64,
    pub(super) size_bytes: Option<u64>,
    checksums: Checksums,
    pub(super) n_received_bytes: u64,
}

impl Transfer<'_> {
    /// Fetches it. `on_bytes` is told how many bytes of the file are done each time some are (fewer than before where it
    /// begins anew).
    ///
    /// # Errors
    /// `Corrupt` when it arrives damaged twice; `Network`, `Status` or `BadAnswer` after attempts that brought nothing.
    pub(crate) fn run(&self, on_bytes: &mut dyn FnMut(u64)) -> Result<Arrived, DownloadError> {
        let mut n_received_bytes = 0;
        let mut is_second = false;
        loop {
            let mut partial = self.open_partial(on_bytes)?;
            self.fill(&mut partial, on_bytes)?;
            n_received_bytes += partial.n_received_bytes;
            let found = partial.checksums.finish();
            let Some(broken) = found.broken else {
                partial.file.sync_data().map_err(DownloadError::io("write", self.incomplete))?;
                return Ok(Arrived { found, size_bytes: partial.n_bytes, n_received_bytes });
            };
            fs::remove_file(self.incomplete).map_err(DownloadError::io("remove", self.incomplete))?;
            let Broken { algorithm, expected, found } = broken;
            if is_second {
                return Err(DownloadError::Corrupt { file: self.name.to_string(), algorithm, expected, found });
            }
            is_second = true;
            self.net.warn(format!(
                "`{}` arrived damaged: its {algorithm} is {found}, not {expected}; downloading it again",
                self.name
            ));
        }
    }

    /// Opens what an earlier attempt, perhaps of another process, has left.
    fn open_partial(&self, on_bytes: &mut dyn FnMut(u64)) -> Result<Partial, DownloadError> {
        let path = self.incomplete;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(DownloadError::io("create", path))?;
        let there = file.metadata().map_err(DownloadError::io("read", path))?.len();
        let checksums = Checksums::new(self.promises, self.size_bytes.unwrap_or(0));
        let mut partial = Partial { file, n_bytes: 0, size_bytes: self.size_bytes, checksums, n_received_bytes: 0 };
        if self.size_bytes.is_some_and(|size_bytes| there > size_bytes) {
            self.begin_anew(&mut partial)?;
        } else if there > 0 {
            partial.n_bytes = hash_file(self.net, &mut partial.file, path, &mut partial.checksums, on_bytes)?;
        }
        Ok(partial)
    }

    /// Receives all that is missing.
    fn fill(&self, partial: &mut Partial, on_bytes: &mut dyn FnMut(u64)) -> Result<(), DownloadError> {
        let is_large = |partial: &Partial| {
            partial.size_bytes.is_none_or(|size_bytes| size_bytes - partial.n_bytes >= PARALLEL_BYTES_MIN)
        };
        let mut first = None;
        if is_large(partial) {
            let range = Range { begin: partial.n_bytes, end: Some(partial.n_bytes + RANGE_BYTES) };
            let answer = self.net.retrying(|| self.remote.get(range))?;
            match total_of(&answer, range.begin) {
                Some(total) if partial.size_bytes.is_none_or(|size_bytes| size_bytes == total) => {
                    partial.size_bytes = Some(total);
                    if total - partial.n_bytes <= RANGE_BYTES {
                        first = Some(answer); // All that is missing.
                    } else if ranges::fill(self, partial, answer, on_bytes)? {
                        return Ok(());
                    }
                }
                // The whole file, then: it is not asked for a second time.
                _ if answer.status == 200 => first = Some(answer),
                _ => self.begin_anew(partial)?,
            }
        }
        self.net.retrying(|| self.receive(partial, first.take(), on_bytes))
    }

    /// One attempt to receive what is missing over one connection; `answer` if it was asked for already.
    fn receive(
        &self,
        partial: &mut Partial,
        answer: Option<Answer>,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        if partial.size_bytes == Some(partial.n_bytes) {
            return Ok(());
        }
        let answer = match answer {
            Some(answer) => answer,
            None => self.remote.get(Range { begin: partial.n_bytes, end: None })?,
        };
        self.refuse_page(&answer)?;
        if answer.status == 200 {
            self.begin_anew(partial)?;
            let length = answer.header("content-length").and_then(|length| length.parse().ok());
            partial.size_bytes = partial.size_bytes.or(length);
        } else if total_of(&answer, partial.n_bytes).is_none_or(|total| partial.size_bytes.is_some_and(|s| s != total))
        {
            self.begin_anew(partial)?;
            return Err(Failure::passing(self.problem("the rest of the file begins elsewhere")));
        }
        let before = partial.n_bytes;
        let mut stream = Stream::new(self.net, answer);
        let problem = loop {
            let block = match stream.next() {
                Ok(block) => block,
                Err(problem) => break problem?,
            };
            let size_bytes = partial.size_bytes.unwrap_or(u64::MAX);
            if block.is_empty() {
                if partial.n_bytes == size_bytes || partial.size_bytes.is_none() {
                    return Ok(());
                }
                break "the connection ended".to_string();
            }
            if partial.n_bytes + block.len() as u64 > size_bytes {
                self.begin_anew(partial)?;
                break format!("more than the {size_bytes} bytes of the file arrived");
            }
            self.append(partial, block, on_bytes)?;
            if partial.n_bytes == size_bytes && stream.is_open_ended() {
                return Ok(());
            }
        };
        let of = partial.size_bytes.map_or_else(String::new, |size_bytes| format!(" of {size_bytes}"));
        let error = self.problem(&format!("{problem} after {}{of} bytes", partial.n_bytes));
        Err(Failure::Passing { error, wait: None, made_progress: partial.n_bytes > before && !stream.is_slow() })
    }

    /// Adds the next bytes of the file.
    pub(super) fn append(
        &self,
        partial: &mut Partial,
        block: &[u8],
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(), DownloadError> {
        partial.file.write_all(block).map_err(DownloadError::io("write", self.incomplete))?;
        partial.checksums.update(block);
        partial.n_bytes += block.len() as u64;
        partial.n_received_bytes += block.len() as u64;
        on_bytes(partial.n_bytes);
        Ok(())
    }

    fn begin_anew(&self, partial: &mut Partial) -> Result<(), DownloadError> {
        partial
            .file
            .set_len(0)
            .and_then(|()| partial.file.seek(SeekFrom::Start(0)))
            .map_err(DownloadError::io("write", self.incomplete))?;
        partial.n_bytes = 0;
        partial.size_bytes = self.size_bytes;
        partial.checksums = Checksums::new(self.promises, self.size_bytes.unwrap_or(0));
        Ok(())
    }

    /// A page where a file should be: what networks with a sign-in page answer to everything. Likewise what is packed in a way
    /// that was not asked for.
    pub(super) fn refuse_page(&self, answer: &Answer) -> Result<(), Failure> {
        let refuse = |problem: String| {
            let (endpoint, path) = (self.remote.origin().to_string(), self.name.to_string());
            Err(Failure::passing(DownloadError::BadAnswer { endpoint, path, problem }))
        };
        if let Some(encoding) = answer.header("content-encoding").filter(|encoding| *encoding != "identity") {
            return refuse(format!("it is packed as `{encoding}`"));
        }
        let is_page = answer.header("content-type").is_some_and(|form| form.starts_with("text/html"));
        let may_be_page = [".html", ".htm"].iter().any(|ending| self.name.ends_with(ending));
        if !is_page || may_be_page {
            return Ok(());
        }
        refuse("it is a page (text/html)".to_string())
    }

    pub(super) fn problem(&self, problem: &str) -> DownloadError {
        network(self.remote.origin(), &format!("`{}`: {problem}", self.name))
    }
}

/// The size of the whole file by an answer with status 206 that begins at `begin`; `None` for any other.
pub(super) fn total_of(answer: &Answer, begin: u64) -> Option<u64> {
    if answer.status != 206 || !answer.is_counted() {
        return None;
    }
    let range = answer.header("content-range")?.strip_prefix("bytes ")?;
    let (span, total) = range.split_once('/')?;
    let (first, _) = span.split_once('-')?;
    (first.parse() == Ok(begin)).then_some(())?;
    total.parse().ok()
}

/// The body of an answer, block by block, at a pace that is not too slow.
pub(super) struct Stream<'a> {
    net: &'a Net<'a>,
    body: ureq::BodyReader<'static>,
    buffer: Vec<u8>,
    /// Whether it ends with its connection alone.
    is_open_ended: bool,
    limit: Duration,
    since: Instant,
    n_since: u64,
    is_slow: bool,
}

impl<'a> Stream<'a> {
    pub(super) fn new(net: &'a Net<'a>, answer: Answer) -> Self {
        let is_open_ended = !answer.is_counted();
        let body = answer.body.into_with_config().limit(u64::MAX).reader();
        let limit = Duration::from_secs(net.environment.read_timeout_s);
        let buffer = vec![0; BUFFER_BYTES];
        Stream { net, body, buffer, is_open_ended, limit, since: Instant::now(), n_since: 0, is_slow: false }
    }

    /// The next bytes, none at the end; or what went wrong: an interruption as an error of its own.
    pub(super) fn next(&mut self) -> Result<&[u8], Result<String, DownloadError>> {
        self.net.check_cancelled().map_err(Err)?;
        let n = self.body.read(&mut self.buffer).map_err(|error| Ok(error.to_string()))?;
        self.n_since += n as u64;
        let elapsed = self.since.elapsed();
        if elapsed >= self.limit {
            self.is_slow = self.n_since < SLOW_BYTES_PER_S * elapsed.as_secs().max(1);
            if self.is_slow {
                return Err(Ok(format!("fewer than {SLOW_BYTES_PER_S} bytes a second")));
            }
            (self.since, self.n_since) = (Instant::now(), 0);
        }
        Ok(&self.buffer[..n])
    }

    /// Whether nothing but the file's size says where it ends: then there is no waiting for more.
    pub(super) fn is_open_ended(&self) -> bool {
        self.is_open_ended
    }

    /// Whether the pace was given up on.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow
    }
}

/// Takes all bytes of `opened` into `checksums`. Returns how many.
pub(crate) fn hash_file(
    net: &Net,
    opened: &mut File,
    path: &Path,
    checksums: &mut Checksums,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<u64, DownloadError> {
    enum Stop {
        Io(std::io::Error),
        Download(DownloadError),
    }
    impl From<std::io::Error> for Stop {
        fn from(error: std::io::Error) -> Self {
            Stop::Io(error)
        }
    }
    let mut n_done = 0;
    checksums
        .update_from(opened, |n| {
            n_done += n as u64;
            on_bytes(n_done);
            net.check_cancelled().map_err(Stop::Download)
        })
        .map_err(|stop| match stop {
            Stop::Io(error) => DownloadError::io("read", path)(error),
            Stop::Download(error) => error,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_as_http_has_them() {
        assert_eq!(Range { begin: 0, end: None }.header(), None);
        assert_eq!(Range { begin: 5, end: None }.header().as_deref(), Some("bytes=5-"));
        assert_eq!(Range { begin: 0, end: Some(8) }.header().as_deref(), Some("bytes=0-7"));
    }
}
