//! Whose request it is, behind proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::HeaderMap;
use ipnet::IpNet;

/// Whether an address belongs to a trusted proxy.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address.to_canonical()))
}

/// What an address counts as: an IPv6 address counts with its /64, which one host may own whole.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The peer, or behind a trusted proxy the last address of `X-Forwarded-For` that no trusted proxy added.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let mut address = peer;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for part in value.to_str().unwrap_or_default().rsplit(',') {
            match hop(part.trim()) {
                Some(next) if is_trusted(next, trusted) => address = next,
                Some(next) => return next,
                None => return address,
            }
        }
    }
    address
}

/// An address as proxies write it: alone, in brackets, with a port.
fn hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    bare.parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use crate::config::Rate;
    use crate::limit::AddressLimiter;

    use super::*;

    fn address(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn forwarded_addresses_count_only_from_trusted_proxies() {
        assert_eq!(address("9.9.9.9", &["1.1.1.1"], &[]), "9.9.9.9");
        assert_eq!(address("9.9.9.9", &["1.1.1.1"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(address("10.0.0.1", &["6.6.6.6, 1.1.1.1"], &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(address("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"], &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(address("10.0.0.1", &["6.6.6.6", "1.1.1.1"], &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(address("10.0.0.1", &["rubbish"], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(address("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
    }
    #[test]
    fn an_address_is_read_however_a_proxy_writes_it() {
        for (text, read) in [
            ("203.0.113.7:5678", "203.0.113.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:5678", "2001:db8::1"),
            (" 203.0.113.7 ", "203.0.113.7"),
        ] {
            assert_eq!(address("10.0.0.1", &[text], &["10.0.0.0/8"]), read);
        }
        for text in
            ["unknown", "_hidden", "203.0.113", "0x7f.1", "203.0.113.7:x", "", "[203.0.113.7", "for=203.0.113.7"]
        {
            assert_eq!(address("10.0.0.1", &[text], &["10.0.0.0/8"]), "10.0.0.1", "{text}");
        }
    }

    #[test]
    fn an_address_of_ipv4_within_ipv6_is_the_same_one() {
        assert_eq!(address("::ffff:10.0.0.1", &["203.0.113.7"], &["10.0.0.0/8"]), "203.0.113.7");
        assert_eq!(network("::ffff:203.0.113.7".parse().unwrap()), network("203.0.113.7".parse().unwrap()));
    }

    #[test]
    fn headers_of_other_names_are_not_looked_at() {
        let mut headers = HeaderMap::new();
        for name in ["x-real-ip", "forwarded", "x-client-ip", "true-client-ip", "cf-connecting-ip", "x-forwarded"] {
            headers.append(name, "203.0.113.7".parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        assert_eq!(client_address("10.0.0.1".parse().unwrap(), &headers, &trusted).to_string(), "10.0.0.1");
    }

    /// How many of a hundred requests pass a limit of ten, each with another forwarded address.
    fn passed(peer: &str, trusted: &[IpNet], forwarded: impl Fn(usize) -> String) -> usize {
        let ten = NonZeroU32::new(10).unwrap();
        let limiter = AddressLimiter::new(Some(Rate { per_second: NonZeroU32::MIN, burst: ten }));
        let request = |n| {
            let mut headers = HeaderMap::new();
            headers.append("x-forwarded-for", forwarded(n).parse().unwrap());
            limiter.check(client_address(peer.parse().unwrap(), &headers, trusted)).is_ok()
        };
        (0..100).filter(|n| request(*n)).count()
    }

    #[test]
    fn invented_addresses_gain_nothing_and_clients_of_a_proxy_count_alone() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        assert_eq!(passed("203.0.113.7", &trusted, |n| format!("198.51.100.{n}")), 10, "nobody's proxy");
        let behind = |n| format!("198.51.100.{n}, 203.0.113.7, 10.0.0.2");
        assert_eq!(passed("10.0.0.1", &trusted, behind), 10, "left of the real one");
        assert_eq!(passed("10.0.0.1", &trusted, |n| format!("203.0.113.{}", n % 2)), 20, "two clients");
        assert_eq!(passed("10.0.0.1", &trusted, |n| format!("2001:db8::{n:x}")), 10, "one network");
    }

    fn trusted() -> Vec<IpNet> {
        vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic_or_moves_who_is_not_behind_a_proxy(
            peer in any::<IpAddr>(),
            values in prop::collection::vec(prop_oneof![prop::collection::vec(any::<u8>(), 0..60), "[0-9a-f:., ]{0,60}".prop_map(String::into_bytes)], 0..4),
        ) {
            let mut headers = HeaderMap::new();
            for value in values.iter().filter_map(|value| hyper::header::HeaderValue::from_bytes(value).ok()) {
                headers.append("x-forwarded-for", value);
            }
            prop_assert_eq!(client_address(peer, &headers, &[]), peer);
            let found = client_address(peer, &headers, &trusted());
            prop_assert!(is_trusted(peer, &trusted()) || found == peer);
        }

        #[test]
        fn it_is_the_last_address_that_no_proxy_added(
            before in prop::collection::vec(any::<IpAddr>(), 0..4),
            client in any::<IpAddr>(),
            proxies in prop::collection::vec(any::<[u8; 3]>(), 0..4),
            lines in any::<bool>(),
        ) {
            prop_assume!(!is_trusted(client, &trusted()));
            let proxies = proxies.iter().map(|[a, b, c]| IpAddr::from([10, *a, *b, *c]));
            let chain: Vec<_> = before.into_iter().chain([client]).chain(proxies).map(|ip| ip.to_string()).collect();
            let mut headers = HeaderMap::new();
            for value in if lines { chain } else { vec![chain.join(", ")] } {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            prop_assert_eq!(client_address([10, 0, 0, 1].into(), &headers, &trusted()), client);
        }
    }
}
