//! What surrounds every request.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;

use crate::problem::Problem;

/// Bounds a request's time, and makes an answer of a panic. Every answer leaves with the same few headers.
pub(crate) async fn bound(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    // What a handler leaves half done in memory when it panics is behind locks that are looked through, see there.
    let answered = AssertUnwindSafe(tokio::time::timeout(limit, next.run(request))).catch_unwind().await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Problem::Timeout.into_response(),
        // The panic itself is in the log already.
        Err(_) => Problem::Internal.into_response(),
    };
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    response
}

/// Counts requests and their time, by route.
pub(crate) async fn count(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    // Methods are names of the sender's choice otherwise.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("weir_api_requests_total", "method" => method, "route" => route.clone(), "status" => status)
        .increment(1);
    metrics::histogram!("weir_api_seconds", "route" => route).record(started.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::middleware::{from_fn, from_fn_with_state};
    use axum::routing::get;
    use tower_service::Service as _;

    use super::*;

    async fn answer(path: &str) -> Response {
        let mut router: Router = Router::new()
            .route("/panics", get(async || -> &'static str { panic!("on purpose") }))
            .route("/hangs", get(std::future::pending::<&'static str>))
            .route("/works", get(async || "done"))
            .layer(from_fn(count))
            .layer(from_fn_with_state(Duration::from_millis(50), bound));
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        router.call(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_handler_that_panics_or_hangs_is_a_problem_and_nothing_more() {
        assert_eq!(answer("/panics").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer("/hangs").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let works = answer("/works").await;
        assert_eq!((works.status(), works.headers()["cache-control"].as_bytes()), (StatusCode::OK, &b"no-store"[..]));
    }
}
