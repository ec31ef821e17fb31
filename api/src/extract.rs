//! What handlers take from a request. As axum's extractors, but what is wrong with a request becomes a problem that names
//! the field.

use axum::body::Bytes;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::App;
use crate::problem::{Fault, Problem};

/// JSON, in or out.
pub(crate) struct Json<T>(pub(crate) T);

/// Parameters of the path.
pub(crate) struct Path<T>(pub(crate) T);

/// Parameters of the query. Unknown ones are refused if the type has `#[serde(deny_unknown_fields)]`.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::MediaType);
        }
        let limit = app.config.body_limit;
        let body = Bytes::from_request(request, app).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::TooLarge { limit },
            _ => Problem::Malformed { detail: "the body ended before its end or is badly framed".into() },
        })?;
        read(&body).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    is_json && !headers.contains_key(CONTENT_ENCODING)
}

/// Reads a body: what is no JSON at all is malformed, what is JSON of another shape names its field.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // The deserialiser would also take a list for the fields in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::invalid("body", "is no object"));
    }
    let json = &mut serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut *json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        match error.classify() {
            serde_json::error::Category::Data => {
                Problem::Invalid { faults: vec![fault(&path, &without_place(&error.to_string()))] }
            }
            _ => no_json(&error),
        }
    })?;
    json.end().map_err(|error| no_json(&error))?;
    Ok(value)
}

fn no_json(error: &serde_json::Error) -> Problem {
    Problem::Malformed { detail: format!("the body is no JSON: line {}, column {}", error.line(), error.column()) }
}

/// The message alone: where in the bytes it is, is of no use beside the name of the field.
fn without_place(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message).to_owned()
}

/// A fault of what the deserialiser says. Its words for a field that is not there or not known hold the field's name.
fn fault(path: &str, message: &str) -> Fault {
    let path = if path == "." || path == "?" { "" } else { path };
    let words = [("missing field `", "missing"), ("unknown field `", "unknown"), ("duplicate field `", "duplicate")];
    for (start, code) in words {
        let Some(name) = message.strip_prefix(start).and_then(|rest| rest.split('`').next()) else { continue };
        let field = match path {
            "" => name.to_owned(),
            path if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
            path => format!("{path}.{name}"),
        };
        return Fault { field, code, message: message.to_owned() };
    }
    let field = if path.is_empty() { "body".to_owned() } else { path.to_owned() };
    Fault { field, code: "invalid", message: message.to_owned() }
}

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        query.map(|query| Self(query.0)).map_err(|rejection| {
            let text = rejection.body_text();
            let said = text.split_once(": ").map_or(text.as_str(), |(_, said)| said);
            // `limit: is no number …`, or a sentence without a field in front.
            let (path, message) = match said.split_once(": ") {
                Some((path, message)) if !path.contains(' ') => (path, message),
                _ => ("", said),
            };
            let mut fault = fault(path, message);
            if fault.field == "body" {
                fault.field = "query".into();
            }
            Problem::Invalid { faults: vec![fault] }
        })
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, app).await;
        path.map(|path| Self(path.0)).map_err(|rejection| match rejection {
            PathRejection::FailedToDeserializePathParams(error) => of_path(error.into_kind()),
            _ => Problem::Internal,
        })
    }
}

fn of_path(kind: ErrorKind) -> Problem {
    match kind {
        ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
            Problem::invalid(key, format!("is no {}", in_words(expected_type)))
        }
        ErrorKind::ParseError { expected_type, .. } => {
            Problem::invalid("path", format!("is no {}", in_words(expected_type)))
        }
        ErrorKind::DeserializeError { key, message, .. } => Problem::invalid(key, message),
        ErrorKind::InvalidUtf8InPathParam { key } => {
            Problem::Malformed { detail: format!("{key} in the path is no UTF-8") }
        }
        _ => Problem::Internal,
    }
}

fn in_words(expected: &str) -> &str {
    match expected {
        "i64" | "u64" | "i32" | "u32" | "i16" | "u16" => "whole number that an id can have",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        #[expect(dead_code, reason = "only whether it can be read matters")]
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        #[expect(dead_code, reason = "only whether it can be read matters")]
        name: String,
    }

    fn faults(body: &str) -> Vec<(String, &'static str)> {
        match read::<Order>(body.as_bytes()).unwrap_err() {
            Problem::Invalid { faults } => faults.into_iter().map(|fault| (fault.field, fault.code)).collect(),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_body_of_another_shape_names_the_field() {
        for (body, field, code) in [
            ("{}", "items", "missing"),
            (r#"{"items":[],"role":"admin"}"#, "role", "unknown"),
            (r#"{"items":[{"name":"a"},{"nam":"b"}]}"#, "items[1].nam", "unknown"),
            (r#"{"items":[{"name":"a"},{}]}"#, "items[1].name", "missing"),
            (r#"{"items":[{"name":1}]}"#, "items[0].name", "invalid"),
            (r#"{"items":[],"items":[]}"#, "items", "duplicate"),
            ("[[]]", "body", "invalid"),
            ("7", "body", "invalid"),
        ] {
            assert_eq!(faults(body), [(field.to_owned(), code)], "{body}");
        }
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for body in ["", "{", "nonsense", r#"{"items":[]} x"#, "{\"items\":[\u{1}]}"] {
            let problem = read::<Order>(body.as_bytes()).unwrap_err();
            assert!(matches!(problem, Problem::Malformed { .. }), "{body}: {problem:?}");
        }
    }
}
