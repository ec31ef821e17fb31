//! How much is too much, decided in this process alone.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{NotUntil, Quota, RateLimiter};

use crate::address::network;
use crate::config::Rate;
use crate::rejection::Rejection;

/// Slots of one table. Keys are spread over them with a seed of this process: memory stays bounded whatever keys are
/// invented, and who wants to exhaust the slots of others needs slots × rate requests a second.
const SLOTS: usize = 1 << 16;

type Single = RateLimiter<NotKeyed, InMemoryState, DefaultClock, NoOpMiddleware>;

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

/// The states of all slots: 8 bytes each.
struct Slots(Box<[InMemoryState]>);

impl Default for Slots {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| InMemoryState::default()).collect())
    }
}

impl StateStore for Slots {
    type Key = usize;

    fn measure_and_replace<T, F, E>(&self, slot: &usize, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0[*slot].measure_and_replace(&NotKeyed::NonKey, f)
    }
}

/// A bounded table of limits by key.
struct Keyed {
    rate: Rate,
    table: RateLimiter<usize, Slots, DefaultClock>,
    seed: RandomState,
}

impl Keyed {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            table: RateLimiter::new(quota(rate), Slots::default(), DefaultClock::default()),
            seed: RandomState::new(),
        }
    }

    fn check(&self, key: impl Hash) -> Result<(), Duration> {
        let slot = self.seed.hash_one(key) as usize % SLOTS;
        self.table.check_key(&slot).map_err(|until| wait(&until))
    }
}

fn wait(until: &NotUntil<governor::clock::QuantaInstant>) -> Duration {
    until.wait_time_from(DefaultClock::default().now())
}

fn refuse(scope: &'static str, rate: Rate, wait: Duration) -> Rejection {
    Rejection::RateLimited { scope, per_second: rate.per_second.get(), burst: rate.burst.get(), wait }
}

/// The limits of one source.
pub(crate) struct Limiter {
    source: Option<(Rate, Single)>,
    client: Option<Keyed>,
}

impl Limiter {
    pub(crate) fn new(source: Option<Rate>, client: Option<Rate>) -> Self {
        Self { source: source.map(|rate| (rate, RateLimiter::direct(quota(rate)))), client: client.map(Keyed::new) }
    }

    /// Counts `n` messages of the source; all of them or none. More than a whole burst never fits.
    pub(crate) fn check_source(&self, n: NonZeroU32) -> Result<(), Rejection> {
        let Some((rate, limiter)) = &self.source else { return Ok(()) };
        match limiter.check_n(n) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(refuse("source", *rate, wait(&until))),
            Err(_) => Err(refuse("source", *rate, Duration::from_secs(1))),
        }
    }

    /// Counts one message of a client.
    pub(crate) fn check_client(&self, client: &str) -> Result<(), Rejection> {
        let Some(clients) = &self.client else { return Ok(()) };
        clients.check(client).map_err(|wait| refuse("client", clients.rate, wait))
    }
}

/// Memory for bodies that come in pieces, shared by all requests. What comes whole, as short messages do, lies in its
/// connection's buffer and is not counted, so that it passes also while others have used this up.
pub(crate) struct BodyMemory {
    used: AtomicU64,
    limit: u64,
}

impl BodyMemory {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit })
    }

    /// Nothing yet.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held { memory: self.clone(), bytes: 0 }
    }
}

/// One body's part of it; given back by dropping it.
pub(crate) struct Held {
    memory: Arc<BodyMemory>,
    bytes: u64,
}

impl Held {
    /// Takes so many bytes more; says whether they were there.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.bytes += bytes;
        self.memory.used.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.memory.limit
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The limit of requests by address.
pub(crate) struct AddressLimiter(Option<Keyed>);

impl AddressLimiter {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self(rate.map(Keyed::new))
    }

    /// Counts one request. Loopback is exempt.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), Rejection> {
        let Some(addresses) = &self.0 else { return Ok(()) };
        if address.to_canonical().is_loopback() {
            return Ok(());
        }
        addresses.check(network(address)).map_err(|wait| refuse("address", addresses.rate, wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Option<Rate> {
        Some(Rate { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() })
    }

    #[test]
    fn one_client_over_its_limit_does_not_limit_another() {
        let limiter = Limiter::new(None, rate(1, 2));
        assert!(limiter.check_client("a").is_ok() && limiter.check_client("a").is_ok());
        assert!(matches!(limiter.check_client("a"), Err(Rejection::RateLimited { scope: "client", .. })));
        assert!(limiter.check_client("b").is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_limit_and_loopback_has_none() {
        let limiter = AddressLimiter::new(rate(1, 1));
        assert!(limiter.check("2001:db8::1".parse().unwrap()).is_ok());
        assert!(limiter.check("2001:db8::2".parse().unwrap()).is_err());
        for _ in 0..9 {
            assert!(limiter.check("127.0.0.1".parse().unwrap()).is_ok());
            assert!(limiter.check("::ffff:127.0.0.1".parse().unwrap()).is_ok());
        }
    }

    #[test]
    fn a_million_invented_keys_share_the_slots_that_are_there() {
        let keyed = Keyed::new(rate(1, 1).unwrap());
        assert!((0..1_000_000).any(|key| keyed.check(key).is_err()));
        // There is no other place where a key could stay.
        assert_eq!(size_of::<InMemoryState>() * SLOTS, 512 << 10);
        assert_eq!(size_of_val(&*Slots::default().0), 512 << 10);
    }
}
