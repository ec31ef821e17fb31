//! The control plane: what other services and people ask and change over HTTP. It sits beside the way of the messages,
//! not on it: it reads PostgreSQL, asks the queue where a message is, and is asked by nobody who delivers.
//!
//! A request meets, in this order: `server`, which has the sockets (`connections`); `edge`, which bounds its time, survives a handler
//! that panics, counts, and sets the headers of every answer; `auth`, which knows the caller by their key and asks the
//! route table whether they may; the handler of the resource, whose arguments are read by `extract`. What goes wrong
//! anywhere is a `problem::Problem`, which is an answer in the form of RFC 9457. All SQL stays in `weir-store`.
//!
//! # How a resource is added
//!
//! 1. A module of its own (`widgets/mod.rs`), with handlers, and DTOs that derive `ToSchema` or `IntoParams`. DTOs that
//!    come in have `#[serde(deny_unknown_fields)]`. Handlers take `extract::Path`, `extract::Query`,
//!    `extract::Json`, `State<App>` and, if it matters who asks, `auth::Caller`; they return `Result<Json<…>,
//!    Problem>`. Errors of store and queue turn into problems with `?`.
//! 2. Each handler has `#[utoipa::path(get, path = "/widgets/{id}", params(…), responses((status = 200, body = …,
//!    example = json!(…))))]`: a summary in the first line of its doc comment, examples of what goes in and comes out,
//!    and every status of its own, such as `(status = 404, description = "no such widget")`: a refusal is described as a
//!    problem by itself. What all operations share (401, 403, the role in words, the problem of everything else) is added
//!    by `routes`.
//! 3. `pub(crate) fn routes() -> Table` says who may what, one line per handler:
//!    `Table::new("Widgets", "what they are").read(routes!(show)).write(routes!(change))`.
//! 4. One line in `routes::tables`. Router, access and OpenAPI document are made from that, and the matrix of
//!    `tests/it/matrix.rs` tries the new routes with every role.
//!
//! Pages have `page::Limit` and a cursor (`page::encode`, `page::decode`); times are written by `moment::text`.
//! A part that runs beside the requests is one line in `Api::start_parts`.

mod api;
mod config;

mod connections;
mod server;

mod edge;

mod routes;

mod auth;

mod extract;
mod moment;
mod page;

mod health;
mod ingest;
mod messages;

mod employees;
mod monitoring;
mod profiles;

pub mod grpc;

mod openapi;
mod swagger;

mod problem;

pub use api::{Api, ApiError, build};
pub use auth::key::ApiKey;
pub use config::{ApiConfig, Auth};
pub use employees::{EmployeesConfig, Percentage};
pub use monitoring::MonitoringConfig;
pub use routes::{Access, Route, routes};
pub use server::Service;
