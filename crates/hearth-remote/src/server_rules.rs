//! With which servers the settings let us talk.

use hearth_matrix::ruma::ServerName;

/// Servers by the pattern of their host, with `*` and `?`, ports and case aside.
#[derive(Clone, Debug, Default)]
pub struct ServerRules {
    /// Whether there is federation at all.
    pub enabled: bool,
    /// If there are some, only these.
    pub allowed: Option<Vec<String>>,
    /// Never these.
    pub denied: Vec<String>,
}

/// Which setting keeps us from talking with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleRefusal {
    /// `federation.enabled` is off.
    Off,
    /// It is among `federation.denied_servers`.
    Denied,
    /// There is `federation.allowed_servers`, and it is not among them.
    NotAllowed,
}

impl std::fmt::Display for RuleRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "`federation.enabled` is off: this server talks with no other",
            Self::Denied => "`federation.denied_servers` names it",
            Self::NotAllowed => "`federation.allowed_servers` does not name it",
        })
    }
}

impl ServerRules {
    /// Everybody.
    pub fn open() -> Self {
        Self { enabled: true, ..Self::default() }
    }

    /// Whether we talk with a server.
    pub fn allow(&self, server: &ServerName) -> bool {
        self.refusal(server).is_none()
    }

    /// Why we don't talk with a server.
    pub fn refusal(&self, server: &ServerName) -> Option<RuleRefusal> {
        let host = server.host().to_ascii_lowercase();
        let among = |patterns: &[String]| patterns.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), &host));
        match self {
            Self { enabled: false, .. } => Some(RuleRefusal::Off),
            Self { denied, .. } if among(denied) => Some(RuleRefusal::Denied),
            Self { allowed: Some(allowed), .. } if !among(allowed) => Some(RuleRefusal::NotAllowed),
            _ => None,
        }
    }
}

/// Whether a text is of a pattern, in time proportional to both.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, covered)) = star {
            star = Some((at, covered + 1));
            p = at + 1;
            t = covered + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, yes) in [
            ("*", "", true),
            ("*", "a.org", true),
            ("a.org", "a.org", true),
            ("a.org", "b.a.org", false),
            ("*.a.org", "b.a.org", true),
            ("*.a.org", "a.org", false),
            ("a?.org", "ab.org", true),
            ("a?.org", "a.org", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "ababa", false),
        ] {
            assert_eq!(matches(pattern, text), yes, "{pattern} {text}");
        }
    }

    #[test]
    fn denied_wins_and_the_switch_is_above_all() {
        let name = |text| <&ServerName>::try_from(text).unwrap();
        let mut rules = ServerRules { denied: vec!["*.EVIL.org".to_owned()], ..ServerRules::open() };
        assert!(rules.allow(name("a.org:8448")) && !rules.allow(name("x.evil.ORG:1")));
        rules.allowed = Some(vec!["a.org".to_owned(), "x.evil.org".to_owned()]);
        assert!(rules.allow(name("A.org")) && !rules.allow(name("x.evil.org")) && !rules.allow(name("b.org")));
        rules.enabled = false;
        assert!(!rules.allow(name("a.org")));
    }
}
