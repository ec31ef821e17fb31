//! What it adds to storing a message that its sender has a profile.

use std::time::SystemTime;

use anyhow::{Result, ensure};
use weir_core::event::{Content, Event, MessageChange, User};
use weir_core::queue::enqueue::NewEntry;
use weir_store::testing;

use super::drain::drain;
use super::{Scale, Turns};
use crate::report::Report;
use crate::stage::{self, CLIENTS, PARTITIONS, Postgres, Redis};

pub(super) const ABOUT: &str = "Stored a second from a backlog of MAX's created messages, by one worker: without a user, as those \
                                of channels are, and the same messages with one. At first every user is new; then the same \
                                users write again under the same names, and under others.";

/// Whom the messages tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Users {
    Nobody,
    /// Named so; who is in the database under another name is renamed.
    Named(&'static str),
}

pub(super) async fn measure(report: &mut Report, scale: &Scale) -> Result<()> {
    let postgres = Postgres::start().await?;
    let mut turns = Turns::default();
    let result = take_turns(report, scale, &postgres, &mut turns).await;
    turns.write(report);
    result
}

async fn take_turns(report: &Report, scale: &Scale, postgres: &Postgres, turns: &mut Turns) -> Result<()> {
    for round in 1..=scale.long_rounds {
        // The one that comes first must not always be the same: the machine gets slower or faster meanwhile.
        let sides = [false, true];
        for with_users in if round % 2 == 1 { sides } else { [true, false] } {
            report.step(format_args!("turn {round}: {}", if with_users { "with users" } else { "without" }));
            match with_users {
                true => with(report, scale, postgres, turns).await?,
                false => without(report, scale, postgres, turns).await?,
            }
        }
    }
    Ok(())
}

async fn without(report: &Report, scale: &Scale, postgres: &Postgres, turns: &mut Turns) -> Result<()> {
    let database = postgres.database().await?;
    let side = ("without", "without users");
    stored(report, scale, postgres, &database, Users::Nobody, side, turns).await?;
    let again = ("without_again", "without users, the clients are known");
    stored(report, scale, postgres, &database, Users::Nobody, again, turns).await?;
    ensure!(testing::number(&database, "SELECT count(*) FROM profiles").await? == 0, "a profile of nobody");
    postgres.drop(&database).await
}

async fn with(report: &Report, scale: &Scale, postgres: &Postgres, turns: &mut Turns) -> Result<()> {
    let database = postgres.database().await?;
    for (users, side) in [
        (Users::Named("Иван"), ("with", "with users, of whom each is new at first")),
        (Users::Named("Иван"), ("known", "with users who are known, under the same names")),
        (Users::Named("Пётр"), ("renamed", "with users who are known, each with a new name at first")),
    ] {
        stored(report, scale, postgres, &database, users, side, turns).await?;
    }
    let profiles = testing::number(&database, "SELECT count(*) FROM profiles").await? as usize;
    ensure!(profiles == CLIENTS.min(scale.backlog), "{profiles} profiles");
    postgres.drop(&database).await
}

async fn stored(
    report: &Report,
    scale: &Scale,
    postgres: &Postgres,
    database: &str,
    users: Users,
    (side, title): (&str, &str),
    turns: &mut Turns,
) -> Result<()> {
    let redis = Redis::on_disk().await?;
    let queue = redis.queue(PARTITIONS).await?;
    let before = testing::number(database, "SELECT count(*) FROM messages").await?;
    let told = |done| report.step(format_args!("{title}: filling, {done} of {}", scale.backlog));
    stage::fill_with(&queue, scale.backlog, |run, number| entry(run, number, users), told).await?;
    testing::execute(database, "CHECKPOINT").await?;
    let drained = drain(report, &redis, &queue, postgres, database, 1, scale.backlog).await?;
    let rows = testing::number(database, "SELECT count(*) FROM messages").await? - before;
    ensure!(rows as usize == scale.backlog, "{rows} rows of {} messages", scale.backlog);
    turns.push(format!("profiles.{side}.rate"), format!("{title}: stored"), "/s", drained.rate);
    let id = |what: &str| format!("profiles.{side}.{what}");
    turns.push(id("worker_cpu"), format!("{title}: CPU of the worker per message"), "us", drained.worker_micros);
    turns.push(id("postgres_cpu"), format!("{title}: CPU of PostgreSQL per message"), "us", drained.postgres_micros);
    Ok(())
}

/// An event of this moment that makes a message. With and without a user it is the same message of the same client.
fn entry(run: u32, number: usize, users: Users) -> NewEntry {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let user = format!("{}", 100_000_000 + number % CLIENTS);
    let mid = format!("mid.{run:08x}{number:024x}");
    let content = Content {
        id: mid.clone().into(),
        client: user.clone().into(),
        dialog: user.clone().into(),
        text: Some("Здравствуйте! Где мой заказ?".into()),
        sent_ms: 1_760_000_000_000 + (number as i64 % 86_400) * 1000,
        extra: None,
    };
    let named = |first: &'static str| User {
        id: user.into(),
        first_name: Some(first.into()),
        last_name: Some("Петров".into()),
        phone: None,
    };
    let event = Event {
        source: "max".into(),
        id: format!("mc:{mid}").into(),
        kind: "message_created".into(),
        at_ms: since.as_millis() as i64,
        message: Some(MessageChange::Created(content)),
        user: match users {
            Users::Nobody => None,
            Users::Named(first) => Some(named(first)),
        },
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
    };
    NewEntry::from(&event)
}
