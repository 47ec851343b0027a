//! `X-Matrix`: requests signed by servers. Reading the header, signing, checking; all pure.
//!
//! The body counts as JSON, not as bytes: what is signed is its canonical form. Floats and large integers, which events of old
//! rooms may hold, are taken as they are; whether an event may have them is judged by its room version.
//! Spec: server-server API, "Request Authentication".

use hearth_matrix::SigningKey;
use hearth_matrix::canonical::{rewrite, write_string};
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_matrix::signatures::verify_bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde::de::Error as _;

/// A request carries so many signatures at most.
const MOST_SIGNATURES: usize = 8;

/// What one `Authorization: X-Matrix` header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XMatrix {
    /// Who sends.
    pub origin: OwnedServerName,
    /// To whom. Old servers don't say.
    pub destination: Option<OwnedServerName>,
    /// The id of the key that signed.
    pub key_id: String,
    /// The signature, in base64.
    pub signature: String,
}

/// Why the headers of a request don't tell who sent it.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum XMatrixError {
    /// No header of this kind.
    #[error("no X-Matrix authorization")]
    Missing,
    /// It can't be read.
    #[error("malformed X-Matrix authorization")]
    Malformed,
    /// Several that don't agree on who sends to whom.
    #[error("contradicting X-Matrix authorizations")]
    Contradicting,
}

impl XMatrix {
    /// All signatures of a request: at least one, all of the same origin for the same destination.
    pub fn from_headers(headers: &HeaderMap) -> Result<Vec<Self>, XMatrixError> {
        let mut found: Vec<Self> = Vec::new();
        for value in headers.get_all(AUTHORIZATION) {
            let text = std::str::from_utf8(value.as_bytes()).map_err(|_| XMatrixError::Malformed)?;
            let Some(parameters) = parameters_of(text) else { continue };
            let signature = Self::from_parameters(parameters).ok_or(XMatrixError::Malformed)?;
            if found.len() >= MOST_SIGNATURES {
                return Err(XMatrixError::Malformed);
            }
            if found
                .first()
                .is_some_and(|first| (&first.origin, &first.destination) != (&signature.origin, &signature.destination))
            {
                return Err(XMatrixError::Contradicting);
            }
            found.push(signature);
        }
        if found.is_empty() { Err(XMatrixError::Missing) } else { Ok(found) }
    }

    /// Reads one header's value.
    pub fn parse(header: &str) -> Result<Self, XMatrixError> {
        let parameters = parameters_of(header).ok_or(XMatrixError::Missing)?;
        Self::from_parameters(parameters).ok_or(XMatrixError::Malformed)
    }

    fn from_parameters(mut rest: &str) -> Option<Self> {
        let (mut origin, mut destination, mut key_id, mut signature) = (None, None, None, None);
        loop {
            // RFC 9110 lets empty elements stand in lists.
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let (name, after) = rest.split_once('=')?;
            let name = name.trim_end_matches([' ', '\t']).to_ascii_lowercase();
            let (value, after) = value(after.trim_start_matches([' ', '\t']))?;
            let slot = match &*name {
                "origin" => &mut origin,
                "destination" => &mut destination,
                "key" => &mut key_id,
                "sig" => &mut signature,
                _ if !name.is_empty() && name.bytes().all(is_token) => {
                    rest = after;
                    continue;
                }
                _ => return None,
            };
            if slot.replace(value).is_some() {
                return None;
            }
            rest = after;
        }
        Some(Self {
            origin: ServerName::parse(origin?).ok()?,
            destination: destination
                .map(|name| ServerName::parse(name).ok())
                .map_or(Some(None), |name| name.map(Some))?,
            key_id: key_id.filter(|id| id.len() <= 255)?,
            signature: signature.filter(|signature| signature.len() <= 255)?,
        })
    }

    /// The header's value, in the form that every server reads.
    pub fn to_header(&self) -> Option<HeaderValue> {
        let Self { origin, destination, key_id, signature } = self;
        let destination = destination.as_ref().map(|name| format!(r#"destination="{name}","#)).unwrap_or_default();
        let (key_id, signature) = (escaped(key_id), escaped(signature));
        let text = format!(r#"X-Matrix origin="{origin}",{destination}key="{key_id}",sig="{signature}""#);
        HeaderValue::from_str(&text).ok()
    }

    /// Signs a request. `uri` is its path and query as sent; an empty body is none.
    pub fn sign(
        key: &SigningKey,
        origin: &ServerName,
        destination: &ServerName,
        method: &str,
        uri: &str,
        body: &[u8],
    ) -> Result<Self, serde_json::Error> {
        let message = signed_message(origin.as_str(), destination.as_str(), method, uri, body)?;
        Ok(Self {
            origin: origin.to_owned(),
            destination: Some(destination.to_owned()),
            key_id: key.key_id().to_owned(),
            signature: key.sign(message.as_bytes()),
        })
    }

    /// Whether this signature of a request is by a key. Whose key that is and whether it is valid, the caller knows; and
    /// whether the destination is this server.
    pub fn is_by(&self, public_key: &[u8], message: &str) -> bool {
        self.key_id.starts_with("ed25519:") && verify_bytes(message.as_bytes(), public_key, &self.signature)
    }

    /// The text that this signature has signed if the request was for `destination` and the body is JSON. Old servers sign
    /// the destination, too, and only leave it out of the header.
    pub fn message(
        &self,
        destination: &ServerName,
        method: &str,
        uri: &str,
        body: &[u8],
    ) -> Result<String, serde_json::Error> {
        signed_message(self.origin.as_str(), destination.as_str(), method, uri, body)
    }
}

/// The canonical JSON of a request.
fn signed_message(
    origin: &str,
    destination: &str,
    method: &str,
    uri: &str,
    body: &[u8],
) -> Result<String, serde_json::Error> {
    let mut out = String::with_capacity(body.len() + 256);
    out.push('{');
    if !body.is_empty() {
        // Not through a tree: one event that somebody nests deeply would keep all others of a transaction from being sent.
        let text = std::str::from_utf8(body).map_err(serde_json::Error::custom)?;
        out.push_str("\"content\":");
        rewrite(text, &mut out)?;
        out.push(',');
    }
    for (name, text) in [("destination", destination), ("method", method), ("origin", origin), ("uri", uri)] {
        write_string(&mut out, name);
        out.push(':');
        write_string(&mut out, text);
        out.push(if name == "uri" { '}' } else { ',' });
    }
    Ok(out)
}

/// What follows the scheme's name, if this is its scheme.
fn parameters_of(header: &str) -> Option<&str> {
    let header = header.trim_start_matches([' ', '\t']);
    let (scheme, rest) = header.split_at_checked("X-Matrix".len())?;
    (scheme.eq_ignore_ascii_case("X-Matrix") && (rest.is_empty() || rest.starts_with([' ', '\t']))).then_some(rest)
}

/// A value, quoted or not, and what comes after it: the end, or a comma.
fn value(text: &str) -> Option<(String, &str)> {
    let (value, rest) = match text.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => {
            // Old servers leave values unquoted that hold colons, and base64's signs.
            let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
            let (value, rest) = text.split_at(end);
            if value.is_empty() || !value.bytes().all(|b| is_token(b) || b":/=[]".contains(&b)) {
                return None;
            }
            (value.to_owned(), rest)
        }
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    (rest.is_empty() || rest.starts_with(',')).then_some((value, rest))
}

fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

/// What may stand between quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Option<(String, Option<String>, String, String)> {
        let x = XMatrix::parse(header).ok()?;
        Some((x.origin.to_string(), x.destination.map(|name| name.to_string()), x.key_id, x.signature))
    }

    #[test]
    fn every_form_of_the_header_is_read() {
        let expected = |origin: &str, destination: Option<&str>| {
            Some((origin.to_owned(), destination.map(str::to_owned), "ed25519:a_1".to_owned(), "c2ln".to_owned()))
        };
        for header in [
            r#"X-Matrix origin="a.org:1",destination="b.org",key="ed25519:a_1",sig="c2ln""#,
            r#"x-matrix origin=a.org:1,destination=b.org,key=ed25519:a_1,sig=c2ln"#,
            r#"X-MATRIX   sig="c2ln" , KEY = "ed25519:a_1",	Destination=b.org ,Origin="a.org:1""#,
            r#"X-Matrix origin="a\.o\rg:1",destination=b.org,key="ed25519:a_1",sig="c2ln""#,
            r#"X-Matrix origin=a.org:1,destination="b.org",key="ed25519:a_1",sig="c2ln",future="a,b=\"c\"",x=y"#,
            r#"X-Matrix ,origin=a.org:1,,destination="b.org",key="ed25519:a_1",sig="c2ln","#,
        ] {
            assert_eq!(read(header), expected("a.org:1", Some("b.org")), "{header}");
        }
        assert_eq!(read(r#"X-Matrix origin=a.org,key="ed25519:a_1",sig=c2ln"#), expected("a.org", None));
        assert_eq!(read(r#"X-Matrix origin=[::1]:8448,key="ed25519:a_1",sig="c2ln""#), expected("[::1]:8448", None));
        let padded = read("X-Matrix origin=a.org,key=ed25519:1,sig=ab+/cd==").unwrap();
        assert_eq!(padded.3, "ab+/cd==");
    }

    #[test]
    fn what_is_no_such_header_is_refused() {
        for header in [
            "",
            "X-Matrix",
            "X-Matrix ",
            "Bearer abc",
            "X-Matrixorigin=a.org",
            r#"X-Matrix origin=a.org,key="ed25519:a_1""#,
            r#"X-Matrix origin="a.org,key="ed25519:a_1",sig="c2ln""#,
            r#"X-Matrix origin="a.org" key="ed25519:a_1",sig="c2ln""#,
            r#"X-Matrix origin=a.org,origin=b.org,key="ed25519:a_1",sig="c2ln""#,
            r#"X-Matrix origin=a.org,key="ed25519:a_1",sig="c2ln\"#,
            r#"X-Matrix origin="a b",key="ed25519:a_1",sig="c2ln""#,
            r#"X-Matrix origin="",key="ed25519:a_1",sig="c2ln""#,
            r#"X-Matrix origin=a.org,destination="",key="ed25519:a_1",sig="c2ln""#,
            r#"X-Matrix origin=a.org,key="ed25519:a_1",sig="c2ln",;"#,
        ] {
            assert_eq!(read(header), None, "{header}");
        }
    }

    #[test]
    fn several_signatures_must_agree() {
        let headers = |list: &[&str]| -> HeaderMap {
            list.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
        };
        let one = r#"X-Matrix origin=a.org,key="ed25519:1",sig="c2ln""#;
        let two = r#"X-Matrix origin=a.org,key="ed25519:2",sig="c2ln""#;
        let other = r#"X-Matrix origin=b.org,key="ed25519:2",sig="c2ln""#;
        assert_eq!(XMatrix::from_headers(&headers(&["Bearer x", one, two])).unwrap().len(), 2);
        assert_eq!(XMatrix::from_headers(&headers(&[one, other])), Err(XMatrixError::Contradicting));
        assert_eq!(XMatrix::from_headers(&headers(&["Bearer x"])), Err(XMatrixError::Missing));
        assert_eq!(XMatrix::from_headers(&headers(&[])), Err(XMatrixError::Missing));
        assert_eq!(XMatrix::from_headers(&headers(&[one, "X-Matrix x"])), Err(XMatrixError::Malformed));
        assert_eq!(XMatrix::from_headers(&headers(&[one; 9])), Err(XMatrixError::Malformed));
    }

    fn b_org() -> OwnedServerName {
        ServerName::parse("b.org").unwrap()
    }

    fn signed(body: &[u8]) -> (SigningKey, XMatrix) {
        let key = SigningKey::from_seed([7; 32], "1").unwrap();
        let a = ServerName::parse("a.org").unwrap();
        let x = XMatrix::sign(&key, &a, &b_org(), "PUT", "/_matrix/x?y=z", body).unwrap();
        (key, x)
    }

    #[test]
    fn a_signature_covers_method_target_body_and_both_servers() {
        let body = br#"{"b":1,"a":[1.5,"\u00e9"]}"#;
        let (key, x) = signed(body);
        let x = XMatrix::parse(x.to_header().unwrap().to_str().unwrap()).unwrap();
        let good = |x: &XMatrix, method: &str, uri: &str, body: &[u8]| {
            x.message(&b_org(), method, uri, body).is_ok_and(|message| x.is_by(&key.public_key(), &message))
        };
        assert!(good(&x, "PUT", "/_matrix/x?y=z", body));
        assert!(good(&x, "PUT", "/_matrix/x?y=z", "{ \"a\" : [1.5,\"é\"], \"b\":1}".as_bytes()));
        assert!(!good(&x, "POST", "/_matrix/x?y=z", body));
        assert!(!good(&x, "PUT", "/_matrix/x?y=%7a", body));
        assert!(!good(&x, "PUT", "/_matrix/x?y=z", b""));
        assert!(!good(&x, "PUT", "/_matrix/x?y=z", b"{}"));
        assert!(!good(&x, "PUT", "/_matrix/x?y=z", b"not json"));
        assert!(!good(&x, "PUT", "/_matrix/x?y=z", b"\xff"));
        for change in [
            |x: &mut XMatrix| x.origin = ServerName::parse("c.org").unwrap(),
            |x: &mut XMatrix| x.key_id = "rsa:1".to_owned(),
            |x: &mut XMatrix| x.signature = "AAAA".to_owned(),
        ] {
            let mut changed = x.clone();
            change(&mut changed);
            assert!(!good(&changed, "PUT", "/_matrix/x?y=z", body), "{changed:?}");
        }
        let elsewhere = x.message(&ServerName::parse("c.org").unwrap(), "PUT", "/_matrix/x?y=z", body).unwrap();
        assert!(!x.is_by(&key.public_key(), &elsewhere));
        let old = XMatrix { destination: None, ..x };
        assert!(good(&old, "PUT", "/_matrix/x?y=z", body), "an old server doesn't tell the destination, but signs it");
    }

    #[test]
    fn a_body_may_be_deep() {
        let deep = |space: &str| format!(r#"{{"pdus":{space}[{}{}]}}"#, "[".repeat(900), "]".repeat(900));
        let (key, x) = signed(deep("").as_bytes());
        let message = x.message(&b_org(), "PUT", "/_matrix/x?y=z", deep(" ").as_bytes()).unwrap();
        assert!(x.is_by(&key.public_key(), &message));
    }

    #[test]
    fn no_body_is_not_an_empty_object() {
        let message = signed_message("a.org", "b.org", "GET", "/x", b"").unwrap();
        assert_eq!(message, r#"{"destination":"b.org","method":"GET","origin":"a.org","uri":"/x"}"#);
        let message = signed_message("a.org", "b.org", "PUT", "/x", b"{}").unwrap();
        assert_eq!(message, r#"{"content":{},"destination":"b.org","method":"PUT","origin":"a.org","uri":"/x"}"#);
    }

    proptest::proptest! {
        #[test]
        fn no_header_panics(header in "\\PC{0,80}") {
            let _ = XMatrix::parse(&header);
            let _ = XMatrix::parse(&format!("X-Matrix {header}"));
            let _ = XMatrix::parse(&format!("X-Matrix origin=\"{header}\",key=a,sig=b"));
        }

        #[test]
        fn what_is_written_is_read(port: u16, key in "[a-zA-Z0-9_]{1,20}", destination: bool) {
            let origin = ServerName::parse(format!("a.org:{port}")).unwrap();
            let destination = destination.then(|| ServerName::parse("[::1]").unwrap());
            let x = XMatrix { origin, destination, key_id: format!("ed25519:{key}"), signature: "ab+/".to_owned() };
            proptest::prop_assert_eq!(XMatrix::parse(x.to_header().unwrap().to_str().unwrap()), Ok(x));
        }
    }
}
