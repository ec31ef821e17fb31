//! Who asks, and whether they may.

pub(crate) mod key;

mod keyring;
mod neighbour;

use std::net::SocketAddr;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use weir_store::Role;

use crate::api::App;
use crate::config::Auth;
use crate::problem::Problem;
use crate::server::Peer;
use key::ApiKey;

pub(crate) use keyring::Keyring;

/// Who asks. Handlers take it as an argument.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The name of their key, for histories.
    pub(crate) name: std::sync::Arc<str>,
    /// What they may.
    pub(crate) role: Role,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        // Only missing where a handler of a public route asks for it.
        parts.extensions.get().cloned().ok_or(Problem::Internal)
    }
}

const NO_KEY: &str = "send an API key as `Authorization: Bearer weir_…`; `weir key create` makes one";
const NOT_A_KEY: &str = "this is no API key: it was cut or mistyped, or belongs to something else";
const UNKNOWN_KEY: &str = "this API key is not known, or was revoked";

/// Lets a request pass whose caller has the role that the route asks for, or one above.
pub(crate) async fn admit(
    State((app, needs)): State<(App, Role)>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut head, body) = request.into_parts();
    let caller = identify(&app, &head).await?;
    if caller.role < needs {
        return Err(Problem::Forbidden { needs });
    }
    if needs >= Role::Write {
        // The route and not the path: an id in it is personal data.
        let route = head.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        tracing::info!(caller = &*caller.name, method = %head.method, route, "a change is asked for");
    }
    head.extensions.insert(caller);
    Ok(next.run(Request::from_parts(head, body)).await)
}

/// Who makes a call of gRPC. The headers are its metadata.
pub(crate) async fn identify_call(app: &App, peer: SocketAddr, headers: &HeaderMap) -> Result<Caller, Problem> {
    match bearer(headers)? {
        Some(text) => owner(app, text).await,
        // No browser makes such calls.
        None if app.config.auth == Auth::Development && neighbour::is_here(peer.ip(), headers) => Ok(developer()),
        None => Err(Problem::Unauthorized { detail: NO_KEY }),
    }
}

fn developer() -> Caller {
    Caller { name: "development".into(), role: Role::Admin }
}

/// Whose key this is.
async fn owner(app: &App, text: &str) -> Result<Caller, Problem> {
    let key = ApiKey::parse(text).ok_or(Problem::Unauthorized { detail: NOT_A_KEY })?;
    app.keyring.caller(&key).await?.ok_or(Problem::Unauthorized { detail: UNKNOWN_KEY })
}

async fn identify(app: &App, head: &Parts) -> Result<Caller, Problem> {
    match bearer(&head.headers)? {
        Some(text) => owner(app, text).await,
        None if app.config.auth == Auth::Development => {
            let peer = head.extensions.get::<Peer>().map(|peer| peer.0.ip());
            match peer.filter(|peer| neighbour::speaks_for_itself(*peer, head)) {
                Some(_) => Ok(developer()),
                None => Err(Problem::Unauthorized { detail: NO_KEY }),
            }
        }
        None => Err(Problem::Unauthorized { detail: NO_KEY }),
    }
}

/// The key that stands in the header; none without one. `Bearer` alone is what a shell makes of a variable that is not set.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        let is_absent = !headers.contains_key(AUTHORIZATION);
        return if is_absent { Ok(None) } else { Err(Problem::Unauthorized { detail: NOT_A_KEY }) };
    };
    let text = value.to_str().unwrap_or_default().trim();
    let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::Unauthorized { detail: NO_KEY });
    }
    Ok(Some(key.trim()).filter(|key| !key.is_empty()))
}
