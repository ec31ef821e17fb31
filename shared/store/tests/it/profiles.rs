//! Profiles as they are read, searched, counted and told of.

use std::collections::{BTreeMap, HashSet};

use time::OffsetDateTime;
use weir_store::{Cause, Freshness, NameSource, Profile, ProfileChange, ProfileFilter, ProfilePlace, ProfileStats};

use crate::support::Fixture;

/// Somebody of MAX's; an empty name is none.
fn person(id: &str, first: &str, last: &str) -> ProfileChange {
    ProfileChange {
        max_first_name: Some(Some(first.into())),
        max_last_name: Some(Some(last.into())),
        ..ProfileChange::new(id, Cause::Webhook, "1-2-3")
    }
}

fn told(id: &str, name: &str) -> ProfileChange {
    ProfileChange { user_provided_name: Some(Some(name.into())), ..ProfileChange::new(id, Cause::UserInput, "key") }
}

async fn search(f: &Fixture, text: &str) -> Vec<String> {
    let filter = ProfileFilter { text: Some(text.into()), source: None };
    ids(&f.store.search_profiles(&filter, &ProfilePlace::start(), 100).await.unwrap())
}

fn ids(profiles: &[Profile]) -> Vec<String> {
    profiles.iter().map(|profile| profile.user_id.clone()).collect()
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

async fn texts(f: &Fixture, sql: &'static str) -> String {
    sqlx::query_scalar::<_, String>(sql).fetch_all(f.pool()).await.unwrap().join("\n")
}

#[tokio::test]
async fn a_profile_is_read_as_it_was_written() {
    let f = Fixture::new().await;
    let written = f.store.change_profiles(&[person("7", "Иван", "Петров"), person("8", "", "")]).await.unwrap();
    assert!(f.store.find_profile("7").await.unwrap().unwrap() == written[0]);
    assert_eq!(f.store.find_profile("8").await.unwrap().unwrap().source, NameSource::Default);
    assert!(f.store.find_profile("9").await.unwrap().is_none());
    let found = f.store.find_profiles(&["9", "8", "7", "7"]).await.unwrap();
    assert_eq!(found.into_keys().collect::<HashSet<_>>(), HashSet::from(["7".into(), "8".into()]));
}

#[tokio::test]
async fn a_phone_leads_to_who_confirmed_it_last() {
    let f = Fixture::new().await;
    let at = |second| Some(OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second));
    let confirmed =
        |id: &str, second| ProfileChange { phone: Some("+79194961182".into()), at: at(second), ..person(id, "A", "") };
    f.store.change_profiles(&[confirmed("1", 10), confirmed("2", 30), confirmed("3", 20)]).await.unwrap();
    assert_eq!(f.store.find_profile_by_phone("+79194961182").await.unwrap().unwrap().user_id, "2");
    assert!(f.store.find_profile_by_phone("+79194961183").await.unwrap().is_none());
}

#[tokio::test]
async fn profiles_are_found_by_a_part_of_a_name_in_any_case_or_by_their_id() {
    let f = Fixture::new().await;
    let people =
        [person("1", "Иван", "Петров"), person("2", "Анна", "Ли"), person("3", "Лиза", "Ким"), told("42", "50%_Off")];
    f.store.change_profiles(&people).await.unwrap();
    for (text, expected) in [
        ("петр", vec!["1"]),
        ("ПЕТРОВ", vec!["1"]),
        ("иван пет", vec!["1"]),
        ("ли", vec!["2"]),
        ("42", vec!["42"]),
        ("%", vec![]),
        ("50%_", vec!["42"]),
        ("0 off", vec!["42"]),
        ("пет_ов", vec![]),
        ("пет%ов", vec![]),
        ("ива", vec!["1"]),
        ("ив", vec![]),
        ("н п", vec!["1"]),
        ("ётр", vec![]),
        ("  анна ", vec!["2"]),
    ] {
        assert_eq!(sorted(search(&f, text).await), expected, "{text}");
    }
    assert_eq!(search(&f, " ").await.len(), 4, "nothing is asked for");
}

#[tokio::test]
async fn pages_are_in_the_order_of_the_last_change_and_complete() {
    let f = Fixture::new().await;
    for n in 0..5 {
        f.store.change_profiles(&[person(&n.to_string(), "Имя", "")]).await.unwrap();
    }
    f.store.change_profiles(&[told("1", "Аня")]).await.unwrap();
    let (mut place, mut seen) = (ProfilePlace::start(), Vec::new());
    loop {
        let page = f.store.search_profiles(&ProfileFilter::default(), &place, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        place = ProfilePlace::of(last);
        seen.extend(ids(&page));
    }
    assert_eq!(seen, ["0", "2", "3", "4", "1"]);
    let of = async |source| {
        let filter = ProfileFilter { source: Some(source), text: None };
        ids(&f.store.search_profiles(&filter, &ProfilePlace::start(), 9).await.unwrap())
    };
    assert_eq!(of(NameSource::UserInput).await, ["1"]);
    assert_eq!(of(NameSource::Webhook).await, ["0", "2", "3", "4"]);
    assert!(of(NameSource::Default).await.is_empty());
    let since = f.store.find_profile("3").await.unwrap().unwrap().last_updated;
    let page = f.store.search_profiles(&ProfileFilter::default(), &ProfilePlace::after(since), 9).await.unwrap();
    assert_eq!(ids(&page), ["4", "1"]);
}

#[tokio::test]
async fn the_longest_names_can_be_stored_and_found() {
    let f = Fixture::new().await;
    // Four bytes each, and nothing that could be packed.
    let letter = |n: u32| char::from_u32(0x2_0000 + n * 7919 % 42_000).expect("a letter");
    let name = |nth: u32| (256 * nth..256 * (nth + 1)).map(letter).collect::<String>();
    let longest = ProfileChange { user_provided_name: Some(Some(name(2))), ..person("7", &name(0), &name(1)) };
    f.store.change_profiles(&[longest]).await.unwrap();
    for nth in [0, 1] {
        assert_eq!(search(&f, &name(nth)).await, ["7"]);
    }
}

#[tokio::test]
async fn no_page_and_no_search_reads_the_whole_table() {
    let f = Fixture::new().await;
    sqlx::query(
        "INSERT INTO profiles (user_id, max_first_name, max_last_name, user_provided_name, first_seen_at, updated_at, search)
         SELECT n::text, 'First' || n, 'Last' || n, CASE WHEN n % 1000 = 0 THEN 'Told ' || n END, now(),
                now() - make_interval(secs => n), ' first' || n || ' last' || n || ' '
         FROM generate_series(1, 100000) n",
    )
    .execute(f.pool())
    .await
    .unwrap();
    sqlx::query("VACUUM ANALYZE profiles").execute(f.pool()).await.unwrap();
    for (plan, index) in [
        (
            "EXPLAIN SELECT user_id FROM profiles WHERE (updated_at, user_id) > (now() - interval '1 day', '')
             ORDER BY updated_at, user_id LIMIT 50",
            "profiles_updated_idx",
        ),
        (
            "EXPLAIN SELECT user_id FROM profiles WHERE source = 'user_input' AND source <> 'webhook'
             AND (updated_at, user_id) > ('2000-01-01', '') ORDER BY updated_at, user_id LIMIT 50",
            "profiles_rare_sources_idx",
        ),
        (
            "EXPLAIN SELECT user_id FROM profiles WHERE (user_id = 'first77123' OR search LIKE '%first77123%')
             AND (updated_at, user_id) > ('2000-01-01', '') ORDER BY updated_at, user_id LIMIT 50",
            "profiles_search_idx",
        ),
        (
            "EXPLAIN SELECT user_id FROM profiles WHERE (user_id = 'ли' OR search LIKE '% ли %')
             AND (updated_at, user_id) > ('2000-01-01', '') ORDER BY updated_at, user_id LIMIT 50",
            "profiles_search_idx",
        ),
        (
            "EXPLAIN SELECT user_id FROM profiles WHERE (user_id = 'first' OR search LIKE '%first%') AND source = 'webhook'
             AND (updated_at, user_id) > ('2000-01-01', '') ORDER BY updated_at, user_id LIMIT 50",
            "Index Only Scan using profiles_updated_idx",
        ),
        // Two in a thousand.
        (
            "EXPLAIN SELECT user_id FROM profiles WHERE (user_id = 'first123' OR search LIKE '%first12%')
             AND (updated_at, user_id) > ('2000-01-01', '') ORDER BY updated_at, user_id LIMIT 50",
            "Index Only Scan using profiles_updated_idx",
        ),
    ] {
        let plan = texts(&f, plan).await;
        assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{plan}");
    }
    assert_eq!(search(&f, "first77123").await, ["77123"]);
}

#[tokio::test]
async fn the_history_has_every_change_and_no_phone() {
    let f = Fixture::new().await;
    let at = Some(OffsetDateTime::UNIX_EPOCH);
    f.store.change_profiles(&[ProfileChange { at, ..person("7", "Иван", "") }]).await.unwrap();
    f.store.change_profiles(&[person("8", "Somebody", "else")]).await.unwrap();
    f.store
        .change_profiles(&[ProfileChange {
            phone: Some("+79194961182".into()),
            ..ProfileChange::new("7", Cause::Webhook, "e")
        }])
        .await
        .unwrap();
    f.store.change_profiles(&[told("7", "Аня")]).await.unwrap();
    let events = f.store.profile_history("7", None, 9).await.unwrap();
    let told: Vec<_> = events.iter().map(|e| (e.cause.as_str(), e.actor.as_str(), e.phone_changed)).collect();
    assert_eq!(told, [("user_input", "key", false), ("webhook", "e", true), ("webhook", "1-2-3", false)]);
    assert!(
        events[2].old.is_none() && events[2].event_at == at && events[2].new.max_first_name.as_deref() == Some("Иван")
    );
    assert!(events[0].old.as_ref() == Some(&events[1].new));
    assert_eq!(events[0].changed_at, f.store.find_profile("7").await.unwrap().unwrap().last_updated);
    let rest = f.store.profile_history("7", Some(events[1].id), 9).await.unwrap();
    assert!(rest == events[2..]);
}

#[tokio::test]
async fn changes_behind_the_known_ones_are_told_in_their_order() {
    let f = Fixture::new().await;
    f.store.change_profiles(&[person("7", "A", ""), person("8", "B", "")]).await.unwrap();
    let before: BTreeMap<String, i64> = f
        .store
        .profile_changes(&[("7", 0), ("8", 0)], 9)
        .await
        .unwrap()
        .into_iter()
        .map(|e| (e.user_id, e.id))
        .collect();
    f.store.change_profiles(&[told("7", "C")]).await.unwrap();
    f.store.change_profiles(&[told("8", "D")]).await.unwrap();
    f.store.change_profiles(&[told("7", "E")]).await.unwrap();
    let known: Vec<(&str, i64)> = before.iter().map(|(id, known)| (id.as_str(), *known)).collect();
    let news = f.store.profile_changes(&known, 9).await.unwrap();
    let names: Vec<_> =
        news.iter().map(|e| (e.user_id.as_str(), e.new.user_provided_name.as_deref().unwrap())).collect();
    assert_eq!(names, [("7", "C"), ("8", "D"), ("7", "E")]);
    assert_eq!(f.store.profile_changes(&[("7", 0)], 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_numbers_are_those_of_the_rows() {
    let f = Fixture::new().await;
    f.store
        .change_profiles(&[person("1", "A", "B"), person("2", "A", ""), person("3", "", ""), told("4", "A B")])
        .await
        .unwrap();
    f.store.change_profiles(&[told("2", "C D"), told("1", "C"), person("3", "", "B")]).await.unwrap();
    let day = |n: i64| OffsetDateTime::now_utc() + time::Duration::days(n);
    let stats = f.store.profile_stats(day(0)).await.unwrap();
    let by_source = BTreeMap::from([("user_input", 3), ("webhook", 1), ("default", 0)]);
    let fresh = Freshness { today: 4, ..Freshness::default() };
    // Midnight may have passed since.
    assert_eq!(ProfileStats { fresh, ..stats.clone() }, ProfileStats { total: 4, named: 4, full: 3, by_source, fresh });
    let of = async |n| f.store.profile_stats(day(n)).await.unwrap().fresh;
    assert_eq!(of(3).await, Freshness { week: 4, ..Freshness::default() });
    assert_eq!(of(20).await, Freshness { month: 4, ..Freshness::default() });
    assert_eq!(of(60).await, Freshness { older: 4, ..Freshness::default() });
}

#[tokio::test]
async fn a_search_is_planned_for_what_is_looked_for() {
    let f = Fixture::with(|options| options.max_connections = 1).await;
    f.store.change_profiles(&[person("1", "Иван", "Петров")]).await.unwrap();
    for _ in 0..20 {
        assert_eq!(search(&f, "петр").await, ["1"]);
    }
    let plans: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%search LIKE%'",
    )
    .persistent(false)
    .fetch_all(f.pool())
    .await
    .unwrap();
    assert_eq!(plans, [(0, 20)]);
}
