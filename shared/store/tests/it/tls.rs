//! PostgreSQL over TLS, and whom it is believed to be.

use std::fs;

use secrecy::SecretString;
use weir_stack::testing::{Authority, Scratch, TestPostgres, own_postgres, scratch};
use weir_store::{Class, Store, StoreError, StoreOptions};

/// Opens a store that believes this authority and nobody else.
async fn connect(server: &TestPostgres, folder: &Scratch, authority: &Authority) -> Result<Store, StoreError> {
    let file = folder.path().join("ca.pem");
    fs::write(&file, authority.certificate()).unwrap();
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", server.url("weir"), file.display());
    Store::connect(&StoreOptions::new(SecretString::from(url))).await
}

#[track_caller]
fn refused(tried: Result<Store, StoreError>, parts: &[&str]) {
    let error = tried.expect_err("it was believed");
    assert_eq!(error.class, Class::Deployment, "{error:?}");
    for part in parts {
        assert!(error.text.contains(part), "{part:?} is not in {:?}", error.text);
    }
}

#[tokio::test]
async fn only_the_named_authority_and_the_right_name_are_believed() {
    let (ours, other, folder) = (Authority::new("ours"), Authority::new("another"), scratch());
    let mut server = own_postgres().await;
    refused(connect(&server, &folder, &ours).await, &["does not support TLS", "ssl = on"]);

    server.show(&ours.issue(&["localhost", "127.0.0.1"])).await;
    let store = connect(&server, &folder, &ours).await.unwrap();
    let guarded = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    assert!(guarded.fetch_one(store.pool()).await.unwrap_or(false));
    refused(connect(&server, &folder, &other).await, &["UnknownIssuer", "sslrootcert in the URL"]);

    server.show(&ours.issue(&["db.example.org"])).await;
    refused(
        connect(&server, &folder, &ours).await,
        &["not valid for name", "127.0.0.1", "db.example.org", "host name"],
    );
}

#[tokio::test]
async fn an_authority_that_is_no_file_is_named_at_the_start() {
    let folder = scratch();
    let file = folder.path().join("ca.pem");
    let open = || {
        let url = format!("postgres://u:hidden@h/d?sslmode=verify-full&sslrootcert={}", file.display());
        Store::connect_lazy(&StoreOptions::new(SecretString::from(url))).map(|_| ()).unwrap_err()
    };
    for (content, part) in [(None, "cannot be read"), (Some("nothing of the kind"), "holds no certificate")] {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let error = open();
        assert_eq!(error.class, Class::Deployment);
        let named = format!("sslrootcert = {}", file.display());
        assert!(error.text.contains(part) && error.text.contains(&named), "{}", error.text);
        assert!(!error.text.contains("hidden"));
    }
}
