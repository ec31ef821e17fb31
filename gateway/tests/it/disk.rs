//! The disk of Redis is full.

use std::collections::BTreeMap;

use weir_stack::testing::{TestDisk, eventually, small_disk};
use weir_stack::{RedisOptions, RedisServer};

use crate::support::{Gateway, SOON, UNLIMITED, message};

/// A Redis on a small disk, and the messages that were acknowledged.
struct Place {
    disk: TestDisk,
    redis: RedisServer,
    gateway: Gateway,
    acknowledged: BTreeMap<String, String>,
    posts: usize,
}

impl Place {
    async fn new(settings: &[(&str, &str)], flags: &[(&str, &str)]) -> Option<Self> {
        let disk = small_disk(32)?;
        let mut options = RedisOptions::new(disk.path().join("redis"));
        options.settings = settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let redis = RedisServer::start(options).await.expect("Redis starts");
        let gateway = Gateway::start(&redis.url(), 1, UNLIMITED, flags);
        gateway.ready().await;
        Some(Self { disk, redis, gateway, acknowledged: BTreeMap::new(), posts: 0 })
    }

    /// Posts a new message; gives whether it was accepted. Nothing but 202 and 503 may be said.
    async fn post(&mut self) -> bool {
        let id = format!("m{}", self.posts);
        self.posts += 1;
        let reply = self.gateway.post(&message(&id)).await;
        assert!([202, 503].contains(&reply.status), "{reply:?}");
        if reply.status == 202 {
            self.acknowledged.insert(id, reply.accepted());
        }
        reply.status == 202
    }

    /// Fills the disk and posts until nothing is accepted any more.
    async fn fill(&mut self) {
        for _ in 0..50 {
            assert!(self.post().await);
        }
        self.disk.fill().expect("a full disk");
        eventually("nothing is accepted", SOON, async || !self.post().await).await;
    }

    /// Every message that was acknowledged is there, under the id that was told.
    async fn judge(&self) {
        for (id, message_id) in &self.acknowledged {
            assert_eq!(&self.gateway.post(&message(id)).await.duplicate(), message_id);
        }
    }
}

#[tokio::test]
async fn a_full_disk_ends_redis_and_nothing_that_was_acknowledged_is_lost() {
    let Some(mut place) = Place::new(&[], &[]).await else { return };
    place.fill().await;
    // Under `always` it would rather end than promise what it cannot keep.
    tokio::time::timeout(SOON, place.redis.process().wait()).await.expect("Redis ends");
    place.gateway.waits_for("Redis").await;
    place.disk.free().expect("the disk was filled");
    place.redis.restart().await.expect("it reads its log, whatever its end looks like");
    place.gateway.ready().await;
    place.judge().await;
    assert!(place.post().await);
}

#[tokio::test]
async fn a_full_disk_under_a_weaker_promise_is_a_refusal_until_there_is_space() {
    let settings = [("appendfsync", "everysec")];
    let Some(mut place) = Place::new(&settings, &[("gateway.durability", "memory")]).await else { return };
    place.fill().await;
    place.gateway.waits_for("MISCONF").await;
    assert!(place.redis.process().exited().is_none());
    place.disk.free().expect("the disk was filled");
    place.gateway.ready().await;
    place.judge().await;
    assert!(place.post().await);
}
