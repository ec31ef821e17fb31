//! Whose request it is, behind proxies.

use std::net::IpAddr;

use hyper::HeaderMap;
use ipnet::IpNet;

/// Whether an address belongs to a trusted proxy.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address.to_canonical()))
}

/// The peer, or behind a trusted proxy the last address of `X-Forwarded-For` that no trusted proxy added.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let mut address = peer;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for part in value.to_str().unwrap_or_default().rsplit(',') {
            match part.trim().parse::<IpAddr>() {
                Ok(next) if is_trusted(next, trusted) => address = next,
                Ok(next) => return next,
                Err(_) => return address,
            }
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
