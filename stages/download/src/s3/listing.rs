//! One page of `ListObjectsV2`.
//!
//! ```text
//! <ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>..</NextContinuationToken>
//!   <Contents><Key>rows/a%20b.jsonl</Key><Size>12</Size><ETag>&quot;9e10..&quot;</ETag></Contents>
//! ```
//!
//! It reads elements without attributes, which is all that the answer has below its root: no general XML.

use super::Object;

pub(super) struct Page {
    pub(super) objects: Vec<Object>,
    /// What asks for the next page.
    pub(super) next: Option<String>,
}

/// # Errors
/// What is missing.
pub(super) fn parse_page(text: &str) -> Result<Page, String> {
    if !text.contains("<ListBucketResult") || !text.contains("</ListBucketResult>") {
        return Err("it is no whole list of objects".to_string());
    }
    let is_encoded = text_of(text, "EncodingType").as_deref() == Some("url");
    let mut objects = Vec::new();
    for part in text.split("<Contents>").skip(1) {
        let (part, _) = part.split_once("</Contents>").ok_or("an object does not end")?;
        let key = text_of(part, "Key").ok_or("an object has no key")?;
        let size_bytes = text_of(part, "Size").and_then(|size| size.parse().ok()).ok_or("an object has no size")?;
        let etag = text_of(part, "ETag").ok_or("an object has no etag")?.trim_matches('"').to_string();
        let key = if is_encoded { decode(&key).ok_or("a key is not UTF-8")? } else { key };
        objects.push(Object { key, size_bytes, etag, version: None });
    }
    let is_truncated = text_of(text, "IsTruncated").as_deref() == Some("true");
    let next = text_of(text, "NextContinuationToken").filter(|_| is_truncated);
    if is_truncated && next.is_none() {
        return Err("it does not say where the list goes on".to_string());
    }
    Ok(Page { objects, next })
}

/// The text of the first element `name` without attributes.
pub(super) fn text_of(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    // `&amp;` last, so that `&amp;lt;` is `&lt;`.
    let plain = [("&quot;", "\""), ("&#34;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">")];
    Some(plain.iter().fold(inner.to_string(), |text, (from, to)| text.replace(from, to)).replace("&amp;", "&"))
}

/// Without percent encoding; `+` is a space, as S3 writes it.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                rest = after;
            }
            (byte, after) => {
                bytes.push(if *byte == b'+' { b' ' } else { *byte });
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_objects_and_says_where_it_goes_on() {
        let text = "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\"><EncodingType>url</EncodingType>\
            <IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b</NextContinuationToken>\
            <Contents><Key>r/a%2Bb+%C3%BC.jsonl</Key><Size>12</Size><ETag>&quot;9e10&quot;</ETag></Contents>\
            <Contents><ETag>\"77-2\"</ETag><Key>z</Key><Size>0</Size></Contents></ListBucketResult>";
        let page = parse_page(text).unwrap();
        let object = |key: &str, size_bytes, etag: &str| Object {
            key: key.into(),
            size_bytes,
            etag: etag.into(),
            version: None,
        };
        assert_eq!(page.objects, [object("r/a+b ü.jsonl", 12, "9e10"), object("z", 0, "77-2")]);
        assert_eq!(page.next.as_deref(), Some("a&b"));
    }

    #[test]
    fn half_a_page_is_none() {
        for text in [
            "",
            "<html></html>",
            "<ListBucketResult><Contents><Key>a</Key>",
            "<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        ] {
            assert!(parse_page(text).is_err(), "{text}");
        }
    }
}
