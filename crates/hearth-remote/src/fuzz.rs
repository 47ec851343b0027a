//! What strangers write into headers, documents of keys and `/.well-known`.

use hearth_fuzz::{fuzz, fuzz_json};
use hearth_matrix::SigningKey;
use hearth_matrix::ruma::ServerName;
use http::header::{AUTHORIZATION, CACHE_CONTROL, EXPIRES, LOCATION};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::key_document::{ToldKeys, is_good_at, own_document, signed_with};
use crate::key_sources::documents;
use crate::{XMatrix, XMatrixError, well_known};

const HEADER: &[u8] =
    br#"X-Matrix origin="one.test:8448",destination=two.test, key="ed25519:k\1",sig="c2ln+/", more=x"#;

#[test]
fn x_matrix_headers() {
    let good: [&[u8]; 3] = [HEADER, b"x-matrix origin=one.test,key=\"ed25519:k\",sig=\"A\\\"B\"", b"Bearer abc"];
    fuzz("X-Matrix headers", &good, |bytes| {
        let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value.clone()), (AUTHORIZATION, value.clone())]);
        let all = XMatrix::from_headers(&headers);
        let Ok(text) = std::str::from_utf8(value.as_bytes()) else {
            assert_eq!(all, Err(XMatrixError::Malformed));
            return;
        };
        let one = XMatrix::parse(text);
        assert_eq!(all.ok(), one.as_ref().ok().map(|one| vec![one.clone(); 2]));
        let Ok(one) = one else { return };
        one.message(&one.origin, "PUT", "/a?b", b"{\"a\":1}").expect("JSON");
        // What we would write of it is read as the same.
        if let Some(own) = one.to_header() {
            let own = std::str::from_utf8(own.as_bytes()).expect("text").to_owned();
            assert_eq!(XMatrix::parse(&own).as_ref(), Ok(&one), "{own}");
        }
    });
}

#[test]
fn bodies_that_are_signed() {
    let key = SigningKey::from_seed([7; 32], "k").expect("a key");
    let (from, to) = ("one.test".try_into().expect("a name"), "two.test".try_into().expect("a name"));
    let good = r#"{"origin":"one.test","pdus":[{"depth":1.5}],"edus":[],"origin_server_ts":18446744073709551615}"#;
    fuzz_json("bodies that are signed", &[good], |body| {
        let signed = XMatrix::sign(&key, from, to, "PUT", "/a", body.as_bytes());
        let value = serde_json::from_str::<serde_json::Value>(body);
        // What is deeper than values can be is signed, too.
        let may_be_deep = body.bytes().filter(|byte| b"[{".contains(byte)).count() > 100;
        if may_be_deep {
            assert!(signed.is_ok() || value.is_err(), "{body}");
        } else {
            assert_eq!(signed.is_ok(), value.is_ok() || body.is_empty(), "{body}");
        }
        let Ok(signed) = signed else { return };
        let message = signed.message(to, "PUT", "/a", body.as_bytes()).expect("JSON");
        assert!(signed.is_by(&key.public_key(), &message));
        // Written in another way it is the same.
        if let Ok(value) = value.map(|value| value.to_string())
            && !body.contains(['.', 'e', 'E'])
        {
            let again = signed.message(to, "PUT", "/a", value.as_bytes()).expect("JSON");
            assert!(signed.is_by(&key.public_key(), &again), "{value}");
        }
    });
}

#[test]
fn documents_of_keys() {
    let key = SigningKey::from_seed([7; 32], "k").expect("a key");
    let server = <&ServerName>::try_from("one.test").expect("a name");
    let own = own_document(server, &key, &[], 1_700_000_000_000).expect("JSON");
    let old = r#"{"server_name":"one.test","valid_until_ts":1,"verify_keys":{"ed25519:a":{"key":"VXZ2"}},"old_verify_keys":{"ed25519:b":{"key":"Noi6WqcDj0QmPxCNQqgezwTlBKrfqehY1u2FyWP9uYw","expired_ts":5}},"signatures":{}}"#;
    fuzz_json("documents of keys", &[&own, old], |text| {
        signed_with(text, server);
        if let Ok(told) = ToldKeys::parse(text) {
            // Nothing that a key has signed can be changed by a stranger.
            assert_eq!((&told.server, told.valid_until_ts), (&server.to_owned(), 1_700_000_000_000), "{text}");
            assert_eq!(told.verify_keys, [(key.key_id().to_owned(), key.public_key())], "{text}");
            for key in told.to_keys(i64::MAX, true).iter().chain(&told.to_keys(i64::MIN, false)) {
                is_good_at(key, Some(i64::MAX));
            }
        }
        let _ = documents(format!("{{\"server_keys\":[{text}]}}").as_bytes());
        let _ = documents(text.as_bytes());
    });
}

#[test]
fn well_known_documents() {
    let good: [&[u8]; 5] = [
        b"//:no.host/",
        br#"{"m.server":"matrix.one.test:443"}"#,
        br#"{"m.server":"[2001:db8::1]:8448","more":[1]}"#,
        b"https://one.test/.well-known/matrix/server#x",
        b"max-age=\"300\", no-cache",
    ];
    fuzz("well-known documents", &good, |bytes| {
        let mut response = Response::new(bytes::Bytes::copy_from_slice(bytes));
        *response.status_mut() = [StatusCode::OK, StatusCode::NOT_FOUND][bytes.len() % 2];
        if let Ok(value) = HeaderValue::from_bytes(bytes) {
            for name in [CACHE_CONTROL, EXPIRES, LOCATION] {
                response.headers_mut().insert(name, value.clone());
            }
        }
        well_known::try_answer(&response);
        if let Some(server) = well_known::parse(bytes) {
            let again = serde_json::json!({ "m.server": server }).to_string();
            assert_eq!(well_known::parse(again.as_bytes()), Some(server));
        }
    });
}
