//! The OpenAPI document: `/openapi.json`.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    Response, ResponseBuilder, ServerBuilder,
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::routes;

use crate::api::App;
use crate::problem::ProblemBody;
use crate::routes::{Access, Table, describe};

const BEARER: &str = "key";

const ABOUT: &str = "Takes in webhooks and answers what became of them: messages, profiles, employees, monitoring.

Everything but ingest, `/health` and these pages needs an API key: `Authorization: Bearer weir_…`. `weir key create` makes
one. Errors are problem JSON (RFC 9457). Lists are paged: `next` of a page is the `cursor` of the one that follows, and
null on the last.";

pub(crate) fn routes() -> Table {
    Table::new("Service", "Whether it works, and what it can do.").public(routes!(openapi))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", responses(
    (status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json",
     example = json!({"openapi": "3.1.0", "info": {"title": "Weir", "version": "0.1.0"}, "paths": {}}))
))]
async fn openapi(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], app.document)
}

/// The document as it is sent. It is made once.
pub(crate) fn rendered() -> Bytes {
    serde_json::to_vec(&document()).expect("a document of strings and numbers is always JSON").into()
}

fn document() -> OpenApi {
    let mut schemas = Vec::new();
    ProblemBody::schemas(&mut schemas);
    schemas.push((ProblemBody::name().into_owned(), ProblemBody::schema()));
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A key that `weir key create` made: `weir_…`."))
        .build();
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(BEARER, SecurityScheme::Http(scheme))
        .build();
    let info = InfoBuilder::new()
        .title("Weir")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build()))
        .build();
    let mut document = OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .servers(Some([ServerBuilder::new().url("/").build()]))
        .build();
    describe(&mut document);
    document
}

/// Says who may, and what the answer is to those who may not.
pub(crate) fn add_access(operation: &mut Operation, access: Access) {
    if let Access::Role(role) = access {
        let needs = format!("Needs a key of the role `{role}` or above.");
        let said = operation.description.take().filter(|said| !said.is_empty());
        operation.description = Some(said.map_or(needs.clone(), |said| format!("{said}\n\n{needs}")));
        operation.security = Some(vec![SecurityRequirement::new::<_, _, String>(BEARER, [])]);
        add(
            operation,
            "401",
            "no key, or one that is not known",
            problem("unauthorized", "unauthorized", 401, "this API key is not known, or was revoked"),
        );
        let detail = format!("this needs a key of the role {role} or above");
        add(operation, "403", "the key's role is too weak", problem("forbidden", "forbidden", 403, &detail));
    }
    let detail = "the database does not answer at the moment; try again";
    add(operation, "default", "any other problem", problem("unavailable", "unavailable", 503, detail));
    operation.responses.responses.iter_mut().for_each(|(status, response)| fill(status, response));
}

/// Every refusal is a problem: an operation that names one need not describe it.
fn fill(status: &str, response: &mut RefOr<Response>) {
    let RefOr::T(response) = response else { return };
    let Some(code) = status.parse().ok().filter(|code| *code >= 400) else { return };
    if response.content.values().any(|content| !is_problem(content)) {
        return;
    }
    let (kind, title) = match code {
        401 => ("unauthorized", "unauthorized"),
        404 => ("not-found", "not found"),
        409 => ("conflict", "conflict"),
        422 => ("invalid", "invalid request"),
        503 => ("unavailable", "unavailable"),
        _ => ("malformed", "malformed request"),
    };
    let said = response.content.values().find_map(|content| match content {
        RefOr::T(content) => content.example.clone(),
        RefOr::Ref(_) => None,
    });
    let example = said.unwrap_or_else(|| problem(kind, title, code, &response.description));
    let content = problem_content(example);
    response.content = [("application/problem+json".to_owned(), content.into())].into_iter().collect();
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) = content else { return false };
    schema.ref_location == Ref::from_schema_name(ProblemBody::name()).ref_location
}

fn problem_content(example: serde_json::Value) -> Content {
    let schema = RefOr::Ref(Ref::from_schema_name(ProblemBody::name()));
    ContentBuilder::new().schema(Some(schema)).example(Some(example)).build()
}

fn problem(kind: &str, title: &str, status: u16, detail: &str) -> serde_json::Value {
    json!({"type": format!("urn:weir:problem:{kind}"), "title": title, "status": status, "detail": detail})
}

fn add(operation: &mut Operation, status: &str, description: &str, example: serde_json::Value) {
    let content = problem_content(example);
    let response = ResponseBuilder::new().description(description).content("application/problem+json", content).build();
    operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
}
