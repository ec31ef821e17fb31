//! Many profiles at once. Each item has a result of its own.

use std::collections::HashMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_store::{Profile, ProfileChange};

use super::change::changes;
use super::dto::given;
use super::user_id::RawUserId;
use super::{ProfileBody, UserId};
use crate::api::App;
use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::{Fault, Problem};

/// Items of one request at most.
const MOST: usize = 1000;

/// Whose profiles are wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BulkGet)]
pub(super) struct GetBody {
    /// 1 to 1000 user ids: strings or whole numbers.
    #[schema(min_items = 1, max_items = 1000, example = json!(["12345", 67890]))]
    user_ids: Vec<RawUserId>,
}

/// Names for many profiles.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BulkPut)]
pub(super) struct PutBody {
    /// 1 to 1000 of them. Several for one profile count in their order.
    #[schema(min_items = 1, max_items = 1000)]
    profiles: Vec<PutItem>,
}

/// Names for one profile. What is left out stays; null or an empty text takes the name away.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BulkPutItem)]
struct PutItem {
    /// The provider's id: a string or a whole number.
    user_id: RawUserId,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    max_first_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    max_last_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "Анна Ким")]
    user_provided_name: Option<Option<String>>,
}

/// What became of each item, in their order.
#[derive(Serialize, ToSchema)]
#[schema(as = BulkResults)]
pub(super) struct Results {
    results: Vec<ItemResult>,
}

/// What became of one item.
#[derive(Serialize, ToSchema)]
#[schema(as = BulkResult)]
struct ItemResult {
    /// The id as it came.
    #[schema(example = "12345")]
    user_id: String,
    /// `found`, `not_found`, `updated` or `invalid`.
    #[schema(example = "found")]
    status: &'static str,
    /// The profile, if it was found or updated.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<ProfileBody>,
    /// What is wrong with the item, if it is invalid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<Fault>,
}

impl ItemResult {
    fn new(user_id: String, status: &'static str, profile: Option<ProfileBody>) -> Self {
        Self { user_id, status, profile, errors: Vec::new() }
    }

    fn invalid(user_id: String, errors: Vec<Fault>) -> Self {
        Self { errors, ..Self::new(user_id, "invalid", None) }
    }
}

/// Many profiles at once
///
/// In the order of the ids, each with a result of its own.
#[utoipa::path(post, path = "/profiles/bulk-get",
    request_body(content = GetBody, example = json!({"user_ids": ["12345", 67890]})),
    responses(
        (status = 200, description = "a result for each id", body = Results, example = json!({"results": [
            {"user_id": "12345", "status": "found", "profile": {
                "user_id": "12345", "display_name": "Иван Петров", "max_first_name": "Иван", "max_last_name": "Петров",
                "user_provided_name": "", "has_full_name": true, "source": "webhook",
                "last_updated": "2026-07-01T12:00:00.000000Z"
            }},
            {"user_id": "67890", "status": "not_found"}
        ]})),
    ))]
pub(super) async fn bulk_get(State(app): State<App>, Json(body): Json<GetBody>) -> Result<Json<Results>, Problem> {
    check_count("user_ids", body.user_ids.len())?;
    let ids: Vec<(String, Result<UserId, Fault>)> = body.user_ids.into_iter().map(judged).collect();
    let mut wanted: Vec<&str> = ids.iter().filter_map(|(_, id)| Some(id.as_ref().ok()?.as_str())).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let found = app.profiles.get_many(&wanted).await?;
    let result = |(raw, id): (String, Result<UserId, Fault>)| match id {
        Err(fault) => ItemResult::invalid(raw, vec![fault]),
        Ok(id) => match found.get(id.as_str()) {
            Some(profile) => ItemResult::new(raw, "found", Some(profile.clone().into())),
            None => ItemResult::new(raw, "not_found", None),
        },
    };
    Ok(Json(Results { results: ids.into_iter().map(result).collect() }))
}

/// Change the names of many profiles
///
/// As `PUT /profiles/{user_id}` for each. What is invalid is left out and says so; the others are changed together, all or
/// none.
#[utoipa::path(put, path = "/profiles/bulk",
    request_body(content = PutBody, example = json!({"profiles": [
        {"user_id": "12345", "user_provided_name": "Анна Ким"}, {"user_id": "a b", "max_first_name": "Иван"}
    ]})),
    responses(
        (status = 200, description = "a result for each item", body = Results, example = json!({"results": [
            {"user_id": "12345", "status": "updated", "profile": {
                "user_id": "12345", "display_name": "Анна Ким", "max_first_name": "Анна", "max_last_name": "",
                "user_provided_name": "Анна Ким", "has_full_name": true, "source": "user_input",
                "last_updated": "2026-07-01T12:00:00.000000Z"
            }},
            {"user_id": "a b", "status": "invalid", "errors": [{"field": "user_id", "code": "invalid",
                "message": "is no user id: 1 to 64 letters, digits, dots, dashes, underscores and @"}]}
        ]})),
    ))]
pub(super) async fn bulk_put(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<PutBody>,
) -> Result<Json<Results>, Problem> {
    check_count("profiles", body.profiles.len())?;
    let (mut wanted, mut items) = (Vec::new(), Vec::new());
    for item in body.profiles {
        let raw = item.user_id.0.clone();
        let change = item.change(&caller);
        items.push((raw, change.as_ref().map(|change| change.user_id.clone()).map_err(Clone::clone)));
        wanted.extend(change);
    }
    let changed = if wanted.is_empty() { HashMap::new() } else { app.profiles.change(&wanted).await? };
    Ok(Json(Results { results: items.into_iter().map(|(raw, id)| updated(raw, id, &changed)).collect() }))
}

fn updated(raw: String, id: Result<String, Vec<Fault>>, changed: &HashMap<String, Profile>) -> ItemResult {
    match id {
        Ok(id) => ItemResult::new(raw, "updated", changed.get(&id).cloned().map(ProfileBody::from)),
        Err(faults) => ItemResult::invalid(raw, faults),
    }
}

impl PutItem {
    fn change(self, caller: &Caller) -> Result<ProfileChange, Vec<Fault>> {
        let (_, id) = judged(self.user_id);
        let id = id.map_err(|fault| vec![fault])?;
        changes(id, caller, self.max_first_name, self.max_last_name, self.user_provided_name)
    }
}

/// The id as it came, and whether it is one.
fn judged(raw: RawUserId) -> (String, Result<UserId, Fault>) {
    let id = UserId::parse(&raw.0);
    let id = id.map_err(|reason| Fault { field: "user_id".into(), code: "invalid", message: reason.into() });
    (raw.0, id)
}

fn check_count(field: &str, count: usize) -> Result<(), Problem> {
    if (1..=MOST).contains(&count) {
        return Ok(());
    }
    Err(Problem::invalid(field, format!("has {count} items, and not 1 to {MOST}")))
}
