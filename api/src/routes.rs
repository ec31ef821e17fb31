//! The one table of routes. From it come the router, who may what, and the OpenAPI document.

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::MethodRouter;
use axum::{Router, http::Method};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{OpenApi, RefOr, Schema};
use utoipa_axum::router::UtoipaMethodRouter;
use weir_store::Role;

use crate::api::App;
use crate::{auth, edge, employees, health, ingest, messages, monitoring, openapi, problem, profiles, swagger};

/// All resources.
fn tables() -> Vec<Table> {
    vec![
        ingest::routes(),
        messages::routes(),
        monitoring::routes(),
        profiles::routes(),
        employees::routes(),
        health::routes(),
        openapi::routes(),
        swagger::routes(),
    ]
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a key.
    Public,
    /// Who has this role, or one above.
    Role(Role),
    /// It is the gateway's: described here, served there.
    Gateway,
}

/// One method of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with its parameters in braces.
    pub path: String,
    /// Who may use it.
    pub access: Access,
    /// Whether the OpenAPI document names it. The pages for people are none of its operations.
    pub documented: bool,
}

/// Every route, those of the gateway among them.
pub fn routes() -> Vec<Route> {
    tables().into_iter().flat_map(|table| table.entries).flat_map(|entry| entry.routes()).collect()
}

/// The routes of one resource.
pub(crate) struct Table {
    name: &'static str,
    about: &'static str,
    entries: Vec<Entry>,
}

struct Entry {
    access: Access,
    what: What,
}

enum What {
    Operation(UtoipaMethodRouter<App>),
    Page { path: &'static str, router: MethodRouter<App> },
}

impl Table {
    /// A resource without routes; `about` is a sentence for the document.
    pub(crate) fn new(name: &'static str, about: &'static str) -> Self {
        Self { name, about, entries: Vec::new() }
    }

    /// A handler that everybody may call, without a key.
    pub(crate) fn public(self, operation: UtoipaMethodRouter<App>) -> Self {
        self.with(Access::Public, What::Operation(operation))
    }

    /// A handler for those who may read the monitoring.
    pub(crate) fn monitor(self, operation: UtoipaMethodRouter<App>) -> Self {
        self.with(Access::Role(Role::Monitor), What::Operation(operation))
    }

    /// A handler for those who may read.
    pub(crate) fn read(self, operation: UtoipaMethodRouter<App>) -> Self {
        self.with(Access::Role(Role::Read), What::Operation(operation))
    }

    /// A handler for those who may change profiles and employees.
    pub(crate) fn write(self, operation: UtoipaMethodRouter<App>) -> Self {
        self.with(Access::Role(Role::Write), What::Operation(operation))
    }

    /// A handler for those who may do everything.
    pub(crate) fn admin(self, operation: UtoipaMethodRouter<App>) -> Self {
        self.with(Access::Role(Role::Admin), What::Operation(operation))
    }

    /// Something that the gateway answers. The handler is only there to be described.
    pub(crate) fn gateway(self, operation: UtoipaMethodRouter<App>) -> Self {
        self.with(Access::Gateway, What::Operation(operation))
    }

    /// A public page for people, which is no operation of the API.
    pub(crate) fn page(self, path: &'static str, router: MethodRouter<App>) -> Self {
        self.with(Access::Public, What::Page { path, router })
    }

    fn with(mut self, access: Access, what: What) -> Self {
        self.entries.push(Entry { access, what });
        self
    }
}

impl Entry {
    fn routes(&self) -> Vec<Route> {
        let route =
            |method, path: &str, documented| Route { method, path: path.into(), access: self.access, documented };
        match &self.what {
            What::Page { path, .. } => vec![route(Method::GET, path, false)],
            What::Operation((_, paths, _)) => {
                let items = paths.paths.iter();
                items.flat_map(|(path, item)| methods(item).into_iter().map(move |it| route(it, path, true))).collect()
            }
        }
    }
}

fn methods(item: &PathItem) -> Vec<Method> {
    let there = [
        (Method::GET, item.get.is_some()),
        (Method::POST, item.post.is_some()),
        (Method::PUT, item.put.is_some()),
        (Method::PATCH, item.patch.is_some()),
        (Method::DELETE, item.delete.is_some()),
        (Method::HEAD, item.head.is_some()),
    ];
    there.into_iter().filter_map(|(method, is_there)| is_there.then_some(method)).collect()
}

/// The router over everything that this process answers.
pub(crate) fn router(app: &App) -> Router {
    let mut router = Router::new();
    for entry in tables().into_iter().flat_map(|table| table.entries) {
        let (path, methods) = match entry.what {
            What::Page { path, router } => (path.to_owned(), router),
            What::Operation((_, paths, methods)) => {
                (paths.paths.into_keys().next().expect("routes!() names a path"), methods)
            }
        };
        let methods = match entry.access {
            Access::Public => methods,
            Access::Role(role) => methods.route_layer(from_fn_with_state((app.clone(), role), auth::admit)),
            Access::Gateway => continue,
        };
        router = router.route(&path, methods);
    }
    let limit = usize::try_from(app.config.body_limit).unwrap_or(usize::MAX);
    router
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::no_path)
        .layer(DefaultBodyLimit::max(limit))
        .layer(from_fn(edge::count))
        .with_state(app.clone())
        .layer(from_fn_with_state(app.config.timeout, edge::bound))
}

/// Describes every operation: adds the tables to a document that has no paths yet.
pub(crate) fn describe(document: &mut OpenApi) {
    for table in tables() {
        let mut is_documented = false;
        for entry in table.entries {
            let What::Operation((schemas, paths, _)) = entry.what else { continue };
            is_documented = true;
            add_schemas(document, schemas);
            for (path, mut item) in paths.paths {
                for operation in operations(&mut item) {
                    finish(operation, table.name, entry.access);
                }
                match document.paths.paths.get_mut(&path) {
                    Some(there) => there.merge_operations(item),
                    None => drop(document.paths.paths.insert(path, item)),
                }
            }
        }
        let tags = document.tags.get_or_insert_default();
        if is_documented && tags.iter().all(|tag| tag.name != table.name) {
            tags.push(TagBuilder::new().name(table.name).description(Some(table.about)).build());
        }
    }
}

fn add_schemas(document: &mut OpenApi, schemas: Vec<(String, RefOr<Schema>)>) {
    document.components.get_or_insert_default().schemas.extend(schemas);
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, post, put, patch, delete, head, .. } = item;
    [get, post, put, patch, delete, head].into_iter().flatten()
}

/// Adds what all operations have in common.
fn finish(operation: &mut Operation, table: &str, access: Access) {
    operation.tags = Some(vec![table.to_owned()]);
    let name = operation.operation_id.take().unwrap_or_default();
    operation.operation_id = Some(format!("{}_{name}", table.to_lowercase().replace(' ', "_")));
    openapi::add_access(operation, access);
}
