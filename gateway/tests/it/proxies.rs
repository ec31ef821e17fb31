//! Real proxies in front of a gateway, with the files of `deploy/`.

use std::net::SocketAddr;

pub(crate) use weir_stack::testing::program;
use weir_stack::testing::{Behind, TestProxy, eventually};

use crate::support::{Gateway, House, Raw, SOON, WEBHOOK};

/// A proxy that runs until the test ends. Behind it there is no API.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    _proxy: TestProxy,
}

fn behind(gateway: &Gateway) -> Behind {
    Behind { gateway: gateway.address, ..Behind::default() }
}

impl Proxy {
    pub(crate) async fn nginx(gateway: &Gateway) -> Self {
        Self::passing_on(TestProxy::nginx(&behind(gateway)).await).await
    }

    pub(crate) async fn haproxy(gateway: &Gateway) -> Self {
        Self::passing_on(TestProxy::haproxy(&behind(gateway)).await).await
    }

    async fn passing_on(proxy: TestProxy) -> Self {
        let address = proxy.http;
        eventually("the proxy passes requests on", SOON, async || {
            let Ok(stream) = tokio::net::TcpStream::connect(address).await else { return false };
            let mut raw = Raw(stream);
            raw.write(format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
            raw.read_to_end().await.starts_with("HTTP/1.1 200")
        })
        .await;
        Self { address, _proxy: proxy }
    }
}

/// The status that comes back for a path.
async fn status(proxy: &Proxy, path: &str) -> String {
    let mut raw = Raw(tokio::net::TcpStream::connect(proxy.address).await.expect("the proxy"));
    raw.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    raw.read_to_end().await.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_send_webhooks_to_the_gateway_and_everything_else_to_the_api() {
    let house = House::new().await;
    for proxy in [Proxy::nginx(&house.gateway).await, Proxy::haproxy(&house.gateway).await] {
        for ours in ["/api/v1/webhook", "/api/v1/webhook/batch", "/webhook/max", "/in/messenger", "/in/messenger/batch"]
        {
            assert_eq!(status(&proxy, ours).await, "200", "{ours}");
        }
        assert_eq!(status(&proxy, "/in/nobody").await, "404");
        // Nobody is there, as the proxy says itself; the gateway would not know the path.
        for theirs in
            ["/", "/health", "/swagger/", "/api/v1/search", "/api/v1/webhooks", "/profiles/in", "/monitoring/alerts"]
        {
            let status = status(&proxy, theirs).await;
            assert!(["502", "503"].contains(&status.as_str()), "{theirs}: {status}");
        }
    }
}
