//! Addresses: whom they belong to, where a redirect leads, and how they look in messages.

use ureq::http::Uri;

/// Scheme, host and port: what a credential may be sent to.
#[derive(PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    pub(crate) fn of(address: &str) -> Self {
        let uri: Uri = address.parse().unwrap_or_default();
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Origin { host: uri.host().unwrap_or_default().to_ascii_lowercase(), scheme, port }
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    /// Without the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// `https://host:port` for messages: without user, password, path and query, any of which may be secret.
pub(crate) fn origin_text(address: &str) -> String {
    let uri: Uri = address.parse().unwrap_or_default();
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return "the given address".to_string() };
    match uri.port_u16() {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    }
}

/// The same with its path: a query may hold a signature.
pub(crate) fn shown(address: &str) -> String {
    let uri: Uri = address.parse().unwrap_or_default();
    format!("{}{}", origin_text(address), uri.path())
}

/// The address that a `Location` of the answer from `address` means.
pub(crate) fn follow(address: &str, location: &str) -> Option<String> {
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

/// Percent-encodes all but letters, digits, `-._~` and the characters in `kept`.
pub(crate) fn encode(text: &str, kept: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        let character = char::from(byte);
        if character.is_ascii_alphanumeric() || "-._~".contains(character) || kept.contains(character) {
            encoded.push(character);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(encode("refs/pr/31", ""), "refs%2Fpr%2F31");
        assert_eq!(encode("a b/ü.json", "/"), "a%20b/%C3%BC.json");
    }

    #[test]
    fn messages_have_no_secrets() {
        assert_eq!(shown("https://me:secret@host:8/a/b.jsonl?sig=secret"), "https://host:8/a/b.jsonl");
        assert_eq!(origin_text("http://h/x?y"), "http://h");
        assert_eq!(origin_text("nothing"), "the given address");
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
