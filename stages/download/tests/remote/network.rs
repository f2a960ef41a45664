//! What lies between: proxies, and certificates that only a setting makes trusted.
//!
//! The TLS side is Python's `ssl` in front of the stand-in hub; the certificates are made by the `openssl` command for each
//! test.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::Hub;

const MODEL: &str = "{ model: acme/tiny }";

/// An HTTP proxy that tunnels, and remembers what it was asked.
struct Proxy {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, asked) = (client.unwrap(), Arc::clone(&kept));
                thread::spawn(move || tunnel(client, &asked));
            }
        });
        Proxy { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn tunnel(mut client: TcpStream, asked: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    asked.lock().unwrap().push(head.clone());
    let target = head.split(' ').nth(1).unwrap();
    let server = TcpStream::connect(target).unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = std::io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(std::net::Shutdown::Write);
}

#[test]
fn a_proxy_is_used_for_its_scheme_and_sees_no_credential() {
    let Some(hub) = Hub::start("a_proxy_is_used_for_its_scheme") else { return };
    let proxy = Proxy::start();
    let address = format!("http://me:secret@{}", proxy.address);
    let outcome = hub.download(MODEL, &[("HTTP_PROXY", &address), ("HF_TOKEN", "hf_alice")]);
    assert_eq!(hub.bytes_of(&outcome, "model.safetensors"), hub.weights());
    let asked = proxy.asked();
    let endpoint = hub.endpoint().strip_prefix("http://").unwrap();
    assert!(asked.iter().any(|head| head.starts_with(&format!("CONNECT {endpoint} "))), "{asked:?}");
    // `me:secret` in Base64: for the proxy, and nobody else.
    assert!(asked.iter().all(|head| head.contains("Proxy-Authorization: Basic bWU6c2VjcmV0")), "{asked:?}");
    assert!(asked.iter().all(|head| !head.contains("hf_alice")), "{asked:?}");
    assert!(!outcome.everything_said().contains("secret"));
}

#[test]
fn no_proxy_and_the_other_scheme_go_straight() {
    let Some(hub) = Hub::start("no_proxy_and_the_other_scheme_go_straight") else { return };
    let proxy = Proxy::start();
    let address = format!("http://{}", proxy.address);
    for variables in [
        &[("HTTPS_PROXY", address.as_str())][..],
        &[("ALL_PROXY", &address), ("NO_PROXY", "127.0.0.1")],
        &[("http_proxy", &address), ("no_proxy", "*")],
    ] {
        std::fs::remove_dir_all(hub.cache()).ok();
        let outcome = hub.download(MODEL, variables);
        assert_eq!(hub.bytes_of(&outcome, "model.safetensors"), hub.weights());
    }
    assert_eq!(proxy.asked(), Vec::<String>::new());
    std::fs::remove_dir_all(hub.cache()).unwrap();
    assert!(hub.download(MODEL, &[("ALL_PROXY", &address)]).result.is_ok());
    assert!(!proxy.asked().is_empty());
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    let Some(hub) = Hub::start("a_proxy_that_is_not_there_is_named") else { return };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let proxy = format!("http://me:secret@127.0.0.1:{port}");
    let outcome = hub.download(MODEL, &[("HTTP_PROXY", &proxy)]);
    assert!(outcome.error().starts_with("network: "), "{}", outcome.error());
    assert!(outcome.help().contains("HTTPS_PROXY") && !outcome.everything_said().contains("secret"));
    let outcome = hub.download(MODEL, &[("HTTP_PROXY", "nonsense://x")]);
    assert_eq!(outcome.error(), "proxy: HTTP_PROXY is no address of a proxy");
}

/// A server that ends TLS in front of another one, and the certificate of who vouches for it.
pub(crate) struct Tls {
    server: Child,
    pub(crate) port: u16,
    pub(crate) ca: PathBuf,
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// In front of `host:port`: what comes is decrypted and passed on, both ways.
const TERMINATOR: &str = r#"
import socket, ssl, sys, threading
target, certificate, key = sys.argv[1:4]
host, port = target.split(":")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
print(listener.getsockname()[1], flush=True)

def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

def serve(client):
    try:
        client = context.wrap_socket(client, server_side=True)
        server = socket.create_connection((host, int(port)))
    except OSError:
        return
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)

while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
"#;

impl Tls {
    /// In front of `endpoint`, files in `folder`; `None` where there is no openssl.
    pub(crate) fn start(test: &str, folder: &Path, endpoint: &str) -> Option<Self> {
        if !make_certificates(folder) {
            let mut stderr = std::io::stderr(); // Not `eprintln!`, which the test harness captures.
            writeln!(stderr, "SKIPPED {test}: the command openssl is not there").unwrap();
            return None;
        }
        let target = endpoint.strip_prefix("http://").unwrap();
        let mut server = Command::new("python3")
            .args(["-c", TERMINATOR, target])
            .args([folder.join("server.pem"), folder.join("server.key")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut line).unwrap();
        Some(Tls { server, port: line.trim().parse().unwrap(), ca: folder.join("ca.pem") })
    }
}

/// A certificate authority, and a certificate of `localhost` that it signed. `false` where there is no openssl.
fn make_certificates(folder: &Path) -> bool {
    std::fs::create_dir_all(folder).unwrap();
    let openssl = |arguments: &str| {
        let made = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        made.is_ok_and(|status| status.success())
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca"))
        && openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"))
        && openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
        )
}

#[test]
fn a_certificate_is_trusted_where_a_bundle_says_so() {
    let test = "a_certificate_is_trusted_where_a_bundle_says_so";
    let Some(hub) = Hub::start(test) else { return };
    let Some(tls) = Tls::start(test, &hub.folder().join("tls"), hub.endpoint()) else { return };
    let endpoint = format!("https://localhost:{}", tls.port);
    let ca = tls.ca.to_str().unwrap();
    let files = "{ dataset: acme/rows }";

    let outcome = hub.download(files, &[("HF_ENDPOINT", &endpoint)]);
    assert!(outcome.error().starts_with(&format!("network: failed to reach {endpoint}: ")), "{}", outcome.error());
    assert!(outcome.error().contains("UnknownIssuer"), "{}", outcome.error());
    assert!(outcome.help().contains("SSL_CERT_FILE"), "{}", outcome.help());

    for variable in ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"] {
        std::fs::remove_dir_all(hub.cache()).ok();
        let outcome = hub.download(files, &[("HF_ENDPOINT", &endpoint), (variable, ca)]);
        assert_eq!(outcome.fact("num_rows").as_deref(), Some("3"), "{variable}: {:?}", outcome.result);
    }
    let wrong = hub.folder().join("hub.json");
    let outcome = hub.download(files, &[("HF_ENDPOINT", &endpoint), ("SSL_CERT_FILE", wrong.to_str().unwrap())]);
    assert!(outcome.error().starts_with("certificates: SSL_CERT_FILE names "), "{}", outcome.error());
    let outcome = hub.download(files, &[("HF_ENDPOINT", &endpoint), ("SSL_CERT_FILE", "/nowhere/ca.pem")]);
    assert!(outcome.error().starts_with("certificates: SSL_CERT_FILE names "), "{}", outcome.error());
}

#[test]
fn tls_goes_through_a_proxy_whole() {
    let test = "tls_goes_through_a_proxy_whole";
    let Some(hub) = Hub::start(test) else { return };
    let Some(tls) = Tls::start(test, &hub.folder().join("tls"), hub.endpoint()) else { return };
    let proxy = Proxy::start();
    let (endpoint, address) = (format!("https://localhost:{}", tls.port), format!("http://{}", proxy.address));
    let variables = [
        ("HF_ENDPOINT", endpoint.as_str()),
        ("HTTPS_PROXY", &address),
        ("SSL_CERT_FILE", tls.ca.to_str().unwrap()),
        ("HF_TOKEN", "hf_alice"),
    ];
    let outcome = hub.download("{ dataset: acme/rows }", &variables);
    assert_eq!(outcome.fact("num_rows").as_deref(), Some("3"), "{:?}", outcome.result);
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|head| head.starts_with("CONNECT localhost:")), "{asked:?}");
}
