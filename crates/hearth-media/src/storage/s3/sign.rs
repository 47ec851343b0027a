//! Signatures of requests to S3, version 4. Pure: time is handed in.
//!
//! Spec: AWS, "Signature Version 4 for API requests".

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::storage::hexadecimal;

/// Who signs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Signer {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) region: String,
}

/// What is signed.
pub(crate) struct Unsigned<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    /// As it is sent, encoded.
    pub(crate) path: &'a str,
    /// Names and values, not encoded.
    pub(crate) query: &'a [(&'a str, &'a str)],
    /// Headers beside those that are always signed; lower case, sorted.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body_sha256: &'a str,
    pub(crate) now_ms: i64,
}

/// The headers `x-amz-date` and `authorization`.
pub(crate) struct Signed {
    pub(crate) date: String,
    pub(crate) authorization: String,
}

impl Signer {
    pub(crate) fn sign(&self, request: &Unsigned<'_>) -> Signed {
        let date = timestamp(request.now_ms);
        let day = &date[..8];
        let mut headers: Vec<(&str, &str)> = request.headers.to_vec();
        headers.extend([
            ("host", request.host),
            ("x-amz-content-sha256", request.body_sha256),
            ("x-amz-date", date.as_str()),
        ]);
        headers.sort_unstable();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let mut canonical = format!("{}\n{}\n{}\n", request.method, request.path, query(request.query));
        for (name, value) in &headers {
            let _ = writeln!(canonical, "{name}:{}", value.trim());
        }
        let _ = write!(canonical, "\n{names}\n{}", request.body_sha256);
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let hash = hexadecimal(&Sha256::digest(canonical.as_bytes()).into());
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
        let first = hmac(format!("AWS4{}", self.secret_key).as_bytes(), day.as_bytes());
        let parts = [self.region.as_bytes(), b"s3", b"aws4_request", text.as_bytes()];
        let signature = parts.iter().fold(first, |key, part| hmac(&key, part));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={}",
            self.access_key,
            hexadecimal(&signature)
        );
        Signed { date, authorization }
    }
}

/// A query as it is signed and sent: sorted and encoded.
pub(crate) fn query(parameters: &[(&str, &str)]) -> String {
    let mut encoded: Vec<(String, String)> =
        parameters.iter().map(|(name, value)| (encode(name, false), encode(value, false))).collect();
    encoded.sort_unstable();
    encoded.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// A path as it is signed and sent.
pub(crate) fn path(path: &str) -> String {
    encode(path, true)
}

fn encode(text: &str, keep_slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'/' if keep_slashes => encoded.push('/'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // Keys may have any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// `20130524T000000Z`
pub(crate) fn timestamp(now_ms: i64) -> String {
    let seconds = now_ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since the first of March of the year 0, in eras of 400 years.
    let from_march = days + 719_468;
    let (era, of_era) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// The examples of the documentation.
    #[test]
    fn signatures_are_as_documented() {
        let signer = Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            region: "us-east-1".to_owned(),
        };
        let request = |path, query, headers| Unsigned {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path,
            query,
            headers,
            body_sha256: EMPTY,
            now_ms: 1_369_353_600_000,
        };
        for (request, signature) in [
            (
                request("/test.txt", &[], &[("range", "bytes=0-9")]),
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                request("/", &[("lifecycle", "")], &[]),
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                request("/", &[("prefix", "J"), ("max-keys", "2")], &[]),
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let signed = signer.sign(&request);
            assert_eq!(signed.date, "20130524T000000Z");
            assert!(signed.authorization.ends_with(&format!("Signature={signature}")), "{}", signed.authorization);
        }
    }

    #[test]
    fn times_are_written_as_calendars_do() {
        for (ms, text) in [
            (0, "19700101T000000Z"),
            (951_782_399_999, "20000228T235959Z"),
            (951_782_400_000, "20000229T000000Z"),
            (1_750_000_000_000, "20250615T150640Z"),
            (4_107_542_399_000, "21000228T235959Z"),
            (4_107_542_400_000, "21000301T000000Z"),
        ] {
            assert_eq!(timestamp(ms), text);
        }
    }

    #[test]
    fn paths_and_queries_are_encoded_as_signed() {
        assert_eq!(path("/a b/ä+~"), "/a%20b/%C3%A4%2B~");
        assert_eq!(query(&[("b", "/"), ("a", "x y"), ("a", "")]), "a=&a=x%20y&b=%2F");
    }
}
