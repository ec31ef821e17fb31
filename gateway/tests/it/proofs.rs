//! Sources that prove who they are.

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::Method;
use sha2::Sha256;

use crate::support::{House, Reply, message};

const FILE: &str = r#"
[[source]]
name = "shop"
secret = "shop-secret-2"
previous_secret = "shop-secret-1"
header = "x-shop"

[[source]]
name = "signed"
secret = "signing-secret"
proof = "hmac-sha256"
"#;

async fn send(house: &House, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let headers: Vec<_> = [("content-type", "application/json")].iter().chain(headers).copied().collect();
    house.gateway.client.send(Method::POST, path, &headers, body.to_owned()).await
}

fn sign(secret: &str, body: &str) -> String {
    let mut mac: Hmac<Sha256> = Hmac::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

#[tokio::test]
async fn a_source_with_a_secret_takes_only_requests_that_hold_it() {
    let house = House::with(FILE, &[]).await;
    let body = message("a").to_string();
    send(&house, "/in/shop", &[("x-shop", "shop-secret-2")], &body).await.accepted();
    send(&house, "/in/shop", &[("x-shop", "shop-secret-1")], &body).await.duplicate();

    let mut answers = Vec::new();
    for headers in [
        &[][..],
        &[("x-shop", "")],
        &[("x-shop", "wrong")],
        &[("x-shop", "shop-secret-22")],
        &[("x-shop", "shop-secret-2"), ("x-shop", "shop-secret-2")],
        &[("x-weir-secret", "shop-secret-2")],
    ] {
        let reply = send(&house, "/in/shop", headers, &body).await;
        assert_eq!((reply.status, reply.problem().as_str()), (401, "unauthorized"), "{headers:?}");
        answers.push(reply.bytes);
    }
    let fresh = message("never-seen").to_string();
    let signature = sign("signing-secret", &fresh);
    send(&house, "/in/signed", &[("x-signature", &signature)], &fresh).await.accepted();
    for (tag, body) in [
        (sign("another-secret", &fresh), fresh.as_str()),
        (signature.clone(), body.as_str()),
        (signature[..63].to_owned(), fresh.as_str()),
        ("sha256=".to_owned(), fresh.as_str()),
        ("not hex at all".to_owned(), fresh.as_str()),
    ] {
        let reply = send(&house, "/in/signed", &[("x-signature", &tag)], body).await;
        assert_eq!(reply.status, 401, "{tag}");
        answers.push(reply.bytes);
    }
    answers.push(send(&house, "/in/signed", &[], &fresh).await.bytes);
    // Whatever was wrong, and whether the id is known or not: one and the same body.
    answers.push(send(&house, "/in/signed", &[("x-signature", &signature[1..])], "{").await.bytes);
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(house.entries().await.len(), 2);
}

#[tokio::test]
async fn a_signature_covers_a_batch_as_a_whole() {
    let house = House::with(FILE, &[]).await;
    let body = serde_json::json!([message("a"), message("b")]).to_string();
    let tag = format!("sha256={}", sign("signing-secret", &body));
    let reply = send(&house, "/in/signed/batch", &[("x-signature", &tag)], &body).await;
    assert_eq!(reply.status, 200);
    let spaced = body.replace("},{", "}, {");
    assert_eq!(send(&house, "/in/signed/batch", &[("x-signature", &tag)], &spaced).await.status, 401);
}

#[tokio::test]
async fn a_source_without_a_secret_takes_everything() {
    let house = House::with(FILE, &[]).await;
    house.post(&message("a")).await.accepted();
}
