//! A gateway with a certificate, and the commands that ask it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use weir_stack::testing::{Authority, Scratch, eventually, own_postgres, redis_with, scratch};
use weir_stack::{Signal, free_port, tied_command};

use crate::http::{body, request};
use crate::support::{Ended, PATIENCE, Stack, WEIR, clean};

/// A folder with a certificate and the settings that name it; the settings and where they are.
fn configured(names: &[&str]) -> (Scratch, u16) {
    let (folder, port) = (scratch(), free_port().expect("a port"));
    let (certificate, key) = Authority::new("Weir's tests").issue(names).write(folder.path());
    let settings = format!(
        "[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n[gateway]\nlisten = \"127.0.0.1:{port}\"\n[ops]\nenabled = false\n"
    );
    fs::write(folder.path().join("weir.toml"), settings).expect("settings");
    (folder, port)
}

/// `weir`, as somebody calls it who knows the data folder; the settings lie in the working folder.
fn weir(data: &Path, folder: &Path, args: &[&str]) -> Command {
    let mut command = tied_command(WEIR.as_ref(), "KILL").expect("setpriv");
    clean(command.args(args)).env("WEIR_DATA", data).current_dir(folder);
    command
}

fn up(folder: &Scratch) -> Child {
    let out = fs::File::create(folder.path().join("up.out")).expect("a file");
    let log = fs::File::create(folder.path().join("up.log")).expect("a file");
    let mut command = weir(&folder.path().join("weir"), folder.path(), &["up", "--workers", "1"]);
    command.stdin(Stdio::null()).stdout(out).stderr(log).spawn().expect("weir starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_speaks_tls_where_the_gateway_does() {
    // The address that the commands ask at is none of the certificate's names.
    let (folder, port) = configured(&["webhooks.example.org"]);
    let elsewhere = scratch();
    let data = folder.path().join("weir");
    let mut child = up(&folder);
    let run = async |folder: &Scratch, args: &[&str]| Ended::of(weir(&data, folder.path(), args)).await;
    eventually("all is well", PATIENCE, async || {
        data.join("stack.json").exists() && run(&folder, &["status", "--output", "json"]).await.code == 0
    })
    .await;
    let url = format!("https://127.0.0.1:{port}");
    run(&folder, &["status"]).await.code(0).says(&[&url]);
    // Without these settings, `weir up` has left word where the certificate is.
    run(&elsewhere, &["send", "--count", "30"]).await.code(0).says(&[&url]);
    run(&folder, &["send", "--count", "30", "--url", &url]).await.code(0);
    let report = run(&elsewhere, &["doctor", "--output", "json"]).await.json();
    let findings = report["findings"].as_array().expect("findings");
    let gateway = findings.iter().find(|finding| finding["part"] == "gateway").expect("a gateway");
    assert_eq!((&gateway["verdict"], &gateway["found"]), (&"ok".into(), &url.as_str().into()), "{report:#}");
    let out = fs::read_to_string(folder.path().join("up.out")).expect("the table");
    assert!(
        out.contains(&format!("curl --cacert '{}' -X POST {url}/", folder.path().join("certificate.pem").display())),
        "{out}"
    );

    // Another certificate than the one that is served is not believed.
    let (stranger, _) = configured(&["webhooks.example.org"]);
    run(&stranger, &["send", "--count", "1", "--url", &url]).await.code(1).says(&["TLS: invalid peer certificate"]);

    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a pid");
    rustix::process::kill_process(pid, Signal::TERM).expect("a signal");
    let ended = tokio::task::spawn_blocking(move || child.wait()).await.expect("no panic").expect("an end");
    assert!(ended.success());
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_is_a_mistake_in_the_configuration() {
    let (folder, _) = configured(&["localhost"]);
    fs::write(folder.path().join("key.pem"), Authority::new("another").issue(&["localhost"]).key).expect("a key");
    for args in [&["gateway"][..], &["up"]] {
        let mut command = weir(&folder.path().join("weir"), folder.path(), args);
        command.env("WEIR_REDIS_URL", "redis://127.0.0.1:1/0");
        let key = format!("tls.key = {}", folder.path().join("key.pem").display());
        Ended::of(command).await.code(2).says(&[&key, "not the key of", "made together"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_commands_reach_servers_over_tls_that_an_authority_of_ours_vouches_for() {
    let (ours, folder) = (Authority::new("ours"), scratch());
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, ours.certificate()).expect("a file");
    let (certificate, key) = ours.issue(&["127.0.0.1"]).write(folder.path());
    let port = free_port().expect("a port").to_string();
    let redis = redis_with(&[
        ("tls-port", port.as_str()),
        ("tls-cert-file", certificate.to_str().expect("text")),
        ("tls-key-file", key.to_str().expect("text")),
        ("tls-auth-clients", "no"),
    ])
    .await;
    let mut postgres = own_postgres().await;
    postgres.show(&ours.issue(&["127.0.0.1"])).await;
    let database = format!("{}?sslmode=verify-full&sslrootcert={}", postgres.url("weir"), ca.display());
    let plain = redis.url();
    let guarded = plain.replacen("redis:", "rediss:", 1).replace(&format!(":{}/", redis.port()), &format!(":{port}/"));
    let mut stack = Stack::on(redis, database.clone());
    stack.set("WEIR_REDIS_URL", &guarded);
    stack.set("WEIR_REDIS_CA", ca.to_str().expect("text"));

    stack.run(&["migrate", "up"]).await.code(0);
    let (_gateway, port) = stack.start_gateway().await;
    let _worker = stack.start_worker(&database);
    let answer = request(port, "POST", "/api/v1/webhook", &body("a", "c", "text")).await.expect("an answer");
    assert_eq!(answer.status, 202);
    eventually("the row is there", PATIENCE, async || stack.rows().await == 1).await;
    let ssl = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    stack.run(&["psql", "-Atc", ssl]).await.code(0).says(&["t\n"]);
    stack.run(&["redis-cli", "ping"]).await.code(0).says(&["PONG"]);

    // Whom nobody vouches for is not asked for anything.
    let other = folder.path().join("other.pem");
    fs::write(&other, Authority::new("another").certificate()).expect("a file");
    stack.set("WEIR_REDIS_CA", other.to_str().expect("text"));
    stack.set("WEIR_DATABASE_URL", &database.replace("ca.pem", "other.pem"));
    stack.run(&["doctor"]).await.code(3).says(&[
        "Redis cannot be trusted",
        "WEIR_REDIS_CA",
        "PostgreSQL cannot be trusted",
        "sslrootcert",
    ]);
    stack.run(&["psql", "-c", "select 1"]).await.code(2).says(&["certificate verify failed"]);
    stack.run(&["redis-cli", "ping"]).await.code(1);
}
