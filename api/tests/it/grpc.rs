//! Profiles over gRPC, by a client that is made of the same definitions, and by one that shares nothing with us.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use secrecy::SecretString;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use weir_api::grpc::proto::profile_service_client::ProfileServiceClient;
use weir_api::grpc::proto::{
    BatchGetProfilesRequest, GetProfileRequest, NameSource, SetUserProvidedNameRequest, WatchProfileRequest,
    WatchProfileResponse,
};
use weir_stack::FaultProxy;
use weir_stack::testing::{Behind, TestProxy, eventually};
use weir_store::{Role, Store, StoreOptions};

use crate::support::{House, PATIENCE, Running};

pub(crate) type Client = ProfileServiceClient<Channel>;

impl Running {
    pub(crate) async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).expect("an address");
        ProfileServiceClient::new(endpoint.connect().await.expect("a connection"))
    }
}

impl House {
    /// A call as somebody with this role.
    pub(crate) fn sign<T>(&self, role: Role, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let key = format!("Bearer {}", self.key(role)).parse().expect("metadata");
        request.metadata_mut().insert("authorization", key);
        request.set_timeout(PATIENCE);
        request
    }

    async fn watch(&self, client: &mut Client, after_revision: Option<i64>) -> Streaming<WatchProfileResponse> {
        let watch = WatchProfileRequest { user_id: "1".into(), after_revision };
        client.watch_profile(self.sign(Role::Read, watch)).await.expect("a stream").into_inner()
    }
}

fn get(user_id: &str) -> GetProfileRequest {
    GetProfileRequest { user_id: user_id.into() }
}

fn name(user_id: &str, name: &str) -> SetUserProvidedNameRequest {
    SetUserProvidedNameRequest { user_id: user_id.into(), name: name.into() }
}

pub(crate) fn code<T>(result: Result<T, Status>) -> Code {
    result.err().expect("a refusal").code()
}

/// The next message of a stream: revision and display name.
async fn next(stream: &mut Streaming<WatchProfileResponse>) -> (i64, String) {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time").expect("no end");
    let message = message.expect("no end");
    (message.revision, message.profile.map(|profile| profile.display_name).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_client_reads_and_changes_profiles() {
    let house = House::new().await;
    house.know("1", "Иван", "Петров").await;
    let mut client = house.api.client().await;
    let answer = client.get_profile(house.sign(Role::Read, get("1"))).await.unwrap().into_inner();
    let profile = answer.profile.expect("a profile");
    assert_eq!((profile.display_name.as_str(), profile.source()), ("Иван Петров", NameSource::Webhook));
    let stored = house.store.find_profile("1").await.unwrap().unwrap();
    let version = profile.last_updated.expect("a version");
    assert_eq!(version.seconds, stored.last_updated.unix_timestamp());
    assert_eq!(version.nanos, i32::try_from(stored.last_updated.nanosecond()).unwrap());

    let changed = client.set_user_provided_name(house.sign(Role::Write, name("1", "Аня"))).await.unwrap().into_inner();
    let changed = changed.profile.expect("a profile");
    assert_eq!((changed.display_name.as_str(), changed.source()), ("Аня", NameSource::UserInput));
    assert_eq!(house.get("/profiles/1").await.is(200)["display_name"], "Аня");

    let user_ids = ["2", "1", "1"].map(str::to_owned).to_vec();
    let wanted = BatchGetProfilesRequest { user_ids };
    let found = client.batch_get_profiles(house.sign(Role::Read, wanted)).await.unwrap().into_inner();
    assert_eq!((found.profiles, found.not_found), (vec![changed], vec!["2".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_cannot_be_done_says_why_in_the_words_of_grpc() {
    let house = House::new().await;
    let mut client = house.api.client().await;
    assert_eq!(code(client.get_profile(house.sign(Role::Read, get("nobody"))).await), Code::NotFound);
    assert_eq!(code(client.get_profile(house.sign(Role::Read, get("a b"))).await), Code::InvalidArgument);
    assert_eq!(
        code(client.set_user_provided_name(house.sign(Role::Write, name("1", " "))).await),
        Code::InvalidArgument
    );
    for count in [0, 1001] {
        let wanted = BatchGetProfilesRequest { user_ids: vec!["1".into(); count] };
        assert_eq!(code(client.batch_get_profiles(house.sign(Role::Read, wanted)).await), Code::InvalidArgument);
    }
    let watch = WatchProfileRequest { user_id: "stats".into(), after_revision: None };
    assert_eq!(code(client.watch_profile(house.sign(Role::Read, watch)).await), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_needs_a_key_of_the_right_role() {
    let house = House::new().await;
    house.know("1", "Иван", "").await;
    let mut client = house.api.client().await;
    assert_eq!(code(client.get_profile(get("1")).await), Code::Unauthenticated);
    let mut mistyped = Request::new(get("1"));
    mistyped.metadata_mut().insert("authorization", "Bearer weir_nonsense".parse().unwrap());
    assert_eq!(code(client.get_profile(mistyped).await), Code::Unauthenticated);
    for role in Role::ALL {
        let read = client.get_profile(house.sign(role, get("1"))).await;
        let write = client.set_user_provided_name(house.sign(role, name("1", "Аня"))).await;
        let watch = WatchProfileRequest { user_id: "1".into(), after_revision: None };
        let watch = client.watch_profile(house.sign(role, watch)).await;
        let denied = [read.is_err(), watch.is_err(), write.is_err()];
        assert_eq!(denied, [role < Role::Read, role < Role::Read, role < Role::Write], "{role}");
        if let Err(status) = write {
            assert_eq!(status.code(), Code::PermissionDenied);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_development_somebody_at_this_machine_needs_no_key_unless_a_proxy_speaks() {
    let house = House::with(&[("api.auth", "development")]).await;
    house.know("1", "Иван", "").await;
    let mut client = house.api.client().await;
    client.get_profile(get("1")).await.unwrap();
    let mut forwarded = Request::new(get("1"));
    forwarded.metadata_mut().insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
    assert_eq!(code(client.get_profile(forwarded).await), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_hears_every_change_in_order() {
    let house = House::new().await;
    let mut client = house.api.client().await;
    let mut stream = house.watch(&mut client, None).await;
    assert_eq!(next(&mut stream).await, (0, String::new()), "nobody has seen that id yet");
    house.know("1", "Иван", "").await;
    house.know("2", "Somebody", "else").await;
    for n in 0..50 {
        client.set_user_provided_name(house.sign(Role::Write, name("1", &format!("Name {n}")))).await.unwrap();
    }
    let (mut revision, first) = next(&mut stream).await;
    assert_eq!(first, "Иван");
    for n in 0..50 {
        let (later, name) = next(&mut stream).await;
        assert!(later > revision && name == format!("Name {n}"), "{name}");
        revision = later;
    }
    let version = house.store.find_profile("1").await.unwrap().unwrap().last_updated;
    let mut again = house.watch(&mut client, None).await;
    let present = again.message().await.unwrap().unwrap();
    assert_eq!((present.revision, present.cause.as_str()), (revision, ""));
    assert_eq!(present.profile.unwrap().last_updated.unwrap().nanos, i32::try_from(version.nanosecond()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_cut_off_goes_on_where_they_were_at_any_server() {
    let house = House::new().await;
    house.know("1", "Иван", "").await;
    let other = Running::start(house.store.clone(), house.queue.clone(), None, &[]);
    let mut client = house.api.client().await;
    let (revision, _) = next(&mut house.watch(&mut client, None).await).await;
    for n in 0..3 {
        client.set_user_provided_name(house.sign(Role::Write, name("1", &format!("Name {n}")))).await.unwrap();
    }
    let mut stream = house.watch(&mut other.client().await, Some(revision)).await;
    for n in 0..3 {
        assert_eq!(next(&mut stream).await.1, format!("Name {n}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_watchers_of_one_profile_each_hears_what_is_new_to_them() {
    let house = House::new().await;
    let mut client = house.api.client().await;
    let mut change = house.api.client().await;
    for n in 0..3 {
        change.set_user_provided_name(house.sign(Role::Write, name("1", &format!("Name {n}")))).await.unwrap();
    }
    let mut present = house.watch(&mut client, None).await;
    assert_eq!(next(&mut present).await.1, "Name 2");
    let mut behind = house.watch(&mut client, Some(0)).await;
    for n in 0..3 {
        assert_eq!(next(&mut behind).await.1, format!("Name {n}"));
    }
    change.set_user_provided_name(house.sign(Role::Write, name("1", "Name 3"))).await.unwrap();
    for stream in [&mut present, &mut behind] {
        assert_eq!(next(stream).await.1, "Name 3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_postgresql_delays_watchers_and_loses_nothing() {
    let house = House::new().await;
    house.know("1", "Иван", "").await;
    let address = house.database.split(['@', '/']).nth(3).expect("an address").to_owned();
    let proxy = FaultProxy::start(address.parse().expect("an address")).await;
    let url = house.database.replace(&address, &proxy.addr().to_string());
    let options =
        StoreOptions { acquire_timeout: Duration::from_secs(1), ..StoreOptions::new(SecretString::from(url)) };
    let store = Store::connect(&options).await.expect("a store");
    let api = Running::start(store, house.queue.clone(), None, &[]);
    let mut client = api.client().await;
    let mut stream = house.watch(&mut client, None).await;
    assert_eq!(next(&mut stream).await.1, "Иван");
    proxy.refuse(true);
    proxy.cut();
    let mut at_home = house.api.client().await;
    for n in 0..3 {
        at_home.set_user_provided_name(house.sign(Role::Write, name("1", &format!("Name {n}")))).await.unwrap();
    }
    assert_eq!(code(client.get_profile(house.sign(Role::Read, get("1"))).await), Code::Unavailable);
    proxy.refuse(false);
    for n in 0..3 {
        assert_eq!(next(&mut stream).await.1, format!("Name {n}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_tells_its_watchers_to_go_on_elsewhere() {
    let house = House::new().await;
    let mut client = house.api.client().await;
    let mut stream = house.watch(&mut client, None).await;
    next(&mut stream).await;
    house.api.shutdown.cancel();
    let end = tokio::time::timeout(PATIENCE, stream.message()).await.expect("an end");
    assert_eq!(end.expect_err("an end").code(), Code::Unavailable);
    eventually("the server is gone", PATIENCE, async || tokio::net::TcpStream::connect(house.api.grpc).await.is_err())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_still_taken_is_waited_for_if_that_was_asked_for() {
    let house = House::new().await;
    let taken = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut config = crate::support::config(&[("grpc.listen", &address.to_string())]);
    assert!(weir_api::build(config.clone(), house.store.clone(), house.queue.clone(), None).is_err());
    config.grpc_waits = true;
    let api = weir_api::build(config, house.store.clone(), house.queue.clone(), None).expect("an API");
    let shutdown = weir_core::shutdown::Shutdown::new();
    let running = tokio::spawn(api.run(shutdown.clone()));
    drop(taken);
    eventually("gRPC is there", PATIENCE, async || {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let Ok(channel) = endpoint.connect().await else { return false };
        code(ProfileServiceClient::new(channel).get_profile(get("1")).await) == Code::Unauthenticated
    })
    .await;
    shutdown.cancel();
    running.await.unwrap();
}

/// Far longer than it takes; the first time the client is installed as well.
const LIMIT: Duration = Duration::from_secs(600);

async fn run(mut command: tokio::process::Command) -> (bool, String) {
    command.kill_on_drop(true).stdin(Stdio::null());
    let ended = tokio::time::timeout(LIMIT, command.output()).await;
    let output = ended.expect("the command ends").expect("the command runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// Has Python's client call all that there is, at an address that speaks TLS if somebody has to be trusted. The profile 12345
/// has to be Иван Петров.
async fn official(house: &House, address: SocketAddr, authority: Option<&Path>) -> (bool, String) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpcio");
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/").join("grpcio");
    let mut install = tokio::process::Command::new(here.join("install"));
    install.arg(&tools);
    let (is_there, text) = run(install).await;
    assert!(is_there, "grpcio could not be installed: it comes from PyPI and needs python3 with venv: {text}");

    let code = weir_stack::testing::scratch();
    let mut client = tokio::process::Command::new(tools.join("bin/python"));
    client.arg(here.join("client.py")).arg(here.join("../../proto")).arg(code.path());
    client.env("MAXBOT_GRPC_ADDR", address.to_string());
    client.env("WEIR_KEY", house.key(Role::Write));
    client.envs(authority.map(|file| ("WEIR_GRPC_CA", file)));
    run(client).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_of_another_language_agrees() {
    let house = House::new().await;
    house.know("12345", "Иван", "Петров").await;
    let (agrees, text) = official(&house, house.api.grpc, None).await;
    assert!(agrees, "{text}");
}

/// In development nobody at this machine needs a key, unless a proxy speaks for them: it has to say so.
async fn through(start: impl AsyncFnOnce(&Behind) -> TestProxy) {
    let house = House::with(&[("api.auth", "development")]).await;
    house.know("12345", "Иван", "Петров").await;
    let proxy = start(&Behind { grpc: house.api.grpc, api: house.api.address, ..Behind::default() }).await;
    let (agrees, text) = official(&house, proxy.grpc, Some(&proxy.authority)).await;
    assert!(agrees, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn through_nginx_it_is_the_same() {
    through(TestProxy::nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_haproxy_it_is_the_same() {
    through(TestProxy::haproxy).await;
}
