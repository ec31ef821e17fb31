//! Strikes, heals, and waits until work goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use weir_core::shutdown::Shutdown;
use weir_stack::FaultProxy;
use weir_stack::Signal;

use crate::fault::{Fault, Part};
use crate::load::Shared;
use crate::plan::Planned;
use crate::roles::{Place, Role};
use crate::stack::Stack;
use crate::timeline::Event;

/// How long messages gather before the worker that reads them is frozen.
const FILLING: Duration = Duration::from_millis(400);

const POLL: Duration = Duration::from_millis(10);

/// One who strikes.
pub(crate) struct Injector {
    pub(crate) stack: Arc<Stack>,
    pub(crate) load: Arc<Shared>,
    /// How long work may take to go on after a healing.
    pub(crate) patience: Duration,
    /// Ends every fault early.
    pub(crate) stop: Shutdown,
}

/// What shows that work goes on.
enum Sign {
    /// This gateway acknowledges a request that was sent after the healing.
    Gateway(usize),
    /// Every gateway does.
    Gateways,
    /// Something is stored after the healing.
    Stored,
    /// Everything that was accepted before the strike is finished.
    CaughtUp,
}

impl Injector {
    /// One fault from strike to recovery.
    pub(crate) async fn run(&self, planned: Planned) -> Result<Event> {
        let timeline = &self.load.timeline;
        let struck = timeline.now();
        tracing::debug!(fault = planned.fault.name(), hold = ?planned.hold, at = struck, "strike");
        self.strike_and_heal(planned).await.with_context(|| format!("the fault {}", planned.fault))?;
        let healed = timeline.now();
        let recovered = self.wait_for(self.sign(planned), struck, healed).await;
        if recovered.is_none() {
            tracing::warn!(fault = planned.fault.name(), "work did not go on in time");
        }
        Ok(Event { fault: planned.fault, struck, healed, recovered, overlapped: false })
    }

    fn sign(&self, planned: Planned) -> Sign {
        match planned.fault {
            Fault::GatewayKill | Fault::GatewayFreeze | Fault::GatewayStop => {
                Sign::Gateway(planned.victim % self.stack.gateways.len())
            }
            Fault::WorkerKill | Fault::WorkerVanish | Fault::WorkersDown | Fault::WorkerFreeze | Fault::WorkerStop => {
                Sign::CaughtUp
            }
            Fault::RedisKill
            | Fault::RedisFreeze
            | Fault::RedisRestart
            | Fault::RedisFull
            | Fault::RedisFlushFunctions
            | Fault::RedisBusy
            | Fault::NetRedisCut
            | Fault::NetRedisSlow
            | Fault::NetRedisStall
            | Fault::NetRedisSwallow
            | Fault::NetClientCut
            | Fault::NetClientSwallow
            | Fault::DiskFull => Sign::Gateways,
            Fault::PostgresKill
            | Fault::PostgresFreeze
            | Fault::PostgresRestart
            | Fault::PostgresDisconnect
            | Fault::PostgresLock
            | Fault::NetPostgresCut
            | Fault::NetPostgresStall
            | Fault::NetPostgresSwallow => Sign::Stored,
        }
    }

    async fn strike_and_heal(&self, planned: Planned) -> Result<()> {
        match planned.fault.part() {
            Part::Gateway | Part::Worker => self.strike_role(planned).await,
            Part::Redis | Part::Disk => self.strike_redis(planned).await,
            Part::Postgres => self.strike_postgres(planned).await,
            Part::Net => {
                self.strike_net(planned).await;
                Ok(())
            }
        }
    }

    async fn strike_role(&self, planned: Planned) -> Result<()> {
        let stack = &*self.stack;
        let (role, places) = match planned.fault.part() {
            Part::Gateway => (&stack.gateway_role, &stack.gateways),
            _ => (&stack.worker_role, &stack.workers),
        };
        let place = &places[planned.victim % places.len()];
        match planned.fault {
            Fault::GatewayFreeze => self.freeze(place, planned.hold).await,
            Fault::WorkerFreeze => self.freeze_in_a_batch(place, planned.hold).await?,
            Fault::WorkersDown => self.kill_all(role, places, planned.hold).await?,
            Fault::GatewayStop | Fault::WorkerStop => stop(role, place).await?,
            _ => self.kill(role, place, planned).await?,
        }
        Ok(())
    }

    async fn hold(&self, time: Duration) {
        self.stop.run_until_cancelled(tokio::time::sleep(time)).await;
    }

    async fn freeze(&self, place: &Place, hold: Duration) {
        let held = place.held().await;
        held.process.signal(Signal::STOP);
        self.hold(hold).await;
        held.process.signal(Signal::CONT);
    }

    async fn kill(&self, role: &Role, place: &Place, planned: Planned) -> Result<()> {
        let mut held = place.held().await;
        held.process.kill().await;
        if planned.fault == Fault::WorkerKill {
            for partition in 0..self.stack.queue.partitions() {
                // Redis may be away too: then the lease has to run out.
                drop(self.stack.queue.declare_dead(partition, &held.name).await);
            }
        }
        self.hold(planned.hold).await;
        role.refill(place, &mut held)
    }

    async fn kill_all(&self, role: &Role, places: &[Place], hold: Duration) -> Result<()> {
        for place in places {
            place.held().await.process.kill().await;
        }
        self.hold(hold).await;
        for place in places {
            role.refill(place, &mut *place.held().await)?;
        }
        Ok(())
    }

    /// While the table is locked messages gather; those that the workers read then are many, and wait for a second lock
    /// in their hands.
    async fn freeze_in_a_batch(&self, place: &Place, hold: Duration) -> Result<()> {
        let store = self.stack.store.clone();
        // PostgreSQL may be struck meanwhile: then the batch is an ordinary one.
        drop(store.lock_messages(FILLING).await);
        tokio::time::sleep(FILLING / 10).await;
        let lock = tokio::spawn(async move { store.lock_messages(FILLING).await });
        tokio::time::sleep(FILLING / 2).await;
        self.freeze(place, hold).await;
        if let Err(error) = lock.await? {
            tracing::debug!(%error, "lock");
        }
        Ok(())
    }

    async fn strike_redis(&self, planned: Planned) -> Result<()> {
        let stack = &*self.stack;
        let mut redis = stack.redis.lock().await;
        match planned.fault {
            Fault::RedisKill => {
                redis.kill().await;
                self.hold(planned.hold).await;
                redis.restart().await?;
            }
            Fault::RedisFreeze => {
                redis.pause();
                self.hold(planned.hold).await;
                redis.resume();
            }
            Fault::RedisRestart => redis.restart().await?,
            Fault::RedisFull => self.fill_memory(planned.hold).await?,
            Fault::RedisFlushFunctions => {
                for kind in ["FUNCTION", "SCRIPT"] {
                    let mut flush = redis::cmd(kind);
                    flush.arg("FLUSH");
                    afresh(|| stack.queue.command::<()>(&flush)).await?;
                }
            }
            Fault::RedisBusy => {
                let script = "local from = os.clock() while os.clock() - from < tonumber(ARGV[1]) do end return 1";
                let mut command = redis::cmd("EVAL");
                command.arg(script).arg(0).arg(planned.hold.as_secs_f64());
                // Its answer may come later than our own connection waits.
                drop(stack.queue.command::<i64>(&command).await);
            }
            Fault::DiskFull => {
                let disk = stack.disk.as_ref().context("there is no small disk")?;
                disk.fill()?;
                // With every write synced, Redis ends at the first one that fails.
                drop(tokio::time::timeout(Duration::from_secs(5), redis.process().wait()).await);
                self.hold(planned.hold).await;
                disk.free()?;
                redis.restart().await?;
            }
            other => unreachable!("{other} is no fault of Redis"),
        }
        Ok(())
    }

    async fn fill_memory(&self, hold: Duration) -> Result<()> {
        let queue = &self.stack.queue;
        let limit = |bytes: u64| {
            let mut command = redis::cmd("CONFIG");
            command.arg("SET").arg("maxmemory").arg(bytes);
            command
        };
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("maxmemory");
        let before: Vec<String> = afresh(|| queue.command(&ask)).await?;
        let before = before.get(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        queue.command::<()>(&limit(1 << 20)).await?;
        self.hold(hold).await;
        let back = limit(before);
        Ok(afresh(|| queue.command::<()>(&back)).await?)
    }

    async fn strike_postgres(&self, planned: Planned) -> Result<()> {
        let stack = &*self.stack;
        let mut postgres = stack.postgres.lock().await;
        match planned.fault {
            Fault::PostgresKill => {
                postgres.kill().await;
                self.hold(planned.hold).await;
                postgres.restart().await?;
            }
            Fault::PostgresFreeze => {
                postgres.process().signal(Signal::STOP);
                self.hold(planned.hold).await;
                postgres.process().signal(Signal::CONT);
            }
            Fault::PostgresRestart => postgres.restart().await?,
            Fault::PostgresDisconnect => {
                afresh(|| stack.store.end_other_sessions()).await?;
            }
            Fault::PostgresLock => afresh(|| stack.store.lock_messages(planned.hold)).await?,
            other => unreachable!("{other} is no fault of PostgreSQL"),
        }
        Ok(())
    }

    async fn strike_net(&self, planned: Planned) {
        let proxies = &self.stack.proxies;
        let redis = [&proxies.gateways_to_redis, &proxies.workers_to_redis];
        let clients: Vec<&FaultProxy> = proxies.clients.iter().collect();
        match planned.fault {
            Fault::NetRedisCut => redis.iter().for_each(|proxy| proxy.cut()),
            Fault::NetPostgresCut => proxies.workers_to_postgres.cut(),
            Fault::NetClientCut => clients.iter().for_each(|proxy| proxy.cut()),
            Fault::NetRedisSlow => self.keep_up(&redis, planned.hold, slow).await,
            Fault::NetRedisStall => self.keep_up(&redis[..1], planned.hold, |proxy, on| proxy.stall(on)).await,
            Fault::NetPostgresStall => {
                self.keep_up(&[&proxies.workers_to_postgres], planned.hold, |proxy, on| proxy.stall(on)).await;
            }
            Fault::NetRedisSwallow => self.swallow(&redis[..1], planned.hold).await,
            Fault::NetPostgresSwallow => self.swallow(&[&proxies.workers_to_postgres], planned.hold).await,
            Fault::NetClientSwallow => self.swallow(&clients, planned.hold).await,
            other => unreachable!("{other} is no fault of the network"),
        }
    }

    async fn keep_up(&self, proxies: &[&FaultProxy], time: Duration, set: impl Fn(&FaultProxy, bool)) {
        proxies.iter().for_each(|proxy| set(proxy, true));
        self.hold(time).await;
        proxies.iter().for_each(|proxy| set(proxy, false));
    }

    /// A connection that lost bytes can carry nothing more: it ends with the fault.
    async fn swallow(&self, proxies: &[&FaultProxy], time: Duration) {
        self.keep_up(proxies, time, |proxy, on| proxy.swallow_replies(on)).await;
        proxies.iter().for_each(|proxy| proxy.cut());
    }

    /// When the sign was seen, in seconds since the start.
    async fn wait_for(&self, sign: Sign, struck: f64, healed: f64) -> Option<f64> {
        let deadline = Instant::now() + self.patience;
        // Redis may be away too: then it counts from its first answer.
        let mut first = None;
        while Instant::now() < deadline {
            let seen = match sign {
                Sign::Gateway(gateway) => self.load.last_ok(gateway) > healed,
                Sign::Gateways => (0..self.stack.gateways.len()).all(|gateway| self.load.last_ok(gateway) > healed),
                Sign::Stored => {
                    let stored = self.stored().await;
                    first = first.or(stored);
                    stored > first
                }
                Sign::CaughtUp => self.oldest().await.is_some_and(|oldest| oldest >= struck),
            };
            if seen {
                return Some(self.load.timeline.now());
            }
            tokio::time::sleep(POLL).await;
        }
        None
    }

    async fn stored(&self) -> Option<u64> {
        self.stack.queue.balance().await.ok().map(|balance| balance.stored + balance.dead_total)
    }

    /// When the oldest message that is not finished was accepted, in seconds since the start; now, if there is none.
    async fn oldest(&self) -> Option<f64> {
        let balance = self.stack.queue.balance().await.ok()?;
        let held = balance.suspect > 0;
        (!held).then(|| self.load.timeline.now() - balance.oldest_age_ms as f64 / 1000.0)
    }
}

/// Does something once more if it failed: an earlier fault may have broken our own connection, which shows when it is
/// used for the first time after it, and ends the run for nothing.
async fn afresh<T, E, F: Future<Output = Result<T, E>>>(call: impl Fn() -> F) -> Result<T, E> {
    match call().await {
        Ok(done) => Ok(done),
        Err(_) => call().await,
    }
}

/// The next process waits for the port until the one before has drained.
async fn stop(role: &Role, place: &Place) -> Result<()> {
    let mut held = place.held().await;
    held.process.stop(Signal::TERM, Duration::from_secs(30)).await;
    role.refill(place, &mut held)
}

fn slow(proxy: &FaultProxy, on: bool) {
    let (least, jitter) = if on { (100, 100) } else { (0, 0) };
    proxy.delay(Duration::from_millis(least), Duration::from_millis(jitter));
}
