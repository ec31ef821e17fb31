//! Swagger UI: `/swagger/`, from the binary. Nothing is asked of anybody else: no validator, no fonts, and the browser is
//! told to allow none.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa_swagger_ui::Config;

use crate::problem::Problem;
use crate::routes::Table;

/// Scripts and requests from here alone. The page sets styles of elements by itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config =
        Config::new(["/openapi.json"]).validator_url("none").try_it_out_enabled(true).display_request_duration(true);
    Arc::new(config.persist_authorization(false))
});

pub(crate) fn routes() -> Table {
    Table::new("Pages", "For people.")
        .page("/swagger", get(async || Redirect::permanent("/swagger/")))
        .page("/swagger/", get(async || file("index.html")))
        .page("/swagger/{file}", get(async |Path(name): Path<String>| file(&name)))
}

fn file(name: &str) -> Response {
    let file = match utoipa_swagger_ui::serve(name, CONFIG.clone()) {
        Ok(Some(file)) => file,
        Ok(None) => return Problem::NoPath.into_response(),
        Err(error) => {
            tracing::error!(%error, name, "a file of Swagger UI");
            return Problem::Internal.into_response();
        }
    };
    let mut response = file.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    // What these bytes are is known: all come from the binary.
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::try_from(file.content_type).unwrap_or(HeaderValue::from_static("text/plain")),
    );
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    response
}
