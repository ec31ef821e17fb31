//! Sources that prove who they are.

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::Method;
use sha2::Sha256;

use crate::support::{Gateway, House, Reply, message};

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

fn sign(secret: &str, body: impl AsRef<[u8]>) -> String {
    let mut mac: Hmac<Sha256> = Hmac::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_ref());
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

/// The whole answer to a request with these header lines, but for its date.
async fn answer(house: &House, path: &str, lines: &[&[u8]], body: &[u8]) -> String {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    )
    .into_bytes();
    for line in lines {
        request.extend([line, &b"\r\n"[..]].concat());
    }
    request.extend([b"\r\n", body].concat());
    let mut raw = house.gateway.connect().await;
    raw.write(request).await;
    let answer = raw.read_to_end().await;
    answer.lines().filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn whatever_is_wrong_with_a_proof_the_answer_is_the_same_to_the_byte() {
    let house = House::with(FILE, &[]).await;
    let (known, fresh) = (message("known").to_string(), message("fresh").to_string());
    send(&house, "/in/shop", &[("x-shop", "shop-secret-2")], &known).await.accepted();
    let (good, of_other) = (sign("signing-secret", &fresh), sign("another-secret", &fresh));
    let long = "a".repeat(10_000);
    let with = |name: &str, value: &[u8]| [name.as_bytes(), b": ", value].concat();
    let wrong: Vec<Vec<u8>> = [
        &b"x"[..],
        b"",
        b"\xff\xfe\x80",
        b"\t \t",
        b"null",
        b"sha256=",
        b"sha256=sha256=",
        b"sha1=2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
        b"v1,",
        b"=,=,=",
        b"====",
        b"Bearer shop-secret-2",
        b"shop-secret-0",
        b"SHOP-SECRET-2",
        b"shop-secret-2,shop-secret-2",
        long.as_bytes(),
        of_other.as_bytes(),
        &good.as_bytes()[..63],
        &[good.as_bytes(), b"00"].concat(),
    ]
    .map(<[u8]>::to_vec)
    .into();
    let mut answers = Vec::new();
    for (path, name, right) in [("/in/shop", "x-shop", "shop-secret-2"), ("/in/signed", "x-signature", good.as_str())] {
        let right = with(name, right.as_bytes());
        let mut table = vec![vec![], vec![right.clone(), right.clone()], vec![right.clone(), with(name, b"")]];
        table.extend(wrong.iter().map(|value| vec![with(name, value)]));
        table.push(vec![with("x-other", right.split_at(name.len() + 2).1)]);
        for lines in table {
            let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            for body in [known.as_bytes(), fresh.as_bytes(), b"{", b""] {
                answers.push((lines.concat(), answer(&house, path, &lines, body).await));
            }
        }
    }
    let first = answers[0].1.clone();
    assert!(first.starts_with("HTTP/1.1 401 Unauthorized\n") && first.contains("unauthorized"), "{first}");
    for (lines, other) in answers {
        assert_eq!(other, first, "{}", String::from_utf8_lossy(&lines));
    }
    assert_eq!(house.entries().await.len(), 1);
}

#[tokio::test]
async fn a_signature_is_over_the_bytes_as_they_came() {
    let house = House::with(FILE, &[]).await;
    let plain = message("a").to_string();
    let twice = plain.replacen('{', r#"{"message_text":"first","#, 1);
    let spread = plain.replace(',', ",\r\n");
    let bom = ["\u{feff}", &plain].concat();
    let broken = plain.replace("fedcba", "\u{1}").into_bytes().into_iter();
    let broken: Vec<u8> = broken.map(|byte| if byte == 1 { 0xff } else { byte }).collect();
    for (what, body, expected) in [
        ("line ends", spread.as_bytes(), 202),
        ("spaces behind it", &[plain.as_bytes(), b" \t\r\n "].concat(), 200),
        ("a key that comes twice", twice.as_bytes(), 422),
        ("a byte order mark", bom.as_bytes(), 400),
        ("bytes that are no UTF-8", &broken, 400),
        ("nothing", b"", 400),
    ] {
        let tag = sign("signing-secret", body);
        let post = async |body: Vec<u8>| {
            let headers = [("content-type", "application/json"), ("x-signature", tag.as_str())];
            house.gateway.client.send(Method::POST, "/in/signed", &headers, body).await
        };
        let reply = post(body.to_vec()).await;
        assert_eq!(reply.status, expected, "{what}: {reply:?}");
        // One byte more, which JSON would not notice.
        assert_eq!(post([body, b" "].concat()).await.status, 401, "{what}");
    }
}

#[tokio::test]
async fn a_secret_is_changed_without_a_request_that_fails() {
    let house = House::new().await;
    let url = house.redis.url();
    let gateway = async |secrets: &str| {
        let file = format!(
            "[[source]]\nname = \"signed\"\nproof = \"hmac-sha256\"\n{secrets}\n[[source]]\nname = \"shop\"\n{secrets}"
        );
        let gateway = Gateway::start(&url, 1, &file, &[]);
        gateway.ready().await;
        gateway
    };
    let body = message("a").to_string();
    // Before, while and after the sender changes over; each gateway stands for a step of the change.
    for (secrets, old, new) in [
        ("secret = \"the-old-one\"", true, false),
        ("secret = \"the-new-one\"\nprevious_secret = \"the-old-one\"", true, true),
        ("secret = \"the-new-one\"", false, true),
    ] {
        let gateway = gateway(secrets).await;
        for (secret, passes) in [("the-old-one", old), ("the-new-one", new)] {
            let signed = [("content-type", "application/json"), ("x-signature", &sign(secret, &body))];
            let held = [("content-type", "application/json"), ("x-weir-secret", secret)];
            for (path, headers) in [("/in/signed", signed), ("/in/shop", held)] {
                let status = gateway.client.send(Method::POST, path, &headers, body.clone()).await.status;
                assert_eq!(matches!(status, 200 | 202), passes, "{path}, {secret}, {secrets}: {status}");
                assert!(passes || status == 401);
            }
        }
    }
}
