//! The environment variables of the Hugging Face tools and of AWS, with their meaning there.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use crate::net::address::{Origin, origin_text};

/// Where the hub is, who asks, and where the caches lie.
#[derive(Clone)]
pub struct Environment {
    /// `HF_ENDPOINT`, without a slash at the end; `https://huggingface.co`.
    pub endpoint: String,
    /// `HF_TOKEN`, or the content of `HF_TOKEN_PATH` or `HF_HOME/token`. Sent to the endpoint's origin only.
    pub credential: Option<String>,
    /// `HF_HUB_CACHE` or `HUGGINGFACE_HUB_CACHE`; `HF_HOME/hub`.
    pub cache: PathBuf,
    /// `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`.
    pub is_offline: bool,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: seconds without a byte before a connection counts as lost; 10.
    pub read_timeout_s: u64,
    /// `HF_HUB_ETAG_TIMEOUT`: the same for questions about repositories; 10.
    pub etag_timeout_s: u64,
    /// The pause behind the first attempt that failed, doubled with each one more; half a second.
    pub first_pause: Duration,
    /// What lies between this machine and servers.
    pub proxies: ProxySettings,
    /// `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE` or `SSL_CERT_DIR`: the variable, and the file or folder.
    pub certificates: Option<(String, PathBuf)>,
    /// `HF_HUB_DISABLE_SYMLINKS`: snapshots hold copies.
    pub has_no_links: bool,
    /// Files that come from other places than the hub: `XDG_CACHE_HOME/pipe`.
    pub other_cache: PathBuf,
    /// Who asks S3, and where.
    pub aws: Aws,
    /// `HOME`, for paths that begin with `~`.
    pub home: Option<PathBuf>,
}

/// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in small letters, too, which win as in `requests`.
#[derive(Clone, Default)]
pub struct ProxySettings {
    /// For `http://`: the variable, and the address.
    pub http: Option<(String, String)>,
    /// For `https://`.
    pub https: Option<(String, String)>,
    /// The entries of `NO_PROXY`, in small letters.
    pub direct: Vec<String>,
}

impl ProxySettings {
    /// Whether `NO_PROXY` names it: `*`, a host with all below it (`.example.com`, `example.com`), `host:port`, or a network of
    /// addresses (`10.0.0.0/8`).
    pub(crate) fn is_direct(&self, origin: &Origin) -> bool {
        let host = origin.host();
        self.direct.iter().any(|entry| {
            let (name, port) = match entry.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') && !port.is_empty() => (name, port.parse().ok()),
                _ => (entry.as_str(), None),
            };
            let name = name.trim_start_matches('*').trim_start_matches('.');
            let is_host = host == name || host.strip_suffix(name).is_some_and(|front| front.ends_with('.'));
            entry == "*"
                || is_in_network(host, entry)
                || (!name.is_empty() && is_host && port.is_none_or(|port: u16| port == origin.port()))
        })
    }
}

/// Whether an IPv4 address lies in a network such as `10.0.0.0/8`.
fn is_in_network(host: &str, network: &str) -> bool {
    let Some((base, n_bits)) = network.split_once('/') else { return false };
    let (Ok(host), Ok(base), Ok(n_bits @ 0..=32)) =
        (host.parse::<Ipv4Addr>(), base.parse::<Ipv4Addr>(), n_bits.parse::<u32>())
    else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32 - n_bits).unwrap_or(0);
    u32::from(host) & mask == u32::from(base) & mask
}

/// The variables of the AWS tools.
#[derive(Clone, Default)]
pub struct Aws {
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. Without both, requests are not signed.
    pub keys: Option<(String, String)>,
    /// `AWS_SESSION_TOKEN`
    pub session: Option<String>,
    /// `AWS_REGION` or `AWS_DEFAULT_REGION`; `us-east-1`.
    pub region: String,
    /// `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, for stores other than Amazon's.
    pub endpoint: Option<String>,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        Environment::read(|name| std::env::var(name).ok())
    }

    /// That in which `variable` looks names up. Empty values count as not set.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| variable(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
        let home = get("HOME").map(PathBuf::from);
        let path = |name: &str| {
            get(name).map(|value| match (value.strip_prefix("~/"), &home) {
                (Some(rest), Some(home)) => home.join(rest),
                _ => PathBuf::from(value),
            })
        };
        let is_on = |name: &str| {
            get(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str()))
        };
        let caches = path("XDG_CACHE_HOME")
            .or_else(|| home.as_ref().map(|home| home.join(".cache")))
            .unwrap_or_else(|| PathBuf::from(".cache"));
        let hf_home = path("HF_HOME").unwrap_or_else(|| caches.join("huggingface"));
        let cache =
            path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| hf_home.join("hub"));
        let credential = get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
            std::fs::read_to_string(file).ok().map(|text| text.trim().to_string()).filter(|text| !text.is_empty())
        });
        let seconds = |name: &str| get(name).and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
        let either = |name: &str| {
            let small = name.to_ascii_lowercase();
            get(&small).map(|value| (small, value)).or_else(|| get(name).map(|value| (name.to_string(), value)))
        };
        let proxies = ProxySettings {
            http: either("HTTP_PROXY").or_else(|| either("ALL_PROXY")),
            https: either("HTTPS_PROXY").or_else(|| either("ALL_PROXY")),
            direct: either("NO_PROXY").map_or_else(Vec::new, |(_, list)| {
                list.split([',', ' '])
                    .map(|entry| entry.trim().to_ascii_lowercase())
                    .filter(|e| !e.is_empty())
                    .collect()
            }),
        };
        let certificates = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"];
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        Environment {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            credential: credential.filter(|_| !is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            cache,
            is_offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            read_timeout_s: seconds("HF_HUB_DOWNLOAD_TIMEOUT").unwrap_or(10),
            etag_timeout_s: seconds("HF_HUB_ETAG_TIMEOUT").unwrap_or(10),
            first_pause: Duration::from_millis(500),
            proxies,
            certificates: certificates.iter().find_map(|name| Some(((*name).to_string(), path(name)?))),
            has_no_links: is_on("HF_HUB_DISABLE_SYMLINKS"),
            other_cache: caches.join("pipe"),
            aws: Aws {
                keys: get("AWS_ACCESS_KEY_ID").zip(get("AWS_SECRET_ACCESS_KEY")),
                session: get("AWS_SESSION_TOKEN"),
                region: get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")).unwrap_or_else(|| "us-east-1".into()),
                endpoint: get("AWS_ENDPOINT_URL_S3")
                    .or_else(|| get("AWS_ENDPOINT_URL"))
                    .map(|url| url.trim_end_matches('/').to_string()),
            },
            home,
        }
    }
}

impl fmt::Debug for Environment {
    /// Without the credential, keys, and what addresses of proxies may hold, so that no log can have them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("endpoint", &origin_text(&self.endpoint))
            .field("has_credential", &self.credential.is_some())
            .field("cache", &self.cache)
            .field("is_offline", &self.is_offline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Environment {
        Environment::read(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_string()))
    }

    #[test]
    fn the_cache_is_where_hugging_face_has_it() {
        let cache = |pairs: &[(&str, &str)]| read(pairs).cache.to_string_lossy().into_owned();
        assert_eq!(cache(&[("HOME", "/h")]), "/h/.cache/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")]), "/h/hf/hub");
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/a")]), "/a");
        assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/a"), ("HF_HUB_CACHE", "/b")]), "/b");
    }

    #[test]
    fn the_credential_is_read_from_a_file_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(read(&[("HF_HOME", home)]).credential.as_deref(), Some("hf_file"));
        let environment = read(&[("HF_HOME", home), ("HF_TOKEN", "hf_own")]);
        assert_eq!(environment.credential.as_deref(), Some("hf_own"));
        assert!(!format!("{environment:?}").contains("hf_own"));
        assert_eq!(read(&[("HF_TOKEN", "t"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).credential, None);
    }

    #[test]
    fn proxies_are_chosen_by_scheme_and_host() {
        let environment = read(&[
            ("HTTPS_PROXY", "http://me:secret@proxy:1"),
            ("https_proxy", "http://small:2"),
            ("ALL_PROXY", "http://all:3"),
            ("NO_PROXY", "localhost, .example.com,10.0.0.1:8080,192.168.0.0/16"),
        ]);
        let proxies = &environment.proxies;
        assert_eq!(proxies.https.as_ref().unwrap().1, "http://small:2");
        assert_eq!(proxies.http.as_ref().unwrap().1, "http://all:3");
        for (address, is_direct) in [
            ("http://localhost:9/x", true),
            ("https://a.example.com", true),
            ("https://example.com", true),
            ("https://badexample.com", false),
            ("http://10.0.0.1:8080", true),
            ("http://10.0.0.1", false),
            ("http://192.168.3.4:80", true),
            ("http://192.169.3.4", false),
        ] {
            assert_eq!(proxies.is_direct(&Origin::of(address)), is_direct, "{address}");
        }
        assert!(read(&[("no_proxy", "*")]).proxies.is_direct(&Origin::of("https://h")));
        assert!(!format!("{environment:?}").contains("secret"));
    }

    #[test]
    fn keys_of_aws_are_never_shown() {
        let environment = read(&[
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
            ("AWS_SESSION_TOKEN", "hidden"),
            ("AWS_ENDPOINT_URL", "http://h:1/"),
        ]);
        assert_eq!(environment.aws.endpoint.as_deref(), Some("http://h:1"));
        assert_eq!(environment.aws.region, "us-east-1");
        assert!(environment.aws.keys.is_some() && !format!("{environment:?}").contains("hidden"));
        assert!(read(&[("AWS_ACCESS_KEY_ID", "id")]).aws.keys.is_none());
    }

    #[test]
    fn switches_and_the_endpoint() {
        assert!(read(&[("TRANSFORMERS_OFFLINE", "yes")]).is_offline);
        assert!(!read(&[("HF_HUB_OFFLINE", "0")]).is_offline);
        assert_eq!(read(&[("HF_ENDPOINT", "http://h:1/")]).endpoint, "http://h:1");
        assert_eq!(read(&[("HF_ENDPOINT", "")]).endpoint, "https://huggingface.co");
    }
}
