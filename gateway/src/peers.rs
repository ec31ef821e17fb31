//! How many connections an address may have.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::address::{is_trusted, network};

/// The open connections by address, as many entries as there are connections at most. Loopback and trusted proxies
/// bring the connections of many and are exempt.
pub(crate) struct Peers {
    limit: usize,
    trusted: Vec<IpNet>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Peers {
    /// `limit` 0 is no limit.
    pub(crate) fn new(limit: usize, trusted: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { limit, trusted, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more connection from this address, unless it has its share.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let exempt = self.limit == 0 || address.to_canonical().is_loopback() || is_trusted(address, &self.trusted);
        if exempt {
            return Some(Place(None));
        }
        let network = network(address);
        let mut open = self.open();
        let count = open.entry(network).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Place(Some((self.clone(), network))))
    }
}

/// A connection's place; given back by dropping it.
pub(crate) struct Place(Option<(Arc<Peers>, IpAddr)>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some((peers, network)) = &self.0 else { return };
        let mut open = peers.open();
        if let Some(count) = open.get_mut(network) {
            *count -= 1;
            if *count == 0 {
                open.remove(network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let peers = Peers::new(2, Vec::new());
        let first = peers.admit(ip("203.0.113.7")).unwrap();
        let _second = peers.admit(ip("::ffff:203.0.113.7")).unwrap();
        assert!(peers.admit(ip("203.0.113.7")).is_none());
        let _other = peers.admit(ip("203.0.113.8")).unwrap();
        drop(first);
        assert!(peers.admit(ip("203.0.113.7")).is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_it() {
        let peers = Peers::new(1, Vec::new());
        let _first = peers.admit(ip("2001:db8::1")).unwrap();
        assert!(peers.admit(ip("2001:db8::ffff:2")).is_none());
        assert!(peers.admit(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn loopback_and_trusted_proxies_have_no_share_and_nobody_has_one_at_zero() {
        let peers = Peers::new(1, vec!["10.0.0.0/8".parse().unwrap()]);
        let none = Peers::new(0, Vec::new());
        let places: Vec<_> = ["127.0.0.1", "::1", "10.1.2.3", "::ffff:127.0.0.1"]
            .iter()
            .flat_map(|address| [peers.admit(ip(address)), peers.admit(ip(address)), none.admit(ip("203.0.113.7"))])
            .collect();
        assert!(places.iter().all(Option::is_some));
        assert!(peers.open().is_empty() && none.open().is_empty());
    }

    #[test]
    fn addresses_that_have_left_take_no_memory() {
        let peers = Peers::new(10, Vec::new());
        for n in 0..100_000_u32 {
            drop(peers.admit(IpAddr::from(std::net::Ipv4Addr::from_bits(0xCB00_0000 + n))));
        }
        assert!(peers.open().is_empty() && peers.open().capacity() < 100);
    }
}
