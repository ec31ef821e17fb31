//! What one client of gRPC may take, and how long one that has gone is waited for.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use weir_api::grpc::proto::profile_service_client::ProfileServiceClient;
use weir_api::grpc::proto::{BatchGetProfilesRequest, GetProfileRequest, WatchProfileRequest};
use weir_core::shutdown::Shutdown;
use weir_stack::FaultProxy;
use weir_stack::testing::eventually;
use weir_store::Role;

use crate::grpc::code;
use crate::support::{House, PATIENCE, Running, config};

impl House {
    /// An API before the same servers that asks silent connections sooner whether anybody is there.
    fn attentive(&self, settings: &[(&str, &str)]) -> Running {
        let mut config = config(settings);
        config.grpc_alive = Duration::from_millis(500);
        let api = weir_api::build(config, self.store.clone(), self.queue.clone(), None).expect("an API");
        let (address, grpc, shutdown) = (api.addresses()[0], api.grpc_addresses()[0], Shutdown::new());
        tokio::spawn(api.run(shutdown.clone()));
        Running { address, grpc, shutdown }
    }
}

fn get() -> GetProfileRequest {
    GetProfileRequest { user_id: "1".into() }
}

fn watch() -> WatchProfileRequest {
    WatchProfileRequest { user_id: "1".into(), after_revision: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_beyond_the_limit_waits_for_a_place() {
    let house = Arc::new(House::with(&[("api.connections", "1")]).await);
    house.know("1", "Иван", "").await;
    let mut first = house.api.client().await;
    first.get_profile(house.sign(Role::Read, get())).await.unwrap();
    let second = tokio::spawn({
        let house = house.clone();
        async move { house.api.client().await.get_profile(house.sign(Role::Read, get())).await }
    });
    for _ in 0..50 {
        first.get_profile(house.sign(Role::Read, get())).await.unwrap();
    }
    assert!(!second.is_finished(), "there is one place");
    // HTTP has places of its own.
    house.get("/profiles/1").await.is(200);
    drop(first);
    second.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_whose_machine_has_vanished_is_given_up() {
    let house = House::new().await;
    let api = house.attentive(&[("api.connections", "1")]);
    let proxy = FaultProxy::start(api.grpc).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", proxy.addr())).unwrap();
    let mut watcher = ProfileServiceClient::new(endpoint.connect().await.unwrap());
    let mut stream = watcher.watch_profile(house.sign(Role::Read, watch())).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    // Nobody says goodbye, and nothing comes back.
    proxy.stall(true);
    let code = code(api.client().await.get_profile(house.sign(Role::Read, get())).await);
    assert_eq!(code, Code::NotFound, "the place is free again, and nobody knows the id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_watcher_who_is_there_is_kept() {
    let house = House::new().await;
    let api = house.attentive(&[("api.idle_timeout", "100ms")]);
    let mut client = api.client().await;
    let mut stream = client.watch_profile(house.sign(Role::Read, watch())).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    // Others who come later are ended before it, one after the other.
    for _ in 0..3 {
        idle(&api).await;
    }
    house.know("1", "Иван", "").await;
    let told = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time").unwrap().unwrap();
    assert_eq!(told.profile.unwrap().display_name, "Иван");
}

/// Connects, says so much and no more, and waits until the other side ends that.
async fn say(api: &Running, said: &[u8]) {
    let mut stream = TcpStream::connect(api.grpc).await.unwrap();
    stream.write_all(said).await.unwrap();
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    // It may be reset.
    drop(read.expect("an end"));
}

/// A client without a call, until it is cut off.
async fn idle(api: &Running) {
    say(api, &[&PREFACE[..], &frame(4, 0, 0, &[])].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_calls_is_ended() {
    let house = House::new().await;
    let api = house.attentive(&[("api.idle_timeout", "100ms")]);
    for said in [&b""[..], &PREFACE[..7]] {
        say(&api, said).await;
    }
    // Who uses theirs now and then has a new one each time.
    let mut client = api.client().await;
    for _ in 0..2 {
        assert_eq!(code(client.get_profile(house.sign(Role::Read, get())).await), Code::NotFound);
        idle(&api).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_refused_with_a_status() {
    let house = House::new().await;
    let mut client = house.api.client().await;
    let large = || BatchGetProfilesRequest { user_ids: vec!["x".repeat(5 << 20)] };
    let status = client.batch_get_profiles(house.sign(Role::Read, large())).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(status.message().contains("1048576"), "it names the limit: {status:?}");
    // Nothing of it is kept of somebody without a key.
    assert_eq!(code(client.batch_get_profiles(large()).await), Code::Unauthenticated);
    assert_eq!(code(client.get_profile(house.sign(Role::Read, get())).await), Code::NotFound, "the connection goes on");

    let mut metadata = house.sign(Role::Read, get());
    metadata.metadata_mut().insert("x-large", "y".repeat(20_000).parse().unwrap());
    let status = client.get_profile(metadata).await.unwrap_err();
    assert!(matches!(status.code(), Code::Internal | Code::Unknown | Code::ResourceExhausted), "{status:?}");
    assert_eq!(code(client.get_profile(house.sign(Role::Read, get())).await), Code::NotFound, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_a_connection_may_have_wait_for_each_other() {
    let house = House::new().await;
    let mut client = house.api.client().await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(client.watch_profile(house.sign(Role::Read, watch())).await.unwrap().into_inner());
    }
    let mut other = client.clone();
    let request = house.sign(Role::Read, get());
    let waiting = tokio::spawn(async move { code(other.get_profile(request).await) });
    let mut elsewhere = house.api.client().await;
    for _ in 0..20 {
        assert_eq!(code(elsewhere.get_profile(house.sign(Role::Read, get())).await), Code::NotFound);
    }
    assert!(!waiting.is_finished(), "it has none to spare");
    streams.pop();
    assert_eq!(waiting.await.unwrap(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_key_cannot_take_the_calls_of_those_who_have_one() {
    let house = House::new().await;
    let mut streams = Vec::new();
    let mut refused = 0;
    for _ in 0..6 {
        let endpoint = Endpoint::from_shared(format!("http://{}", house.api.grpc)).unwrap();
        let mut client = Health::new(endpoint.connect().await.unwrap());
        for _ in 0..190 {
            match client.watch().await {
                Ok(stream) => streams.push(stream),
                Err(code) => {
                    assert_eq!(code, Code::ResourceExhausted);
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((streams.len(), refused), (1000, 140));
    let mut client = house.api.client().await;
    assert_eq!(code(client.get_profile(house.sign(Role::Read, get())).await), Code::NotFound);
    drop(streams);
    let endpoint = Endpoint::from_shared(format!("http://{}", house.api.grpc)).unwrap();
    let mut client = Health::new(endpoint.connect().await.unwrap());
    eventually("their places are free again", PATIENCE, async || client.watch().await.is_ok()).await;
}

/// Watches the health of the server.
struct Health(tonic_health::pb::health_client::HealthClient<Channel>);

impl Health {
    fn new(channel: Channel) -> Self {
        Self(tonic_health::pb::health_client::HealthClient::new(channel))
    }

    async fn watch(&mut self) -> Result<tonic::Streaming<tonic_health::pb::HealthCheckResponse>, Code> {
        let watch = tonic_health::pb::HealthCheckRequest { service: String::new() };
        self.0.watch(watch).await.map(tonic::Response::into_inner).map_err(|status| status.code())
    }
}

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A call of GetProfile without a key, which is taken back at once.
fn taken_back(stream: u32) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // RFC 7541: `:method POST` and `:scheme http` are in the static table, the others are literals.
    let path = text("/weir.profiles.v1.ProfileService/GetProfile");
    let block = [&[0x83, 0x86, 0x04][..], &path, &[0x01], &text("x")].concat();
    [frame(1, 4, stream, &block), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_for_their_own_sake_end_the_connection() {
    let house = House::new().await;
    let pings = frame(6, 0, 0, &[7; 8]).repeat(100);
    let mut calls = (1..u32::MAX >> 1).step_by(2).map(taken_back);
    let floods: [&mut dyn FnMut() -> Vec<u8>; 2] =
        [&mut || pings.clone(), &mut || calls.by_ref().take(100).flatten().collect()];
    for flood in floods {
        let mut stream = TcpStream::connect(house.api.grpc).await.unwrap();
        stream.write_all(&[&PREFACE[..], &frame(4, 0, 0, &[])].concat()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let writing = async { while write.write_all(&flood()).await.is_ok() {} };
        // What comes back is taken, so that nobody waits for us.
        let reading = async {
            let mut taken = vec![0; 64 << 10];
            while read.read(&mut taken).await.is_ok_and(|n| n > 0) {}
        };
        let both = async { tokio::join!(writing, reading) };
        tokio::time::timeout(PATIENCE, both).await.expect("the flood is ended");
        let mut client = house.api.client().await;
        assert_eq!(code(client.get_profile(house.sign(Role::Read, get())).await), Code::NotFound);
    }
}
