//! Hosts as they stand in server names and URLs: an address or a name.

use std::net::{IpAddr, Ipv6Addr};

/// An address or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Address(IpAddr),
    Name(String),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Host {
    /// Reads `1.2.3.4`, `[2001:db8::1]` or a name.
    pub(crate) fn parse(text: &str) -> Self {
        let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Some(address) = bracketed.and_then(|text| text.parse::<Ipv6Addr>().ok()) {
            return Self::Address(address.into());
        }
        match text.parse::<std::net::Ipv4Addr>() {
            Ok(address) => Self::Address(address.into()),
            Err(_) => Self::Name(text.trim_end_matches('.').to_ascii_lowercase()),
        }
    }
}
