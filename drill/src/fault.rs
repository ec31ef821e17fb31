//! What can go wrong on purpose.

use std::fmt;

use serde::{Serialize, Serializer};

/// The part of the system that a fault strikes. One fault at a time per part, several parts at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Gateway processes.
    Gateway,
    /// Worker processes.
    Worker,
    /// redis-server.
    Redis,
    /// PostgreSQL.
    Postgres,
    /// Connections between them.
    Net,
    /// The disk under Redis.
    Disk,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 6] = [Part::Gateway, Part::Worker, Part::Redis, Part::Postgres, Part::Net, Part::Disk];

    /// As `--faults` names it.
    pub fn name(self) -> &'static str {
        match self {
            Part::Gateway => "gateway",
            Part::Worker => "worker",
            Part::Redis => "redis",
            Part::Postgres => "postgres",
            Part::Net => "net",
            Part::Disk => "disk",
        }
    }
}

macro_rules! faults {
    ($($(#[doc = $about:literal])+ $fault:ident = $name:literal, $part:ident, $strike:ident;)+) => {
        /// One kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Fault { $($(#[doc = $about])+ $fault,)+ }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$fault,)+];

            /// Its name in reports and on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$fault => $name,)+ }
            }

            /// The part it strikes.
            pub fn part(self) -> Part {
                match self { $(Fault::$fault => Part::$part,)+ }
            }

            /// What it does, in a sentence.
            pub fn about(self) -> &'static str {
                match self { $(Fault::$fault => concat!($($about,)+).trim_ascii(),)+ }
            }

            fn strike(self) -> Strike {
                match self { $(Fault::$fault => Strike::$strike,)+ }
            }
        }
    };
}

/// Whether a fault ends a process without asking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strike {
    Kill,
    Other,
}

faults! {
    /// SIGKILL of a gateway, which is started again.
    GatewayKill = "gateway-kill", Gateway, Kill;
    /// SIGSTOP of a gateway for a while.
    GatewayFreeze = "gateway-freeze", Gateway, Other;
    /// SIGTERM of a gateway, which drains; another one is started.
    GatewayStop = "gateway-stop", Gateway, Other;
    /// SIGKILL of a worker that its supervisor sees end and declares dead.
    WorkerKill = "worker-kill", Worker, Kill;
    /// SIGKILL of a worker that nobody sees end, as if its host had vanished: its lease has to run out.
    WorkerVanish = "worker-vanish", Worker, Kill;
    /// SIGSTOP of a worker with a batch in its hands, for longer than its lease; it comes back after others took over.
    WorkerFreeze = "worker-freeze", Worker, Other;
    /// SIGKILL of all workers at once; they come back together.
    WorkersDown = "workers-down", Worker, Kill;
    /// SIGTERM of a worker, which drains; another one is started.
    WorkerStop = "worker-stop", Worker, Other;
    /// SIGKILL of redis-server, which is started again with its data.
    RedisKill = "redis-kill", Redis, Kill;
    /// SIGSTOP of redis-server for a while: connections stay open and nothing is answered.
    RedisFreeze = "redis-freeze", Redis, Other;
    /// An orderly restart of redis-server.
    RedisRestart = "redis-restart", Redis, Other;
    /// Redis may use no more memory than it uses now: writes are refused.
    RedisFull = "redis-full", Redis, Other;
    /// All functions and scripts of Redis are dropped.
    RedisFlushFunctions = "redis-flush-functions", Redis, Other;
    /// A script of somebody else occupies Redis for a while.
    RedisBusy = "redis-busy", Redis, Other;
    /// SIGKILL of PostgreSQL's main process, which is started again and recovers.
    PostgresKill = "postgres-kill", Postgres, Kill;
    /// SIGSTOP of PostgreSQL's main process: no new connection is made.
    PostgresFreeze = "postgres-freeze", Postgres, Other;
    /// An orderly restart of PostgreSQL.
    PostgresRestart = "postgres-restart", Postgres, Other;
    /// PostgreSQL ends every session.
    PostgresDisconnect = "postgres-disconnect", Postgres, Other;
    /// Somebody locks the table of messages for a while.
    PostgresLock = "postgres-lock", Postgres, Other;
    /// All connections to Redis are cut.
    NetRedisCut = "net-redis-cut", Net, Other;
    /// Redis' answers take 100 to 200 ms longer.
    NetRedisSlow = "net-redis-slow", Net, Other;
    /// Connections of the gateways to Redis stay open and carry nothing.
    NetRedisStall = "net-redis-stall", Net, Other;
    /// Redis does what it is asked to and its answers to the gateways are lost.
    NetRedisSwallow = "net-redis-swallow", Net, Other;
    /// All connections to PostgreSQL are cut.
    NetPostgresCut = "net-postgres-cut", Net, Other;
    /// Connections to PostgreSQL stay open and carry nothing.
    NetPostgresStall = "net-postgres-stall", Net, Other;
    /// PostgreSQL does what it is asked to and its answers are lost, those to COMMIT among them.
    NetPostgresSwallow = "net-postgres-swallow", Net, Other;
    /// Connections of the senders are cut, in the middle of requests and answers.
    NetClientCut = "net-client-cut", Net, Other;
    /// The senders' requests arrive and the answers are lost.
    NetClientSwallow = "net-client-swallow", Net, Other;
    /// The disk under Redis is full; Redis ends, space comes back, Redis is started again.
    DiskFull = "disk-full", Disk, Kill;
}

impl Fault {
    /// Whether it ends a process without asking it.
    pub fn kills(self) -> bool {
        self.strike() == Strike::Kill
    }

    /// The faults that a list such as `redis,worker-kill` means: names of parts and of faults. An empty list means all.
    ///
    /// # Errors
    /// When a name is none.
    pub fn chosen(list: &[String]) -> Result<Vec<Fault>, String> {
        if list.is_empty() {
            return Ok(Fault::ALL.to_vec());
        }
        let mut chosen = Vec::new();
        for name in list {
            let before = chosen.len();
            chosen.extend(Fault::ALL.iter().filter(|fault| fault.part().name() == name || fault.name() == name));
            if chosen.len() == before {
                let parts = Part::ALL.map(Part::name).join(", ");
                return Err(format!(
                    "{name:?} is neither a part ({parts}) nor a fault; `weir drill --list` shows them"
                ));
            }
        }
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Result<Vec<&'static str>, String> {
        let list: Vec<String> = list.iter().map(|name| (*name).to_owned()).collect();
        Ok(Fault::chosen(&list)?.into_iter().map(Fault::name).collect())
    }

    #[test]
    fn a_list_names_parts_and_faults() {
        assert_eq!(
            names(&["redis-kill", "gateway"]).unwrap(),
            ["gateway-kill", "gateway-freeze", "gateway-stop", "redis-kill"]
        );
        assert_eq!(names(&[]).unwrap().len(), Fault::ALL.len());
        assert!(names(&["tea"]).unwrap_err().contains("--list"));
    }

    #[test]
    fn every_fault_has_a_name_of_its_part_and_a_sentence() {
        for fault in Fault::ALL {
            assert!(fault.name().starts_with(fault.part().name()), "{fault}");
            assert!(fault.about().ends_with('.'), "{fault}");
        }
    }
}
