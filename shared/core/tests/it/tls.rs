//! Redis over TLS, and whom it is believed to be.

use std::fs;
use std::path::Path;

use weir_core::config::Reader;
use weir_core::config::RedisConfig;
use weir_core::queue::{Queue, QueueError, Roots};
use weir_core::secret::SecretUrl;
use weir_stack::free_port;
use weir_stack::testing::{Authority, Clustered, Scratch, TestRedis, redis_with, scratch};

/// A Redis with a certificate.
struct Guarded {
    redis: TestRedis,
    port: u16,
    folder: Scratch,
}

impl Guarded {
    /// One whose certificate holds these names.
    async fn new(authority: &Authority, names: &[&str], more: &[(&str, &str)]) -> Self {
        let (folder, port) = (scratch(), free_port().unwrap());
        let (certificate, key) = authority.issue(names).write(folder.path());
        let port_text = port.to_string();
        let settings = [
            ("tls-port", port_text.as_str()),
            ("tls-cert-file", certificate.to_str().unwrap()),
            ("tls-key-file", key.to_str().unwrap()),
            ("tls-auth-clients", "no"),
        ];
        let settings: Vec<_> = settings.iter().chain(more).copied().collect();
        Self { redis: redis_with(&settings).await, port, folder }
    }

    fn url(&self, port: u16) -> SecretUrl {
        let plain = self.redis.url();
        SecretUrl::new(
            plain.replacen("redis:", "rediss:", 1).replace(&format!(":{}/", self.redis.port()), &format!(":{port}/")),
        )
    }

    /// What becomes of a queue on it, for somebody who believes this authority.
    async fn try_with(&self, authority: Option<&Authority>) -> Result<Queue, QueueError> {
        self.try_at(self.port, authority).await
    }

    async fn try_at(&self, port: u16, authority: Option<&Authority>) -> Result<Queue, QueueError> {
        let roots = match authority {
            None => Roots::default(),
            Some(authority) => {
                let file = self.folder.path().join("ca.pem");
                fs::write(&file, authority.certificate()).unwrap();
                Roots::read(&file)?
            }
        };
        let queue = Queue::with_roots(&self.url(port), 1, roots)?;
        queue.prepare().await?;
        queue.on_own_link(std::time::Duration::from_secs(5)).prepare().await?;
        Ok(queue)
    }
}

#[track_caller]
fn refused(tried: Result<Queue, QueueError>, parts: &[&str]) {
    let Err(error) = tried else { panic!("it was believed") };
    let text = error.to_string();
    assert!(matches!(error, QueueError::Deployment(_)), "{error:?}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[tokio::test]
async fn a_server_is_believed_whose_certificate_is_of_the_named_authority() {
    let (ours, other) = (Authority::new("ours"), Authority::new("another"));
    let guarded = Guarded::new(&ours, &["localhost", "127.0.0.1"], &[]).await;
    let queue = guarded.try_with(Some(&ours)).await.unwrap();
    assert_eq!(queue.balance().await.unwrap().drift(), 0);
    for stranger in [Some(&other), None] {
        refused(guarded.try_with(stranger).await, &["UnknownIssuer", "redis.ca", "WEIR_REDIS_CA"]);
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let ours = Authority::new("ours");
    let guarded = Guarded::new(&ours, &["redis.example.org"], &[]).await;
    refused(guarded.try_with(Some(&ours)).await, &["not valid for name", "127.0.0.1", "redis.url"]);
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_of_ours_is_told_apart_from_one_without_tls() {
    let ours = Authority::new("ours");
    let folder = scratch();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, ours.certificate()).unwrap();
    let strict = [("tls-auth-clients", "yes"), ("tls-ca-cert-file", ca.to_str().unwrap())];
    let guarded = Guarded::new(&ours, &["127.0.0.1"], &strict).await;
    refused(guarded.try_with(Some(&ours)).await, &["CertificateRequired", "set tls-auth-clients no"]);
    // A server that speaks no TLS waits for more.
    let plain = guarded.try_at(guarded.redis.port(), Some(&ours)).await;
    assert!(matches!(plain, Err(QueueError::Unreachable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_of_a_cluster_are_believed_by_the_names_that_they_announce() {
    let (ours, other, folder) = (Authority::new("ours"), Authority::new("another"), scratch());
    let (certificate, key) = ours.issue(&["localhost"]).write(folder.path());
    let files = [&ours, &other].map(|authority| {
        let file = folder.path().join(format!("{}.pem", rand::random::<u64>()));
        fs::write(&file, authority.certificate()).unwrap();
        file
    });
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let settings = vec![
        ("tls-cert-file", path(&certificate)),
        ("tls-key-file", path(&key)),
        ("tls-ca-cert-file", path(&files[0])),
        ("tls-auth-clients", "no".into()),
        ("cluster-announce-hostname", "localhost".into()),
        ("cluster-preferred-endpoint-type", "hostname".into()),
    ];
    let set = Clustered { tls: true, settings, ..Clustered::default() }.start().await;
    let queue = |file: &Path| {
        Queue::with_roots(&SecretUrl::new(set.tls_url("localhost")), 8, Roots::read(file).unwrap()).unwrap()
    };
    let believed = queue(&files[0]);
    believed.prepare().await.unwrap();
    for partition in 0..8 {
        let holder = believed.holder(partition).await.unwrap();
        assert!(holder.address().unwrap().starts_with("localhost:"), "{holder:?}");
    }
    let error = queue(&files[1]).prepare().await.unwrap_err();
    assert!(matches!(&error, QueueError::Deployment(text) if text.contains("UnknownIssuer")), "{error:?}");
    // Under the name that they announce otherwise.
    let by_address = SecretUrl::new(set.tls_url("127.0.0.1"));
    let error =
        Queue::with_roots(&by_address, 8, Roots::read(&files[0]).unwrap()).unwrap().prepare().await.unwrap_err();
    assert!(matches!(&error, QueueError::Deployment(text) if text.contains("not valid for name")), "{error:?}");
}

#[test]
fn a_file_that_is_no_authority_is_named() {
    let folder = scratch();
    let file = folder.path().join("ca.pem");
    let text = || Roots::read(&file).map(|_| ()).unwrap_err().to_string();
    for (content, part) in [
        (None, "cannot be read"),
        (Some("no certificate here"), "holds no certificate"),
        (Some("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n"), "PEM is broken"),
    ] {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let text = text();
        assert!(text.contains(part) && text.contains(&format!("redis.ca = {}", file.display())), "{text}");
    }
}

#[test]
fn an_authority_for_a_connection_without_tls_is_a_mistake() {
    for (url, mistaken) in [("redis://:hunter2@cache/0", true), ("rediss://:hunter2@cache/0", false)] {
        let flags = [("redis.url", url), ("redis.ca", "ca.pem")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut reader = Reader::new(flags.into(), Default::default(), "no-such-file".as_ref(), false);
        RedisConfig::read(&mut reader);
        let found = reader.finish();
        assert_eq!(found.is_err(), mistaken, "{url}");
        if let Err(error) = found {
            let text = error.to_string();
            assert!(text.contains("write rediss://") && !text.contains("hunter2"), "{text}");
        }
    }
}
