//! Every route with every role and without any, from the table that the router is made of.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Value, json};
use weir_api::{Access, Route, routes};
use weir_store::Role;

use crate::support::House;

/// A path whose parameters are filled with something that nobody knows.
fn filled(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "0" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

fn has_body(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_in_who_may_and_nobody_else() {
    let house = House::new().await;
    let mut tried = 0;
    for Route { method, path, access, .. } in routes() {
        let body = has_body(&method).then(|| json!({"no-such-field": true}));
        let roles = std::iter::once(None).chain(Role::ALL.map(Some));
        for role in roles {
            let key = role.map(|role| house.key(role));
            let answer = house.call(method.clone(), &filled(&path), key, body.as_ref()).await;
            let what = format!("{method} {path} as {role:?}: {answer:?}");
            match (access, role) {
                (Access::Gateway, _) => assert!([404, 405].contains(&answer.status), "{what}"),
                (Access::Role(_), None) => assert_eq!(answer.status, 401, "{what}"),
                (Access::Role(needs), Some(role)) if role < needs => assert_eq!(answer.status, 403, "{what}"),
                (Access::Public | Access::Role(_), _) => {
                    assert!(![401, 403, 405].contains(&answer.status) && answer.status < 500, "{what}");
                    // A handler was reached: it knows no such thing, or no such field.
                    let is_no_path = answer.body.windows(18).any(|part| part == b"there is no such p");
                    assert!(!is_no_path || path == "/swagger/{file}", "{what}");
                }
            }
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_needs_no_more_than_read_and_changing_no_less_than_write() {
    for Route { method, path, access, .. } in routes() {
        let reads = method == Method::GET || path.ends_with("/lookup") || path.ends_with("/bulk-get");
        match access {
            Access::Public => assert_eq!(method, Method::GET, "{path}"),
            Access::Gateway => {}
            Access::Role(role) if path.starts_with("/monitoring") => assert_eq!(role, Role::Monitor, "{path}"),
            Access::Role(role) if reads => assert_eq!(role, Role::Read, "{method} {path}"),
            Access::Role(role) => assert!(role >= Role::Write, "{method} {path}"),
        }
    }
}

/// What nobody needs a key for is known by name.
#[test]
fn nothing_is_public_by_accident() {
    let public: BTreeSet<_> = routes()
        .into_iter()
        .filter(|route| route.access == Access::Public)
        .collect::<Vec<_>>()
        .into_iter()
        .map(|route| route.path)
        .collect();
    let known = ["/health", "/openapi.json", "/swagger", "/swagger/", "/swagger/{file}"];
    assert_eq!(public, known.map(str::to_owned).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_names_the_routes_of_the_table_and_no_others() {
    let house = House::new().await;
    let document = house.get("/openapi.json").await.is(200);
    let described: BTreeSet<(String, String)> = operations(&document).map(|(path, method, _)| (path, method)).collect();
    let table = routes().into_iter().filter(|route| route.documented);
    let table: BTreeSet<_> = table.map(|route| (route.path, route.method.as_str().to_lowercase())).collect();
    assert_eq!(described, table);
    let pages: BTreeSet<_> = routes().into_iter().filter(|route| !route.documented).map(|route| route.path).collect();
    assert!(pages.iter().all(|path| path.starts_with("/swagger")), "{pages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_says_who_may_and_has_examples_of_all_that_comes_and_goes() {
    let house = House::new().await;
    let document = house.get("/openapi.json").await.is(200);
    let routes = routes();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}: {operation}");
        let route =
            routes.iter().find(|route| route.path == path && route.method.as_str().eq_ignore_ascii_case(&method));
        let needs_key = matches!(route.unwrap().access, Access::Role(_));
        assert_eq!(operation["security"].is_array(), needs_key, "{what}");
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{what}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{what}");
        assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{what}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["schema"].is_object(), "{parameter} {what}");
        }
        if let Some(content) = operation["requestBody"]["content"].as_object() {
            assert!(content.values().all(has_example), "{what}");
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let content = response["content"].as_object();
            assert!(
                status == "204" || content.is_some_and(|content| content.values().all(has_example)),
                "{status} {what}"
            );
            let problem = &response["content"]["application/problem+json"]["example"]["status"];
            assert!(
                problem.is_null() || status == "default" || problem.as_u64() == status.parse().ok(),
                "{problem} {status} {what}"
            );
            let kind = &response["content"]["application/problem+json"]["example"]["type"];
            assert!(status != "403" || kind == "urn:weir:problem:forbidden", "{kind} {what}");
        }
    }
    assert!(ids.len() > 10, "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_the_document_refers_to_is_in_it() {
    let house = House::new().await;
    let document = house.get("/openapi.json").await.is(200);
    let mut named = BTreeSet::new();
    references(&document, &mut named);
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        let place = name.strip_prefix('#').expect("a place in the document");
        assert!(document.pointer(place).is_some(), "{name} is nowhere");
    }
}

fn references(value: &Value, named: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            named.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| references(value, named));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, named)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn has_example(content: &Value) -> bool {
    !content["example"].is_null() || content["examples"].is_object()
}

/// Path, method and operation.
fn operations(document: &Value) -> impl Iterator<Item = (String, String, &Value)> {
    let paths = document["paths"].as_object().expect("paths").iter();
    paths.flat_map(|(path, item)| {
        let methods = ["get", "post", "put", "patch", "delete", "head"];
        methods
            .into_iter()
            .filter(|method| item[method].is_object())
            .map(move |method| (path.clone(), method.to_owned(), &item[method]))
    })
}
