//! Each alert fires once and resolves once.

use time::Duration;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use weir_store::{AlertChange, AlertFilter, AlertView, Finding, Verdict};

use crate::support::Fixture;

fn view() -> AlertView {
    AlertView {
        now: OffsetDateTime::now_utc(),
        webhooks: Duration::minutes(15),
        cache: Duration::minutes(5),
        stale: Duration::days(30),
        silence: Duration::hours(6),
    }
}

fn verdict(name: &'static str, finding: Finding) -> Vec<Verdict> {
    vec![Verdict { name, threshold: 0.8, finding }]
}

async fn look(f: &Fixture, finding: Finding) -> Vec<AlertChange> {
    f.store.judge_alerts(&view(), |_| verdict("coverage", finding)).await.unwrap().expect("nobody else looks")
}

#[tokio::test]
async fn an_alert_fires_once_and_resolves_once_and_may_fire_again() {
    let f = Fixture::new().await;
    let [AlertChange::Fired(fired)] = &look(&f, Finding::Bad(0.5)).await[..] else { panic!("it did not fire") };
    assert_eq!((fired.name.as_str(), fired.value, fired.threshold, fired.resolved_at), ("coverage", 0.5, 0.8, None));
    assert!(look(&f, Finding::Bad(0.4)).await.is_empty());
    assert!(look(&f, Finding::Unknown).await.is_empty());
    assert_eq!(f.store.alerts(AlertFilter::Firing, 10).await.unwrap(), std::slice::from_ref(fired));
    let [AlertChange::Resolved(resolved)] = &look(&f, Finding::Good).await[..] else { panic!("it did not resolve") };
    assert_eq!(resolved.id, fired.id);
    assert!(look(&f, Finding::Good).await.is_empty());
    let [AlertChange::Fired(again)] = &look(&f, Finding::Bad(0.3)).await[..] else { panic!("it did not fire") };
    let listed = f.store.alerts(AlertFilter::All, 10).await.unwrap();
    assert_eq!(listed.iter().map(|alert| alert.id).collect::<Vec<_>>(), [again.id, resolved.id]);
    assert_eq!(f.store.alerts(AlertFilter::Resolved, 10).await.unwrap(), std::slice::from_ref(resolved));
    assert_eq!(f.store.alerts(AlertFilter::All, 1).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_look_at_once_one_fires_and_one_resolves() {
    let f = Fixture::new().await;
    for finding in [Finding::Bad(0.1), Finding::Good, Finding::Bad(0.2), Finding::Good] {
        let mut looks = JoinSet::new();
        for _ in 0..20 {
            let store = f.store.clone();
            looks.spawn(
                async move { store.judge_alerts(&view(), |_| verdict("cache", finding)).await.expect("a look") },
            );
        }
        let changes: Vec<_> = looks.join_all().await.into_iter().flatten().flatten().collect();
        assert_eq!(changes.len(), 1, "{changes:?}");
    }
    assert_eq!(f.count("alerts").await, 2);
}

#[tokio::test]
async fn who_comes_while_another_judges_is_told_so() {
    let f = Fixture::new().await;
    let mut other = f.pool().begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(8603398603142886004)").execute(&mut *other).await.unwrap();
    assert_eq!(f.store.judge_alerts(&view(), |_| unreachable!("nobody may judge")).await.unwrap(), None);
    other.rollback().await.unwrap();
    assert!(f.store.judge_alerts(&view(), |_| Vec::new()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_judge_sees_what_was_counted_of_late_and_the_day_before_a_silence() {
    let f = Fixture::new().await;
    let insert = "INSERT INTO tallies VALUES
        ('profiles', date_trunc('day', now() - interval '90 days', 'UTC'), 0, 10),
        ('profiles.fresh', date_trunc('day', now() - interval '90 days', 'UTC'), 0, 7),
        ('profiles.fresh', date_trunc('day', now(), 'UTC'), 0, 3),
        ('events.a', date_trunc('minute', now() - interval '7 hours'), 0, 50),
        ('events.a', date_trunc('minute', now() - interval '3 hours'), 0, 20),
        ('events.a', date_trunc('minute', now() - interval '5 minutes'), 0, 2),
        ('failed.dead', date_trunc('minute', now() - interval '5 minutes'), 0, 1),
        ('cache.error', date_trunc('minute', now() - interval '2 minutes'), 0, 4),
        ('cache.hit', date_trunc('minute', now() - interval '20 minutes'), 0, 9)";
    sqlx::query(insert).execute(f.pool()).await.unwrap();
    let mut seen = None;
    let judge = |facts: &weir_store::AlertFacts| {
        seen = Some(facts.clone());
        Vec::new()
    };
    f.store.judge_alerts(&view(), judge).await.unwrap().expect("nobody else looks");
    let facts = seen.expect("facts");
    assert_eq!((facts.profiles.users, facts.stale), (10, 7));
    assert_eq!((facts.webhooks.processed(), facts.webhooks.failures()), (2, 1));
    assert_eq!((facts.cache.errors, facts.cache.hits), (4, 0));
    assert_eq!(facts.before_silence, 0, "nobody is silent");
    assert!(facts.last_event_at.is_some_and(|at| view().now - at < Duration::minutes(7)));
}

#[tokio::test]
async fn of_a_silence_a_judge_sees_how_much_came_in_the_day_before() {
    let f = Fixture::new().await;
    let insert = "INSERT INTO tallies VALUES
        ('events.a', date_trunc('minute', now() - interval '7 hours'), 0, 50),
        ('events.b', date_trunc('minute', now() - interval '29 hours'), 0, 4),
        ('events.b', date_trunc('minute', now() - interval '40 hours'), 0, 99)";
    sqlx::query(insert).execute(f.pool()).await.unwrap();
    let mut seen = 0;
    let judge = |facts: &weir_store::AlertFacts| {
        seen = facts.before_silence;
        Vec::new()
    };
    f.store.judge_alerts(&view(), judge).await.unwrap().expect("nobody else looks");
    assert_eq!(seen, 54);
}
