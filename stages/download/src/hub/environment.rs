//! The environment variables of the Hugging Face tools, with their meaning there.

use std::fmt;
use std::path::PathBuf;

/// Where the hub is, who asks, and where the cache lies.
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
    /// `HOME`, for paths that begin with `~`.
    pub home: Option<PathBuf>,
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
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        Environment {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            credential: credential.filter(|_| !is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            cache,
            is_offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            read_timeout_s: get("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.parse().ok()).unwrap_or(10),
            home,
        }
    }
}

impl fmt::Debug for Environment {
    /// Without the credential, so that no log can have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("endpoint", &self.endpoint)
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
    fn switches_and_the_endpoint() {
        assert!(read(&[("TRANSFORMERS_OFFLINE", "yes")]).is_offline);
        assert!(!read(&[("HF_HUB_OFFLINE", "0")]).is_offline);
        assert_eq!(read(&[("HF_ENDPOINT", "http://h:1/")]).endpoint, "http://h:1");
        assert_eq!(read(&[("HF_ENDPOINT", "")]).endpoint, "https://huggingface.co");
    }
}
