//! Which addresses this server may connect to. Asked for the very address of the socket, after names are resolved, so that
//! neither a redirect nor a changing name leads to what is private.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Ranges that may not be connected to, and exceptions from them.
#[derive(Clone, Debug, Default)]
pub struct AddressFilter {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl AddressFilter {
    /// A range in `allow` wins over one in `deny`; what is in neither is allowed.
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        Self { allow, deny }
    }

    /// Whether this server may connect there. An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4) counts as well.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let inner = match address {
            IpAddr::V6(address) => embedded(address).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        self.allows_itself(address) && inner.is_none_or(|inner| self.allows_itself(inner))
    }

    fn allows_itself(&self, address: IpAddr) -> bool {
        let within = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&address));
        within(&self.allow) || !within(&self.deny)
    }
}

/// The IPv4 address that packets to this IPv6 address end up at.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let at = |from: usize| Ipv4Addr::new(octets[from], octets[from + 1], octets[from + 2], octets[from + 3]);
    match address.segments() {
        // ::a.b.c.d, the old "IPv4-compatible" form; `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(at(12)),
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(at(12)),
        [0x2002, ..] => Some(at(2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|range| range.parse().unwrap()).collect()
    }

    #[test]
    fn ranges_are_denied_and_exceptions_allowed() {
        let deny = ranges(&["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7"]);
        let filter = AddressFilter::new(ranges(&["10.1.0.0/16", "fd00:1::/32"]), deny);
        for (address, allowed) in [
            ("1.1.1.1", true),
            ("10.0.0.1", false),
            ("10.1.2.3", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("100.127.0.1", false),
            ("100.128.0.1", true),
            ("2606:4700::1111", true),
            ("::1", false),
            ("fd12::1", false),
            ("fd00:1::1", true),
            // An IPv4 address in another coat.
            ("::ffff:127.0.0.1", false),
            ("::ffff:10.1.2.3", true),
            ("::ffff:1.1.1.1", true),
            ("::127.0.0.1", false),
            ("64:ff9b::a00:1", false),
            ("64:ff9b::101:101", true),
            ("2002:7f00:1::", false),
            ("2002:101:101::", true),
        ] {
            assert_eq!(filter.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }

    #[test]
    fn no_range_denies_nothing() {
        assert!(AddressFilter::default().allows("127.0.0.1".parse().unwrap()));
    }
}
