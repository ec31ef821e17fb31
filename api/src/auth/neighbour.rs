//! Who needs no key on a developer's machine: somebody at the machine itself, for whom nobody else speaks.
//!
//! A proxy on the same machine connects from loopback too; it says so in a header. A web page from elsewhere can have the
//! browser send requests here: browsers say where a request comes from, and a name that was bent to 127.0.0.1 stands in
//! `Host`.

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::http::request::Parts;

/// What proxies add.
const BY_PROXY: [&str; 6] =
    ["x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-host", "x-forwarded-proto", "via"];

/// Whether nobody else speaks through this peer.
pub(crate) fn speaks_for_itself(peer: IpAddr, head: &Parts) -> bool {
    let headers = &head.headers;
    is_here(peer, headers) && !comes_from_elsewhere(headers) && names_this_machine(host(head))
}

/// Whether the peer is on this machine, and no proxy.
pub(crate) fn is_here(peer: IpAddr, headers: &HeaderMap) -> bool {
    peer.to_canonical().is_loopback() && !BY_PROXY.iter().any(|name| headers.contains_key(*name))
}

/// Whether a browser says that another site made it send this.
fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
        || headers.get("origin").is_some_and(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            !names_this_machine(origin.split_once("://").map_or("", |(_, host)| host))
        })
}

fn host(head: &Parts) -> &str {
    let named = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| head.uri.authority().map(|authority| authority.as_str())).unwrap_or_default()
}

/// Whether this is `localhost` or a loopback address, with a port or without.
fn names_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_loopback = name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    is_loopback || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn speaks(peer: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().uri("/monitoring/alerts");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        speaks_for_itself(peer.parse().unwrap(), &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn somebody_at_this_machine_speaks_for_themselves() {
        for peer in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            for host in ["localhost:8095", "127.0.0.1:8095", "[::1]:8095", "LOCALHOST"] {
                assert!(speaks(peer, &[("host", host)]), "{peer} {host}");
            }
        }
        let page = [("host", "localhost:8095"), ("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8095")];
        assert!(speaks("127.0.0.1", &page));
    }

    #[test]
    fn another_machine_a_proxy_and_a_foreign_page_do_not() {
        let home = ("host", "localhost:8095");
        assert!(!speaks("192.0.2.1", &[home]));
        for by_proxy in BY_PROXY {
            assert!(!speaks("127.0.0.1", &[home, (by_proxy, "127.0.0.1")]), "{by_proxy}");
        }
        for foreign in [
            ("host", "evil.example:8095"),
            ("host", "localhost.evil.example"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let host = if foreign.0 == "host" { foreign } else { home };
            assert!(!speaks("127.0.0.1", &[host, foreign]), "{foreign:?}");
        }
        assert!(!speaks("127.0.0.1", &[]));
    }
}
