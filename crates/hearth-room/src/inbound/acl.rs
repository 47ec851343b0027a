//! Server ACLs of a room: which servers may take part.
//!
//! Spec: server-server API, "Server Access Control Lists (ACLs)"; client-server API, `m.room.server_acl`.

use hearth_matrix::ruma::ServerName;
use serde_json::{Map, Value};

/// The content of `m.room.server_acl`.
#[derive(Clone, Debug)]
pub(crate) struct ServerAcl {
    allow_ip_literals: bool,
    allow: Vec<String>,
    deny: Vec<String>,
}

impl ServerAcl {
    /// From the content of the event. A part that makes no sense counts as missing, and the others hold all the same.
    pub(crate) fn parse(content: &str) -> Option<Self> {
        let content: Map<String, Value> = serde_json::from_str(content).ok()?;
        let globs = |name: &str| {
            let globs = content.get(name).and_then(Value::as_array).into_iter().flatten();
            globs.filter_map(|glob| glob.as_str().map(str::to_owned)).collect()
        };
        let allow_ip_literals = content.get("allow_ip_literals").and_then(Value::as_bool).unwrap_or(true);
        Some(Self { allow_ip_literals, allow: globs("allow"), deny: globs("deny") })
    }

    /// Whether a server may take part. Its port does not matter.
    pub(crate) fn allows(&self, server: &ServerName) -> bool {
        if !self.allow_ip_literals && server.is_ip_literal() {
            return false;
        }
        let host = server.host().to_ascii_lowercase();
        let matches = |globs: &[String]| globs.iter().any(|glob| matches(&glob.to_ascii_lowercase(), &host));
        !matches(&self.deny) && matches(&self.allow)
    }
}

/// `*` stands for any characters, `?` for one.
fn matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut g, mut t) = (0, 0);
    // Where the last star stood, and how much of the text it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(b'?') => (g, t) = (g + 1, t + 1),
            Some(byte) if *byte == text[t] => (g, t) = (g + 1, t + 1),
            _ => match star {
                Some((at, swallowed)) => {
                    star = Some((at, swallowed + 1));
                    (g, t) = (at + 1, swallowed + 1);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_matched_whatever_their_case_and_port() {
        let acl =
            ServerAcl::parse(r#"{"allow":["*"],"deny":["*.Evil.example","b?d.example"],"allow_ip_literals":false}"#);
        let acl = acl.expect("this is an ACL");
        for (server, allowed) in [
            ("good.example", true),
            ("evil.example", true),
            ("very.EVIL.example", false),
            ("very.evil.example:8448", false),
            ("bad.example", false),
            ("baad.example", true),
            ("127.0.0.1", false),
            ("[::1]:8448", false),
        ] {
            let name = <&ServerName>::try_from(server).expect("a server name");
            assert_eq!(acl.allows(name), allowed, "{server}");
        }
        for odd in [
            r#"{"allow":["*"],"deny":["evil.example"],"allow_ip_literals":"false"}"#,
            r#"{"allow":["*",null],"deny":["evil.example",5],"allow_ip_literals":null}"#,
            r#"{"allow":["*"],"deny":["evil.example"],"more":[]}"#,
        ] {
            let acl = ServerAcl::parse(odd).expect("this is an ACL");
            for (server, allowed) in [("evil.example", false), ("good.example", true), ("127.0.0.1", true)] {
                assert_eq!(
                    acl.allows(<&ServerName>::try_from(server).expect("a server name")),
                    allowed,
                    "{odd}: {server}"
                );
            }
        }
        let nobody = ServerAcl::parse(r#"{"allow":"*","deny":[]}"#).expect("this is an ACL");
        assert!(!nobody.allows(<&ServerName>::try_from("good.example").expect("a server name")));
        let shut = ServerAcl::parse("{}").expect("this is an ACL");
        assert!(!shut.allows(<&ServerName>::try_from("good.example").expect("a server name")));
    }
}
