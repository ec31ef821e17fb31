//! Which fault comes when: drawn from a seed, so that a run can be repeated.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::fault::{Fault, Part};

/// A fault and its times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    /// From the strike to the healing.
    pub(crate) hold: Duration,
    /// From the recovery to the next fault.
    pub(crate) pause: Duration,
    /// Which of several processes it strikes.
    pub(crate) victim: usize,
}

/// An endless row of faults. All of them are dealt once before any comes again; kills come six times as often when
/// there is a number of them to reach.
pub(crate) struct Plan {
    rng: StdRng,
    faults: Vec<Fault>,
    dealt: Vec<Fault>,
    lease: Duration,
    pauses: u32,
    always: Option<Duration>,
}

impl Plan {
    pub(crate) fn new(seed: u64, faults: &[Fault], many_kills: bool, lease: Duration) -> Self {
        let weight = |fault: &Fault| if many_kills && fault.kills() { 6 } else { 1 };
        let faults = faults.iter().flat_map(|fault| std::iter::repeat_n(*fault, weight(fault))).collect();
        Self { rng: StdRng::seed_from_u64(seed), faults, dealt: Vec::new(), lease, pauses: 1, always: None }
    }

    /// The same faults with pauses so many times as long.
    pub(crate) fn with_pauses(self, times: u32) -> Self {
        Self { pauses: times, ..self }
    }

    /// The same faults, each held for so long.
    pub(crate) fn held_for(self, hold: Option<Duration>) -> Self {
        Self { always: hold, ..self }
    }

    fn hold(&mut self, fault: Fault) -> Duration {
        let ms = match fault {
            Fault::GatewayKill | Fault::WorkerKill => 0..300,
            Fault::GatewayStop | Fault::WorkerStop | Fault::RedisRestart | Fault::PostgresRestart => 0..1,
            Fault::RedisFlushFunctions | Fault::PostgresDisconnect => 0..1,
            Fault::NetRedisCut | Fault::NetPostgresCut | Fault::NetClientCut => 0..1,
            Fault::WorkerVanish | Fault::WorkersDown | Fault::RedisKill | Fault::PostgresKill | Fault::DiskFull => {
                0..1500
            }
            // Longer than the lease, so that others have taken over before it comes back.
            Fault::WorkerFreeze => {
                let lease = self.lease.as_millis() as u64;
                lease * 3 / 2..lease * 5 / 2
            }
            Fault::NetRedisStall | Fault::RedisFreeze => 200..6000,
            Fault::GatewayFreeze
            | Fault::RedisFull
            | Fault::RedisBusy
            | Fault::PostgresFreeze
            | Fault::PostgresLock
            | Fault::NetRedisSlow
            | Fault::NetRedisSwallow
            | Fault::NetPostgresStall
            | Fault::NetPostgresSwallow
            | Fault::NetClientSwallow => 200..2500,
        };
        Duration::from_millis(self.rng.random_range(ms))
    }
}

impl Iterator for Plan {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        if self.dealt.is_empty() {
            self.dealt.clone_from(&self.faults);
            self.dealt.shuffle(&mut self.rng);
        }
        let fault = self.dealt.pop()?;
        let hold = match self.always {
            Some(hold) => hold,
            None => self.hold(fault),
        };
        let pause = Duration::from_millis(self.rng.random_range(300..1500)) * self.pauses;
        Some(Planned { fault, hold, pause, victim: self.rng.random_range(0..1000) })
    }
}

/// Which parts nobody else may strike meanwhile: the disk's fault ends Redis.
pub(crate) fn lock_of(part: Part) -> Part {
    match part {
        Part::Disk => Part::Redis,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let plan = |seed| Plan::new(seed, Fault::ALL, false, LEASE).take(100).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_fault_comes_before_any_comes_again() {
        let mut dealt: Vec<Fault> =
            Plan::new(1, Fault::ALL, false, LEASE).take(Fault::ALL.len()).map(|planned| planned.fault).collect();
        dealt.sort_unstable();
        assert_eq!(dealt, Fault::ALL);
    }

    #[test]
    fn a_frozen_worker_outlasts_its_lease() {
        let plan = Plan::new(1, &[Fault::WorkerFreeze], false, LEASE);
        assert!(plan.take(100).all(|planned| planned.hold > LEASE));
    }

    #[test]
    fn no_faults_are_an_empty_plan() {
        assert_eq!(Plan::new(1, &[], true, LEASE).next(), None);
    }
}
