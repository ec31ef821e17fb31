use crate::support::Fixture;

#[tokio::test]
async fn a_server_says_its_version_and_whether_commits_last() {
    let f = Fixture::new().await;
    let run = async |statement: &'static str| sqlx::query(statement).execute(f.pool()).await.unwrap();
    let settings = f.store.server_settings().await.unwrap();
    assert!(settings.version.starts_with(&settings.major_version.to_string()), "{settings:?}");
    assert!(settings.major_version >= 15 && settings.synchronous_commit, "{settings:?}");
    let shown: String = sqlx::query_scalar("SHOW fsync").fetch_one(f.pool()).await.unwrap();
    assert_eq!(settings.fsync, shown == "on");

    run("DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END$$").await;
    let again = weir_store::Store::connect(&f.options).await.unwrap();
    assert!(!again.server_settings().await.unwrap().synchronous_commit);
}

#[tokio::test]
async fn connections_that_are_left_stay_within_the_server_s_limit() {
    let f = Fixture::new().await;
    let limit: String = sqlx::query_scalar("SHOW max_connections").fetch_one(f.pool()).await.unwrap();
    let left = f.store.connections_left().await.unwrap();
    assert!((0..limit.parse().unwrap()).contains(&left), "{left} of {limit}");
}
