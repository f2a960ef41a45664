//! AWS Signature Version 4 of a request without a body.
//!
//! ```text
//! canonical request = METHOD \n path \n query \n headers \n\n names \n SHA-256 of nothing
//! string to sign    = AWS4-HMAC-SHA256 \n time \n day/region/s3/aws4_request \n SHA-256(canonical request)
//! key               = HMAC(HMAC(HMAC(HMAC("AWS4" + secret, day), region), "s3"), "aws4_request")
//! ```
//!
//! After "Authenticating Requests: Using the Authorization Header" of the Amazon S3 API reference, whose examples are the
//! tests.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::net::checksum::hex;

/// SHA-256 of no bytes: the body of a GET or HEAD.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Who signs, where and when.
pub(super) struct Signer<'a> {
    pub(super) id: &'a str,
    pub(super) secret: &'a str,
    pub(super) session: Option<&'a str>,
    pub(super) region: &'a str,
    /// Seconds since 1970.
    pub(super) unix_time: u64,
}

/// What is signed. Path and query are percent-encoded; the query's parameters are sorted by name.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// Further headers to sign, names in small letters.
    pub(super) headers: &'a [(&'a str, String)],
}

impl Signer<'_> {
    /// The headers that make `request` a signed one; its own are not among them.
    pub(super) fn sign(&self, request: &Request) -> Vec<(&'static str, String)> {
        let time = timestamp(self.unix_time);
        let day = &time[..8];
        let mut added = vec![("x-amz-content-sha256", EMPTY.to_string()), ("x-amz-date", time.clone())];
        added.extend(self.session.map(|session| ("x-amz-security-token", session.to_string())));
        let mut all: Vec<(&str, &str)> = vec![("host", request.host)];
        all.extend(request.headers.iter().map(|(name, value)| (*name, value.as_str())));
        all.extend(added.iter().map(|(name, value)| (*name, value.as_str())));
        all.sort_unstable();
        let headers: String = all.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let names = all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let canonical = [request.method, request.path, request.query, &headers, &names, EMPTY].join("\n");
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let hashed = hex(&Sha256::digest(canonical));
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashed}");
        let secret = format!("AWS4{}", self.secret);
        let key = [day, self.region, "s3", "aws4_request"]
            .iter()
            .fold(secret.into_bytes(), |key, part| authenticate(&key, part));
        let signature = hex(&authenticate(&key, &to_sign));
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}", self.id);
        added.push(("Authorization", authorization));
        added
    }
}

fn authenticate(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `20130524T000000Z`.
fn timestamp(unix_time: u64) -> String {
    let (days, seconds) = (unix_time / 86_400, unix_time % 86_400);
    // Howard Hinnant, "chrono-compatible low-level date algorithms": `civil_from_days`, for days since 1970.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * m + 2) / 5 + 1, if m < 10 { m + 3 } else { m - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 24 May 2013, 00:00 GMT.
    const TIME: u64 = 1_369_353_600;

    fn authorization(path: &str, query: &str, headers: &[(&str, String)]) -> String {
        let signer = Signer {
            id: "AKIAIOSFODNN7EXAMPLE",
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            session: None,
            region: "us-east-1",
            unix_time: TIME,
        };
        let host = "examplebucket.s3.amazonaws.com";
        let signed = signer.sign(&Request { method: "GET", host, path, query, headers });
        signed.last().unwrap().1.clone()
    }

    #[test]
    fn signatures_are_those_of_the_examples_of_aws() {
        let range = [("range", "bytes=0-9".to_string())];
        assert_eq!(
            authorization("/test.txt", "", &range),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let lifecycle = authorization("/", "lifecycle=", &[]);
        assert!(
            lifecycle.ends_with("Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            "{lifecycle}"
        );
        let list = authorization("/", "max-keys=2&prefix=J", &[]);
        assert!(list.ends_with("Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"), "{list}");
    }

    #[test]
    fn a_session_is_signed_along() {
        let signer = Signer { id: "i", secret: "s", session: Some("t"), region: "r", unix_time: TIME };
        let request = Request { method: "HEAD", host: "h", path: "/", query: "", headers: &[] };
        let signed = signer.sign(&request);
        assert!(signed.contains(&("x-amz-security-token", "t".to_string())));
        assert!(signed.last().unwrap().1.contains("x-amz-date;x-amz-security-token"));
    }

    #[test]
    fn times_are_written_as_aws_has_them() {
        assert_eq!(timestamp(0), "19700101T000000Z");
        assert_eq!(timestamp(TIME), "20130524T000000Z");
        assert_eq!(timestamp(1_709_208_000), "20240229T120000Z");
    }
}
